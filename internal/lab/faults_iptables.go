// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"slices"
	"strings"
)

// iptables is one of the four programs: backend "legacy" or "nft", for IPv4 or IPv6.
func iptables(backend string, family int) string {
	return pick(family, "iptables-", "ip6tables-") + backend
}

// rules runs iptables once a line; words of a line are split at spaces.
func rules(r Role, backend string, family int, lines string) func(*Lab) error {
	return func(l *Lab) error {
		for _, line := range strings.Split(strings.TrimSpace(lines), "\n") {
			argv := []string{iptables(backend, family)}
			if backend == "legacy" {
				argv = append(argv, "-w") // its lock is one for the whole host
			}
			if err := l.Run(r, append(argv, strings.Fields(expand(family, line))...)...); err != nil {
				return err
			}
		}
		return nil
	}
}

// iptablesFault is a ruleset of iptables in one namespace, before a service that would answer.
func iptablesFault(backend, name, cause, summary string, r Role, hook, lines, table string, number int, text string, path ...string) []Fault {
	return both(func(f int) Fault {
		return Fault{Name: prefixOf[backend] + name, Cause: cause, Summary: summary, Tools: []string{iptables(backend, f)},
			Setup: steps(serve(f), rules(r, backend, f, lines)),
			Want: Want{Direction: forward, Role: r, Hook: hook, Rule: &Rule{Backend: "iptables-" + backend, Family: pick(f, "ip", "ip6"),
				Table: table, Chain: path[len(path)-1], Path: path, Number: number, Text: expand(f, text)}}, Fix: true}
	})
}

// prefixOf keeps the names of the nft backend's faults apart from those of nft itself.
var prefixOf = map[string]string{"legacy": "legacy-", "nft": "iptables-nft-"}

func iptablesFaults() []Fault {
	var all []Fault
	for _, b := range []string{"legacy", "nft"} {
		all = slices.Concat(all, iptablesDrops(b), iptablesRefusals(b))
	}
	replies := slices.Concat(
		iptablesFault("legacy", "reply-forward", "firewall-drop", "the router's iptables drops the answer", Router, "FORWARD", `
			-A FORWARD -i lan0 -j ACCEPT
			-A FORWARD -s %server -p tcp --sport %port -j DROP`, "filter", 2, "-j DROP", "FORWARD"),
		iptablesFault("legacy", "reply-output", "firewall-drop", "the server's iptables drops its own answer", Server, "OUTPUT", `
			-A OUTPUT -p tcp --sport %port -j DROP`, "filter", 1, "-j DROP", "OUTPUT"),
	)
	for i := range replies {
		replies[i].Want.Direction = reply
	}
	return slices.Concat(all, legacyTables(), replies)
}

func iptablesDrops(b string) []Fault {
	faults := slices.Concat(
		iptablesFault(b, "input", "firewall-drop", "an iptables rule of the server drops it", Server, "INPUT", `
			-A INPUT -i lo -j ACCEPT
			-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			-A INPUT -p tcp -m multiport --dports 8000:8100 -j DROP`, "filter", 3, "--dports 8000:8100 -j DROP", "INPUT"),
		iptablesFault(b, "chains", "firewall-drop", "a user chain two jumps deep drops it", Router, "FORWARD", `
			-N ZONE
			-N ZONE-WEB
			-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
			-A FORWARD -o dmz0 -j ZONE
			-A ZONE -p udp -j RETURN
			-A ZONE -p tcp -j ZONE-WEB
			-A ZONE-WEB -p tcp --dport 22 -j RETURN
			-A ZONE-WEB -s %client -p tcp --dport %port -j DROP`, "filter", 2, "--dport %port -j DROP", "FORWARD", "ZONE", "ZONE-WEB"),
		iptablesFault(b, "policy", "firewall-policy", "no rule lets it in, the policy of INPUT drops it", Server, "INPUT", `
			-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			-A INPUT -p tcp --dport 22 -j ACCEPT
			-A INPUT -p 58 -j ACCEPT
			-P INPUT DROP`, "filter", 0, "", "INPUT"),
		iptablesFault(b, "log", "firewall-drop", "a rule logs it, the next drops it", Server, "INPUT", `
			-A INPUT -p tcp --dport %port -j LOG --log-prefix closed
			-A INPUT -p tcp --dport %port -j DROP`, "filter", 2, "-j DROP", "INPUT"),
	)
	return faults
}

func iptablesRefusals(b string) []Fault {
	refuse := "-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -p tcp --dport %port -j REJECT"
	return slices.Concat(
		iptablesFault(b, "reject", "firewall-reject", "an iptables rule answers that the port is unreachable", Server, "INPUT", refuse,
			"filter", 2, "-j REJECT", "INPUT"),
		iptablesFault(b, "reject-reset", "firewall-reject", "an iptables rule answers with a reset, as a closed port would", Server, "INPUT",
			refuse+" --reject-with tcp-reset", "filter", 2, "--reject-with tcp-reset", "INPUT"),
	)
}

// legacyTables drop it in other hooks and tables than INPUT of filter.
func legacyTables() []Fault {
	return slices.Concat(
		iptablesFault("legacy", "output", "firewall-drop", "an iptables rule of the client itself drops it", Client, "OUTPUT", `
			-A OUTPUT -d %server -p tcp --dport %port -j DROP`, "filter", 1, "-j DROP", "OUTPUT"),
		iptablesFault("legacy", "raw", "firewall-drop", "a rule of the raw table drops it before conntrack", Server, "PREROUTING", `
			-t raw -A PREROUTING -p udp -j ACCEPT
			-t raw -A PREROUTING -s %net -p tcp --dport %port -j DROP`, "raw", 2, "-j DROP", "PREROUTING"),
		iptablesFault("legacy", "mangle", "firewall-drop", "a rule of the mangle table drops it in the router", Router, "FORWARD", `
			-A FORWARD -p tcp --dport %port -j ACCEPT
			-t mangle -A FORWARD -o dmz0 -p tcp --dport %port -j DROP`, "mangle", 1, "-j DROP", "FORWARD"),
		iptablesFault("legacy", "goto", "firewall-drop", "a chain that was gone to, not called, drops it", Server, "INPUT", `
			-N STOP
			-A STOP -p tcp -j DROP
			-A INPUT -p udp -j ACCEPT
			-A INPUT -p tcp --dport %port -g STOP`, "filter", 1, "-j DROP", "INPUT", "STOP"),
		both(func(f int) Fault {
			return Fault{Name: "legacy-after-nft", Cause: "firewall-drop", Summary: "nft accepts it, iptables drops it after that",
				Tools: []string{"nft", iptables("legacy", f)},
				Setup: steps(serve(f),
					nft(Server, f, `table inet edge { chain guard { type filter hook input priority filter - 1; policy drop; tcp dport %port accept; `+neighbours+`; }; }`),
					rules(Server, "legacy", f, "-A INPUT -p tcp --dport %port -j DROP")),
				Want: Want{Direction: forward, Role: Server, Hook: "INPUT", Rule: &Rule{Backend: "iptables-legacy", Family: pick(f, "ip", "ip6"),
					Table: "filter", Chain: "INPUT", Path: []string{"INPUT"}, Number: 1, Text: "-j DROP"}}, Fix: true}
		}),
	)
}
