// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// datagramFaults stop a probe that is no connection: a datagram, or an echo request.
func datagramFaults() []Fault {
	return slices.Concat(udpFaults(), echoFaults())
}

// as turns faults of a TCP probe into those of another protocol. The service is started by start.
func as(protocol string, start func(family int) func(*Lab) error, script string, faults []Fault) []Fault {
	for i := range faults {
		f := &faults[i]
		f.Protocol = protocol
		r := f.Want.Role
		f.Setup = steps(start(f.Family), nft(r, f.Family, script))
	}
	return faults
}

func idle(int) func(*Lab) error { return func(*Lab) error { return nil } }

// ruled is a ruleset of nft before a datagram service (protocol udp) or a host that answers echo requests (icmp).
func ruled(protocol, name, cause, direction, summary string, r Role, hook, script string, rule func(int) *Rule) []Fault {
	start := echo
	if protocol == "icmp" {
		start = idle
	}
	faults := as(protocol, start, script, nftFault(name, cause, summary, r, hook, script, rule))
	for i := range faults {
		faults[i].Want.Direction = direction
	}
	return faults
}

func udpFaults() []Fault {
	return slices.Concat(
		ruled("udp", "udp-input", "firewall-drop", forward, "a rule of the server drops the datagram", Server, "INPUT",
			`table inet edge { chain guard { type filter hook input priority filter; policy accept; tcp dport %port accept; udp dport %port drop; }; }`, inet("edge", 2, "udp", "guard")),
		ruled("udp", "udp-forward", "firewall-reject", forward, "the router rejects the datagram", Router, "FORWARD",
			`table inet transit { chain pass { type filter hook forward priority filter; policy accept; udp dport %port reject; }; }`, inet("transit", 1, "reject", "pass")),
		ruled("udp", "udp-policy", "firewall-policy", forward, "the server's policy drops the datagram", Server, "INPUT",
			`table inet edge { chain guard { type filter hook input priority filter; policy drop; tcp dport %port accept; `+neighbours+`; }; }`, inet("edge", 0, "", "guard")),
		ruled("udp", "udp-reply-output", "firewall-drop", reply, "the server drops its answer", Server, "OUTPUT",
			`table inet leaving { chain away { type filter hook output priority filter; policy accept; udp sport %port drop; }; }`, inet("leaving", 1, "sport", "away")),
		ruled("udp", "udp-reply-input", "firewall-drop", reply, "the client drops the answer", Client, "INPUT",
			`table inet edge { chain guard { type filter hook input priority filter; policy accept; udp sport %port drop; }; }`, inet("edge", 1, "sport", "guard")),
		both(func(f int) Fault {
			return Fault{Name: "udp-legacy", Cause: "firewall-drop", Summary: "an iptables rule drops the datagram", Protocol: "udp", Tools: []string{iptables("legacy", f)},
				Setup: steps(echo(f), rules(Server, "legacy", f, "-A INPUT -p tcp -j ACCEPT\n-A INPUT -p udp --dport %port -j DROP")),
				Want: Want{Direction: forward, Role: Server, Hook: "INPUT", Rule: &Rule{Backend: "iptables-legacy", Family: pick(f, "ip", "ip6"),
					Table: "filter", Chain: "INPUT", Path: []string{"INPUT"}, Number: 2, Text: "-p udp"}}, Fix: true}
		}),
		both(func(f int) Fault {
			return Fault{Name: "udp-no-route-back", Cause: "no-route", Summary: "the server has no route back for its answer", Protocol: "udp",
				Setup: steps(echo(f), ip(Server, f, "route del default")),
				Want:  Want{Direction: reply, Role: Server}}
		}),
		both(func(f int) Fault {
			second := pick(f, "198.18.9.81", "fd5c:7e1a:9::81")
			return Fault{Name: "udp-answer-elsewhere", Cause: "unexplained", Summary: "the server answers from another of its addresses than was asked", Protocol: "udp",
				Setup:  steps(serving(f, Listen{Addr: anywhere(f), Network: pick(f, "udp4", "udp6"), Behaviour: Echo}), ip(Server, f, "addr add %s dev eth0 preferred_lft 0", second+pick(f, "/24", "/64 nodad"))),
				Target: fixed(netip.AddrPortFrom(netip.MustParseAddr(second), Port).String()),
				Want:   Want{Certainty: "none", Direction: reply, Role: Client, Device: HostDevice}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "udp-blackhole", Cause: "route-blackhole", Summary: "a black hole of the router covers the server", Protocol: "udp",
				Setup: steps(echo(f), ip(Router, f, "route add blackhole %s", part(f))),
				Want:  Want{Certainty: observed, Direction: forward, Role: Router, Route: "blackhole " + part(f), Table: "main"}, Fix: true}
		}),
		both(func(f int) Fault {
			return Fault{Name: "udp-silent", Cause: "app-silent", Summary: "the service takes the datagram and says nothing", Protocol: "udp", Args: []string{"-w", "700ms", "--expect", "."},
				Setup: serving(f, Listen{Network: pick(f, "udp4", "udp6"), Comm: "clerk"}),
				Want:  Want{Direction: reply, Role: Server, Comm: "clerk"}}
		}),
	)
}

