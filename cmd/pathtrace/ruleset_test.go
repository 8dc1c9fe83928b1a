// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// datagram is what a generated ruleset looks at.
type datagram struct {
	source string
	port   int // destination
}

// A generated ruleset, and its judge: what each rule does is computed here from
// the rules alone, by the documents of nft(8) and iptables(8), not by the kernel.
type (
	ruleset struct {
		legacy bool
		chains []*ruleChain // base chains first, in the order in which the packet meets them
	}
	ruleChain struct {
		family, table, name string
		hook                string // of a base chain
		priority            int
		drops               bool // its policy
		rules               []genRule
		handles             []uint64 // nft, once loaded
	}
	genRule struct {
		text    string
		matches func(datagram) bool
		verdict func(datagram) (verdict, target string) // "" for a rule that goes on
	}
)

var sources = []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}

const firstPort, ports = 5000, 16

// judge walks a packet through OUTPUT and INPUT; it returns the steps that gave a verdict.
func (r *ruleset) judge(p datagram) []string {
	var out []string
	for _, c := range r.chains {
		if c.hook == "" {
			continue
		}
		if !r.base(c, p, &out) {
			break
		}
	}
	return out
}

// base runs a base chain, and reports whether the packet lives on.
func (r *ruleset) base(c *ruleChain, p datagram, out *[]string) bool {
	switch r.run(c, p, out) {
	case "accept":
		return true
	case "drop":
		return false
	}
	verdict := "accept"
	if c.drops {
		verdict = "drop"
	}
	*out = append(*out, c.step(0, verdict, ""))
	return !c.drops
}

// run returns the verdict that ended the packet's way in c, or "" when it comes back.
func (r *ruleset) run(c *ruleChain, p datagram, out *[]string) string {
	for i, rule := range c.rules {
		if !rule.matches(p) {
			continue
		}
		verdict, target := rule.verdict(p)
		if verdict == "" {
			continue
		}
		*out = append(*out, c.step(i+1, verdict, target))
		switch verdict {
		case "return":
			return ""
		case "jump":
			if v := r.run(r.named(c, target), p, out); v != "" {
				return v
			}
		case "goto":
			return r.run(r.named(c, target), p, out)
		default:
			return verdict
		}
	}
	return ""
}

func (r *ruleset) named(like *ruleChain, name string) *ruleChain {
	i := slices.IndexFunc(r.chains, func(c *ruleChain) bool {
		return c.table == like.table && c.family == like.family && c.name == name
	})
	return r.chains[i]
}

func (c *ruleChain) step(number int, verdict, target string) string {
	return stepWords(c.family, c.table, c.name, number, verdict, target)
}

func stepWords(family, table, chain string, number int, verdict, target string) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s rule %d %s %s", family, table, chain, number, verdict, target))
}

// generator makes rulesets from a seed.
type generator struct{ *rand.Rand }

func (g generator) port() int { return firstPort + g.IntN(ports) }

// condition returns a match on ports and addresses in the words of nft or iptables.
func (g generator) condition(legacy bool) (string, func(datagram) bool) {
	a, b := g.port(), g.port()
	low, high := min(a, b), max(a, b)
	src := sources[g.IntN(len(sources))]
	from := func(p datagram) bool { return p.source == src }
	is := func(p datagram) bool { return p.port == a }
	not := func(f func(datagram) bool) func(datagram) bool { return func(p datagram) bool { return !f(p) } }
	in := func(p datagram) bool { return p.port >= low && p.port <= high }
	all := func(datagram) bool { return true }
	type choice struct {
		nft, iptables string
		f             func(datagram) bool
	}
	list := []choice{
		{fmt.Sprintf("udp dport %d", a), fmt.Sprintf("-p udp --dport %d", a), is},
		{fmt.Sprintf("udp dport != %d", a), fmt.Sprintf("-p udp ! --dport %d", a), not(is)},
		{fmt.Sprintf("udp dport %d-%d", low, high), fmt.Sprintf("-p udp --dport %d:%d", low, high), in},
		{fmt.Sprintf("udp dport { %d, %d-%d }", a, firstPort+ports, firstPort+ports+3), fmt.Sprintf("-p udp -m multiport --dports %d,%d:%d", a, firstPort+ports, firstPort+ports+3), is},
		{"ip saddr " + src, "-s " + src, from},
		{"ip saddr != " + src, "! -s " + src, not(from)},
		{fmt.Sprintf("ip saddr %s udp dport %d-%d", src, low, high), fmt.Sprintf("-s %s -p udp --dport %d:%d", src, low, high), func(p datagram) bool { return from(p) && in(p) }},
		{"meta l4proto udp", "-p udp", all},
		{"", "", all},
	}
	c := list[g.IntN(len(list))]
	if legacy {
		return c.iptables, c.f
	}
	return c.nft, c.f
}

