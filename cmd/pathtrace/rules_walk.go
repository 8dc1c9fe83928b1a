// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
)

// chainName identifies a chain of any backend; legacy is that of iptables-legacy.
type chainName struct {
	legacy              bool
	family, table, name string
}

func nameOf(c *evidence.Chain) chainName {
	return chainName{c.Backend == "iptables-legacy", c.Family, c.Table, c.Name}
}

// hooked names the chain that a hook calls.
func hooked(h evidence.Hook) chainName {
	if h.Type == "iptables-legacy" {
		return chainName{true, h.Family, h.Table, h.Hook}
	}
	return chainName{false, h.NFFamily, h.Table, h.Chain}
}

// way is where a packet goes on from a chain.
type way struct {
	on     met  // to the rule after the jump, or to the policy
	accept met  // to what the kernel asks next
	sure   bool // whatever comes to the chain goes on to the rule after the jump
}

// walker marks what a packet meets.
type walker struct {
	packet packet
	chains map[chainName]*netcfg.FirewallChain
	met    map[chainName]met
	rules  map[chainName][]met
	known  map[walked]way
	open   map[chainName]bool // chains that are being walked: a loop cannot be, but for a ruleset that changed meanwhile
}

type walked struct {
	chain chainName
	how   met
	packet
}

func newWalker(chains []netcfg.FirewallChain, p packet) *walker {
	w := &walker{packet: p, chains: map[chainName]*netcfg.FirewallChain{}, met: map[chainName]met{}, rules: map[chainName][]met{},
		known: map[walked]way{}, open: map[chainName]bool{}}
	for i := range chains {
		w.chains[nameOf(&chains[i].Chain)] = &chains[i]
	}
	return w
}

// base walks what one hook calls; it returns whether the packet goes on to what is called next.
func (w *walker) base(h evidence.Hook, how met) met {
	if h.Type != "nft" && h.Type != "iptables-legacy" {
		if h.Type == "bpf" {
			return min(how, mayMeet)
		}
		return how // conntrack, NAT and the like let an ordinary first packet pass
	}
	name := hooked(h)
	c := w.chains[name]
	if c == nil {
		return min(how, mayMeet)
	}
	out := w.chain(name, how)
	on := out.accept
	if c.Policy != "drop" {
		on = max(on, out.on)
	}
	return on
}

// chain walks one chain that the packet comes to for certain, or may come to.
func (w *walker) chain(name chainName, how met) way {
	key := walked{name, how, w.packet}
	if out, ok := w.known[key]; ok {
		return out
	}
	c := w.chains[name]
	if c == nil || w.open[name] || len(w.open) > maxNested {
		return way{on: min(how, mayMeet), accept: min(how, mayMeet)}
	}
	w.open[name] = true
	defer delete(w.open, name)
	w.met[name] = max(w.met[name], how)
	if w.rules[name] == nil {
		w.rules[name] = make([]met, len(c.Rules))
	}
	out := way{sure: true}
	at := how // whether the packet comes to the rule
	for i, rule := range c.Rules {
		r := w.packet.read(c.Backend, rule.Text)
		here := min(at, r.fits)
		w.rules[name][i] = max(w.rules[name][i], here)
		if here == notMet {
			continue
		}
		w.packet.stateUnknown = w.packet.stateUnknown || r.raw
		w.packet.sourceUnknown, w.packet.destUnknown = w.packet.sourceUnknown || r.snat, w.packet.destUnknown || r.dnat
		at = w.follow(name, r, at, here, &out)
	}
	out.on = max(out.on, at)
	w.known[key] = out
	return out
}

// maxNested is deeper than the kernel lets chains jump (NFT_JUMP_STACK_SIZE is 16).
const maxNested = 64

// follow tells what a rule that fits does; it returns whether the packet comes to the next one.
func (w *walker) follow(in chainName, r reading, at, here met, out *way) met {
	rest := notMet // of what comes to the rule and does not fit
	if r.fits != isMet {
		rest = min(at, mayMeet)
	}
	switch r.does {
	case "":
		return at
	case "accept":
		out.accept, out.sure = max(out.accept, here), false
		return rest
	case "drop":
		out.sure = false
		return rest
	case "return":
		out.on = max(out.on, here)
		return rest
	}
	sub := way{on: min(here, mayMeet), accept: min(here, mayMeet)} // not known
	if r.does == "?" {                                             // a map may also say to return
		out.on = max(out.on, sub.on)
		for _, to := range r.to {
			w.chain(chainName{in.legacy, in.family, in.table, to}, min(here, mayMeet))
		}
	} else if len(r.to) == 1 {
		sub = w.chain(chainName{in.legacy, in.family, in.table, r.to[0]}, here)
	}
	out.accept, out.sure = max(out.accept, sub.accept), out.sure && sub.sure
	if r.does == "goto" { // what the other chain does not decide goes on where this one would
		out.on = max(out.on, sub.on)
		return rest
	}
	if sub.sure {
		return at
	}
	return max(rest, sub.on)
}

// leads returns the chains to which the rules of c lead, in order.
func leads(c *evidence.Chain, known func(chainName) bool) []chainName {
	var out []chainName
	var p packet
	for _, rule := range c.Rules {
		if !strings.ContainsAny(rule.Text, "jg") { // neither -j, -g, jump nor goto
			continue
		}
		for _, to := range p.read(c.Backend, rule.Text).to {
			name := nameOf(c)
			name.name = to
			if known(name) {
				out = append(out, name)
			}
		}
	}
	return out
}
