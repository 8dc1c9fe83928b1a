// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// Translation is a change that NAT made to one side of a packet in a namespace.
// The first packet of a connection asks the rules; what follows, and the
// answers, conntrack translates without them.
type Translation struct {
	Event    *evidence.Event // the first that shows the packet changed
	Source   bool            // its source was changed, else its destination
	From, To string          // address and port; the address alone where there is no port
	Hook     string          // empty where neither an observer nor a rule told
	Step     *evidence.Event // the rule that did it; nil when none was seen to
	Rule     *Rule           // Step as the user's own tool prints it
	Certain  bool            // Rule is proven, text included
	How      string          // why there is no rule
}

// Kind names the translation: DNAT or SNAT, for an answer with "undo" before it.
func (t *Translation) Kind() string {
	reply := t.Event.Direction == evidence.Reply
	kind := "DNAT"
	if t.Source != reply {
		kind = "SNAT"
	}
	if reply {
		return "undo " + kind
	}
	return kind
}

// Translations returns what NAT did to our packets, in the order of the events.
func Translations(c *evidence.Case) []Translation {
	var out []Translation
	last := map[string]*evidence.Event{} // by buffer
	for i := range c.Events {
		e := &c.Events[i]
		if e.SKB == "" {
			continue
		}
		if tracked(c, e) {
			if before := last[e.SKB]; before != nil && before.Netns == e.Netns && !otherPacket([]*evidence.Event{before}, e) {
				out = append(out, changes(c, before, e)...)
			}
			last[e.SKB] = e
		}
		if isEnd(e) {
			delete(last, e.SKB)
		}
	}
	return out
}

// tracked reports whether e shows addresses that a translation would change.
func tracked(c *evidence.Case, e *evidence.Event) bool {
	if !carries(e) || e.Packet.Fragment {
		return false
	}
	switch e.Packet.Protocol {
	case c.Target.Protocol:
		return true
	case "icmpv6":
		return c.Target.Protocol == "icmp" && !resolves(e)
	}
	return false
}

// changes compares a packet with what it was before in the same namespace.
func changes(c *evidence.Case, before, after *evidence.Event) (out []Translation) {
	for _, source := range []bool{false, true} {
		from, to := side(before.Packet, source), side(after.Packet, source)
		if from == to {
			continue
		}
		t := Translation{Event: after, Source: source, From: from, To: to}
		if after.Kind == evidence.HookPassed {
			t.Hook = after.Hook
		}
		t.explain(c)
		out = append(out, t)
	}
	return out
}

// side words one end of a packet.
func side(p *evidence.Packet, source bool) string {
	addr, port := p.Dest, p.DPort
	if source {
		addr, port = p.Source, p.SPort
	}
	if port == 0 {
		return addr
	}
	return endpoint(addr, port)
}

// host is an end without its port.
func host(end string) string {
	if a, err := netip.ParseAddrPort(end); err == nil {
		return a.Addr().String()
	}
	return end
}

// hooks where a rule can change that side of a packet (nf_nat_core.c, HOOK2MANIP).
func (t *Translation) hooks() []string {
	switch {
	case t.Hook != "":
		return []string{t.Hook}
	case t.Source:
		return []string{evidence.Postrouting, evidence.Input}
	}
	return []string{evidence.Prerouting, evidence.Output}
}

var (
	destinationNAT = regexp.MustCompile(`(^|\s)(dnat|redirect)($|\s)|-j (DNAT|REDIRECT|NETMAP)\b`)
	sourceNAT      = regexp.MustCompile(`(^|\s)(snat|masquerade)($|\s)|-j (SNAT|MASQUERADE|NETMAP|SAME)\b`)
)

