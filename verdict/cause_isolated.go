// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"github.com/pathtrace/pathtrace/evidence"
)

var isolatedCauses = []Cause{{
	ID: "bridge-isolated", Means: "port isolation: isolated ports of a bridge exchange no frames",
	Needs: "our packet, or the ARP or ND request for its next hop, arrived at an isolated port and left by none; links: every other port of the bridge is isolated too",
	Find:  findIsolated,
}}

// findIsolated explains an address request, or a packet, that ended at a bridge.
// The bridge drops such frames without a word, so this is a deduction.
func findIsolated(c *evidence.Case, e *evidence.Event) *Verdict {
	if e != nil && !neighborDrop(e) {
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
		port, others := isolatedPort(c, in)
		if port == nil || others == 0 || leftBridge(c, in) {
			continue
		}
		v := &Verdict{Certainty: Inferred, Direction: direction(c, in)}
		v.Where.Netns, v.Where.Device = in.Netns, port.Name
		v.Proof = append(v.Proof, fmt.Sprintf("the %s packet for %s arrived at %s of %s %s, and left by no other port", in.Packet.Protocol, in.Packet.Dest, port.Name, name(in.Netns), since(c, in)),
			fmt.Sprintf("%s is an isolated port of %s, as are the other %d", port.Name, port.Master, others))
		if e != nil {
			v.Proof = append(v.Proof, died(c, e))
		}
		v.Summary = fmt.Sprintf("%s: bridge %s of %s exchanges no frames between its isolated ports (%s among them)", target(c), port.Master, name(in.Netns), port.Name)
		v.Fixes = []Fix{}
		return v
	}
	return nil
}

// isolatedPort is the bridge port that a packet came in by, when it and every
// other port of the bridge that is up are isolated; others counts those.
func isolatedPort(c *evidence.Case, in *evidence.Event) (port *evidence.Link, others int) {
	n := space(c, in)
	if n == nil || !n.Links.Read() {
		return nil, 0
	}
	port = link(n, in.Device)
	if port == nil || !port.Isolated || port.Master == "" {
		return nil, 0
	}
	for i := range n.Links.Items {
		l := &n.Links.Items[i]
		switch {
		case l.Master != port.Master || l == port || !l.Up:
		case !l.Isolated:
			return nil, 0 // the destination may be behind that one
		default:
			others++
		}
	}
	return port, others
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
