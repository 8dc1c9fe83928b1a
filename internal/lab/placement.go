// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"strings"
)

// LineRouters is how many routers the line of a [Placement] has. The second of
// them says nothing about packets whose TTL has run out, the third says so five times a
// second at most, and the fourth hides behind its own address who has sent a packet.
const LineRouters = 6

// Placement is a fault at one place of a line, and what can be told of it from
// the client alone.
type Placement struct {
	Name  string
	Cause string // "reachable" where the client gets by
	// TTL and Hop are the hop that the verdict names: how far away it is, and the
	// router, counted from 1, whose address it bears; the server's follows that
	// of the last one. 0 where that cannot be told.
	TTL, Hop int
	Talk     bool // more is said than fits into a narrow link
	setup    func(*Lab) error
}

// LineTalk is what is said where a placement wants something to be said, and waits for: more than one segment.
var LineTalk = []string{"--send", strings.Repeat("x", 3000), "--expect", "xxx"}

func onRouter(n int, rule string) func(*Lab) error {
	return atHop(Hop(n), "forward", rule)
}

func atHop(r Role, hook, rule string) func(*Lab) error {
	return func(l *Lab) error {
		return l.Nft(r, "table inet fault { chain f { type filter hook "+hook+" priority filter; policy accept; "+rule+"; }; }")
	}
}

// narrowLink gives router n's link to the server a small MTU; word: it says so.
func narrowLink(n int, word bool) func(*Lab) error {
	narrow := func(l *Lab) error { return l.IP(Hop(n), 4, "link set out0 mtu 1400") }
	if word {
		return narrow
	}
	return steps(narrow, atHop(Hop(n), "output", "icmp type destination-unreachable drop; icmpv6 type packet-too-big drop"))
}

func deafToEcho(l *Lab) error {
	return l.Nft(Server, "table inet deaf { chain d { type filter hook input priority filter; policy accept; icmp type echo-request drop; icmpv6 type echo-request drop; }; }")
}

// Placements are faults at places of a line.
func Placements() []Placement {
	const drop, reset, refuse, target = "tcp dport 8080 drop", "tcp dport 8080 reject with tcp reset", "tcp dport 8080 reject with icmpx admin-prohibited", LineRouters + 1
	return []Placement{
		{Name: "drop-first", Cause: "remote-silent", TTL: 1, Hop: 1, setup: onRouter(1, drop)},
		{Name: "drop-silent", Cause: "remote-silent", TTL: 1, Hop: 1, setup: onRouter(2, drop)},
		{Name: "drop-limited", Cause: "remote-silent", TTL: 3, Hop: 3, setup: onRouter(3, drop)},
		{Name: "drop-behind-nat", Cause: "remote-silent", TTL: 5, Hop: 5, setup: onRouter(5, drop)},
		{Name: "drop-target", Cause: "remote-silent", TTL: 6, Hop: 6, setup: atHop(Server, "input", drop)},
		{Name: "reset-first", Cause: "remote-reset", TTL: 1, Hop: 1, setup: onRouter(1, reset)},
		{Name: "reset-silent", Cause: "remote-reset", TTL: 2, setup: onRouter(2, reset)},
		{Name: "reset-behind-nat", Cause: "remote-reset", TTL: 5, Hop: 5, setup: onRouter(5, reset)},
		{Name: "reset-target-deaf", Cause: "remote-reset", TTL: 5, Hop: 5, setup: steps(onRouter(5, reset), deafToEcho)},
		{Name: "reset-last-target-deaf", Cause: "remote-reset", setup: steps(onRouter(6, reset), deafToEcho)},
		{Name: "reset-target", Cause: "remote-reset", TTL: target, Hop: target, setup: atHop(Server, "input", reset)},
		{Name: "refuse-silent", Cause: "remote-unreachable", Hop: 2, setup: onRouter(2, refuse)},
		{Name: "refuse-behind-nat", Cause: "remote-unreachable", TTL: 5, Hop: 5, setup: onRouter(5, refuse)},
		{Name: "narrow-silent", Cause: "pmtu-blackhole", TTL: 1, Hop: 1, Talk: true, setup: narrowLink(2, false)},
		{Name: "narrow-nat", Cause: "pmtu-blackhole", TTL: 4, Hop: 4, Talk: true, setup: narrowLink(4, false)},
		{Name: "narrow-last", Cause: "pmtu-blackhole", TTL: 6, Hop: 6, Talk: true, setup: narrowLink(6, false)},
		{Name: "narrow-client-deaf", Cause: "pmtu-blackhole", Hop: 5, Talk: true, setup: steps(narrowLink(5, true),
			atHop(Client, "input", "icmp type destination-unreachable drop; icmpv6 type packet-too-big drop"))},
		{Name: "narrow-told", Cause: "reachable", Talk: true, setup: narrowLink(5, true)},
	}
}

// StartPlacement builds a line with a service on the server, and breaks it.
func StartPlacement(prefix string, p Placement) (*Lab, error) {
	l, err := NewLine(prefix, LineRouters)
	if err != nil {
		return nil, err
	}
	const silent = "table inet silent { chain o { type filter hook output priority filter; policy accept; icmp type time-exceeded drop; icmpv6 type time-exceeded drop; }; }"
	err = steps(
		func(l *Lab) error { return l.Nft(Hop(2), silent) },
		func(l *Lab) error {
			return l.Nft(Hop(3), strings.ReplaceAll(silent, "time-exceeded drop", "time-exceeded limit rate over 5/second burst 5 packets drop"))
		},
		func(l *Lab) error {
			return l.Nft(Hop(4), "table inet hide { chain n { type nat hook postrouting priority srcnat; policy accept; oifname out0 masquerade; }; }")
		},
		func(l *Lab) error {
			for _, family := range []int{4, 6} {
				if err := l.Serve(Server, Listen{Addr: LineTarget(family), Behaviour: Echo}); err != nil {
					return err
				}
			}
			return nil
		},
		p.setup,
	)(l)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("place %s: %w", p.Name, err)
	}
	return l, nil
}

// LineTarget is the service at the end of the line of a placement.
func LineTarget(family int) netip.AddrPort {
	return netip.AddrPortFrom(LineAddr(LineRouters, family, true), Port)
}

// Address is that of the hop which the verdict names, invalid where it names none.
func (p Placement) Address(family int) netip.Addr {
	if p.Hop == 0 {
		return netip.Addr{}
	}
	return LineAddr(p.Hop-1, family, true)
}
