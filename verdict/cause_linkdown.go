// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// down says why a device carries nothing; empty when it does, or when that was not read.
func down(n *evidence.Namespace, device string) string {
	l := link(n, device)
	switch {
	case l == nil || !n.Links.Read():
		return ""
	case !l.Up:
		return "down"
	case !l.Carrier:
		return "without carrier"
	}
	return ""
}

// downDevice is the device that would have the route, and is down: it bears an
// address whose prefix holds the destination, or a route to it that is not used
// for that reason. Nil when no device does, or when one that works does too.
func downDevice(u *unrouted) (found *evidence.Link, why string) {
	if !u.n.Links.Read() || !u.n.Addresses.Read() {
		return nil, ""
	}
	for i := range u.n.Routes.Items {
		r := &u.n.Routes.Items[i]
		if p, ok := prefix(r); !ok || r.Type != "unicast" || r.Device == "" || !p.Contains(u.dest) || !strings.Contains(r.Flags, "linkdown") {
			continue
		}
		if down(u.n, r.Device) != "" {
			found, why = link(u.n, r.Device), fmt.Sprintf("%s has the route %s", r.Device, quoted(r.Text))
		}
	}
	for _, a := range u.n.Addresses.Items {
		p, err := netip.ParsePrefix(a.Prefix)
		if err != nil || !p.Masked().Contains(u.dest) || p.Bits() == p.Addr().BitLen() {
			continue
		}
		if down(u.n, a.Device) == "" {
			return nil, ""
		}
		found, why = link(u.n, a.Device), fmt.Sprintf("%s has an address whose prefix holds %s", a.Device, u.dest)
	}
	return found, why
}

func hasDownDevice(u *unrouted) bool {
	l, _ := downDevice(u)
	return l != nil
}

func findLinkDown(c *evidence.Case, e *evidence.Event) *Verdict {
	if v := deadPort(c, e); v != nil {
		return v
	}
	if e != nil && (isDrop(e, "DEV_READY", "QDISC_DROP") || neighborDrop(e)) {
		return deadDevice(c, e)
	}
	u := findUnrouted(c, e)
	if u == nil && e == nil {
		return stuckBefore(c)
	}
	if u == nil || u.fail.errno != "ENETUNREACH" || !u.n.Rules.Read() {
		return nil
	}
	if r, sure := ipRule(c, u.e, u.n, u.dest, u.fail); r != nil || !sure {
		return nil
	}
	l, why := downDevice(u)
	if l == nil {
		return nil
	}
	v := unroutedVerdict(c, u)
	v.Certainty = Inferred // that the route would be there is a deduction
	v.Where.Device = l.Name
	state := down(u.n, l.Name)
	v.Proof = append(v.Proof, fmt.Sprintf("%s, and is %s (state %s)", why, state, l.State))
	v.Summary = fmt.Sprintf("%s: %s of %s is %s, so there is no route to %s%s", target(c), l.Name, name(u.e.Netns), state, u.dest, back(u))
	if !l.Up {
		v.Fixes = raise(u.n, l)
	}
	return v
}

// stuckBefore is a packet that waits for a link address before a device that is
// down: that drops each request for it, or none is made.
func stuckBefore(c *evidence.Case) *Verdict {
	if c.Probe.Outcome != evidence.Timeout && c.Probe.Outcome != evidence.Silent && c.Probe.Outcome != evidence.Unreachable || handshakeDone(c) {
		return nil
	}
	for i := len(c.Events) - 1; i >= 0; i-- {
		d := &c.Events[i]
		lost := isDrop(d, "DEV_READY", "QDISC_DROP") && resolves(d)
		if !lost && !waits(d) || d.Device == "" {
			continue
		}
		n := space(c, d)
		if n == nil || down(n, d.Device) == "" {
			continue
		}
		fact := died(c, d)
		if !lost {
			fact = fmt.Sprintf("%s waits for the link address of its next hop on %s of %s, %s", whose(c, d), d.Device, name(d.Netns), since(c, d))
		}
		v := deadDevice(c, asked(c, d))
		if v == nil {
			return nil
		}
		v.Certainty = Inferred // our own packet was not seen to die
		v.Proof[0] = fact
		return v
	}
	return nil
}

// waits reports whether e is the copy of a packet that a neighbour entry takes
// to ask in its name, while the packet waits (neigh_probe, inlined into its callers).
func waits(e *evidence.Event) bool {
	return e.Kind == evidence.Consume && e.Packet != nil && !resolves(e) && at(e, "neigh_probe", "__neigh_event_send", "neigh_timer_handler")
}

// asked is the question d for a link address with the direction of the packet that it was asked for.
func asked(c *evidence.Case, d *evidence.Event) *evidence.Event {
	e := *d
	for i := range c.Events {
		r := &c.Events[i]
		if r.Kind != evidence.Route || r.Route == nil || r.Netns != d.Netns || r.Route.OIF != d.Device || r.At > d.At || r.Direction == "" {
			continue
		}
		hop := r.Route.Gateway
		if hop == "" {
			hop = r.Route.Dest
		}
		if asksFor(d, hop) {
			e.Direction = r.Direction
		}
	}
	return &e
}

// deadDevice is a drop on the way out of a device that is down.
func deadDevice(c *evidence.Case, e *evidence.Event) *Verdict {
	n := space(c, e)
	if n == nil || e.Device == "" {
		return nil
	}
	state := down(n, e.Device)
	if state == "" {
		return nil
	}
	v := start(c, e, Observed)
	if e.Reason != "DEV_READY" {
		v.Certainty = Inferred
	}
	l := link(n, e.Device)
	v.Proof = append(v.Proof, fmt.Sprintf("%s is %s (state %s)", l.Name, state, l.State))
	v.Summary = fmt.Sprintf("%s: %s of %s is %s", target(c), l.Name, name(e.Netns), state)
	return v
}
