// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// hostsAllow is the first of libwrap's two files of rules, hosts_access(5).
const hostsAllow = "/etc/hosts.allow"

// rulesOpened are the files that a process opened, last of all, as libwrap does
// which is asked once. It held the connection, so has accepted it or got it from who did.
func rulesOpened(c *evidence.Case, end *evidence.Event) (opened []*evidence.Event) {
	for i := range c.Events {
		e := &c.Events[i]
		if e.Kind != evidence.RulesOpened || e.Opened == nil || end != nil && !endedBy(e, end) {
			continue
		}
		if len(opened) > 0 && opened[0].PID != e.PID || strings.HasSuffix(e.Opened.Path, "hosts.allow") {
			opened = opened[:0] // libwrap begins with hosts.allow
		}
		opened = append(opened, e)
	}
	return opened
}

// endedBy reports whether the process that opened a file by the event e went on
// to end the connection, or its parent or child did, and ran the same program: a
// server that goes on to another program has been granted its request.
func endedBy(e, end *evidence.Event) bool {
	if e.Netns != end.Netns || e.At > end.At || e.Comm != end.Comm {
		return false
	}
	return e.PID == end.PID || e.Opened.Parent == end.PID || end.State.End != nil && end.State.End.Parent == e.PID
}

// dozes reports whether a process sleeps for a time that it has set itself, as
// libwrap has it do for five seconds before it ends a process (clean_exit.c).
func dozes(p *evidence.Process) bool {
	return p.State == "S" && slices.ContainsFunc(p.Stack, func(f string) bool { return strings.Contains(f, "nanosleep") })
}

// denialByFiles deduces, where the calls of libwrap were not seen, that it
// denied: from the files of rules that the server opened, from what they say,
// and from the end of the connection, or that the server dozes before it. It
// returns why not where files were opened.
func denialByFiles(c *evidence.Case) (v *Verdict, why string) {
	s := ended(c)
	switch c.Probe.Outcome {
	case evidence.Reset, evidence.Closed, evidence.Answered:
		if s == nil || heard(c) {
			return nil, ""
		}
	case evidence.Connected, evidence.Silent:
	default:
		return nil, ""
	}
	opened := rulesOpened(c, s)
	if len(opened) == 0 {
		return nil, ""
	}
	last := opened[len(opened)-1]
	names := make([]string, 0, len(opened))
	for _, e := range opened {
		if e.Opened.Path == "" {
			return nil, fmt.Sprintf("%s (pid %d) opened a file whose name could not be read", e.Comm, e.PID)
		}
		if e.Opened.Others != 0 {
			return nil, fmt.Sprintf("%s (pid %d) opened %s, and held other connections beside ours, which it may have asked about", e.Comm, e.PID, e.Opened.Path)
		}
		names = append(names, e.Opened.Path)
	}
	files := strings.Join(names, " and ")
	v = &Verdict{Certainty: Inferred, Direction: evidence.Reply, Where: Where{Netns: last.Netns, Process: &evidence.Process{PID: last.PID, Comm: last.Comm}}}
	v.Proof = append(v.Proof, fmt.Sprintf("%s (pid %d) opened %s %s, as libwrap does when it is asked; of connections it held ours and no other", last.Comm, last.PID, files, since(c, last)))
	d := wrapDecision(c, last, "", v)
	switch {
	case d == nil:
		return nil, files + " were opened; " + strings.Join(v.Unseen, "; ")
	case d.Verdict == "granted":
		return nil, files + " were opened; they grant this client"
	case d.Verdict != "denied" || d.File == nil:
		return nil, files + " were opened; whether they deny this client is open: " + strings.Join(d.Reasons, "; ")
	case names[0] != hostsAllow || last.Opened.Path != d.File.Path:
		return nil, fmt.Sprintf("%s were opened, which is not where libwrap would have ended: %s denies", files, d.File.Path)
	}
	then := "and closed the connection"
	if s == nil {
		if !dozes(&d.Process) {
			return nil, files + " were opened, and deny this client; but the server has not closed the connection"
		}
		then = "and dozes, as libwrap does before it closes a connection"
		v.Proof = append(v.Proof, who(&d.Process)+" "+doing(&d.Process)+": libwrap has a process that it ends sleep for five seconds before")
	}
	rule := setWrapRule(c, last, d, v)
	daemon := "for whatever daemon the server calls itself"
	if d.Daemon != "" {
		daemon = "for the daemon " + d.Daemon + ", as this program calls itself"
	}
	v.Proof = append(v.Proof, "deduced, not seen: that libwrap was asked about our connection and denied it, as this line does "+daemon)
	v.Proof = append(v.Proof, wrapEnd(c, last)...)
	v.Summary = fmt.Sprintf("%s: %s (pid %d) in %s read the rules of tcp wrappers, which deny this client, %s%s",
		target(c), last.Comm, last.PID, name(last.Netns), then, rule)
	return v, ""
}

// noteFiles tells of the files of rules that a server opened to no proven effect.
func noteFiles(c *evidence.Case, v *Verdict) {
	if lastWrap(c, func(*evidence.Event) bool { return true }) != nil {
		return
	}
	if _, why := denialByFiles(c); why != "" {
		v.Unseen = append(v.Unseen, "whether tcp wrappers denied: "+why)
	}
}
