// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// lostQuestion says why the neighbour of v, the verdict about e, was not found;
// e is nil where our packet still waits, or was not yet seen to be given up:
// something dropped the request for its link address, or its answer. It returns
// v when that was not seen; v is inferred when it was seen and cannot be explained.
func lostQuestion(c *evidence.Case, e *evidence.Event, v *Verdict) *Verdict {
	hop := v.Where.Neighbor.Address
	end := []string{}
	if e == nil {
		e = &evidence.Event{At: math.MaxInt64, Netns: v.Where.Netns, Direction: v.Direction}
	} else {
		end = append(end, died(c, e))
	}
	for i := range c.Events {
		d := &c.Events[i]
		filtered := isNetfilter(d) || isDrop(d, "TC_INGRESS", "TC_EGRESS", "XDP", "QDISC_DROP", "IPV6DISABLED", "BRIDGE_INGRESS_STP_STATE") ||
			isDrop(d, "OTHERHOST") && answers(d) && d.Netns == e.Netns // others may get a flooded copy
		if d.At > e.At || !filtered || !asksFor(d, hop) {
			continue
		}
		w := ask(c, d)
		if w == nil {
			v.Certainty = Inferred
			v.Proof = append(v.Proof, died(c, d))
			return v
		}
		w.Certainty = Inferred // that our packet died for want of this answer
		w.Direction = direction(c, e)
		w.Proof = append(w.Proof, end...)
		what := "request for"
		if answers(d) {
			what = "answer about"
		}
		if w.Cause == "ipv6-disabled" || w.Cause == "wrong-destination-mac" {
			w.Summary += fmt.Sprintf(": the %s the link address of %s, which %s waited for, was lost", what, hop, whose(c, e))
			return w
		}
		rest := strings.TrimPrefix(strings.TrimPrefix(w.Summary, target(c)+": "), "the reply was ")
		w.Summary = fmt.Sprintf("%s: the %s the link address of %s, which %s waited for, was %s", target(c), what, hop, whose(c, e), rest)
		return w
	}
	return v
}

// asksFor reports whether e is about a question for the link address of hop, or its answer.
func asksFor(e *evidence.Event, hop string) bool {
	if !resolves(e) {
		return false
	}
	p := e.Packet
	if sameAddr(p.Dest, hop) || sameAddr(p.Source, hop) {
		return true
	}
	to, ok := parseAddr(p.Dest)
	a, ok2 := parseAddr(hop)
	if !ok || !ok2 || !to.Is6() || !a.Is6() {
		return false
	}
	// RFC 4291: the solicited-node address ff02::1:ffXX:XXXX ends as the address that is asked for
	x, y := to.As16(), a.As16()
	return x[0] == 0xff && x[11] == 1 && x[12] == 0xff && [3]byte(x[13:]) == [3]byte(y[13:])
}

// answers reports whether e is about an ARP reply or a neighbour advertisement.
func answers(e *evidence.Event) bool {
	t := e.Packet.Type
	return t != nil && (e.Packet.Protocol == "arp" && *t == 2 || *t == 136)
}

func neighborDrop(e *evidence.Event) bool {
	return isDrop(e, "NEIGH_FAILED", "NEIGH_QUEUEFULL") || isDrop(e, "NOT_SPECIFIED") && calledBy(e, "neigh_invalidate")
}

func findNeighbor(c *evidence.Case, e *evidence.Event) *Verdict {
	if e == nil {
		return waitingForNeighbor(c)
	}
	if !neighborDrop(e) || !placed(e) {
		return nil
	}
	dest, _, ok := destination(c, e)
	if !ok {
		return nil
	}
	device, hop := routedTo(c, e, dest)
	if e.Device == "" {
		e = withDevice(e, device)
	}
	v := start(c, e, Observed)
	v.Transient = true
	n := space(c, e)
	if !setNeighbor(c, e, n, v, device, hop, dest) {
		return nil
	}
	if n == nil || !unread(v, n, "links", n.Links.Read(), n.Links.Why()) {
		v.Certainty = Inferred
	} else if down(n, e.Device) != "" {
		return nil // link-down says it better
	}
	questionInTunnel(v, n, e.Device)
	if d := findDeadEnd(c, e); d != nil {
		return nil // so do the causes of bridges
	}
	nb := v.Where.Neighbor
	if e.Reason == "NEIGH_FAILED" || calledBy(e, "neigh_invalidate") {
		nb.State = "FAILED" // what the drop itself says
	}
	v.Summary = fmt.Sprintf("%s: nobody answers for %s on %s of %s (%s)", target(c), nb.Address, e.Device, name(e.Netns), nb.State)
	return v
}

// tunnels are the kinds of devices that carry frames, link address questions among them, within other packets.
var tunnels = []string{"vxlan", "geneve", "gretap", "ip6gretap", "erspan", "ip6erspan"}

// questionInTunnel takes into account that on a tunnel the question for a link
// address travels within packets that are not followed.
func questionInTunnel(v *Verdict, n *evidence.Namespace, device string) {
	if n == nil {
		return
	}
	if l := link(n, device); l != nil && slices.Contains(tunnels, l.Kind) {
		v.Certainty = Inferred
		v.Unseen = append(v.Unseen, fmt.Sprintf("%s: what became of the packets in which %s %s carried the question", name(n.Name), l.Kind, l.Name))
	}
}

