// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"
)

// switched is a fault of a switch between router and server.
func switched(name, cause, summary string, want Want, setup func(f int) func(*Lab) error) []Fault {
	return broken(name, cause, summary, want, func(f int) func(*Lab) error {
		return steps(addSwitch, hasty(Router, f, DMZDevice), setup(f))
	})
}

// port sets an option of a bridge port.
func port(device, option string) func(int) func(*Lab) error {
	return func(f int) func(*Lab) error { return run(Switch, f, "bridge link set dev "+device+" "+option) }
}

// known has the router know the server's link address, so that no question for it dies in the switch.
func known(f int) func(*Lab) error {
	return func(l *Lab) error {
		mac, err := l.linkAddress(Server, HostDevice)
		if err != nil {
			return err
		}
		return l.IP(Router, f, expand(f, "neigh replace %server lladdr "+mac+" dev dmz0 nud permanent"))
	}
}

// bridgeFaults are those of a bridge and its ports.
func bridgeFaults() []Fault {
	want := func(device string) Want { return Want{Direction: forward, Role: Switch, Device: device} }
	blocked := func(name, summary, device, state string) []Fault {
		return mended(with(switched(name, "bridge-port-blocked", summary, want(device), port(device, "state "+state)), "-w", "6s"))
	}
	direct := switched("bridge-blocked-direct", "bridge-port-blocked", "the switch's port towards the router is listening, and no question was needed", want(UpDevice),
		func(f int) func(*Lab) error { return steps(port(UpDevice, "state 1")(f), known(f)) })
	isolated := with(switched("bridge-isolated", "bridge-isolated", "both ports of the switch are isolated", want(UpDevice), func(f int) func(*Lab) error {
		return steps(port(UpDevice, "isolated on")(f), port(DownDevice, "isolated on")(f))
	}), "-w", "6s")
	isolatedDirect := switched("bridge-isolated-direct", "bridge-isolated", "both ports of the switch are isolated, and no question was needed", want(UpDevice), func(f int) func(*Lab) error {
		return steps(port(UpDevice, "isolated on")(f), port(DownDevice, "isolated on")(f), known(f))
	})
	off := with(switched("bridge-port-down", "link-down", "the switch's port towards the server is down", want(DownDevice), func(int) func(*Lab) error {
		return onLink(Switch, "set down0 down")
	}), "-w", "6s")
	return slices.Concat(
		blocked("bridge-disabled", "the switch's port towards the router is disabled", UpDevice, "0"),
		blocked("bridge-listening", "the switch's port towards the router is still listening", UpDevice, "1")[:1],
		blocked("bridge-learning", "the switch's port towards the router is still learning", UpDevice, "2")[1:],
		blocked("bridge-blocked-out", "the switch's port towards the server is disabled", DownDevice, "0"),
		mended(direct), mended(isolated), mended(isolatedDirect), mended(off),
	)
}

