// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/pathtrace/pathtrace/evidence"
)

const routeNeeds = "drop at ip_error, ip6_pkt_discard, ip6_pkt_prohibit or dst_discard, or a SYN consumed without SYN-ACK, or connect()'s errno; " +
	"route events of the tables asked; ip rules, routes and lookups (of the packet's destination) of that namespace"

var routeCauses = []Cause{
	{
		ID:      "no-route",
		Means:   "no route to the destination or, for a reply, back to the source",
		Needs:   routeNeeds + "; links and addresses (else link-down is not ruled out)",
		Reasons: []string{"IP_INNOROUTES", "IP_OUTNOROUTES"},
		Find:    func(c *evidence.Case, e *evidence.Event) *Verdict { return routing(c, e, "no-route") },
	},
	{
		ID:    "route-blackhole",
		Means: "a blackhole route or ip rule matched",
		Needs: routeNeeds, Reasons: []string{"NOT_SPECIFIED"},
		Find: func(c *evidence.Case, e *evidence.Event) *Verdict { return routing(c, e, "route-blackhole") },
	},
	{
		ID:    "route-unreachable",
		Means: "an unreachable route or ip rule matched",
		Needs: routeNeeds, Reasons: []string{"NOT_SPECIFIED", "IP_INNOROUTES"},
		Find: func(c *evidence.Case, e *evidence.Event) *Verdict { return routing(c, e, "route-unreachable") },
	},
	{
		ID:    "route-prohibit",
		Means: "a prohibit route or ip rule matched",
		Needs: routeNeeds, Reasons: []string{"NOT_SPECIFIED", "IP_INNOROUTES"},
		Find: func(c *evidence.Case, e *evidence.Event) *Verdict { return routing(c, e, "route-prohibit") },
	},
	{
		ID:      "link-down",
		Means:   "the device is down or has no carrier",
		Needs:   "what no-route needs, with links and addresses: the device whose prefix holds the destination is down; or a neighbour failure or drop on a device without carrier, with links",
		Reasons: []string{"IP_INNOROUTES", "DEV_READY", "NEIGH_FAILED", "QDISC_DROP"},
		Find:    findLinkDown,
	},
}

// unrouted is a packet that found no route: where, and whither it was going.
type unrouted struct {
	e     *evidence.Event
	n     *evidence.Namespace
	dest  netip.Addr
	fail  *failure
	reply bool // a reply that was never made
}

// findUnrouted recognises the three ways in which a missing route shows.
func findUnrouted(c *evidence.Case, e *evidence.Event) *unrouted {
	switch {
	case e == nil:
		if u := unroutedHere(c); u != nil {
			return u
		}
		return unroutedAnswer(c)
	case isDrop(e, "NOT_SPECIFIED") && at(e, "icmpv6_rcv") && direction(c, e) == evidence.Forward:
		return noWayBack(c, e)
	case e.Kind == evidence.Consume:
		n := space(c, e)
		src, _, ok := source(c, e)
		if n == nil || !ok || !usedUp(c, e) {
			return nil
		}
		f := noRoute(c, e, n, src, "")
		if f == nil {
			f = unansweredForWantOfRoute(c, e, n, src)
		}
		if f == nil {
			return nil
		}
		return &unrouted{e: e, n: n, dest: src, fail: f, reply: true}
	case e.Kind != evidence.Drop:
		return nil
	}
	errno, ok := dropErrno(c, e)
	n := space(c, e)
	dest, _, known := destination(c, e)
	if !ok || n == nil || !known {
		return nil
	}
	f := noRoute(c, e, n, dest, errno)
	if f == nil {
		return nil
	}
	return &unrouted{e: e, n: n, dest: dest, fail: f}
}

// unansweredForWantOfRoute goes without a lookup: every table that was asked
// had no match, and the counter of packets that found no route moved.
func unansweredForWantOfRoute(c *evidence.Case, e *evidence.Event, n *evidence.Namespace, dest netip.Addr) *failure {
	moved := counter(n, "IpOutNoRoutes")
	if dest.Is6() {
		moved = counter(n, "Ip6OutNoRoutes")
	}
	asked := routesAsked(c, e, dest)
	if moved == 0 || len(asked) == 0 || n.Lookups.Read() {
		return nil
	}
	for _, r := range asked {
		if r.Route.Errno != "EAGAIN" && r.Route.Errno != "ENETUNREACH" {
			return nil
		}
	}
	return &failure{errno: "ENETUNREACH", table: asked[len(asked)-1].Route.Table, proof: []string{
		"tables asked for " + dest.String() + ", without a route: " + tables(asked),
		fmt.Sprintf("the counter of packets without a route rose by %d during the probe", moved),
	}}
}

