// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"github.com/pathtrace/pathtrace/evidence"
)

var queueCauses = []Cause{
	{
		ID: "md5-mismatch", Means: "TCP-MD5 or TCP-AO: no signature, or a wrong one",
		Needs:   "drop with an MD5 or AO reason; sockets (process)",
		Reasons: []string{"TCP_MD5NOTFOUND", "TCP_MD5UNEXPECTED", "TCP_MD5FAILURE", "TCP_AONOTFOUND", "TCP_AOUNEXPECTED", "TCP_AOKEYNOTFOUND", "TCP_AOFAILURE"},
		Find: func(c *evidence.Case, e *evidence.Event) *Verdict {
			return atSocket(c, e, "wants another TCP-MD5/AO signature", "TCP_MD5NOTFOUND", "TCP_MD5UNEXPECTED", "TCP_MD5FAILURE", "TCP_AONOTFOUND", "TCP_AOUNEXPECTED", "TCP_AOKEYNOTFOUND", "TCP_AOFAILURE")
		},
	},
	{
		ID: "min-ttl", Means: "IP_MINTTL: the packet came from too far away",
		Needs: "drop TCP_MINTTL; sockets (process)", Reasons: []string{"TCP_MINTTL"}, Find: findMinTTL,
	},
	{
		ID: "receive-buffer-full", Means: "the UDP socket's buffer is full: the application does not read fast enough",
		Needs: "drop SOCKET_RCVBUFF of a datagram; sockets (process)", Reasons: []string{"SOCKET_RCVBUFF"}, Find: findReceiveBuffer,
	},
	{
		ID: "socket-filter", Means: "a filter on the socket dropped it",
		Needs: "drop SOCKET_FILTER, and the event's socket has a filter; sockets (process)", Reasons: []string{"SOCKET_FILTER"},
		Find: func(c *evidence.Case, e *evidence.Event) *Verdict { return filtered(c, e, "socket-filter") },
	},
	{
		ID: "cgroup-bpf", Means: "a BPF program on a control group refused it",
		Needs:   "drop SOCKET_FILTER, and the event's socket has no filter; or drop BPF_CGROUP_EGRESS; sockets (process, with its cgroup); or connect()'s EPERM before any route, and programs of the probe's cgroup",
		Reasons: []string{"SOCKET_FILTER", "BPF_CGROUP_EGRESS"},
		Find: func(c *evidence.Case, e *evidence.Event) *Verdict {
			if e == nil {
				return cgroupConnect(c)
			}
			return filtered(c, e, "cgroup-bpf")
		},
	},
	{
		ID: "lsm-denied", Means: "a security module refused it",
		Needs: "drop SECURITY_HOOK (Linux 6.16); sockets (process)", Reasons: []string{"SECURITY_HOOK"}, Find: findSecurityHook,
	},
	{
		ID: "time-wait", Means: "an old connection holds the same addresses and ports (TIME_WAIT)",
		Needs:   "connect()'s EADDRNOTAVAIL and no packet, or an ACK that answers our SYN and that our socket drops (TCP_INVALID_ACK_SEQUENCE); sockets: one with just these two ends",
		Reasons: []string{"TCP_INVALID_ACK_SEQUENCE"}, Find: findTimeWait,
	},
}

// atSocket is a packet that a socket refused, with the kernel's reason.
func atSocket(c *evidence.Case, e *evidence.Event, what string, reasons ...string) *Verdict {
	if !isDrop(e, reasons...) || !placed(e) {
		return nil
	}
	v := start(c, e, Observed)
	n := space(c, e)
	if n == nil {
		v.Certainty = Inferred
		v.Unseen = append(v.Unseen, name(e.Netns)+": sockets not read: not looked at")
	} else if setListener(c, e, n, v) == nil {
		v.Certainty = Inferred
	}
	who := "the socket"
	if v.Where.Socket != nil {
		who = v.Where.Socket.Local
	}
	v.Summary = fmt.Sprintf("%s: %s in %s %s (%s)%s", target(c), who, name(e.Netns), what, e.Reason, held(v.Where.Process))
	return v
}

func findMinTTL(c *evidence.Case, e *evidence.Event) *Verdict {
	v := atSocket(c, e, "demands a higher TTL", "TCP_MINTTL")
	if v != nil && e.Packet != nil {
		v.Proof = append(v.Proof, fmt.Sprintf("the packet arrived with TTL %d", e.Packet.TTL))
	}
	return v
}

