// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// RouteExplanation is the kernel's answer to a [RouteQuery], and how it came to it.
type RouteExplanation struct {
	Answer evidence.Lookup // what the kernel answered

	// The ip rule that decided or led to the deciding table, and the route.
	// The kernel does not tell the rule: it is the one to which the rules and
	// routes lead by the kernel's own order of asking, and it is here only
	// where they lead to what the kernel answered. Nil: none, or see Open.
	Rule  *evidence.IPRule
	Route *evidence.RouteItem

	// Whose link address the packet needs; State NONE: nobody has asked yet,
	// NOARP: the device needs none. Nil for packets that do not leave.
	Neighbor *evidence.Neighbor

	// What would decide if Route, or Rule where it decided alone, were gone,
	// computed from the same rules and routes. Nil: not known, see Open.
	Next *RouteNext

	Open []string // what is not established, and why
}

// RouteNext is a decision that the kernel was not asked for.
type RouteNext struct {
	Rule  *evidence.IPRule    `json:"rule,omitempty"`  // absent: no rule decides
	Route *evidence.RouteItem `json:"route,omitempty"` // absent: the rule itself decides, or nothing
	Errno string              `json:"errno,omitempty"` // as in [evidence.Lookup]
}

// Explain asks the kernel for a route as [Netns.Lookup] does, and finds the
// rule that led to it and what stands behind it. An error says that the
// question could not be put or the tables could not be read.
func (n *Netns) Explain(q RouteQuery) (RouteExplanation, error) {
	t, err := n.readRouting(queryFamily(q))
	if err != nil {
		return RouteExplanation{}, err
	}
	f := flowOf(q)
	for name, index := range map[string]*uint32{q.IIF: &f.iif, q.OIF: &f.oif} {
		if name == "" {
			continue
		}
		if *index, err = n.deviceIndex(name); err != nil {
			return RouteExplanation{}, badWord(name, "no such device")
		}
	}
	e := RouteExplanation{Answer: n.Lookup(q)}
	if e.Answer.Errno == "ENODEV" || e.Answer.Errno == "EAFNOSUPPORT" || e.Answer.Errno == "EPERM" {
		_, err := n.getRoute(q, 0)
		return RouteExplanation{}, fmt.Errorf("route of %s: %w", e.Answer.Dest, err)
	}
	p := n.routePrinter()
	n.explainRule(&e, t, p, q, f)
	e.Neighbor = n.nextNeighbor(e.Answer)
	return e, nil
}

