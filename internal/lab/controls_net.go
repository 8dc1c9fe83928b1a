// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"
)

// netControls look like the faults of links, bridges, neighbours and IP.
func netControls() []Fault {
	return slices.Concat(neighbourControls(), bridgeControls(), ipControls(), pathControls(), sizeControls(), wayControls())
}

// survives is a control in both families that the probe survives.
func survives(name, twin, summary string, setup func(f int) func(*Lab) error) []Fault {
	faults := broken("control-"+name, "reachable", summary, Want{Role: Server, Comm: "labd"}, setup)
	return each(faults, func(f *Fault) { f.Twin = twin + pick(f.Family, "", "-v6") })
}

// one keeps the control of one family, beside a fault that may have no twin in the other.
func one(family int, twin string, faults []Fault) []Fault {
	f := faults[(family-4)/2]
	f.Twin = twin
	return []Fault{f}
}

func neighbourControls() []Fault {
	other := func(f int) string { return pick(f, "198.18.9.99", "fd5c:7e1a:9::99") }
	filtered := func(f int) func(*Lab) error {
		if f == 6 {
			return nft(Server, f, `table ip6 links { chain in { type filter hook input priority filter; policy accept; icmpv6 type nd-neighbor-solicit ip6 saddr fd5c:7e1a:9::99 drop; }; }`)
		}
		return nft(Server, f, `table arp links { chain in { type filter hook input priority 0; policy accept; arp saddr ip 198.18.9.99 drop; }; }`)
	}
	asked := survives("neighbor-filter-other", "", "the server drops what another host asks for its link address", filtered)
	return slices.Concat(
		survives("link-unused", "link-down", "a device that is not on the way is down", func(int) func(*Lab) error { return spareLink(Router) }),
		survives("dead-nexthop", "neighbor-multipath", "one of two next hops is behind a dead link, and is not used", func(f int) func(*Lab) error {
			return steps(spareLink(Client), conf(Client, f, "all", "ignore_routes_with_linkdown", "1"), conf(Client, f, "dead0", "ignore_routes_with_linkdown", "1"),
				ip(Client, f, "addr add %s dev dead0", pick(f, "198.18.6.1/24", "fd5c:7e1a:6::1/64 nodad")),
				ip(Client, f, "route replace default nexthop via %s dev eth0 nexthop via %s dev dead0", nics[1].prefix(f).Addr(), pick(f, "198.18.6.2", "fd5c:7e1a:6::2")))
		}),
		survives("neighbor-failed", "neighbor-router", "the router once failed to find the server", func(f int) func(*Lab) error {
			return ip(Router, f, "neigh replace %%server dev dmz0 nud failed")
		}),
		survives("neighbor-proxy", "neighbor-on-link", "the client takes the server's network for its own, and the router answers for it", func(f int) func(*Lab) error {
			answer := conf(Router, 4, LANDevice, "proxy_arp", "1")
			if f == 6 {
				answer = steps(conf(Router, 6, LANDevice, "proxy_ndp", "1"), ip(Router, 6, "neigh add proxy %%server dev lan0"))
			}
			prompt := sysctl(Router, pick(f, "net.ipv4.neigh.", "net.ipv6.neigh.")+"lan0.proxy_delay", "0")
			return steps(answer, prompt, ip(Client, f, "route add %%dmz dev eth0"))
		}),
		needing(one(4, "arp-input", asked), "nft"), needing(one(6, "nd-input", asked), "nft"),
		survives("mac-other", "mac-router", "a static entry of the router has a wrong link address for another host", func(f int) func(*Lab) error {
			return ip(Router, f, "neigh replace %s lladdr 02:00:5e:00:53:99 dev dmz0 nud permanent", other(f))
		}),
		both(func(f int) Fault {
			// A port that does not learn: what is for the server goes to the bystander as well.
			return Fault{Name: "control-flooded", Twin: "mac-router", Cause: "no-listener", Summary: "the port is closed; another host gets a copy of each frame and refuses it",
				Setup: steps(addSwitch, func(l *Lab) error {
					if err := l.addNamespace(Bystander); err != nil {
						return err
					}
					return l.addPort(behind, "side0")
				}, port(DownDevice, "learning off")(f), run(Switch, f, "bridge fdb flush dev br0")),
				Want: Want{Certainty: observed, Direction: forward, Role: Server}}
		}),
	)
}

