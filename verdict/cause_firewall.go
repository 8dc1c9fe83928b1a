// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

const firewallNeeds = "drop NETFILTER_DROP; rule events of the same packet (with the jumps before); firewall chains of that namespace; "

var firewallCauses = []Cause{
	{
		ID:      "firewall-reject",
		Means:   "a rule rejected it",
		Needs:   firewallNeeds + "icmp-sent by the firewall, or a RST or ICMPv6 error that left without reset-sent",
		Reasons: []string{"NETFILTER_DROP"},
		Find:    func(c *evidence.Case, e *evidence.Event) *Verdict { return firewall(c, e, "firewall-reject") },
	},
	{
		ID:      "firewall-policy",
		Means:   "no rule decided, the base chain's policy dropped it",
		Needs:   firewallNeeds + "the rule event has policy set",
		Reasons: []string{"NETFILTER_DROP"},
		Find:    func(c *evidence.Case, e *evidence.Event) *Verdict { return firewall(c, e, "firewall-policy") },
	},
	{
		ID:      "firewall-drop",
		Means:   "a rule dropped it",
		Needs:   firewallNeeds + "without rule events only when a single rule of all chains in question can drop at all",
		Reasons: []string{"NETFILTER_DROP"},
		Find:    func(c *evidence.Case, e *evidence.Event) *Verdict { return firewall(c, e, "firewall-drop") },
	},
}

func firewall(c *evidence.Case, e *evidence.Event, id string) *Verdict {
	if !isNetfilter(e) || !placed(e) {
		return nil
	}
	v := start(c, e, Observed)
	n := space(c, e)
	d := decided(c, e, "drop")
	deduced := d == nil
	if deduced {
		if d = excluded(c, e, n); d == nil {
			return nil
		}
		v.Certainty = Inferred
	} else if !d.exact {
		v.Certainty = Inferred
	}
	r, certain := rule(v, n, d)
	if !certain {
		v.Certainty = Inferred
	}
	v.Where.Rule = r
	if v.Where.Hook == "" {
		v.Where.Hook = d.step.Hook
	}
	if v.Where.Device == "" {
		v.Where.Device = d.step.Device
	}
	proveRule(v, d, deduced)
	class, how := classify(c, e, v, d)
	if class != id {
		return nil
	}
	v.Transient = readRule(r.Backend, r.Text).mayPass()
	did := map[string]string{"firewall-drop": "dropped by", "firewall-policy": "dropped by", "firewall-reject": "rejected" + how + " by"}[id]
	v.Summary = fmt.Sprintf("%s: %s%s%s in %s", target(c), whoseDied(c, e), did, ruleWords(r), name(e.Netns))
	// net/netfilter/xt_TPROXY.c
	if port := readRule(r.Backend, r.Text).proxyPort(); port != "" && id == "firewall-drop" {
		v.Summary += ", which found no transparent socket on port " + port
		v.Proof = append(v.Proof, "TPROXY drops what no socket with IP_TRANSPARENT takes on port "+port)
		return v // past the rule nobody may wait for it
	}
	v.Fixes = allow(c, e, n, v, d)
	return v
}

// whoseDied is empty for our own packet, which the summary is about anyway.
func whoseDied(c *evidence.Case, e *evidence.Event) string {
	if direction(c, e) == evidence.Reply {
		return "the reply was "
	}
	return ""
}

// ruleWords is the rule in a sentence: nft rule inet fw input rule 3 (handle 7) "…".
func ruleWords(r *Rule) string {
	s := fmt.Sprintf(" %s %s %s chain %s", r.Backend, r.Family, r.Table, strings.Join(r.Path, " → "))
	if r.Number != 0 {
		s += fmt.Sprintf(" rule %d", r.Number)
	}
	if r.Handle != 0 {
		s += fmt.Sprintf(" (handle %d)", r.Handle)
	}
	if r.Number == 0 && r.Handle == 0 {
		s += " policy"
	}
	if r.Text != "" {
		s += " " + quoted(r.Text)
	}
	return s
}

