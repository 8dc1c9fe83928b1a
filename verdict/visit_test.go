// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
)

func caseNamed(t *testing.T, name string) *evidence.Case {
	t.Helper()
	for _, n := range cases(t) {
		if n.name == name {
			return n.load(t)
		}
	}
	t.Fatalf("no case %s", name)
	return nil
}

func find(t *testing.T, c *evidence.Case, match func(*evidence.Event) bool) *evidence.Event {
	t.Helper()
	i := slices.IndexFunc(c.Events, func(e evidence.Event) bool { return match(&e) })
	if i < 0 {
		t.Fatal("no such event")
	}
	return &c.Events[i]
}

func resetLeft(e *evidence.Event) bool { return e.Kind == evidence.Transmit && isRST(e) }

// On a busy machine much time passes between a REJECT's answer and the drop.
func TestSlowAnswerBelongs(t *testing.T) {
	c := caseNamed(t, "firewall-reject")
	from := find(t, c, resetLeft).At
	for i := range c.Events {
		if e := &c.Events[i]; e.At > from {
			e.At += 50_000_000
		}
	}
	if v := Judge(c); v.Cause != "firewall-reject" || v.Certainty != Observed {
		t.Errorf("%s, %s: %s", v.Cause, v.Certainty, v.Proof)
	}
}

// What another copy caused may lie as near in time as it likes.
func TestForeignAnswerDoesNotBelong(t *testing.T) {
	for what, change := range map[string]func(c *evidence.Case, rst, drop *evidence.Event){
		"on another CPU":          func(_ *evidence.Case, rst, _ *evidence.Event) { rst.CPU++ },
		"after the drop":          func(_ *evidence.Case, rst, drop *evidence.Event) { rst.At = drop.At + 1 },
		"in another namespace":    func(c *evidence.Case, rst, _ *evidence.Event) { rst.Netns = c.Probe.Netns },
		"before the copy arrived": func(_ *evidence.Case, rst, _ *evidence.Event) { rst.At = 59_999 },
	} {
		c := caseNamed(t, "firewall-reject")
		rst := find(t, c, resetLeft)
		drop := find(t, c, isNetfilterDrop)
		change(c, rst, drop)
		slices.SortStableFunc(c.Events, func(a, b evidence.Event) int { return int(a.At - b.At) })
		if a, _ := firewallAnswer(c, find(t, c, isNetfilterDrop)); a != nil {
			t.Errorf("a RST %s is taken for the rule's answer", what)
		}
	}
}

func isNetfilterDrop(e *evidence.Event) bool { return e.Kind == evidence.Drop && isNetfilter(e) }

// A buffer's address comes back once it was freed, or with another packet in it.
func TestVisitEnds(t *testing.T) {
	syn := &evidence.Packet{Protocol: "tcp", Flags: "S", ID: 7}
	again := &evidence.Packet{Protocol: "tcp", Flags: "S", ID: 8}
	event := func(at int64, kind evidence.Kind, netns string, p *evidence.Packet) evidence.Event {
		return evidence.Event{At: at, Kind: kind, Netns: netns, Direction: evidence.Forward, SKB: "a", Packet: p}
	}
	c := &evidence.Case{Events: []evidence.Event{
		event(1, evidence.Receive, "r", syn),
		event(2, evidence.Transmit, "r", syn),
		event(3, evidence.Receive, "s", syn),
		event(4, evidence.Drop, "s", syn),
		event(5, evidence.Receive, "r", syn), // the same copy content, another copy
		event(6, evidence.Transmit, "r", syn),
		event(7, evidence.Receive, "r", again), // its predecessor's end was not seen
		event(8, evidence.Route, "r", nil),
		event(9, evidence.Consume, "r", again),
	}}
	for i, want := range [][2]int64{{1, 2}, {1, 2}, {3, 4}, {3, 4}, {5, 6}, {5, 6}, {7, 9}, {7, 9}, {7, 9}} {
		v := visitOf(c, &c.Events[i])
		if v.from != want[0] || v.to != want[1] || !v.has(&c.Events[i]) {
			t.Errorf("event %d: visit from %d to %d, want %v", i+1, v.from, v.to, want)
		}
	}
}

// The SYN-ACK's route was asked for while the SYN was there, and is the SYN-ACK's all the same.
func TestOccasion(t *testing.T) {
	c := caseNamed(t, "firewall-drop-reply")
	drop := find(t, c, func(e *evidence.Event) bool { return e.Kind == evidence.Drop && isSYNACK(e) })
	v, ok := visitOf(c, drop).occasion(c)
	if !ok || !isSYN(v.events[0]) || v.netns != drop.Netns {
		t.Errorf("the SYN-ACK was not made because of the SYN: %+v", v)
	}
}
