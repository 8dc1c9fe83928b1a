// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"slices"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
)

// present is what of our packets was seen in one namespace.
type present struct {
	flows    []flow
	ports    []port // where packets went to: what a server must listen on
	routes   int    // routing events
	unrouted bool   // a routing table refused a packet, or there was no route
}

// port is one of a transport protocol, tcp or udp.
type port struct {
	protocol string
	number   uint16
}

// flow is the addresses of a packet, as the namespace saw them.
type flow struct {
	source, dest netip.Addr
	iif          string // "" for a packet of its own
	mark         uint32
}

func packetsIn(c *evidence.Case, name string) present {
	var p present
	add := func(f flow) {
		if f.dest.IsValid() && !slices.Contains(p.flows, f) {
			p.flows = append(p.flows, f)
		}
	}
	addPort := func(to port) {
		if (to.protocol == "tcp" || to.protocol == "udp") && !slices.Contains(p.ports, to) {
			p.ports = append(p.ports, to)
		}
	}
	target, _ := netip.ParseAddr(c.Target.Address)
	if name == c.Probe.Netns {
		add(flow{dest: target, mark: c.Probe.Mark})
	}
	for _, e := range c.Events {
		if e.Netns != name {
			continue
		}
		if e.Kind == evidence.Route {
			p.routes++
			p.unrouted = p.unrouted || e.Route.Errno != ""
		}
		if s := e.Steered(); s != nil {
			if a, err := netip.ParseAddrPort(s.Local); err == nil {
				addPort(port{"tcp", a.Port()})
			}
		}
		if e.Packet == nil || !traced(e.Packet, c.Target.Protocol) && e.Packet.Carries == nil {
			continue
		}
		src, err1 := netip.ParseAddr(e.Packet.Source)
		dst, err2 := netip.ParseAddr(e.Packet.Dest)
		if err1 != nil || err2 != nil {
			continue
		}
		if e.Direction == evidence.Forward {
			addPort(port{e.Packet.Protocol, uint16(e.Packet.DPort)})
		}
		switch {
		case e.Kind == evidence.Receive:
			add(flow{src, dst, e.Device, e.Packet.Mark})
			add(flow{dest: dst, mark: e.Packet.Mark})
			add(flow{dest: src}) // the way back
		case e.Kind == evidence.Drop:
			p.unrouted = p.unrouted || e.Hook == ""
			add(flow{dest: dst, mark: e.Packet.Mark})
		}
	}
	return p
}

// addressesIn are the addresses that the packets in a namespace and its routing lookups were about.
func addressesIn(c *evidence.Case, name string) (list []netip.Addr) {
	add := func(address string) {
		a, err := netip.ParseAddr(address)
		if a = a.WithZone(""); err == nil && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	add(c.Target.Address)
	for _, e := range c.Events {
		if e.Netns == name && e.Packet != nil {
			add(e.Packet.Source)
			add(e.Packet.Dest)
		}
		if e.Netns == name && e.Route != nil {
			add(e.Route.Source)
			add(e.Route.Dest)
		}
	}
	return list
}

// asked are the questions that the kernel itself put to the routing tables and got an answer to.
func asked(c *evidence.Case, name string) (flows []flow) {
	for _, e := range c.Events {
		if e.Netns != name || e.Kind != evidence.Route || e.Route.Errno != "" {
			continue
		}
		dest, err := netip.ParseAddr(e.Route.Dest)
		source, _ := netip.ParseAddr(e.Route.Source)
		if f := (flow{source, dest, e.Route.IIF, e.Route.Mark}); err == nil && !slices.Contains(flows, f) {
			flows = append(flows, f)
		}
	}
	return flows
}

// lookups asks the kernel for the routes of our packets, there and back: for
// what it asked itself, which names the entry that answered, then for packets as they came in and would leave.
func (g *gatherer) lookups(n *netcfg.Netns, asked []flow, here present) evidence.Section[evidence.Lookup] {
	out := []evidence.Lookup{}
	for _, f := range asked {
		if slices.Contains(here.flows, f) {
			continue
		}
		if l := n.Lookup(netcfg.RouteQuery{Dest: f.dest, Source: f.source, IIF: f.iif, Mark: f.mark}); l.Errno == "" {
			out = append(out, l)
		}
	}
	for _, f := range here.flows {
		out = append(out, n.Lookup(netcfg.RouteQuery{Dest: f.dest, Source: f.source, IIF: f.iif, Mark: f.mark}))
	}
	return evidence.Have(out)
}