func proveRule(v *Verdict, d *decision, deduced bool) {
	s := d.step.Rule
	what := fmt.Sprintf("handle %d", s.Handle)
	switch {
	case s.Policy:
		what = "the policy"
	case s.Handle == 0:
		what = fmt.Sprintf("rule %d", s.Number)
	}
	switch {
	case deduced:
		v.Proof = append(v.Proof, fmt.Sprintf("no rule trace; of the chains that it can have met at this hook only %s of %s %s chain %s can drop",
			what, s.Family, s.Table, s.Chain))
	case s.Backend == "iptables-legacy":
		v.Proof = append(v.Proof, fmt.Sprintf("the rule counters that moved while our packet, and no other, was in %s table %s lead %s and end at %s of chain %s, verdict %s",
			s.Family, s.Table, strings.Join(d.path, " → "), what, s.Chain, s.Verdict))
	default:
		v.Proof = append(v.Proof, fmt.Sprintf("the rule trace names %s of %s %s chain %s, verdict %s, path %s",
			what, s.Family, s.Table, s.Chain, s.Verdict, strings.Join(d.path, " → ")))
	}
	if v.Where.Rule.Text != "" {
		v.Proof = append(v.Proof, fmt.Sprintf("%s prints it as %s", v.Where.Rule.Backend, quoted(v.Where.Rule.Text)))
	}
}

// classify tells drop, reject and policy apart. A rule rejects when its text
// says so, and an answer that only a firewall sends agrees; "" when they contradict.
func classify(c *evidence.Case, e *evidence.Event, v *Verdict, d *decision) (class, how string) {
	s := d.step.Rule
	if s.Policy {
		return "firewall-policy", ""
	}
	answer, how := firewallAnswer(c, e)
	if answer != nil {
		v.Proof = append(v.Proof, fmt.Sprintf("the firewall answered%s %s, in %s", how, since(c, answer), name(e.Netns)))
		if answer.Kind == evidence.Drop {
			v.Proof = append(v.Proof, "that answer was lost: "+died(c, answer))
		}
	}
	text := v.Where.Rule.Text
	says := readRule(v.Where.Rule.Backend, text).rejects() || s.Target == "REJECT"
	switch {
	case says && answer == nil:
		v.Proof = append(v.Proof, "the rule rejects, but no answer was seen to leave (ICMP errors are rate-limited)")
		return "firewall-reject", ""
	case says:
		return "firewall-reject", how
	case answer != nil && text == "" && s.Target == "":
		return "firewall-reject", how
	case answer != nil:
		return "", "" // another rule's doing, or the rule was changed: not to be told
	}
	return "firewall-drop", ""
}

// firewallAnswer is the RST or ICMP error that a firewall rule, not the stack, sent because of e's packet.
func firewallAnswer(c *evidence.Case, e *evidence.Event) (answer *evidence.Event, how string) {
	if resetFor(c, e) != nil {
		return nil, ""
	}
	v := visitOf(c, e)
	for i := range c.Events {
		a := &c.Events[i]
		if a.Kind == evidence.ICMPSent && v.has(a) && (strings.HasPrefix(a.Function, "nft_reject") || strings.HasPrefix(a.Function, "reject_tg") || strings.HasPrefix(a.Function, "nf_send_unreach")) {
			how := " with an ICMP error"
			if a.ICMP != nil {
				how = fmt.Sprintf(" with ICMP %d/%d", a.ICMP.Type, a.ICMP.Code)
			}
			return a, how
		}
		if p := a.Packet; p != nil && a.Kind != evidence.Receive && v.during(a) && direction(c, a) != direction(c, e) {
			if isRST(a) {
				return a, " with a TCP reset"
			}
			if p.Protocol == "icmpv6" && p.Type != nil && *p.Type == 1 {
				return a, " with ICMPv6 1/" + code(p)
			}
		}
	}
	return nil, ""
}

func code(p *evidence.Packet) string {
	if p.Code == nil {
		return "?"
	}
	return fmt.Sprint(*p.Code)
}
