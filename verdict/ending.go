// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// ending says what the connection had carried when the process ended it by the
// state change s, and what made the process do so as far as the kernel knows.
func ending(c *evidence.Case, s *evidence.Event) (proof []string) {
	if a := accepted(c, s); a != nil && a.Accepted > 0 {
		for _, p := range a.Process {
			proof = append(proof, fmt.Sprintf("%s had accepted it at most %.2f ms after connect()", who(&p), float64(a.Accepted)/1e6))
		}
	}
	e := s.State.End
	if e == nil {
		return proof
	}
	line := fmt.Sprintf("the connection had brought %d bytes to the server and %d from it", e.Received, e.Sent)
	if e.Unread > 0 {
		line += fmt.Sprintf("; %d of the former were not read", e.Unread)
	}
	proof = append(proof, line)
	switch {
	case e.Exit != nil && e.Exit.Signal != "":
		core := ""
		if e.Exit.Core {
			core = ", with a core dump"
		}
		proof = append(proof, fmt.Sprintf("the kernel closed it because the process was killed by %s%s", e.Exit.Signal, core))
	case e.Exit != nil:
		proof = append(proof, fmt.Sprintf("the kernel closed it because the process ended, with exit code %d", e.Exit.Code))
	case s.Socket != nil && s.Socket.Aborts && s.State.New == "CLOSE":
		proof = append(proof, "SO_LINGER with a time of 0 was set: such a close() resets")
	}
	return proof
}

// author is the process that made the state change s, with what else is known
// of it: from the sockets that it holds, or from before the probe where it has
// ended since. A child that a listener made for the connection is known by its parent.
func author(c *evidence.Case, s *evidence.Event) *evidence.Process {
	known := slices.Clone(c.Listeners)
	if n := space(c, s); n != nil && n.Sockets.Read() {
		for i := range n.Sockets.Items {
			known = append(known, n.Sockets.Items[i].Process...)
		}
	}
	p := evidence.Process{PID: s.PID, Comm: s.Comm}
	for _, q := range slices.Backward(known) {
		if q.PID == s.PID {
			return &q
		}
		if s.State.End != nil && q.PID == s.State.End.Parent && q.Comm == s.Comm {
			p.Exe, p.Unit, p.Cgroup, p.Container = q.Exe, q.Unit, q.Cgroup, q.Container
		}
	}
	return &p
}

// accepted is the connection whose end is the state change s, as sock_diag showed it; nil when it did not.
func accepted(c *evidence.Case, s *evidence.Event) *evidence.Socket {
	n := space(c, s)
	if n == nil || !n.Sockets.Read() {
		return nil
	}
	for i := range n.Sockets.Items {
		if x := &n.Sockets.Items[i]; x.Protocol == "tcp" && x.Remote != "" && x.State != "LISTEN" && x.State != "TIME_WAIT" && s.Socket != nil && sameEnd(x, s.Socket.Local) {
			return x
		}
	}
	return nil
}

// sameEnd reports whether x has the local address, which an IPv6 socket may write as a mapped one.
func sameEnd(x *evidence.Socket, local string) bool {
	a, p, ok := splitLocal(x.Local, x.Family)
	b, q, fine := splitLocal(local, x.Family)
	return ok && fine && a == b && p == q
}

// accepter is the process that has the connection s, where another than the
// listener's p is known to have it; it tells in v whether any has.
func accepter(c *evidence.Case, s *evidence.Event, n *evidence.Namespace, p *evidence.Process, v *Verdict) *evidence.Process {
	a := accepted(c, s)
	switch {
	case a == nil:
		return p
	case a.Inode == 0:
		v.Proof = append(v.Proof, "no process has accepted the connection: it is complete, and waits in the queue of "+v.Where.Socket.Local)
		return p
	case len(a.Process) == 0:
		return p
	}
	for i := range a.Process {
		q := &a.Process[i]
		v.Proof = append(v.Proof, who(q)+" has accepted the connection")
	}
	for i := range a.Process {
		if a.Process[i].PID == p.PID {
			return p
		}
	}
	q := a.Process[len(a.Process)-1]
	v.Where.Process = &q
	return &q
}

// who names a process, with the unit or container that it belongs to.
func who(p *evidence.Process) string {
	s := fmt.Sprintf("%s (pid %d", p.Comm, p.PID)
	switch {
	case p.Container != "": // its unit is a scope of the same name
		s += ", container " + p.Container[:min(12, len(p.Container))]
	case p.Unit != "":
		s += ", unit " + p.Unit
	}
	return s + ")"
}

// halted reports whether a signal or a debugger has stopped the process.
func halted(p *evidence.Process) bool { return p.State == "T" || p.State == "t" }

// doing says what a process that has not answered does; "" when that was not read, or is no news.
func doing(p *evidence.Process) string {
	what := map[string]string{
		"T": "is stopped by a signal (state T): kill -CONT lets it go on", "t": "is stopped by a debugger (state t)",
		"D": "waits where no signal reaches it (state D)", "R": "runs (state R)", "S": "sleeps (state S)", "Z": "has ended (state Z)",
	}[p.State]
	if what == "" || len(p.Stack) == 0 && !halted(p) && p.State != "D" {
		return ""
	}
	if len(p.Stack) > 0 {
		what += ", in the kernel at " + strings.Join(p.Stack[:min(4, len(p.Stack))], " < ")
	}
	return what
}
