// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

var isolatedCauses = []Cause{{
	ID: "bridge-isolated", Means: "port isolation: isolated ports of a bridge exchange no frames",
	Needs: "our packet, or the ARP or ND request for its next hop, arrived at an isolated port and left by none; links: every other port of the bridge is isolated too",
	Find:  findIsolated,
}}

// closure says why a bridge sends no frames out of a port.
type closure string

const (
	isolated closure = "isolated"
	blocked  closure = "not forwarding"
	dead     closure = "down"
)

// deadEnd is a packet, or the question for its next hop, that came into a
// bridge of which no other port was open. The bridge drops such frames without
// a word, so that is a deduction.
type deadEnd struct {
	in     *evidence.Event
	n      *evidence.Namespace
	port   *evidence.Link   // by which it came
	others []*evidence.Link // of the same bridge
	why    closure          // of all the others
}

// findDeadEnd explains the fate e, or a case without one, by a bridge that let
// nothing out; nil when a port was open, or when several were closed for different reasons.
func findDeadEnd(c *evidence.Case, e *evidence.Event) *deadEnd {
	if e != nil && !neighborDrop(e) && !endedInBridge(e) {
		return nil
	}
	if e == nil && c.Probe.Outcome != evidence.Timeout && c.Probe.Outcome != evidence.Unreachable && c.Probe.Outcome != evidence.Silent {
		return nil
	}
	for i := range c.Events {
		in := &c.Events[i]
		if in.Kind != evidence.Receive || in.Packet == nil || e != nil && in.At > e.At {
			continue
		}
		if d := closedAround(c, in); d != nil && !leftBridge(c, in) {
			return d
		}
	}
	return nil
}

// endedInBridge reports whether e is a frame that a bridge freed because no port was to have it.
func endedInBridge(e *evidence.Event) bool {
	return isDrop(e, "NOT_SPECIFIED", "NO_TX_TARGET") && strings.HasPrefix(e.Function, "br_")
}

// closedAround is the bridge port that a packet came in by, when nothing can leave by any other port of the bridge.
func closedAround(c *evidence.Case, in *evidence.Event) *deadEnd {
	n := space(c, in)
	if n == nil || !n.Links.Read() {
		return nil
	}
	d := &deadEnd{in: in, n: n, port: link(n, in.Device)}
	if d.port == nil || d.port.Master == "" {
		return nil
	}
	if bridge := link(n, d.port.Master); bridge == nil || bridge.Kind != "bridge" {
		return nil // a bond or a VRF
	}
	for i := range n.Links.Items {
		l := &n.Links.Items[i]
		if l.Master != d.port.Master || l == d.port {
			continue
		}
		why := closed(d.port, l)
		if why == "" || d.why != "" && d.why != why {
			return nil // the destination may be behind that one
		}
		d.why = why
		d.others = append(d.others, l)
	}
	if len(d.others) == 0 {
		return nil
	}
	return d
}

// closed says why nothing that came in by one port of a bridge leaves by another; empty when it may.
func closed(from, to *evidence.Link) closure {
	switch {
	case !to.Up || !to.Carrier:
		return dead
	case to.PortState != "" && to.PortState != "forwarding":
		return blocked
	case from.Isolated && to.Isolated:
		return isolated
	}
	return ""
}

// verdict is the common part of all verdicts about a dead end, at the port that shows it.
func (d *deadEnd) verdict(c *evidence.Case, e *evidence.Event, at *evidence.Link) *Verdict {
	v := &Verdict{Certainty: Inferred, Direction: direction(c, d.in)}
	v.Where.Netns, v.Where.Device = d.in.Netns, at.Name
	v.Proof = append(v.Proof, fmt.Sprintf("the %s packet for %s arrived at %s of %s %s, and left by no other port", d.in.Packet.Protocol, d.in.Packet.Dest, d.port.Name, name(d.in.Netns), since(c, d.in)))
	if e != nil {
		v.Direction = direction(c, e)
		v.Proof = append(v.Proof, died(c, e))
		if e.Netns == d.in.Netns {
			v.Where.Function, v.Where.Reason = e.Function, e.Reason
		}
	}
	return v
}

func findIsolated(c *evidence.Case, e *evidence.Event) *Verdict {
	d := findDeadEnd(c, e)
	if d == nil || d.why != isolated {
		return nil
	}
	v := d.verdict(c, e, d.port)
	v.Proof = append(v.Proof, fmt.Sprintf("%s is an isolated port of %s, as are the other %d", d.port.Name, d.port.Master, len(d.others)))
	v.Summary = fmt.Sprintf("%s: bridge %s of %s exchanges no frames between its isolated ports (%s among them)", target(c), d.port.Master, name(d.in.Netns), d.port.Name)
	v.Fixes = setPort(d.n, d.port, "isolated", "off", "on")
	return v
}

// closedPort is the one port by which a packet could not leave a bridge because it is not forwarding.
func closedPort(c *evidence.Case, e *evidence.Event) *Verdict {
	d := findDeadEnd(c, e)
	if d == nil || d.why != blocked {
		return nil
	}
	v := d.verdict(c, e, d.others[0])
	for _, l := range d.others {
		v.Proof = append(v.Proof, fmt.Sprintf("port %s of bridge %s is %s", l.Name, l.Master, l.PortState))
	}
	v.Summary = fmt.Sprintf("%s: bridge port %s of %s is not forwarding (%s): %s could not leave by it", target(c), d.others[0].Name, name(d.in.Netns), d.others[0].PortState, whose(c, d.in))
	if len(d.others) == 1 {
		v.Fixes = forwardPort(d.n, d.others[0])
	}
	return v
}

// deadPort is a bridge of which every other port is down or without carrier.
func deadPort(c *evidence.Case, e *evidence.Event) *Verdict {
	d := findDeadEnd(c, e)
	if d == nil || d.why != dead {
		return nil
	}
	v := d.verdict(c, e, d.others[0])
	for _, l := range d.others {
		v.Proof = append(v.Proof, fmt.Sprintf("port %s of bridge %s is %s (state %s)", l.Name, l.Master, down(d.n, l.Name), l.State))
	}
	v.Summary = fmt.Sprintf("%s: bridge port %s of %s is %s: %s could not leave by it", target(c), d.others[0].Name, name(d.in.Netns), down(d.n, d.others[0].Name), whose(c, d.in))
	if len(d.others) == 1 && !d.others[0].Up {
		v.Fixes = raise(d.n, d.others[0])
	}
	return v
}

// leftBridge reports whether a packet like in was transmitted by another device of its namespace afterwards.
func leftBridge(c *evidence.Case, in *evidence.Event) bool {
	for i := range c.Events {
		o := &c.Events[i]
		if o.Kind == evidence.Transmit && o.Netns == in.Netns && o.At >= in.At && o.Device != in.Device && o.Packet != nil &&
			o.Packet.Protocol == in.Packet.Protocol && o.Packet.Dest == in.Packet.Dest {
			return true
		}
	}
	return false
}
