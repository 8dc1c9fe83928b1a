// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"
	"strings"
)

// nobody is an address of a role's network that no host has.
func nobody(r Role, family int) netip.Addr {
	if r == Server {
		return netip.MustParseAddr(pick(family, "198.18.9.222", "fd5c:7e1a:9::222"))
	}
	return netip.MustParseAddr(pick(family, "198.18.4.222", "fd5c:7e1a:4::222"))
}

// neighbourReplies lack the link address that a reply, or a route of the wrong kind, asks for.
func neighbourReplies() []Fault {
	unresolved := func(name, summary string, want Want, neighbor func(int) string, setup func(int) func(*Lab) error) []Fault {
		faults := with(broken(name, "neighbor-unresolved", summary, want, func(f int) func(*Lab) error {
			return steps(hasty(want.Role, f, want.Device), setup(f))
		}), "-w", "6s")
		return each(faults, func(f *Fault) { f.Want.Neighbor = neighbor(f.Family) })
	}
	loopbackOnly := unresolved("neighbor-reply-router", "the client's address is on its loopback device, where it answers for nobody",
		Want{Direction: reply, Role: Router, Device: LANDevice}, func(f int) string { return second(f).Addr().String() },
		func(f int) func(*Lab) error {
			quiet := sysctl(Client, "net.ipv4.conf.eth0.arp_ignore", "1") // IPv6 is never asked for addresses of other devices
			return steps(quiet, sysctl(Client, "net.ipv4.conf.eth0.arp_announce", "2"),
				func(l *Lab) error { return l.AddAddress(Client, "lo", second(f)) }, ip(Router, f, "route add %s dev lan0", second(f)))
		})
	return slices.Concat(
		unresolved("neighbor-reply", "the server's gateway does not exist", Want{Direction: reply, Role: Server, Device: HostDevice},
			func(f int) string { return nobody(Server, f).String() },
			func(f int) func(*Lab) error { return ip(Server, f, "route replace default via %s", nobody(Server, f)) }),
		each(loopbackOnly, func(f *Fault) { f.Args = append(f.Args, "-s", second(f.Family).Addr().String()) }),
		unresolved("neighbor-on-link", "the client takes the server's network for its own", Want{Direction: forward, Role: Client, Device: HostDevice},
			func(f int) string { return addr(Server, f).String() },
			func(f int) func(*Lab) error { return ip(Client, f, "route add %%dmz dev eth0") }),
		unresolved("neighbor-multipath", "two next hops, and neither exists", Want{Direction: forward, Role: Client, Device: HostDevice},
			func(int) string { return "" },
			func(f int) func(*Lab) error {
				other := nobody(Client, f).Next()
				return ip(Client, f, "route replace default nexthop via %s dev eth0 nexthop via %s dev eth0", nobody(Client, f), other)
			}),
		with([]Fault{{Name: "neighbor-arp-ignore", Cause: "neighbor-unresolved", Family: 4, Summary: "the server answers no ARP requests",
			Setup: steps(serve(4), hasty(Router, 4, DMZDevice), sysctl(Server, "net.ipv4.conf.eth0.arp_ignore", "8")),
			Want:  Want{Direction: forward, Role: Router, Device: DMZDevice, Neighbor: addr(Server, 4).String()}}}, "-w", "6s"),
	)
}

