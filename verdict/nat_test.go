// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

// router is a case of one packet in a namespace that has the nat chains pre and post, and a filter chain in the same table.
type router struct {
	c    evidence.Case
	from string
	to   string
	way  string
	own  int // the source port
}

func newRouter(rules map[string]string) *router {
	r := &router{from: "10.1.0.2", to: "10.0.0.5", way: evidence.Forward, own: 4000}
	r.c.Target = evidence.Target{Address: "10.0.0.5", Port: 80, Protocol: "tcp"}
	hook := func(hook, chain string, priority int, nat bool) evidence.Hook {
		return evidence.Hook{Family: "ip", Hook: hook, Priority: priority, Type: "nft", Table: "t", Chain: chain, NFFamily: "inet", NAT: nat}
	}
	n := evidence.Namespace{Name: "r", Traced: true, Hooks: evidence.Have([]evidence.Hook{
		hook("PREROUTING", "pre", -100, true), hook("PREROUTING", "filter", 0, false), hook("POSTROUTING", "post", 100, true),
	})}
	var chains []evidence.Chain
	for _, name := range []string{"pre", "web", "filter", "post"} {
		chains = append(chains, evidence.Chain{Backend: "nft", Family: "inet", Table: "t", Name: name, Rules: []evidence.FirewallRule{{Number: 1, Handle: 4, Text: rules[name]}}})
	}
	n.Chains = evidence.Have(chains)
	r.c.Namespaces = []evidence.Namespace{n}
	return r
}

func (r *router) add(e evidence.Event) *router {
	e.At, e.Netns, e.SKB, e.Direction = int64(len(r.c.Events)), "r", "a", r.way
	r.c.Events = append(r.c.Events, e)
	return r
}

func (r *router) at(hook string, priority int) *router {
	return r.add(evidence.Event{Kind: evidence.HookPassed, Hook: hook, Priority: &priority,
		Packet: &evidence.Packet{Family: 4, Protocol: "tcp", Source: r.from, Dest: r.to, SPort: r.own, DPort: 80, Flags: "S"}})
}

func (r *router) step(hook, chain, verdict, target string) *router {
	s := evidence.RuleStep{Backend: "nft", Family: "inet", Table: "t", Chain: chain, Verdict: verdict, Target: target, Handle: 4, TraceID: 1}
	if verdict == "policy" {
		s.Verdict, s.Policy, s.Handle = "accept", true, 0
	}
	return r.add(evidence.Event{Kind: evidence.RuleVerdict, Hook: hook, Rule: &s})
}

func (r *router) becomes(from, to string) *router { r.from, r.to = from, to; return r }

func (r *router) port(own int) *router { r.own = own; return r }

