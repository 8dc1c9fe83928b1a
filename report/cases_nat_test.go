// SPDX-License-Identifier: Apache-2.0

package report

import (
	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// translated is a SYN that the router translates at both ends and routes by a
// rule of its own, and whose answer it translates back.
func translated() *story {
	s := newStory()
	s.c.Target = evidence.Target{Input: "10.0.0.5:80", Address: "10.0.0.5", Port: 80, Protocol: "tcp"}
	s.to = "10.0.0.5"
	s.natRouter()
	s.leave("S")
	skb := "ffff888004a1c000"
	s.see(evidence.Receive, "pt-r", "rc", evidence.Forward, "S").SKB = skb
	at := func(hook string, priority int, from, to string, dport int) {
		e := s.see(evidence.HookPassed, "pt-r", "", evidence.Forward, "S")
		e.SKB, e.Hook, e.Priority = skb, hook, &priority
		e.Packet.Source, e.Packet.Dest, e.Packet.DPort = from, to, dport
	}
	step := func(hook, chain string, handle uint64, verdict, target string) {
		e := s.event(evidence.Event{Kind: evidence.RuleVerdict, Netns: "pt-r", Direction: evidence.Forward, Hook: hook, SKB: skb})
		e.Rule = &evidence.RuleStep{Backend: "nft", Family: "ip", Table: "nat", Chain: chain, Handle: handle, Verdict: verdict, Target: target, TraceID: 1}
	}
	step("PREROUTING", "pre", 6, "jump", "svc")
	step("PREROUTING", "svc", 4, "accept", "")
	at("PREROUTING", -101, "10.77.1.2", "10.0.0.5", 80)
	at("PREROUTING", -99, "10.77.1.2", "10.77.2.2", 8081)
	ask := func(table, errno, oif string) {
		e := s.event(evidence.Event{Kind: evidence.Route, Netns: "pt-r", Direction: evidence.Forward, SKB: skb})
		e.Route = &evidence.RouteLookup{Table: table, Source: "10.77.1.2", Dest: "10.77.2.2", IIF: "rc", Errno: errno, OIF: oif}
	}
	ask("local", "EAGAIN", "")
	ask("77", "", "rs")
	step("POSTROUTING", "post", 7, "accept", "")
	at("POSTROUTING", 99, "10.77.1.2", "10.77.2.2", 8081)
	at("POSTROUTING", 101, "10.77.2.1", "10.77.2.2", 8081)
	s.to, s.from = "10.77.2.2", "10.77.2.1"
	for _, e := range []*evidence.Event{s.see(evidence.Transmit, "pt-r", "rs", evidence.Forward, "S"), s.see(evidence.Receive, "pt-s", "s0", evidence.Forward, "S")} {
		e.SKB, e.Packet.DPort = skb, 8081
	}
	e := s.see(evidence.Drop, "pt-s", "s0", evidence.Forward, "S")
	e.SKB, e.Packet.DPort, e.Reason, e.Function = skb, 8081, "NO_SOCKET", "tcp_v4_rcv"
	s.end(evidence.Refused, "ECONNREFUSED")
	s.ns("pt-s").Sockets = evidence.Have([]evidence.Socket(nil))
	s.v = verdict.Judge(&s.c)
	return s
}

// natRouter configures the router's NAT and its routes.
func (s *story) natRouter() {
	n := s.ns("pt-r")
	n.Traced = true
	n.Hooks = evidence.Have([]evidence.Hook{
		{Family: "ip", Hook: "PREROUTING", Priority: -100, Function: "nf_nat_ipv4_pre_routing", Type: "kernel"},
		{Family: "ip", Hook: "PREROUTING", Priority: -100, Function: "nft_nat_do_chain", Type: "nft", Table: "nat", Chain: "pre", NFFamily: "ip", NAT: true},
		{Family: "ip", Hook: "POSTROUTING", Priority: 100, Function: "nf_nat_ipv4_out", Type: "kernel"},
		{Family: "ip", Hook: "POSTROUTING", Priority: 100, Function: "nft_nat_do_chain", Type: "nft", Table: "nat", Chain: "post", NFFamily: "ip", NAT: true},
	})
	chain := func(name string, base bool, handle uint64, text string) evidence.Chain {
		return evidence.Chain{Backend: "nft", Family: "ip", Table: "nat", Name: name, Base: base, Total: 1,
			Rules: []evidence.FirewallRule{{Number: 1, Handle: handle, Text: text}}}
	}
	n.Chains = evidence.Have([]evidence.Chain{chain("svc", false, 4, "tcp dport 80 dnat to 10.77.2.2:8081"), chain("post", true, 7, `oifname "rs" masquerade`)})
	n.Rules.Items = append([]evidence.IPRule{{Family: 4, Priority: 200, Action: "lookup", Table: "77", Text: "200: from 10.77.1.0/24 iif rc lookup 77"}}, n.Rules.Items...)
	n.Rules.Items[0], n.Rules.Items[1] = n.Rules.Items[1], n.Rules.Items[0]
	n.Lookups = evidence.Have([]evidence.Lookup{{Dest: "10.77.2.2", Source: "10.77.1.2", IIF: "rc", Type: "unicast", OIF: "rs", Table: "77",
		Text: "10.77.2.0/24 dev rs scope link"}})
}
