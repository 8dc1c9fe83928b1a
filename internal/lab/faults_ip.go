// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"
)

// disabledFaults switch IPv6 off.
func disabledFaults() []Fault {
	fault := func(name, summary string, want Want, setup ...func(*Lab) error) Fault {
		return Fault{Name: name, Cause: "ipv6-disabled", Family: 6, Summary: summary, Want: want, Setup: steps(append([]func(*Lab) error{serve(6)}, setup...)...)}
	}
	const off = "net.ipv6.conf.eth0.disable_ipv6"
	all := [2]string{"net.ipv6.conf.all.disable_ipv6", "1"}
	server := fault("ipv6-disabled-server", "the server's device has IPv6 switched off", Want{Direction: forward, Role: Server, Device: HostDevice, Sysctl: [2]string{off, "1"}},
		hasty(Router, 6, DMZDevice), sysctl(Server, off, "1"))
	router := fault("ipv6-disabled-router", "the router's device towards the client has IPv6 switched off",
		Want{Direction: forward, Role: Router, Device: LANDevice, Sysctl: [2]string{"net.ipv6.conf.lan0.disable_ipv6", "1"}},
		hasty(Client, 6, HostDevice), conf(Router, 6, LANDevice, "disable_ipv6", "1"))
	return append(with([]Fault{server, router}, "-w", "6s"),
		fault("ipv6-disabled-frame", "the same, and the router does not ask for its link address", Want{Certainty: observed, Direction: forward, Role: Server, Sysctl: [2]string{off, "1"}},
			known(6), sysctl(Server, off, "1")),
		fault("ipv6-disabled-client", "the client has IPv6 switched off", Want{Direction: forward, Role: Client, Sysctl: all}, sysctl(Client, all[0], "1")),
		fault("ipv6-disabled-client-device", "the client's only device has IPv6 switched off", Want{Direction: forward, Role: Client, Sysctl: [2]string{off, "1"}},
			sysctl(Client, off, "1")),
	)
}

func strayTarget(family int) func(*Lab) string {
	return fixed(netip.AddrPortFrom(netip.MustParseAddr(stray(family)), Port).String())
}

// strayFaults send a packet to a host that it is not for.
func strayFaults() []Fault {
	there := broken("not-our-address", "not-our-address", "the router takes the server for the host of another address",
		Want{Certainty: observed, Direction: forward, Role: Server, Device: HostDevice},
		func(f int) func(*Lab) error {
			return ip(Router, f, "route add %s via %s", stray(f), addr(Server, f))
		})
	each(there, func(f *Fault) { f.Target = strayTarget(f.Family) })
	back := fromSecond(broken("not-our-address-reply", "not-our-address", "the router sends the answer to a bystander",
		Want{Certainty: observed, Direction: reply, Role: Bystander, Device: HostDevice},
		func(f int) func(*Lab) error {
			return steps(secondAddress(f), addBystander, ip(Router, f, "route add %s via %s", second(f).Addr(), annex[0].prefix(f).Addr()))
		}))
	return slices.Concat(there, back)
}

// forwardingReplies are forwarding that is off for the answer.
func forwardingReplies() []Fault {
	v4 := Fault{Name: "forwarding-reply", Cause: "forwarding-disabled", Family: 4, Summary: "the router does not forward what arrives from the server",
		Setup: steps(serve(4), sysctl(Router, "net.ipv4.conf.dmz0.forwarding", "0")), Fix: true,
		Want: Want{Certainty: observed, Direction: reply, Role: Router, Device: DMZDevice, Sysctl: [2]string{"net.ipv4.conf.dmz0.forwarding", "0"}}}
	v6 := Fault{Name: "forwarding-reply-v6", Cause: "forwarding-disabled", Family: 6, Summary: "the router forwards what arrives from the client only",
		Needs: []string{forced("all")}, Fix: true,
		Setup: steps(serve(6), sysctl(Router, "net.ipv6.conf.all.forwarding", "0"), sysctl(Router, forced(LANDevice), "1")),
		Want:  Want{Certainty: observed, Direction: reply, Role: Router, Device: DMZDevice, Sysctl: [2]string{"net.ipv6.conf.all.forwarding", "0"}}}
	server := broken("forwarding-second-hop", "forwarding-disabled", "the server is asked to forward to a network of its own",
		Want{Certainty: observed, Direction: forward, Role: Server, Device: HostDevice},
		func(f int) func(*Lab) error {
			return steps(ip(Router, f, "route add %s via %s", stray(f), addr(Server, f)), spareLink(Server), ip(Server, f, "route add %s dev dead0", stray(f)))
		})
	each(server, func(f *Fault) { f.Target = strayTarget(f.Family) })
	return append([]Fault{v4, v6}, server...)
}

