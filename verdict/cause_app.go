// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"github.com/pathtrace/pathtrace/evidence"
)

const appNeeds = "state events of the server's socket (with pid, in process context); sockets (process); the probe's outcome"

var appCauses = []Cause{
	{
		ID: "reset-by-app", Means: "accepted, then reset before answering",
		Needs: appNeeds + ": ESTABLISHED to CLOSE, and a RST of the process's own making (reasons since Linux 6.10)", Find: findResetByApp,
	},
	{
		ID: "closed-by-app", Means: "accepted, then closed before answering",
		Needs: appNeeds + ": ESTABLISHED to FIN_WAIT1, or CLOSE_WAIT to LAST_ACK, or to CLOSE with a RST for data that was not read", Find: findClosedByApp,
	},
	{
		ID: "app-silent", Means: "accepted, nothing said in time",
		Needs: appNeeds + ": to ESTABLISHED, and no end; an answer was awaited", Find: findAppSilent,
	},
}

// ended is the server's own end of the connection: the first state change out
// of a connected state that a process made.
func ended(c *evidence.Case) *evidence.Event {
	for i := range c.Events {
		e := &c.Events[i]
		if !serverState(c, e) || e.State.Old != "ESTABLISHED" && e.State.Old != "CLOSE_WAIT" || e.State.New == "CLOSE_WAIT" {
			continue
		}
		// Only close() and shutdown() lead to FIN_WAIT1 and LAST_ACK; CLOSE can also be the work of a packet.
		if e.PID == 0 || !e.InTask && e.State.New != "FIN_WAIT1" && e.State.New != "LAST_ACK" && ownReset(c, e) == nil {
			return nil
		}
		return e
	}
	return nil
}

// ownReset is the RST that close() or disconnect() of the task made right after
// the state change s: it answers no packet, and its reason is one that only these calls give.
func ownReset(c *evidence.Case, s *evidence.Event) *evidence.Event {
	for i := range c.Events {
		r := &c.Events[i]
		if r.Kind != evidence.ResetSent || r.Packet != nil || r.Netns != s.Netns || r.PID != s.PID || r.CPU != s.CPU || r.At < s.At {
			continue
		}
		switch r.Reason {
		case "TCP_ABORT_ON_CLOSE", "TCP_ABORT_ON_LINGER", "TCP_DISCONNECT_WITH_DATA", "TCP_STATE":
			return r
		}
	}
	return nil
}

// unreadData reports whether the process closed an ordinary connection whose
// data it had not read: the kernel then sends a RST instead of a FIN (RFC 2525,
// 2.17). A socket that was set to reset at close() is no ordinary one.
func unreadData(c *evidence.Case, s *evidence.Event) bool {
	r := ownReset(c, s)
	return r != nil && r.Reason == "TCP_ABORT_ON_CLOSE" && s.Socket != nil && !s.Socket.Aborts
}

func findResetByApp(c *evidence.Case, e *evidence.Event) *Verdict {
	if s := ended(c); s != nil && unreadData(c, s) {
		return nil
	}
	if v := endedByApp(c, e, "reset", "CLOSE"); v != nil {
		return v
	}
	return resetByListener(c, e)
}

// resetByListener goes without a state event: the RST was born in the server's
// namespace, not by its firewall, while the process that has the listener ran.
func resetByListener(c *evidence.Case, e *evidence.Event) *Verdict {
	if e != nil || c.Probe.Outcome != evidence.Reset || c.Target.Protocol != "tcp" || ended(c) != nil {
		return nil
	}
	s := served(c)
	if s == nil || s.Kind != evidence.State || len(fates(c)) > 0 {
		return nil
	}
	n := space(c, s)
	var rst *evidence.Event
	for i := range c.Events {
		r := &c.Events[i]
		if r.At > s.At && direction(c, r) == evidence.Reply && (isRST(r) || r.Kind == evidence.ResetSent) {
			rst = r
			break
		}
	}
	if n == nil || !n.Sockets.Read() || rst == nil || rst.Netns != s.Netns || rst.Kind != evidence.Transmit && rst.Kind != evidence.ResetSent {
		return nil
	}
	v := &Verdict{Certainty: Inferred, Direction: evidence.Reply, Where: Where{Netns: s.Netns}}
	v.Proof = append(v.Proof, fmt.Sprintf("the connection became ESTABLISHED in %s %s", name(s.Netns), since(c, s)))
	probe := *s
	probe.PID = rst.PID
	p := setListener(c, &probe, n, v)
	if p == nil || p.PID != rst.PID {
		return nil
	}
	v.Proof = append(v.Proof, fmt.Sprintf("the RST was made in %s %s, while %s (pid %d) ran there", name(s.Netns), since(c, rst), p.Comm, p.PID),
		"the client saw "+outcome(c))
	v.Summary = fmt.Sprintf("%s: %s (pid %d) in %s accepted, then reset the connection before it answered", target(c), p.Comm, p.PID, name(s.Netns))
	return v
}

func findClosedByApp(c *evidence.Case, e *evidence.Event) *Verdict {
	if s := ended(c); s != nil && unreadData(c, s) {
		return endedByApp(c, e, "closed", "CLOSE")
	}
	return endedByApp(c, e, "closed", "FIN_WAIT1", "LAST_ACK")
}

func endedByApp(c *evidence.Case, e *evidence.Event, what string, states ...string) *Verdict {
	if e != nil || c.Target.Protocol != "tcp" || c.Probe.Outcome != evidence.Reset && c.Probe.Outcome != evidence.Closed {
		return nil
	}
	s := ended(c)
	if s == nil || !contains(states, s.State.New) {
		return nil
	}
	if end := s.State.End; unasked(c) && end != nil && end.Received == 0 {
		return nil // it was asked nothing, and may have waited long enough
	}
	v := &Verdict{Certainty: Observed, Direction: evidence.Reply, Where: Where{Netns: s.Netns}}
	v.Proof = append(v.Proof, fmt.Sprintf("%s (pid %d) took the connection from %s to %s %s, in %s", s.Comm, s.PID, s.State.Old, s.State.New, since(c, s), name(s.Netns)))
	v.Where.Process = author(c, s)
	v.Proof = append(v.Proof, ending(c, s)...)
	for i := range c.Events {
		if r := &c.Events[i]; r.Kind == evidence.ResetSent && r.Netns == s.Netns {
			v.Proof = append(v.Proof, fmt.Sprintf("its stack sent a RST%s %s", because(r), since(c, r)))
			if unreadData(c, s) {
				v.Proof = append(v.Proof, "that is the kernel's answer where a process closes a connection with data it has not read")
			}
			break
		}
	}
	v.Proof = append(v.Proof, "the client saw "+outcome(c))
	noteFiles(c, v)
	v.Summary = fmt.Sprintf("%s: %s (pid %d) in %s accepted, then %s the connection before it answered", target(c), s.Comm, s.PID, name(s.Netns), what)
	return v
}
