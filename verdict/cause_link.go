// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

var linkCauses = []Cause{
	{
		ID: "xdp-drop", Means: "an XDP program dropped it",
		Needs:   "drop in do_xdp_generic or veth_xdp_*, or reason XDP; links (the device's program)",
		Reasons: []string{"XDP", "NOT_SPECIFIED"}, Find: findXDP,
	},
	{
		ID: "tc-drop", Means: "a traffic-control classifier or action dropped it",
		Needs: "drop TC_INGRESS or TC_EGRESS", Reasons: []string{"TC_INGRESS", "TC_EGRESS"}, Find: findTC,
	},
	{
		ID: "qdisc-drop", Means: "a queueing discipline dropped it",
		Needs:   "drop with a reason of a queueing discipline; links (that the device has a carrier)",
		Reasons: []string{"QDISC_DROP", "QDISC_OVERLIMIT", "QDISC_CONGESTED", "CAKE_FLOOD", "FQ_BAND_LIMIT", "FQ_HORIZON_LIMIT", "FQ_FLOW_LIMIT"}, Find: findQdisc,
	},
	{
		ID: "bridge-port-blocked", Means: "the bridge port is not forwarding (spanning-tree state)",
		Needs: "drop BRIDGE_INGRESS_STP_STATE, of our packet or of the ARP request for its next hop", Reasons: []string{"BRIDGE_INGRESS_STP_STATE"}, Find: findBridgePort,
	},
	{
		ID: otherHost, Means: "the frame was not for this host",
		Needs: "drop OTHERHOST, or any drop of a frame with another host's link address at a device that takes no such frames, and no other copy that went on", Reasons: []string{"OTHERHOST"}, Find: findOtherHost,
	},
	{
		ID: "neighbor-unresolved", Means: "ARP or ND got no answer",
		Needs:   "drop NEIGH_FAILED (IPv6 of 6.18: NOT_SPECIFIED in neigh_invalidate), or a route event whose next hop is INCOMPLETE; neighbor events or neighbours, links",
		Reasons: []string{"NEIGH_FAILED", "NEIGH_QUEUEFULL", "NOT_SPECIFIED"}, Find: findNeighbor,
	},
}

// onDevice is a verdict that a device's own queue or program took.
func onDevice(c *evidence.Case, e *evidence.Event, what string) *Verdict {
	if !placed(e) || e.Device == "" {
		return nil
	}
	v := start(c, e, Observed)
	v.Summary = fmt.Sprintf("%s: %sdropped by %s on %s in %s", target(c), whoseDied(c, e), what, e.Device, name(e.Netns))
	return v
}

func findXDP(c *evidence.Case, e *evidence.Event) *Verdict {
	if e == nil || e.Kind != evidence.Drop || e.Reason != "XDP" && !at(e, "do_xdp_generic", "netif_receive_generic_xdp", "veth_xdp_rcv_skb", "veth_xdp_rcv_one") {
		return nil
	}
	v := onDevice(c, e, "an XDP program")
	if v == nil {
		return nil
	}
	n := space(c, e)
	if n == nil {
		v.Unseen = append(v.Unseen, name(e.Netns)+": which XDP program: links not read")
		return v
	}
	if l := link(n, e.Device); unread(v, n, "links", n.Links.Read(), n.Links.Why()) && l != nil {
		if l.XDP == 0 {
			return nil // no program is attached: it died there for another reason
		}
		v.Where.Program = &ProgramRef{ID: l.XDP}
		v.Proof = append(v.Proof, fmt.Sprintf("%s has the XDP program with id %d", l.Name, l.XDP))
	}
	return v
}

func findTC(c *evidence.Case, e *evidence.Event) *Verdict {
	if !isDrop(e, "TC_INGRESS", "TC_EGRESS") {
		return nil
	}
	return onDevice(c, e, "a traffic-control filter ("+strings.ToLower(strings.TrimPrefix(e.Reason, "TC_"))+")")
}

func findQdisc(c *evidence.Case, e *evidence.Event) *Verdict {
	if !isDrop(e, "QDISC_DROP", "QDISC_OVERLIMIT", "QDISC_CONGESTED", "CAKE_FLOOD", "FQ_BAND_LIMIT", "FQ_HORIZON_LIMIT", "FQ_FLOW_LIMIT") {
		return nil
	}
	n := space(c, e)
	if n == nil || !n.Links.Read() || link(n, e.Device) == nil || down(n, e.Device) != "" {
		return nil // a device without carrier drops with the same reason
	}
	v := onDevice(c, e, "the queueing discipline")
	if v != nil {
		v.Transient = true
	}
	return v
}

func findBridgePort(c *evidence.Case, e *evidence.Event) *Verdict {
	if isDrop(e, "BRIDGE_INGRESS_STP_STATE") {
		v := onDevice(c, e, "a bridge port that is not forwarding")
		if v != nil {
			v.Fixes = openPort(c, e)
		}
		return v
	}
	return closedPort(c, e)
}

const otherHost = "wrong-destination-mac"

// openPort has the bridge port of e forward frames.
func openPort(c *evidence.Case, e *evidence.Event) []Fix {
	n := space(c, e)
	if n == nil {
		return nil
	}
	if l := link(n, e.Device); l != nil {
		return forwardPort(n, l)
	}
	return nil
}

func findOtherHost(c *evidence.Case, e *evidence.Event) *Verdict {
	if e == nil || !isStray(e) || !placed(e) {
		return nil
	}
	v := start(c, e, Observed)
	v.Transient, v.Copied = true, true
	v.Proof = append(v.Proof, "no copy of it was taken by another host that we watch")
	v.Summary = fmt.Sprintf("%s: the frame that reached %s of %s bears another host's link address", target(c), e.Device, name(e.Netns))
	if n := space(c, e); n != nil {
		if l := link(n, e.Device); l != nil && l.MAC != "" {
			v.Proof = append(v.Proof, e.Device+" has the link address "+l.MAC)
			blameStatic(c, e, v, l.MAC)
		}
	}
	return v
}

// blameStatic names the static neighbour entry that gave the frame of e its
// link address: that of the next hop, in the namespace that sent it last.
func blameStatic(c *evidence.Case, e *evidence.Event, v *Verdict, mac string) {
	var sent *evidence.Event
	for i := range c.Events {
		if t := &c.Events[i]; t.Kind == evidence.Transmit && t.At <= e.At && !secondary(c, t) && direction(c, t) == direction(c, e) && t.Netns != e.Netns {
			sent = t
		}
	}
	if sent == nil || sent.Packet == nil {
		return
	}
	n := space(c, sent)
	dest, _, ok := destination(c, sent)
	if n == nil || !ok {
		return
	}
	device, hop := routedTo(c, sent, dest)
	for i := range n.Neighbors.Items {
		nb := &n.Neighbors.Items[i]
		if nb.State == "PERMANENT" && nb.Device == sent.Device && device == sent.Device && sameAddr(nb.Address, hop) && nb.MAC != mac {
			v.Proof = append(v.Proof, fmt.Sprintf("the static neighbour entry of %s for the next hop %s on %s is %s", name(sent.Netns), hop, device, nb.MAC))
			v.Fixes = forgetNeighbor(n, nb)
		}
	}
}
