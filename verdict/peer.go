// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"github.com/pathtrace/pathtrace/evidence"
)

// place says on which host the packet died, once others than this one were
// watched, and what could not be seen of them. Until then a namespace goes by the
// name that is its own in the whole case.
func place(c *evidence.Case, v *Verdict) {
	for i := range c.Peers {
		p := &c.Peers[i]
		if p.Error != "" {
			v.Unseen = append(v.Unseen, fmt.Sprintf("the kernel of %s: %s", p.Name, p.Error))
			if v.Certainty == Observed && c.Peer(v.Where.Netns) == p {
				v.Certainty = Inferred // what it would have said after that is not known
			}
		}
	}
	p := c.Peer(v.Where.Netns)
	switch {
	case p != nil:
		v.Where.Host = p.Name
		_, v.Where.Netns = evidence.SplitNetns(v.Where.Netns)
	case len(c.Peers) > 0:
		v.Where.Host = c.Host.Name
	}
	if v.Where.Process != nil && v.Where.Process.Host != "" {
		own := *v.Where.Process
		own.Host = ""
		v.Where.Process = &own
	}
	for i := range v.Fixes {
		if p != nil { // nothing of this host's, where it could be tried
			v.Fixes[i].Host, v.Fixes[i].Netns = p.Name, ""
		}
	}
}

// At is what the namespace of w goes by in the events and namespaces of c.
func (w Where) At(c *evidence.Case) string {
	for i := range c.Peers {
		if p := &c.Peers[i]; w.Host != "" && p.Name == w.Host {
			return p.Netns(w.Netns)
		}
	}
	return w.Netns
}

// watchedBeyond is the peer that would have seen the packet of e, which left the host of e,
// had it come there; nil where none was watched, or e is on the last of them.
func watchedBeyond(c *evidence.Case, e *evidence.Event) *evidence.Peer {
	for i := range c.Peers {
		if p := &c.Peers[i]; p.Watched() && c.Peer(e.Netns) != p {
			return p
		}
	}
	return nil
}

// notArrived adds to v, which is about a packet that left by e, that the other end did not see it.
func notArrived(c *evidence.Case, e *evidence.Event, v *Verdict) {
	p := watchedBeyond(c, e)
	if p == nil || c.Peer(e.Netns) != nil {
		return
	}
	for i := range c.Events {
		if o := &c.Events[i]; c.Peer(o.Netns) == p && o.Packet != nil && direction(c, o) == evidence.Forward {
			return
		}
	}
	known := "its addresses, and a translation on the way changes them"
	if c.Target.Protocol == "tcp" {
		known = "its sequence number and its addresses"
	}
	v.Proof = append(v.Proof, fmt.Sprintf("%s was watched meanwhile and did not see it; there it is known by %s", p.Name, known))
	v.Summary += fmt.Sprintf("; %s did not see it arrive", p.Name)
}

// lostOnTheWayBack is the answer that left the other end and did not come to
// this one: the last event of the way back shows it leave by a device behind
// which nothing that we watch is.
func lostOnTheWayBack(c *evidence.Case) *Verdict {
	if s := served(c); s != nil && handshakeDone(c) && c.Peer(s.Netns) != nil {
		return lostAnswer(c, unheard(c, s.Netns)) // the handshake came; what was said then
	}
	var last *evidence.Event
	for i := range c.Events {
		e := &c.Events[i]
		if e.Packet == nil || resolves(e) || e.Kind == evidence.Route || direction(c, e) != evidence.Reply {
			continue
		}
		if c.Peer(e.Netns) == nil {
			return nil // something came
		}
		if e.Kind == evidence.Transmit {
			last = e
		}
	}
	return lostAnswer(c, last)
}

// lostAnswer is the verdict about an answer whose last event is that it left the other end.
func lostAnswer(c *evidence.Case, last *evidence.Event) *Verdict {
	if last == nil || !leadsAway(c, last) {
		return nil
	}
	none := "no reply"
	if handshakeDone(c) {
		none = fmt.Sprintf("no segment with the sequence number %d", last.Packet.Seq)
	}
	v := &Verdict{Certainty: Inferred, Direction: evidence.Reply, Where: Where{Netns: last.Netns, Device: last.Device}}
	v.Proof = []string{
		fmt.Sprintf("%s, %s", sight(c, last), since(c, last)),
		fmt.Sprintf("%s was seen to arrive on %s until %.0f ms after the start", none, c.Host.Name, float64(c.Probe.DurationNS)/1e6),
	}
	v.Summary = fmt.Sprintf("%s: %s left %s by %s, and did not arrive on %s", target(c), whose(c, last), name(last.Netns), last.Device, c.Host.Name)
	return v
}
