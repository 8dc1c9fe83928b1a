// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"slices"
	"strings"
)

// sizeControls are packets that look too big, or damaged, and are not.
func sizeControls() []Fault {
	fine := func(name, twin, summary string, setup func(f int) func(*Lab) error, args ...string) []Fault {
		return both(func(f int) Fault {
			return Fault{Name: "control-" + name, Twin: twin, Cause: "reachable", Summary: summary, Tools: []string{"nft"},
				Setup: setup(f), Args: args, Want: Want{Role: Server, Comm: "labd"}}
		})
	}
	deaf := func(f int) func(*Lab) error {
		return nft(Client, f, `table inet deaf { chain every { type filter hook input priority filter; policy accept; `+
			pick(f, "icmp type destination-unreachable", "icmpv6 type packet-too-big")+` drop; }; }`)
	}
	talk := []string{"--send", big, "--expect", "xxx"}
	return slices.Concat(
		fine("mtu-fits", "mtu-forward", "the router's device is narrow, and the datagram small", func(f int) func(*Lab) error {
			return steps(chatter(f, 0), shrink(Router, DMZDevice))
		}, "-u", "--send", "x", "--expect", "x"),
		fine("mtu-told", "pmtu-tcp", "what is sent is too big, the client hears so and sends less at once", func(f int) func(*Lab) error {
			return steps(serveEcho(f), ip(Router, f, "route add %%server dev dmz0 mtu %d", narrow))
		}, talk...),
		fine("mtu-local", "mtu-forward", "the client's own device is narrow: the datagram is sent in fragments", func(f int) func(*Lab) error {
			return steps(chatter(f, 1), shrink(Client, HostDevice))
		}, "-u", "--send", big, "--expect", "y"),
		fine("mtu-clamped", "pmtu-tcp", "the error is dropped, but the router has both ends send less", func(f int) func(*Lab) error {
			return steps(serveEcho(f), shrink(Router, DMZDevice), deaf(f),
				nft(Router, f, `table inet clamp { chain pass { type filter hook forward priority mangle; policy accept; tcp flags syn tcp option maxseg size set 1100; }; }`))
		}, talk...),
		fine("mtu-deaf", "pmtu-client", "the client drops the errors, and there are none", func(f int) func(*Lab) error {
			return steps(chatter(f, 0), deaf(f))
		}, "-u", "--send", big, "--expect", "xxx"),
		fine("checksum-offloaded", "checksum-tcp", "the checksum is wrong, but was never computed, and nobody looks at it", func(f int) func(*Lab) error {
			return steps(serve(f), rewrite(Router, f, DMZDevice, "tcp dport %port", "@th,128,16 set 0xbad"))
		}),
		fine("fragments", "fragment-drop", "the datagram is sent in fragments, and another host's are dropped", func(f int) func(*Lab) error {
			return steps(chatter(f, 1), nft(Router, f, `table %ip pieces { chain first { type filter hook prerouting priority raw; policy accept; %ip saddr %server `+
				pick(f, "ip frag-off & 0x1fff != 0", "frag frag-off != 0")+` drop; }; }`))
		}, "-u", "--send", strings.Repeat("x", 3000), "--expect", "y"),
	)
}

// wayControls have routes and rules that stop others, and firewalls that are watched where little else is.
func wayControls() []Fault {
	watched := func(name, summary, direction, hook, script string) []Fault {
		faults := nftFault("control-"+name, "firewall-drop", summary, Client, hook, script, inet("edge", 1, "drop", "guard"))
		return each(faults, func(f *Fault) {
			f.Twin, f.Want.Direction, f.Args = "remote-silent"+pick(f.Family, "", "-v6"), direction, []string{"--scope", "netns"}
			f.Fix = false // the verdict after it cannot name who answers
		})
	}
	return slices.Concat(
		survives("throw", "throw-client", "a table throws the packet back, and the next has a route", func(f int) func(*Lab) error {
			return steps(ip(Client, f, "route add throw %%dmz table 910"), ip(Client, f, "rule add lookup 910 pref 430"))
		}),
		survives("suppress", "suppress-prefix", "the default route is suppressed, and a narrower one is there", func(f int) func(*Lab) error {
			return steps(ip(Client, f, "route add %%dmz via %s", nics[1].prefix(f).Addr()), ip(Client, f, "route add blackhole default table 912"),
				ip(Client, f, "rule add lookup main suppress_prefixlength 0 pref 430"), ip(Client, f, "rule add lookup 912 pref 440"))
		}),
		survives("blackhole-metric", "blackhole-reply-server", "a black hole of the server has a worse metric than a route", func(f int) func(*Lab) error {
			return steps(ip(Server, f, "route add blackhole %s metric 500", lan(f)), ip(Server, f, "route add %s via %s metric 10", lan(f), nics[2].prefix(f).Addr()))
		}),
		survives("port-rule", "prohibit-port-rule", "a policy rule of the router prohibits another port", func(f int) func(*Lab) error {
			return ip(Router, f, "rule add ipproto tcp dport 8081 prohibit pref 450")
		}),
		watched("scope-output", "the client's own firewall drops it, and only the client is watched", forward, "OUTPUT",
			`table inet edge { chain guard { type filter hook output priority filter; policy accept; tcp dport %port drop; }; }`),
		watched("scope-reply", "the client's own firewall drops the answer, and only the client is watched", reply, "INPUT",
			`table inet edge { chain guard { type filter hook input priority filter; policy accept; tcp sport %port drop; }; }`),
	)
}
