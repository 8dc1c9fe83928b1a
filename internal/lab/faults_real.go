// SPDX-License-Identifier: Apache-2.0

package lab

import "slices"

// realFaults are rulesets as people and their programs write them, where the
// words, the order or the way through the chains mislead.
func realFaults() []Fault {
	return slices.Concat(misleadingWords(), leavingBase(), bothWays(), connectedOnly())
}

// misleadingWords have the names of verdicts in places that decide nothing.
func misleadingWords() []Fault {
	return slices.Concat(
		nftFault("nft-comment", "firewall-drop", "the comment of the rule that drops it speaks of reject", Server, "INPUT", `
			table inet edge {
				chain guard {
					type filter hook input priority filter; policy accept;
					tcp dport 22 accept comment "do not drop or reject"
					tcp dport %port log prefix "was -j REJECT " drop comment "reject once, jump twice # handle 1"
				}
			}`, inet("edge", 2, "drop", "guard")),
		// nft itself cannot name such a chain
		iptablesFault("legacy", "chain-reject", "firewall-drop", "the chain that drops it is called reject", Server, "INPUT", `
			-N reject
			-A reject -p udp -j DROP
			-A reject -p tcp --dport %port -m comment --comment reject -j DROP
			-A reject -p tcp -j REJECT --reject-with tcp-reset
			-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			-A INPUT -p tcp -g reject`, "filter", 2, "--comment reject -j DROP", "INPUT", "reject"),
	)
}

// leavingBase come to a policy without coming to the end of its chain.
func leavingBase() []Fault {
	all := nftFault("nft-return-policy", "firewall-policy", "a return in the base chain leads to its policy", Server, "INPUT", `
		table inet edge {
			chain known { udp dport 53 accept; }
			chain guard {
				type filter hook input priority filter; policy drop;
				ct state established accept
				`+neighbours+`
				jump known
				%ip saddr %client return
				accept
			}
		}`, inet("edge", 0, "", "guard"))
	for _, b := range []string{"legacy", "nft"} {
		all = slices.Concat(all,
			iptablesFault(b, "goto-policy", "firewall-policy", "a goto after a jump leads away from the base chain, to its policy", Server, "INPUT", `
				-N known
				-N lan
				-A known -p udp --dport 53 -j ACCEPT
				-A INPUT -p tcp -j known
				-A INPUT -p tcp -g lan
				-A INPUT -j ACCEPT
				-P INPUT DROP`, "filter", 0, "", "INPUT"))
	}
	return all
}

// bothWays would stop the answers as well.
func bothWays() []Fault {
	return slices.Concat(
		nftFault("nft-prerouting-policy", "firewall-policy", "the router's policy drops all that comes in", Router, "PREROUTING", `
			table inet transit { chain first { type filter hook prerouting priority mangle; policy drop; meta l4proto ipv6-icmp accept; }; }`,
			inet("transit", 0, "", "first")),
		nftFault("nft-postrouting-policy", "firewall-policy", "the router's policy drops all that leaves", Router, "POSTROUTING", `
			table inet transit { chain last { type filter hook postrouting priority 160; policy drop; meta l4proto ipv6-icmp accept; }; }`,
			inet("transit", 0, "", "last")),
		nftFault("nft-ingress-devices", "firewall-policy", "one netdev chain of both of the router's devices drops it", Router, "INGRESS", `
			table netdev early { chain in { type filter hook ingress devices = { lan0, dmz0 } priority 0; policy drop; meta protocol arp accept; meta l4proto ipv6-icmp accept; }; }`,
			func(int) *Rule { return nftRule("netdev", "early", 0, "", "in") }),
		nftFault("nft-before-established", "firewall-drop", "the router drops it before it lets established connections pass", Router, "FORWARD", `
			table inet transit { chain pass { type filter hook forward priority filter; policy accept; meta l4proto tcp drop; ct state established accept; }; }`,
			inet("transit", 1, "tcp drop", "pass")),
		iptablesFault("nft", "any-port", "firewall-drop", "the router drops whatever has ports, answers too", Router, "FORWARD", `
			-A FORWARD -p udp -j ACCEPT
			-A FORWARD -p tcp -m multiport --dports 1:65535 -j DROP`, "filter", 2, "-j DROP", "FORWARD"),
	)
}

// connectedOnly let the client connect, and stop what follows.
func connectedOnly() []Fault {
	dropped := func(name, summary, what string) []Fault {
		all := nftFault(name, "firewall-drop", summary, Router, "FORWARD", `
			table inet transit { chain pass { type filter hook forward priority filter; policy accept; iifname "lan0" tcp dport %port `+what+` drop; }; }`,
			inet("transit", 1, "tcp flags", "pass"))
		for i := range all {
			all[i].Sees = []error{nil}
		}
		return all
	}
	return slices.Concat(
		dropped("nft-last-ack", "the router drops the last segment of the handshake", "tcp flags & (fin | syn | rst | psh | ack) == ack"),
		with(dropped("nft-data", "the router drops what the client says", "tcp flags & (syn | psh) == psh"), "--send", "hello", "-w", "1s"),
	)
}