// forced is the sysctl that has a device forward IPv6 while that is off for all (Linux 6.17).
func forced(device string) string { return "net.ipv6.conf." + device + ".force_forwarding" }

// rewrite changes packets as they leave a device, without a connection table: their answers are not changed back.
func rewrite(r Role, family int, device, match, change string) func(*Lab) error {
	return nft(r, family, `table netdev rewrite { chain out { type filter hook egress device "`+device+`" priority 0; policy accept; `+match+` `+change+`; }; }`)
}

// martianFaults are addresses that may not appear where they do.
func martianFaults() []Fault {
	fault := func(name, cause, field, direction, v4, v6 string) []Fault {
		faults := both(func(f int) Fault {
			setup, want := rewrite(Router, f, DMZDevice, "tcp dport %port", "%ip "+field+" set "+pick(f, v4, v6)), Want{Direction: direction, Role: Server, Device: HostDevice}
			if direction == reply {
				setup, want.Role = rewrite(Router, f, LANDevice, "tcp sport %port", "%ip "+field+" set "+pick(f, v4, v6)), Client
			}
			return Fault{Name: name, Cause: cause, Summary: "a packet arrives with " + pick(f, v4, v6) + " as its " + field, Tools: []string{"nft"},
				Setup: steps(serve(f), setup), Want: want}
		})
		if v6 == "" {
			return faults[:1]
		}
		return faults
	}
	const source, destination = "martian-source", "martian-destination"
	dnat := Fault{Name: "martian-dnat", Cause: destination, Family: 4, Summary: "the router forwards a port to its loopback address", Tools: []string{"nft"},
		Setup: steps(serve(4), nft(Router, 4, `table ip shift { chain inbound { type nat hook prerouting priority dstnat; policy accept; tcp dport %port dnat to 127.0.0.1:8080; }; }`)),
		Want:  Want{Certainty: observed, Direction: forward, Role: Router, Device: LANDevice, NATTo: "127.0.0.1:8080"}}
	return append(slices.Concat(
		fault("martian-source-own", source, "saddr", forward, "%server", ""),
		fault("martian-source-loopback", source, "saddr", forward, "127.0.0.9", "::1"),
		fault("martian-source-multicast", source, "saddr", forward, "224.0.0.9", "ff02::9"),
		fault("martian-source-zero", source, "saddr", forward, "0.0.0.0", ""),
		fault("martian-source-reply", source, "saddr", reply, "%client", ""),
		fault("martian-source-reply-loopback", source, "saddr", reply, "127.0.0.9", "::1"),
		fault("martian-destination-loopback", destination, "daddr", forward, "127.0.0.9", "::1"),
		fault("martian-destination-zero", destination, "daddr", forward, "0.0.0.0", ""),
		fault("martian-destination-reply", destination, "daddr", reply, "127.0.0.9", "::1"),
	), dnat,
		Fault{Name: "martian-own-loopback", Cause: source, Family: 4, Summary: "the client is to use a loopback address to another host",
			Setup: serve(4), Args: []string{"-s", "127.0.0.1"}, Want: Want{Direction: forward, Role: Client}},
		Fault{Name: "martian-broadcast", Cause: destination, Family: 4, Summary: "a connection to a broadcast address",
			Target: fixed("198.18.4.255:8080"), Want: Want{Direction: forward, Role: Client}})
}

