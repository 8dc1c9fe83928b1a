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
		ID: "receive-buffer-full", Means: "UDP socket buffer",
		Needs: "drop SOCKET_RCVBUFF of a datagram; sockets (process)", Reasons: []string{"SOCKET_RCVBUFF"}, Find: findReceiveBuffer,
	},
	{
		ID: "socket-filter", Means: "a filter on the socket",
		Needs: "drop SOCKET_FILTER, and the event's socket has a filter; sockets (process)", Reasons: []string{"SOCKET_FILTER"},
		Find: func(c *evidence.Case, e *evidence.Event) *Verdict { return filtered(c, e, "socket-filter") },
	},
	{
		ID: "cgroup-bpf", Means: "a cgroup program",
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
		ID: "lsm-denied", Means: "a security module",
		Needs: "drop SECURITY_HOOK (Linux 6.16); sockets (process)", Reasons: []string{"SECURITY_HOOK"}, Find: findSecurityHook,
	},
	{
		ID: "time-wait", Means: "an old connection holds the tuple",
		Needs: "connect()'s EADDRNOTAVAIL and no packet; sockets: one in TIME_WAIT with just these two ends", Find: findTimeWait,
	},
}

// atSocket is a packet that a socket refused, with the kernel's reason.
func atSocket(c *evidence.Case, e *evidence.Event, what string, reasons ...string) *Verdict {
	if !isDrop(e, reasons...) || e.Netns == "" {
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

// filtered tells a socket's own filter from a cgroup's program. Both make the
// same drop; a cgroup can have dropped it even where the socket has a filter.
func filtered(c *evidence.Case, e *evidence.Event, id string) *Verdict {
	if isDrop(e, "BPF_CGROUP_EGRESS") && id == "cgroup-bpf" && e.Netns != "" {
		return cgroupEgress(c, e)
	}
	if !isDrop(e, "SOCKET_FILTER") || e.Socket == nil || e.Socket.Filter != (id == "socket-filter") {
		return nil
	}
	what := "has a filter that dropped it"
	if id == "cgroup-bpf" {
		what = "has no filter, so a program of its cgroup dropped it"
	}
	v := atSocket(c, e, what, "SOCKET_FILTER")
	if v == nil || v.Where.Process == nil {
		return nil
	}
	v.Certainty = Inferred
	if id == "cgroup-bpf" {
		v.Proof = append(v.Proof, "no filter is attached to the socket")
		if p := v.Where.Process.Cgroup; p != "" {
			v.Where.Cgroup = &CgroupRef{Path: p}
		}
		v.Unseen = append(v.Unseen, name(e.Netns)+": which program of the cgroup")
	} else {
		v.Proof = append(v.Proof, "a filter is attached to the socket")
	}
	return v
}

// cgroupEgress is a packet that a cgroup's egress program refused: ours, or the server's reply.
func cgroupEgress(c *evidence.Case, e *evidence.Event) *Verdict {
	v := start(c, e, Observed)
	v.Unseen = append(v.Unseen, name(e.Netns)+": which program of the cgroup")
	whose := ""
	if direction(c, e) == evidence.Forward && e.Netns == c.Probe.Netns && c.Probe.Cgroup != "" {
		v.Where.Cgroup = &CgroupRef{Path: c.Probe.Cgroup}
		whose = " " + c.Probe.Cgroup
	} else if n := space(c, e); n != nil && n.Sockets.Read() && e.Packet != nil {
		back := *e
		back.Packet = &evidence.Packet{Protocol: e.Packet.Protocol, Source: e.Packet.Dest, SPort: e.Packet.DPort, Dest: e.Packet.Source, DPort: e.Packet.SPort}
		back.Device = ""
		if p := setListener(c, &back, n, v); p != nil {
			whose = " of " + p.Comm
			if p.Cgroup != "" {
				v.Where.Cgroup = &CgroupRef{Path: p.Cgroup}
			}
		}
	}
	if v.Where.Cgroup == nil && v.Where.Process == nil {
		return nil
	}
	v.Summary = fmt.Sprintf("%s: %sdropped by an egress program of the cgroup%s in %s", target(c), whoseDied(c, e), whose, name(e.Netns))
	return v
}

func findTimeWait(c *evidence.Case, e *evidence.Event) *Verdict {
	n := c.Namespace(c.Probe.Netns)
	if e != nil || c.Probe.Errno != "EADDRNOTAVAIL" || sentAny(c) || n == nil || !n.Sockets.Read() {
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
