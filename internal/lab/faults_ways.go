// SPDX-License-Identifier: Apache-2.0

package lab

import "slices"

// routeReplies are routes and rules that stop the answer.
func routeReplies() []Fault {
	var all []Fault
	for _, kind := range []string{"blackhole", "unreachable", "prohibit"} {
		for _, r := range []Role{Router, Server} {
			all = slices.Concat(all, both(func(f int) Fault {
				return Fault{Name: kind + "-reply-" + string(r), Cause: "route-" + kind, Summary: "a " + kind + " route of the " + string(r) + " covers the client",
					// the router has met the client's address before it looks for the server's
					Setup: steps(serve(f), ip(r, f, "route add %s %s", kind, lan(f))),
					Want:  Want{Direction: reply, Role: r, Route: kind + " " + lan(f), Table: "main"}, Fix: true}
			}))
		}
	}
	rule := func(name, cause, summary string, r Role, spec string) []Fault {
		faults := broken(name, cause, summary, Want{Direction: reply, Role: r, Priority: 420}, func(f int) func(*Lab) error {
			return ip(r, f, "rule add %s pref 420", expand(f, spec))
		})
		return mended(faults)
	}
	return slices.Concat(all,
		rule("blackhole-rule-reply", "route-blackhole", "a policy rule of the server swallows what goes to the client", Server, "to %client blackhole"),
		rule("prohibit-rule-reply", "route-prohibit", "a policy rule of the router prohibits what comes from the server", Router, "from %server iif dmz0 prohibit"),
		rule("unreachable-rule-reply", "route-unreachable", "a policy rule of the server says that the client cannot be reached", Server, "to %client unreachable"),
	)
}

// lan is a network around the client that is narrower than the client's own.
func lan(family int) string { return pick(family, "198.18.4.0/28", "fd5c:7e1a:4::/112") }

// ruleKinds are decided by what rules and tables have beside plain routes.
func ruleKinds() []Fault {
	return slices.Concat(
		broken("throw-client", "no-route", "a table of the client throws the packet back, and the next has no route", Want{Direction: forward, Role: Client}, func(f int) func(*Lab) error {
			return steps(ip(Client, f, "route add throw %%dmz table 910"), ip(Client, f, "rule add lookup 910 pref 430"), ip(Client, f, "route del default"))
		}),
		broken("throw-router", "route-blackhole", "a table of the router throws the packet back, and the next has a black hole",
			Want{Direction: forward, Role: Router, Route: "blackhole default", Table: "911"}, func(f int) func(*Lab) error {
				return steps(ip(Router, f, "route add throw %%dmz table 910"), ip(Router, f, "route add blackhole default table 911"),
					ip(Router, f, "rule add iif lan0 lookup 910 pref 430"), ip(Router, f, "rule add iif lan0 lookup 911 pref 440"))
			}),
		mended(broken("suppress-prefix", "route-blackhole", "the client's default route is suppressed, and the next table is a black hole",
			Want{Direction: forward, Role: Client, Route: "blackhole default", Table: "912"}, func(f int) func(*Lab) error {
				return steps(ip(Client, f, "route add blackhole default table 912"), ip(Client, f, "rule add lookup main suppress_prefixlength 0 pref 430"),
					ip(Client, f, "rule add lookup 912 pref 440"))
			})),
		broken("suppress-only", "no-route", "the client's default route is suppressed, and no other table has one", Want{Direction: forward, Role: Client}, func(f int) func(*Lab) error {
			return steps(ip(Client, f, "rule add lookup main suppress_prefixlength 0 pref 430"), ip(Client, f, "rule del pref 32766"))
		}),
		mended(broken("prohibit-port-rule", "route-prohibit", "a policy rule of the router prohibits the port", Want{Direction: forward, Role: Router, Priority: 450}, func(f int) func(*Lab) error {
			return ip(Router, f, "rule add ipproto tcp dport %%port prohibit pref 450")
		})),
		broken("no-route-table-reply", "no-route", "what comes from the server is looked up in a table without a route", Want{Direction: reply, Role: Router}, func(f int) func(*Lab) error {
			return steps(ip(Router, f, "rule add iif dmz0 lookup 913 pref 430"), ip(Router, f, "route add %%dmz dev dmz0 table 913"),
				ip(Router, f, "rule add iif lan0 lookup main pref 440"), ip(Router, f, "rule add iif lo lookup main pref 441"), ip(Router, f, "rule del pref 32766"))
		}),
	)
}

// remoteFaults are beyond what is watched: only the client's own namespace is.
func remoteFaults() []Fault {
	remote := func(name, cause, summary string, setup func(f int) func(*Lab) error) []Fault {
		return with(both(func(f int) Fault {
			return Fault{Name: name, Cause: cause, Summary: summary, Setup: setup(f), Want: Want{Certainty: "inferred", Direction: forward, Role: Client, Device: HostDevice}}
		}), "--scope", "netns")
	}
	return slices.Concat(
		remote("remote-reset", "remote-reset", "a host that is not watched answers with a reset", func(int) func(*Lab) error { return func(*Lab) error { return nil } }),
		remote("remote-unreachable", "remote-unreachable", "a router that is not watched has no route", func(f int) func(*Lab) error {
			return steps(serve(f), ip(Router, f, "route add unreachable %s", part(f)))
		}),
		needing(remote("remote-silent", "remote-silent", "a host that is not watched drops it", func(f int) func(*Lab) error {
			return steps(serve(f), nft(Server, f, `table inet edge { chain guard { type filter hook input priority filter; policy accept; tcp dport %port drop; }; }`))
		}), "nft"),
		needing(remote("remote-prohibited", "remote-unreachable", "a firewall that is not watched answers that it is prohibited", func(f int) func(*Lab) error {
			return steps(serve(f), nft(Router, f, `table inet edge { chain pass { type filter hook forward priority filter; policy accept; tcp dport %port reject with icmpx admin-prohibited; }; }`))
		}), "nft"),
	)
}
