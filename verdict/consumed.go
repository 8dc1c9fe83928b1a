// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// passage is one packet's way through one chain: the rules that matched it, and
// how far it came. A rule that does not match leaves no trace, yet what stands
// before the failing condition has been evaluated, and may have used something up.
type passage struct {
	netns     string
	direction string
	chain     *evidence.Chain
	steps     []*evidence.Event
	all       bool // to the chain's end
	packet    *evidence.Packet
}

// consumed tells what our packets have used up or left behind in the rules they
// met: tokens of limits, quotas, entries of sets, the turn of a round robin.
func consumed(c *evidence.Case) []string {
	type fact struct {
		text, rule string
		sure       bool
	}
	count := map[fact]int{}
	var order []fact
	for _, p := range passages(c) {
		for i := range p.chain.Rules {
			r := &p.chain.Rules[i]
			if r.Text == "" {
				continue
			}
			matched, met := p.met(r)
			if !met {
				continue
			}
			for _, s := range stateful(r.Text) {
				used := s.used(matched, p.packet)
				if used == no {
					continue
				}
				k := fact{s.did + " " + quoted(s.what), ruleName(p.netns, p.chain, r), used == yes}
				if count[k] == 0 {
					order = append(order, k)
				}
				count[k]++
			}
		}
	}
	var out []string
	for _, k := range order {
		has, times := "has", ""
		if !k.sure {
			has = "may have"
		}
		if count[k] > 1 {
			times = fmt.Sprintf(" %d times", count[k])
		}
		out = append(out, fmt.Sprintf("the probe %s %s%s, %s", has, k.text, times, k.rule))
	}
	return out
}

func ruleName(netns string, k *evidence.Chain, r *evidence.FirewallRule) string {
	s := fmt.Sprintf("%s %s %s chain %s rule %d", k.Backend, k.Family, k.Table, k.Name, r.Number)
	if r.Handle != 0 {
		s += fmt.Sprintf(" (handle %d)", r.Handle)
	}
	return s + " in " + name(netns)
}

// passages groups the steps of the rule traces by packet and chain; chains that were not read are left out.
func passages(c *evidence.Case) []*passage {
	var out []*passage
	type key struct {
		netns, skb, hook, direction, backend, family, table, chain string
		trace                                                      uint32
	}
	byKey := map[key]*passage{}
	for i := range c.Events {
		e := &c.Events[i]
		s := e.Rule
		n := c.Namespace(e.Netns)
		if e.Kind != evidence.RuleVerdict || s == nil || n == nil {
			continue
		}
		chains := []string{s.Chain}
		if s.Verdict == "jump" || s.Verdict == "goto" {
			chains = append(chains, s.Target)
		}
		for _, ch := range chains {
			k := key{e.Netns, e.SKB, e.Hook, e.Direction, s.Backend, s.Family, s.Table, ch, s.TraceID}
			p := byKey[k]
			if p == nil {
				at := *s
				at.Chain = ch
				read := chain(n, &at)
				if read == nil {
					continue
				}
				p = &passage{netns: e.Netns, direction: e.Direction, chain: read, packet: packetAt(c, e)}
				byKey[k] = p
				out = append(out, p)
			}
			if ch == s.Chain {
				p.steps = append(p.steps, e)
				p.all = p.all || s.Policy || s.Verdict == "return" && s.Handle == 0 && s.Number == 0
			}
		}
	}
	return out
}

// met reports whether the packet matched the rule, and whether it came to it at all.
func (p *passage) met(r *evidence.FirewallRule) (matched, met bool) {
	furthest := 0
	for _, e := range p.steps {
		s := e.Rule
		if s.Policy {
			continue
		}
		number := s.Number
		for _, f := range p.chain.Rules {
			if s.Handle != 0 && f.Handle == s.Handle {
				number = f.Number
			}
		}
		furthest = max(furthest, number)
		matched = matched || number == r.Number && number != 0
	}
	return matched, matched || p.all || r.Number < furthest
}

// packetAt is the packet as the hook of the step e saw it; nil where that
// cannot be told because it was translated meanwhile.
func packetAt(c *evidence.Case, e *evidence.Event) *evidence.Packet {
	var found *evidence.Packet
	for _, o := range visitOf(c, e).events {
		if !carries(o) {
			continue
		}
		if found != nil && (side(found, true) != side(o.Packet, true) || side(found, false) != side(o.Packet, false)) {
			return nil
		}
		found = o.Packet
	}
	return found
}

// addConsumed tells in v what the probe itself has used up, and where a limit decided.
func addConsumed(c *evidence.Case, v *Verdict) {
	v.Consumed = consumed(c)
	r := v.Where.Rule
	if r == nil || !strings.HasPrefix(v.Cause, "firewall-") {
		return
	}
	depends := slices.ContainsFunc(stateful(r.Text), func(k keeper) bool { return k.use != acts || strings.Contains(k.what, "limit ") })
	seen := map[int]bool{}
	for _, p := range passages(c) {
		if p.netns != v.Where.Netns || p.direction != v.Direction || p.chain.Family != r.Family || p.chain.Table != r.Table || !slices.Contains(r.Path, p.chain.Name) {
			continue
		}
		for i := range p.chain.Rules {
			f := &p.chain.Rules[i]
			if matched, met := p.met(f); matched || !met || !spent(p.chain.Backend, f.Text, p.packet) || seen[f.Number] {
				continue
			}
			seen[f.Number], depends = true, true
			v.Proof = append(v.Proof, fmt.Sprintf("its limit used up, rule %d of chain %s did not take the packet: %s", f.Number, p.chain.Name, quoted(f.Text)))
		}
	}
	if depends {
		v.Transient = true
		v.Proof = append(v.Proof, "that depends on what went before: a later packet may pass by itself")
	}
}

// spent reports whether a rule that might have let a packet pass did not match because its limit was used up, and for no other reason.
func spent(backend, text string, p *evidence.Packet) bool {
	all := stateful(text)
	return len(all) == 1 && all[0].use == under && !readRule(backend, text).drops() && holds(all[0].before, p) == yes && !condition.MatchString(all[0].after)
}
