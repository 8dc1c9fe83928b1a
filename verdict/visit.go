// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"math"

	"github.com/pathtrace/pathtrace/evidence"
)

// visit is the stay of one copy of a packet in one namespace: the events of one
// buffer there, up to its end. What the host did because of the packet (the
// answer of a REJECT, a SYN-ACK, a lookup of the way back) it did before that
// end, on the same CPU. That, and no span of time, tells which events belong together.
type visit struct {
	events   []*evidence.Event
	netns    string
	skb      string
	cpu      int   // where the copy ended, or was seen last
	from, to int64 // first and last event
}

// visitOf is the visit that e belongs to; of an event without a buffer only e itself.
func visitOf(c *evidence.Case, e *evidence.Event) visit {
	v := visit{netns: e.Netns, skb: e.SKB, cpu: e.CPU, from: e.At, to: e.At}
	if e.SKB == "" {
		v.events = []*evidence.Event{e}
		return v
	}
	for i := range c.Events {
		o := &c.Events[i]
		if o.SKB != e.SKB {
			continue
		}
		if len(v.events) > 0 && otherPacket(v.events, o) {
			if o.At > e.At {
				break
			}
			v.events = nil
		}
		if o.Netns == e.Netns {
			v.events = append(v.events, o)
		}
		if !isEnd(o) {
			continue
		}
		if o.At >= e.At {
			break
		}
		v.events = nil // freed; what follows in this buffer is another copy
	}
	for i, o := range v.events {
		if i == 0 {
			v.from = o.At
		}
		v.to = max(v.to, o.At)
		if o.Kind != evidence.RuleVerdict { // a rule's step is told without its CPU
			v.cpu = o.CPU
		}
	}
	if len(v.events) > 0 && v.arrived() == nil {
		v.from = v.born(c)
	}
	return v
}

// born is since when a packet that was made here can have existed: since the
// event before it that went the same way on its CPU, such as the lookup of its route.
func (v visit) born(c *evidence.Case) int64 {
	first, from := v.events[0], int64(math.MinInt64)
	for i := range c.Events {
		o := &c.Events[i]
		if o.At >= first.At {
			break
		}
		if o.Netns == v.netns && o.CPU == v.cpu && o.SKB != v.skb && direction(c, o) == direction(c, first) {
			from = o.At
		}
	}
	return from
}

func isEnd(e *evidence.Event) bool { return e.Kind == evidence.Drop || e.Kind == evidence.Consume }

// otherPacket reports whether o shows another packet in the buffer than the
// events before it: its end was not seen. A translation leaves what is compared as it is.
func otherPacket(before []*evidence.Event, o *evidence.Event) bool {
	for _, b := range before {
		if !carries(b) || !carries(o) {
			continue
		}
		if b.Packet.Protocol != o.Packet.Protocol || b.Direction != o.Direction || b.Packet.Flags != o.Packet.Flags || b.Packet.Seq != o.Packet.Seq || b.Packet.ID != o.Packet.ID {
			return true
		}
	}
	return false
}

// carries reports whether e tells the headers of the packet in its buffer, and which way that goes.
func carries(e *evidence.Event) bool {
	return e.Packet != nil && e.Kind != evidence.ICMPSent && e.Kind != evidence.ResetSent
}

// has reports whether o is an event of the visit's own buffer.
func (v visit) has(o *evidence.Event) bool {
	for _, e := range v.events {
		if e == o {
			return true
		}
	}
	return false
}

// last is the visit's last event, its end if that was seen.
func (v visit) last() *evidence.Event {
	if len(v.events) == 0 {
		return nil
	}
	return v.events[len(v.events)-1]
}

// during reports whether o, an event of another buffer or of none, happened
// while the visit's packet was worked on. The kernel cannot always tell the
// namespace of a packet that it has just made.
func (v visit) during(o *evidence.Event) bool {
	return v.skb != "" && (o.Netns == v.netns || o.Netns == evidence.Unnamed(v.netns)) && o.CPU == v.cpu && o.At >= v.from && o.At <= v.to && o.SKB != v.skb
}

// arrived is the visit's first event at a device of the namespace; nil for a packet that was made there.
func (v visit) arrived() *evidence.Event {
	for _, e := range v.events {
		if e.Kind == evidence.Receive {
			return e
		}
	}
	return nil
}

// occasion is the visit of the packet that made the host make v's: of the SYN
// for a SYN-ACK. False when v's packet came from elsewhere or was made in nobody's stay.
func (v visit) occasion(c *evidence.Case) (visit, bool) {
	var best visit
	found := false
	if v.skb == "" || v.arrived() != nil || len(v.events) == 0 {
		return best, false
	}
	first := v.events[0]
	for i := range c.Events {
		o := &c.Events[i]
		if o.At > first.At {
			break
		}
		if o.Kind != evidence.Receive || o.Netns != v.netns || o.SKB == v.skb {
			continue
		}
		if w := visitOf(c, o); w.during(first) {
			best, found = w, true
		}
	}
	return best, found
}
