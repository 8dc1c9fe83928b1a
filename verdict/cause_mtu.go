// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"github.com/pathtrace/pathtrace/evidence"
)

// tooBig reports whether e is a packet that did not fit. Where only the route's
// MTU is too small for an IPv6 packet the kernel finds that later, and says so to the sender only.
func tooBig(c *evidence.Case, e *evidence.Event) bool {
	if isDrop(e, "PKT_TOO_BIG") {
		return true
	}
	if !isDrop(e, "NOT_SPECIFIED") || !at(e, "ip6_fragment") {
		return false
	}
	v := visitOf(c, e)
	for i := range c.Events {
		if p := c.Events[i].Packet; p != nil && p.Protocol == "icmpv6" && p.Type != nil && *p.Type == 2 && v.during(&c.Events[i]) {
			return true
		}
	}
	return false
}

func findMTU(c *evidence.Case, e *evidence.Event) *Verdict {
	if !tooBig(c, e) || !placed(e) {
		return nil
	}
	dest, _, ok := destination(c, e)
	if !ok {
		return nil
	}
	v := start(c, e, Observed)
	n := space(c, e)
	device, _ := routedTo(c, e, dest)
	if device == "" && n != nil {
		if l := lookup(n, dest, ""); l != nil && l.Errno == "" {
			device = l.OIF
			v.Certainty = Inferred
		}
	}
	if device == "" {
		return nil
	}
	v.Where.Device = device
	limit := ""
	if n == nil || !unread(v, n, "links", n.Links.Read(), n.Links.Why()) {
		v.Certainty = Inferred
	} else if l := link(n, device); l != nil {
		fact := fmt.Sprintf("%s, by which it was to leave, has MTU %d", device, l.MTU)
		if e.Packet != nil && e.Packet.Length <= l.MTU {
			fact += ": the MTU of the route is smaller"
		} else {
			limit = fmt.Sprintf(" (MTU %d)", l.MTU)
		}
		v.Proof = append(v.Proof, fact)
	}
	if a := icmpFrom(c, e, "ip_forward"); a != nil && a.ICMP.Type == 3 && a.ICMP.Code == 4 {
		v.Proof = append(v.Proof, "the kernel answered with ICMP 3/4"+mtuTold(a)+" "+since(c, a))
	}
	size := ""
	if e.Packet != nil && e.Packet.Length != 0 {
		size = fmt.Sprintf(" of %d bytes", e.Packet.Length)
	}
	v.Summary = fmt.Sprintf("%s: packet%s too big for %s of %s%s", target(c), size, device, name(e.Netns), limit)
	return v
}

// mtuTold is the MTU that an ICMP error names; not every tier of hooks tells it.
func mtuTold(a *evidence.Event) string {
	if a.ICMP.Info == 0 {
		return ""
	}
	return fmt.Sprintf(", MTU %d,", a.ICMP.Info)
}

// findPMTUBlackhole is mtu-exceeded whose ICMP error, too, was dropped by a
// kernel that we watch. Beyond these: their error about it was dropped here, or large packets vanish at one place.
func findPMTUBlackhole(c *evidence.Case, e *evidence.Event) *Verdict {
	if e == nil {
		if v := findLostWord(c); v != nil {
			return v
		}
		return findPathMTU(c)
	}
	if !tooBig(c, e) {
		return nil
	}
	for i := range c.Events {
		d := &c.Events[i]
		if d.Kind == evidence.Drop && placed(d) && d.Reason != "QUEUE_PURGE" && tellsTooBig(d) {
			v := findMTU(c, e)
			if v != nil {
				v.Proof = append(v.Proof, died(c, d))
				v.Summary += "; the ICMP error about it was lost in " + name(d.Netns)
			}
			return v
		}
	}
	return nil
}