// dropErrno says what a drop itself tells about the missing route. An empty
// errno means that the tables must tell; ok is false for drops of other kinds.
func dropErrno(c *evidence.Case, e *evidence.Event) (errno string, ok bool) {
	switch {
	case tunnelUnrouted(c, e):
		return "", false // another destination
	case at(e, "ip_error") && e.Reason == "IP_INNOROUTES", e.Reason == "IP_OUTNOROUTES":
		return "ENETUNREACH", true
	case at(e, "ip_error") && e.Reason == "NOT_SPECIFIED":
		if a := icmpFrom(c, e, "ip_error"); a != nil && a.ICMP.Type == 3 {
			switch a.ICMP.Code {
			case 1:
				return "EHOSTUNREACH", true
			case 13:
				return "EACCES", true
			}
		}
		return "", true
	case at(e, "ip6_pkt_prohibit", "ip6_pkt_prohibit_out"):
		return "EACCES", true
	case at(e, "dst_discard", "dst_discard_out"):
		return "", true
	case at(e, "ip6_pkt_discard", "ip6_pkt_discard_out"):
		return "", true
	}
	return "", false
}

// tunnelUnrouted reports whether a packet had its own route, to the device of a tunnel, and that has none for what it makes of it.
func tunnelUnrouted(c *evidence.Case, e *evidence.Event) bool {
	return isDrop(e, "IP_OUTNOROUTES") && slices.ContainsFunc(visitOf(c, e).events, func(o *evidence.Event) bool {
		return o.Kind == evidence.Transmit && o.Device == e.Device && o.At <= e.At
	})
}

// icmpFrom is the ICMP error that the function sent about the packet of e.
func icmpFrom(c *evidence.Case, e *evidence.Event, function string) *evidence.Event {
	for _, a := range visitOf(c, e).events {
		if a.Kind == evidence.ICMPSent && a.ICMP != nil && a.Function == function {
			return a
		}
	}
	return nil
}

// noWayBack is an answer to the packet of e that was never made for want of a route.
func noWayBack(c *evidence.Case, e *evidence.Event) *unrouted {
	n := space(c, e)
	src, _, ok := source(c, e)
	if n == nil || !ok {
		return nil
	}
	f := noRoute(c, e, n, src, "")
	if f == nil {
		return nil
	}
	return &unrouted{e: e, n: n, dest: src, fail: f, reply: true}
}

// unroutedAnswer is a datagram or an echo request that was taken in, whose answer found no way back. A process
// that sends does so in its own time: what it asked is not told, but the counter of what found no route is.
func unroutedAnswer(c *evidence.Case) *unrouted {
	if c.Probe.Outcome != evidence.Silent && c.Probe.Outcome != evidence.Timeout || c.Target.Protocol == "tcp" {
		return nil
	}
	e := served(c)
	if e == nil {
		return nil
	}
	u := noWayBack(c, e)
	if u == nil || c.Target.Protocol != "udp" {
		return u
	}
	key := "IpOutNoRoutes"
	if u.dest.Is6() {
		key = "Ip6OutNoRoutes"
	}
	moved := counter(u.n, key)
	if moved == 0 || u.fail.errno != "ENETUNREACH" {
		return nil
	}
	u.fail.seen = false
	u.fail.proof = append(u.fail.proof, fmt.Sprintf("%s rose by %d during the probe", key, moved))
	return u
}

// unroutedHere is a connect() that failed for want of a route before any packet was made.
func unroutedHere(c *evidence.Case) *unrouted {
	n := c.Namespace(c.Probe.Netns)
	dest, ok := parseAddr(c.Target.Address)
	if n == nil || !ok || success(c) || sentAny(c) {
		return nil
	}
	switch c.Probe.Errno {
	case "ENETUNREACH", "EHOSTUNREACH", "EACCES", "EINVAL":
	default:
		return nil
	}
	e := &evidence.Event{Kind: evidence.Route, Netns: c.Probe.Netns, At: c.Probe.DurationNS, Direction: evidence.Forward, InTask: true}
	l := lookup(n, dest, "")
	if device, _ := routedTo(c, e, dest); device != "" && (!suppresses(n) || l == nil) || l != nil && l.Errno == "" || l == nil && len(routesAsked(c, e, dest)) == 0 {
		return nil // there was a way, or nothing tells: the errno has other reasons as well
	}
	f := noRoute(c, e, n, dest, c.Probe.Errno)
	if f == nil || f.errno != c.Probe.Errno {
		return nil
	}
	f.seen = true
	f.proof = append([]string{fmt.Sprintf("%s gave %s, and no packet was made", c.Probe.Syscall, c.Probe.Errno)}, f.proof...)
	return &unrouted{e: e, n: n, dest: dest, fail: f}
}

// sentAny reports whether any packet of ours was seen at all.
func sentAny(c *evidence.Case) bool {
	for i := range c.Events {
		if e := &c.Events[i]; e.Packet != nil && !resolves(e) {
			return true
		}
	}
	return false
}

