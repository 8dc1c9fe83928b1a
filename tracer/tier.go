// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/pathtrace/pathtrace/evidence"
)

// ErrTier says that the hooks that were asked for do not work on this kernel.
var ErrTier = errors.New("these hooks do not work here")

// ways lists how functions may be hooked under Options.Hooks, best first.
func ways(hooks string) []string {
	switch hooks {
	case Fentry, Kprobe:
		return []string{hooks}
	case Tracepoint:
		return nil
	}
	return []string{Fentry, Kprobe}
}

// tier is the function tier of an open tracer.
type tier struct {
	name   string            // of the best family that works
	facts  map[string]string // what is told by functions, and by which family
	progs  map[string]*ebpf.Program
	spec   *ebpf.CollectionSpec // its programs, not yet loaded
	types  *btf.Cache
	absent map[string]bool // modules that are not loaded
	told   []string        // functions that could not be hooked, and why
	links  []link.Link     // of its programs
	before uint64          // skipped runs when the watching began
}

// skipped counts the runs of the tier's programs that the kernel left out: a
// program that is interrupted by its own hook is not run again (fentry; told
// since Linux 5.12), and a kprobe within a kprobe is not hit (told since 6.7). A
// rule may have decided in one of them.
func (y *tier) skipped() (n uint64) {
	for _, p := range y.progs {
		if s, err := p.Stats(); err == nil {
			n += s.RecursionMisses
		}
	}
	for _, l := range y.links {
		info, err := l.Info()
		if err != nil {
			continue
		}
		if e := info.PerfEvent(); e != nil && e.Kprobe() != nil {
			n += e.Kprobe().Missed
		}
	}
	return n
}

// functionPrograms takes the programs of the function tier out of spec.
func functionPrograms(spec *ebpf.CollectionSpec) map[string]*ebpf.ProgramSpec {
	out := map[string]*ebpf.ProgramSpec{}
	for name, p := range spec.Programs {
		if kind, _, _ := strings.Cut(name, "_"); slices.Contains([]string{"fentry", "fexit", "kprobe", "kretprobe"}, kind) {
			out[name] = p
			delete(spec.Programs, name)
		}
	}
	return out
}

// hookFunctions attaches to the kernel's functions by the best way that works
// for each. What no way can hook is left to the tracepoints, and is told.
func (t *Tracer) hookFunctions(hooks string, gaps map[string]bool) error {
	y := &t.tier
	y.name, y.facts, y.progs = Tracepoint, map[string]string{}, map[string]*ebpf.Program{}
	y.absent = map[string]bool{}
	want, err := y.wanted(gaps)
	if err != nil {
		return err
	}
	var refused error
	why := map[string]error{}
	for _, way := range ways(hooks) {
		if len(want) == 0 {
			break
		}
		left, err := t.hookBy(way, want, why)
		if err != nil {
			refused = errors.Join(refused, fmt.Errorf("%s: %w", way, err))
		}
		if len(left) < len(want) && y.name == Tracepoint {
			y.name = way
		}
		want = left
	}
	if y.name == Tracepoint && (hooks == Fentry || hooks == Kprobe) {
		return fmt.Errorf("%w: %w", ErrTier, refused)
	}
	if y.name == Tracepoint {
		return nil
	}
	for _, f := range want {
		y.told = append(y.told, fmt.Sprintf("function %s: %s: not seen: %s", f.Symbol, firstLine(why[f.Symbol]), f.Fact))
		delete(y.facts, f.Fact) // part of a fact is none
	}
	return nil
}