func TestTranslations(t *testing.T) {
	dnat := map[string]string{"web": "tcp dport 80 dnat ip to 10.2.0.2", "post": "masquerade", "filter": "accept", "pre": "jump web"}
	pre := func(rules map[string]string) *router { return newRouter(rules).at("PREROUTING", -101) }
	const by = "by nft inet t chain pre → web rule 1 (handle 4)"
	for name, c := range map[string]struct {
		r    *router
		want []string
	}{
		"nothing": {pre(dnat).step("PREROUTING", "pre", "policy", "").at("PREROUTING", -99), nil},
		"destination": {pre(dnat).step("PREROUTING", "pre", "jump", "web").step("PREROUTING", "web", "accept", "").becomes("10.1.0.2", "10.2.0.2").at("PREROUTING", -99),
			[]string{`DNAT 10.0.0.5:80 → 10.2.0.2:80 ` + by + ` "tcp dport 80 dnat ip to 10.2.0.2"`}},
		"a filter chain of the same table came later": {
			pre(dnat).step("PREROUTING", "pre", "jump", "web").step("PREROUTING", "web", "accept", "").step("PREROUTING", "filter", "accept", "").becomes("10.1.0.2", "10.2.0.2").at("PREROUTING", -99),
			[]string{`DNAT 10.0.0.5:80 → 10.2.0.2:80 ` + by + ` "tcp dport 80 dnat ip to 10.2.0.2"`}},
		"source": {newRouter(dnat).at("POSTROUTING", 99).step("POSTROUTING", "post", "accept", "").becomes("10.2.0.1", "10.0.0.5").at("POSTROUTING", 101),
			[]string{`SNAT 10.1.0.2:4000 → 10.2.0.1:4000 by nft inet t chain post rule 1 (handle 4) "masquerade"`}},
		"the rule's text is another": {
			pre(map[string]string{"pre": "tcp dport 80 accept"}).step("PREROUTING", "pre", "accept", "").becomes("10.1.0.2", "10.2.0.2").at("PREROUTING", -99),
			[]string{"DNAT 10.0.0.5:80 → 10.2.0.2:80 (no rule is known that asked for it)"}},
		"no rule matched": {newRouter(dnat).at("POSTROUTING", 99).step("POSTROUTING", "post", "policy", "").becomes("10.2.0.1", "10.0.0.5").at("POSTROUTING", 101),
			[]string{"SNAT 10.1.0.2:4000 → 10.2.0.1:4000 (no rule is known that asked for it)"}},
		"the port was in use": {newRouter(dnat).at("POSTROUTING", 99).step("POSTROUTING", "post", "policy", "").port(1024).at("POSTROUTING", 101),
			[]string{"SNAT 10.1.0.2:4000 → 10.1.0.2:1024 (no rule asked for it: the port was in use)"}},
		"the trace has a gap": {pre(dnat).step("PREROUTING", "pre", "jump", "web").becomes("10.1.0.2", "10.2.0.2").at("PREROUTING", -99),
			[]string{"DNAT 10.0.0.5:80 → 10.2.0.2:80 (no rule is known that asked for it)"}},
		"a known connection": {pre(dnat).becomes("10.1.0.2", "10.2.0.2").at("PREROUTING", -99),
			[]string{"DNAT 10.0.0.5:80 → 10.2.0.2:80 (by conntrack, which knew the connection: no rule was asked)"}},
		"rules of another hook": {
			newRouter(dnat).step("PREROUTING", "pre", "jump", "web").step("PREROUTING", "web", "accept", "").at("POSTROUTING", 99).becomes("10.2.0.1", "10.0.0.5").at("POSTROUTING", 101),
			[]string{"SNAT 10.1.0.2:4000 → 10.2.0.1:4000 (by conntrack, which knew the connection: no rule was asked)"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, x := range Translations(&c.r.c) {
				got = append(got, x.String())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	r := pre(dnat)
	r.way = evidence.Reply
	r.c.Namespaces[0].Traced = false
	if got := Translations(&r.becomes("10.9.9.9", "10.0.0.5").at("POSTROUTING", 101).c); len(got) != 0 {
		t.Errorf("two packets are taken for one that was translated: %s", got[0].String())
	}
}

// Of several translations on the way where names the first address and the last rule; a rule that is not proven is left out.
func TestTranslationsInWhere(t *testing.T) {
	r := newRouter(map[string]string{"pre": "dnat ip to 10.2.0.2", "post": ""}).at("PREROUTING", -101).step("PREROUTING", "pre", "accept", "").
		becomes("10.1.0.2", "10.2.0.2").at("PREROUTING", -99).step("POSTROUTING", "post", "accept", "").becomes("10.2.0.1", "10.2.0.2").at("POSTROUTING", 101)
	v := Verdict{Cause: "no-listener", Where: Where{NAT: &NATRef{From: "10.0.0.5:80", To: "10.2.0.2:80"}}}
	addTranslations(&r.c, &v)
	want := Where{
		NAT: &NATRef{From: "10.0.0.5:80", To: "10.2.0.2:80", Netns: "r",
			Rule: &Rule{Backend: "nft", Family: "inet", Table: "t", Chain: "pre", Path: []string{"pre"}, Handle: 4, Number: 1, Text: "dnat ip to 10.2.0.2"}},
		SNAT: &NATRef{From: "10.1.0.2:4000", To: "10.2.0.1:4000", Netns: "r"},
	}
	if diff := cmp.Diff(want, v.Where); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
