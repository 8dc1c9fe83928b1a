// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// suspects are the registered hook functions that can have dropped the packet
// of e: those of its hook behind the last observer that it passed and before
// the next one, without those whose own trace said that they let it pass.
// known is false when the hooks were not read.
func suspects(c *evidence.Case, e *evidence.Event, n *evidence.Namespace) (list []evidence.Hook, known bool) {
	if n == nil || !n.Hooks.Read() || e.Hook == "" {
		return nil, false
	}
	low, high := bracket(c, e)
	for _, h := range n.Hooks.Items {
		switch {
		case observer(h) || h.Hook != e.Hook || !ofFamily(h, e):
		case h.Priority <= low || h.Priority >= high:
		case strings.Contains(h.Function, "defrag") && e.Packet != nil && !e.Packet.Fragment:
		case h.Device != "" && e.Device != "" && h.Device != e.Device:
		case e.Function == "nft_do_chain" && h.Type != "nft":
		case e.Function == "nft_do_chain" && h.Function != "" && !calledBy(e, h.Function) && wrapped(e):
		case letPass(c, e, h):
		default:
			list = append(list, h)
		}
	}
	return list, true
}

// observer reports whether the hook function is one of ours, which drops
// nothing. BPF programs of others can drop like any other function.
func observer(h evidence.Hook) bool { return h.Type == "bpf" && h.Table == "pathtrace" }

// wrapped reports whether the call chain names the family's entry to nft_do_chain.
func wrapped(e *evidence.Event) bool {
	for _, s := range e.Stack {
		if strings.HasPrefix(s, "nft_do_chain_") {
			return true
		}
	}
	return false
}

// inBridge reports whether a chain of the bridge family freed the packet of e.
// Those of other families see bridged packets too, by br_netfilter.
func inBridge(e *evidence.Event) bool { return calledBy(e, "nft_do_chain_bridge") }

func ofFamily(h evidence.Hook, e *evidence.Event) bool {
	if e.Hook == evidence.Ingress || e.Hook == evidence.Egress {
		return h.Family == "netdev"
	}
	if inBridge(e) {
		return h.Family == "bridge"
	}
	if e.Packet != nil && e.Packet.Protocol == "arp" {
		return h.Family == "arp"
	}
	if h.Family == "bridge" || h.Family == "arp" || h.Family == "netdev" {
		return false
	}
	if e.Packet == nil || e.Packet.Family == 0 {
		return true
	}
	return (h.Family == "ip6") == (e.Packet.Family == 6)
}

// bracket gives the priorities between which the packet of e died, both exclusive.
func bracket(c *evidence.Case, e *evidence.Event) (low, high int) {
	const none = 1 << 32
	low, high = -none, none
	if inBridge(e) {
		return low, high // the observers are of other families, whose priorities are others
	}
	mine := func(o *evidence.Event) bool {
		return o.Kind == evidence.HookPassed && o.Priority != nil && o.Netns == e.Netns && o.Hook == e.Hook
	}
	last := -none
	for _, o := range visitOf(c, e).events {
		if !mine(o) || o.At > e.At || secondary(c, o) {
			continue
		}
		if *o.Priority <= last { // it came through this hook again
			low = -none
		}
		last = *o.Priority
		low = max(low, last)
	}
	for i := range c.Events { // an observer that another packet passed further on shows that ours did not get there
		if o := &c.Events[i]; mine(o) && *o.Priority > low && (o.Packet == nil || e.Packet == nil || o.Packet.Family == e.Packet.Family) {
			high = min(high, *o.Priority)
		}
	}
	if n := space(c, e); n != nil {
		for _, h := range n.Hooks.Items {
			if observer(h) && h.Hook == e.Hook && ofFamily(h, e) && h.Priority > low {
				high = min(high, h.Priority)
			}
		}
	}
	return low, high
}

// letPass reports whether the trace of h's own chain said that our packet went through.
func letPass(c *evidence.Case, e *evidence.Event, h evidence.Hook) bool {
	base := h.Chain
	if h.Type == "iptables-legacy" && base == "" {
		base = h.Hook
	}
	pass := false
	for _, s := range visitOf(c, e).events {
		if s.Kind != evidence.RuleVerdict || s.Rule == nil || s.Rule.Table != h.Table || s.Rule.Chain != base || base == "" || !fits(c, s, e) {
			continue
		}
		switch s.Rule.Verdict {
		case "accept":
			pass = true
		case "drop", "queue", "stolen", "jump", "goto":
			return false
		}
	}
	return pass
}

