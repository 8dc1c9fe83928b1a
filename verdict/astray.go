// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"github.com/pathtrace/pathtrace/evidence"
)

// astray is about an answer that the client's host had no use for, because it
// came from another address than was asked: a server with several addresses
// answers from another of them, or the request was translated and the answer was not
// translated back. What is wrong is known then, and is none of the causes.
func astray(c *evidence.Case) *Verdict {
	if c.Probe.Outcome != evidence.Timeout && c.Probe.Outcome != evidence.Silent {
		return nil
	}
	e := strayAnswer(c)
	if e == nil {
		return nil
	}
	from := side(e.Packet, true)
	v := start(c, e, None)
	v.Cause = "unexplained"
	v.Summary = fmt.Sprintf("%s: %s; the answer came from %s, and was not taken for one", target(c), outcome(c), from)
	v.Proof = append(v.Proof, "the client saw "+outcome(c))
	for _, t := range Translations(c) {
		if t.Source || t.Event.Direction != evidence.Forward || t.To != from {
			continue
		}
		by := name(t.Event.Netns)
		v.Summary = fmt.Sprintf("%s: %s; the answer came from %s: %s translated the request, and not the answer", target(c), outcome(c), from, by)
		v.Where.NAT = &NATRef{From: t.From, To: t.To}
		v.Proof = append(v.Proof, fmt.Sprintf("only %s can translate the answer back: it must pass there, and be tracked (where both ends are in one network, by masquerading the request)", by))
		break
	}
	unreadHere(c, e, v)
	return v
}

// strayAnswer is the drop of an answer at the client for want of a socket, whose source is not what the probe asked.
func strayAnswer(c *evidence.Case) *evidence.Event {
	for i := range c.Events {
		e := &c.Events[i]
		if e.Kind == evidence.Drop && e.Hook == "" && e.Netns == c.Probe.Netns && e.Direction == evidence.Reply && tracked(c, e) &&
			(!sameAddr(e.Packet.Source, c.Target.Address) || e.Packet.SPort != c.Target.Port) {
			return e
		}
	}
	return nil
}
