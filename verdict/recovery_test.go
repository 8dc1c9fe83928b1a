// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"
	"strings"
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
)

// dataDropped is a client that connected and whose first words a rule dropped.
func dataDropped(t *testing.T) (c *evidence.Case, drop *evidence.Event) {
	t.Helper()
	c = caseNamed(t, "firewall-drop-data")
	c.Probe.Outcome, c.Probe.Expected, c.Probe.Syscall = evidence.Connected, false, ""
	return c, find(t, c, isNetfilterDrop)
}

// A connection is not reachable when what was said on it is seen to die.
func TestDroppedAfterConnect(t *testing.T) {
	for name, test := range map[string]struct {
		change func(c *evidence.Case, drop *evidence.Event)
		want   string
	}{
		"data":                                 {func(*evidence.Case, *evidence.Event) {}, "firewall-drop"},
		"data, and the handshake was answered": {answerOf(0), "firewall-drop"},
		"data that was acknowledged":           {answerOf(1), "reachable"},
		"data that the client's kernel knows to be acknowledged": {func(c *evidence.Case, _ *evidence.Event) { c.Probe.Acked = c.Probe.Sent }, "reachable"},
		"data, and an answer came":                               {func(c *evidence.Case, _ *evidence.Event) { c.Probe.Outcome = evidence.Answered }, "reachable"},
		"the last ACK":                                           {lastACK(false), "firewall-drop"},
		"an ACK of an established connection":                    {lastACK(true), "reachable"},
	} {
		t.Run(name, func(t *testing.T) {
			c, drop := dataDropped(t)
			test.change(c, drop)
			v := Judge(c)
			if v.Cause != test.want || v.Certainty != Observed {
				t.Errorf("%s, %s: %q", v.Cause, v.Certainty, v.Proof)
			}
			if v.Cause != "reachable" && slices.ContainsFunc(v.Proof, func(s string) bool { return strings.Contains(s, "a later copy passed") }) {
				t.Errorf("no copy passed: %q", v.Proof)
			}
		})
	}
}

// answerOf adds a reply that acknowledges n bytes of the segment.
func answerOf(n uint32) func(*evidence.Case, *evidence.Event) {
	return func(c *evidence.Case, drop *evidence.Event) {
		p := *drop.Packet
		p.Source, p.Dest, p.SPort, p.DPort = p.Dest, p.Source, p.DPort, p.SPort
		p.Flags, p.Seq, p.Ack = ".", 100, p.Seq+n
		c.Events = append(c.Events, evidence.Event{At: drop.At + 1000, Kind: evidence.Receive, Netns: c.Probe.Netns, Device: "c0",
			Direction: evidence.Reply, Packet: &p, SKB: "0xa"})
	}
}

// lastACK makes the segment one without data, as is the last of the handshake where the server is not established.
func lastACK(established bool) func(*evidence.Case, *evidence.Event) {
	return func(c *evidence.Case, drop *evidence.Event) {
		c.Probe.Sent = 0
		skb := drop.SKB
		c.Events = slices.DeleteFunc(c.Events, func(e evidence.Event) bool {
			return !established && (e.Kind == evidence.State || e.Packet != nil && e.Packet.Flags == ".")
		})
		for i := range c.Events {
			if e := &c.Events[i]; e.SKB == skb && e.Packet != nil {
				e.Packet.Flags, e.Packet.Length = ".", 52
			}
		}
	}
}
