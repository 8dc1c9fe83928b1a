// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/pathtrace/pathtrace/evidence"
)

// visit is the stay of a packet in one namespace, with all copies that a switch made of it there.
type visit struct {
	skb   string
	from  int64 // first sight of it there
	drops []end
}

// end is when a copy was dropped.
type end struct {
	skb string
	at  int64
}

// align puts events in order and on the probe's clock: At becomes nanoseconds
// since start, which is CLOCK_MONOTONIC as the events' own times are.
//
// Steps of an nftables trace carry no time and no buffer. The kernel writes
// them while the packet is in the hook, so the n-th walk of one direction in a
// namespace is the walk of the n-th copy that came there or was made there. Its
// steps get that copy's address and time, and a step that drops the time of the drop.
func align(events []evidence.Event, protocol string, start int64) {
	visits := visitsOf(events, protocol)
	walks := map[string]map[uint32]int{}
	for i := range events {
		e := &events[i]
		if e.At != 0 || e.Rule == nil {
			continue
		}
		k := e.Netns + " " + e.Direction
		if walks[k] == nil {
			walks[k] = map[uint32]int{}
		}
		n, ok := walks[k][e.Rule.TraceID]
		if !ok {
			n = len(walks[k])
			walks[k][e.Rule.TraceID] = n
		}
		if n >= len(visits[k]) {
			continue // its packet was not seen otherwise; it stays at the start
		}
		v := visits[k][n]
		e.At, e.SKB = v.from, v.skb
		if e.Rule.Verdict == "drop" && len(v.drops) > 0 {
			e.At, e.SKB = v.drops[0].at, v.drops[0].skb
			visits[k][n].drops = v.drops[1:]
		}
	}
	for i := range events {
		if events[i].At != 0 {
			events[i].At -= start
		}
	}
	slices.SortStableFunc(events, func(a, b evidence.Event) int {
		if c := cmp.Compare(a.At, b.At); c != 0 {
			return c
		}
		return cmp.Compare(rank(a), rank(b))
	})
}

// visitsOf lists, by namespace and direction, the packets of ours in the
// order in which they first appeared there. A buffer's address may come back
// once it was freed: that is another packet. Copies of one bear its identification.
func visitsOf(events []evidence.Event, protocol string) map[string][]visit {
	timed := make([]*evidence.Event, 0, len(events))
	for i := range events {
		if e := &events[i]; e.At != 0 && e.SKB != "" && e.Packet != nil && traced(e.Packet, protocol) {
			timed = append(timed, e)
		}
	}
	slices.SortStableFunc(timed, func(a, b *evidence.Event) int { return cmp.Compare(a.At, b.At) })
	out := map[string][]visit{}
	open := map[string]int{}
	for _, e := range timed {
		k := e.Netns + " " + e.Direction
		id := k + " " + e.SKB
		i, ok := open[id]
		if !ok && e.Kind == evidence.Consume {
			continue // a clone, made and freed to ask for the next hop's address
		}
		if p := e.Packet; !ok && p.Family == 4 && p.ID != 0 && !p.Fragment {
			same := fmt.Sprint(k, p.ID, p.Seq, p.Ack, p.Flags)
			if i, ok = open[same]; !ok {
				open[same] = len(out[k])
			}
		}
		if !ok {
			i = len(out[k])
			out[k] = append(out[k], visit{skb: e.SKB, from: e.At})
		}
		open[id] = i
		switch e.Kind {
		case evidence.Drop:
			if e.Reason == "NETFILTER_DROP" || e.Reason == "" { // before 5.17 there are no reasons
				out[k][i].drops = append(out[k][i].drops, end{e.SKB, e.At})
			}
			delete(open, id)
		case evidence.Consume:
			delete(open, id)
		}
	}
	return out
}

// traced reports whether the trace rules match a packet: those of the probe's
// own protocol, not the address requests and ICMP errors that they cause, nor a tunnel's.
func traced(p *evidence.Packet, protocol string) bool {
	if p.Carries != nil {
		return false
	}
	if protocol == "icmp" {
		return p.Type != nil && (p.Protocol == "icmp" && (*p.Type == 0 || *p.Type == 8) || p.Protocol == "icmpv6" && (*p.Type == 128 || *p.Type == 129))
	}
	return p.Protocol == protocol
}

// rank orders what happened at the same instant: a packet comes in before a
// rule sees it, and a rule decides before the packet is freed or leaves.
func rank(e evidence.Event) int {
	switch e.Kind {
	case evidence.Receive, evidence.HookPassed:
		return 0
	case evidence.RuleVerdict:
		return 1
	}
	return 2
}
