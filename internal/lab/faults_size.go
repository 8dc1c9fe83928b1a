// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"slices"
	"strings"
)

// big is more than the small MTUs below, and less than that of a cable.
var big = strings.Repeat("x", 1400)

// narrow is an MTU that big does not fit into; IPv6 allows no smaller one.
const narrow = 1280

func shrink(r Role, device string) func(*Lab) error {
	return onLink(r, "set %s mtu %d", device, narrow)
}

// mtuFaults are packets that may not be cut up, before a device that is too narrow for them.
func mtuFaults() []Fault {
	want := Want{Certainty: observed, Direction: forward, Role: Router, Device: DMZDevice}
	back := Want{Certainty: observed, Direction: reply, Role: Router, Device: LANDevice}
	return slices.Concat(
		both(func(f int) Fault {
			return Fault{Name: "mtu-forward", Cause: "mtu-exceeded", Summary: "the datagram is too big for the router's device towards the server",
				Setup: steps(chatter(f, 0), shrink(Router, DMZDevice)), Args: []string{"-u", "--send", big}, Want: want}
		}),
		both(func(f int) Fault {
			return Fault{Name: "mtu-reply", Cause: "mtu-exceeded", Summary: "the answer is too big for the router's device towards the client",
				Setup: steps(chatter(f, 1400), shrink(Router, LANDevice)), Args: []string{"-u", "--send", "x"}, Want: back}
		}),
		both(func(f int) Fault {
			return Fault{Name: "mtu-route", Cause: "mtu-exceeded", Summary: "the datagram is too big for the MTU of the router's route", Setup: steps(chatter(f, 0),
				ip(Router, f, "route add %%server dev dmz0 mtu %d", narrow)), Args: []string{"-u", "--send", big}, Want: want}
		}),
	)
}

// blackholeFaults lose the ICMP error as well.
func blackholeFaults() []Fault {
	fault := func(name, summary string, setup func(f int) func(*Lab) error, want Want, args ...string) []Fault {
		return both(func(f int) Fault {
			return Fault{Name: name, Cause: "pmtu-blackhole", Summary: summary, Tools: []string{"nft"}, Setup: setup(f), Args: args, Want: want}
		})
	}
	// toobig drops what would tell, in a chain of a role
	toobig := func(r Role, f int, hook string) func(*Lab) error {
		return nft(r, f, `table inet deaf { chain every { type filter hook `+hook+` priority filter; policy accept; `+
			pick(f, "icmp type destination-unreachable", "icmpv6 type packet-too-big")+` drop; }; }`)
	}
	want := Want{Direction: forward, Role: Router, Device: DMZDevice}
	back := Want{Direction: reply, Role: Router, Device: LANDevice}
	talk := []string{"--send", big, "--expect", "xxx", "-w", "2s"}
	return slices.Concat(
		fault("pmtu-client", "the datagram is too big, and the client's firewall drops the error about it", func(f int) func(*Lab) error {
			return steps(chatter(f, 0), shrink(Router, DMZDevice), toobig(Client, f, "input"))
		}, want, "-u", "--send", big),
		fault("pmtu-router", "the datagram is too big, and the router's firewall drops its own error", func(f int) func(*Lab) error {
			return steps(chatter(f, 0), shrink(Router, DMZDevice), toobig(Router, f, "output"))
		}, want, "-u", "--send", big),
		fault("pmtu-tcp", "what is sent on the connection is too big, and the error is dropped", func(f int) func(*Lab) error {
			return steps(serveEcho(f), shrink(Router, DMZDevice), toobig(Client, f, "input"))
		}, want, talk...),
		fault("pmtu-reply", "the answer is too big, and the server's firewall drops the error about it", func(f int) func(*Lab) error {
			return steps(chatter(f, 1400), shrink(Router, LANDevice), toobig(Server, f, "input"))
		}, back, "-u", "--send", "x"),
		fault("pmtu-tcp-reply", "what the server says is too big, and the error about it is dropped", func(f int) func(*Lab) error {
			return steps(serveBanner(f), shrink(Router, LANDevice), toobig(Server, f, "input"))
		}, back, "--send", "x", "--expect", "yyy", "-w", "2s"),
	)
}

func serveEcho(family int) func(*Lab) error {
	return func(l *Lab) error { return l.Serve(Server, Listen{Addr: addrPort(family), Behaviour: Echo}) }
}

// serveBanner greets with more than the small MTU.
func serveBanner(family int) func(*Lab) error {
	return func(l *Lab) error {
		return l.Serve(Server, Listen{Addr: addrPort(family), Banner: strings.Repeat("y", 1400)})
	}
}

// checksumFaults damage a checksum on the way.
func checksumFaults() []Fault {
	fault := func(name, summary string, family int, setup func(*Lab) error, want Want, args ...string) Fault {
		want.Certainty = observed
		return Fault{Name: name, Cause: "bad-checksum", Family: family, Summary: summary, Tools: []string{"nft"}, Setup: setup, Args: args, Want: want}
	}
	want := Want{Direction: forward, Role: Server, Device: HostDevice}
	back := Want{Direction: reply, Role: Client, Device: HostDevice}
	all := []Fault{
		fault("checksum-ip", "the checksum of the IP header is wrong", 4, steps(serve(4), rewrite(Router, 4, DMZDevice, "tcp dport %port", "@nh,80,16 set 0xbad")), want),
		fault("checksum-ip-reply", "the checksum of the answer's IP header is wrong", 4, steps(serve(4), rewrite(Router, 4, LANDevice, "tcp sport %port", "@nh,80,16 set 0xbad")), back),
	}
	for _, f := range []int{4, 6} {
		v6 := pick(f, "", "-v6")
		all = append(all,
			fault("checksum-tcp"+v6, "the TCP checksum is wrong", f, steps(serve(f), byHand(Client), rewrite(Router, f, DMZDevice, "tcp dport %port", "@th,128,16 set 0xbad")), want),
			fault("checksum-tcp-reply"+v6, "the answer's TCP checksum is wrong", f, steps(serve(f), byHand(Server), rewrite(Router, f, LANDevice, "tcp sport %port", "@th,128,16 set 0xbad")), back),
			fault("checksum-udp"+v6, "the UDP checksum is wrong", f, steps(chatter(f, 0), byHand(Client), rewrite(Router, f, DMZDevice, "udp dport %port", "@th,48,16 set 0xbad")), want, "-u", "--send", "x"),
		)
	}
	return all
}

// byHand has a host compute checksums itself: between namespaces they are else neither computed nor looked at.
func byHand(r Role) func(*Lab) error {
	return func(l *Lab) error { return l.offload(r, HostDevice, false) }
}

// fragmentFaults drop a later fragment, which has no ports.
func fragmentFaults() []Fault {
	huge := strings.Repeat("x", 3000)
	return both(func(f int) Fault {
		return Fault{Name: "fragment-drop", Cause: "firewall-drop", Summary: "the router drops later fragments", Tools: []string{"nft"},
			Setup: steps(chatter(f, 0), nft(Router, f, `table %ip pieces { chain first { type filter hook prerouting priority raw; policy accept; `+
				pick(f, "ip frag-off & 0x1fff != 0", "frag frag-off != 0")+` drop; }; }`)),
			Args: []string{"-u", "--send", huge, "--expect", "xxx", "-w", "2s"},
			Want: Want{Direction: forward, Role: Router, Hook: "PREROUTING", Rule: nftRule(pick(f, "ip", "ip6"), "pieces", 1, "drop", "first")}}
	})
}
