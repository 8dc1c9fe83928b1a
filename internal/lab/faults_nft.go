// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"slices"
	"strconv"
	"strings"
)

// expand fills in the words that a ruleset or command leaves to the family.
func expand(family int, s string) string {
	return strings.NewReplacer(
		"%port", strconv.Itoa(Port),
		"%client", addr(Client, family).String(),
		"%server", addr(Server, family).String(),
		"%net", nics[0].prefix(family).Masked().String(),
		"%ipv", pick(family, "ipv4", "ipv6"),
		"%dmz", nics[3].prefix(family).Masked().String(),
		"%ip", pick(family, "ip", "ip6"),
	).Replace(s)
}

// nftRule describes a rule of nftables; the last of path is its chain, number 0 means the policy.
func nftRule(family, table string, number int, text string, path ...string) *Rule {
	return &Rule{Backend: "nft", Family: family, Table: table, Chain: path[len(path)-1], Path: path, Number: number, Text: text}
}

// nftFault is a ruleset in one namespace, before a service that would answer.
func nftFault(name, cause, summary string, r Role, hook, script string, rule func(family int) *Rule) []Fault {
	return both(func(f int) Fault {
		return Fault{Name: name, Cause: cause, Summary: summary, Tools: []string{"nft"},
			Setup: steps(serve(f), nft(r, f, script)),
			Want:  Want{Direction: forward, Role: r, Hook: hook, Rule: rule(f)}, Fix: true}
	})
}

func inet(table string, number int, text string, path ...string) func(int) *Rule {
	return func(int) *Rule { return nftRule("inet", table, number, text, path...) }
}

// neighbours lets neighbour discovery pass, without which IPv6 dies before the probe.
const neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"

func nftFaults() []Fault {
	return slices.Concat(nftHooks(), nftShapes(), nftRefusals())
}

// nftHooks drop the probe once in each hook.
func nftHooks() []Fault {
	return slices.Concat(
		nftFault("nft-input", "firewall-drop", "an nft rule of the server drops it", Server, "INPUT", `
			table inet edge {
				chain guard {
					type filter hook input priority filter + 5; policy accept;
					iif "lo" accept
					ct state established,related accept
					meta l4proto { icmp, ipv6-icmp } accept
					tcp dport 22 accept
					tcp dport 8000-8100 counter drop comment "range closed"
				}
			}`, inet("edge", 5, "tcp dport 8000-8100", "guard")),
		nftFault("nft-prerouting", "firewall-drop", "an nft rule of the server drops it before conntrack", Server, "PREROUTING", `
			table %ip early {
				chain first {
					type filter hook prerouting priority raw; policy accept;
					udp dport 53 notrack
					%ip saddr %net tcp dport %port drop
				}
			}`, func(f int) *Rule { return nftRule(pick(f, "ip", "ip6"), "early", 2, "drop", "first") }),
		nftFault("nft-forward", "firewall-drop", "an nft rule of the router drops it", Router, "FORWARD", `
			table inet transit {
				chain pass {
					type filter hook forward priority filter; policy accept;
					ct state vmap { established : accept, related : accept, invalid : drop }
					iifname "lan0" oifname "dmz0" tcp dport %port drop
				}
			}`, inet("transit", 2, `oifname "dmz0"`, "pass")),
		nftFault("nft-output", "firewall-drop", "an nft rule of the client itself drops it", Client, "OUTPUT", `
			table inet leaving {
				chain away {
					type filter hook output priority filter; policy accept;
					oifname "lo" accept
					%ip daddr %server tcp dport %port drop
				}
			}`, inet("leaving", 2, "drop", "away")),
		nftFault("nft-postrouting", "firewall-drop", "an nft rule drops it as it leaves the router", Router, "POSTROUTING", `
			table inet transit {
				chain last {
					type filter hook postrouting priority 50; policy accept;
					oifname "dmz0" tcp dport %port counter drop
				}
			}`, inet("transit", 1, "counter", "last")),
	)
}