// explain finds the rule. The NAT core asks chain after chain until one has set
// the connection up, so the last step in them decided; that it did so by
// translating is told by its text.
func (t *Translation) explain(c *evidence.Case) {
	if t.Event.Direction == evidence.Reply {
		t.How = "by conntrack, as every answer"
		return
	}
	n := space(c, t.Event)
	var last *evidence.Event
	for _, hook := range t.hooks() {
		if s := lastNAT(c, n, t.Event, hook); s != nil {
			last = s
		}
	}
	switch {
	case last == nil && n != nil && n.Traced && onlyNFT(n, t.hooks()):
		t.How = "by conntrack, which knew the connection: no rule was asked"
		return
	case last == nil && n != nil && !n.Traced:
		t.How = "by which rule is not known: rules were not traced"
		return
	case last == nil:
		t.How = "no rule was seen to be asked"
		return
	case last.Rule.Policy && t.Source && host(t.From) == host(t.To):
		t.How = "no rule asked for it: the port was in use" // nf_nat_alloc_null_binding
		return
	case last.Rule.Policy || last.Rule.Verdict != "accept" || last.Rule.Handle == 0 && last.Rule.Number == 0:
		t.How = "no rule is known that asked for it"
		return
	}
	var scratch Verdict
	r, certain := rule(&scratch, n, walk(c, last, true))
	does := destinationNAT
	if t.Source {
		does = sourceNAT
	}
	if r.Text != "" && !does.MatchString(r.Text) {
		t.How = "no rule is known that asked for it"
		return
	}
	t.Step, t.Rule, t.Certain, t.Hook = last, r, certain, last.Hook
}

// lastNAT is the last step that the packet of e took in chains of type nat at a hook.
func lastNAT(c *evidence.Case, n *evidence.Namespace, e *evidence.Event, hook string) (last *evidence.Event) {
	if n == nil {
		return nil
	}
	in := "" // the table whose nat chain the packet is in
	for _, s := range visitOf(c, e).events {
		if s.Kind != evidence.RuleVerdict || s.Rule == nil || s.Hook != hook {
			continue
		}
		table := s.Rule.Backend + " " + s.Rule.Family + " " + s.Rule.Table
		switch base := baseHook(n, s); {
		case base != nil && base.NAT:
			in = table
		case base != nil, in != table:
			in = ""
		}
		if in != "" {
			last = s
		}
	}
	return last
}

// baseHook is what the step's chain is registered as; nil for one that only jumps lead to.
func baseHook(n *evidence.Namespace, s *evidence.Event) *evidence.Hook {
	for i := range n.Hooks.Items {
		h := &n.Hooks.Items[i]
		switch {
		case h.Hook != s.Hook || h.Table != s.Rule.Table || h.Chain != s.Rule.Chain:
		case h.Type == "nft" && s.Rule.Backend != "iptables-legacy" && h.NFFamily == s.Rule.Family,
			h.Type == "iptables-legacy" && s.Rule.Backend == "iptables-legacy" && h.Family == s.Rule.Family:
			return h
		}
	}
	return nil
}

// onlyNFT reports whether all rules of type nat at the hooks are in nftables, whose trace tells what is asked.
func onlyNFT(n *evidence.Namespace, hooks []string) bool {
	if !n.Hooks.Read() {
		return false
	}
	for _, h := range n.Hooks.Items {
		if h.NAT && h.Type != "nft" && contains(hooks, h.Hook) {
			return false
		}
	}
	return true
}

// String tells the translation in a line.
func (t *Translation) String() string {
	s := fmt.Sprintf("%s %s → %s", t.Kind(), t.From, t.To)
	if t.Rule != nil {
		return s + " by" + ruleWords(t.Rule)
	}
	return s + " (" + t.How + ")"
}

// addTranslations tells what NAT did to the first packet, and names its rules in v.Where.
func addTranslations(c *evidence.Case, v *Verdict) {
	seen := map[string]bool{}
	for _, t := range Translations(c) {
		line := fmt.Sprintf("%s %s → %s in %s", t.Kind(), t.From, t.To, name(t.Event.Netns))
		if t.Event.Direction != evidence.Forward || seen[line] {
			continue // of packets after the first
		}
		seen[line] = true
		t.place(v)
		if t.Rule != nil {
			line += " by" + ruleWords(t.Rule)
		} else {
			line += " (" + t.How + ")"
		}
		v.Proof = append(v.Proof, line)
	}
}

// place puts the translation into v.Where. Of several on the way, From is the first's and the rest the last's.
func (t *Translation) place(v *Verdict) {
	ref := &NATRef{From: t.From, To: t.To, Netns: t.Event.Netns}
	if t.Certain {
		ref.Rule = t.Rule
	}
	switch {
	case t.Source:
		if v.Where.SNAT != nil {
			ref.From = v.Where.SNAT.From
		}
		v.Where.SNAT = ref
	case v.Where.NAT != nil && v.Where.NAT.To == t.To:
		v.Where.NAT.Netns, v.Where.NAT.Rule = ref.Netns, ref.Rule
	case v.Where.NAT == nil && strings.HasPrefix(v.Cause, "remote-"):
		v.Where.NAT = ref
	}
}
