// SPDX-License-Identifier: Apache-2.0

package lab

import "slices"

// behindFaults have a second fault behind the first, which only shows when the first is mended.
func behindFaults() []Fault {
	const closed = `
		table inet transit {
			chain pass {
				type filter hook forward priority filter; policy accept;
				tcp dport %port drop
			}
		}`
	first := func(name, summary string, tools []string, behind func(family int) func(*Lab) error) []Fault {
		return both(func(f int) Fault {
			return Fault{Name: name, Cause: "firewall-drop", Summary: summary, Tools: append(tools, "nft"),
				Setup: steps(behind(f), nft(Router, f, closed)),
				Want:  Want{Direction: forward, Role: Router, Hook: "FORWARD", Rule: nftRule("inet", "transit", 1, "drop", "pass")}}
		})
	}
	return slices.Concat(
		first("drop-behind-drop", "a rule of the router drops it, and one of the server would", []string{"iptables-legacy", "ip6tables-legacy"},
			func(f int) func(*Lab) error {
				return steps(serve(f), func(l *Lab) error {
					return l.Run(Server, pick(f, "iptables-legacy", "ip6tables-legacy"), "-A", "INPUT", "-p", "tcp", "--dport", "8080", "-j", "DROP")
				})
			}),
		first("no-listener-behind-drop", "a rule of the router drops it, and nothing listens on the server", nil,
			func(int) func(*Lab) error { return func(*Lab) error { return nil } }),
	)
}
