// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

func packetEvent(at int64, kind evidence.Kind, skb, flags string) evidence.Event {
	return evidence.Event{At: at, Kind: kind, Netns: "s", Direction: evidence.Forward, SKB: skb, Packet: &evidence.Packet{Protocol: "tcp", Flags: flags}}
}

func ruleEvent(trace uint32, verdict string) evidence.Event {
	return evidence.Event{Kind: evidence.RuleVerdict, Netns: "s", Direction: evidence.Forward, Rule: &evidence.RuleStep{TraceID: trace, Verdict: verdict}}
}

// Steps of a rule trace go to the copy that walked through the rules, and a
// clone made to ask for a link address, or an ARP request, is no such copy.
func TestAlign(t *testing.T) {
	arp := packetEvent(1100, evidence.Receive, "arp", "")
	arp.Packet.Protocol = "arp"
	clone := packetEvent(1050, evidence.Consume, "clone", "S")
	events := []evidence.Event{
		arp, clone,
		packetEvent(2000, evidence.Receive, "a", "S"), packetEvent(2500, evidence.Drop, "a", "S"),
		packetEvent(9000, evidence.Receive, "a", "S"), packetEvent(9900, evidence.Drop, "a", "S"), // the address came back
		ruleEvent(7, "jump"), ruleEvent(7, "drop"), ruleEvent(8, "drop"), ruleEvent(9, "drop"),
	}
	align(events, "tcp", 1000)
	type step struct {
		at    int64
		trace uint32
		skb   string
	}
	var got []step
	for _, e := range events {
		if e.Rule != nil {
			got = append(got, step{e.At, e.Rule.TraceID, e.SKB})
		}
	}
	// the ninth walk has no copy: nobody saw its packet, so it stays at the start
	want := []step{{0, 9, ""}, {1000, 7, "a"}, {1500, 7, "a"}, {8900, 8, "a"}}
	if len(got) != len(want) {
		t.Fatalf("%d steps, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("step %d: %+v, want %+v", i, got[i], want[i])
		}
	}
	for i := 1; i < len(events); i++ {
		if events[i].At < events[i-1].At {
			t.Errorf("event %d at %d is before event %d at %d", i, events[i].At, i-1, events[i-1].At)
		}
	}
}

// A flooded packet is several buffers and one walk through the rules; the step
// that drops goes to the copy that netfilter dropped, not to one that a host refused.
func TestAlignFlooded(t *testing.T) {
	of := func(e evidence.Event, id int) evidence.Event {
		e.Packet.Family, e.Packet.ID = 4, id
		return e
	}
	dropped := func(at int64, skb, reason string, id int) evidence.Event {
		e := of(packetEvent(at, evidence.Drop, skb, "S"), id)
		e.Reason = reason
		return e
	}
	events := []evidence.Event{
		of(packetEvent(2000, evidence.Receive, "a", "S"), 7), of(packetEvent(2100, evidence.Transmit, "b", "S"), 7),
		dropped(2150, "b", "OTHERHOST", 7), dropped(2200, "a", "NETFILTER_DROP", 7),
		of(packetEvent(9000, evidence.Receive, "c", "S"), 8), of(packetEvent(9100, evidence.Transmit, "d", "S"), 8),
		dropped(9200, "c", "NETFILTER_DROP", 8),
		ruleEvent(1, "accept"), ruleEvent(1, "drop"), ruleEvent(2, "drop"),
	}
	align(events, "tcp", 1000)
	var got []string
	for _, e := range events {
		if e.Rule != nil {
			got = append(got, fmt.Sprint(e.Rule.Verdict, " ", e.SKB, " ", e.At))
		}
	}
	if diff := cmp.Diff([]string{"accept a 1000", "drop a 1200", "drop c 8200"}, got); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

// A question for a link address is ICMPv6 as well, but is not traced: it is no copy of an echo request.
func TestAlignEcho(t *testing.T) {
	icmp := func(at int64, skb string, typ int) evidence.Event {
		e := packetEvent(at, evidence.Receive, skb, "")
		e.Packet.Protocol, e.Packet.Type = "icmpv6", &typ
		return e
	}
	events := []evidence.Event{icmp(1100, "solicitation", 135), icmp(2000, "echo", 128), ruleEvent(1, "drop")}
	align(events, "icmp", 1000)
	for _, e := range events {
		if e.Rule != nil && (e.SKB != "echo" || e.At != 1000) {
			t.Errorf("the step went to %q at %d, want the echo request at 1000", e.SKB, e.At)
		}
	}
}
