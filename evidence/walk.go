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
