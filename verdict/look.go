// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// start makes a verdict about the fate e: where and how it died.
func start(c *evidence.Case, e *evidence.Event, certainty Certainty) *Verdict {
	return &Verdict{
		Certainty: certainty,
		Direction: direction(c, e),
		Where: Where{
			Netns: e.Netns, Device: e.Device, Hook: e.Hook,
			Function: e.Function, Reason: e.Reason, NAT: nat(c, e),
		},
		Proof: []string{died(c, e)},
	}
}

// nat returns the translation of the destination that e's packet had undergone, or nil.
func nat(c *evidence.Case, e *evidence.Event) *NATRef {
	p := e.Packet
	if p == nil || p.Carries != nil || c.Target.Port == 0 || p.Protocol != c.Target.Protocol {
		return nil
	}
	addr, port := p.Dest, p.DPort
	if direction(c, e) == evidence.Reply {
		addr, port = p.Source, p.SPort
	}
	if port == 0 || sameAddr(addr, c.Target.Address) && port == c.Target.Port {
		return nil
	}
	return &NATRef{From: endpoint(c.Target.Address, c.Target.Port), To: endpoint(addr, port)}
}

// space returns the configuration of the event's namespace; nil when the kernel did not name it or nothing was read there.
func space(c *evidence.Case, e *evidence.Event) *evidence.Namespace {
	if !placed(e) {
		return nil
	}
	return c.Namespace(e.Netns)
}

// isDrop reports whether e is a drop with one of the reasons.
func isDrop(e *evidence.Event, reasons ...string) bool {
	if e == nil || e.Kind != evidence.Drop {
		return false
	}
	for _, r := range reasons {
		if e.Reason == r {
			return true
		}
	}
	return false
}

// at reports whether e happened in one of the functions.
func at(e *evidence.Event, functions ...string) bool {
	for _, f := range functions {
		if e.Function == f {
			return true
		}
	}
	return false
}

// calledBy reports whether one of the functions is e's own or one of its callers.
func calledBy(e *evidence.Event, functions ...string) bool {
	if at(e, functions...) {
		return true
	}
	for _, s := range e.Stack {
		for _, f := range functions {
			if s == f {
				return true
			}
		}
	}
	return false
}

// conf is the name of a device's setting; sysctl takes a slash for a dot in a device's name.
func conf(family, device, key string) string {
	return "net." + family + ".conf." + strings.ReplaceAll(device, ".", "/") + "." + key
}

func sysctl(n *evidence.Namespace, key string) (string, bool) {
	for _, s := range n.Sysctls.Items {
		if s.Name == key {
			return strings.TrimSpace(s.Value), true
		}
	}
	return "", false
}

// counter returns how far a counter moved; whether it was read is the section's business.
func counter(n *evidence.Namespace, key string) uint64 {
	for _, k := range n.Counters.Items {
		if k.Name == key {
			return k.Delta
		}
	}
	return 0
}

func link(n *evidence.Namespace, device string) *evidence.Link {
	for i := range n.Links.Items {
		if n.Links.Items[i].Name == device {
			return &n.Links.Items[i]
		}
	}
	return nil
}

// destination is the address and port that e's packet bore when e happened, translation included.
func destination(c *evidence.Case, e *evidence.Event) (netip.Addr, int, bool) {
	if p := e.Packet; p != nil {
		a, ok := parseAddr(p.Dest)
		return a, p.DPort, ok
	}
	if direction(c, e) == evidence.Forward {
		a, ok := parseAddr(c.Target.Address)
		return a, c.Target.Port, ok
	}
	a, port, ok := splitLocal(c.Probe.Local, 4)
	return a, port, ok
}

// source is the address and port that e's packet came from when e happened.
func source(c *evidence.Case, e *evidence.Event) (netip.Addr, int, bool) {
	if p := e.Packet; p != nil {
		a, ok := parseAddr(p.Source)
		return a, p.SPort, ok
	}
	if direction(c, e) == evidence.Forward {
		return splitLocal(c.Probe.Local, 4)
	}
	a, ok := parseAddr(c.Target.Address)
	return a, c.Target.Port, ok
}

// routesAsked returns the questions about dest that the namespace's tables got
// for the packet of e, until e: while its own copy was there; for a packet that
// was made there, while the packet was there that it was made for; else, as the
// probe's socket asks before there is a packet, those asked without one.
func routesAsked(c *evidence.Case, e *evidence.Event, dest netip.Addr) []*evidence.Event {
	v := visitOf(c, e)
	asked := func(mine func(*evidence.Event) bool) (list []*evidence.Event) {
		for i := range c.Events {
			r := &c.Events[i]
			if r.Kind != evidence.Route || r.Route == nil || r.Netns != e.Netns || r.At > e.At || !mine(r) {
				continue
			}
			if a, ok := parseAddr(r.Route.Dest); ok && a == dest {
				list = append(list, r)
			}
		}
		return list
	}
	own := asked(v.has)
	if in := v.arrived(); in != nil {
		// the packet's own questions bear its device; those that an ICMP error about it asks do not
		if input := slices.DeleteFunc(slices.Clone(own), func(r *evidence.Event) bool { return r.Route.IIF != in.Device }); len(input) > 0 {
			return input
		}
		return own
	}
	if len(own) > 0 {
		return own
	}
	if w, ok := v.occasion(c); ok {
		return asked(w.has)
	}
	return asked(func(r *evidence.Event) bool { return r.SKB == "" })
}

// routedTo is the device and next hop that the namespace's tables gave for the packet of e.
func routedTo(c *evidence.Case, e *evidence.Event, dest netip.Addr) (device, hop string) {
	for _, r := range routesAsked(c, e, dest) {
		if r.Route.Errno == "" && r.Route.OIF != "" {
			device, hop = r.Route.OIF, r.Route.Gateway
			if hop == "" || hop == "0.0.0.0" || hop == "::" {
				hop = dest.String()
			}
		}
	}
	return device, hop
}

// lookup is the kernel's answer, when asked afterwards, to the route to dest as a packet of this host.
func lookup(n *evidence.Namespace, dest netip.Addr, device string) *evidence.Lookup {
	var found *evidence.Lookup
	for i := range n.Lookups.Items {
		l := &n.Lookups.Items[i]
		if a, ok := parseAddr(l.Dest); !ok || a != dest {
			continue
		}
		if found == nil || device != "" && l.IIF == device || device == "" && l.IIF == "" {
			found = l
		}
	}
	return found
}

// localAddress reports whether a device of n bears the address, and whether that is known.
func localAddress(n *evidence.Namespace, a netip.Addr) (here, known bool) {
	for _, item := range n.Addresses.Items {
		if p, err := netip.ParsePrefix(item.Prefix); err == nil && p.Addr().Unmap() == a {
			return true, true
		}
	}
	return false, n.Addresses.Read()
}
