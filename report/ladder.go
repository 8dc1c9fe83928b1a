// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// untimed marks what was read, not seen.
const untimed = -1 << 62

// line is one station of the packet's way.
type line struct {
	at      int64 // nanoseconds since connect(), or untimed
	where   string
	station string
	text    string
	mark    string // set where the packet died
	rank    rank
	assumed bool // at is its place in the order, and no time that was seen
}

// rank says what goes first where there are more stations than room: the highest.
type rank int

const (
	vital   rank = iota // drops, the outcome, what was sent again
	hook                // a firewall hook that was passed
	route               // a routing decision
	socket              // a socket's state
	arrival             // the packet came to a namespace
	echo                // the same for the way back
)

func (l *line) when() string {
	if l.at == untimed || l.assumed {
		return ""
	}
	return ms(l.at)
}

// ladder turns events into stations.
type ladder struct {
	c       *evidence.Case
	v       verdict.Verdict
	lines   []line
	flight  int                    // how often the first packet was sent again
	resent  map[string]int         // how often a socket said that it sends again, by class and direction
	sent    map[string]int64       // signatures of the first packet where it starts, by their time
	classes map[[2]string]string   // what the last packet of a namespace and direction was
	hooks   map[hookKey]*hookGroup // open until the end
	order   []hookKey              // of hooks, by first event
	seen    map[string]bool        // arrivals already told, by namespace, class, direction and flight
	left    []departure
}

// departure is a packet that went out, and has not yet been seen elsewhere.
type departure struct {
	line
	class, direction string
}

// stations returns the way of the packet, in time order, one line a station,
// short enough for a screen.
func stations(c *evidence.Case, v verdict.Verdict) []line {
	l := &ladder{
		c: c, v: v,
		sent:    map[string]int64{},
		resent:  map[string]int{},
		classes: map[[2]string]string{},
		hooks:   map[hookKey]*hookGroup{},
		seen:    map[string]bool{},
	}
	for i := range c.Events {
		l.event(&c.Events[i])
	}
	for _, k := range l.order {
		l.hooks[k].close(l)
	}
	l.translations()
	l.searches()
	for _, d := range l.left {
		l.lines = append(l.lines, d.line)
	}
	l.outcome()
	slices.SortStableFunc(l.lines, byTime)
	return fit(merge(l.lines))
}

func byTime(a, b line) int { return cmp.Compare(a.at, b.at) }

func (l *ladder) add(e *evidence.Event, r rank, station, text, mark string) {
	if e.Direction == evidence.Reply && e.Kind != evidence.State && e.Kind != evidence.Accept && !strings.HasPrefix(text, "← ") {
		text = "← " + text
	}
	l.lines = append(l.lines, line{at: e.At, where: place(e.Netns), station: station, text: text, mark: mark, rank: r})
}

func place(netns string) string {
	if netns == "" {
		return "-"
	}
	return netns
}

func (l *ladder) event(e *evidence.Event) {
	class := l.classify(e)
	l.again(e, class)
	switch e.Kind {
	case evidence.Receive:
		l.receive(e, class)
	case evidence.Transmit:
		l.transmit(e, class)
	case evidence.RuleVerdict, evidence.HookPassed:
		l.hook(e, class)
	case evidence.Drop:
		l.drop(e, class)
	case evidence.State:
		l.state(e)
	case evidence.Retransmit:
		l.retransmit(e, class)
	case evidence.Accept:
		l.add(e, socket, "socket", "accepted by "+task(e), "")
	case evidence.ResetSent, evidence.ResetGot, evidence.ICMPSent, evidence.NeighborEvt, evidence.WrapCall, evidence.RulesOpened:
		l.answer(e)
	}
}

// classify names the packet: SYN, SYN-ACK, ACK, FIN, RST, ICMP, UDP. An event
// without headers is about the packet that was there before.
func (l *ladder) classify(e *evidence.Event) string {
	k := [2]string{e.Netns, e.Direction}
	if e.Packet == nil {
		if c, ok := l.classes[k]; ok {
			return c
		}
		return "SYN"
	}
	l.classes[k] = class(e.Packet)
	return l.classes[k]
}

