// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"
)

// stray is an address of nobody, in a network that only a default route covers.
func stray(family int) string { return pick(family, "198.18.200.7", "fd5c:7e1a:c8::7") }

// part is a network around the server that is narrower than the server's own.
func part(family int) string { return pick(family, "198.18.9.64/26", "fd5c:7e1a:9::/112") }

// second is one more address of the client, outside its network.
func second(family int) netip.Prefix {
	return netip.MustParsePrefix(pick(family, "198.18.66.6/32", "fd5c:7e1a:42::6/128"))
}

func routeFaults() []Fault {
	all := slices.Concat(noRouteFaults(), ruleFaults(), rpFilterFaults())
	for _, kind := range []string{"blackhole", "unreachable", "prohibit"} {
		for _, r := range []Role{Router, Client} {
			all = slices.Concat(all, both(func(f int) Fault {
				want := Want{Direction: forward, Role: r, Route: kind + " " + part(f), Table: "main"}
				if r == Router {
					want.Certainty = observed
				}
				return Fault{Name: kind + "-" + string(r), Cause: "route-" + kind, Summary: "a " + kind + " route of the " + string(r) + " covers the server",
					Setup: steps(serve(f), ip(r, f, "route add %s %s", kind, part(f))),
					Want:  want, Fix: true}
			}))
		}
	}
	return all
}

func noRouteFaults() []Fault {
	return slices.Concat(
		both(func(f int) Fault {
			return Fault{Name: "no-route-router", Cause: "no-route", Summary: "the router has no route to the destination",
				Target: fixed(netip.AddrPortFrom(netip.MustParseAddr(stray(f)), Port).String()),
				Want:   Want{Direction: forward, Role: Router}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "no-route-client", Cause: "no-route", Summary: "the client has no route to the destination",
				Setup: steps(serve(f), ip(Client, f, "route del default")),
				Want:  Want{Direction: forward, Role: Client}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "no-route-back", Cause: "no-route", Summary: "the server has no route back to the client",
				Setup: steps(serve(f), ip(Server, f, "route del default")),
				Want:  Want{Direction: reply, Role: Server}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "no-route-back-router", Cause: "no-route", Summary: "the router has no route back to the address that the client uses",
				Setup: steps(serve(f), secondAddress(f)),
				Args:  []string{"-s", second(f).Addr().String()},
				Want:  Want{Direction: reply, Role: Router}}
		}),
	)
}

// secondAddress is for use as the source. The client asks for its router by its first address
// all the same: ARP from the second would die of what is broken for the second.
func secondAddress(family int) func(*Lab) error {
	return steps(
		sysctl(Client, "net.ipv4.conf.eth0.arp_announce", "2"),
		func(l *Lab) error { return l.AddAddress(Client, HostDevice, second(family)) },
	)
}

// ruleFaults are decided by the policy routing rules.
func ruleFaults() []Fault {
	return slices.Concat(
		both(func(f int) Fault {
			return Fault{Name: "blackhole-mark", Cause: "route-blackhole", Summary: "a mark leads to a table that holds a black hole",
				Setup: steps(serve(f), ip(Client, f, "route add blackhole default table 4242"), ip(Client, f, "rule add fwmark 0x2a lookup 4242 pref 150")),
				Args:  []string{"--mark", "0x2a"},
				Want:  Want{Direction: forward, Role: Client, Route: "blackhole default", Table: "4242"}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "prohibit-table", Cause: "route-prohibit", Summary: "what arrives from the client is looked up in a table that prohibits it",
				Setup: steps(serve(f), ip(Router, f, "route add prohibit %%dmz table 900"), ip(Router, f, "rule add iif lan0 lookup 900 pref 300")),
				Want:  Want{Direction: forward, Role: Router, Route: "prohibit " + expand(f, "%dmz"), Table: "900"}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "prohibit-rule", Cause: "route-prohibit", Summary: "a policy rule of the router prohibits the client's network",
				Setup: steps(serve(f), ip(Router, f, "rule add from %%net iif lan0 prohibit pref 400")),
				Want:  Want{Direction: forward, Role: Router, Priority: 400}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "blackhole-rule-client", Cause: "route-blackhole", Summary: "a policy rule of the client swallows what goes to the server",
				Setup: steps(serve(f), ip(Client, f, "rule add to %%server blackhole pref 410")),
				Want:  Want{Direction: forward, Role: Client, Priority: 410}}
		}),
	)
}

// rpFilterFaults: the router's route to the sender leaves by another device.
func rpFilterFaults() []Fault {
	asymmetric := steps(serve(4), secondAddress(4), ip(Router, 4, "route add %s via %s", second(4), addr(Server, 4)))
	fault := func(name, summary, scope string) Fault {
		s := "net.ipv4.conf." + scope + ".rp_filter"
		return Fault{Name: name, Cause: "rp-filter", Family: 4, Summary: summary,
			Setup: steps(asymmetric, sysctl(Router, s, "1")), Args: []string{"-s", second(4).Addr().String()},
			Want: Want{Certainty: observed, Direction: forward, Role: Router, Device: LANDevice, Sysctl: [2]string{s, "1"}}}
	}
	return []Fault{
		fault("rp-filter", "the router's route back leaves by another device", LANDevice),
		fault("rp-filter-all", "the same, switched on for all devices", "all"),
	}
}
