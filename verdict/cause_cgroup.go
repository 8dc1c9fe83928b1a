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