func bridgeControls() []Fault {
	within := func(name, twin, summary string, setup func(f int) func(*Lab) error) []Fault {
		return survives(name, twin, summary, func(f int) func(*Lab) error { return steps(addSwitch, setup(f)) })
	}
	idle := within("bridge-netfilter-off", "bridge-netfilter", "iptables of the switch drops it, but is not shown bridged packets", func(f int) func(*Lab) error {
		return steps(sysctl(Switch, "net.bridge.bridge-nf-call-"+pick(f, "iptables", "ip6tables"), "0"),
			rules(Switch, "legacy", f, "-A FORWARD -p tcp --dport %port -j DROP"))
	})
	each(idle, func(f *Fault) {
		f.Tools, f.Needs = []string{iptables("legacy", f.Family)}, []string{"net.bridge.bridge-nf-call-iptables"}
	})
	return slices.Concat(idle,
		within("bridge-other-port", "bridge-disabled", "another port of the switch is disabled", func(int) func(*Lab) error {
			return steps(spareLink(Switch), onLink(Switch, "set dead0 master "+bridgeDevice))
		}),
		within("bridge-isolated-one", "bridge-isolated", "one port of the switch is isolated, the other is not", port(UpDevice, "isolated on")),
		needing(within("bridge-filter-other", "bridge-forward", "a rule of the bridge family drops another port", func(f int) func(*Lab) error {
			return nft(Switch, f, `table bridge frames { chain pass { type filter hook forward priority 0; policy accept; tcp dport 8081 drop; }; }`)
		}), "nft"),
		needing(survives("netdev-other", "netdev-ingress", "a rule beside another device drops the port", func(f int) func(*Lab) error {
			return nft(Server, f, `table netdev early { chain in { type filter hook ingress device "lo" priority 0; policy accept; tcp dport %port drop; }; }`)
		}), "nft"),
	)
}

