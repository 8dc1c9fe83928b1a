// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

func noRouteClient() *story {
	s := newStory()
	s.c.Namespaces = s.c.Namespaces[:1]
	s.c.Target = evidence.Target{Input: "web.example:80", Address: "10.99.0.1", Port: 80, Protocol: "tcp"}
	s.to, s.c.Probe.Local = "10.99.0.1", ""
	s.lookup("pt-c", evidence.Forward, evidence.RouteLookup{Table: "main", Dest: s.to, Errno: "EAGAIN"})
	s.lookup("pt-c", evidence.Forward, evidence.RouteLookup{Table: "default", Dest: s.to, Errno: "EAGAIN"})
	s.end(evidence.Unreachable, "ENETUNREACH")
	s.c.Probe.Syscall = "connect"
	s.v = verdict.Verdict{Cause: "no-route", Certainty: verdict.Observed, Direction: evidence.Forward, Summary: "10.99.0.1:80/tcp: no route to 10.99.0.1 in pt-c",
		Where: verdict.Where{Netns: "pt-c", Route: &verdict.RouteRef{Table: "main"}}, Proof: []string{"connect() returned ENETUNREACH", "no packet left"}}
	return s
}

func noListener() *story {
	s := newStory()
	s.leave("S")
	s.cross("S")
	s.arrive("S")
	s.event(evidence.Event{Kind: evidence.ResetSent, Netns: "pt-s", Direction: evidence.Reply, Reason: "NO_SOCKET", Packet: s.packet(evidence.Reply, "R.")})
	s.drop("pt-s", "s0", "", evidence.Forward, "S", "NO_SOCKET", "tcp_v4_rcv")
	s.back("R.")
	s.event(evidence.Event{Kind: evidence.ResetGot, Netns: "pt-c", Direction: evidence.Reply})
	s.end(evidence.Refused, "ECONNREFUSED")
	s.v = verdict.Verdict{Cause: "no-listener", Certainty: verdict.Observed, Direction: evidence.Forward, Summary: "10.77.2.2:80/tcp: nothing listens on 10.77.2.2:80/tcp in pt-s",
		Where: verdict.Where{Netns: "pt-s", Device: "s0", Function: "tcp_v4_rcv", Reason: "NO_SOCKET"}, Proof: []string{"of the 4 sockets of pt-s none listens on 80/tcp"}}
	return s
}

func acceptQueueFull() *story {
	s := newStory()
	for i := range 2 {
		s.now = int64(i) * 1_020_000_000
		s.leave("S")
		s.cross("S")
		s.arrive("S")
		e := s.see(evidence.Consume, "pt-s", "s0", evidence.Forward, "S")
		e.Function = "tcp_rcv_state_process"
	}
	s.event(evidence.Event{Kind: evidence.Retransmit, Netns: "pt-c", Direction: evidence.Forward, Packet: s.packet(evidence.Forward, "S")})
	s.end(evidence.Timeout, "ETIMEDOUT")
	s.c.Probe.DurationNS = s.c.Probe.TimeoutNS
	s.v = verdict.Verdict{Cause: "accept-queue-full", Certainty: verdict.Inferred, Direction: evidence.Forward,
		Summary: "10.77.2.2:80/tcp: the accept queue of pth (pid 77) in pt-s is full: 2 of 1",
		Where:   verdict.Where{Netns: "pt-s", Socket: &verdict.SocketRef{Local: "0.0.0.0:80", Backlog: 1, Queue: 2}, Process: &evidence.Process{PID: 77, Comm: "pth"}},
		Proof:   []string{"ListenOverflows rose by 2"}, Unseen: []string{"who else connected meanwhile"}}
	return s
}

func replyDrop() *story {
	s := newStory()
	firewalls(s)
	s.leave("S")
	s.cross("S")
	s.pass("pt-r", "FORWARD", evidence.Forward, "S", -1, 5, 11)
	s.arrive("S")
	s.see(evidence.Transmit, "pt-s", "s0", evidence.Reply, "S.")
	s.see(evidence.Receive, "pt-r", "rs", evidence.Reply, "S.")
	s.pass("pt-r", "FORWARD", evidence.Reply, "S.", -1)
	s.rule("pt-r", "FORWARD", evidence.Reply, "S.", evidence.RuleStep{Backend: "nft", Family: "inet", Table: "fw", Chain: "forward", Handle: 9, Verdict: "drop"})
	s.drop("pt-r", "rs", "FORWARD", evidence.Reply, "S.", "NETFILTER_DROP", "nft_do_chain")
	s.end(evidence.Timeout, "")
	s.v = verdict.Verdict{Cause: "firewall-drop", Certainty: verdict.Observed, Direction: evidence.Reply,
		Summary: "10.77.2.2:80/tcp: the reply was dropped by the firewall of pt-r: inet fw, chain forward, rule 3 (handle 9): ct state invalid drop",
		Where: verdict.Where{Netns: "pt-r", Hook: "FORWARD", Rule: &verdict.Rule{Backend: "nft", Family: "inet", Table: "fw", Chain: "forward", Path: []string{"forward"}, Handle: 9, Number: 3,
			Text: "ct state invalid drop"}},
		Proof: []string{"the reply (SYN-ACK) was freed in nft_do_chain"}}
	return s
}

