// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/verdict"
)

// ourTable reports whether an nft table is a trace table of ours, of this run or another.
func ourTable(name string) bool { return strings.HasPrefix(name, "pathtrace-") }

// chainWant is a chain to read, and the rules in it that matter.
type chainWant struct {
	chainKey
	handles []uint64
	numbers []int
}

// wants collects chains in the order in which they were first wanted.
type wants []chainWant

func (w *wants) add(k chainKey, handle uint64, number int) {
	i := slices.IndexFunc(*w, func(c chainWant) bool { return c.chainKey == k })
	if i < 0 {
		i = len(*w)
		*w = append(*w, chainWant{chainKey: k})
	}
	(*w)[i].handles = append((*w)[i].handles, handle)
	(*w)[i].numbers = append((*w)[i].numbers, number)
}

// ruleChains reads the chains that decided about our packets in a namespace, as
// the user's own tools print them, and those that translated them. Where a packet was dropped in a hook and no
// rule was seen to do it, all chains of that hook are read, and those they lead
// to. Chains that let everything pass are not read otherwise.
func (g *gatherer) ruleChains(n *netcfg.Netns, name string, c *evidence.Case, hooks []evidence.Hook) evidence.Section[evidence.Chain] {
	var w wants
	told := map[string]bool{} // hooks in which a rule was seen to decide
	for _, e := range c.Events {
		if s := e.Rule; e.Netns == name && s != nil && deciding(s) {
			w.add(chainKey{name, s.Backend, s.Family, s.Table, s.Chain}, s.Handle, s.Number)
			told[e.Hook] = true
		}
	}
	seen := evidence.Case{Target: c.Target, Events: c.Events, Namespaces: []evidence.Namespace{{Name: name, Hooks: evidence.Have(hooks)}}}
	for _, t := range verdict.Translations(&seen) {
		if t.Step != nil && t.Step.Netns == name {
			s := t.Step.Rule
			w.add(chainKey{name, s.Backend, s.Family, s.Table, s.Chain}, s.Handle, s.Number)
		}
	}
	g.wantStateful(&w, n, name, c)
	for _, e := range c.Events {
		if e.Netns != name || e.Kind != evidence.Drop || e.Hook == "" || told[e.Hook] {
			continue
		}
		for _, h := range hooks {
			if h.Type == "nft" && h.Hook == e.Hook {
				w.add(chainKey{name, "nft", h.NFFamily, h.Table, h.Chain}, 0, 0)
			}
		}
	}
	out := []evidence.Chain{}
	var unread []string
	known := len(w)
	for i := 0; i < len(w); i++ {
		chain, err := g.chain(n, w[i])
		if i >= known && errors.Is(err, unix.ENOENT) {
			continue // -j DROP is written like a jump
		}
		if err != nil {
			unread = append(unread, fmt.Sprintf("%s %s %s: %v", w[i].family, w[i].table, w[i].chain, err))
			continue
		}
		out = append(out, chain)
		if len(w[i].handles) == 1 && w[i].handles[0] == 0 && w[i].backend == "nft" {
			for _, to := range jumps(chain) {
				w.add(chainKey{name, "nft", chain.Family, chain.Table, to}, 0, 0)
			}
		}
	}
	return evidence.Section[evidence.Chain]{Items: out, Unread: strings.Join(unread, "; ")}
}

// wantStateful adds the chains that our packets went through and in which a
// rule remembers packets: the probe has left its traces there. What of them
// cannot be read is left out; what decides is wanted for itself.
func (g *gatherer) wantStateful(w *wants, n *netcfg.Netns, name string, c *evidence.Case) {
	for _, e := range c.Events {
		s := e.Rule
		if e.Netns != name || s == nil {
			continue
		}
		for _, to := range []string{s.Chain, s.Target} {
			k := chainKey{name, s.Backend, s.Family, s.Table, to}
			if to == "" || to == s.Target && s.Verdict != "jump" && s.Verdict != "goto" {
				continue
			}
			rules, known := g.stateful[k]
			if !known {
				rules = g.readStateful(n, k)
				g.stateful[k] = rules
			}
			if len(rules.handles)+len(rules.numbers) == 0 {
				continue
			}
			if to == s.Chain && s.Handle+uint64(s.Number) != 0 {
				w.add(k, s.Handle, s.Number)
			}
			for _, h := range rules.handles {
				w.add(k, h, 0)
			}
			for _, i := range rules.numbers {
				w.add(k, 0, i)
			}
		}
	}
}

// stateful are rules of a chain that remember packets.
type stateful struct {
	handles []uint64
	numbers []int
}

func (g *gatherer) readStateful(n *netcfg.Netns, k chainKey) (s stateful) {
	if k.backend != "iptables-legacy" {
		s.handles, _ = n.NFTStateful(k.family, k.table, k.chain)
		return s
	}
	if t := g.tables[k.legacy()]; t != nil {
		s.numbers = t.Stateful(k.chain)
	}
	return s
}

// chain reads one chain, once.
func (g *gatherer) chain(n *netcfg.Netns, w chainWant) (evidence.Chain, error) {
	if c, ok := g.chains[w.chainKey]; ok && holds(c, w) {
		return c, nil
	}
	c, err := g.readChain(n, w)
	if err == nil {
		g.chains[w.chainKey] = c
	}
	return c, err
}

func (g *gatherer) readChain(n *netcfg.Netns, w chainWant) (evidence.Chain, error) {
	if w.backend != "iptables-legacy" {
		return n.NFTChain(w.family, w.table, w.chain, w.handles)
	}
	t, err := g.table(w.legacy())
	if err != nil {
		return evidence.Chain{}, err
	}
	return n.LegacyChain(t, w.chain, w.numbers)
}

// holds reports whether a chain that was read has the rules that are wanted now.
func holds(c evidence.Chain, w chainWant) bool {
	for i := range w.handles {
		if w.handles[i] == 0 && w.numbers[i] == 0 {
			continue
		}
		if !slices.ContainsFunc(c.Rules, func(r evidence.FirewallRule) bool {
			return w.handles[i] != 0 && r.Handle == w.handles[i] || w.numbers[i] != 0 && r.Number == w.numbers[i]
		}) {
			return false
		}
	}
	return true
}

// jumps names the chains that the rules of c lead to, as nft and iptables print them.
func jumps(c evidence.Chain) []string {
	var out []string
	for _, r := range c.Rules {
		words := strings.FieldsFunc(r.Text, func(r rune) bool { return r == ' ' || r == ',' || r == '}' || r == '{' })
		for i, w := range words[:max(0, len(words)-1)] {
			if w == "jump" || w == "goto" || w == "-j" || w == "-g" {
				out = append(out, words[i+1])
			}
		}
	}
	return out
}

// deciding reports whether a step may have ended the packet's way.
func deciding(s *evidence.RuleStep) bool {
	switch s.Verdict {
	case "accept", "continue", "jump", "goto", "return":
		return false
	}
	return true
}
