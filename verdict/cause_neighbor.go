// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// lostQuestion says why the neighbour of v, the verdict about e, was not found:
// something dropped the request for its link address, or its answer. It returns
// v when that was not seen; v is inferred when it was seen and cannot be explained.
func lostQuestion(c *evidence.Case, e *evidence.Event, v *Verdict) *Verdict {
	hop := v.Where.Neighbor.Address
	for i := range c.Events {
		d := &c.Events[i]
		filtered := isNetfilter(d) || isDrop(d, "TC_INGRESS", "TC_EGRESS", "XDP", "QDISC_DROP", "IPV6DISABLED") ||
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
		w.Proof = append(w.Proof, died(c, e))
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