// unroutedVerdict is the common part of all verdicts about a missing route.
func unroutedVerdict(c *evidence.Case, u *unrouted) *Verdict {
	v := start(c, u.e, Observed)
	switch {
	case u.e.Kind == evidence.Route:
		v.Proof = nil
	case u.reply && u.e.Kind != evidence.Drop && u.e.Packet != nil && u.e.Packet.Protocol != "tcp":
		v.Proof = []string{sight(c, u.e) + ", and no answer was seen"} // it did not die itself
	}
	if u.reply {
		v.Direction = evidence.Reply
		v.Where.Device = ""
	}
	if !u.fail.seen {
		v.Certainty = Inferred
	}
	v.Proof = append(v.Proof, u.fail.proof...)
	return v
}

func routing(c *evidence.Case, e *evidence.Event, id string) *Verdict {
	if id == "no-route" && e != nil && tunnelUnrouted(c, e) {
		v := start(c, e, Observed)
		v.Summary = fmt.Sprintf("%s: %s has no route to the other end of the tunnel %s", target(c), name(e.Netns), e.Device)
		return v
	}
	u := findUnrouted(c, e)
	if u == nil || !u.n.Rules.Read() {
		return nil // without the ip rules a missing route and a rule that says so look alike
	}
	v := unroutedVerdict(c, u)
	found := routeCause[u.fail.errno]
	kind := map[string]string{"route-blackhole": "blackhole", "route-unreachable": "unreachable", "route-prohibit": "prohibit"}[found]
	var entryFound *evidence.RouteItem
	if kind != "" {
		entryFound = refusing(u.n, u.dest, kind, u.fail)
	}
	if entryFound == nil && !u.fail.told {
		r, sure := ipRule(c, u.e, u.n, u.dest, u.fail)
		switch {
		case r != nil:
			return byRule(c, u, v, r, id)
		case !sure:
			return nil
		}
	}
	if found != id || id == "no-route" && (hasDownDevice(u) || sixOff(u.n, u.dest) != nil) {
		return nil
	}
	if id == "no-route" {
		return missing(c, u, v)
	}
	return byEntry(c, u, v, entryFound, id)
}

// missing says that no table had a route.
func missing(c *evidence.Case, u *unrouted, v *Verdict) *Verdict {
	if !unread(v, u.n, "links", u.n.Links.Read(), u.n.Links.Why()) || !unread(v, u.n, "addresses", u.n.Addresses.Read(), u.n.Addresses.Why()) {
		v.Certainty = Inferred
	}
	table := u.fail.table
	if table == "" {
		table = "main"
		v.Certainty = Inferred
	}
	v.Where.Route = &RouteRef{Table: table}
	v.Summary = fmt.Sprintf("%s: %s has no route to %s%s", target(c), name(u.e.Netns), u.dest, back(u))
	return v
}

func back(u *unrouted) string {
	switch {
	case !u.reply:
		return ""
	case u.e.Packet != nil && u.e.Packet.Protocol != "tcp":
		return ", so no answer can go back"
	}
	return ", so the SYN-ACK cannot go back"
}

// byEntry names the route of a type that refuses.
func byEntry(c *evidence.Case, u *unrouted, v *Verdict, r *evidence.RouteItem, id string) *Verdict {
	if !unread(v, u.n, "routes", u.n.Routes.Read(), u.n.Routes.Why()) {
		if u.fail.table == "" {
			return nil
		}
		v.Certainty = Inferred
		v.Where.Route = &RouteRef{Table: u.fail.table}
		v.Summary = fmt.Sprintf("%s: %s in table %s of %s%s", target(c), id, u.fail.table, name(u.e.Netns), back(u))
		return v
	}
	if r == nil {
		return nil
	}
	v.Where.Route = &RouteRef{Text: r.Text, Table: r.Table}
	v.Proof = append(v.Proof, fmt.Sprintf("the entry in table %s: %s", r.Table, quoted(r.Text)))
	v.Summary = fmt.Sprintf("%s: stopped by route %s in table %s of %s%s", target(c), quoted(r.Text), r.Table, name(u.e.Netns), back(u))
	v.Fixes = removeRoute(u.n, r, u.dest)
	return v
}

// byRule names the ip rule that refuses.
func byRule(c *evidence.Case, u *unrouted, v *Verdict, r *evidence.IPRule, id string) *Verdict {
	if id != "route-"+r.Action {
		return nil
	}
	v.Certainty = Inferred // the kernel does not say which rule it was
	v.Where.IPRule = &IPRuleRef{Text: r.Text, Priority: r.Priority}
	v.Proof = append(v.Proof, fmt.Sprintf("no table answered so; the only ip rule that can have is %s", quoted(r.Text)))
	v.Summary = fmt.Sprintf("%s: stopped by ip rule %s in %s%s", target(c), quoted(r.Text), name(u.e.Netns), back(u))
	v.Fixes = removeRule(u.n, r)
	return v
}
