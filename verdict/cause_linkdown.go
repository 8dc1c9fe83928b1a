// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"

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

// downDevice is the device that would have the route: it bears an address
// whose prefix holds the destination, and it is down. Nil when no device
// does, or when one that works has such an address too.
func downDevice(u *unrouted) *evidence.Link {
	if !u.n.Links.Read() || !u.n.Addresses.Read() {
		return nil
	}
	var found *evidence.Link
	for _, a := range u.n.Addresses.Items {
		p, err := netip.ParsePrefix(a.Prefix)
		if err != nil || !p.Masked().Contains(u.dest) || p.Bits() == p.Addr().BitLen() {
			continue
		}
		if down(u.n, a.Device) == "" {
			return nil
		}
		found = link(u.n, a.Device)
	}
	return found
}

func findLinkDown(c *evidence.Case, e *evidence.Event) *Verdict {
	if e != nil && isDrop(e, "DEV_READY", "NEIGH_FAILED", "QDISC_DROP") {
		return deadDevice(c, e)
	}
	u := findUnrouted(c, e)
	if u == nil || u.fail.errno != "ENETUNREACH" || !u.n.Rules.Read() {
		return nil
	}
	if r, sure := ipRule(c, u.e, u.n, u.dest, u.fail); r != nil || !sure {
		return nil
	}
	l := downDevice(u)
	if l == nil {
		return nil
	}
	v := unroutedVerdict(c, u)
	v.Certainty = Inferred // that the route would be there is a deduction
	v.Where.Device = l.Name
	state := down(u.n, l.Name)
	v.Proof = append(v.Proof, fmt.Sprintf("%s has an address whose prefix holds %s, and is %s (state %s)", l.Name, u.dest, state, l.State))
	v.Summary = fmt.Sprintf("%s: %s of %s is %s, so there is no route to %s%s", target(c), l.Name, name(u.e.Netns), state, u.dest, back(u))
	if !l.Up {
		v.Fixes = []Fix{{
			Summary:  "set " + l.Name + " up",
			Commands: []string{shell(u.n, "ip", "link", "set", "dev", l.Name, "up")},
			Undo:     []string{shell(u.n, "ip", "link", "set", "dev", l.Name, "down")},
		}}
	}
	return v
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