// verdict picks what a rule does; jumps lead to the chains in further.
func (g generator) verdict(further []*ruleChain, rejects bool) (verdict, target string) {
	switch n := g.IntN(20); {
	case n < 6 && len(further) > 0:
		return "jump", further[g.IntN(len(further))].name
	case n < 9 && len(further) > 0:
		return "goto", further[g.IntN(len(further))].name
	case n < 11:
		return "accept", ""
	case n < 12:
		return "drop", ""
	case n < 13 && rejects:
		return "reject", ""
	case n < 15:
		return "return", ""
	}
	return "", ""
}

// nft makes a ruleset of nftables: one to three tables, each with base chains on OUTPUT and INPUT.
func (g generator) nft() *ruleset {
	r := &ruleset{}
	var user []*ruleChain
	priorities := g.Perm(40)
	for t := range 1 + g.IntN(3) {
		family := []string{"inet", "ip"}[g.IntN(2)]
		table := fmt.Sprintf("t%d", t)
		var base, further []*ruleChain
		for b := range 1 + g.IntN(3) {
			hook := []string{evidence.Output, evidence.Input}[g.IntN(2)]
			base = append(base, &ruleChain{family: family, table: table, name: fmt.Sprintf("base%d", b), hook: hook,
				priority: priorities[3*t+b] - 20, drops: g.IntN(4) == 0})
		}
		for u := range g.IntN(5) {
			further = append(further, &ruleChain{family: family, table: table, name: fmt.Sprintf("user%d", u)})
		}
		for i, c := range append(slices.Clone(base), further...) {
			g.fill(c, further[max(0, i-len(base)+1):])
		}
		r.chains, user = append(r.chains, base...), append(user, further...)
	}
	r.order()
	r.chains = append(r.chains, user...)
	return r
}

// order sorts base chains as the packet meets them: OUTPUT before INPUT, then by priority.
func (r *ruleset) order() {
	slices.SortStableFunc(r.chains, func(a, b *ruleChain) int {
		if a.hook != b.hook {
			return strings.Compare(b.hook, a.hook)
		}
		return a.priority - b.priority
	})
}

func (g generator) fill(c *ruleChain, further []*ruleChain) {
	for range g.IntN(7) {
		if g.IntN(6) == 0 && len(further) > 0 {
			c.rules = append(c.rules, g.vmap(further))
			continue
		}
		c.rules = append(c.rules, g.rule(further))
	}
}

// rule makes a rule of nftables with one verdict, or none.
func (g generator) rule(further []*ruleChain) genRule {
	text, f := g.condition(false)
	verdict, target := g.verdict(further, true)
	words := strings.TrimSpace(verdict + " " + target)
	if g.IntN(2) == 0 || words == "" {
		words = strings.TrimSpace("counter " + words)
	}
	if verdict == "reject" {
		verdict = "drop"
	}
	return genRule{strings.TrimSpace(text + " " + words), f, func(datagram) (string, string) { return verdict, target }}
}

// edit inserts, replaces or deletes a rule of nftables, so that handles no
// longer rise along the chain. It returns the command for nft.
func (g generator) edit(r *ruleset) (c *ruleChain, command string) {
	c = r.chains[g.IntN(len(r.chains))]
	where, rule := fmt.Sprintf("%s %s %s", c.family, c.table, c.name), g.rule(nil)
	i := 0
	if len(c.rules) > 0 {
		i = g.IntN(len(c.rules))
	}
	switch op := g.IntN(4); {
	case op == 0 || len(c.rules) == 0:
		c.rules = slices.Insert(c.rules, 0, rule)
		return c, fmt.Sprintf("insert rule %s %s", where, rule.text)
	case op == 1:
		command = fmt.Sprintf("insert rule %s handle %d %s", where, c.handles[i], rule.text)
		c.rules = slices.Insert(c.rules, i, rule)
	case op == 2 && !strings.Contains(rule.text, "{"): // nft 1.0.6 aborts where what is replaced by has a set of intervals
		command = fmt.Sprintf("replace rule %s handle %d %s", where, c.handles[i], rule.text)
		c.rules[i] = rule
	default:
		command = fmt.Sprintf("delete rule %s handle %d", where, c.handles[i])
		c.rules = slices.Delete(c.rules, i, i+1)
	}
	return c, command
}

