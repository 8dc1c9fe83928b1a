// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"

	"github.com/pathtrace/pathtrace/evidence"
)

// A frame that a switch floods, or that is mirrored, exists several times. That
// one copy is dropped says nothing while another goes on, or has gone further.

// isStray reports whether e is the drop of a frame that bears another host's link address.
func isStray(e *evidence.Event) bool {
	return e.Kind == evidence.Drop && (e.OtherHost || e.Reason == "OTHERHOST")
}

// withoutCopies leaves out the fates that are those of mere copies.
func withoutCopies(c *evidence.Case, fates []*evidence.Event) []*evidence.Event {
	explained := map[string]bool{evidence.Forward: delivered(c)} // a copy that goes the same way went on, or died otherwise
	for _, e := range fates {
		explained[direction(c, e)] = explained[direction(c, e)] || !isStray(e)
	}
	fates = slices.DeleteFunc(slices.Clone(fates), func(e *evidence.Event) bool { return isStray(e) && explained[direction(c, e)] })
	arrived := map[*evidence.Event]bool{}
	for _, e := range fates {
		arrived[e] = atDestination(c, e)
	}
	return slices.DeleteFunc(slices.Clone(fates), func(e *evidence.Event) bool {
		return e.Kind == evidence.Drop && slices.ContainsFunc(fates, func(o *evidence.Event) bool {
			// It came to the host that has the address, and e did not, or it was the last one left.
			counts := arrived[o] && !arrived[e] || arrived[o] == arrived[e] && e.Copy && !o.Copy
			return counts && sameSending(c, o, e)
		})
	})
}

// sameSending reports whether a and b are about two buffers that hold the same segment of the
// handshake, sent once. (Fragments of a datagram are buffers of their own too, but no copies.)
func sameSending(c *evidence.Case, a, b *evidence.Event) bool {
	if a.SKB == "" || b.SKB == "" || a.SKB == b.SKB || a.Packet == nil || b.Packet == nil || direction(c, a) != direction(c, b) {
		return false
	}
	if a.Packet.Flags != b.Packet.Flags || a.Packet.ID != b.Packet.ID || !isSYN(a) && !isSYNACK(a) {
		return false
	}
	from, to := min(a.At, b.At), max(a.At, b.At)
	for i := range c.Events {
		if e := &c.Events[i]; e.Kind == evidence.Retransmit && e.At > from && e.At < to {
			return false
		}
	}
	return true
}

// atDestination reports whether the namespace of e is known to have the address that e's packet bears.
func atDestination(c *evidence.Case, e *evidence.Event) bool {
	n := space(c, e)
	dest, _, ok := destination(c, e)
	if n == nil || !ok {
		return false
	}
	here, _ := localAddress(n, dest)
	return here
}
