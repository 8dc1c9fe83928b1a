// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"slices"
	"strings"
)

// Peer is another host whose kernel was watched for the trace too. Its
// namespaces, and what happened in them, bear its name: see [Peer.Netns].
type Peer struct {
	Host
	Reached string `json:"reached"` // by which way, as the user wrote it
	// ClockOffsetNS is its wall clock minus this host's, wrong by ClockBoundNS at most.
	ClockOffsetNS int64 `json:"clock_offset_ns"`
	ClockBoundNS  int64 `json:"clock_bound_ns"`
	// Error says why nothing was seen there, or not to the end.
	Error string `json:"error,omitempty"`
}

// Watched reports whether the peer was watched from before the probe left until it had ended.
func (p *Peer) Watched() bool { return p.Error == "" }

// Netns is what the peer's namespace called name goes by in the case. No
// namespace's own name has a slash. A peer's event whose namespace its kernel did
// not name has an empty name there.
func (p *Peer) Netns(name string) string { return p.Name + "/" + name }

// SplitNetns takes the name of a namespace apart into its host's, empty for this host, and its own.
func SplitNetns(netns string) (host, name string) {
	host, name, ok := strings.Cut(netns, "/")
	if !ok || host == "" {
		return "", netns
	}
	return host, name
}

// Unnamed is what the events bear whose namespace the kernel of netns's host did not name.
func Unnamed(netns string) string {
	if host, _ := SplitNetns(netns); host != "" {
		return host + "/"
	}
	return ""
}

// Join adds what was seen and read on the peer p, and p itself. The events of
// there come shift nanoseconds later on this case's clock, as far as that is
// known: an event that a packet of ours made possible is never put before it.
func (c *Case) Join(p Peer, there *Case, shift int64) {
	shift = c.possible(there, shift)
	for _, e := range there.Events {
		e.At += shift
		e.Netns = p.Netns(e.Netns)
		if e.SKB != "" {
			e.SKB = p.Netns(e.SKB) // a kernel's own address
		}
		c.Events = append(c.Events, e)
	}
	slices.SortStableFunc(c.Events, func(a, b Event) int {
		switch {
		case a.At < b.At:
			return -1
		case a.At > b.At:
			return 1
		}
		return 0
	})
	for _, n := range there.Namespaces {
		n.Name = p.Netns(n.Name)
		if n.Sockets.Items != nil {
			n.Sockets.Items = slices.Clone(n.Sockets.Items)
		}
		for i := range n.Sockets.Items {
			if s := &n.Sockets.Items[i]; s.Accepted != 0 {
				s.Accepted = max(1, s.Accepted+shift)
			}
		}
		c.Namespaces = append(c.Namespaces, n)
	}
	for _, l := range there.Listeners {
		l.Host = p.Name
		c.Listeners = append(c.Listeners, l)
	}
	for _, l := range there.Logs {
		l.Source = p.Name + ": " + l.Source
		c.Logs = append(c.Logs, l)
	}
	for _, u := range there.Unseen {
		c.Unseen = append(c.Unseen, p.Name+": "+u)
	}
	if p.Missing == nil {
		p.Missing = []string{}
	}
	c.Lost += there.Lost
	c.Peers = append(c.Peers, p)
}

// possible is the shift nearest to the given one with which no packet arrives
// before it has left: the first of ours there, an answer here.
func (c *Case) possible(there *Case, shift int64) int64 {
	for i := range there.Events {
		left := &there.Events[i]
		if left.Kind != Transmit || !c.exchanged(left, Reply) {
			continue
		}
		for j := range c.Events {
			came := &c.Events[j]
			same := came.Kind == Receive && c.exchanged(came, Reply) && came.Packet.Flags == left.Packet.Flags && came.Packet.Seq == left.Packet.Seq
			if same && left.At+shift > came.At {
				shift = came.At - left.At
			}
		}
	}
	left, came := c.first(Transmit), there.first(Receive)
	if left != nil && came != nil && came.At+shift < left.At {
		shift = left.At - came.At
	}
	return shift
}

// first is the first event of that kind about a packet of ours on its way to the target.
func (c *Case) first(k Kind) *Event {
	for i := range c.Events {
		if e := &c.Events[i]; e.Kind == k && c.exchanged(e, Forward) {
			return e
		}
	}
	return nil
}

// exchanged reports whether e is about a packet of the exchange itself, not an error or a question on its behalf.
func (c *Case) exchanged(e *Event, direction string) bool {
	return e.Direction == direction && e.Packet != nil && (e.Packet.Protocol == c.Target.Protocol || c.Target.Protocol == "icmp" && e.Packet.Protocol == "icmpv6")
}

// Peer returns the host that netns is on, or nil when it is this one.
func (c *Case) Peer(netns string) *Peer {
	host, _ := SplitNetns(netns)
	for i := range c.Peers {
		if host != "" && c.Peers[i].Name == host {
			return &c.Peers[i]
		}
	}
	return nil
}
