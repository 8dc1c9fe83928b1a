// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// every returns one line for each event, as it was told. From verbose 2 on
// with what tells copies of a packet apart.
func every(c *evidence.Case, verbose int) []line {
	lines := make([]line, 0, len(c.Events)+1)
	for i := range c.Events {
		e := &c.Events[i]
		l := line{at: e.At, where: place(e.Netns), station: or(e.Hook, string(e.Kind)), text: eventText(c, e)}
		if e.Direction == evidence.Reply {
			l.text = "← " + l.text
		}
		if e.Kind == evidence.Drop || e.Rule != nil && e.Rule.Verdict == "drop" {
			l.mark = "✗"
		}
		if verbose > 1 {
			l.text += depth(e)
		}
		lines = append(lines, l)
	}
	l := &ladder{c: c}
	l.outcome()
	lines = append(lines, l.lines...)
	slices.SortStableFunc(lines, byTime)
	return lines
}

func eventText(c *evidence.Case, e *evidence.Event) string {
	var w []string
	add := func(format string, a ...any) { w = append(w, fmt.Sprintf(format, a...)) }
	switch e.Kind {
	case evidence.Receive:
		add("in %s", e.Device)
	case evidence.Transmit:
		add("out %s", e.Device)
	case evidence.Drop:
		add("%s %s", e.Kind, dropText(e))
	case evidence.Consume: // has no reason where nothing is wrong
		add("used up %s", strings.TrimPrefix(dropText(e), "no reason given "))
	case evidence.HookPassed:
		if e.Priority != nil {
			add("passed priority %d", *e.Priority)
		}
	case evidence.ResetSent, evidence.ResetGot:
		add("%s %s", e.Kind, e.Reason)
	}
	if e.Rule != nil {
		add("%s", stepText(c, e))
	}
	if r := e.Route; r != nil {
		add("%s from %s: %s", r.Dest, or(r.Source, "any"), routeAnswer(c, e))
	}
	if s := e.State; s != nil {
		add("%s → %s", s.Old, s.New)
	}
	if i := e.ICMP; i != nil {
		add("%s", icmpText(4, i.Type, i.Code))
	}
	if n := e.Neighbor; n != nil {
		add("%s dev %s %s", n.Address, n.Device, n.State)
	}
	if w := e.Wrap; w != nil && w.Granted != nil {
		add("hosts_access(%s) returned %t", w.Daemon, *w.Granted)
	}
	if o := e.Opened; o != nil {
		add("opened %s", strings.TrimSpace(o.Path+" "+o.Errno))
	}
	if s := e.Socket; s != nil {
		add("socket %s %s", s.Local, s.State)
	}
	if p := e.Packet; p != nil {
		add("%s", headers(p))
	}
	if e.InTask {
		add("by %s", task(e))
	}
	return strings.Join(w, " · ")
}

func routeAnswer(c *evidence.Case, e *evidence.Event) string {
	r := e.Route
	if r.Errno != "" {
		return fmt.Sprintf("%s in table %s", r.Errno, r.Table)
	}
	return describeRoute(c.Namespace(e.Netns), r.Dest, "", r.OIF, r.Gateway, r.Table)
}

func stepText(c *evidence.Case, e *evidence.Event) string {
	s := e.Rule
	text := fmt.Sprintf("%s %s %s %s", s.Backend, s.Family, s.Table, s.Chain)
	switch {
	case s.Policy:
		text += " policy"
	case s.Handle > 0:
		text += fmt.Sprintf(" handle %d", s.Handle)
	case s.Number > 0:
		text += fmt.Sprintf(" rule %d", s.Number)
	}
	if r := ruleOf(c, e.Netns, *s); r != nil && !s.Policy && r.Text != "" {
		text += " {" + r.Text + "}"
	}
	return strings.TrimSpace(text + " " + s.Verdict + " " + s.Target)
}

func headers(p *evidence.Packet) string {
	from, to := p.Source, p.Dest
	if p.SPort != 0 || p.DPort != 0 {
		from, to = net.JoinHostPort(from, strconv.Itoa(p.SPort)), net.JoinHostPort(to, strconv.Itoa(p.DPort))
	}
	s := fmt.Sprintf("%s > %s %s", from, to, p.Protocol)
	if p.Flags != "" {
		s += " [" + p.Flags + "]"
	}
	if p.Type != nil && p.Code != nil {
		s += fmt.Sprintf(" %d/%d", *p.Type, *p.Code)
	}
	s += fmt.Sprintf(" ttl %d len %d", p.TTL, p.Length)
	if p.Mark != 0 {
		s += fmt.Sprintf(" mark 0x%x", p.Mark)
	}
	return s
}

func depth(e *evidence.Event) string {
	s := fmt.Sprintf(" · cpu %d", e.CPU)
	if e.SKB != "" {
		s += " skb " + e.SKB
	}
	if e.Rule != nil && e.Rule.TraceID != 0 {
		s += fmt.Sprintf(" trace %08x", e.Rule.TraceID)
	}
	if len(e.Stack) > 0 {
		s += " < " + strings.Join(e.Stack, " < ")
	}
	return s
}
