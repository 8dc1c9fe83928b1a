// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

func success(c *evidence.Case) bool {
	return c.Probe.Outcome == evidence.Connected || c.Probe.Outcome == evidence.Answered
}

// handshakeDone reports whether the outcome is one that only a connected TCP probe can have.
func handshakeDone(c *evidence.Case) bool {
	switch c.Probe.Outcome {
	case evidence.Reset, evidence.Closed, evidence.Silent:
		return c.Target.Protocol == "tcp"
	}
	return false
}

// fates returns how the copies of our packets ended, oldest first: drops, SYNs
// that a listener used up without an answer, and what stands in for a drop
// event on kernels that do not show it.
func fates(c *evidence.Case) []*evidence.Event {
	var out []*evidence.Event
	for i := range c.Events {
		e := &c.Events[i]
		if isFate(c, e) {
			out = append(out, e)
		}
	}
	return withoutCopies(c, out)
}

func isFate(c *evidence.Case, e *evidence.Event) bool {
	if secondary(c, e) {
		return false
	}
	switch e.Kind {
	case evidence.Drop:
		return !noise(c, e)
	case evidence.Consume:
		return usedUp(c, e)
	case evidence.ResetSent:
		return e.Reason == "NO_SOCKET" && !handshakeDone(c) && !hasDrop(c, func(d *evidence.Event) bool {
			return d.Netns == e.Netns && d.Reason == "NO_SOCKET"
		})
	case evidence.RuleVerdict:
		return e.Rule != nil && e.Rule.Verdict == "drop" && !hasDrop(c, func(d *evidence.Event) bool {
			return d.Netns == e.Netns && (e.Hook == "" || d.Hook == "" || d.Hook == e.Hook) && sameWay(c, d, e)
		})
	}
	return false
}

func hasDrop(c *evidence.Case, match func(*evidence.Event) bool) bool {
	for i := range c.Events {
		if d := &c.Events[i]; d.Kind == evidence.Drop && match(d) {
			return true
		}
	}
	return false
}

// secondary reports whether the event is about a packet whose loss kills no
// exchange by itself: an error message or reset about another packet, a question
// for a link address, a FIN, or, once connected, the handshake.
func secondary(c *evidence.Case, e *evidence.Event) bool {
	p := e.Packet
	if p == nil {
		return false
	}
	p = p.Inner()
	if c.Target.Protocol != "icmp" && strings.HasPrefix(p.Protocol, "icmp") || resolves(e) {
		return true
	}
	if p.Protocol != "tcp" {
		return false
	}
	if strings.ContainsAny(p.Flags, "RF") {
		return true
	}
	return handshakeDone(c) && strings.Contains(p.Flags, "S") && !behindProxy(c, e)
}

// resolves reports whether the event is about a packet that asks for or tells
// a link address on our packet's behalf, or another message of routers and neighbours.
func resolves(e *evidence.Event) bool {
	p := e.Packet
	return p != nil && (p.Protocol == "arp" || p.Protocol == "icmpv6" && p.Type != nil && *p.Type >= 133 && *p.Type <= 137)
}

// noisyReasons are drops that the kernel also makes in good connections.
var noisyReasons = []string{
	"QUEUE_PURGE", "CONSUMED", "TCP_CLOSE", "TCP_OLD_ACK", "TCP_OLD_DATA", "TCP_TOO_OLD_ACK", "TCP_OFOMERGE", "TCP_RESET", "TCP_ABORT_ON_DATA",
	"TCP_ACK_UNSENT_DATA", "TCP_OFO_QUEUE_PRUNE", "SOCKET_CLOSE", "TCP_OLD_SEQUENCE", "DUP_FRAG", "TCP_INVALID_SYN",
}

func noise(c *evidence.Case, e *evidence.Event) bool {
	switch {
	case slices.Contains(noisyReasons, e.Reason):
		return true
	case e.Reason == "NO_SOCKET" && direction(c, e) == evidence.Reply:
		return true // a late answer to a probe that has ended
	case e.Reason != "NOT_SPECIFIED":
		return false
	}
	switch e.Function {
	case "tcp_v4_rcv", "tcp_v6_rcv", "tcp_v4_do_rcv", "tcp_v6_do_rcv":
		// A repeated SYN that meets its own request socket, or a segment that was used.
		return true
	case "sk_stream_kill_queues", "inet_sock_destruct", "tcp_write_queue_purge", "skb_queue_purge_reason", "skb_rbtree_purge":
		return true
	}
	return false
}

