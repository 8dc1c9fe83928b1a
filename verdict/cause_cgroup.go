// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"github.com/pathtrace/pathtrace/evidence"
)

// cgroupConnect: connect() was refused before a route was asked for, and a
// program of the probe's own cgroup decides about connect().
func cgroupConnect(c *evidence.Case) *Verdict {
	p := c.Probe.Programs
	if c.Probe.Errno != "EPERM" || c.Probe.Syscall != "connect" || p == nil || !p.Read() || len(p.Items) == 0 {
		return nil
	}
	for i := range c.Events {
		if k := c.Events[i].Kind; k == evidence.Route || c.Events[i].Packet != nil {
			return nil // it came further than these programs
		}
	}
	prog := p.Items[0]
	v := &Verdict{Certainty: Inferred, Direction: evidence.Forward}
	v.Where.Netns = c.Probe.Netns
	v.Where.Cgroup = &CgroupRef{Path: prog.Cgroup}
	v.Proof = append(v.Proof, "connect() gave EPERM before any route was asked for, and no packet was made")
	for _, x := range p.Items {
		v.Proof = append(v.Proof, fmt.Sprintf("cgroup %s has the %s program with id %d %s", x.Cgroup, x.Attach, x.ID, x.Name))
	}
	if len(p.Items) == 1 {
		v.Where.Program = &ProgramRef{ID: prog.ID, Name: prog.Name}
	}
	v.Unseen = append(v.Unseen, "whether a security module or a system call filter refused connect() instead")
	v.Summary = fmt.Sprintf("%s: a BPF program of cgroup %s refuses connect()", target(c), prog.Cgroup)
	return v
}

// filtered tells a socket's own filter from a cgroup's ingress program: both make the same drop. A cgroup
// can have dropped it even where the socket has a filter; with programs of both kinds neither is proven.
func filtered(c *evidence.Case, e *evidence.Event, id string) *Verdict {
	if isDrop(e, "BPF_CGROUP_EGRESS") && id == "cgroup-bpf" && placed(e) {
		return cgroupEgress(c, e)
	}
	if !isDrop(e, "SOCKET_FILTER") || e.Socket == nil || e.Socket.Filter != (id == "socket-filter") || !placed(e) {
		return nil
	}
	if direction(c, e) == evidence.Reply {
		return filteredReply(c, e, id)
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
	n := space(c, e)
	list, known := programs(n, v.Where.Process.Cgroup, "ingress")
	if id == "socket-filter" {
		if known && len(list) > 0 || n != nil && n.Programs.Unread != "" { // looked for in vain: one may be there
			return nil
		}
		v.Proof = append(v.Proof, "a filter is attached to the socket")
		if known {
			v.Proof = append(v.Proof, "no ingress program decides about the sockets of its cgroup "+v.Where.Process.Cgroup)
		}
		return v
	}
	if known && len(list) == 0 {
		return nil
	}
	v.Proof = append(v.Proof, "no filter is attached to the socket")
	setProgram(v, e, v.Where.Process.Cgroup, list, known)
	return v
}

// filteredReply is an answer that was dropped at the probe's own socket, which has no filter.
func filteredReply(c *evidence.Case, e *evidence.Event, id string) *Verdict {
	if id != "cgroup-bpf" || e.Netns != c.Probe.Netns || c.Probe.Cgroup == "" {
		return nil
	}
	list, known := programs(space(c, e), c.Probe.Cgroup, "ingress")
	if !known || len(list) == 0 {
		return nil
	}
	v := start(c, e, Inferred)
	v.Proof = append(v.Proof, "no filter is attached to the socket, which is the probe's own")
	setProgram(v, e, c.Probe.Cgroup, list, known)
	v.Summary = fmt.Sprintf("%s: the reply was dropped by an ingress program of the probe's own cgroup %s in %s", target(c), v.Where.Cgroup.Path, name(e.Netns))
	return v
}

// programs are those of one kind that decide about the sockets of a cgroup; known is false when they were not read.
func programs(n *evidence.Namespace, cgroup, attach string) (list []evidence.CgroupProgram, known bool) {
	if n == nil || !n.Programs.Read() || cgroup == "" {
		return nil, false
	}
	for _, p := range n.Programs.Items {
		if p.In == cgroup && p.Attach == attach {
			list = append(list, p)
		}
	}
	return list, true
}

// setProgram names the cgroup, and the program where there is just one.
func setProgram(v *Verdict, e *evidence.Event, cgroup string, list []evidence.CgroupProgram, known bool) {
	if cgroup != "" {
		v.Where.Cgroup = &CgroupRef{Path: cgroup}
	}
	for _, p := range list {
		v.Proof = append(v.Proof, fmt.Sprintf("cgroup %s has the %s program with id %d %s", p.Cgroup, p.Attach, p.ID, p.Name))
	}
	switch {
	case len(list) == 1:
		if list[0].Cgroup != "" {
			v.Where.Cgroup = &CgroupRef{Path: list[0].Cgroup}
		}
		v.Where.Program = &ProgramRef{ID: list[0].ID, Name: list[0].Name}
	case known:
		v.Unseen = append(v.Unseen, fmt.Sprintf("%s: which of the %d programs of the cgroup", name(e.Netns), len(list)))
	default:
		v.Unseen = append(v.Unseen, name(e.Netns)+": which program of the cgroup")
	}
}

// cgroupEgress is a packet that a cgroup's egress program refused: ours, or the server's reply.
func cgroupEgress(c *evidence.Case, e *evidence.Event) *Verdict {
	v := start(c, e, Observed)
	n := space(c, e)
	whose, cgroup := "", ""
	if direction(c, e) == evidence.Forward && e.Netns == c.Probe.Netns && c.Probe.Cgroup != "" {
		cgroup = c.Probe.Cgroup
		whose = " " + cgroup
	} else if n != nil && n.Sockets.Read() && e.Packet != nil {
		back := *e
		back.Packet = &evidence.Packet{Protocol: e.Packet.Protocol, Source: e.Packet.Dest, SPort: e.Packet.DPort, Dest: e.Packet.Source, DPort: e.Packet.SPort}
		back.Device = ""
		if p := setListener(c, &back, n, v); p != nil {
			cgroup = p.Cgroup
			whose = " of " + p.Comm
		}
	}
	if cgroup == "" && v.Where.Process == nil {
		return nil
	}
	list, known := programs(n, cgroup, "egress")
	setProgram(v, e, cgroup, list, known && len(list) > 0)
	if v.Where.Process != nil && v.Where.Program != nil {
		v.Certainty = Inferred // from the cgroup in which the process is now
	}
	v.Summary = fmt.Sprintf("%s: %sdropped by an egress program of the cgroup%s in %s", target(c), whoseDied(c, e), whose, name(e.Netns))
	return v
}
