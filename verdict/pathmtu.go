// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// Large returns the size, IP header included, of the packets that were sent in
// vain, and who on the way has answered to small ones: how far large ones come may
// tell more than v does. The size is 0 where it does not: what was sent was taken,
// or is so small that every path takes it.
func Large(c *evidence.Case, v *Verdict) (size int, hops []evidence.Hop) {
	lost := v.Cause == "remote-silent"
	if c.Target.Protocol == "tcp" {
		lost = v.Cause == "unexplained" && handshakeDone(c) && c.Probe.Unacked > 0
	}
	w := walkOf(c, c.Target.Protocol)
	if !lost || w == nil || w.LastAnswer() == nil || c.Probe.Segment <= everyPath(c) {
		return 0, nil
	}
	return c.Probe.Segment, w.Hops
}

// leftInVain is leftHost; or, where what was said on a connection did not come
// through, the last of that to leave: other segments may have come since.
func leftInVain(c *evidence.Case) *evidence.Event {
	if !unasked(c) {
		return leftHost(c)
	}
	for i := len(c.Events) - 1; i >= 0; i-- {
		e := &c.Events[i]
		if p := e.Packet; e.Kind == evidence.Transmit && p != nil && p.Protocol == "tcp" && direction(c, e) == evidence.Forward && speaks(p) && leadsAway(c, e) {
			return e
		}
	}
	return nil
}

func everyPath(c *evidence.Case) int {
	return evidence.EveryPath(strings.Contains(c.Target.Address, ":"))
}

// findPathMTU: packets as large as those that were lost vanish at one place on
// the way, again and again, while small ones come through there, and nobody says so.
func findPathMTU(c *evidence.Case) *Verdict {
	m, l := c.PathMTU, leftInVain(c)
	if m == nil || l == nil || success(c) {
		return nil
	}
	size := m.Narrowest()
	if size == 0 || size > c.Probe.Segment {
		return nil
	}
	last, behind := m.Hole(size)
	if behind == nil {
		return nil
	}
	passes, vanishes := m.Bounds(behind.TTL)
	if passes < everyPath(c) {
		return nil // something else than their size may be what they die of
	}
	v := &Verdict{Certainty: Inferred, Direction: evidence.Forward, Where: Where{Netns: l.Netns, Device: l.Device}}
	v.Proof = append(v.Proof, sight(c, l)+", "+since(c, l))
	v.Proof = append(v.Proof, acked(c)...)
	if w := walkOf(c, c.Target.Protocol); w != nil {
		v.Proof = append(v.Proof, walked(w))
	}
	v.Proof = append(v.Proof, sized(c)...)
	where := fmt.Sprintf("between %s of %s and %s (TTL %d)", l.Device, name(l.Netns), behind.Address, behind.TTL)
	if last != nil {
		v.Where.Hop = &HopRef{TTL: last.TTL, Address: last.Address}
		where = fmt.Sprintf("behind %s (TTL %d)", last.Address, last.TTL)
		if behind.TTL > last.TTL+1 {
			where += fmt.Sprintf(", before %s (TTL %d)", behind.Address, behind.TTL)
		}
	}
	v.Summary = fmt.Sprintf("%s: packets of %d bytes vanish %s, and nobody says that they are too big", target(c), size, where)
	if vanishes == passes+1 {
		v.Summary += fmt.Sprintf("; the largest that come through have %d bytes", passes)
	} else {
		v.Summary += fmt.Sprintf("; those of %d bytes come through", passes)
	}
	notArrived(c, l, v)
	return v
}

// findLostWord: a router beyond the kernels that we watch said that our packet
// is too big, and one of these dropped the word.
func findLostWord(c *evidence.Case) *Verdict {
	if success(c) || c.Probe.Outcome != evidence.Silent && c.Probe.Outcome != evidence.Timeout && c.Probe.Outcome != evidence.Closed {
		return nil
	}
	if c.Target.Protocol == "tcp" && c.Probe.Unacked == 0 {
		return nil // what was said came through all the same
	}
	for i := range c.Events {
		d := &c.Events[i]
		if d.Kind != evidence.Drop || !placed(d) || d.Reason == "QUEUE_PURGE" || !tellsTooBig(d) || madeHere(c, d) || heardToo(c, d) {
			continue
		}
		v := start(c, d, Observed)
		for _, id := range []string{"firewall-drop", "firewall-policy"} {
			if w := firewall(c, d, id); w != nil {
				v = w
			}
		}
		v.Direction, v.Where.Hop = evidence.Forward, &HopRef{Address: d.Packet.Source}
		v.Proof = append(v.Proof, acked(c)...)
		by := ""
		switch {
		case v.Where.Rule != nil:
			by = " by" + ruleWords(v.Where.Rule)
		case v.Where.Hook != "":
			by = " at hook " + v.Where.Hook
		}
		v.Summary = fmt.Sprintf("%s: too big for the way behind %s, whose ICMP error was dropped%s in %s", target(c), d.Packet.Source, by, name(d.Netns))
		return v
	}
	return nil
}

