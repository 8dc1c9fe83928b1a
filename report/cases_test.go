// SPDX-License-Identifier: Apache-2.0

package report

import (
	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// stories are the cases of the goldens, by name.
var stories = map[string]func() *story{
	"reachable":         reachable,
	"nft-drop":          nftDrop,
	"legacy-drop":       legacyDrop,
	"policy":            policy,
	"reject":            reject,
	"no-route-client":   noRouteClient,
	"no-listener":       noListener,
	"accept-queue-full": acceptQueueFull,
	"reply-drop":        replyDrop,
	"unexplained":       unexplained,
	"ipv6":              ipv6,
	"hostile":           hostile,
	"crowded":           crowded,
	"limit-then-passed": limitThenPassed,
	"translated":        translated,
}

func firewalls(s *story) {
	s.base("pt-c", "OUTPUT", "inet", "fw", "output", 0)
	s.base("pt-r", "FORWARD", "inet", "fw", "forward", 0)
	s.base("pt-r", "FORWARD", "ip", "nat", "late", 10)
	s.base("pt-s", "INPUT", "inet", "fw", "input", 0)
}

func reachable() *story {
	s := newStory()
	firewalls(s)
	s.leave("S")
	s.cross("S")
	s.pass("pt-r", "FORWARD", evidence.Forward, "S", -1, 5, 11)
	s.arrive("S")
	s.pass("pt-s", "INPUT", evidence.Forward, "S", -1, 1)
	s.back("S.")
	s.leave(".")
	s.cross(".")
	s.pass("pt-r", "FORWARD", evidence.Forward, ".", -1, 5, 11)
	s.arrive(".")
	s.state("pt-s", "LISTEN", "SYN_RECV")
	s.state("pt-s", "SYN_RECV", "ESTABLISHED")
	s.end(evidence.Connected, "")
	s.c.Probe.DurationNS = 195_000 // the client is told before its last ACK has arrived
	e := s.see(evidence.Drop, "pt-s", "", evidence.Forward, "F.")
	e.Reason, e.Function = "QUEUE_PURGE", "skb_queue_purge_reason"
	s.v = verdict.Verdict{Cause: "reachable", Certainty: verdict.Observed, Summary: "10.77.2.2:80/tcp: reachable: connected after 0.18 ms by nginx (pid 412) in pt-s",
		Where: verdict.Where{Netns: "pt-s", Process: &evidence.Process{PID: 412, Comm: "nginx"}}, Proof: []string{"the probe: connected after 0.18 ms"},
		Unseen: []string{"IPv6 neighbours: not looked at"}}
	return s
}

func nftDrop() *story {
	s := newStory()
	firewalls(s)
	s.ns("pt-s").Chains = evidence.Have([]evidence.Chain{{Backend: "nft", Family: "inet", Table: "fw", Name: "web", Total: 2, Rules: []evidence.FirewallRule{
		{Number: 1, Handle: 6, Text: "ip saddr 10.0.0.9 accept"}, {Number: 2, Handle: 7, Text: "tcp dport 80 counter drop", Packets: 1, Bytes: 60}}}})
	s.leave("S")
	s.cross("S")
	s.pass("pt-r", "FORWARD", evidence.Forward, "S", -1, 5, 11)
	s.arrive("S")
	s.pass("pt-s", "INPUT", evidence.Forward, "S", -1)
	in := evidence.RuleStep{Backend: "nft", Family: "inet", Table: "fw", TraceID: 0xab}
	for _, r := range []evidence.RuleStep{
		{Chain: "input", Handle: 2, Verdict: "continue"}, {Chain: "input", Handle: 3, Verdict: "jump", Target: "aside"}, {Chain: "aside", Verdict: "return", Policy: true},
		{Chain: "input", Handle: 4, Verdict: "jump", Target: "services"}, {Chain: "services", Handle: 5, Verdict: "goto", Target: "web"}, {Chain: "web", Handle: 7, Verdict: "drop"},
	} {
		r.Backend, r.Family, r.Table, r.TraceID = in.Backend, in.Family, in.Table, in.TraceID
		s.rule("pt-s", "INPUT", evidence.Forward, "S", r)
	}
	s.drop("pt-s", "s0", "INPUT", evidence.Forward, "S", "NETFILTER_DROP", "nft_do_chain")
	s.end(evidence.Timeout, "")
	s.v = verdict.Verdict{Cause: "firewall-drop", Certainty: verdict.Observed, Direction: evidence.Forward,
		Summary: "10.77.2.2:80/tcp: dropped by the firewall of pt-s: inet fw, chain web, rule 2 (handle 7): tcp dport 80 counter drop",
		Where: verdict.Where{Netns: "pt-s", Device: "s0", Hook: "INPUT", Function: "nft_do_chain", Reason: "NETFILTER_DROP",
			Rule: &verdict.Rule{Backend: "nft", Family: "inet", Table: "fw", Chain: "web", Path: []string{"input", "services", "web"}, Handle: 7, Number: 2, Text: "tcp dport 80 counter drop"}},
		Proof: []string{"our SYN was freed in nft_do_chain with NETFILTER_DROP 0.27 ms after connect(), in pt-s on s0, hook INPUT", "the rule trace names handle 7"},
		Fixes: []verdict.Fix{{Summary: "let this source reach this port", Commands: []string{`ip netns exec pt-s nft insert rule inet fw web position 7 ip saddr 10.77.1.2 tcp dport 80 accept comment '"pathtrace-3f2a"'`},
			Undo: []string{`ip netns exec pt-s nft delete rule inet fw web handle $(ip netns exec pt-s nft -a list chain inet fw web | sed -n 's/.*pathtrace-3f2a.*# handle //p')`}},
			{Summary: "take the rule away", Commands: []string{"ip netns exec pt-s nft delete rule inet fw web handle 7"}, Undo: []string{"ip netns exec pt-s nft add rule inet fw web tcp dport 80 counter drop"}, Verified: true}},
		Unseen: []string{}}
	return s
}

func legacyDrop() *story {
	s := newStory()
	s.legacy("pt-r", "FORWARD", "mangle", -150)
	s.legacy("pt-r", "FORWARD", "filter", 0)
	s.leave("S")
	s.cross("S")
	s.pass("pt-r", "FORWARD", evidence.Forward, "S", -149, -1)
	s.rule("pt-r", "FORWARD", evidence.Forward, "S", evidence.RuleStep{Backend: "iptables-legacy", Family: "ip", Table: "filter", Chain: "FORWARD", Number: 1, Verdict: "jump", Target: "DOCKER-USER"})
	s.rule("pt-r", "FORWARD", evidence.Forward, "S", evidence.RuleStep{Backend: "iptables-legacy", Family: "ip", Table: "filter", Chain: "DOCKER-USER", Number: 2, Verdict: "drop", Target: "DROP"})
	s.drop("pt-r", "rc", "FORWARD", evidence.Forward, "S", "NETFILTER_DROP", "nf_hook_slow")
	s.end(evidence.Timeout, "")
	s.v = verdict.Verdict{Cause: "firewall-drop", Certainty: verdict.Observed, Direction: evidence.Forward,
		Summary: "10.77.2.2:80/tcp: dropped by the firewall of pt-r: ip filter, chain DOCKER-USER, rule 2: -A DOCKER-USER -p tcp -m tcp --dport 80 -j DROP",
		Where: verdict.Where{Netns: "pt-r", Device: "rc", Hook: "FORWARD", Rule: &verdict.Rule{Backend: "iptables-legacy", Family: "ip", Table: "filter", Chain: "DOCKER-USER",
			Path: []string{"FORWARD", "DOCKER-USER"}, Number: 2, Text: "-A DOCKER-USER -p tcp -m tcp --dport 80 -j DROP"}},
		Proof: []string{"our SYN was freed in nf_hook_slow with NETFILTER_DROP 0.13 ms after connect()"}}
	return s
}

func policy() *story {
	s := newStory()
	firewalls(s)
	s.leave("S")
	s.cross("S")
	s.pass("pt-r", "FORWARD", evidence.Forward, "S", -1, 5, 11)
	s.arrive("S")
	s.rule("pt-s", "INPUT", evidence.Forward, "S", evidence.RuleStep{Backend: "nft", Family: "inet", Table: "fw", Chain: "input", Policy: true, Verdict: "drop"})
	s.drop("pt-s", "s0", "INPUT", evidence.Forward, "S", "NETFILTER_DROP", "nft_do_chain")
	s.end(evidence.Timeout, "")
	s.v = verdict.Verdict{Cause: "firewall-policy", Certainty: verdict.Observed, Direction: evidence.Forward,
		Summary: "10.77.2.2:80/tcp: dropped by the firewall of pt-s: inet fw, policy of chain input",
		Where:   verdict.Where{Netns: "pt-s", Hook: "INPUT", Rule: &verdict.Rule{Backend: "nft", Family: "inet", Table: "fw", Chain: "input", Path: []string{"input"}, Text: "policy drop"}},
		Proof:   []string{"no rule of input decided: the trace ends with its policy"}}
	return s
}

func reject() *story {
	s := newStory()
	firewalls(s)
	s.leave("S")
	s.cross("S")
	s.rule("pt-r", "FORWARD", evidence.Forward, "S", evidence.RuleStep{Backend: "nft", Family: "inet", Table: "fw", Chain: "forward", Handle: 4, Verdict: "drop"})
	s.event(evidence.Event{Kind: evidence.ICMPSent, Netns: "pt-r", Direction: evidence.Forward, ICMP: &evidence.ICMP{Type: 3, Code: 13}, Function: "nft_reject_inet_eval", Packet: s.packet(evidence.Forward, "S")})
	s.drop("pt-r", "rc", "FORWARD", evidence.Forward, "S", "NETFILTER_DROP", "nft_do_chain")
	three, code := 3, 13
	e := s.event(evidence.Event{Kind: evidence.Receive, Netns: "pt-c", Device: "c0", Direction: evidence.Reply})
	e.Packet = &evidence.Packet{Family: 4, Protocol: "icmp", Source: "10.77.1.1", Dest: s.from, TTL: 64, Length: 88, Type: &three, Code: &code}
	s.end(evidence.Unreachable, "EHOSTUNREACH")
	s.v = verdict.Verdict{Cause: "firewall-reject", Certainty: verdict.Observed, Direction: evidence.Forward,
		Summary: "10.77.2.2:80/tcp: rejected by the firewall of pt-r: inet fw, chain forward, rule 1 (handle 4): tcp dport 80 reject with icmpx admin-prohibited",
		Where: verdict.Where{Netns: "pt-r", Hook: "FORWARD", Rule: &verdict.Rule{Backend: "nft", Family: "inet", Table: "fw", Chain: "forward", Path: []string{"forward"}, Handle: 4, Number: 1,
			Text: "tcp dport 80 reject with icmpx admin-prohibited"}},
		Proof: []string{"ICMP 3/13 was sent by nft_reject_inet_eval"}}
	return s
}
