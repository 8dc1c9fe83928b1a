// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"
	"strings"
)

// virtual is an address that no device has: a router translates it.
func virtual(family int) string { return pick(family, "198.18.77.5", "fd5c:7e1a:4d::5") }

func virtually(family int) func(*Lab) string {
	return fixed(netip.AddrPortFrom(netip.MustParseAddr(virtual(family)), Port).String())
}

func natted(family int, port uint16) string {
	return netip.AddrPortFrom(addr(Server, family), port).String()
}

// %to is where a service is translated to: a port of the server that is closed, unless a fault opens it.
func translate(script string, family int) string {
	return strings.NewReplacer("%virtual", virtual(family), "%to", natted(family, Port+1), "%bracketed", bracketed(addr(Server, family))).Replace(script)
}

func bracketed(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

func natFaults() []Fault {
	return slices.Concat(natClosed(), natPlaces(), natDropped(), natReplies(), natOneWay(), natControls())
}

// natClosed are services whose port is closed where the translation leads to.
func natClosed() []Fault {
	all := both(func(f int) Fault {
		return natFault(f, "nat-nft", "a rule of nft in a chain of its own translates it to a closed port",
			natNFT(Router, f, `table %ip nat {
				chain web { udp dport 53 accept; tcp dport %port dnat to %to; }
				chain arriving { type nat hook prerouting priority dstnat; policy accept; %ip daddr %virtual jump web; }
			}`), nftRule(pick(f, "ip", "ip6"), "nat", 2, "dnat to", "arriving", "web"), "nft")
	})
	all = slices.Concat(all, both(func(f int) Fault {
		return natFault(f, "nat-inet-map", "a map of nft translates it to a closed port",
			natNFT(Router, f, `table inet edge {
				map services { type inet_service : %ipv_addr . inet_service; elements = { %port : %server . 8081, 22 : %server . 2222 }; }
				chain arriving { type nat hook prerouting priority dstnat; policy accept; %ip daddr %virtual dnat %ip to tcp dport map @services; }
				chain pass { type filter hook prerouting priority filter; policy accept; tcp dport 8081 accept; }
			}`), nftRule("inet", "edge", 1, "@services", "arriving"), "nft")
	}))
	for _, b := range []string{"legacy", "nft"} {
		all = slices.Concat(all,
			both(func(f int) Fault {
				return natFault(f, prefixOf[b]+"nat", "a rule of iptables translates it to a closed port",
					natTables(Router, b, f, `
						-t nat -A PREROUTING -p udp -j ACCEPT
						-t nat -A PREROUTING -d %virtual -p tcp --dport %port -j DNAT --to-destination %to`),
					&Rule{Backend: "iptables-" + b, Family: pick(f, "ip", "ip6"), Table: "nat", Chain: "PREROUTING", Path: []string{"PREROUTING"}, Number: 2, Text: "-j DNAT"},
					iptables(b, f))
			}),
			both(func(f int) Fault {
				return natFault(f, prefixOf[b]+"nat-service", "chains for a service and its only backend translate it to a closed port",
					natTables(Router, b, f, `
						-t nat -N SERVICES
						-t nat -N SVC-WEB
						-t nat -N SEP-GONE
						-t nat -N SEP-WEB
						-t nat -A PREROUTING -m comment --comment services -j SERVICES
						-t nat -A SERVICES -d %virtual -p tcp --dport 443 -j SEP-GONE
						-t nat -A SERVICES -d %virtual -p tcp --dport %port -j SVC-WEB
						-t nat -A SVC-WEB -m statistic --mode random --probability 0.00000 -j SEP-GONE
						-t nat -A SVC-WEB -j SEP-WEB
						-t nat -A SEP-WEB -s %server -j MARK --set-mark 0x4000
						-t nat -A SEP-WEB -p tcp -j DNAT --to-destination %to`),
					&Rule{Backend: "iptables-" + b, Family: pick(f, "ip", "ip6"), Table: "nat", Chain: "SEP-WEB",
						Path: []string{"PREROUTING", "SERVICES", "SVC-WEB", "SEP-WEB"}, Number: 2, Text: "-j DNAT"},
					iptables(b, f))
			}),
		)
	}
	return all
}

// natFault is a set-up by which the probe reaches a closed port of the server.
func natFault(f int, name, summary string, setup func(*Lab) error, rule *Rule, tool string) Fault {
	return Fault{Name: name, Cause: "no-listener", Summary: summary, Tools: []string{tool}, Setup: setup, Target: virtually(f),
		Want: Want{Certainty: observed, Direction: forward, Role: Server, NATTo: natted(f, Port+1), NATRule: rule}}
}

// natPlaces translate elsewhere than in the router's PREROUTING.
func natPlaces() []Fault {
	return slices.Concat(
		both(func(f int) Fault {
			return natFault(f, "nat-output", "the client itself translates it to a closed port",
				natNFT(Client, f, `table inet away { chain leaving { type nat hook output priority -100; policy accept; %ip daddr %virtual tcp dport %port dnat %ip to %to; }; }`),
				nftRule("inet", "away", 1, "dnat", "leaving"), "nft")
		}),
		both(func(f int) Fault {
			return natFault(f, "legacy-nat-output", "iptables of the client itself translates it to a closed port",
				natTables(Client, "legacy", f, "-t nat -A OUTPUT -d %virtual -p tcp -j DNAT --to-destination %to"),
				&Rule{Backend: "iptables-legacy", Family: pick(f, "ip", "ip6"), Table: "nat", Chain: "OUTPUT", Path: []string{"OUTPUT"}, Number: 1, Text: "-j DNAT"},
				iptables("legacy", f))
		}),
		both(func(f int) Fault {
			inner := netip.AddrPortFrom(netip.MustParseAddr(pick(f, "127.0.0.1", "::1")), Port+1)
			return Fault{Name: "nat-redirect", Cause: "listener-elsewhere", Summary: "the server redirects the port to one that only local clients can reach", Tools: []string{"nft"},
				Setup: steps(
					func(l *Lab) error { return l.Serve(Server, Listen{Addr: inner, Network: pick(f, "tcp4", "tcp6")}) },
					natNFT(Server, f, `table inet edge { chain arriving { type nat hook prerouting priority dstnat; policy accept; tcp dport %port redirect to :8081; }; }`)),
				Want: Want{Direction: forward, Role: Server, Socket: inner.String(), NATTo: natted(f, Port+1), NATRule: nftRule("inet", "edge", 1, "redirect to :8081", "arriving")}}
		}),
		[]Fault{{Name: "nat-hairpin", Cause: "martian-source", Family: 4, Summary: "the router sends it back to the client, under the client's own address", Tools: []string{"nft"},
			Setup:  natNFT(Router, 4, `table ip nat { chain arriving { type nat hook prerouting priority dstnat; policy accept; ip daddr %virtual dnat to %client; }; }`),
			Target: virtually(4),
			Want: Want{Certainty: observed, Direction: forward, Role: Client, Device: HostDevice, NATTo: at(addr(Client, 4)),
				NATRule: nftRule("ip", "nat", 1, "dnat to", "arriving")}}},
	)
}

// natDropped are dropped once they were translated, by a rule about what they have become.
func natDropped() []Fault {
	return both(func(f int) Fault {
		return Fault{Name: "nat-then-drop", Cause: "firewall-drop", Summary: "the router translates it, and drops what it has become", Tools: []string{"nft"},
			Setup: steps(func(l *Lab) error {
				return l.Serve(Server, Listen{Addr: netip.AddrPortFrom(addr(Server, f), Port+1), Network: pick(f, "tcp4", "tcp6")})
			}, natNFT(Router, f, `
				table %ip nat { chain arriving { type nat hook prerouting priority dstnat; policy accept; %ip daddr %virtual tcp dport %port dnat to %to; }; }
				table inet transit { chain pass { type filter hook forward priority filter; policy accept; tcp dport %port accept; %ip daddr %server tcp dport 8081 drop; }; }`)),
			Target: virtually(f),
			Want: Want{Certainty: observed, Direction: forward, Role: Router, Hook: "FORWARD", Rule: nftRule("inet", "transit", 2, "8081 drop", "pass"),
				NATTo: natted(f, Port+1), NATRule: nftRule(pick(f, "ip", "ip6"), "nat", 1, "dnat to", "arriving")}, Fix: true}
	})
}

// natReplies let the request pass under another source, and stop the answer to that.
func natReplies() []Fault {
	outside := func(f int) string { return pick(f, "198.18.66.9", "fd5c:7e1a:42::9") }
	return slices.Concat(
		both(func(f int) Fault {
			return Fault{Name: "nat-source-reply-dropped", Cause: "firewall-drop", Summary: "the server drops the answer to the address that the router gave the client", Tools: []string{"nft"},
				Setup: steps(serve(f),
					natNFT(Router, f, `table %ip nat { chain leaving { type nat hook postrouting priority srcnat; policy accept; oifname "dmz0" masquerade; }; }`),
					nft(Server, f, `table inet away { chain leaving { type filter hook output priority filter; policy accept; %ip daddr `+
						nics[2].prefix(f).Addr().String()+` tcp sport %port drop; }; }`)),
				Want: Want{Certainty: observed, Direction: reply, Role: Server, Hook: "OUTPUT", Rule: nftRule("inet", "away", 1, "drop", "leaving"),
					SNATTo: nics[2].prefix(f).Addr().String(), SNATRule: nftRule(pick(f, "ip", "ip6"), "nat", 1, "masquerade", "leaving")}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "nat-source-no-route", Cause: "no-route", Summary: "the server has no route to the address that the router gave the client", Tools: []string{iptables("legacy", f)},
				Setup: steps(serve(f), ip(Server, f, "route del default"),
					natTables(Router, "legacy", f, "-t nat -A POSTROUTING -o dmz0 -p tcp -j SNAT --to-source "+outside(f))),
				Want: Want{Direction: reply, Role: Server, SNATTo: outside(f),
					SNATRule: &Rule{Backend: "iptables-legacy", Family: pick(f, "ip", "ip6"), Table: "nat", Chain: "POSTROUTING", Path: []string{"POSTROUTING"}, Number: 1, Text: "-j SNAT"}}}
		}),
	)
}

// natOneWay translate the request and not the answer.
func natOneWay() []Fault {
	return slices.Concat(natUntracked("nat-answer-untracked", "", serve), natUntracked("nat-answer-untracked-datagram", "udp", echo))
}

func natUntracked(name, protocol string, service func(f int) func(*Lab) error) []Fault {
	return both(func(f int) Fault {
		return Fault{Name: name, Cause: "unexplained", Summary: "the router translates the request, and does not track the answer", Protocol: protocol, Tools: []string{"nft"},
			Setup: steps(service(f), natNFT(Router, f, `
				table %ip nat { chain arriving { type nat hook prerouting priority dstnat; policy accept; %ip daddr %virtual dnat to %bracketed; }; }
				table inet early { chain first { type filter hook prerouting priority raw; policy accept; iifname "dmz0" notrack; }; }`)),
			Target: virtually(f),
			Want: Want{Certainty: "none", Direction: reply, Role: Client, Device: HostDevice, NATTo: at(addr(Server, f)),
				NATRule: nftRule(pick(f, "ip", "ip6"), "nat", 1, "dnat to", "arriving")}}
	})
}

// natControls are translations that harm nobody.
func natControls() []Fault {
	return slices.Concat(
		both(func(f int) Fault {
			return Fault{Name: "control-nat", Twin: "nat-nft", Cause: "reachable", Summary: "both ends are translated, to where the service is", Tools: []string{"nft"},
				Setup: steps(serve(f), natNFT(Router, f, `table %ip nat {
					chain arriving { type nat hook prerouting priority dstnat; policy accept; %ip daddr %virtual tcp dport %port dnat to %bracketed:%port; }
					chain leaving { type nat hook postrouting priority srcnat; policy accept; oifname "dmz0" masquerade; }
				}`)),
				Target: virtually(f),
				Want: Want{Role: Server, Comm: "labd", NATTo: natted(f, Port), NATRule: nftRule(pick(f, "ip", "ip6"), "nat", 1, "dnat to", "arriving"),
					SNATTo: nics[2].prefix(f).Addr().String(), SNATRule: nftRule(pick(f, "ip", "ip6"), "nat", 1, "masquerade", "leaving")}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "control-nat-others", Twin: "legacy-nat", Cause: "no-listener", Summary: "a port is closed; iptables translates another", Tools: []string{iptables("legacy", f)},
				Setup: natTables(Router, "legacy", f, "-t nat -A PREROUTING -p tcp --dport 8081 -j DNAT --to-destination %to"),
				Want:  Want{Certainty: observed, Direction: forward, Role: Server, NoNAT: true}}
		}),
		[]Fault{{Name: "control-nat-hairpin", Twin: "nat-hairpin", Cause: "reachable", Family: 4, Summary: "the router sends it back to the client, under its own address", Tools: []string{"nft"},
			Setup: steps(
				func(l *Lab) error { return l.Serve(Client, Listen{Addr: netip.AddrPortFrom(addr(Client, 4), Port)}) },
				natNFT(Router, 4, `table ip nat {
					chain arriving { type nat hook prerouting priority dstnat; policy accept; ip daddr %virtual dnat to %client; }
					chain leaving { type nat hook postrouting priority srcnat; policy accept; oifname "lan0" masquerade; }
				}`)),
			Target: virtually(4),
			Want:   Want{Role: Client, Comm: "labd", NATTo: at(addr(Client, 4)), NATRule: nftRule("ip", "nat", 1, "dnat to", "arriving")}}},
	)
}

func natNFT(r Role, family int, script string) func(*Lab) error {
	return nft(r, family, translate(script, family))
}

func natTables(r Role, backend string, family int, lines string) func(*Lab) error {
	return rules(r, backend, family, translate(lines, family))
}