// explainNetfilter adds to an unexplained netfilter drop which functions can have done it.
func explainNetfilter(c *evidence.Case, e *evidence.Event, v *Verdict) {
	if !isNetfilter(e) {
		return
	}
	if d := decided(c, e, "drop"); d != nil {
		s := d.step.Rule
		told := "the rule trace names"
		if s.Backend == "iptables-legacy" {
			told = "the last counter that moved for our packet is that of"
		}
		v.Proof = append(v.Proof, fmt.Sprintf("%s%s, verdict %s", told, ruleWords(&Rule{
			Backend: s.Backend, Family: s.Family, Table: s.Table, Chain: s.Chain, Path: d.path, Handle: s.Handle, Number: s.Number}), s.Verdict))
	}
	if a, how := firewallAnswer(c, e); a != nil {
		v.Proof = append(v.Proof, fmt.Sprintf("the firewall answered%s %s (%s)", how, since(c, a), a.Function))
	}
	list, known := suspects(c, e, space(c, e))
	if !known {
		return
	}
	var words []string
	for _, h := range list {
		w := fmt.Sprintf("%s (priority %d", h.Function, h.Priority)
		if h.Table != "" {
			w += ", " + strings.TrimSpace(h.NFFamily+" "+h.Table+" "+h.Chain)
		}
		words = append(words, w+")")
	}
	if len(words) > 0 {
		v.Proof = append(v.Proof, fmt.Sprintf("at hook %s these can have dropped it: %s", e.Hook, strings.Join(words, ", ")))
	}
}

// plainTarget are targets of iptables that end or leave the rule without a chain of that name.
var plainTarget = regexp.MustCompile(`^(ACCEPT|RETURN|LOG|NFLOG|MARK|CONNMARK|TRACE|CT|NOTRACK|MASQUERADE|SNAT|DNAT|REDIRECT|TCPMSS|DSCP|TTL|HL|CLASSIFY|SET|AUDIT|DROP|REJECT)$`)

// excluded finds the one rule or policy that can have dropped the packet of e
// where there is no rule trace: every chain that it can have met was read
// whole, and together they hold one object that drops. Nil when there are more.
func excluded(c *evidence.Case, e *evidence.Event, n *evidence.Namespace) *decision {
	if n == nil || n.Changed || !n.Chains.Read() {
		return nil
	}
	list, known := suspects(c, e, n)
	if !known || len(list) == 0 {
		return nil
	}
	var found []*decision
	for _, h := range list {
		var base []*evidence.Chain
		for i := range n.Chains.Items {
			if k := &n.Chains.Items[i]; k.Base && hookedAs(k, h) {
				base = append(base, k)
			}
		}
		if len(base) == 0 {
			return nil
		}
		for _, k := range base {
			some, ok := droppers(n, k, nil, e)
			if !ok {
				return nil
			}
			if k.Policy == "drop" {
				policy := deduce(k, e, []string{k.Name}, evidence.FirewallRule{})
				policy.gone = slices.ContainsFunc(k.Rules, func(r evidence.FirewallRule) bool { return readRule(k.Backend, r.Text).leaves() })
				some = append(some, policy)
			}
			found = append(found, some...)
		}
	}
	if len(found) != 1 {
		return nil
	}
	return found[0]
}

// hookedAs reports whether the base chain k is what the hook function h runs.
func hookedAs(k *evidence.Chain, h evidence.Hook) bool {
	if h.Type == "iptables-legacy" {
		return k.Backend == "iptables-legacy" && k.Name == h.Hook && k.Family == h.Family && (h.Table == "" || k.Table == h.Table)
	}
	if h.Type != "nft" || k.Backend == "iptables-legacy" || k.Table != h.Table || k.Name != h.Chain {
		return false
	}
	return k.Family == h.NFFamily || h.NFFamily == "" && (k.Family == h.Family || k.Family == "inet")
}

// droppers lists the rules reachable from k that can drop; ok is false when that cannot be told from the text.
func droppers(n *evidence.Namespace, k *evidence.Chain, above []string, e *evidence.Event) (list []*decision, ok bool) {
	path := append(append([]string{}, above...), k.Name)
	if k.Total != len(k.Rules) || len(path) > 16 {
		return nil, false
	}
	for _, r := range k.Rules {
		t := readRule(k.Backend, r.Text)
		if r.Text == "" || !t.iptables && (strings.Contains(t.words, "vmap") || strings.Contains(t.words, "xt ")) {
			return nil, false
		}
		if t.drops() {
			list = append(list, deduce(k, e, path, r))
			continue
		}
		to := t.leadsTo()
		if to == "" || t.iptables && plainTarget.MatchString(to) {
			continue
		}
		next := named(n, k, to)
		if next == nil {
			return nil, false
		}
		more, fine := droppers(n, next, path, e)
		if !fine {
			return nil, false
		}
		list = append(list, more...)
	}
	return list, true
}

func named(n *evidence.Namespace, like *evidence.Chain, chain string) *evidence.Chain {
	for i := range n.Chains.Items {
		if k := &n.Chains.Items[i]; k.Name == chain && k.Backend == like.Backend && k.Family == like.Family && k.Table == like.Table {
			return k
		}
	}
	return nil
}

// deduce makes the decision that a trace would have told.
func deduce(k *evidence.Chain, e *evidence.Event, path []string, r evidence.FirewallRule) *decision {
	backend := k.Backend
	if backend == "iptables-nft" {
		backend = "nft"
	}
	return &decision{path: path, step: &evidence.Event{
		Netns: e.Netns, Hook: e.Hook, Device: e.Device, At: e.At,
		Rule: &evidence.RuleStep{
			Backend: backend, Family: k.Family, Table: k.Table, Chain: k.Name,
			Handle: r.Handle, Number: r.Number, Policy: r.Number == 0, Verdict: "drop",
		},
	}}
}
