// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"net/netip"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
)

// Version of the protocol. Both ends are the same program, so that there is one only.
const Version = 1

// Hello is the first line of an agent.
type Hello struct {
	Protocol int           `json:"protocol"`
	Tool     evidence.Tool `json:"tool"`
	Host     string        `json:"host"`   // its own name for itself
	Kernel   string        `json:"kernel"` // uname -r
	Boot     string        `json:"boot"`   // /proc/sys/kernel/random/boot_id: two hosts with one boot share a kernel
	PID      int           `json:"pid"`
}

// Order says what is to be watched.
type Order struct {
	Target  evidence.Target `json:"target"`
	ISN     uint32          `json:"isn,omitempty"`    // of a TCP probe: it is known by that through any translation
	Source  netip.AddrPort  `json:"source,omitzero"`  // of the probe, where it is known; the peer sees another one behind a NAT
	Scope   string          `json:"scope,omitempty"`  // [evidence.OwnNamespace]: only the agent's own
	Hooks   string          `json:"hooks"`            // as tracer.Options has it
	NoTouch bool            `json:"no_touch"`         // add no trace rule
	Awaits  bool            `json:"awaits,omitempty"` // an answer: that a process has accepted is not the end
	Scheme  string          `json:"scheme,omitempty"`
}

// News is something that an agent says unasked.
type News string

// What an agent may say unasked: that it is worth reading now.
const (
	Accepted  News = "accepted"  // a process has taken the connection
	Explained News = "explained" // what it has seen explains why there will be no answer
)

// Clock is the agent's, in nanoseconds.
type Clock struct {
	Monotonic int64 `json:"monotonic_ns"` // CLOCK_MONOTONIC
	Wall      int64 `json:"wall_ns"`      // CLOCK_REALTIME
}

// Case is what an agent has seen and read.
type Case struct {
	evidence.Case
	Start int64 `json:"start_ns"` // CLOCK_MONOTONIC of the agent at which its Event.At is 0
}

// request is a line to the agent.
type request struct {
	ID    uint64          `json:"id"`
	Do    string          `json:"do"` // trace, read or end
	Order *Order          `json:"order,omitempty"`
	Clock bool            `json:"clock,omitempty"` // read the clock, else the case
	Probe *evidence.Probe `json:"probe,omitempty"` // what came of it so far
}

// reply is a line of the agent: the answer to the request of that ID; without an ID hello or news.
type reply struct {
	ID    uint64 `json:"id,omitempty"`
	Error string `json:"error,omitempty"`
	Hello *Hello `json:"hello,omitempty"`
	News  News   `json:"news,omitempty"`
	Clock *Clock `json:"clock,omitempty"`
	Case  *Case  `json:"case,omitempty"`
}

// Bounds of what one side takes from the other.
const (
	maxRequest    = 1 << 20 // bytes of a line to the agent
	maxReply      = 8 << 20 // bytes of a line of the agent
	maxTotal      = 64 << 20
	maxReplies    = 10_000
	maxElements   = 100_000 // of all lists in a line together
	maxDepth      = 32
	maxNamespaces = 256
	maxEvents     = 5_000
	maxBanner     = 64 << 10 // bytes that a shell may print before the agent is there
)

// Limits of time.
type Limits struct {
	Ready time.Duration // until the shell there answers: a user may have to type a password; 0: two minutes, as sshd gives
	Work  time.Duration // until the agent has loaded its programs, or read its host's configuration; 0: half a minute
	Reply time.Duration // until the agent answers, or a copy of it goes on; 0: ten seconds
}

func (l Limits) orDefault() Limits {
	if l.Ready == 0 {
		l.Ready = 2 * time.Minute
	}
	if l.Work == 0 {
		l.Work = 30 * time.Second
	}
	if l.Reply == 0 {
		l.Reply = 10 * time.Second
	}
	return l
}