// firstLine of an error: a verifier's log follows.
func firstLine(err error) string {
	if err == nil {
		return "it cannot be hooked"
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// wanted are the functions that this kernel has now and that tell what tracepoints do not.
func (y *tier) wanted(gaps map[string]bool) ([]function, error) {
	var out []function
	for _, f := range functions {
		if f.Gap != "" && gaps[f.Gap] {
			continue
		}
		switch err := f.find(y.types); {
		case err == nil:
			out = append(out, f)
		case errors.Is(err, errAbsent) && f.Module != "":
			y.absent[f.Module] = true
		default:
			y.told = append(y.told, fmt.Sprintf("function %s: %v: not seen: %s", f.Symbol, err, f.Fact))
		}
	}
	if !slices.ContainsFunc(out, func(f function) bool { return f.Fact == factNFT }) {
		return out, nil
	}
	more, err := evaluators(y.types)
	return append(out, more...), err
}

// hookBy hooks functions one way, and returns those that it could not.
func (t *Tracer) hookBy(way string, want []function, why map[string]error) (left []function, err error) {
	y := &t.tier
	part := *y.spec
	part.Programs = map[string]*ebpf.ProgramSpec{}
	for _, f := range want {
		maps.Copy(part.Programs, f.programs(way, y.spec.Programs))
	}
	if len(part.Programs) == 0 {
		return want, nil
	}
	if way == Kprobe {
		if err := noKprobes(); err != nil {
			return want, err
		}
	}
	if err := t.tryOne(&part, want[0], way); err != nil {
		return want, err
	}
	loaded, refused := loadPrograms(&part, t.coll.Maps, y.types)
	maps.Copy(y.progs, loaded)
	for _, f := range want {
		e := t.hookOne(way, f, refused)
		if e != nil {
			left, err = append(left, f), errors.Join(err, fmt.Errorf("%s: %w", f.Symbol, e))
			why[f.Symbol] = e
			continue
		}
		y.facts[f.Fact] = way
	}
	return left, err
}

// tryOne loads the programs of one function before those of all: a kernel that refuses a way refuses the first.
func (t *Tracer) tryOne(spec *ebpf.CollectionSpec, f function, way string) error {
	one := *spec
	one.Programs = f.programs(way, t.tier.spec.Programs)
	loaded, refused := loadPrograms(&one, t.coll.Maps, t.tier.types)
	maps.Copy(t.tier.progs, loaded)
	for name := range loaded {
		delete(spec.Programs, name)
	}
	if len(refused) > 0 {
		return errors.Join(slices.Collect(maps.Values(refused))...)
	}
	return nil
}

// noKprobes tells a kernel without kprobes before programs are loaded for nothing.
// One that has them and perf events, which BPF needs, lists them since Linux 4.17.
func noKprobes() error {
	const sources = "/sys/bus/event_source/devices"
	if _, err := os.Stat(sources); err != nil {
		return nil // no sysfs: attaching will tell
	}
	if _, err := os.Stat(sources + "/kprobe"); errors.Is(err, os.ErrNotExist) {
		return errors.New("this kernel has no kprobes (CONFIG_KPROBES)")
	}
	return nil
}

// programs that hook f in a given way, under the names they are loaded by.
func (f function) programs(way string, specs map[string]*ebpf.ProgramSpec) map[string]*ebpf.ProgramSpec {
	out := map[string]*ebpf.ProgramSpec{}
	for _, kind := range kindsOf(way) {
		spec := specs[kind+"_"+f.Hook]
		if spec == nil {
			continue
		}
		if way == Fentry {
			of := *spec
			of.AttachTo = f.Symbol
			spec = &of
		}
		out[f.program(way, kind)] = spec
	}
	return out
}

// program is the name that the program of a kind is loaded by: fentry needs one for each function, kprobe does not.
func (f function) program(way, kind string) string {
	if way == Fentry {
		return kind + "_" + f.Hook + " " + f.Symbol
	}
	return kind + "_" + f.Hook
}

// kindsOf lists what hooks a function's end and its beginning; the end first, so that no beginning goes without.
func kindsOf(way string) []string {
	if way == Fentry {
		return []string{"fexit", "fentry"}
	}
	return []string{"kretprobe", "kprobe"}
}

func (t *Tracer) hookOne(way string, f function, refused map[string]error) error {
	var links []link.Link
	for _, kind := range kindsOf(way) {
		name := f.program(way, kind)
		if err := refused[name]; err != nil {
			return err
		}
		prog := t.tier.progs[name]
		if prog == nil {
			continue // this function needs none of that kind
		}
		var l link.Link
		var err error
		switch kind {
		case "kprobe":
			l, err = link.Kprobe(f.Symbol, prog, nil)
		case "kretprobe":
			l, err = link.Kretprobe(f.Symbol, prog, nil)
		default:
			l, err = link.AttachTracing(link.TracingOptions{Program: prog})
		}
		if err != nil {
			for _, l := range links {
				l.Close()
			}
			return err
		}
		links = append(links, l)
	}
	t.links = append(t.links, links...)
	t.tier.links = append(t.tier.links, links...)
	return nil
}

// Family names the best family of hooks that the tracer uses: fentry, kprobe or tracepoint.
func (t *Tracer) Family() string { return t.tier.name }

// Facts tells which family of hooks gives which fact; what is not in it comes from tracepoints.
func (t *Tracer) Facts() []evidence.HookFact {
	out := []evidence.HookFact{}
	for _, fact := range slices.Sorted(maps.Keys(t.tier.facts)) {
		out = append(out, evidence.HookFact{Fact: fact, By: t.tier.facts[fact]})
	}
	return out
}

// SeesRules reports whether rules of nftables are told by the kernel's own
// functions, so that no trace table is needed for them.
func (t *Tracer) SeesRules() bool {
	return t.tier.facts[factNFT] != "" || t.tier.name != Tracepoint && t.tier.absent["nf_tables"]
}

// SeesTables reports the same of iptables-legacy, for IP version 4 or 6. Where its module is not loaded there is nothing to see.
func (t *Tracer) SeesTables(version int) bool {
	fact, module := factLegacy4, "ip_tables"
	if version == 6 {
		fact, module = factLegacy6, "ip6_tables"
	}
	return t.tier.facts[fact] != "" || t.tier.name != Tracepoint && t.tier.absent[module]
}

// WatchTables has the counters of the x_tables tables of one IP version in a
// namespace read whenever a packet of ours goes through them. The result names
// what cannot be read.
func (t *Tracer) WatchTables(inode uint32, version int) (unseen []string, err error) {
	hooks, _, err := t.takeInventory(inode)
	if err != nil {
		return nil, err
	}
	done := map[uint64]bool{}
	for _, h := range hooks {
		if h.Type != "iptables-legacy" || h.pf != pfOf(version) || done[h.priv] {
			continue
		}
		done[h.priv] = true
		slot, why, err := t.slot(h)
		if err != nil {
			return unseen, fmt.Errorf("%s table %s: %w", h.Family, h.Table, err)
		}
		if why != "" {
			unseen = append(unseen, fmt.Sprintf("%s table %s: %s", h.Family, h.Table, why))
			continue
		}
		if err := t.coll.Maps["xt_tables"].Put(h.priv, slot); err != nil {
			return unseen, fmt.Errorf("%s table %s: %w", h.Family, h.Table, err)
		}
	}
	return unseen, nil
}
