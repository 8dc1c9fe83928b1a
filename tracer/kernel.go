// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Ability is something a kernel, and the user on it, may or may not allow.
type Ability struct {
	Name   string `json:"name"`
	Works  bool   `json:"works"`
	Needed bool   `json:"needed,omitempty"` // without it nothing can be traced
	Why    string `json:"why,omitempty"`    // why it does not work
	Lost   string `json:"lost,omitempty"`   // what cannot be seen without it
	Remedy string `json:"remedy,omitempty"` // what would give it back
}

// Survey tries what the tracer can use, by doing it: a version number does not
// tell what a distribution left out or a policy forbids. Whatever must be
// attached to a namespace is attached to a new one of its own.
func Survey() []Ability {
	out := []Ability{trial(Ability{
		Name: "kernel types (BTF)", Needed: true, Lost: "everything",
		Remedy: "a kernel with CONFIG_DEBUG_INFO_BTF (every distribution's since about 2021)",
	}, tryBTF)}
	for _, tier := range []struct {
		name string
		try  func() error
	}{{Fentry + hooksOf, tryFentry}, {Kprobe + hooksOf, tryKprobe}} {
		out = append(out, trial(Ability{
			Name: tier.name, Lost: "exact firewall rules where nothing may be added to the ruleset, and those of iptables-legacy before Linux 6.4",
			Remedy: "a kernel with CONFIG_KPROBES and CONFIG_FTRACE that no lockdown or policy restricts",
		}, tier.try))
	}
	t, err := Open(Options{Hooks: Tracepoint, NetnsName: func(uint32) string { return "" }, Take: func(Record) {}})
	out = append(out, trial(Ability{
		Name: Tracepoint + hooksOf, Needed: true, Lost: "everything", Remedy: "root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
	}, func() error { return err }))
	if err != nil {
		return out
	}
	defer t.Close()
	for _, m := range t.Missing {
		what, lost, _ := strings.Cut(m, ": not seen: ")
		name, why, _ := strings.Cut(what, ": ")
		out = append(out, Ability{Name: name, Why: why, Lost: lost, Remedy: "a newer kernel"})
	}
	return append(append(out, t.surveyServers()...), t.surveyNamespace()...)
}

// surveyServers tries what tells what tcp wrappers say in a server.
func (t *Tracer) surveyServers() []Ability {
	return []Ability{
		trial(Ability{
			Name: "uprobes", Lost: "what tcp wrappers answer: that they denied is then inferred, from the files of rules that the server opens",
			Remedy: "a kernel with CONFIG_UPROBES (before Linux 6.6 CONFIG_UPROBE_EVENTS too) that no lockdown or policy restricts",
		}, t.tryUprobes),
		trial(Ability{
			Name: "tracepoint sys_exit", Lost: "without uprobes, or where a program has libwrap built in: any denial by tcp wrappers",
			Remedy: "a kernel with CONFIG_FTRACE_SYSCALLS",
		}, t.WatchOpens),
	}
}

const hooksOf = " hooks" // behind the name of a family, an ability

// Best returns the family of hooks that [Auto] takes, by what [Survey] found.
func Best(found []Ability) string {
	for _, family := range []string{Fentry, Kprobe} {
		if slices.ContainsFunc(found, func(a Ability) bool { return a.Name == family+hooksOf && a.Works }) {
			return family
		}
	}
	return Tracepoint
}

// trial fills an ability in by trying it.
func trial(a Ability, try func() error) Ability {
	err := try()
	if err == nil {
		return Ability{Name: a.Name, Works: true, Needed: a.Needed}
	}
	why, _, _ := strings.Cut(err.Error(), "\n")                                                     // a verifier's log follows
	a.Why = strings.ReplaceAll(why, " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", "") // every refusal gets this guess
	return a
}

// surveyNamespace tries what is attached to a network namespace.
func (t *Tracer) surveyNamespace() []Ability {
	var out []Ability
	err := inNewNetns(func() error {
		var st unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
			return err
		}
		inode := uint32(st.Ino)
		out = append(out, trial(Ability{
			Name: "list of netfilter hooks", Lost: "which chains and functions a packet meets",
			Remedy: "BPF_PROG_TEST_RUN of raw tracepoint programs (Linux 5.10)",
		}, func() error { _, err := t.Hooks(inode); return err }))
		out = append(out, trial(Ability{
			Name: "nftables rule trace", Lost: "the rule of nftables and iptables-nft that dropped (it is then deduced, or not named)",
			Remedy: "nf_tables with owned tables (Linux 5.12)",
		}, func() error { return t.TraceRules(inode, Key{Target: netip.MustParseAddrPort("192.0.2.1:9")}) }))
		if prog := t.coll.Programs[progObserve]; prog != nil { // else it is among what is missing
			out = append(out, trial(Ability{
				Name: "netfilter observers", Lost: "iptables-legacy rules, drops by netfilter functions that are no rules",
				Remedy: "Linux 6.4 with CONFIG_NETFILTER_BPF_LINK",
			}, func() error { _, err := t.place(prog, pfIPv4, 0, []int{0}); return err }))
		}
		return nil
	})
	if err != nil {
		out = append(out, Ability{Name: "network namespaces", Why: err.Error(), Lost: "what is attached to a namespace could not be tried", Remedy: "CAP_SYS_ADMIN"})
	}
	return out
}

// inNewNetns runs f in a network namespace that ends with it.
func inNewNetns(f func() error) error {
	err := errors.New("not run")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("make a network namespace: %w", err)
			return
		}
		err = f()
	}()
	<-done
	return err
}

func tryBTF() error {
	_, err := btf.LoadKernelSpec()
	return err
}

var doNothing = asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}

func tryFentry() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: "tcp_v4_rcv", Instructions: doNothing, License: "GPL",
	})
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := link.AttachTracing(link.TracingOptions{Program: prog})
	if err != nil {
		return err
	}
	return l.Close()
}

func tryKprobe() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.Kprobe, Instructions: doNothing, License: "GPL"})
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := link.Kprobe("tcp_v4_rcv", prog, nil)
	if err != nil {
		return err
	}
	return l.Close()
}

// Lockdown returns the kernel's lockdown mode: none, integrity or confidentiality; "" where it has none.
func Lockdown() string {
	b, err := os.ReadFile("/sys/kernel/security/lockdown")
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(b), "[")
	mode, _, _ := strings.Cut(after, "]")
	return mode
}
