// SPDX-License-Identifier: Apache-2.0

package report

import (
	"net/netip"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

type routeKey struct{ netns, source, dest, iif string }

// routeSearch is one question, put to one table after the other until one answers.
type routeSearch struct {
	first *evidence.Event
	last  *evidence.Event
	asked []string
}

func (l *ladder) route(e *evidence.Event) {
	if e.Route == nil {
		return
	}
	k := routeKey{e.Netns, e.Route.Source, e.Route.Dest, e.Route.IIF}
	s := l.routes[k]
	if s == nil {
		s = &routeSearch{first: e}
		l.routes[k] = s
		l.asking = append(l.asking, k)
	}
	s.last = e
	s.asked = append(s.asked, e.Route.Table)
	if e.Route.Errno != "EAGAIN" {
		delete(l.routes, k)
		l.found(s)
	}
}

// closeRoutes tells which questions no table answered, and what the kernel says
// of the first hop where no lookup was seen.
func (l *ladder) closeRoutes() {
	for _, k := range l.asking {
		s := l.routes[k]
		if s == nil {
			continue // answered
		}
		delete(l.routes, k)
		// The local table alone is asked whether an address is our own; no is no failure.
		if last := s.asked[len(s.asked)-1]; last != "local" {
			l.found(s)
		}
	}
	for _, x := range l.lines {
		if x.station == "route" && x.where == place(l.c.Probe.Netns) {
			return
		}
	}
	ns := l.c.Namespace(l.c.Probe.Netns)
	if ns == nil {
		return
	}
	for _, k := range ns.Lookups.Items {
		if k.Dest == l.c.Target.Address {
			text, mark := lookupText(ns, k)
			l.lines = append(l.lines, line{at: untimed, where: place(ns.Name), station: "route", text: text, mark: mark, rank: route})
			return
		}
	}
}

// found adds a line for the answer. The kernel also asks for the way back (is
// the source believable?): that is told only where it fails.
func (l *ladder) found(s *routeSearch) {
	e := s.last
	r := e.Route
	back := e.Direction == evidence.Reply || r.Dest == host(l.c.Probe.Local)
	ns := l.c.Namespace(e.Netns)
	if r.Errno == "" {
		if back || e.Netns != l.c.Probe.Netns && delivers(ns, r) {
			return
		}
		l.add(s.first, route, "route", describeRoute(ns, r.Dest, "", r.OIF, r.Gateway, r.Table), "")
		return
	}
	text := noRoute(ns, r, s.asked)
	if back {
		text = "← " + text
	}
	l.lines = append(l.lines, line{at: e.At, where: place(e.Netns), station: "route", text: text, mark: "✗", rank: vital})
}

func noRoute(ns *evidence.Namespace, r *evidence.RouteLookup, asked []string) string {
	kind := map[string]string{"EINVAL": "blackhole", "EHOSTUNREACH": "unreachable", "EACCES": "prohibit"}[r.Errno]
	if kind != "" {
		return describeRoute(ns, r.Dest, kind, "", "", r.Table)
	}
	s := "no route to " + r.Dest
	asked = uniq(asked)
	if len(asked) == 1 {
		return s + " in table " + asked[0]
	}
	return s + " in tables " + strings.Join(asked, ", ")
}

// delivers reports whether the answer is that the packet has arrived. As long
// as a namespace has only the three rules it was born with, the kernel keeps the
// local table within main and names that.
func delivers(ns *evidence.Namespace, r *evidence.RouteLookup) bool {
	if r.Table == "local" {
		return true
	}
	if ns == nil || !ns.Routes.Read() {
		return r.OIF == r.IIF && r.Gateway == ""
	}
	it := routeItem(ns, r.Dest, "local", "", "", "")
	return it != nil
}

func lookupText(ns *evidence.Namespace, k evidence.Lookup) (text, mark string) {
	if k.Errno == "" {
		return describeRoute(ns, k.Dest, "", k.OIF, k.Gateway, k.Table), ""
	}
	kind := map[string]string{"EINVAL": "blackhole", "EHOSTUNREACH": "unreachable", "EACCES": "prohibit"}[k.Errno]
	if kind != "" {
		return describeRoute(ns, k.Dest, kind, "", "", k.Table), "✗"
	}
	return "no route to " + k.Dest, "✗"
}

// describeRoute names the route that was found by its prefix, where the
// routes were read and it is among them, else by what the lookup returned.
func describeRoute(ns *evidence.Namespace, dest, kind, oif, gateway, table string) string {
	var words []string
	prefix := dest
	if it := routeItem(ns, dest, kind, oif, gateway, table); it != nil {
		prefix = it.Dest
		if it.Type != "unicast" && it.Type != "" {
			kind = it.Type
		}
		if gateway == "" {
			gateway = it.Gateway
		}
	}
	if kind != "" {
		words = append(words, kind)
	}
	words = append(words, prefix)
	if gateway != "" {
		words = append(words, "via", gateway)
	}
	if oif != "" {
		words = append(words, "dev", oif)
	}
	s := strings.Join(words, " ")
	if table != "" {
		s += ", table " + table
	}
	return s
}

func routeItem(ns *evidence.Namespace, dest, kind, oif, gateway, table string) *evidence.RouteItem {
	addr, err := netip.ParseAddr(dest)
	if ns == nil || err != nil {
		return nil
	}
	var best *evidence.RouteItem
	bits := -1
	for i := range ns.Routes.Items {
		r := &ns.Routes.Items[i]
		if table != "" && r.Table != table || oif != "" && r.Device != oif && r.Device != "" ||
			gateway != "" && r.Gateway != gateway || kind != "" && r.Type != kind {
			continue
		}
		if n := covers(r, addr); n > bits {
			best, bits = r, n
		}
	}
	return best
}

// covers returns the length of the route's prefix, or -1 if addr is not in it.
func covers(r *evidence.RouteItem, addr netip.Addr) int {
	if r.Dest == "default" {
		if r.Family == 4 == addr.Is4() {
			return 0
		}
		return -1
	}
	if p, err := netip.ParsePrefix(r.Dest); err == nil && p.Contains(addr.WithZone("")) {
		return p.Bits()
	}
	if a, err := netip.ParseAddr(r.Dest); err == nil && a == addr.WithZone("") {
		return a.BitLen()
	}
	return -1
}

func host(addrPort string) string {
	ap, err := netip.ParseAddrPort(addrPort)
	if err != nil {
		return ""
	}
	return ap.Addr().String()
}

func uniq(s []string) []string {
	var out []string
	for _, x := range s {
		if len(out) == 0 || out[len(out)-1] != x {
			out = append(out, x)
		}
	}
	return out
}