func unexplained() *story {
	s := newStory()
	s.c.Namespaces = s.c.Namespaces[:1]
	s.leave("S")
	s.end(evidence.Timeout, "ETIMEDOUT")
	s.c.Probe.DurationNS = s.c.Probe.TimeoutNS
	s.c.Lost = 3
	s.v = verdict.Verdict{Cause: "unexplained", Certainty: verdict.None, Summary: "10.77.2.2:80/tcp: not established: our SYN was last seen leaving pt-c on c0",
		Where: verdict.Where{Netns: "pt-c", Device: "c0"}, Unseen: []string{"hosts behind c0"}}
	return s
}

func ipv6() *story {
	s := newStory6()
	s.base("pt-s", "INPUT", "inet", "fw", "input", 0)
	s.see(evidence.Transmit, "pt-c", "c0", evidence.Forward, "S")
	s.see(evidence.Receive, "pt-s", "s0", evidence.Forward, "S")
	s.pass("pt-s", "INPUT", evidence.Forward, "S", -1, 1)
	s.event(evidence.Event{Kind: evidence.ResetSent, Netns: "pt-s", Direction: evidence.Reply, Reason: "NO_SOCKET"})
	s.drop("pt-s", "s0", "", evidence.Forward, "S", "NO_SOCKET", "tcp_v6_rcv")
	s.see(evidence.Receive, "pt-c", "c0", evidence.Reply, "R.")
	s.end(evidence.Refused, "ECONNREFUSED")
	s.v = verdict.Verdict{Cause: "no-listener", Certainty: verdict.Observed, Direction: evidence.Forward, Summary: "[fd77:2::2]:80/tcp: nothing listens on [fd77:2::2]:80/tcp in pt-s",
		Where: verdict.Where{Netns: "pt-s"}, Proof: []string{"of the 2 sockets of pt-s none listens on 80/tcp"}}
	return s
}

// hostile is full of what a terminal must not see.
func hostile() *story {
	s := unexplained()
	evil := "a\x1b]0;owned\x07\x1b[2J\xff\u202e\n\u009b1m"
	s.c.Target.Input = evil
	s.c.Probe.Banner = evil
	s.c.Probe.Netns = evil
	s.c.Host.Kernel = evil
	for i := range s.c.Events {
		e := &s.c.Events[i]
		e.Netns, e.Device, e.Function = evil, evil, evil
	}
	s.drop("pt-s", evil, evil, evidence.Forward, "S", evil, evil)
	s.v.Summary, s.v.Proof, s.v.Unseen = evil, []string{evil}, []string{evil}
	s.v.Fixes = []verdict.Fix{{Commands: []string{evil}, Undo: []string{evil}}}
	return s
}

// crowded is a host whose containers stand one behind the other.
func crowded() *story {
	s := newStory()
	s.leave("S")
	for i := range 12 {
		ns := fmt.Sprintf("box-%02d", i)
		s.c.Namespaces = append(s.c.Namespaces, s.netns(ns))
		s.base(ns, "FORWARD", "inet", "fw", "forward", 0)
		s.see(evidence.Receive, ns, "eth0", evidence.Forward, "S")
		s.lookup(ns, evidence.Forward, evidence.RouteLookup{Table: "main", Dest: s.to, Source: s.from, IIF: "eth0", OIF: "eth1"})
		s.pass(ns, "FORWARD", evidence.Forward, "S", -1, 1)
		s.see(evidence.Transmit, ns, "eth1", evidence.Forward, "S")
	}
	s.drop("box-12", "eth0", "", evidence.Forward, "S", "IP_RPFILTER", "ip_rcv_finish_core")
	s.end(evidence.Timeout, "")
	s.v = verdict.Verdict{Cause: "rp-filter", Certainty: verdict.Observed, Direction: evidence.Forward, Summary: "10.77.2.2:80/tcp: reverse-path filter of eth0 in box-12",
		Where: verdict.Where{Netns: "box-12", Device: "eth0", Sysctl: &evidence.Sysctl{Name: "net.ipv4.conf.eth0.rp_filter", Value: "1"}}, Proof: []string{"freed with IP_RPFILTER"}}
	return s
}

func limitThenPassed() *story {
	s := newStory()
	firewalls(s)
	s.leave("S")
	s.cross("S")
	s.rule("pt-r", "FORWARD", evidence.Forward, "S", evidence.RuleStep{Backend: "nft", Family: "inet", Table: "fw", Chain: "forward", Handle: 4, Verdict: "drop"})
	s.drop("pt-r", "rc", "FORWARD", evidence.Forward, "S", "NETFILTER_DROP", "nft_do_chain")
	s.now = 1_010_000_000
	s.leave("S")
	s.cross("S")
	s.pass("pt-r", "FORWARD", evidence.Forward, "S", -1, 5, 11)
	s.arrive("S")
	s.back("S.")
	s.end(evidence.Connected, "")
	s.v = verdict.Verdict{Cause: "reachable", Certainty: verdict.Observed, Summary: "10.77.2.2:80/tcp: reachable: connected after 1010.21 ms", Proof: []string{"one drop; a later copy passed"},
		Consumed: []string{`the probe has taken a token of "limit rate 1/second", nft inet fw chain input rule 1 (handle 2) in pt-s`}}
	return s
}