// switchFirewalls drop it in a bridge.
func switchFirewalls() []Fault {
	fault := func(name, summary, hook, direction, script string, rule *Rule) []Fault {
		return mended(needing(switched(name, "firewall-drop", summary, Want{Direction: direction, Role: Switch, Hook: hook, Rule: rule},
			func(f int) func(*Lab) error { return nft(Switch, f, script) }), "nft"))
	}
	bridge := func(n int, chain string) *Rule { return nftRule("bridge", "frames", n, "drop", chain) }
	routed := switched("bridge-netfilter", "firewall-drop", "iptables of the switch sees bridged packets, and drops it", Want{Direction: forward, Role: Switch, Hook: "FORWARD"},
		func(f int) func(*Lab) error {
			return steps(sysctl(Switch, "net.bridge.bridge-nf-call-"+pick(f, "iptables", "ip6tables"), "1"),
				rules(Switch, "legacy", f, "-A FORWARD -p udp -j ACCEPT\n-A FORWARD -p tcp --dport %port -j DROP"))
		})
	each(routed, func(f *Fault) {
		f.Needs = []string{"net.bridge.bridge-nf-call-iptables"}
		f.Tools = []string{iptables("legacy", f.Family)}
		f.Want.Rule = &Rule{Backend: "iptables-legacy", Family: pick(f.Family, "ip", "ip6"), Table: "filter", Chain: "FORWARD", Path: []string{"FORWARD"}, Number: 2, Text: "-j DROP"}
	})
	return slices.Concat(
		fault("bridge-forward", "a rule of the bridge family drops it", "FORWARD", forward,
			`table bridge frames { chain pass { type filter hook forward priority 0; policy accept; ether type arp accept; tcp dport %port drop; }; }`, bridge(2, "pass")),
		fault("bridge-prerouting", "a rule drops it as it enters the bridge", "PREROUTING", forward,
			`table bridge frames { chain first { type filter hook prerouting priority -300; policy accept; iifname "up0" %ip saddr %net tcp dport %port drop; }; }`, bridge(1, "first")),
		fault("bridge-reply", "a rule drops the answer as it leaves the bridge", "POSTROUTING", reply,
			`table bridge frames { chain last { type filter hook postrouting priority 300; policy accept; oifname "up0" tcp sport %port drop; }; }`, bridge(1, "last")),
		mended(routed),
		needing(switched("bridge-question", "firewall-drop", "a rule of the bridge family drops the question for the server's link address",
			Want{Certainty: "inferred", Direction: forward, Role: Switch, Hook: "FORWARD", Rule: bridge(2, "pass")}, func(f int) func(*Lab) error {
				return nft(Switch, f, `table bridge frames { chain pass { type filter hook forward priority 0; policy accept; ether type ip accept; ether type arp drop; }; }`)
			}), "nft")[:1],
	)
}

// netdevFaults drop it beside a device, before or behind everything else.
func netdevFaults() []Fault {
	fault := func(name, summary string, r Role, hook, device, direction, script string, rule func(int) *Rule) []Fault {
		faults := nftFault(name, "firewall-drop", summary, r, hook, script, rule)
		return each(faults, func(f *Fault) { f.Want.Direction, f.Want.Device = direction, device })
	}
	rule := func(n int, chain string) func(int) *Rule {
		return func(int) *Rule { return nftRule("netdev", "early", n, "drop", chain) }
	}
	return slices.Concat(
		fault("netdev-ingress", "a rule beside the server's device drops it", Server, "INGRESS", HostDevice, forward,
			`table netdev early { chain in { type filter hook ingress device "eth0" priority 0; policy accept; udp dport 53 drop; tcp dport %port drop; }; }`, rule(2, "in")),
		fault("netdev-ingress-router", "a rule beside the router's device drops it", Router, "INGRESS", LANDevice, forward,
			`table netdev early { chain in { type filter hook ingress devices = { lan0 } priority -10; policy accept; %ip saddr %client jump fenced; }
				chain fenced { tcp dport %port drop; }; }`,
			func(int) *Rule { return nftRule("netdev", "early", 1, "drop", "in", "fenced") }),
		fault("netdev-egress", "a rule drops it as it leaves the client", Client, "EGRESS", HostDevice, forward,
			`table netdev early { chain out { type filter hook egress device "eth0" priority 0; policy accept; tcp dport %port drop; }; }`, rule(1, "out")),
		fault("netdev-reply", "a rule beside the router's device drops the answer", Router, "INGRESS", DMZDevice, reply,
			`table netdev early { chain in { type filter hook ingress device "dmz0" priority 5; policy accept; tcp sport %port tcp flags & syn == syn drop; }; }`, rule(1, "in")),
	)
}

// behind is a bystander at the switch, in the network of the server.
var behind = nic{Bystander, HostDevice, netip.MustParsePrefix("198.18.9.30/24"), netip.MustParsePrefix("fd5c:7e1a:9::30/64")}
