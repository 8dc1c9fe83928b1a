// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
)

func packetText(e *evidence.Event, class string) string {
	p := e.Packet
	if p == nil {
		return class
	}
	switch {
	case class == "ICMP" && p.Type != nil && p.Code != nil:
		return icmpText(p.Family, *p.Type, *p.Code)
	case p.TTL > 0 && p.TTL <= 2:
		return fmt.Sprintf("%s, TTL %d", class, p.TTL)
	}
	return class
}

func (l *ladder) drop(e *evidence.Event, class string) {
	if l.noise(e, class) {
		return
	}
	if e.Hook != "" && strings.HasPrefix(e.Reason, "NETFILTER") {
		l.group(e, class).drop = e
		return
	}
	station := "drop"
	switch {
	case e.Hook != "":
		station = e.Hook
	case strings.HasPrefix(e.Function, "tcp_") || strings.HasPrefix(e.Function, "udp_") || strings.HasPrefix(e.Function, "__udp"):
		station = "socket"
	}
	l.add(e, vital, station, class+": "+dropText(e), "✗ DROP")
}

// noise is what the kernel frees as lost though nothing is: what is left in
// queues when a socket closes, and the rests of a connection that was made.
func (l *ladder) noise(e *evidence.Event, class string) bool {
	return e.Reason == "QUEUE_PURGE" ||
		l.v.Cause == "reachable" && !opens(class) && class != "SYN-ACK"
}

func dropText(e *evidence.Event) string {
	reason := e.Reason
	if reason == "" {
		reason = "no reason given"
	}
	if e.Function == "" {
		return reason
	}
	return reason + " in " + e.Function
}

// state tells the steps of the handshake on the side that was asked; how it
// went on our side is the probe's outcome.
func (l *ladder) state(e *evidence.Event) {
	s := e.State
	if s == nil {
		return
	}
	on := ""
	if e.Socket != nil && e.Socket.Local != "" {
		on = " on " + e.Socket.Local
	}
	switch {
	case s.New == "SYN_RECV":
		l.add(e, socket, "socket", "SYN received"+on, "")
	case s.Old == "SYN_RECV" && s.New == "ESTABLISHED":
		l.add(e, socket, "socket", "connection established"+on, "")
	case s.Old == "ESTABLISHED" && e.Direction == evidence.Reply && l.v.Cause != "reachable" && (s.New == "FIN_WAIT1" || s.New == "CLOSE" && e.InTask):
		l.add(e, vital, "socket", "closed by "+task(e), l.ends())
	}
}

// ends is the mark of a close that is what the verdict is about.
func (l *ladder) ends() string {
	if l.v.Cause == "closed-by-app" || l.v.Cause == "reset-by-app" {
		return "✗"
	}
	return ""
}

func task(e *evidence.Event) string { return fmt.Sprintf("%s (pid %d)", e.Comm, e.PID) }

// answer tells what the kernel did about the packet, other than to pass or free it.
func (l *ladder) answer(e *evidence.Event) {
	switch e.Kind {
	case evidence.ResetSent:
		if l.v.Cause != "reachable" {
			l.add(e, vital, "socket", "← RST sent: "+or(e.Reason, "no reason given"), "")
		}
	case evidence.ResetGot:
		if l.v.Cause != "reachable" && !l.seen[l.arrival(e, "RST")] {
			l.add(e, socket, "socket", "← RST taken", "")
		}
	case evidence.ICMPSent:
		if e.ICMP != nil {
			l.add(e, vital, "icmp", "← "+icmpText(4, e.ICMP.Type, e.ICMP.Code)+" sent", "")
		}
	case evidence.NeighborEvt:
		l.neighbor(e)
	case evidence.WrapCall:
		if w := e.Wrap; w != nil && w.Granted != nil && !*w.Granted {
			l.add(e, vital, "libwrap", fmt.Sprintf("%s: hosts_access(%s) denies", task(e), w.Daemon), "✗")
		}
	case evidence.RulesOpened:
		if o := e.Opened; o != nil && l.v.Cause == "libwrap-denied" {
			l.add(e, vital, "libwrap", fmt.Sprintf("%s opens %s", task(e), o.Path), "")
		}
	}
}

func (l *ladder) neighbor(e *evidence.Event) {
	n := e.Neighbor
	if n == nil {
		return
	}
	dev := or(n.Device, e.Device)
	switch n.State {
	case "FAILED":
		l.add(e, vital, "neighbor", fmt.Sprintf("no answer from %s on %s", n.Address, dev), "✗")
	case "INCOMPLETE":
		if l.v.Cause != "neighbor-unresolved" && l.v.Cause != "unexplained" {
			return // asked and answered
		}
		l.add(e, socket, "neighbor", fmt.Sprintf("who has %s on %s?", n.Address, dev), "")
	}
}

// outcome tells what the program that connects saw. A timeout that we cut short
// because the kernel had explained itself is no news.
func (l *ladder) outcome() {
	p := l.c.Probe
	text := map[string]string{
		evidence.Answered:    "connected and answered",
		evidence.Connected:   "connected",
		evidence.Refused:     "connection refused",
		evidence.Reset:       "connection reset",
		evidence.Timeout:     "no answer",
		evidence.Unreachable: "unreachable",
		evidence.Denied:      "denied",
		evidence.Closed:      "connected, then closed by the other end",
		evidence.Silent:      "connected, but nothing was said",
	}[p.Outcome]
	if text == "" || p.Outcome == evidence.Timeout && p.DurationNS < p.TimeoutNS {
		return
	}
	if p.Errno != "" {
		text += " (" + p.Errno + ")"
	}
	if p.Banner != "" {
		if p.Outcome == evidence.Silent {
			text = "connected, and no more was said than"
		}
		text += ": " + short(strings.TrimRight(p.Banner, "\r\n"), 60)
	}
	l.lines = append(l.lines, line{at: p.OutcomeNS(), where: place(p.Netns), station: or(p.Syscall, "connect"), text: text, rank: vital})
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

var icmp4 = map[[2]int]string{
	{3, 0}: "network unreachable", {3, 1}: "host unreachable", {3, 2}: "protocol unreachable", {3, 3}: "port unreachable",
	{3, 4}: "fragmentation needed", {3, 9}: "network prohibited", {3, 10}: "host prohibited", {3, 13}: "administratively prohibited",
	{11, 0}: "TTL expired", {11, 1}: "reassembly timeout",
}

var icmp6 = map[[2]int]string{
	{1, 0}: "no route", {1, 1}: "administratively prohibited", {1, 3}: "address unreachable", {1, 4}: "port unreachable",
	{1, 5}: "source address refused", {1, 6}: "route rejects", {2, 0}: "packet too big", {3, 0}: "hop limit expired",
}

func icmpText(family, kind, code int) string {
	name, known := "ICMP", icmp4[[2]int{kind, code}]
	if family == 6 {
		name, known = "ICMPv6", icmp6[[2]int{kind, code}]
	}
	s := fmt.Sprintf("%s %d/%d", name, kind, code)
	if known != "" {
		s += " " + known
	}
	return s
}

// ms writes nanoseconds as the ladder does.
func ms(ns int64) string { return fmt.Sprintf("%.2f ms", float64(ns)/float64(time.Millisecond)) }