func class(p *evidence.Packet) string {
	switch {
	case p.Carries != nil:
		return class(p.Inner()) + " in " + strings.ToUpper(p.Protocol)
	case p.Protocol == "icmp" || p.Protocol == "icmpv6":
		return "ICMP"
	case p.Protocol == "udp":
		return "UDP"
	case p.Protocol != "tcp":
		return p.Protocol
	case strings.Contains(p.Flags, "R"):
		return "RST"
	case p.Flags == "S.":
		return "SYN-ACK"
	case strings.Contains(p.Flags, "S"):
		return "SYN"
	case strings.Contains(p.Flags, "F"):
		return "FIN"
	case strings.Contains(p.Flags, "P"):
		return "data"
	}
	return "ACK"
}

// opens reports whether a packet of the class is one of those whose way is told
// in full: the first of either direction.
func opens(class string) bool {
	class, _, _ = strings.Cut(class, " in ") // a tunnel's packet
	return class == "SYN" || class == "UDP"
}

// first reports whether a forward packet of the class is what the probe sent first.
func (l *ladder) first(class string) bool {
	return opens(class) || class == "ICMP" && l.c.Target.Protocol == "icmp"
}

// again notices that the first packet was sent once more: it passes where it
// starts a second time. The kernel never waits less than 200 ms for that.
func (l *ladder) again(e *evidence.Event, class string) {
	if !opens(class) || e.Direction == evidence.Reply || e.Netns != l.c.Probe.Netns ||
		(e.Kind != evidence.HookPassed && e.Kind != evidence.Transmit && e.Kind != evidence.RuleVerdict) {
		return
	}
	sign := fmt.Sprint(e.Kind, e.Hook, e.Device)
	if e.Priority != nil {
		sign += fmt.Sprint(" ", *e.Priority)
	}
	if e.Rule != nil {
		sign += fmt.Sprint(" ", e.Rule.Table, e.Rule.Chain, e.Rule.Handle, e.Rule.Number)
	}
	if first, ok := l.sent[sign]; !ok || e.At-first < int64(150*time.Millisecond) {
		if !ok {
			l.sent[sign] = e.At
		}
		return
	}
	l.flight++
	l.sent = map[string]int64{sign: e.At}
	l.add(e, vital, "again", sentAgain(class, l.flight), "")
}

// retransmit is the socket's own word for the same; it comes after the packet
// has left, and also where no packet was seen.
func (l *ladder) retransmit(e *evidence.Event, class string) {
	k := class + e.Direction
	l.resent[k]++
	n := l.resent[k]
	if opens(class) && e.Direction != evidence.Reply {
		if n <= l.flight {
			return
		}
		l.flight = n
	}
	l.add(e, vital, "again", sentAgain(class, n), "")
}

func sentAgain(class string, n int) string { return fmt.Sprintf("%s sent again (%d)", class, n) }

func (l *ladder) receive(e *evidence.Event, class string) {
	l.left = slices.DeleteFunc(l.left, func(d departure) bool {
		return d.class == class && d.direction == e.Direction && d.at <= e.At
	})
	r := arrival
	switch {
	case e.Direction == evidence.Reply && (class == "SYN-ACK" || class == "RST" || class == "ICMP" || class == "UDP"):
		r = echo
	case e.Direction == evidence.Reply || !opens(class):
		return
	}
	k := l.arrival(e, class)
	if l.seen[k] {
		return // a bridge and its port both hand it over
	}
	l.seen[k] = true
	l.add(e, r, "in "+e.Device, packetText(e, class), "")
}

// arrival is the key of a packet of the class in the event's namespace.
func (l *ladder) arrival(e *evidence.Event, class string) string {
	return fmt.Sprint(e.Netns, " ", class, " ", e.Direction == evidence.Reply || class == "RST", " ", l.flight)
}

func (l *ladder) transmit(e *evidence.Event, class string) {
	if !opens(class) && class != "SYN-ACK" && class != "RST" && class != "ICMP" {
		return
	}
	l.left = slices.DeleteFunc(l.left, func(d departure) bool {
		return d.class == class && d.direction == e.Direction && d.where == place(e.Netns)
	})
	text := packetText(e, class)
	if e.Direction == evidence.Reply {
		text = "← " + text
	}
	d := departure{class: class, direction: e.Direction}
	d.line = line{at: e.At, where: place(e.Netns), station: "out " + e.Device, text: text, rank: socket}
	l.left = append(l.left, d)
}