// tellsTooBig reports whether e is about an ICMP error that says so.
func tellsTooBig(e *evidence.Event) bool {
	p := e.Packet
	return p != nil && p.Type != nil && p.Code != nil && (p.Protocol == "icmp" && *p.Type == 3 && *p.Code == 4 || p.Protocol == "icmpv6" && *p.Type == 2)
}

// madeHere reports whether a kernel that we watch made the ICMP error of e: it was seen before it arrived anywhere.
func madeHere(c *evidence.Case, e *evidence.Event) bool {
	for i := range c.Events {
		o := &c.Events[i]
		if tellsTooBig(o) && o.Packet.Source == e.Packet.Source {
			return o.Kind != evidence.Receive
		}
		if o.Kind == evidence.ICMPSent && o.ICMP != nil && o.ICMP.Type == 3 && o.ICMP.Code == 4 {
			return true
		}
	}
	return false
}

// heardToo reports whether more such errors arrived in the namespace of the drop d than were dropped there.
func heardToo(c *evidence.Case, d *evidence.Event) bool {
	n := 0
	for i := range c.Events {
		switch o := &c.Events[i]; {
		case o.Netns != d.Netns || !tellsTooBig(o):
		case o.Kind == evidence.Receive:
			n++
		case o.Kind == evidence.Drop:
			n--
		}
	}
	return n > 0
}

// acked says of a connection whether what was said on it is acknowledged, where that is known.
func acked(c *evidence.Case) []string {
	p := &c.Probe
	switch {
	case p.Unacked > 0:
		in := ""
		if p.Segment > 0 {
			in = fmt.Sprintf(", in packets of up to %d bytes,", p.Segment)
		}
		return []string{fmt.Sprintf("%d bytes that were sent%s are not acknowledged %.0f ms after connect(); %d segments were sent again", p.Unacked, in, float64(p.DurationNS)/1e6, p.Retransmit)}
	case p.Acked > 0 && p.Acked == p.Sent:
		return []string{fmt.Sprintf("all %d bytes that were sent are acknowledged by whomever the connection is with", p.Acked)}
	}
	return nil
}

// sized says what large packets that may not be fragmented have met, fact by fact.
func sized(c *evidence.Case) (facts []string) {
	m := c.PathMTU
	if m == nil || len(m.Tests) == 0 {
		return nil
	}
	for i := range m.Tests {
		if t := &m.Tests[i]; t.TooBig != "" && m.Told(t.Size) == t {
			facts = append(facts, fmt.Sprintf("%s answers that %d bytes are too big: its next link takes %d", t.TooBig, t.Size, t.MTU))
		}
	}
	size := m.Narrowest()
	last, behind := m.Hole(size)
	line := fmt.Sprintf("%s of %d bytes that may not be fragmented", packetsOf(m.Protocol), size)
	if last != nil {
		line += fmt.Sprintf(" come to %s (TTL %d)", last.Address, last.TTL)
	}
	if behind != nil {
		line += fmt.Sprintf("; with TTL %d all %d were lost, while %s answered to those of %d bytes that left right behind them",
			behind.TTL, behind.Lost, behind.Address, m.Small)
	}
	if last != nil || behind != nil {
		facts = append(facts, line)
	}
	if behind != nil {
		switch passes, vanishes := m.Bounds(behind.TTL); {
		case vanishes == 0:
		case passes > m.Small:
			facts = append(facts, fmt.Sprintf("with that TTL or more %d bytes are answered, %d are not", passes, vanishes))
		case vanishes <= everyPath(c):
			facts = append(facts, fmt.Sprintf("with that TTL or more %d bytes are lost, too, which every path takes", vanishes))
		}
	}
	return facts
}

func packetsOf(protocol string) string {
	return map[string]string{"tcp": "SYNs", "udp": "datagrams", "icmp": "echo requests"}[protocol]
}