// usedUp reports whether e is the end of a SYN that a listener took in and did not answer.
func usedUp(c *evidence.Case, e *evidence.Event) bool {
	if !isSYN(e) || !strings.HasPrefix(e.Function, "tcp_") || direction(c, e) != evidence.Forward {
		return false
	}
	return !answered(c, e)
}

// answered reports whether a SYN-ACK was made because of the SYN of e: the
// kernel makes and sends it before it frees the SYN.
func answered(c *evidence.Case, e *evidence.Event) bool {
	v := visitOf(c, e)
	for i := range c.Events {
		if o := &c.Events[i]; isSYNACK(o) && o.Kind != evidence.Receive && v.during(o) {
			return true
		}
	}
	return false
}

func isSYN(e *evidence.Event) bool    { return e.Packet != nil && e.Packet.Flags == "S" }
func isSYNACK(e *evidence.Event) bool { return e.Packet != nil && e.Packet.Flags == "S." }
func isRST(e *evidence.Event) bool {
	return e.Packet != nil && e.Packet.Protocol == "tcp" && strings.Contains(e.Packet.Flags, "R")
}

// direction of the event's packet; by the addresses where the event does not say.
func direction(c *evidence.Case, e *evidence.Event) string {
	if e.Direction != "" {
		return e.Direction
	}
	if p := e.Packet; p != nil {
		if sameAddr(p.Dest, c.Target.Address) || c.Target.Port != 0 && p.DPort == c.Target.Port {
			return evidence.Forward
		}
		if sameAddr(p.Source, c.Target.Address) || c.Target.Port != 0 && p.SPort == c.Target.Port {
			return evidence.Reply
		}
	}
	return evidence.Forward
}

func sameWay(c *evidence.Case, a, b *evidence.Event) bool {
	return a.Direction == "" || b.Direction == "" || a.Direction == b.Direction
}

// delivered reports whether a forward copy reached a socket.
func delivered(c *evidence.Case) bool {
	for i := range c.Events {
		e := &c.Events[i]
		if e.Kind == evidence.Consume && isSYN(e) && strings.HasPrefix(e.Function, "tcp_") {
			return true
		}
	}
	return false
}

// leftAfter reports whether, after the fate e, another copy left this host, or
// before it one of the same sending.
func leftAfter(c *evidence.Case, e *evidence.Event) bool {
	if direction(c, e) != evidence.Forward {
		return false
	}
	if l := leftHost(c); l != nil && l.At > e.At {
		return true
	}
	return e.Kind == evidence.Drop && !atDestination(c, e) && slices.ContainsFunc(c.Events, func(o evidence.Event) bool {
		return o.Kind == evidence.Transmit && sameSending(c, &o, e) && leadsAway(c, &o)
	})
}

// leadsOut are the kinds of devices whose other end may be in another namespace:
// out of sight where only the probe's own is watched.
var leadsOut = []string{"veth", "netkit", "macvlan", "macvtap", "ipvlan", "ipvtap"}

// leftHost is the last event of the forward way when it shows a copy leaving
// by a device behind which nothing that we watch is.
func leftHost(c *evidence.Case) *evidence.Event {
	l := lastForward(c)
	if l == nil || l.Kind != evidence.Transmit || !leadsAway(c, l) {
		return nil
	}
	return l
}

// leadsAway reports whether e's device is one behind which nothing that we watch is: no kind, so hardware.
func leadsAway(c *evidence.Case, e *evidence.Event) bool {
	n := c.Namespace(e.Netns)
	if n == nil || !n.Links.Read() {
		return false
	}
	d := link(n, e.Device)
	return d != nil && d.Name != "lo" && (d.Kind == "" || c.Scope == evidence.OwnNamespace && slices.Contains(leadsOut, d.Kind))
}

// lastForward is the last event about a packet of ours on its way to the target.
func lastForward(c *evidence.Case) *evidence.Event {
	for i := len(c.Events) - 1; i >= 0; i-- {
		e := &c.Events[i]
		if e.Packet == nil || direction(c, e) != evidence.Forward || secondary(c, e) || e.Kind == evidence.Drop && noise(c, e) {
			continue
		}
		return e
	}
	return nil
}

// lastSeen is the last event that shows where a packet of ours was.
func lastSeen(c *evidence.Case) *evidence.Event {
	for i := len(c.Events) - 1; i >= 0; i-- {
		e := &c.Events[i]
		if e.Packet != nil && placed(e) && !secondary(c, e) && !(e.Kind == evidence.Drop && noise(c, e)) {
			return e
		}
	}
	return nil
}
