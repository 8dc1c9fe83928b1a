// SPDX-License-Identifier: Apache-2.0

package evidence

import "slices"

// PathMTU is how large packets like the probe's may be on their way. Those that
// were sent may not be fragmented (RFC 1191, RFC 8201). Each row of large ones was
// followed at once by a small one with the same TTL, so that what stops any
// packet, or any answer, is told from what stops the large ones alone.
type PathMTU struct {
	Protocol string     `json:"protocol"` // of its packets: tcp (SYN with payload), udp or icmp (echo)
	Source   string     `json:"source"`
	Dest     string     `json:"dest"`
	Small    int        `json:"small"` // size of the small ones, IP header included, bytes
	Tests    []SizeTest `json:"tests"`
}

// SizeTest is what became of the packets of one size that were sent with one TTL.
type SizeTest struct {
	TTL     int    `json:"ttl"`
	Size    int    `json:"size"` // IP header included, bytes
	Sent    int    `json:"sent"`
	Passed  bool   `json:"passed"`            // one was answered by the host that the TTL leads to
	Lost    int    `json:"lost"`              // those that were not answered although a smaller one that left after it was
	Address string `json:"address,omitempty"` // who answered, be it the smaller ones only
	Answer  string `json:"answer,omitempty"`  // one of [Hop]'s
	// TooBig is who answered that the packet is too big, and MTU what it told of its next link, bytes.
	TooBig string `json:"too_big,omitempty"`
	MTU    int    `json:"mtu,omitempty"`
}

// SizeTries is how many packets of one size must be lost, and none answered,
// before they are said to vanish: what one in five packets dies of takes four
// large ones and spares the small ones behind each less than once in a thousand times.
const SizeTries = 4

// EveryPath is the size that hosts may rely on every path to take in one piece, IP
// header included, bytes (RFC 1122, 3.3.3; RFC 8200, 5).
func EveryPath(v6 bool) int {
	if v6 {
		return 1280
	}
	return 576
}

// vanishes reports whether packets of the test's size do not come to a host that
// answers for itself or as a router. What a service answers does not count: it
// may have nothing to say to what is large.
func (t *SizeTest) vanishes() bool {
	return !t.Passed && t.TooBig == "" && t.Lost >= SizeTries && t.Answer != Replied
}

// At returns the test of a size with a TTL, or nil.
func (p *PathMTU) At(ttl, size int) *SizeTest {
	for i := range p.Tests {
		if t := &p.Tests[i]; t.TTL == ttl && t.Size == size {
			return t
		}
	}
	return nil
}

// Told returns the test of a size that a router said to be too big, or nil.
func (p *PathMTU) Told(size int) *SizeTest {
	for i := range p.Tests {
		if t := &p.Tests[i]; t.Size == size && t.TooBig != "" {
			return t
		}
	}
	return nil
}

// Hole returns between which two TTLs packets of a size vanish without a word: last is
// the farthest at which they arrive, nil when there is none, and behind the
// first one after it at which smaller ones alone do. behind is nil when there is no such place.
func (p *PathMTU) Hole(size int) (last, behind *SizeTest) {
	if p.Told(size) != nil {
		return nil, nil
	}
	for i := range p.Tests {
		if t := &p.Tests[i]; t.Size == size && t.Passed && (last == nil || t.TTL > last.TTL) {
			last = t
		}
	}
	for i := range p.Tests {
		t := &p.Tests[i]
		if t.Size == size && t.vanishes() && (last == nil || t.TTL > last.TTL) && (behind == nil || t.TTL < behind.TTL) {
			behind = t
		}
	}
	return last, behind
}

// Narrowest returns the size that was tried last along the whole way: that of
// the first test, or the least that routers told to be the most they take. 0 when there are no tests.
func (p *PathMTU) Narrowest() int {
	if len(p.Tests) == 0 {
		return 0
	}
	size := p.Tests[0].Size
	for t := p.Told(size); t != nil && t.MTU < size && p.has(t.MTU); t = p.Told(size) {
		size = t.MTU
	}
	return size
}

func (p *PathMTU) has(size int) bool {
	return slices.ContainsFunc(p.Tests, func(t SizeTest) bool { return t.Size == size })
}

// Bounds returns the largest size that comes through to a TTL or farther, and the
// smallest that vanishes on the way there, bytes.
func (p *PathMTU) Bounds(ttl int) (passes, vanishes int) {
	passes = p.Small
	for i := range p.Tests {
		if t := &p.Tests[i]; t.TTL >= ttl && t.Passed {
			passes = max(passes, t.Size)
		}
	}
	for i := range p.Tests {
		t := &p.Tests[i]
		if t.TTL >= ttl && !t.Passed && t.Lost >= SizeTries && t.Size > passes && (vanishes == 0 || t.Size < vanishes) {
			vanishes = t.Size
		}
	}
	return passes, vanishes
}
