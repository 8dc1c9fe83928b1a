// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

func findAppSilent(c *evidence.Case, e *evidence.Event) *Verdict {
	if e != nil || c.Probe.Outcome != evidence.Silent || !c.Probe.Expected || c.Probe.Unmatched {
		return nil
	}
	if c.Target.Protocol == "udp" {
		if v := unreadDatagram(c); v != nil {
			return v
		}
	}
	s := served(c)
	if s == nil || c.Target.Protocol == "tcp" && s.Kind != evidence.State || ended(c) != nil || len(fates(c)) > 0 {
		return nil
	}
	n := space(c, s)
	if n == nil || !n.Sockets.Read() {
		return nil
	}
	v := &Verdict{Certainty: Observed, Direction: evidence.Reply, Where: Where{Netns: s.Netns}}
	if s.State != nil {
		v.Proof = append(v.Proof, fmt.Sprintf("the connection became %s in %s %s", s.State.New, name(s.Netns), since(c, s)))
	}
	if c.Target.Protocol == "udp" && findUnrouted(c, nil) != nil {
		return nil // it may have answered, had there been a way
	}
	if s.Kind != evidence.Consume && s.Kind != evidence.State {
		v.Certainty = Inferred
		v.Proof = append(v.Proof, sight(c, s)+", and was not seen to be dropped; a socket there takes it")
	}
	p := setListener(c, s, n, v)
	if p == nil {
		return nil
	}
	if l := v.Where.Socket; c.Target.Protocol == "tcp" && l.Queue > 0 {
		v.Proof = append(v.Proof, fmt.Sprintf("%d connections wait to be accepted on %s", l.Queue, l.Local))
	}
	holders := listenerAt(n, v) // any of them might have accepted it
	conn := connectionAt(c, n)
	switch {
	case conn == nil:
	case conn.Inode == 0:
		v.Proof = append(v.Proof, "no process has accepted our connection")
	case len(conn.Process) > 0:
		if !slices.ContainsFunc(conn.Process, func(q evidence.Process) bool { return q.PID == p.PID }) {
			p = &conn.Process[0]
			v.Where.Process = p
		}
		holders = nil
		v.Proof = append(v.Proof, fmt.Sprintf("our connection is held by %s (pid %d), with %d bytes that it has not read", p.Comm, p.PID, conn.Queue))
	}
	v.Proof = append(v.Proof, silence(c))
	how := "said nothing in time"
	if c.Probe.Received > 0 {
		how = "began an answer and did not finish it in time"
	}
	how = stopped(v, p, holders, how)
	v.Summary = fmt.Sprintf("%s: %s (pid %d) in %s %s", target(c), v.Where.Process.Comm, v.Where.Process.PID, name(s.Netns), how)
	return v
}

func silence(c *evidence.Case) string {
	ms := float64(c.Probe.DurationNS) / 1e6
	if c.Probe.Received > 0 {
		return fmt.Sprintf("%d bytes were sent, %d came back in %.0f ms and are no whole answer: %s", c.Probe.Sent, c.Probe.Received, ms, words(c))
	}
	return fmt.Sprintf("%d bytes were sent, no byte came back in %.0f ms", c.Probe.Sent, ms)
}

// connectionAt is the server's end of our connection as the sockets of n show it, or nil.
func connectionAt(c *evidence.Case, n *evidence.Namespace) *evidence.Socket {
	for i := range n.Sockets.Items {
		s := &n.Sockets.Items[i]
		if s.Protocol == "tcp" && s.Remote != "" && (s.State == "ESTABLISHED" || s.State == "CLOSE_WAIT") && s.Local != c.Probe.Local {
			return s
		}
	}
	return nil
}

// listenerAt is the socket that v names.
func listenerAt(n *evidence.Namespace, v *Verdict) *evidence.Socket {
	for i := range n.Sockets.Items {
		if s := &n.Sockets.Items[i]; v.Where.Socket != nil && s.Local == v.Where.Socket.Local && (s.State == "LISTEN" || s.Protocol == "udp") {
			return s
		}
	}
	return nil
}

// stopped says so where the process that ought to answer is stopped: p itself,
// or, of the programs that share the listener, the one that is. Else it returns how.
func stopped(v *Verdict, p *evidence.Process, listener *evidence.Socket, how string) string {
	candidates := []evidence.Process{*p}
	if listener != nil {
		candidates = append(candidates, listener.Process...)
	}
	i := slices.IndexFunc(candidates, func(q evidence.Process) bool { return q.State == "T" || q.State == "t" })
	if i < 0 {
		return how
	}
	q := candidates[i]
	v.Where.Process = &q
	if q.State == "t" {
		v.Proof = append(v.Proof, fmt.Sprintf("%s (pid %d) is stopped by a tracer (state t)", q.Comm, q.PID))
		return "is stopped by a debugger"
	}
	v.Proof = append(v.Proof, fmt.Sprintf("%s (pid %d) is stopped (state T: SIGSTOP, SIGTSTP or a job of a shell)", q.Comm, q.PID))
	var pids []string
	for _, o := range candidates {
		if pid := fmt.Sprint(o.PID); o.State == "T" && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	list := strings.Join(pids, " ")
	v.Fixes = append(v.Fixes, Fix{
		Summary:  "let " + q.Comm + " run on",
		Commands: []string{"kill -CONT " + list},
		Undo:     []string{"kill -STOP " + list},
	})
	return "is stopped and " + how
}

// unreadDatagram: our datagram came into the server's namespace, nothing
// dropped it, and a socket that takes it has bytes that nobody reads.
func unreadDatagram(c *evidence.Case) *Verdict {
	if len(fates(c)) > 0 {
		return nil
	}
	last := lastForward(c)
	if last == nil || last.Kind != evidence.Receive && last.Kind != evidence.RuleVerdict && last.Kind != evidence.HookPassed {
		return nil
	}
	arrived := visitOf(c, last).arrived()
	if arrived == nil {
		arrived = last
	}
	n := space(c, arrived)
	if n == nil || !n.Sockets.Read() {
		return nil
	}
	s := listener(c, arrived, n)
	if s == nil || s.RMem == 0 || len(s.Process) == 0 {
		return nil
	}
	v := &Verdict{Certainty: Inferred, Direction: evidence.Reply, Where: Where{Netns: arrived.Netns}}
	v.Proof = append(v.Proof, fmt.Sprintf("our datagram came to %s %s, and was neither dropped nor read", name(arrived.Netns), since(c, arrived)))
	p := setListener(c, arrived, n, v)
	if p == nil {
		return nil
	}
	v.Certainty = Inferred
	v.Proof = append(v.Proof, fmt.Sprintf("the receive buffer of %s holds %d bytes that were not read", s.Local, s.RMem), silence(c))
	how := stopped(v, p, s, "does not read its datagrams")
	v.Summary = fmt.Sprintf("%s: %s (pid %d) in %s %s", target(c), v.Where.Process.Comm, v.Where.Process.PID, name(arrived.Netns), how)
	return v
}
