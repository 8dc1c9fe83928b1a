// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// Trim leaves out of a case what matters least, until so many cases of its size
// fit into a bundle. c stays as it is. The result is judged as v, which is c's
// verdict, where that is possible: nothing goes on which that depends. It says in
// its own Unseen, and in leftOut, what is gone; a section that lost items counts
// as not read. leftOut is empty where the whole case fits.
func Trim(c evidence.Case, v verdict.Verdict, cases int, judge func(*evidence.Case) verdict.Verdict) (out evidence.Case, leftOut []string) {
	if fits(&c, cases) {
		return c, nil
	}
	keeps := func(c *evidence.Case) bool { return sameVerdict(judge(c), v) }
	t := &trimmer{c: c, matters: whatMatters(&c, v)}
	t.try(t.repeated, keeps)
	for _, must := range []func(*evidence.Case) bool{keeps, func(*evidence.Case) bool { return true }} {
		for _, name := range t.byImportance(v) {
			if fits(&t.c, cases) {
				break
			}
			t.try(func(c *evidence.Case) string { return t.section(c, name) }, must)
		}
		if !fits(&t.c, cases) {
			t.try(t.middle, must)
		}
	}
	t.c.Unseen = append(slices.Clone(t.c.Unseen), "left out, because the bundle would be too large: "+strings.Join(t.gone, ", "))
	return t.c, t.gone
}

// fits leaves a tenth of room: masks and substitutes may be longer than what they stand for.
func fits(c *evidence.Case, cases int) bool {
	items := 0
	for i := range c.Namespaces {
		for _, s := range sections(&c.Namespaces[i]) {
			items += s.size
		}
	}
	if len(c.Events)+len(c.Namespaces) > maxTop || items > maxObjects {
		return false // spare the encoding
	}
	var n counter
	data, err := encoded(c)
	if err != nil || n.file(File{"case.json", data}) != nil {
		return false
	}
	share := func(most int) int { return most / 10 * 9 / max(1, cases) }
	return n.objects <= share(maxObjects) && n.top <= share(maxTop) && n.bytes <= share(maxBundleCase)
}

type trimmer struct {
	c       evidence.Case
	matters matters
	gone    []string
}

// try makes a change that says what went, and takes it back where the result must not be so.
func (t *trimmer) try(change func(*evidence.Case) string, must func(*evidence.Case) bool) {
	next := t.c
	next.Namespaces = slices.Clone(t.c.Namespaces)
	if what := change(&next); what != "" && must(&next) {
		t.c, t.gone = next, append(t.gone, what)
	}
}

// repeated thins out events that say the same: of each kind the first few and the last stay.
func (t *trimmer) repeated(c *evidence.Case) string {
	const first = 4
	number, last := map[string]int{}, map[string]int{}
	signs := make([]string, len(c.Events))
	for i := range c.Events {
		signs[i] = signature(&c.Events[i])
		last[signs[i]] = i
	}
	return t.events(c, "repeated events", func(i int) bool {
		number[signs[i]]++
		return number[signs[i]] <= first || last[signs[i]] == i
	})
}

// signature is what tells an event from one of another packet like its own.
func signature(e *evidence.Event) string {
	s := fmt.Sprint(e.Kind, "|", e.Netns, "|", e.Direction, "|", e.Device, "|", e.Hook, "|", e.Reason, "|", e.Function, "|", e.Route != nil, e.State != nil)
	if p := e.Packet; p != nil {
		s += fmt.Sprint("|", class(p), p.Source, p.Dest, p.DPort)
	}
	if r := e.Rule; r != nil {
		s += fmt.Sprint("|", r.Backend, r.Family, r.Table, r.Chain, r.Handle, r.Number, r.Verdict)
	}
	if r := e.Route; r != nil {
		s += fmt.Sprint("|", r.Table, r.Dest, r.Source, r.IIF, r.Errno)
	}
	if x := e.State; x != nil {
		s += fmt.Sprint("|", x.Old, x.New)
	}
	return s
}