// neighbourFilters drop the question for a link address, or its answer.
func neighbourFilters() []Fault {
	filter := func(name, summary string, f int, asks Role, device, direction string, r Role, hook, script string, rule *Rule) Fault {
		return Fault{Name: name, Cause: "firewall-drop", Family: f, Summary: summary, Tools: []string{"nft"}, Args: []string{"-w", "6s"},
			Setup: steps(serve(f), hasty(asks, f, device), nft(r, f, script)),
			Want:  Want{Certainty: "inferred", Direction: direction, Role: r, Hook: hook, Rule: rule}}
	}
	arp := func(n int, chain string) *Rule { return nftRule("arp", "links", n, "drop", chain) }
	all := []Fault{
		filter("arp-input", "the server drops ARP requests", 4, Router, DMZDevice, forward, Server, "INPUT",
			`table arp links { chain in { type filter hook input priority 0; policy accept; arp operation reply accept; arp operation request drop; }; }`, arp(2, "in")),
		filter("arp-output", "the router's ARP requests do not leave", 4, Router, DMZDevice, forward, Router, "OUTPUT",
			`table arp links { chain out { type filter hook output priority 0; policy accept; oifname "dmz0" drop; }; }`, arp(1, "out")),
		filter("arp-answer", "the client drops the answers to its ARP requests", 4, Client, HostDevice, forward, Client, "INPUT",
			`table arp links { chain in { type filter hook input priority 0; policy accept; arp operation request accept; arp operation reply arp saddr ip 198.18.4.254 drop; }; }`, arp(2, "in")),
		filter("nd-input", "the server drops neighbour solicitations", 6, Router, DMZDevice, forward, Server, "INPUT",
			`table ip6 links { chain in { type filter hook input priority filter; policy accept; tcp dport 22 accept; icmpv6 type nd-neighbor-solicit drop; }; }`,
			nftRule("ip6", "links", 2, "nd-neighbor-solicit", "in")),
		filter("nd-answer", "the router drops neighbour advertisements", 6, Router, DMZDevice, forward, Router, "INPUT",
			`table inet links { chain in { type filter hook input priority filter; policy accept; icmpv6 type nd-neighbor-advert drop; }; }`,
			nftRule("inet", "links", 1, "nd-neighbor-advert", "in")),
		filter("nd-reply", "the server's own solicitations do not leave", 6, Server, HostDevice, reply, Server, "OUTPUT",
			`table inet links { chain out { type filter hook output priority filter; policy accept; icmpv6 type nd-neighbor-solicit drop; }; }`,
			nftRule("inet", "links", 1, "nd-neighbor-solicit", "out")),
	}
	legacy := filter("legacy-nd-input", "ip6tables of the server drops neighbour solicitations", 6, Router, DMZDevice, forward, Server, "INPUT", "",
		&Rule{Backend: "iptables-legacy", Family: "ip6", Table: "filter", Chain: "INPUT", Path: []string{"INPUT"}, Number: 2, Text: "-j DROP"})
	legacy.Tools = []string{iptables("legacy", 6)}
	legacy.Setup = steps(serve(6), hasty(Router, 6, DMZDevice), rules(Server, "legacy", 6, "-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -p ipv6-icmp --icmpv6-type 135 -j DROP"))
	arptables := filter("arptables-input", "arptables of the server drops ARP requests", 4, Router, DMZDevice, forward, Server, "INPUT", "",
		&Rule{Backend: "nft", Family: "arp", Table: "filter", Chain: "INPUT", Path: []string{"INPUT"}, Number: 1, Text: "drop"})
	arptables.Tools = []string{"arptables-nft"}
	arptables.Setup = steps(serve(4), hasty(Router, 4, DMZDevice), run(Server, 4, "arptables-nft -A INPUT --opcode 1 -j DROP"))
	return append(all, legacy, arptables)
}

// linkAddress is the link address of a device.
func (l *Lab) linkAddress(r Role, device string) (string, error) {
	out, err := l.Output(r, "ip", "-br", "link", "show", "dev", device)
	fields := strings.Fields(out)
	if err != nil || len(fields) < 3 {
		return "", err
	}
	return fields[2], nil
}

// macFaults send frames to a link address that nobody has.
func macFaults() []Fault {
	const wrong = "02:00:5e:00:53:99"
	fault := func(name, summary string, direction string, sender Role, device string, hop func(f int) netip.Addr, reached Role, there string) []Fault {
		return mended(broken(name, "wrong-destination-mac", summary, Want{Direction: direction, Role: reached, Device: there},
			func(f int) func(*Lab) error {
				return ip(sender, f, "neigh replace %s lladdr "+wrong+" dev %s nud permanent", hop(f), device)
			}))
	}
	answered := fault("mac-answer", "a static entry of the router has another link address for the client, who asks for the router's", forward, Router, LANDevice,
		func(f int) netip.Addr { return nics[0].prefix(f).Addr() }, Client, HostDevice)[1:]
	each(with(answered, "-w", "6s"), func(f *Fault) { f.Fix, f.Want.Certainty = false, "inferred" })
	of := func(n nic) func(int) netip.Addr { return func(f int) netip.Addr { return n.prefix(f).Addr() } }
	return slices.Concat(
		fault("mac-router", "a static entry of the router has another link address for the server", forward, Router, DMZDevice, of(nics[3]), Server, HostDevice),
		fault("mac-client", "a static entry of the client has another link address for its gateway", forward, Client, HostDevice, of(nics[1]), Router, LANDevice),
		fault("mac-reply", "a static entry of the server has another link address for its gateway", reply, Server, HostDevice, of(nics[2]), Router, DMZDevice),
		fault("mac-reply-router", "a static entry of the router has another link address for the client", reply, Router, LANDevice, of(nics[0]), Client, HostDevice)[:1],
		answered, // IPv6 sends the answer to a question there, too
	)
}