// ttlFaults let packets make too few hops.
func ttlFaults() []Fault {
	want := Want{Certainty: observed, Direction: forward, Role: Router}
	back := want
	back.Direction = reply
	byRule := func(name, summary, match string, want Want) []Fault {
		return needing(broken(name, "ttl-expired", summary, want, func(f int) func(*Lab) error {
			return nft(Router, f, `table %ip hops { chain first { type filter hook prerouting priority mangle; policy accept; `+match+` `+pick(f, "ip ttl", "ip6 hoplimit")+` set 1; }; }`)
		}), "nft")
	}
	xtables := broken("ttl-iptables", "ttl-expired", "iptables of the router sets the TTL to 1", want, func(f int) func(*Lab) error {
		return rules(Router, "legacy", f, "-t mangle -A PREROUTING -i lan0 -p tcp "+pick(f, "-j TTL --ttl-set 1", "-j HL --hl-set 1"))
	})
	return slices.Concat(
		broken("ttl-reply", "ttl-expired", "the server's packets may make one hop only", back, func(f int) func(*Lab) error {
			return ip(Server, f, "route replace default via %s dev eth0 hoplimit 1", nics[2].prefix(f).Addr())
		}),
		byRule("ttl-nft", "a rule of the router sets the TTL to 1", `iifname "lan0" tcp dport %port`, want),
		byRule("ttl-nft-reply", "a rule of the router sets the TTL of answers to 1", `iifname "dmz0" tcp sport %port`, back),
		each(xtables, func(f *Fault) { f.Tools = []string{iptables("legacy", f.Family)} }),
	)
}

// rpFilterPaths are reverse-path filters where there are two ways.
func rpFilterPaths() []Fault {
	// The client's address on the second cable is used over the first: answers come by the second.
	detour := func(name, summary string, want Want, set ...func(*Lab) error) Fault {
		return Fault{Name: name, Cause: "rp-filter", Family: 4, Summary: summary, Setup: steps(append([]func(*Lab) error{serve(4), secondCable, sysctl(Client, "net.ipv4.conf.eth0.arp_announce", "2")}, set...)...),
			Args: []string{"-s", spare[0].v4.Addr().String()}, Want: want, Fix: true}
	}
	setting := func(device string) [2]string { return [2]string{"net.ipv4.conf." + device + ".rp_filter", "1"} }
	there := Want{Certainty: observed, Direction: forward, Role: Router, Device: LANDevice, Sysctl: setting(LANDevice)}
	all := there
	all.Sysctl = setting("all")
	back := Want{Certainty: observed, Direction: reply, Role: Client, Device: "eth1", Sysctl: setting("eth1")}
	loose := Fault{Name: "rp-filter-loose", Cause: "rp-filter", Family: 4, Summary: "the router has no route at all to the sender, and a loose filter",
		Setup: steps(serve(4), secondAddress(4), sysctl(Router, "net.ipv4.conf.lan0.rp_filter", "2")), Args: []string{"-s", second(4).Addr().String()},
		Want: Want{Certainty: observed, Direction: forward, Role: Router, Device: LANDevice, Sysctl: [2]string{"net.ipv4.conf.lan0.rp_filter", "2"}}}
	return []Fault{
		detour("rp-filter-two-ways", "the router's way back is another cable", there, conf(Router, 4, LANDevice, "rp_filter", "1")),
		detour("rp-filter-two-ways-all", "the same, switched on for all devices", all, conf(Router, 4, "all", "rp_filter", "1")),
		detour("rp-filter-reply", "the answer comes by another cable than the client would use", back, conf(Client, 4, "eth1", "rp_filter", "1")),
		loose,
	}
}
