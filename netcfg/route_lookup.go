// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
)

// lookup finds the route of a packet in tables taken as one; no route is no answer.
func (t *routing) lookup(f flow, tables ...uint32) decision {
	var found []*route
	for i := range t.routes {
		r := &t.routes[i]
		if slices.Contains(tables, r.table) && r.holds(unix.RTA_DST, r.dstLen, f.dst) && r.holds(unix.RTA_SRC, r.srcLen, f.src) {
			found = append(found, r)
		}
	}
	// The kernel lists the routes of one prefix in the order in which it asks
	// them. In a merged table those of local come first.
	slices.SortStableFunc(found, func(a, b *route) int {
		return cmp.Or(int(b.dstLen)-int(a.dstLen), int(b.srcLen)-int(a.srcLen), cmp.Compare(b.table, a.table))
	})
	var r *route
	if t.family == unix.AF_INET6 {
		r = t.choose6(f, found)
	} else {
		r = t.choose4(f, found)
	}
	if r == nil {
		return decision{}
	}
	return decision{route: r, errno: routeErrno(r.kind)}
}

// choose4 is fib_table_lookup.
func (t *routing) choose4(f flow, found []*route) *route {
	for _, r := range found {
		if r.tos != 0 && r.tos != f.tos {
			continue
		}
		if routeErrno(r.kind) != 0 {
			return r
		}
		if slices.ContainsFunc(r.hops(), func(h hop) bool {
			return h.flags&unix.RTNH_F_DEAD == 0 && (f.oif == 0 || f.oif == h.index)
		}) {
			return r
		}
	}
	return nil
}

// choose6 is fib6_table_lookup: of the routes of the longest prefix that has a
// usable one, the best. A host, other than a router, takes one whose gateway
// has failed only where there is no other.
func (t *routing) choose6(f flow, found []*route) *route {
	// The first search passes over prefixes that have routes for other sources
	// only, with their routes for all sources (fib6_node_lookup_1).
	for len(found) > 0 && found[0].dstLen > 0 && found[0].srcLen == 0 && slices.ContainsFunc(t.routes, func(r route) bool {
		return r.srcLen > 0 && r.table == found[0].table && r.dstLen == found[0].dstLen && r.addr(unix.RTA_DST) == found[0].addr(unix.RTA_DST)
	}) {
		n := slices.IndexFunc(found, func(r *route) bool { return r.dstLen != found[0].dstLen })
		if n < 0 {
			return nil
		}
		found = found[n:]
	}
	for _, all := range []bool{t.router, true} {
		for rest := found; len(rest) > 0; {
			n := 1
			for n < len(rest) && rest[n].dstLen == rest[0].dstLen && rest[n].srcLen == rest[0].srcLen {
				n++
			}
			if r := t.select6(f, rest[:n], all); r != nil {
				return r
			}
			rest = rest[n:]
		}
	}
	return nil
}

// select6 is find_rr_leaf: the best of the lowest metric, else the best of all the others.
func (t *routing) select6(f flow, found []*route, all bool) *route {
	n := 1
	for n < len(found) && found[n].metric() == found[0].metric() {
		n++
	}
	for _, group := range [][]*route{found[:n], found[n:]} {
		var best *route
		score := -1
		for _, r := range group {
			if s := t.score6(f, r, all); s > score {
				best, score = r, s
			}
		}
		if best != nil {
			return best
		}
	}
	return nil
}

// score6 is rt6_score_route; -1 says that the route is of no use.
func (t *routing) score6(f flow, r *route, all bool) int {
	device, strict := f.oif, f.src.IsUnspecified()
	if f.input {
		device, strict = f.iif, false
	}
	strict = strict || f.dst.IsMulticast() || f.dst.IsLinkLocalUnicast()
	preference := map[uint8]int{0: 2, 1: 3, 3: 1}[r.attrs[unix.RTA_PREF].u8()] << 2
	best := -1
	for _, h := range r.hops() {
		there := device == 0 || device == h.index
		switch {
		case h.flags&unix.RTNH_F_DEAD != 0, !there && strict:
		case !all && h.gateway.IsValid() && t.failed[h.gateway][h.index]:
		case there:
			best = max(best, preference|2)
		default:
			best = max(best, preference)
		}
	}
	return best
}
