// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"
)

// busyRate is how many packets a second cross the chains that the probe crosses, on the way to the same host.
const busyRate = 20000

// stranger is the source of others' packets: a host of the client's network that is not there.
func stranger(f int) netip.Addr {
	return netip.MustParseAddr(pick(f, "198.18.4.99", "fd5c:7e1a:4::99"))
}

// busy makes controls of a verdict that must be the same while others' packets cross the same
// chains: those of the request, or back.
func busy(name, twin, cause, summary string, f func(family int) Fault, traffic Flood, back bool) []Fault {
	return both(func(family int) Fault {
		x := f(family)
		traffic := traffic
		to, from := Server, Client
		if back {
			to, from = Client, Server
		}
		traffic.From, traffic.To, traffic.Rate, traffic.Ports = stranger(family), netip.AddrPortFrom(addr(to, family), traffic.To.Port()), busyRate, 64
		x.Name, x.Twin, x.Cause, x.Summary, x.Busy = "busy-"+name, twin, cause, summary, busyRate
		x.Setup = steps(x.Setup, func(l *Lab) error { return l.Flood(from, traffic) })
		return x
	})
}

// toPort is the port that a flood goes to; its address is filled in by [busy].
func toPort(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.Addr{}, port) }

func busyControls() []Fault {
	const rst = 1 << 2
	drops := func(f int) Fault {
		return Fault{Tools: []string{"nft"}, Setup: steps(serve(f), nft(Server, f, `table inet edge { chain guard { type filter hook input priority filter; policy accept;
				udp dport 9 drop; %ip saddr `+stranger(f).String()+` drop; tcp dport 22 accept; tcp dport %port drop; }; }`)),
			Want: Want{Direction: forward, Role: Server, Hook: "INPUT", Rule: nftRule("inet", "edge", 4, "%port drop", "guard")}}
	}
	same := func(f int) Fault {
		x := drops(f)
		x.Setup = steps(serve(f), nft(Server, f, `table inet edge { chain guard { type filter hook input priority filter; policy accept; tcp dport 22 accept; tcp dport %port drop; }; }`))
		x.Want.Rule = nftRule("inet", "edge", 2, "%port drop", "guard")
		return x
	}
	legacy := func(lines string, number int) func(f int) Fault {
		return func(f int) Fault {
			return Fault{Tools: []string{iptables("legacy", f)}, Setup: steps(serve(f), rules(Server, "legacy", f, lines)),
				Want: Want{Direction: forward, Role: Server, Hook: "INPUT", Rule: &Rule{Backend: "iptables-legacy", Family: pick(f, "ip", "ip6"),
					Table: "filter", Chain: "INPUT", Path: []string{"INPUT"}, Number: number, Text: "-j DROP"}}}
		}
	}
	accepts := func(script string) func(f int) Fault {
		return func(f int) Fault {
			return Fault{Tools: []string{"nft"}, Setup: steps(serve(f), nft(Server, f, script)), Want: Want{Role: Server, Comm: "labd"}}
		}
	}
	invalid := func(f int) Fault {
		x := invalidFaults()[f/2-2]
		return Fault{Tools: x.Tools, Setup: x.Setup, Want: x.Want}
	}
	all := slices.Concat(
		busy("nft-others", "nft-input", "firewall-drop", "rules drop the packets of others, one drops the probe", drops, Flood{To: toPort(9), UDP: true}, false),
		busy("nft-same-rule", "nft-input", "firewall-drop", "the rule that drops the probe drops those of others at the same time", same, Flood{To: toPort(Port)}, false),
		busy("legacy-others", "legacy-input", "firewall-drop", "an iptables rule drops the packets of others, one drops the probe",
			legacy("-A INPUT -p udp --dport 9 -j DROP\n-A INPUT -p tcp --dport %port -j DROP", 2), Flood{To: toPort(9), UDP: true}, false),
		busy("legacy-same-rule", "legacy-input", "firewall-drop", "the iptables rule that drops the probe drops those of others at the same time",
			legacy("-A INPUT -p udp -j ACCEPT\n-A INPUT -p tcp --dport %port -j DROP", 2), Flood{To: toPort(Port)}, false),
		busy("accepted", "nft-input", "reachable", "a rule drops the packets of others, the probe passes",
			accepts(`table inet edge { chain guard { type filter hook input priority filter; policy drop; ct state established accept; `+neighbours+`; udp dport 9 drop; tcp dport %port accept; }; }`),
			Flood{To: toPort(9), UDP: true}, false),
		busy("invalid", "ct-invalid-reply", "firewall-drop", "the answer is dropped as invalid, and so are the resets of others", invalid, Flood{To: toPort(9), Flags: rst}, true),
		busy("invalid-others", "ct-invalid-reply", "reachable", "the resets of others are dropped as invalid, the probe passes",
			accepts(`table inet state { chain guard { type filter hook input priority filter; policy accept; ct state invalid drop; }; }`), Flood{To: toPort(9), Flags: rst}, false),
	)
	for i := range all {
		if r := all[i].Want.Rule; r != nil {
			r.Text = expand(all[i].Family, r.Text)
		}
	}
	return all
}
