// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// Beyond names the protocols to walk the way beyond this host with, because
// that would tell more than v does: the probe's own, and echo requests where it
// is asked who sent a RST. None when the answer lies on this host.
func Beyond(c *evidence.Case, v *Verdict) []string {
	own := c.Target.Protocol
	switch v.Cause {
	case "remote-unreachable", "remote-silent":
		return []string{own}
	case "remote-reset":
		return []string{own, "icmp"}
	case "unexplained":
		if !success(c) && leftInVain(c) != nil {
			return []string{own}
		}
	}
	return nil
}

// walkOf is the walk with packets of a protocol, or nil.
func walkOf(c *evidence.Case, protocol string) *evidence.Walk {
	for i := range c.Walks {
		if w := &c.Walks[i]; w.Protocol == protocol && len(w.Hops) > 0 {
			return w
		}
	}
	return nil
}

// walked is a walk in one line.
func walked(w *evidence.Walk) string {
	parts := make([]string, 0, len(w.Hops))
	for i := 0; i < len(w.Hops); i++ {
		h := w.Hops[i]
		ttl := fmt.Sprint(h.TTL)
		for h.Answer == "" && i+1 < len(w.Hops) && w.Hops[i+1].Answer == "" {
			i++
		}
		if w.Hops[i].TTL != h.TTL {
			ttl += fmt.Sprintf("–%d", w.Hops[i].TTL)
		}
		parts = append(parts, ttl+" "+answered1(h))
	}
	return fmt.Sprintf("%s with rising TTL: %s", packetsOf(w.Protocol), strings.Join(parts, ", "))
}

func answered1(h evidence.Hop) string {
	switch h.Answer {
	case "":
		return "silent"
	case evidence.TimeExceeded:
		return h.Address
	case evidence.ICMPError:
		return h.Address + " " + icmpKind(h)
	}
	return h.Address + " " + h.Answer
}

func icmpKind(h evidence.Hop) string {
	if h.Type == nil || h.Code == nil {
		return "ICMP error"
	}
	family := "ICMP"
	if strings.Contains(h.Address, ":") {
		family = "ICMPV6"
	}
	return fmt.Sprintf("%s %d/%d", family, *h.Type, *h.Code)
}

func hopRef(h *evidence.Hop) *HopRef { return &HopRef{TTL: h.TTL, Address: h.Address} }

// beyondSilence says how far packets like the probe's come.
func beyondSilence(c *evidence.Case, v *Verdict) {
	w := walkOf(c, c.Target.Protocol)
	if w == nil {
		return
	}
	v.Proof = append(append(v.Proof, walked(w)), sized(c)...)
	last := w.LastAnswer()
	if last == nil {
		v.Summary += "; no router on the way answers either"
		return
	}
	v.Where.Hop = hopRef(last)
	switch end := w.End(); {
	case end == nil:
		v.Summary += fmt.Sprintf("; the last that answers on the way is %s (TTL %d)", last.Address, last.TTL)
	case end.Answer == evidence.ICMPError:
		v.Where.Hop = hopRef(end)
		v.Summary += fmt.Sprintf("; to packets sent afterwards %s answered with %s", end.Address, icmpKind(*end))
	default:
		v.Summary += fmt.Sprintf("; packets sent afterwards were answered by %s (TTL %d)", end.Address, end.TTL)
	}
}

// beyondError finds the distance of the host that sent an ICMP error.
func beyondError(c *evidence.Case, v *Verdict) {
	w := walkOf(c, c.Target.Protocol)
	if w == nil || v.Where.Hop == nil {
		return
	}
	v.Proof = append(v.Proof, walked(w))
	for i, h := range w.Hops {
		if !sameAddr(h.Address, v.Where.Hop.Address) {
			continue
		}
		// It may have refused what it would have passed on, which one hop before had a TTL of one less:
		// unless another host is known to be there.
		if h.Answer == evidence.TimeExceeded || i == 0 || w.Hops[i-1].Answer != "" {
			v.Where.Hop.TTL = h.TTL
		}
		return
	}
}

// beyondReset compares how far away the RST is made with how far away the
// target is. A router answers for the TTL at which a packet ends with it, and
// refuses a packet that it would have passed on: with the TTL after.
func beyondReset(c *evidence.Case, v *Verdict) {
	w, echo := walkOf(c, "tcp"), walkOf(c, "icmp")
	if w == nil {
		return
	}
	v.Proof = append(v.Proof, walked(w))
	rst := w.End()
	if rst == nil || rst.Answer != evidence.RSTAnswer {
		return
	}
	if echo != nil {
		v.Proof = append(v.Proof, walked(echo))
	}
	end, passed := endOf(echo), routerAt(echo, rst.TTL)
	answers := end != nil && end.Answer == evidence.Replied
	switch {
	case answers && rst.TTL < end.TTL, !answers && passed != nil:
		v.Where.Hop = &HopRef{TTL: rst.TTL - 1}
		if rst.TTL > 1 {
			v.Where.Hop.Address = w.Hops[rst.TTL-2].Address
		}
		far := ""
		if answers {
			v.Proof = append(v.Proof, fmt.Sprintf("the RST arrives with TTL %d, the target's echo reply with %d", rst.ReplyTTL, end.ReplyTTL))
			far = fmt.Sprintf("%d hops away", end.TTL)
		} else {
			far = fmt.Sprintf("behind the router %s (TTL %d)", passed.Address, passed.TTL)
		}
		v.Summary += fmt.Sprintf("; not the target made it, which is %s, but something %d hops away: %s, or what lies behind it",
			far, rst.TTL-1, orUnknown(v.Where.Hop.Address))
	case answers:
		v.Where.Hop = hopRef(rst)
		v.Summary += fmt.Sprintf("; it is made %d hops away, as far as the target is", rst.TTL)
	default:
		v.Summary += fmt.Sprintf("; who made it does not show: the target, if that is %d hops away, or what lies before it (it answers no echo request)", rst.TTL)
	}
}

// routerAt is the router that passed echo requests on, or nil, in a walk which
// came at least as far as ttl: the farthest one.
func routerAt(echo *evidence.Walk, ttl int) *evidence.Hop {
	if echo == nil {
		return nil
	}
	last := echo.LastAnswer()
	if last == nil || last.Answer != evidence.TimeExceeded || last.TTL < ttl {
		return nil
	}
	return last
}

func endOf(w *evidence.Walk) *evidence.Hop {
	if w == nil {
		return nil
	}
	return w.End()
}

func orUnknown(address string) string {
	if address == "" {
		return "a router that does not give its name"
	}
	return address
}