// vmap is a rule whose verdict stands in a map, of ports or of addresses with ports.
func (g generator) vmap(further []*ruleChain) genRule {
	concat := g.IntN(2) == 0
	verdicts := map[string][2]string{}
	var parts []string
	for range 1 + g.IntN(5) {
		key := fmt.Sprint(g.port())
		if concat {
			key = sources[g.IntN(len(sources))] + " . " + key
		}
		if _, dup := verdicts[key]; dup {
			continue
		}
		verdict, target := g.verdict(further, false)
		if verdict == "" {
			verdict = "continue"
		}
		parts = append(parts, key+" : "+strings.TrimSpace(verdict+" "+target))
		if verdict == "continue" {
			verdict = ""
		}
		verdicts[key] = [2]string{verdict, target}
	}
	head, key := "udp dport", func(p datagram) string { return fmt.Sprint(p.port) }
	if concat {
		head, key = "ip saddr . udp dport", func(p datagram) string { return fmt.Sprintf("%s . %d", p.source, p.port) }
	}
	return genRule{
		text:    fmt.Sprintf("%s vmap { %s }", head, strings.Join(parts, ", ")),
		matches: func(p datagram) bool { _, ok := verdicts[key(p)]; return ok },
		verdict: func(p datagram) (string, string) { v := verdicts[key(p)]; return v[0], v[1] },
	}
}

// nftText is the ruleset as nft -f takes it: chains first, then the rules one by one.
func (r *ruleset) nftText() string {
	var tables, rules []string
	for _, c := range r.chains {
		tables = append(tables, fmt.Sprintf("add table %s %s", c.family, c.table))
	}
	slices.Sort(tables)
	text := "flush ruleset\n" + strings.Join(slices.Compact(tables), "\n") + "\n"
	for _, c := range r.chains {
		text += fmt.Sprintf("add chain %s %s %s", c.family, c.table, c.name)
		if c.hook != "" {
			policy := "accept"
			if c.drops {
				policy = "drop"
			}
			text += fmt.Sprintf(" { type filter hook %s priority %d; policy %s; }", strings.ToLower(c.hook), c.priority, policy)
		}
		text += "\n"
		for _, rule := range c.rules {
			rules = append(rules, fmt.Sprintf("add rule %s %s %s %s", c.family, c.table, c.name, rule.text))
		}
	}
	return text + strings.Join(rules, "\n") + "\n"
}

// iptables makes a ruleset of iptables-legacy, in all tables that OUTPUT and INPUT have.
func (g generator) iptables() *ruleset {
	r := &ruleset{legacy: true}
	var user []*ruleChain
	for priority, table := range []string{"raw", "mangle", "filter", "security"} {
		var further []*ruleChain
		for u := range g.IntN(4) {
			further = append(further, &ruleChain{family: "ip", table: table, name: fmt.Sprintf("USER%d", u)})
		}
		base := []*ruleChain{{family: "ip", table: table, name: evidence.Output, hook: evidence.Output, priority: priority, drops: g.IntN(8) == 0}}
		if table != "raw" {
			base = append(base, &ruleChain{family: "ip", table: table, name: evidence.Input, hook: evidence.Input, priority: priority, drops: g.IntN(8) == 0})
		}
		for i, c := range append(slices.Clone(base), further...) {
			g.fillLegacy(c, further[max(0, i-len(base)+1):])
		}
		r.chains, user = append(r.chains, base...), append(user, further...)
	}
	r.order()
	r.chains = append(r.chains, user...)
	return r
}

func (g generator) fillLegacy(c *ruleChain, further []*ruleChain) {
	for range g.IntN(7) {
		text, f := g.condition(true)
		verdict, target := g.verdict(further, c.table == "filter")
		words := map[string]string{"jump": "-j " + target, "goto": "-g " + target, "accept": "-j ACCEPT", "drop": "-j DROP", "return": "-j RETURN", "reject": "-j REJECT", "": ""}[verdict]
		if verdict == "" && c.table == "mangle" && g.IntN(2) == 0 {
			words = "-j MARK --set-mark 7"
		}
		if verdict == "reject" {
			verdict = "drop"
		}
		c.rules = append(c.rules, genRule{strings.TrimSpace(text + " " + words), f, func(datagram) (string, string) { return verdict, target }})
	}
}

// iptablesText is the ruleset as iptables-restore takes it.
func (r *ruleset) iptablesText() string {
	var text strings.Builder
	for _, table := range []string{"raw", "mangle", "filter", "security"} {
		fmt.Fprintf(&text, "*%s\n", table)
		var rules []string
		for _, c := range r.chains {
			if c.table != table {
				continue
			}
			policy := "-"
			if c.hook != "" {
				policy = map[bool]string{true: "DROP", false: "ACCEPT"}[c.drops]
			}
			fmt.Fprintf(&text, ":%s %s\n", c.name, policy)
			for _, rule := range c.rules {
				rules = append(rules, strings.TrimSpace(fmt.Sprintf("-A %s %s", c.name, rule.text)))
			}
		}
		fmt.Fprintf(&text, "%s\nCOMMIT\n", strings.Join(rules, "\n"))
	}
	return strings.ReplaceAll(text.String(), "\n\n", "\n")
}