func withDevice(e *evidence.Event, device string) *evidence.Event {
	copied := *e
	copied.Device = device
	return &copied
}

// setNeighbor names the next hop that did not answer: by the neighbour event,
// else by the route that was chosen and the neighbour table. False when neither tells.
func setNeighbor(c *evidence.Case, e *evidence.Event, n *evidence.Namespace, v *Verdict, device, hop string, dest netip.Addr) bool {
	if e.Device == "" {
		return false
	}
	var found *evidence.Neighbor
	asked := askedFor(c, e)
	multipath := hop != "" && !slices.ContainsFunc(asked, func(o *evidence.Event) bool { return sameAddr(o.Neighbor.Address, hop) })
	for _, o := range asked {
		// of several next hops of one route the kernel takes its pick after the lookup
		if hop != "" && !sameAddr(o.Neighbor.Address, hop) && !multipath {
			continue
		}
		if o.Neighbor.State == "FAILED" || o.Neighbor.State == "INCOMPLETE" {
			found = o.Neighbor
			v.Proof = append(v.Proof, fmt.Sprintf("%s on %s went to %s %s", found.Address, found.Device, found.State, since(c, o)))
		}
	}
	if found != nil {
		v.Where.Neighbor = &NeighborRef{Address: found.Address, State: found.State}
		return true
	}
	if n == nil || !n.Neighbors.Read() {
		return false
	}
	if hop == "" || device != e.Device { // no route event: the kernel's answer when asked
		l := lookup(n, dest, "")
		if l == nil || l.OIF != e.Device {
			return false
		}
		if hop = l.Gateway; hop == "" {
			hop = dest.String()
		}
	}
	for _, nb := range n.Neighbors.Items {
		if nb.Device == e.Device && sameAddr(nb.Address, hop) && (nb.State == "FAILED" || nb.State == "INCOMPLETE") {
			v.Certainty = Inferred
			v.Where.Neighbor = &NeighborRef{Address: nb.Address, State: nb.State}
			v.Proof = append(v.Proof, fmt.Sprintf("the next hop %s on %s is %s", nb.Address, nb.Device, nb.State))
			return true
		}
	}
	return false
}

// askedFor returns what was told, until e, about the next hops of our packets on the device of e.
func askedFor(c *evidence.Case, e *evidence.Event) (list []*evidence.Event) {
	for i := range c.Events {
		o := &c.Events[i]
		if o.Kind == evidence.NeighborEvt && o.Neighbor != nil && o.Netns == e.Netns && o.At <= e.At && o.Neighbor.Device == e.Device {
			list = append(list, o)
		}
	}
	return list
}

// waitingForNeighbor is a packet that still waits for its next hop when the probe's time is over.
func waitingForNeighbor(c *evidence.Case) *Verdict {
	if c.Probe.Outcome != evidence.Timeout && c.Probe.Outcome != evidence.Silent && c.Probe.Outcome != evidence.Unreachable || handshakeDone(c) {
		return nil
	}
	for i := len(c.Events) - 1; i >= 0; i-- {
		r := &c.Events[i]
		if r.Kind != evidence.Route || r.Route == nil || r.Route.Errno != "" || r.Route.OIF == "" || !placed(r) {
			continue
		}
		dest, ok := parseAddr(r.Route.Dest)
		n := space(c, r)
		if !ok || n == nil || !n.Neighbors.Read() || !n.Links.Read() || sentAfter(c, r) {
			continue
		}
		_, hop := routedTo(c, r, dest)
		for _, nb := range n.Neighbors.Items {
			unanswered := nb.State == "FAILED" || nb.State == "INCOMPLETE" && timeOver(c)
			if nb.Device != r.Route.OIF || !sameAddr(nb.Address, hop) || !unanswered || down(n, nb.Device) != "" {
				continue
			}
			v := start(c, withDevice(r, nb.Device), Inferred)
			v.Transient = true
			v.Where.Neighbor = &NeighborRef{Address: nb.Address, State: nb.State}
			v.Proof = []string{
				fmt.Sprintf("the route for %s leaves by %s to %s, and no packet left there", dest, nb.Device, hop),
				fmt.Sprintf("the next hop %s on %s is %s", nb.Address, nb.Device, nb.State),
			}
			questionInTunnel(v, n, nb.Device)
			v.Summary = fmt.Sprintf("%s: nobody answers for %s on %s of %s (%s)", target(c), nb.Address, nb.Device, name(r.Netns), nb.State)
			return v
		}
	}
	return nil
}

// timeOver reports whether the probe waited as long as it was to: an answer
// that is merely not there yet says nothing before.
func timeOver(c *evidence.Case) bool {
	return c.Probe.TimeoutNS > 0 && c.Probe.DurationNS >= c.Probe.TimeoutNS-c.Probe.TimeoutNS/20
}

// sentAfter reports whether a packet left the route's device after it was chosen.
func sentAfter(c *evidence.Case, r *evidence.Event) bool {
	for i := range c.Events {
		e := &c.Events[i]
		if e.Kind == evidence.Transmit && !resolves(e) && e.Netns == r.Netns && e.Device == r.Route.OIF && e.At >= r.At {
			return true
		}
	}
	return false
}
