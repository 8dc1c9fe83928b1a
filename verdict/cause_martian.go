// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"github.com/pathtrace/pathtrace/evidence"
)

func findMartianSource(c *evidence.Case, e *evidence.Event) *Verdict {
	if e == nil {
		return refusedSource(c)
	}
	src, _, ok := eventSource(e)
	switch {
	case isDrop(e, "IP_LOCAL_SOURCE", "IP_INVALID_SOURCE"):
	case isDrop(e, "IP_LOCALNET") && ok && src.IsLoopback():
	case isDrop(e, "IP_INHDR") && at(e, "ip6_rcv_core") && ok && (src.IsLoopback() || src.IsMulticast()): // RFC 4291, 2.5.3 and 2.7
	default:
		return nil
	}
	return martian(c, e, "source", src.String(), ok)
}

func findMartianDestination(c *evidence.Case, e *evidence.Event) *Verdict {
	if e == nil {
		return refusedDestination(c)
	}
	if e.Packet == nil {
		return nil
	}
	dst, ok := parseAddr(e.Packet.Dest)
	switch {
	case isDrop(e, "IP_INVALID_DEST"):
	case isDrop(e, "IP_LOCALNET") && ok && dst.IsLoopback():
		if src, _, fine := eventSource(e); fine && src.IsLoopback() {
			return nil
		}
	case isDrop(e, "IP_INHDR") && at(e, "ip6_rcv_core") && ok && dst.IsLoopback():
		if src, _, fine := eventSource(e); fine && (src.IsLoopback() || src.IsMulticast()) {
			return nil
		}
	default:
		return nil
	}
	return martian(c, e, "destination", dst.String(), ok)
}

func martian(c *evidence.Case, e *evidence.Event, what, addr string, ok bool) *Verdict {
	if !placed(e) || e.Device == "" {
		return nil
	}
	v := start(c, e, Observed)
	if ok {
		what += " " + addr
		v.Proof = append(v.Proof, "the packet's "+what+" may not arrive on "+e.Device)
	}
	v.Summary = fmt.Sprintf("%s: martian %s on %s of %s%s", target(c), what, e.Device, name(e.Netns), natted(v))
	return v
}

// refusedSource is a loopback address as the source of a connection to another
// host, which the kernel refuses with EINVAL after it has found a route (__mkroute_output).
func refusedSource(c *evidence.Case) *Verdict {
	src, _, ok := splitLocal(c.Probe.Local, 4)
	l := refusedHere(c, "EINVAL")
	if l == nil || !ok || !src.IsLoopback() || l.OIF == "" || l.OIF == "lo" {
		return nil
	}
	v := refusal(c, l)
	v.Proof = append(v.Proof, fmt.Sprintf("the route to %s leaves by %s, where the source %s may not appear", l.Dest, l.OIF, src))
	v.Summary = fmt.Sprintf("%s: a connection from %s cannot leave %s by %s", target(c), src, name(c.Probe.Netns), l.OIF)
	return v
}

// refusedDestination is a TCP connection to a broadcast or multicast address (tcp_v4_connect, tcp_v6_connect).
func refusedDestination(c *evidence.Case) *Verdict {
	l := refusedHere(c, "ENETUNREACH")
	if l == nil || c.Target.Protocol != "tcp" || l.Type != "broadcast" && l.Type != "multicast" {
		return nil
	}
	v := refusal(c, l)
	v.Proof = append(v.Proof, fmt.Sprintf("the kernel's route to %s is of type %s", l.Dest, l.Type))
	v.Summary = fmt.Sprintf("%s: a %s address of %s, to which there are no TCP connections", target(c), l.Type, name(c.Probe.Netns))
	return v
}

// refusedHere is the route that the probe's namespace has to the target, where
// connect() gave that errno all the same and no packet was made.
func refusedHere(c *evidence.Case, errno string) *evidence.Lookup {
	n := c.Namespace(c.Probe.Netns)
	dest, ok := parseAddr(c.Target.Address)
	if n == nil || !ok || c.Probe.Errno != errno || c.Probe.Syscall != "connect" || sentAny(c) {
		return nil
	}
	if l := lookup(n, dest, ""); l != nil && l.Errno == "" {
		return l
	}
	return nil
}

func refusal(c *evidence.Case, l *evidence.Lookup) *Verdict {
	return &Verdict{Certainty: Inferred, Direction: evidence.Forward, Where: Where{Netns: c.Probe.Netns, Device: l.OIF},
		Proof: []string{fmt.Sprintf("%s gave %s, and no packet was made", c.Probe.Syscall, c.Probe.Errno)}}
}