func queryFamily(q RouteQuery) uint8 {
	if q.Dest.Unmap().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// explainRule finds the ways through the rules that agree with the kernel.
func (n *Netns) explainRule(e *RouteExplanation, t *routing, p routePrinter, q RouteQuery, f flow) {
	if e.Answer.Errno == "EADDRNOTAVAIL" {
		e.Open = append(e.Open, "the kernel refuses the source address before it asks a table")
		return
	}
	entry, err := n.getRoute(q, unix.RTM_F_FIB_MATCH)
	asked := answered{e.Answer, &entry}
	if err != nil {
		asked.entry = nil
	}
	var agreed []next
	for _, merged := range t.variants() {
		d := t.decide(f, merged)
		if d.open != "" {
			e.Open = append(e.Open, "which rule decides: whether it takes the packet, or takes its table's answer back, cannot be told of "+d.open)
			return
		}
		if entry, ok := t.agrees(d, asked, merged, p); ok {
			d.route = entry
			agreed = append(agreed, next{d, t.without(d.route, d.rule).decide(f, merged)})
		}
	}
	if len(agreed) == 0 {
		e.Open = append(e.Open, t.disagreement(t.decide(f, t.variants()[0]), asked, p))
		return
	}
	first := agreed[0]
	e.Rule, e.Route = p.rule(first.now.rule), p.route(first.now.route)
	if e.Rule == nil && e.Route == nil {
		return // nothing decided, and nothing can be gone
	}
	for _, a := range agreed {
		if a.then.open != "" || a.then.way() != first.then.way() {
			e.Open = append(e.Open, "what stands behind it: that depends on whether an ip rule was ever changed here, which the kernel does not tell")
			return
		}
	}
	e.Next = &RouteNext{Rule: p.rule(first.then.rule), Route: p.route(first.then.route)}
	if first.then.errno != 0 {
		e.Next.Errno = errnoName(first.then.errno)
	}
}

// next is a decision and the one behind it.
type next struct{ now, then decision }

// answered is what the kernel said; entry is nil where it does not tell it.
type answered struct {
	lookup evidence.Lookup
	entry  *route
}

// variants says in which ways the kernel may ask, the likelier first. While
// IPv4 has the three rules that it was born with it may never have split
// local from main.
func (t *routing) variants() []bool {
	born := []uint32{unix.RT_TABLE_LOCAL, unix.RT_TABLE_MAIN, unix.RT_TABLE_DEFAULT}
	if t.family == unix.AF_INET && slices.EqualFunc(t.rules, born, func(r ipRule, table uint32) bool {
		return r.table == table && r.action == frActTable && r.srcLen == 0 && r.dstLen == 0
	}) {
		return []bool{true, false}
	}
	return []bool{false}
}

// agrees reports whether a decision is what the kernel answered, and returns
// its route: of several that are alike the one that the kernel took.
func (t *routing) agrees(d decision, a answered, merged bool, p routePrinter) (*route, bool) {
	if d.errno != 0 || a.lookup.Errno != "" {
		return d.route, d.errno != 0 && errnoName(d.errno) == a.lookup.Errno
	}
	if d.route == nil {
		return nil, false
	}
	table := d.route.table
	if merged && table == unix.RT_TABLE_LOCAL {
		table = unix.RT_TABLE_MAIN // the kernel names the table that it asked
	}
	if p.words.table(table) != a.lookup.Table {
		return nil, false
	}
	if a.entry == nil {
		return d.route, slices.ContainsFunc(d.route.hops(), func(h hop) bool {
			return p.device(int(h.index)) == a.lookup.OIF && (a.lookup.Gateway == "" || h.gateway.String() == a.lookup.Gateway)
		}) || d.route.kind == unix.RTN_LOCAL && a.lookup.Type == "local"
	}
	entry := *a.entry
	entry.table = d.route.table
	if d.route.same(entry) {
		return d.route, true
	}
	// IPv4 takes its pick among default routes of one metric, by their neighbours (fib_select_default).
	i := slices.IndexFunc(t.routes, func(r route) bool { return r.same(entry) && r.sameKey(*d.route) })
	if i < 0 {
		return nil, false
	}
	return &t.routes[i], true
}

// sameKey reports whether two routes stand in each other's place: one prefix, table and metric.
func (r route) sameKey(other route) bool {
	return r.family == other.family && r.table == other.table && r.dstLen == other.dstLen && r.srcLen == other.srcLen &&
		r.tos == other.tos && r.metric() == other.metric() &&
		r.addr(unix.RTA_DST) == other.addr(unix.RTA_DST) && r.addr(unix.RTA_SRC) == other.addr(unix.RTA_SRC)
}

// disagreement says where rules and routes would lead.
func (t *routing) disagreement(d decision, a answered, p routePrinter) string {
	to := "no route"
	switch {
	case d.route != nil:
		to = fmt.Sprintf("%s, table %s", p.text(*d.route), p.words.table(d.route.table))
	case d.rule != nil:
		to = "ip rule " + d.rule.text(p.words)
	}
	switch {
	case d.route != nil && d.errno == 0 && a.lookup.Errno != "" && a.lookup.IIF != "":
		return fmt.Sprintf("rules and routes lead to %s; the kernel refuses the packet with %s for its source, its device or a setting", to, a.lookup.Errno)
	case a.lookup.Errno == "" && a.lookup.Table == p.words.table(unix.RT_TABLE_UNSPEC): // ip_route_output_key_hash_rcu
		return "no route decided: the kernel takes what is sent through a given device to be on its link"
	}
	return fmt.Sprintf("which rule decided: rules and routes as they were read lead to %s, which is not what the kernel answered", to)
}

// flowOf is the packet of q as RTM_GETROUTE makes it (inet_rtm_getroute,
// inet6_rtm_getroute), but for the devices, of which it has the names.
func flowOf(q RouteQuery) flow {
	const loopback = 1 // LOOPBACK_IFINDEX
	f := flow{dst: q.Dest.Unmap().WithZone(""), src: q.Source.Unmap().WithZone(""), iif: loopback,
		mark: q.Mark, uid: uint32(os.Geteuid()), tos: q.TOS, proto: q.Protocol, sport: q.SPort, dport: q.DPort}
	if f.dst.Is4() && f.proto == 0 {
		f.proto = unix.IPPROTO_UDP
	}
	if q.UID != nil {
		f.uid = *q.UID
	}
	if q.IIF != "" {
		f.input, f.uid = true, 0
		if f.dst.Is6() {
			f.uid = ^uint32(0) // INVALID_UID
		}
	}
	if !f.src.IsValid() {
		f.src = netip.IPv4Unspecified()
		if f.dst.Is6() {
			f.src = netip.IPv6Unspecified()
		}
	}
	return f
}

// nextNeighbor returns whose link address a packet of that answer needs.
func (n *Netns) nextNeighbor(a evidence.Lookup) *evidence.Neighbor {
	if a.Errno != "" || a.Type != "unicast" || a.OIF == "" {
		return nil
	}
	want := evidence.Neighbor{Address: a.Gateway, Device: a.OIF, State: "NONE"}
	if want.Address == "" {
		want.Address = a.Dest
	}
	for _, l := range n.Links().Items {
		if l.Name != a.OIF {
			continue
		}
		if slices.Contains(l.Flags, "LOOPBACK") {
			return nil
		}
		if slices.Contains(l.Flags, "NOARP") {
			want.State = "NOARP"
		}
	}
	for _, e := range n.Neighbors().Items {
		if e.Device == want.Device && e.Address == want.Address {
			return &e
		}
	}
	return &want
}

func (p routePrinter) rule(r *ipRule) *evidence.IPRule {
	if r == nil {
		return nil
	}
	e := r.evidence(p.words)
	return &e
}

func (p routePrinter) route(r *route) *evidence.RouteItem {
	if r == nil {
		return nil
	}
	e := p.item(*r)
	return &e
}
