// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"cmp"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// RouteChoice is one search for a route: which tables were asked for a packet,
// and which ip rule led to the one that answered.
type RouteChoice struct {
	First, Last *evidence.Event // of the questions; Last.Route is the answer
	Asked       []string        // tables, in order
	// Rules that can have led to the last table: one where that is certain, none where the rules were not
	// read or do not fit what was asked.
	Rules []*evidence.IPRule
	Entry string // the route that answered, as ip route show begins it; empty where it is not known
	Local bool   // the answer is that the address is the namespace's own
}

type searchKey struct {
	netns, source, dest, iif string
	mark                     uint32
}

// RouteChoices returns the searches for a route in the order in which they began.
func RouteChoices(c *evidence.Case) []*RouteChoice {
	var all []*RouteChoice
	open := map[searchKey]*RouteChoice{}
	for i := range c.Events {
		e := &c.Events[i]
		if e.Kind != evidence.Route || e.Route == nil {
			continue
		}
		k := searchKey{e.Netns, e.Route.Source, e.Route.Dest, e.Route.IIF, e.Route.Mark}
		s := open[k]
		if s == nil || !s.goesOn(c, e) {
			s = &RouteChoice{First: e}
			open[k] = s
			all = append(all, s)
		}
		s.Last = e
		s.Asked = append(s.Asked, e.Route.Table)
	}
	for _, s := range all {
		s.explain(c.Namespace(s.First.Netns))
	}
	return all
}

// answered reports whether the table that was asked last had an answer, be it a refusal.
func (s *RouteChoice) answered() bool { return s.Last.Route.Errno != "EAGAIN" }

// goesOn reports whether e belongs to the same search: no table has answered
// yet, or the rule that led to the answer may have suppressed it. A table is
// asked as often as rules lead to it.
func (s *RouteChoice) goesOn(c *evidence.Case, e *evidence.Event) bool {
	before, rules, suppressed := 0, 1, false
	for _, t := range s.Asked {
		if t == e.Route.Table {
			before++
		}
	}
	if n := c.Namespace(e.Netns); n != nil {
		six := strings.Contains(e.Route.Dest, ":")
		led := 0
		for i := range n.Rules.Items {
			r := &n.Rules.Items[i]
			if (r.Family == 6) != six {
				continue
			}
			if r.Table == e.Route.Table {
				led++
			}
			suppressed = suppressed || r.Table == s.Last.Route.Table && parseIPRule(r).suppress
		}
		rules = max(rules, led)
	}
	return before < rules && (!s.answered() || suppressed)
}

func (s *RouteChoice) explain(n *evidence.Namespace) {
	r := s.Last.Route
	if n == nil || !s.answered() {
		return
	}
	family := 4
	if a, ok := parseAddr(r.Dest); ok && a.Is6() {
		family = 6
	}
	s.Entry, s.Local = entryText(n, r)
	var rules []*evidence.IPRule
	for i := range n.Rules.Items {
		if n.Rules.Items[i].Family == family {
			rules = append(rules, &n.Rules.Items[i])
		}
	}
	if !n.Rules.Read() {
		return
	}
	asked := s.Asked
	if family == 4 && bornWith(rules) { // IPv4 then keeps the local table within main and asks no rule
		table := "main"
		if s.Local {
			table = "local"
		} else if s.Entry == "" && r.Table == "main" {
			return
		} else if r.Table == "default" {
			table = "default"
		}
		asked = []string{table}
		rules = slices.DeleteFunc(rules, func(r *evidence.IPRule) bool { return r.Table != table })
	}
	vrf := slices.ContainsFunc(rules, func(r *evidence.IPRule) bool { return parseIPRule(r).anyTables })
	w := ruleWalk{n: n, rules: rules, asked: asked, flow: r, vrf: vrf, seen: map[[2]int]bool{}}
	w.from(0, 0)
	slices.SortStableFunc(w.found, func(a, b *evidence.IPRule) int { return cmp.Compare(a.Priority, b.Priority) })
	s.Rules = w.found
}

// Table is the one that answered; IPv4 calls it main where local is kept within.
func (s *RouteChoice) Table() string {
	if s.Local && len(s.Rules) == 1 {
		return s.Rules[0].Table
	}
	return s.Last.Route.Table
}

// bornWith reports whether these are the three IPv4 rules that every namespace begins with.
func bornWith(rules []*evidence.IPRule) bool {
	if len(rules) != 3 {
		return false
	}
	for i, text := range []string{"0: from all lookup local", "32766: from all lookup main", "32767: from all lookup default"} {
		if rules[i].Text != text {
			return false
		}
	}
	return true
}

// entryText finds the entry that gave the answer r: what the kernel names when
// it is asked the same again and answers the same, else the closest of the routes that were read.
func entryText(n *evidence.Namespace, r *evidence.RouteLookup) (text string, local bool) {
	for i := range n.Lookups.Items {
		l := &n.Lookups.Items[i]
		if l.Dest != r.Dest || l.IIF != r.IIF || l.Mark != r.Mark || l.Errno != "" || r.Errno != "" || l.Text == "" || l.Table != r.Table {
			continue
		}
		words := strings.Fields(l.Text)
		if !pair(words, "dev", r.OIF) || r.Gateway != "" && !pair(words, "via", r.Gateway) {
			continue
		}
		return head(words, r), l.Type == "local"
	}
	dest, ok := parseAddr(r.Dest)
	if !ok || !n.Routes.Read() || r.Errno != "" {
		return "", r.Table == "local"
	}
	var best *evidence.RouteItem
	bits := -1
	for i := range n.Routes.Items {
		it := &n.Routes.Items[i]
		if it.Device != r.OIF && it.Device != "" || r.Gateway != "" && it.Gateway != r.Gateway || it.Table != r.Table && (it.Table != "local" || r.Table != "main") {
			continue
		}
		if p, ok := prefix(it); ok && p.Contains(dest) && p.Bits() > bits {
			best, bits = it, p.Bits()
		}
	}
	if best == nil {
		return "", r.Table == "local"
	}
	return head(strings.Fields(best.Text), r), best.Type == "local"
}

// head is an entry's type and prefix with the next hop that was chosen.
func head(words []string, r *evidence.RouteLookup) string {
	end := slices.IndexFunc(words, func(w string) bool {
		return slices.Contains([]string{"via", "dev", "nexthop", "nhid", "table", "proto", "scope", "src", "metric"}, w)
	})
	if end < 0 {
		end = len(words)
	}
	words = slices.Clone(words[:end])
	if r.Gateway != "" {
		words = append(words, "via", r.Gateway)
	}
	if r.OIF != "" {
		words = append(words, "dev", r.OIF)
	}
	return strings.Join(words, " ")
}

func pair(words []string, key, value string) bool {
	for i := 0; i+1 < len(words); i++ {
		if words[i] == key && words[i+1] == value {
			return true
		}
	}
	return false
}
