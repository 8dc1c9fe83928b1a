// SPDX-License-Identifier: Apache-2.0

package report

import (
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// visit is what the kernel said, without a break, about packets of one
// direction at one place: a span.
type visit struct {
	station
	events []*evidence.Event
	died   string // what freed it; empty: nothing did
}

// station is where in a namespace something happened to packets of a class, or to their socket.
type station struct{ netns, direction, place, class string }

// rest is the pause after which the same place is visited anew: the kernel waits
// at least 200 ms before it sends a packet again.
const rest = 150 * time.Millisecond

// visited groups the events of a case by place, in the order of their first.
func visited(c *evidence.Case, v verdict.Verdict) []*visit {
	l := &ladder{c: c, v: v, classes: map[[2]string]string{}}
	var out []*visit
	open := map[station]*visit{}
	for i := range c.Events {
		e := &c.Events[i]
		if e.Rule != nil && ours(e.Rule.Table) {
			continue
		}
		class := l.classify(e)
		at := station{e.Netns, e.Direction, placeOf(e), class}
		x := open[at]
		if x == nil || e.At-x.events[len(x.events)-1].At > int64(rest) {
			x = &visit{station: at}
			open[at] = x
			out = append(out, x)
		}
		x.events = append(x.events, e)
		switch {
		case x.died != "":
		case e.Kind == evidence.Drop && !l.noise(e, class):
			x.died = class + ": " + dropText(e)
		case e.Rule != nil && e.Rule.Verdict == "drop":
			x.died = class + ": " + stepText(c, e)
		}
	}
	return out
}

// placeOf names the place of an event: its hook, else its device, else the part of the kernel.
func placeOf(e *evidence.Event) string {
	switch {
	case e.Hook != "":
		return e.Hook
	case e.Kind == evidence.Receive:
		return "in " + e.Device
	case e.Kind == evidence.Transmit:
		return "out " + e.Device
	case e.Kind == evidence.Route:
		return "route"
	case e.Kind == evidence.NeighborEvt:
		return "neighbor"
	case e.Kind == evidence.WrapCall:
		return "libwrap"
	case e.Kind == evidence.ICMPSent:
		return "icmp"
	case e.Kind == evidence.Drop || e.Kind == evidence.Consume:
		return or(e.Function, "drop")
	}
	return "socket"
}

// span is when the visit began and ended, in nanoseconds since connect().
func (x *visit) span() (from, to int64) {
	from, to = x.events[0].At, x.events[0].At
	for _, e := range x.events {
		from, to = min(from, e.At), max(to, e.At)
	}
	return from, to
}

func (x *visit) name() string {
	s := or(x.netns, "?") + " " + x.place + " " + x.class
	if x.direction == evidence.Reply {
		s = "← " + s
	}
	return s
}

// tell fills a span with what happened at the place.
func (x *visit) tell(s *otlpSpan, c *evidence.Case) {
	first := x.events[0]
	a := &s.Attributes
	a.text("pathtrace.netns", x.netns)
	a.text("pathtrace.direction", x.direction)
	a.text("pathtrace.hook", first.Hook)
	a.text("network.interface.name", first.Device)
	a.text("pathtrace.packet", x.class)
	if p := first.Packet; p != nil {
		a.text("source.address", p.Source)
		a.number("source.port", int64(p.SPort))
		a.text("destination.address", p.Dest)
		a.number("destination.port", int64(p.DPort))
	}
	for _, e := range x.events {
		s.Events = append(s.Events, otlpEventOf(c, e))
	}
	if x.died != "" {
		s.Status = &otlpStatus{Clean(x.died), statusError}
	}
}

func otlpEventOf(c *evidence.Case, e *evidence.Event) otlpEvent {
	out := otlpEvent{Time: unixNano(c, e.At), Name: Clean(string(e.Kind))}
	a := &out.Attributes
	a.text("pathtrace.text", eventText(c, e))
	a.text("pathtrace.reason", e.Reason)
	a.text("code.function.name", e.Function)
	if r := e.Rule; r != nil {
		a.text("pathtrace.rule.backend", r.Backend)
		a.text("pathtrace.rule.family", r.Family)
		a.text("pathtrace.rule.table", r.Table)
		a.text("pathtrace.rule.chain", r.Chain)
		a.number("pathtrace.rule.handle", int64(min(r.Handle, 1<<62)))
		a.number("pathtrace.rule.number", int64(r.Number))
		a.text("pathtrace.rule.verdict", r.Verdict)
	}
	if e.InTask {
		a.number("process.pid", int64(e.PID))
		a.text("process.executable.name", e.Comm)
	}
	return out
}
