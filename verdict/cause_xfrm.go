// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"github.com/pathtrace/pathtrace/evidence"
)

// findXFRM: only IPv4, and IPv6 on its way up, drop with a reason of their own. Elsewhere the
// counters of blocking policies tell, which count for everybody: then it is inferred.
func findXFRM(c *evidence.Case, e *evidence.Event) *Verdict {
	switch {
	case e == nil:
		return xfrmRefused(c)
	case isDrop(e, "XFRM_POLICY") && placed(e):
		return xfrmBlocked(c, e, start(c, e, Observed))
	case isDrop(e, "NOT_SPECIFIED") && at(e, "ip6_forward"):
		mine := uint64(0)
		for i := range c.Events {
			if d := &c.Events[i]; isDrop(d, "NOT_SPECIFIED") && at(d, "ip6_forward") && d.Netns == e.Netns {
				mine++
			}
		}
		return xfrmCounted(c, e, start(c, e, Inferred), "XfrmInPolBlock", mine)
	case e.Kind == evidence.Consume && usedUp(c, e):
		n := space(c, e)
		if n == nil || counter(n, "TcpExtListenOverflows")+counter(n, "TcpExtTCPReqQFullDrop") > 0 {
			return nil
		}
		v := start(c, e, Inferred)
		v.Direction, v.Where.Device = evidence.Reply, ""
		return xfrmCounted(c, e, v, "XfrmOutPolBlock", unanswered(c, n))
	}
	return nil
}

// xfrmRefused is a system call that was refused once a route was found: by the policy for that route's flow.
func xfrmRefused(c *evidence.Case) *Verdict {
	if c.Probe.Errno != "EPERM" || sentAny(c) {
		return nil
	}
	for i := range c.Events {
		r := &c.Events[i]
		if r.Kind == evidence.Route && r.Netns == c.Probe.Netns && r.Route != nil && r.Route.Errno == "" {
			v := &Verdict{Certainty: Inferred, Direction: evidence.Forward, Where: Where{Netns: r.Netns}}
			v.Proof = append(v.Proof, fmt.Sprintf("%s gave EPERM once a route was found, and no packet was made", c.Probe.Syscall))
			return xfrmCounted(c, r, v, "XfrmOutPolBlock", 1)
		}
	}
	return nil
}

// xfrmCounted is a verdict from a counter that must have counted each of our packets.
func xfrmCounted(c *evidence.Case, e *evidence.Event, v *Verdict, key string, mine uint64) *Verdict {
	n := space(c, e)
	if n == nil || !n.Counters.Read() || counter(n, key) < max(mine, 1) {
		return nil
	}
	v.Proof = append(v.Proof, fmt.Sprintf("%s, the counter of packets that a policy blocks, rose by %d during the probe", key, counter(n, key)))
	return xfrmBlocked(c, e, v)
}

func xfrmBlocked(c *evidence.Case, e *evidence.Event, v *Verdict) *Verdict {
	who := ""
	if v.Direction == evidence.Reply {
		who = "the reply was "
	}
	v.Summary = fmt.Sprintf("%s: %sblocked by an IPsec (xfrm) policy in %s", target(c), who, name(e.Netns))
	return v
}
