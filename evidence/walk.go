// SPDX-License-Identifier: Apache-2.0

package evidence

// Walk is what the hosts on the way said to packets like the probe's that were
// sent with a rising TTL (hop limit), all of one flow, so that routers that
// share the load between paths send them one way.
type Walk struct {
	Protocol string `json:"protocol"` // of its packets: tcp (SYN), udp or icmp (echo)
	Source   string `json:"source"`
	Dest     string `json:"dest"`
	Size     int    `json:"size"` // of each packet, IP header included, bytes; never fragmented
	Hops     []Hop  `json:"hops"` // by TTL, from 1, without a gap; one without an address did not answer
}

// Hop is the answer to the packets of one TTL.
type Hop struct {
	TTL     int    `json:"ttl"`
	Address string `json:"address,omitempty"` // who answered
	Name    string `json:"name,omitempty"`    // reverse lookup of Address
	Answer  string `json:"answer,omitempty"`  // one of the constants below
	Type    *int   `json:"type,omitempty"`    // of an ICMP message
	Code    *int   `json:"code,omitempty"`
	MTU     int    `json:"mtu,omitempty"` // of the next link, bytes; told with "fragmentation needed" or "packet too big"
	RTTNS   int64  `json:"rtt_ns,omitempty"`
	Sent    int    `json:"sent"` // packets
	// ReplyTTL and ReplyID are the TTL and the IPv4 identification that the answer bore on arrival.
	ReplyTTL int `json:"reply_ttl,omitempty"`
	ReplyID  int `json:"reply_id,omitempty"`
}

// Answers of a hop.
const (
	TimeExceeded = "time-exceeded" // a router: the TTL had run out
	ICMPError    = "unreachable"   // any other ICMP error: the way ends here
	RSTAnswer    = "rst"
	SYNACK       = "syn-ack"
	Replied      = "reply" // a datagram, or the reply to an echo request
)

// Ends reports whether the answer is one after which there is no farther hop.
func (h Hop) Ends() bool { return h.Answer != "" && h.Answer != TimeExceeded }

// End returns the hop at which the way ended, or nil when the walk was answered by routers only.
func (w *Walk) End() *Hop {
	for i := range w.Hops {
		if w.Hops[i].Ends() {
			return &w.Hops[i]
		}
	}
	return nil
}

// LastAnswer returns the farthest hop that answered, or nil.
func (w *Walk) LastAnswer() *Hop {
	for i := len(w.Hops) - 1; i >= 0; i-- {
		if w.Hops[i].Answer != "" {
			return &w.Hops[i]
		}
	}
	return nil
}

// WayBack is a hint that answers come back by another way than the packets went.
type WayBack struct {
	From    *Hop // the first of those whose answers say so
	Longer  int  // routers that the way back has more than the way there; fewer when negative
	Initial int  // the TTL that From's answer is taken to have left with: a guess
}

// WayBack compares how far each hop is with how many routers its answer has
// passed. With what TTL that left is guessed: the next above of 64, 128 and 255, which systems
// begin with; some make it one less, so that one router is no difference. It returns
// nil unless two hops, and all that answered behind the first of them, agree.
func (w *Walk) WayBack() *WayBack {
	var back *WayBack
	agree := 0
	for i := range w.Hops {
		h := &w.Hops[i]
		switch h.Answer {
		case TimeExceeded, SYNACK, Replied:
		default:
			continue // silent, or perhaps not the host that the TTL leads to
		}
		initial, ok := initialTTL(h.ReplyTTL)
		longer := initial - h.ReplyTTL + 1 - h.TTL
		switch {
		case !ok || -1 <= longer && longer <= 1:
			back, agree = nil, 0
		case back != nil && back.Longer == longer:
			agree++
		default:
			back, agree = &WayBack{From: h, Longer: longer, Initial: initial}, 1
		}
	}
	if agree < 2 {
		return nil
	}
	return back
}

// initialTTL guesses what a packet set out with that has arrived with ttl; ok is
// false where it would have passed more routers than paths have.
func initialTTL(ttl int) (initial int, ok bool) {
	for _, n := range []int{64, 128, 255} {
		if ttl > 0 && ttl <= n {
			return n, n-ttl < 32
		}
	}
	return 0, false
}
