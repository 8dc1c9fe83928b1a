// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

var wrapCauses = []Cause{{
	ID: "libwrap-denied", Means: "accepted, then closed because of tcp wrappers",
	Needs: "hosts_access() of libwrap returned 0 about our own connection (uprobe), or without uprobes (inferred): a process that held it and no other opened both files, it was closed, and the rules deny; libwrap: the rules of hosts.allow and hosts.deny as the server sees them (process, file)",
	Find:  findLibwrapDenied,
}}

// wrapAnswered is the last answer that libwrap gave about our connection.
func wrapAnswered(c *evidence.Case) *evidence.Event {
	return lastWrap(c, func(e *evidence.Event) bool { return e.Wrap.Granted != nil })
}

// wrapRefused is that the server has libwrap end it because of our connection.
func wrapRefused(c *evidence.Case) *evidence.Event {
	return lastWrap(c, func(e *evidence.Event) bool { return e.Function == "refuse" })
}

// wrapUnanswered is the last question about our connection where libwrap has not returned from it.
func wrapUnanswered(c *evidence.Case) *evidence.Event {
	e := lastWrap(c, func(*evidence.Event) bool { return true })
	if e == nil || e.Wrap.Granted != nil || e.Function != "hosts_access" {
		return nil
	}
	return e
}

// lastWrap is the last call of libwrap about our connection that match takes. A
// server that names its client by address alone may have had another of its
// connections in mind: that counts when the address is ours too.
func lastWrap(c *evidence.Case, match func(*evidence.Event) bool) *evidence.Event {
	var last *evidence.Event
	for i := range c.Events {
		e := &c.Events[i]
		if e.Kind != evidence.WrapCall || e.Wrap == nil || e.Socket == nil || !match(e) {
			continue
		}
		client, _, _ := splitLocal(e.Socket.Remote, 4)
		if said, ok := parseAddr(e.Wrap.Address); e.Wrap.FD < 0 && (!ok || said != client) {
			continue
		}
		last = e
	}
	return last
}

// heard reports whether the client got an answer that is none of an error.
func heard(c *evidence.Case) bool {
	p := c.Probe
	return p.Outcome == evidence.Answered && !p.Unmatched && (p.Expected || !errorBanner(p.Banner))
}

// servedAfter reports whether the client heard of the server what that said after
// libwrap had denied by a: it need not heed that. What libwrap sends itself, by
// the option banners, is sent before it returns, and a process that it ends says no more.
func servedAfter(c *evidence.Case, a *evidence.Event) bool {
	if !heard(c) || wrapRefused(c) != nil {
		return false
	}
	var first uint32 // sequence number of the server's first byte
	known := false
	for i := range c.Events {
		e := &c.Events[i]
		if e.Netns != a.Netns || e.Kind != evidence.Transmit || e.Packet == nil || e.Packet.Protocol != "tcp" || direction(c, e) != evidence.Reply {
			continue
		}
		switch flags := e.Packet.Flags; {
		case flags == "S.":
			first, known = e.Packet.Seq+1, true
		case e.At > a.At && strings.Contains(flags, "P"):
			if !known {
				return true
			}
			at := int64(e.Packet.Seq - first)
			// an error is how a server says that it heeds what libwrap told it
			return c.Probe.Received > at && !(at < int64(len(c.Probe.Banner)) && errorBanner(c.Probe.Banner[at:]))
		}
	}
	return false
}

func findLibwrapDenied(c *evidence.Case, e *evidence.Event) *Verdict {
	if e != nil || c.Target.Protocol != "tcp" {
		return nil
	}
	if a := wrapUnanswered(c); a != nil {
		return handedOver(c, a)
	}
	a := wrapAnswered(c)
	if a == nil {
		v, _ := denialByFiles(c)
		return v
	}
	if *a.Wrap.Granted || servedAfter(c, a) {
		return nil
	}
	v := &Verdict{Certainty: Observed, Direction: evidence.Reply, Where: Where{Netns: a.Netns}}
	v.Proof = append(v.Proof, fmt.Sprintf("%s (pid %d) asked tcp wrappers about our connection for the daemon %q: hosts_access() returned 0, access denied, %s",
		a.Comm, a.PID, a.Wrap.Daemon, since(c, a)))
	v.Where.Process = &evidence.Process{PID: a.PID, Comm: a.Comm}
	rule := ""
	if d := wrapDecision(c, a, a.Wrap.Daemon, v); d != nil {
		rule = setWrapRule(c, a, d, v)
	}
	if v.Where.File == nil {
		v.Certainty = Inferred // which line it was is part of the answer
	}
	v.Proof = append(v.Proof, wrapEnd(c, a)...)
	v.Summary = fmt.Sprintf("%s: %s (pid %d) in %s denies this client by tcp wrappers%s", target(c), a.Comm, a.PID, name(a.Netns), rule)
	return v
}

