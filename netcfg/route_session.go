// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Cuts says what the change would do to the packets of a TCP connection between
// local, an address of this namespace, and peer: "" where they go on as they
// are. It is computed before the change is made. Where the kernel does not do
// now what its rules and routes were read to say, that cannot be told, and is said.
func (c *Change) Cuts(local, peer netip.AddrPort) string {
	l, p := local.Addr().Unmap(), peer.Addr().Unmap()
	if addrFamily(p) != c.before.family || l.Is4() != p.Is4() {
		return ""
	}
	out := flow{dst: p, src: l, iif: 1, proto: unix.IPPROTO_TCP, sport: local.Port(), dport: peer.Port()}
	answer, err := c.netns.getRoute(RouteQuery{Dest: p, Source: l, Protocol: out.proto, SPort: out.sport, DPort: out.dport, UID: new(uint32)}, 0)
	if err != nil {
		return "" // there is no way now
	}
	device := answer.attrs[unix.RTA_OIF].u32()
	in := flow{dst: l, src: p, iif: device, input: true, proto: out.proto, sport: out.dport, dport: out.sport}
	told := false
	for _, merged := range c.before.variants() {
		now := c.before.decide(out, merged)
		if now.route == nil || now.errno != 0 || !leads(*now.route, answer) {
			continue
		}
		told = true
		then := c.after.decide(out, merged && len(c.after.rules) == len(c.before.rules))
		printer := c.netns.routePrinter()
		if then.open != "" || now.way() != then.way() {
			return fmt.Sprintf("packets to %s, which now go by %q, would go by %q", p, printer.text(*now.route), outcome(printer, then))
		}
		before, after := c.before.decide(in, merged), c.after.decide(in, merged && len(c.after.rules) == len(c.before.rules))
		if after.open != "" || before.way() != after.way() {
			return fmt.Sprintf("packets from %s to %s would go by %q", p, l, outcome(printer, after))
		}
	}
	if !told {
		return fmt.Sprintf("the way to %s cannot be computed from the rules and routes", p)
	}
	return ""
}

// leads reports whether the kernel's answer is one of the ways of a route.
func leads(r, answer route) bool {
	for _, h := range r.hops() {
		if h.index == answer.attrs[unix.RTA_OIF].u32() && (h.gateway == gatewayOf(answer.attrs) || !gatewayOf(answer.attrs).IsValid()) {
			return true
		}
	}
	return r.kind == unix.RTN_LOCAL && answer.kind == unix.RTN_LOCAL
}

func outcome(p routePrinter, d decision) string {
	switch {
	case d.route != nil:
		return p.text(*d.route)
	case d.rule != nil:
		return d.rule.text(p.words)
	case d.open != "":
		return "what " + d.open + " leads to"
	}
	return "no route"
}
