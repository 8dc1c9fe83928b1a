// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// unrecovered lists the fates of segments of the connection itself, oldest
// first, of which nothing shows that what they bore came through in another copy.
// Those of its beginning and end are never among them: the client is connected, and asked for no more.
func unrecovered(c *evidence.Case, all []*evidence.Event) []*evidence.Event {
	if c.Probe.Outcome != evidence.Connected {
		return nil
	}
	var out []*evidence.Event
	for _, e := range all {
		if carries(e) && e.Packet.Protocol == "tcp" && !strings.ContainsAny(e.Packet.Flags, "SFR") && !cameThrough(c, e) {
			out = append(out, e)
		}
	}
	return out
}

// stalled is the verdict of a client that connected and whose connection died
// after that: the other end never got the last segment of the handshake, or what was
// said or answered. Nil where it may still get there, or nothing says why it did not.
func stalled(c *evidence.Case, lost []*evidence.Event) *Verdict {
	for _, e := range slices.Backward(lost) {
		if direction(c, e) == evidence.Reply && c.Probe.Sent == 0 {
			continue // no answer was awaited
		}
		v := ask(c, e)
		if v == nil || v.Transient && !speaks(e.Packet) {
			continue // no copy of that one was awaited either
		}
		v.Proof = append(v.Proof, "the client saw "+outcome(c)+", and no copy of this segment was seen to come through")
		return v
	}
	return nil
}

// cameThrough reports whether the end that the segment of e was for has got
// what it bore. That holds for all copies of it, those that were sent before e too.
func cameThrough(c *evidence.Case, e *evidence.Event) bool {
	p, way := e.Packet, direction(c, e)
	data := speaks(p)
	if data && way == evidence.Forward && c.Probe.Sent > 0 && c.Probe.Acked >= c.Probe.Sent {
		return true
	}
	return slices.ContainsFunc(c.Events, func(o evidence.Event) bool {
		if o.Kind == evidence.State {
			return !data && way == evidence.Forward && serverState(c, &o) && o.State.New == "ESTABLISHED"
		}
		if !carries(&o) || o.Kind == evidence.Drop || o.Packet.Protocol != "tcp" || strings.ContainsAny(o.Packet.Flags, "SRF") {
			return false
		}
		switch q := o.Packet; {
		case direction(c, &o) != way:
			return int32(q.Ack-p.Seq) > 0
		case o.Kind == evidence.Consume && takenIn.MatchString(o.Function):
			return int32(q.Seq-p.Seq) >= 0 && (!data || speaks(q))
		case data:
			return false
		case way == evidence.Reply:
			return o.Kind == evidence.Receive && o.Netns == c.Probe.Netns && int32(q.Ack-p.Ack) >= 0
		}
		return o.Kind == evidence.Transmit && o.Netns == e.Netns // it got further than e
	})
}
