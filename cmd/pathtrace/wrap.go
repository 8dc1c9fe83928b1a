// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/tracer"
)

// wraps are the servers that may ask tcp wrappers about the probe.
type wraps struct {
	found     chan foundWraps
	listeners []evidence.Process // on the probe's port, before the probe
	users     []int              // processes that listen and may ask, or have another program ask
	armed     bool
	opens     bool // not what they ask is told, but which files they open
}

type foundWraps struct {
	netcfg.Listeners
	err error
}

// findWraps looks for them while the tracer is being loaded.
func (r request) findWraps(s *spaces) *wraps {
	w := &wraps{found: make(chan foundWraps, 1)}
	if r.protocol != "tcp" {
		w.found <- foundWraps{}
		return w
	}
	spaces := slices.Clone(s.connected)
	go func() {
		l, err := netcfg.FindListeners(spaces, r.target.Port())
		w.found <- foundWraps{l, err}
	}()
	return w
}

// arm has the servers tell what they ask; what cannot be watched is told, not fatal.
func (w *wraps) arm(t *tracer.Tracer) (unseen []string) {
	f := <-w.found
	for _, p := range f.Processes {
		p.State = "" // it was asleep then, which says nothing
		w.listeners = append(w.listeners, p)
	}
	if f.err != nil {
		unseen = append(unseen, "tcp wrappers: which servers use them: "+f.err.Error())
	}
	blind := false
	for _, l := range f.Libraries {
		w.users = append(w.users, l.Users...)
		if err := t.WatchLibwrap(l.Path); err != nil {
			unseen = append(unseen, fmt.Sprintf("tcp wrappers: the calls of %s are not seen: %v", l.Name, err))
			blind = true
			continue
		}
		w.armed = true
	}
	for _, p := range f.Embedded {
		w.users = append(w.users, p.PID)
		unseen = append(unseen, fmt.Sprintf("tcp wrappers: %s (pid %d) maps no libwrap and names its files: it may have the library built in, whose calls are not seen", p.Comm, p.PID))
		blind = true
	}
	if !blind {
		return unseen
	}
	if err := t.WatchOpens(); err != nil {
		return append(unseen, "tcp wrappers: which files of rules the server opens is not seen either: "+err.Error())
	}
	w.armed, w.opens = true, true
	return unseen
}

// may reports whether one of these processes, which have accepted the probe's connection, may ask tcp wrappers.
func (w *wraps) may(holders []evidence.Process) bool {
	return w.opens || w.armed && slices.ContainsFunc(holders, func(p evidence.Process) bool {
		return slices.Contains(w.users, p.PID) || netcfg.MapsLibwrap(p.PID)
	})
}

// wrapAnswer is what libwrap has said last about the probe's connection, if it has been asked.
func wrapAnswer(records []tracer.Record) (granted, asked bool) {
	for _, r := range slices.Backward(records) {
		if w := r.Event.Wrap; w != nil && w.Granted != nil {
			return *w.Granted, true
		}
	}
	return false, false
}

// wrapTime is how long an answer of tcp wrappers is awaited that has been asked for: looking a name up takes so long.
const wrapTime = time.Second

// awaitWrap waits for the answer of tcp wrappers where a process has just asked
// them: what the client has heard by then may be libwrap's (banners), not the server's.
func (w *watch) awaitWrap(ctx context.Context) {
	end := time.After(wrapTime)
	for w.tracer.Flush() == nil && pending(w.seen()) {
		select {
		case <-w.news:
		case <-end:
			return
		case <-ctx.Done():
			return
		}
	}
}

// pending reports whether a call of hosts_access() has not returned.
func pending(records []tracer.Record) bool {
	for i, r := range records {
		e := r.Event
		if e.Wrap == nil || e.Function != "hosts_access" || e.Wrap.Granted != nil {
			continue
		}
		if !slices.ContainsFunc(records[i+1:], func(o tracer.Record) bool {
			return o.Event.Wrap != nil && o.Event.PID == e.PID && o.Event.Wrap.FD == e.Wrap.FD
		}) {
			return true
		}
	}
	return false
}