// middle leaves how the way began and how it ended, and what is more than a packet that passes.
func (t *trimmer) middle(c *evidence.Case) string {
	const ends = 500
	return t.events(c, "events", func(i int) bool {
		switch c.Events[i].Kind {
		case evidence.HookPassed, evidence.RuleVerdict, evidence.Route, evidence.Receive, evidence.Transmit, evidence.Consume:
			return i < ends || i >= len(c.Events)-ends
		}
		return i < 4*ends || i >= len(c.Events)-ends
	})
}

func (t *trimmer) events(c *evidence.Case, what string, keep func(int) bool) string {
	kept := make([]evidence.Event, 0, len(c.Events))
	for i := range c.Events {
		if keep(i) {
			kept = append(kept, c.Events[i])
		}
	}
	n := len(c.Events) - len(kept)
	all := len(c.Events)
	c.Events = kept
	return leftOut(n, all, what)
}

func leftOut(n, all int, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d %s", n, all, what)
}

// sectionName is a section of a namespace, by their places.
type sectionName struct {
	namespace, section int
	size               int
	decided            bool // the namespace is the probe's, or the one where it was decided
}

// byImportance lists the sections that are worth leaving out: those of other
// namespaces first, of these the largest.
func (t *trimmer) byImportance(v verdict.Verdict) []sectionName {
	var out []sectionName
	for i := range t.c.Namespaces {
		n := &t.c.Namespaces[i]
		for j, s := range sections(n) {
			if s.size > 32 {
				out = append(out, sectionName{i, j, s.size, n.Name == v.Where.Netns || n.Name == t.c.Probe.Netns})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b sectionName) int {
		if a.decided != b.decided {
			return map[bool]int{false: -1, true: 1}[a.decided]
		}
		return cmp.Compare(b.size, a.size)
	})
	return out
}

// section leaves of a section what has to do with our packets.
func (t *trimmer) section(c *evidence.Case, name sectionName) string {
	n := &c.Namespaces[name.namespace]
	s := sections(n)[name.section]
	kept := s.cut(t.matters.has)
	return leftOut(s.size-kept, s.size, s.name+" of "+n.Name)
}

// section is a [evidence.Section] of whatever type.
type section struct {
	name string
	size int
	cut  func(keep func(any) bool) (kept int)
}

func sections(n *evidence.Namespace) []section {
	return []section{
		sectionOf("netfilter hooks", &n.Hooks), sectionOf("devices", &n.Links), sectionOf("addresses", &n.Addresses),
		sectionOf("routes", &n.Routes), sectionOf("ip rules", &n.Rules), sectionOf("route lookups", &n.Lookups),
		sectionOf("neighbours", &n.Neighbors), sectionOf("sockets", &n.Sockets), sectionOf("tcp wrapper decisions", &n.Wraps),
		sectionOf("chains", &n.Chains), sectionOf("conntrack entries", &n.Conntrack), sectionOf("sysctls", &n.Sysctls),
		sectionOf("counters", &n.Counters), sectionOf("cgroup programs", &n.Programs),
	}
}

func sectionOf[T any](name string, s *evidence.Section[T]) section {
	return section{name, len(s.Items), func(keep func(any) bool) int {
		kept := []T{}
		for i := range s.Items {
			if keep(s.Items[i]) {
				kept = append(kept, s.Items[i])
			}
		}
		if n := len(s.Items) - len(kept); n > 0 {
			why := fmt.Sprintf("%d of %d left out of the bundle", n, len(s.Items))
			*s = evidence.Section[T]{Items: kept, Unread: strings.TrimPrefix(s.Unread+"; "+why, "; ")}
		}
		return len(kept)
	}}
}

// asJSON is an item as JSON: what matters is looked for in it.
func asJSON(item any) string {
	data, _ := json.Marshal(item) // plain structures
	return string(data)
}
