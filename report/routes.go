// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// searches adds the routes that were found for the first packet and its answer,
// and those that were not, with what the kernel says of the first hop where no
// lookup was seen.
func (l *ladder) searches() {
	end := l.endpoint()
	for _, s := range verdict.RouteChoices(l.c) {
		l.search(s, end)
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

// search adds a line for the answer. The kernel asks for more than where a
// packet goes: is the source believable, is an address our own? That is told only where it fails.
func (l *ladder) search(s *verdict.RouteChoice, end string) {
	e, r := s.Last, s.Last.Route
	back := e.Direction == evidence.Reply || r.Dest == host(l.c.Probe.Local)
	if r.Errno == "EAGAIN" && r.Table == "local" {
		return // the local table alone is asked whether an address is our own; no is no failure
	}
	if r.Errno == "" {
		if r.IIF == "" && (!back && e.Netns != l.c.Probe.Netns || back && e.Netns != end) || !l.travels(e.Netns, r) {
			return
		}
		rank := route
		if back || s.Local {
			rank = echo
		}
		l.add(s.First, rank, "route", arrow(back)+l.routeText(s)+ruleText(s), "")
		return
	}
	text := arrow(back) + noRoute(l.c.Namespace(e.Netns), r, s.Asked) + ruleText(s)
	l.lines = append(l.lines, line{at: e.At, where: place(e.Netns), station: "route", text: text, mark: "✗", rank: vital})
}

// probes reports whether a packet is of the probe's own protocol.
func (l *ladder) probes(p *evidence.Packet) bool {
	if p.Protocol == "icmpv6" {
		return l.c.Target.Protocol == "icmp" && p.Type != nil && (*p.Type == 128 || *p.Type == 129)
	}
	return p.Protocol == l.c.Target.Protocol
}

// travels reports whether packets of ours, and not those that ask for link
// addresses, had the ends that a table was asked for.
func (l *ladder) travels(netns string, r *evidence.RouteLookup) bool {
	source, dest := r.Source == "", r.Dest == l.c.Target.Address && netns == l.c.Probe.Netns
	for i := range l.c.Events {
		if e := &l.c.Events[i]; e.Packet != nil && e.Netns == netns && l.probes(e.Packet) {
			source = source || e.Packet.Source == r.Source
			dest = dest || e.Packet.Dest == r.Dest
		}
	}
	return source && dest
}

func arrow(back bool) string {
	if back {
		return "← "
	}
	return ""
}

// endpoint is the namespace that the first packet came to last: answers are made there.
func (l *ladder) endpoint() string {
	end := l.c.Probe.Netns
	for i := range l.c.Events {
		if e := &l.c.Events[i]; e.Kind == evidence.Receive && e.Packet != nil && e.Direction == evidence.Forward && l.first(class(e.Packet)) {
			end = e.Netns
		}
	}
	return end
}

func (l *ladder) routeText(s *verdict.RouteChoice) string {
	r := s.Last.Route
	if s.Entry != "" {
		return s.Entry + ", table " + s.Table()
	}
	return describeRoute(l.c.Namespace(s.Last.Netns), r.Dest, "", r.OIF, r.Gateway, s.Table())
}

// ruleText names the ip rule that led to the table; where it has no selector its number says it all.
func ruleText(s *verdict.RouteChoice) string {
	var names []string
	for _, r := range s.Rules {
		names = append(names, fmt.Sprint(r.Priority))
	}
	switch {
	case len(names) == 0:
		return ""
	case len(names) == 1 && !strings.HasSuffix(s.Rules[0].Text, " from all lookup "+s.Rules[0].Table):
		return ", ip rule " + s.Rules[0].Text
	}
	return ", ip rule " + strings.Join(names, " or ")
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
	if n := len(asked); n > 6 {
		return fmt.Sprintf("%s in %d tables: %s, … %s", s, n, strings.Join(asked[:3], ", "), asked[n-1])
	}
	return s + " in tables " + strings.Join(asked, ", ")
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