func findSecurityHook(c *evidence.Case, e *evidence.Event) *Verdict {
	v := atSocket(c, e, "is closed to it by a security module", "SECURITY_HOOK")
	if v == nil || v.Where.Process == nil {
		return nil
	}
	return v
}

func findReceiveBuffer(c *evidence.Case, e *evidence.Event) *Verdict {
	if e == nil || c.Target.Protocol != "udp" || e.Packet != nil && e.Packet.Protocol != "udp" {
		return nil
	}
	v := atSocket(c, e, "has a full receive buffer", "SOCKET_RCVBUFF")
	if v != nil {
		v.Transient = true
	}
	return v
}

func findTimeWait(c *evidence.Case, e *evidence.Event) *Verdict {
	n := c.Namespace(c.Probe.Netns)
	if e != nil {
		return heldAtServer(c, e)
	}
	if c.Probe.Errno != "EADDRNOTAVAIL" || sentAny(c) || n == nil || !n.Sockets.Read() {
		return nil
	}
	local, lport, ok := splitLocal(c.Probe.Local, 4)
	to, ok2 := parseAddr(c.Target.Address)
	if !ok || !ok2 {
		return nil
	}
	for i := range n.Sockets.Items {
		s := &n.Sockets.Items[i]
		a, p, fine := splitLocal(s.Local, s.Family)
		b, q, fine2 := splitLocal(s.Remote, s.Family)
		if s.State != "TIME_WAIT" || !fine || !fine2 || p != lport || q != c.Target.Port || b != to || a != local && !local.IsUnspecified() {
			continue
		}
		v := &Verdict{Certainty: Inferred, Direction: evidence.Forward, Where: Where{Netns: n.Name}}
		v.Where.Socket = &SocketRef{Local: s.Local}
		v.Proof = []string{
			fmt.Sprintf("%s gave EADDRNOTAVAIL, and no packet was made", c.Probe.Syscall),
			fmt.Sprintf("the connection %s to %s is in TIME_WAIT in %s", s.Local, s.Remote, name(n.Name)),
		}
		v.Summary = fmt.Sprintf("%s: the old connection from %s is still in TIME_WAIT in %s", target(c), s.Local, name(n.Name))
		return v
	}
	return nil
}

// heldAtServer is a SYN that met an old connection with the same two ends: the server answers with an
// ACK about that one, which is none that our socket awaits.
func heldAtServer(c *evidence.Case, e *evidence.Event) *Verdict {
	if !isDrop(e, "TCP_INVALID_ACK_SEQUENCE") || direction(c, e) != evidence.Reply || e.Packet == nil || e.Packet.Flags != "." {
		return nil
	}
	for i := range c.Events {
		syn := &c.Events[i]
		if syn.Kind != evidence.Receive || !isSYN(syn) || direction(c, syn) != evidence.Forward || syn.At > e.At {
			continue
		}
		n := space(c, syn)
		a := ackDuring(c, visitOf(c, syn))
		if n == nil || a == nil {
			continue
		}
		for j := range n.Sockets.Items {
			s := &n.Sockets.Items[j]
			local, lport, ok := splitLocal(s.Local, s.Family)
			remote, rport, ok2 := splitLocal(s.Remote, s.Family)
			if s.State == "LISTEN" || !ok || !ok2 || lport != syn.Packet.DPort || rport != syn.Packet.SPort ||
				!sameAddr(local.String(), syn.Packet.Dest) || !sameAddr(remote.String(), syn.Packet.Source) {
				continue
			}
			v := start(c, syn, Inferred)
			v.Transient = true // our RST about that ACK may end the old connection
			v.Where.Socket = &SocketRef{Local: s.Local}
			if len(s.Process) > 0 {
				v.Where.Process = &s.Process[0]
			}
			v.Proof = []string{
				fmt.Sprintf("our SYN was answered by an ACK in %s %s", name(n.Name), since(c, a)),
				died(c, e),
				fmt.Sprintf("the old connection %s to %s is in %s in %s", s.Local, s.Remote, s.State, name(n.Name)),
			}
			v.Summary = fmt.Sprintf("%s: an old connection from %s is still in %s in %s", target(c), s.Remote, s.State, name(n.Name))
			return v
		}
	}
	return nil
}

// ackDuring is the bare ACK that was made while the visit's packet was worked on.
func ackDuring(c *evidence.Case, v visit) *evidence.Event {
	for i := range c.Events {
		if o := &c.Events[i]; o.Packet != nil && o.Packet.Flags == "." && o.Kind == evidence.Transmit && direction(c, o) == evidence.Reply && v.during(o) {
			return o
		}
	}
	return nil
}
