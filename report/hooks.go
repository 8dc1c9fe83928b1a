// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

type hookKey struct {
	netns, hook, direction, class string
	flight                        int
}

// hookGroup is one packet at one netfilter hook: what its chains decided.
type hookGroup struct {
	key    hookKey
	first  *evidence.Event
	last   *evidence.Event
	passed int // alive at this priority
	walks  []*walk
	drop   *evidence.Event
}

// walk is the way through one base chain and the chains it led to.
type walk struct {
	backend, family, table string
	path                   []string
	last                   evidence.RuleStep
	ended                  bool
}

func (l *ladder) group(e *evidence.Event, class string) *hookGroup {
	k := hookKey{e.Netns, e.Hook, e.Direction, class, l.flight}
	g := l.hooks[k]
	if g == nil {
		g = &hookGroup{key: k, first: e, passed: math.MinInt}
		l.hooks[k] = g
		l.order = append(l.order, k)
	}
	return g
}

func (l *ladder) hook(e *evidence.Event, class string) {
	if e.Hook == "" || e.Rule != nil && ours(e.Rule.Table) {
		return
	}
	g := l.group(e, class)
	g.last = e
	if e.Priority != nil {
		g.passed = max(g.passed, *e.Priority)
	}
	if e.Rule != nil {
		g.step(*e.Rule)
	}
}

// ours is the table that pathtrace itself adds for the time of a trace.
func ours(table string) bool { return strings.HasPrefix(table, "pathtrace") }

func (g *hookGroup) step(s evidence.RuleStep) {
	var w *walk
	if n := len(g.walks); n > 0 {
		w = g.walks[n-1]
	}
	if w == nil || w.ended || w.table != s.Table || w.family != s.Family || w.backend != s.Backend {
		w = &walk{backend: s.Backend, family: s.Family, table: s.Table}
		g.walks = append(g.walks, w)
	}
	if i := slices.Index(w.path, s.Chain); i >= 0 {
		w.path = w.path[:i+1] // back from the chains behind it
	} else {
		w.path = append(w.path, s.Chain)
	}
	w.last = s
	switch s.Verdict {
	case "jump", "goto":
		if s.Target != "" && !slices.Contains(w.path, s.Target) {
			w.path = append(w.path, s.Target)
		}
	case "accept", "drop", "queue", "stolen":
		w.ended = true
	}
}

// close adds the group's line: the rule that dropped the packet, or that the
// chains let it pass. Of packets after the first only drops are told.
func (g *hookGroup) close(l *ladder) {
	for _, w := range g.walks {
		if w.last.Verdict == "drop" || w.last.Verdict == "queue" {
			l.add(g.end(), vital, g.key.hook, w.text(l), w.mark(l, g))
			return
		}
	}
	if g.drop != nil {
		l.add(g.drop, vital, g.key.hook, dropText(g.drop), "✗ DROP")
		return
	}
	if !opens(g.key.class) || g.key.direction == evidence.Reply {
		return
	}
	if n := g.chains(l.c); n > 0 {
		l.add(g.end(), hook, g.key.hook, "accepted by "+plural(n, "chain"), "")
	}
}

func (g *hookGroup) end() *evidence.Event {
	switch {
	case g.drop != nil:
		return g.drop
	case g.last != nil:
		return g.last
	}
	return g.first
}

// chains counts those that let the packet pass: they said so themselves, or
// the packet was alive behind them. Those of type nat decide no fate.
func (g *hookGroup) chains(c *evidence.Case) int {
	seen := map[string]bool{}
	for _, w := range g.walks {
		if w.last.Verdict == "accept" {
			seen[w.family+"/"+w.table+"/"+w.base()] = true
		}
	}
	ns := c.Namespace(g.key.netns)
	if ns == nil {
		return len(seen)
	}
	family := "ip"
	if p := g.first.Packet; p != nil && p.Family == 6 {
		family = "ip6"
	}
	for _, h := range ns.Hooks.Items {
		if h.Hook != g.key.hook || h.Family != family || ours(h.Table) {
			continue
		}
		if h.NAT {
			delete(seen, h.NFFamily+"/"+h.Table+"/"+h.Chain)
			delete(seen, h.Family+"/"+h.Table+"/"+h.Hook)
			continue
		}
		if h.Priority >= g.passed {
			continue
		}
		switch h.Type {
		case "nft":
			f := h.NFFamily
			if f == "" {
				f = h.Family
			}
			seen[f+"/"+h.Table+"/"+h.Chain] = true
		case "iptables-legacy":
			seen[h.Family+"/"+h.Table+"/"+h.Hook] = true
		}
	}
	return len(seen)
}

func (w *walk) base() string { return w.path[0] }

func (w *walk) text(l *ladder) string {
	path := w.path
	r := l.v.Where.Rule
	if r != nil && w.is(r) && len(r.Path) > 0 {
		path = r.Path
	}
	s := fmt.Sprintf("%s %s %s  ", w.family, w.table, strings.Join(path, " → "))
	if w.last.Policy {
		return s + "policy"
	}
	n := w.last.Number
	switch {
	case r != nil && w.is(r) && r.Number > 0:
		n = r.Number
	case n == 0:
		n = number(l.c, l.netns(w), w)
	}
	switch {
	case n > 0 && w.last.Handle > 0:
		return s + fmt.Sprintf("rule %d (handle %d)", n, w.last.Handle)
	case n > 0:
		return s + fmt.Sprintf("rule %d", n)
	}
	return s + fmt.Sprintf("handle %d", w.last.Handle)
}

// is reports whether the verdict's rule is the one the walk ended in.
func (w *walk) is(r *verdict.Rule) bool {
	if r.Table != w.table || r.Chain != w.last.Chain || r.Family != w.family {
		return false
	}
	if w.last.Policy || r.Handle == 0 && r.Number == 0 {
		return w.last.Policy && r.Handle == 0 && r.Number == 0
	}
	return r.Handle == w.last.Handle
}

func (l *ladder) netns(w *walk) string {
	for _, k := range l.order {
		if slices.Contains(l.hooks[k].walks, w) {
			return k.netns
		}
	}
	return ""
}

// number counts a rule within its chain.
func number(c *evidence.Case, netns string, w *walk) int {
	if r := ruleOf(c, netns, w.last); r != nil {
		return r.Number
	}
	return 0
}

func ruleOf(c *evidence.Case, netns string, s evidence.RuleStep) *evidence.FirewallRule {
	ns := c.Namespace(netns)
	if ns == nil {
		return nil
	}
	for _, ch := range ns.Chains.Items {
		if ch.Family != s.Family || ch.Table != s.Table || ch.Name != s.Chain ||
			(ch.Backend == "iptables-legacy") != (s.Backend == "iptables-legacy") {
			continue
		}
		for i := range ch.Rules {
			r := &ch.Rules[i]
			if s.Handle != 0 && r.Handle == s.Handle || s.Handle == 0 && r.Number == s.Number {
				return r
			}
		}
	}
	return nil
}

func (w *walk) mark(l *ladder, g *hookGroup) string {
	if w.last.Verdict == "queue" {
		return "→ user space"
	}
	reject := strings.EqualFold(w.last.Target, "reject")
	if r := ruleOf(l.c, g.key.netns, w.last); r != nil && !w.last.Policy {
		reject = reject || strings.Contains(strings.ToLower(r.Text), "reject")
	}
	if v := l.v; v.Cause == "firewall-reject" && v.Where.At(l.c) == g.key.netns && v.Where.Rule != nil && w.is(v.Where.Rule) {
		reject = true
	}
	if reject {
		return "✗ REJECT"
	}
	return "✗ DROP"
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