// nftShapes reach the deciding rule in the ways that rulesets have.
func nftShapes() []Fault {
	return slices.Concat(
		nftFault("nft-jumps", "firewall-drop", "the rule that drops it is three jumps deep", Server, "INPUT", `
			table inet edge {
				chain apps { tcp dport 9000 accept; tcp dport %port drop; }
				chain lan { udp dport 53 accept; jump apps; }
				chain others { accept; }
				chain zones { %ip saddr != %net goto others; tcp dport 22 jump others; jump lan; }
				chain guard { type filter hook input priority filter; policy accept; ct state established accept; jump zones; }
			}`, inet("edge", 2, "", "guard", "zones", "lan", "apps")),
		nftFault("nft-vmap", "firewall-drop", "a verdict map drops it", Router, "FORWARD", `
			table inet transit {
				chain pass {
					type filter hook forward priority filter; policy accept;
					tcp dport vmap { 22 : accept, 443 : accept, %port : drop }
				}
			}`, inet("transit", 1, "vmap", "pass")),
		nftFault("nft-vmap-jump", "firewall-drop", "a named verdict map leads to the chain that drops it", Server, "INPUT", `
			table inet edge {
				map senders { type %ipv_addr : verdict; flags interval; elements = { %net : jump fenced }; }
				chain fenced { tcp dport 22 accept; meta l4proto tcp drop; }
				chain guard { type filter hook input priority filter; policy accept; ct state established accept; %ip saddr vmap @senders; }
			}`, inet("edge", 2, "", "guard", "fenced")),
		nftFault("nft-set", "firewall-drop", "the client is in a set of banned addresses", Server, "INPUT", `
			table inet edge {
				set banned { type %ipv_addr; flags interval; elements = { %net }; }
				chain guard { type filter hook input priority filter; policy accept; ct state established accept; meta l4proto tcp %ip saddr @banned drop; }
			}`, inet("edge", 2, "@banned", "guard")),
		nftFault("nft-two-bases", "firewall-drop", "one chain accepts it, a later one on the same hook drops it", Server, "INPUT", `
			table inet generous { chain hello { type filter hook input priority filter - 10; policy accept; tcp dport %port accept; }; }
			table inet strict { chain hello { type filter hook input priority filter + 10; policy accept; ct state established accept; tcp dport 1024-65535 drop; }; }`,
			inet("strict", 2, "1024-65535", "hello")),
		nftFault("nft-log", "firewall-drop", "a rule logs it, the next drops it", Server, "INPUT", `
			table inet edge { chain guard { type filter hook input priority filter; policy accept; tcp dport %port log prefix "closed "; tcp dport %port drop; }; }`,
			inet("edge", 2, "drop", "guard")),
		nftFault("nft-policy", "firewall-policy", "no rule lets it in, the policy of the server's chain drops it", Server, "INPUT", `
			table inet edge { chain guard { type filter hook input priority filter; policy drop; ct state established,related accept; `+neighbours+`; tcp dport 22 accept; }; }`,
			inet("edge", 0, "", "guard")),
		nftFault("nft-policy-stateless", "firewall-policy", "the router's policy drops it, and would drop the answer too", Router, "FORWARD", `
			table inet transit { chain pass { type filter hook forward priority filter; policy drop; tcp dport 22 accept; tcp sport 22 accept; }; }`,
			inet("transit", 0, "", "pass")),
	)
}

// nftRefusals answer with an error.
func nftRefusals() []Fault {
	return slices.Concat(
		nftFault("nft-reject-reset", "firewall-reject", "a rule answers with a reset, as a closed port would", Server, "INPUT", `
			table inet edge { chain guard { type filter hook input priority filter; policy accept; tcp dport 22 accept; tcp dport %port reject with tcp reset; }; }`,
			inet("edge", 2, "reject with tcp reset", "guard")),
		nftFault("nft-reject-prohibited", "firewall-reject", "the router answers that it is prohibited", Router, "FORWARD", `
			table inet transit { chain pass { type filter hook forward priority filter; policy accept; tcp dport %port counter reject with icmpx admin-prohibited; }; }`,
			inet("transit", 1, "admin-prohibited", "pass")),
		nftFault("nft-reject-port", "firewall-reject", "a rule three chains deep answers that the port is unreachable", Server, "INPUT", `
			table inet edge {
				chain refuse { reject; }
				chain lan { tcp dport { 22, 80 } accept; tcp dport %port goto refuse; }
				chain guard { type filter hook input priority filter; policy accept; ct state established accept; %ip saddr %net jump lan; }
			}`, inet("edge", 1, "reject", "guard", "lan", "refuse")),
	)
}

// nftReplyFaults let the SYN pass and stop the SYN-ACK.
func nftReplyFaults() []Fault {
	faults := slices.Concat(
		nftFault("nft-reply-output", "firewall-drop", "the server drops its own answer", Server, "OUTPUT", `
			table inet leaving { chain away { type filter hook output priority filter; policy accept; oifname "lo" accept; tcp sport %port tcp flags & (syn | ack) == syn | ack drop; }; }`,
			inet("leaving", 2, "tcp sport", "away")),
		nftFault("nft-reply-forward", "firewall-drop", "the router drops the answer", Router, "FORWARD", `
			table inet transit { chain pass { type filter hook forward priority filter; policy accept; iifname "dmz0" %ip saddr %server tcp sport %port drop; }; }`,
			inet("transit", 1, "dmz0", "pass")),
		nftFault("nft-reply-input", "firewall-drop", "the client drops the answer", Client, "INPUT", `
			table inet edge { chain guard { type filter hook input priority filter; policy accept; iif "lo" accept; %ip saddr %server meta l4proto tcp drop; }; }`,
			inet("edge", 2, "drop", "guard")),
		nftFault("nft-reply-policy", "firewall-policy", "the router lets requests pass but no answers", Router, "FORWARD", `
			table inet transit { chain pass { type filter hook forward priority filter; policy drop; iifname "lan0" accept; }; }`,
			inet("transit", 0, "", "pass")),
	)
	for i := range faults {
		faults[i].Want.Direction = reply
	}
	return faults
}