func echoFaults() []Fault {
	return slices.Concat(
		ruled("icmp", "echo-input", "firewall-drop", forward, "a rule of the server drops echo requests", Server, "INPUT",
			`table inet edge { chain guard { type filter hook input priority filter; policy accept; tcp dport %port accept; icmp type echo-request drop; icmpv6 type echo-request drop; }; }`,
			func(f int) *Rule { return nftRule("inet", "edge", f/2, "echo-request", "guard") }),
		ruled("icmp", "echo-forward", "firewall-policy", forward, "the router's policy drops echo requests", Router, "FORWARD",
			`table inet transit { chain pass { type filter hook forward priority filter; policy drop; tcp dport %port accept; }; }`, inet("transit", 0, "", "pass")),
		ruled("icmp", "echo-reply-output", "firewall-drop", reply, "the server drops its echo replies", Server, "OUTPUT",
			`table inet leaving { chain away { type filter hook output priority filter; policy accept; icmp type echo-reply drop; icmpv6 type echo-reply drop; }; }`,
			func(f int) *Rule { return nftRule("inet", "leaving", f/2-1, "echo-reply", "away") }),
		ruled("icmp", "echo-reply-input", "firewall-drop", reply, "the client drops echo replies", Client, "INPUT",
			`table inet edge { chain guard { type filter hook input priority filter; policy accept; icmp type echo-reply drop; icmpv6 type echo-reply drop; }; }`,
			func(f int) *Rule { return nftRule("inet", "edge", f/2-1, "echo-reply", "guard") }),
		both(func(f int) Fault {
			return Fault{Name: "echo-legacy", Cause: "firewall-drop", Summary: "an iptables rule drops echo requests", Protocol: "icmp", Tools: []string{iptables("legacy", f)},
				Setup: rules(Server, "legacy", f, "-A INPUT -p tcp -j ACCEPT\n-A INPUT -p "+pick(f, "icmp --icmp-type", "ipv6-icmp --icmpv6-type")+" echo-request -j DROP"),
				Want: Want{Direction: forward, Role: Server, Hook: "INPUT", Rule: &Rule{Backend: "iptables-legacy", Family: pick(f, "ip", "ip6"),
					Table: "filter", Chain: "INPUT", Path: []string{"INPUT"}, Number: 2, Text: "-j DROP"}}, Fix: true}
		}),
		both(func(f int) Fault {
			return Fault{Name: "echo-unreachable", Cause: "route-unreachable", Summary: "an unreachable route of the router covers the server", Protocol: "icmp",
				Setup: ip(Router, f, "route add unreachable %s", part(f)),
				Want:  Want{Certainty: observed, Direction: forward, Role: Router, Route: "unreachable " + part(f), Table: "main"}, Fix: true,
				Sees: []error{unix.ETIMEDOUT}} // a raw socket is not told
		}),
		both(func(f int) Fault {
			return Fault{Name: "echo-no-route-back", Cause: "no-route", Summary: "the server has no route back for the echo reply", Protocol: "icmp",
				Setup: ip(Server, f, "route del default"),
				Want:  Want{Direction: reply, Role: Server}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "echo-ignored", Cause: "unexplained", Summary: "the server is set to answer no echo requests", Protocol: "icmp", Args: []string{"-w", "700ms"},
				Setup: sysctl(Server, pick(f, "net.ipv4.icmp_echo_ignore_all", "net.ipv6.icmp.echo_ignore_all"), "1"),
				Want:  Want{Direction: forward, Role: Server}}
		}),
	)
}