func ipControls() []Fault {
	six := func(name, twin, summary string, needs string, setup ...func(*Lab) error) Fault {
		f := one(6, twin, survives(name, "", summary, func(int) func(*Lab) error { return steps(setup...) }))[0]
		if needs != "" {
			f.Needs = []string{needs}
		}
		return f
	}
	own := broken("control-own-address", "reachable", "the router sends it to the server, which has that address", Want{Role: Server, Comm: "labd"}, func(f int) func(*Lab) error {
		return steps(func(l *Lab) error {
			a := netip.MustParseAddr(stray(f))
			if err := l.AddAddress(Server, "lo", netip.PrefixFrom(a, a.BitLen())); err != nil {
				return err
			}
			return l.Serve(Server, Listen{Addr: netip.AddrPortFrom(a, Port)})
		}, ip(Router, f, "route add %s via %s", stray(f), addr(Server, f)))
	})
	each(own, func(f *Fault) {
		f.Twin, f.Target = "not-our-address"+pick(f.Family, "", "-v6"), strayTarget(f.Family)
	})
	local := Fault{Name: "control-route-localnet", Twin: "martian-dnat", Cause: "reachable", Family: 4, Summary: "the router forwards a port to its loopback address, and may", Tools: []string{"nft"},
		Setup: steps(func(l *Lab) error {
			return l.Serve(Router, Listen{Addr: netip.MustParseAddrPort("127.0.0.1:8080")})
		}, conf(Router, 4, LANDevice, "route_localnet", "1"),
			nft(Router, 4, `table ip shift { chain inbound { type nat hook prerouting priority dstnat; policy accept; tcp dport %port dnat to 127.0.0.1:8080; }; }`)),
		Want: Want{Role: Router, Comm: "labd", NATTo: "127.0.0.1:8080"}}
	return append(slices.Concat(own,
		one(4, "ipv6-disabled-server", survives("ipv6-disabled-v4", "", "every device of the server has IPv6 switched off, and IPv4 is used", func(int) func(*Lab) error {
			return sysctl(Server, "net.ipv6.conf.all.disable_ipv6", "1")
		})),
		one(4, "forwarding-off-device", survives("forwarding-unused", "", "forwarding is off for a device that is not on the way", func(int) func(*Lab) error {
			return steps(spareLink(Router), conf(Router, 4, "dead0", "forwarding", "0"))
		})),
		one(4, "martian-source-own", needing(survives("masquerade", "", "the router puts its own address for the client's", func(f int) func(*Lab) error {
			return nft(Router, f, `table ip hide { chain out { type nat hook postrouting priority srcnat; policy accept; oifname "dmz0" masquerade; }; }`)
		}), "nft")),
	),
		six("ipv6-disabled-unused", "ipv6-disabled-router", "a device that is not on the way has IPv6 switched off", "", spareLink(Router), conf(Router, 6, "dead0", "disable_ipv6", "1")),
		six("forwarding-forced", "forwarding-off-v6", "forwarding is off for all devices, but on for the two on the way", forced("all"),
			sysctl(Router, "net.ipv6.conf.all.forwarding", "0"), sysctl(Router, forced(LANDevice), "1"), sysctl(Router, forced(DMZDevice), "1")),
		local)
}

func pathControls() []Fault {
	mixed := one(4, "rp-filter-all", survives("rp-filter-loose", "", "a strict filter for all, a loose one for the device: the greater number holds", func(int) func(*Lab) error {
		return steps(secondCable, sysctl(Client, "net.ipv4.conf.eth0.arp_announce", "2"), conf(Router, 4, "all", "rp_filter", "1"), conf(Router, 4, LANDevice, "rp_filter", "2"),
			conf(Router, 4, "lan1", "rp_filter", "2"))
	}))
	fib := broken("control-rp-filter-rule", "firewall-drop", "a rule, not the setting, drops what comes from another device than the way back",
		Want{Direction: forward, Role: Router, Hook: "PREROUTING"}, func(f int) func(*Lab) error {
			return steps(secondAddress(f), ip(Router, f, "route add %s via %s", second(f), addr(Server, f)), nft(Router, f,
				`table inet strict { chain first { type filter hook prerouting priority raw; policy accept; meta l4proto tcp fib saddr . iif oif missing drop; }; }`))
		})
	each(fromSecond(fib), func(f *Fault) {
		f.Twin, f.Tools = "rp-filter", []string{"nft"}
		f.Want.Rule = nftRule("inet", "strict", 1, "fib saddr . iif", "first")
	})
	return slices.Concat(with(mixed, "-s", spare[0].v4.Addr().String()), fib,
		survives("ttl-enough", "ttl-expired", "packets may make two hops, and that is enough", func(f int) func(*Lab) error {
			return steps(ip(Client, f, "route replace default via %s dev eth0 hoplimit 2", nics[1].prefix(f).Addr()), ip(Server, f, "route replace default via %s dev eth0 hoplimit 2", nics[2].prefix(f).Addr()))
		}),
		needing(survives("ttl-at-host", "ttl-nft", "the server sets the TTL to 1, where nothing is forwarded", func(f int) func(*Lab) error {
			return nft(Server, f, `table %ip hops { chain first { type filter hook prerouting priority mangle; policy accept; tcp dport %port `+pick(f, "ip ttl", "ip6 hoplimit")+` set 1; }; }`)
		}), "nft"),
	)
}