// handedOver is where a rule has libwrap run another program in place of the
// server (the option twist): hosts_access() does not return then. That such a
// program does not serve the client is the work of the rule.
func handedOver(c *evidence.Case, a *evidence.Event) *Verdict {
	s := ended(c)
	if s == nil || s.PID != a.PID || s.At < a.At || s.Comm == a.Comm || heard(c) {
		return nil
	}
	v := &Verdict{Certainty: Inferred, Direction: evidence.Reply, Where: Where{Netns: a.Netns, Process: &evidence.Process{PID: a.PID, Comm: a.Comm}}}
	v.Proof = append(v.Proof, fmt.Sprintf("%s (pid %d) asked tcp wrappers about our connection for the daemon %q %s: hosts_access() did not return, the process went on as %s",
		a.Comm, a.PID, a.Wrap.Daemon, since(c, a), s.Comm))
	d := wrapDecision(c, a, a.Wrap.Daemon, v)
	if d == nil || d.Verdict != "delegated" || d.File == nil {
		return nil
	}
	rule := setWrapRule(c, a, d, v)
	v.Proof = append(v.Proof, wrapEnd(c, a)...)
	v.Summary = fmt.Sprintf("%s: tcp wrappers ran another program than %s in %s for this client, which did not serve it%s", target(c), a.Comm, name(a.Netns), rule)
	return v
}

// wrapDecision is what the rules say about the request of a, for a daemon; nil, with the reason in v, when they were not read.
func wrapDecision(c *evidence.Case, a *evidence.Event, daemon string, v *Verdict) *evidence.WrapDecision {
	n := space(c, a)
	if n == nil || !unread(v, n, "libwrap", n.Wraps.Read(), n.Wraps.Why()) {
		return nil
	}
	for i := range n.Wraps.Items {
		d := &n.Wraps.Items[i]
		if d.Process.PID != a.PID || a.Wrap != nil && d.Daemon != daemon {
			continue
		}
		p := d.Process
		v.Where.Process = &p
		if d.Library != "" {
			how := "maps " + d.Library
			if len(d.Linked) > 0 {
				how += " (" + strings.Join(d.Linked, " needs ") + ")"
			}
			v.Proof = append(v.Proof, fmt.Sprintf("%s %s", a.Comm, how))
		}
		if d.Unread == "" {
			return d
		}
		v.Unseen = append(v.Unseen, "hosts.allow and hosts.deny: "+d.Unread)
	}
	return nil
}

// setWrapRule names the line that denies, and how to let the client in. It
// returns words for the summary.
func setWrapRule(c *evidence.Case, a *evidence.Event, d *evidence.WrapDecision, v *Verdict) string {
	if len(d.Commands) > 0 && mark(c) != "" {
		v.Fixes = append(v.Fixes, Fix{
			Summary:  fmt.Sprintf("let %s use %s: the line %q on top of /etc/hosts.allow", d.Address, d.Daemon, d.Allow),
			Commands: d.Commands, Undo: d.Undo,
		})
	}
	for _, w := range d.Warnings {
		v.Proof = append(v.Proof, "warning: "+w)
	}
	switch {
	case d.Verdict == "granted":
		v.Unseen = append(v.Unseen, "which line denies: as the files are now, they grant")
		return ""
	case d.Verdict != "denied" && d.Verdict != "delegated" || d.File == nil:
		v.Unseen = append(v.Unseen, "which line denies: "+strings.Join(d.Reasons, "; "))
		return ""
	}
	v.Where.File = &FileRef{Path: d.File.Path, Line: d.File.Line, Text: d.File.Text}
	at := d.File.Path
	if d.File.Line > 0 {
		at += fmt.Sprintf(" line %d", d.File.Line)
	}
	why := "the rule denies by "
	switch {
	case d.Fault != "":
		why = "libwrap denies because of a mistake: " + d.Fault
	case d.Option != "":
		why = "the option " + d.Option + " decides, of a rule that matches by "
		fallthrough
	default:
		why += element(d.Matched[0]) + " and " + element(d.Matched[1])
	}
	v.Proof = append(v.Proof, fmt.Sprintf("%s: %q, read at %s: %s", at, d.File.Text, strings.TrimSuffix(d.ReadAt, "/")+d.File.Path, why))
	for _, r := range d.Reasons {
		v.Certainty = Inferred // an earlier line may decide
		v.Unseen = append(v.Unseen, "whether an earlier line decides: "+r)
	}
	return fmt.Sprintf(": %s: %s", at, d.File.Text)
}

func element(e evidence.Element) string {
	switch e.Kind {
	case "daemon":
		return fmt.Sprintf("the daemon's name (%s)", e.Pattern)
	case "address", "name", "user":
		return fmt.Sprintf("the client's %s (%s)", e.Kind, e.Pattern)
	case "port":
		return fmt.Sprintf("the server's port (%s)", e.Pattern)
	}
	return e.Pattern
}

// wrapEnd says how the server went on after a.
func wrapEnd(c *evidence.Case, a *evidence.Event) (proof []string) {
	if s := ended(c); s != nil && s.At > a.At {
		proof = append(proof, fmt.Sprintf("%s (pid %d) then took the connection from %s to %s, %s", s.Comm, s.PID, s.State.Old, s.State.New, since(c, s)))
		proof = append(proof, ending(c, s)...)
	}
	saw := "the client saw " + outcome(c)
	if c.Probe.Banner != "" {
		saw += fmt.Sprintf(", and heard %q", c.Probe.Banner)
	}
	return append(proof, saw)
}
