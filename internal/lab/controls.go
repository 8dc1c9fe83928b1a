// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"
)

// controls look like a fault without being it: a verdict that only recognises
// the look of a fault is wrong here.
func controls() []Fault {
	return slices.Concat(firewallControls(), routeControls(), serviceControls(), socketControls(), programControls(), busyControls(), libwrapControls())
}

// passing is a control with a ruleset that does not stop the probe.
func passing(name, twin, summary string, r Role, script string) []Fault {
	return both(func(f int) Fault {
		return Fault{Name: "control-" + name, Twin: twin, Cause: "reachable", Summary: summary, Tools: []string{"nft"},
			Setup: steps(serve(f), nft(r, f, script)), Want: Want{Role: Server, Comm: "labd"}}
	})
}

func firewallControls() []Fault {
	crowd := Flood{From: netip.MustParseAddr("198.18.4.99"), To: netip.AddrPortFrom(addr(Server, 4), Port)}
	crowded := func(script string) func(*Lab) error {
		return steps(serve(4), nft(Server, 4, script), func(l *Lab) error { return l.Flood(Client, crowd) })
	}
	return slices.Concat(
		passing("limit", "nft-input", "a limit that is not yet used up", Server,
			`table inet edge { chain guard { type filter hook input priority filter; policy accept; tcp dport %port limit rate over 1000/second drop; }; }`),
		passing("other-port", "nft-forward", "another port is dropped", Router,
			`table inet transit { chain pass { type filter hook forward priority filter; policy accept; tcp dport 8081 drop; }; }`),
		passing("policy-passed", "nft-policy", "the policy drops, but a rule lets this port in", Server,
			`table inet edge { chain guard { type filter hook input priority filter; policy drop; ct state established accept; `+neighbours+`; tcp dport %port accept; }; }`),
		[]Fault{
			{Name: "control-others-dropped", Twin: "nft-input", Cause: "reachable", Family: 4, Summary: "a rule drops the packets of others on the same port", Tools: []string{"nft"},
				Setup: crowded(`table inet edge { chain guard { type filter hook input priority filter; policy accept; ip saddr 198.18.4.99 tcp dport %port drop; }; }`),
				Want:  Want{Role: Server, Comm: "labd"}},
			{Name: "control-crowd", Twin: "nft-input", Cause: "firewall-drop", Family: 4, Summary: "two rules drop: one the packets of others, one the probe's", Tools: []string{"nft"},
				Setup: crowded(`table inet edge { chain guard { type filter hook input priority filter; policy accept; ip saddr 198.18.4.99 tcp dport %port drop; tcp dport %port drop; }; }`),
				Want:  Want{Direction: forward, Role: Server, Hook: "INPUT", Rule: nftRule("inet", "edge", 2, "", "guard")}, Fix: true},
		},
		both(func(f int) Fault {
			return Fault{Name: "control-closed-port", Twin: "nft-reject-reset", Cause: "no-listener", Summary: "the port is closed; a rule resets another one", Tools: []string{"nft"},
				Setup: nft(Server, f, `table inet edge { chain guard { type filter hook input priority filter; policy accept; tcp dport 8081 reject with tcp reset; }; }`),
				Want:  Want{Certainty: observed, Direction: forward, Role: Server}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "control-legacy-other-port", Twin: "legacy-input", Cause: "reachable", Summary: "iptables drops another port", Tools: []string{iptables("legacy", f)},
				Setup: steps(serve(f), rules(Server, "legacy", f, "-A INPUT -p tcp --dport 8081 -j DROP")),
				Want:  Want{Role: Server, Comm: "labd"}}
		}),
	)
}

func routeControls() []Fault {
	return slices.Concat(
		both(func(f int) Fault {
			return Fault{Name: "control-unused-table", Twin: "blackhole-mark", Cause: "reachable", Summary: "a black hole in a table that only another mark leads to",
				Setup: steps(serve(f), ip(Client, f, "route add blackhole default table 4242"), ip(Client, f, "rule add fwmark 0x2a lookup 4242 pref 150")),
				Args:  []string{"--mark", "0x2b"},
				Want:  Want{Role: Server, Comm: "labd"}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "control-narrower-route", Twin: "blackhole-router", Cause: "reachable", Summary: "a black hole with a narrower route within",
				Setup: steps(serve(f), ip(Router, f, "route add blackhole %s", part(f)), ip(Router, f, "route add %%server dev dmz0")),
				Want:  Want{Role: Server, Comm: "labd"}}
		}),
		[]Fault{{Name: "control-rp-filter", Twin: "rp-filter", Cause: "reachable", Family: 4, Summary: "strict reverse-path filters where the routes are symmetric",
			Setup: steps(serve(4), sysctl(Router, "net.ipv4.conf.all.rp_filter", "1"), sysctl(Server, "net.ipv4.conf.all.rp_filter", "1")),
			Want:  Want{Role: Server, Comm: "labd"}}},
	)
}

func serviceControls() []Fault {
	return slices.Concat(
		both(func(f int) Fault {
			return Fault{Name: "control-other-namespace", Twin: "listen-loopback", Cause: "no-listener", Summary: "the port is open in a namespace that the packet never meets",
				Setup: func(l *Lab) error {
					if err := l.addNamespace(Bystander); err != nil {
						return err
					}
					return l.Serve(Bystander, Listen{Addr: anywhere(f)})
				},
				Want: Want{Certainty: observed, Direction: forward, Role: Server}}
		}),
		both(func(f int) Fault {
			other := netip.AddrPortFrom(addr(Server, f), Port+1)
			return Fault{Name: "control-other-queue", Twin: "accept-queue-full", Cause: "reachable", Summary: "the accept queue of another service is full",
				Setup: steps(serve(f), func(l *Lab) error {
					return l.ServeFull(Server, Listen{Addr: other, Backlog: 1, Comm: "sleepy"}, Client)
				}),
				Want: Want{Role: Server, Comm: "labd"}}
		}),
		[]Fault{{Name: "control-dual-stack", Twin: "listen-v6-only", Cause: "reachable", Family: 4, Summary: "an IPv6 socket that takes IPv4 too",
			Setup: func(l *Lab) error {
				return l.Serve(Server, Listen{Network: "tcp6", Addr: netip.MustParseAddrPort("[::]:8080"), Dual: true})
			},
			Want: Want{Role: Server, Comm: "labd"}}},
	)
}