// noteCallers reads who asks while that process is there: many end soon after.
func (g *gatherer) noteCallers(records []tracer.Record) {
	for _, r := range records {
		pid := r.Event.PID
		if r.Event.Wrap == nil && r.Event.Opened == nil || g.callers[pid].PID != 0 {
			continue
		}
		c := caller{Process: evidence.Process{PID: pid, Comm: r.Event.Comm}}
		// it may have gone on to another program, or be gone
		if p, err := netcfg.Process(pid); err == nil && p.State != "Z" && p.Comm == r.Event.Comm {
			c.Process = p
			c.library, c.linked, _ = netcfg.LinkedLibwrap(pid)
			c.reader = netcfg.NewReader(pid)
		}
		g.callers[pid] = c
	}
}

// caller is a process that has asked tcp wrappers.
type caller struct {
	evidence.Process
	library string
	linked  []string
	reader  netcfg.Reader
}

// wrapDecisions evaluates the rules for each process that asked in a namespace,
// or of which it is only known that it opened them.
func (g *gatherer) wrapDecisions(name string, c *evidence.Case) evidence.Section[evidence.WrapDecision] {
	var none evidence.Section[evidence.WrapDecision]
	out := []evidence.WrapDecision{}
	for i := range c.Events {
		e := &c.Events[i]
		if e.Netns != name || e.Socket == nil {
			continue
		}
		server, err1 := netip.ParseAddrPort(e.Socket.Local)
		client, err2 := netip.ParseAddrPort(e.Socket.Remote)
		if err1 != nil || err2 != nil {
			continue
		}
		var d evidence.WrapDecision
		switch {
		case e.Wrap != nil && (e.Wrap.Granted != nil || unanswered(c.Events[i:])):
			through := g.witnesses(e, e.Wrap.Parent)
			d = netcfg.EvaluateWrap(*e.Wrap, server, client, g.callers[e.PID].reader, through, "pathtrace-"+c.ID)
			g.identify(&d, e.PID, through)
		case e.Opened != nil && !slices.ContainsFunc(c.Events, func(o evidence.Event) bool { return o.Wrap != nil && o.PID == e.PID }):
			opened := openedBefore(c.Events[:i+1], e.PID)
			if out = slices.DeleteFunc(out, func(d evidence.WrapDecision) bool { return d.Process.PID == e.PID }); opened == nil {
				continue
			}
			through := g.witnesses(e, e.Opened.Parent)
			d = netcfg.EvaluateOpened(e.Comm, opened, client.Addr(), through, "pathtrace-"+c.ID)
			g.identify(&d, e.PID, through)
			if p, err := netcfg.Process(e.PID); err == nil && p.Comm == e.Comm {
				netcfg.Waiting(&d.Process)
			}
		default:
			continue
		}
		out = append(out, d)
	}
	if len(out) == 0 {
		return none
	}
	return evidence.Have(out)
}

// unanswered reports whether the first event is a call of hosts_access() that did not return.
func unanswered(events []evidence.Event) bool {
	return events[0].Function == "hosts_access" && !slices.ContainsFunc(events[1:], func(e evidence.Event) bool {
		return e.Wrap != nil && e.PID == events[0].PID && e.Wrap.FD == events[0].Wrap.FD
	})
}

// openedBefore are the files of rules that a process opened; nil where the name of one could not be read.
func openedBefore(events []evidence.Event, pid int) (opened []evidence.Opened) {
	for _, e := range events {
		if e.Opened == nil || e.PID != pid {
			continue
		}
		if e.Opened.Path == "" {
			return nil
		}
		opened = append(opened, *e.Opened)
	}
	return opened
}

// witnesses are processes that may see the files which the author of e saw, those that live longest first: a fix may name them.
func (g *gatherer) witnesses(e *evidence.Event, parent int) []int {
	return slices.Concat(g.wraps.users, []int{parent, e.PID})
}

func (g *gatherer) identify(d *evidence.WrapDecision, pid int, through []int) {
	who := g.callers[pid]
	d.Process, d.Library, d.Linked = who.Process, who.library, who.linked
	g.inherit(d, through)
}

// inherit fills in what is no longer to be read of a process from its parent, or from the listener, where they run the same program.
func (g *gatherer) inherit(d *evidence.WrapDecision, from []int) {
	for _, pid := range from {
		if d.Process.Exe != "" {
			return
		}
		if p, err := netcfg.Process(pid); err == nil && p.Comm == d.Process.Comm {
			d.Process.Exe, d.Process.Unit, d.Process.Cgroup = p.Exe, p.Unit, p.Cgroup
			d.Library, d.Linked, _ = netcfg.LinkedLibwrap(pid)
		}
	}
}
