// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

func findAppSilent(c *evidence.Case, e *evidence.Event) *Verdict {
	if e != nil || c.Probe.Outcome != evidence.Silent || !c.Probe.Expected || c.Probe.Unmatched || len(fates(c)) > 0 {
		return nil
	}
	if v := unreadDatagram(c); v != nil {
		return v
	}
	s := served(c)
	if s == nil || c.Target.Protocol == "tcp" && s.Kind != evidence.State || ended(c) != nil {
		return nil
	}
	if unasked(c) || unheard(c, s.Netns) != nil {
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
		v.Proof = append(v.Proof, fmt.Sprintf("%d connections wait to be accepted on %s, whose queue takes %d", l.Queue, l.Local, l.Backlog))
	}
	p = accepter(c, s, n, p, v)
	v.Proof = append(v.Proof, silence(c))
	how := "said nothing in time"
	if c.Probe.Received > 0 {
		how = "began an answer and did not finish it in time"
	}
	mute(c, s, n, p, v, how)
	noteFiles(c, v)
	return v
}

// unasked reports whether what was said on a connection did not reach the other end's kernel: it was sent again, in vain.
func unasked(c *evidence.Case) bool { return c.Probe.Unacked > 0 && c.Probe.Retransmit > 0 }

// unheard is the last event of an answer that leaves the server's namespace and that the probe has not got.
func unheard(c *evidence.Case, server string) (last *evidence.Event) {
	var first uint32 // sequence number of the server's first byte
	known := false
	for i := range c.Events {
		e := &c.Events[i]
		p := e.Packet
		if e.Netns != server || p == nil || p.Carries != nil || p.Protocol != c.Target.Protocol || direction(c, e) != evidence.Reply || e.Kind != evidence.Transmit {
			continue
		}
		switch {
		case p.Protocol != "tcp":
			if c.Probe.Received == 0 && !came(c, e) {
				last = e
			}
		case p.Flags == "S.":
			first, known = p.Seq+1, true
		case speaks(p) && (!known || int64(p.Seq-first) >= c.Probe.Received) && !came(c, e):
			last = e
		}
	}
	return last
}

// speaks reports whether a segment carries data: its sender pushed it, or it is longer than its headers can be.
func speaks(p *evidence.Packet) bool {
	return !strings.ContainsAny(p.Flags, "SRF") && (strings.Contains(p.Flags, "P") || p.Length > 100)
}

// came reports whether the packet of e, which left its namespace, was seen to arrive in the probe's, be it too late.
func came(c *evidence.Case, e *evidence.Event) bool {
	for i := range c.Events {
		o := &c.Events[i]
		if o.Kind != evidence.Receive || o.Netns != c.Probe.Netns || o.Packet == nil || o.Packet.Carries != nil || o.Packet.Protocol != e.Packet.Protocol || direction(c, o) != evidence.Reply {
			continue
		}
		if o.Packet.Protocol != "tcp" || o.Packet.Seq == e.Packet.Seq && speaks(o.Packet) {
			return true
		}
	}
	return false
}

// silence is what came back, or that nothing did.
func silence(c *evidence.Case) string {
	ms := float64(c.Probe.DurationNS) / 1e6
	if c.Probe.Received > 0 {
		return fmt.Sprintf("%d bytes were sent, %d came back in %.0f ms and are no whole answer: %s", c.Probe.Sent, c.Probe.Received, ms, words(c))
	}
	return fmt.Sprintf("%d bytes were sent, no byte came back in %.0f ms", c.Probe.Sent, ms)
}

// mute ends a verdict about a process p that does not answer: with what p does,
// or, where nobody has taken the connection of s yet and one of the programs
// that share its listener is stopped, with that one.
func mute(c *evidence.Case, s *evidence.Event, n *evidence.Namespace, p *evidence.Process, v *Verdict, how string) {
	candidates := []evidence.Process{*p}
	if a := accepted(c, s); a == nil || a.Inode == 0 {
		candidates = append(candidates, holding(n, v)...)
	}
	var pids []string
	for i := range candidates {
		q := &candidates[i]
		if !halted(q) {
			continue
		}
		if !halted(p) {
			p, v.Certainty = q, Inferred // another that shares the socket might have served it
		}
		if pid := fmt.Sprint(q.PID); q.State == "T" && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	v.Where.Process = p
	is := ""
	if d := doing(p); d != "" {
		v.Proof = append(v.Proof, fmt.Sprintf("%s (pid %d) %s", p.Comm, p.PID, d))
		if halted(p) {
			is = " is stopped, and"
		}
	}
	if len(pids) > 0 {
		list := strings.Join(pids, " ")
		v.Fixes = append(v.Fixes, Fix{Summary: "let " + p.Comm + " run on", Commands: []string{"kill -CONT " + list}, Undo: []string{"kill -STOP " + list}})
	}
	v.Summary = fmt.Sprintf("%s: %s (pid %d) in %s%s %s", target(c), p.Comm, p.PID, name(n.Name), is, how)
}

// holding are the programs that hold the socket which v names.
func holding(n *evidence.Namespace, v *Verdict) []evidence.Process {
	for i := range n.Sockets.Items {
		if s := &n.Sockets.Items[i]; v.Where.Socket != nil && s.Local == v.Where.Socket.Local && (s.State == "LISTEN" || s.Protocol == "udp") {
			return s.Process
		}
	}
	return nil
}

// unreadDatagram: our datagram came into the server's namespace, nothing
// dropped it, and a socket that takes it has bytes that nobody reads.
func unreadDatagram(c *evidence.Case) *Verdict {
	last := lastForward(c)
	if c.Target.Protocol != "udp" || last == nil || last.Kind != evidence.Receive && last.Kind != evidence.RuleVerdict && last.Kind != evidence.HookPassed {
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
	v := &Verdict{Direction: evidence.Reply, Where: Where{Netns: arrived.Netns}}
	v.Proof = append(v.Proof, fmt.Sprintf("our datagram came to %s %s, and was neither dropped nor read", name(arrived.Netns), since(c, arrived)))
	p := setListener(c, arrived, n, v)
	if p == nil {
		return nil
	}
	v.Certainty = Inferred // whose bytes they are is not known
	v.Proof = append(v.Proof, fmt.Sprintf("the receive buffer of %s holds %d bytes that were not read", s.Local, s.RMem), silence(c))
	mute(c, arrived, n, p, v, "does not read its datagrams")
	return v
}
