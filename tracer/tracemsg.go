// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// traceMessage is what the kernel says about one step of one packet (NFTA_TRACE_*).
type traceMessage struct {
	family             string
	table, chain       string
	handle             uint64
	kind               uint32 // NFT_TRACETYPE_*
	verdict            int32
	target             string
	policy             uint32
	id                 uint32
	network, transport []byte
}

const (
	traceTypePolicy = 1
	traceTypeReturn = 2
	traceTypeRule   = 3
)

// parseTrace reads the payload of an NFT_MSG_TRACE message.
func parseTrace(b []byte) (traceMessage, error) {
	var m traceMessage
	if len(b) < 4 {
		return m, errors.New("rule trace message cut short")
	}
	m.family = familyName(b[0])
	u32 := func(d []byte) uint32 {
		if len(d) < 4 {
			return 0
		}
		return binary.BigEndian.Uint32(d)
	}
	attrs(b[4:], func(typ uint16, d []byte) {
		switch typ {
		case unix.NFTA_TRACE_TABLE:
			m.table = cstring(d)
		case unix.NFTA_TRACE_CHAIN:
			m.chain = cstring(d)
		case unix.NFTA_TRACE_RULE_HANDLE:
			if len(d) >= 8 {
				m.handle = binary.BigEndian.Uint64(d)
			}
		case unix.NFTA_TRACE_TYPE:
			m.kind = u32(d)
		case unix.NFTA_TRACE_VERDICT:
			attrs(d, func(typ uint16, d []byte) {
				switch typ {
				case unix.NFTA_VERDICT_CODE:
					m.verdict = int32(u32(d))
				case unix.NFTA_VERDICT_CHAIN:
					m.target = cstring(d)
				}
			})
		case unix.NFTA_TRACE_POLICY:
			m.policy = u32(d)
		case unix.NFTA_TRACE_ID:
			m.id = u32(d)
		case unix.NFTA_TRACE_NETWORK_HEADER:
			m.network = d
		case unix.NFTA_TRACE_TRANSPORT_HEADER:
			m.transport = d
		}
	})
	return m, nil
}

// verdictName of NF_* and NFT_*; the queue number above bit 16 is cut.
func verdictName(v int32) string {
	switch v {
	case -1:
		return "continue"
	case -2:
		return "continue" // NFT_BREAK: the rule did not match to its end
	case -3:
		return "jump"
	case -4:
		return "goto"
	case -5:
		return "return"
	}
	switch v & 0xff {
	case 0:
		return "drop"
	case 1:
		return "accept"
	case 2:
		return "stolen"
	case 3:
		return "queue"
	}
	return fmt.Sprintf("verdict %d", v)
}

// step turns a message into a step of the walk.
func (m *traceMessage) step() evidence.RuleStep {
	s := evidence.RuleStep{Backend: "nft", Family: m.family, Table: m.table, Chain: m.chain, TraceID: m.id, Target: m.target}
	switch m.kind {
	case traceTypePolicy:
		s.Policy, s.Verdict = true, verdictName(int32(m.policy))
	case traceTypeReturn:
		s.Handle, s.Verdict = m.handle, "return"
	default:
		s.Handle, s.Verdict = m.handle, verdictName(m.verdict)
	}
	return s
}

// walk is a packet's way through the rules of a namespace.
type walk struct {
	direction string
	number    uint32 // of the copy of the packet
}

// place is the hook that a walk is in, and the chain that the last jump led to.
type place struct {
	hook  string
	inner map[[3]string]bool // chains that jumps led to from the base chain of the hook
}

// hookOf tells the hook of a step: that of its base chain, which chains that
// jumps lead to inherit.
func (r *ruleTrace) hookOf(id uint32, s evidence.RuleStep) string {
	key := [3]string{s.Family, s.Table, s.Chain}
	p, ok := r.places[id]
	if hook := r.hooks[key]; hook != "" {
		p = place{hook, map[[3]string]bool{}}
	} else if !ok || !p.inner[key] {
		p = place{"", map[[3]string]bool{}}
	}
	if s.Target != "" {
		p.inner[[3]string{s.Family, s.Table, s.Target}] = true
	}
	p.inner[key] = true
	r.places[id] = p
	return p.hook
}

// copyKey tells copies of packets apart by what no translation changes. The
// kernel's trace id is a hash of the buffer's address: another segment in the
// same buffer has it too, and one copy on the loopback device has two.
type copyKey struct {
	direction string
	content   [10]byte // TCP: sequence numbers and flags; UDP: length; ICMP: type, code and sequence number
	ipID      uint16
	id        uint32 // where there is no ipID
}

func (k Key) content(th []byte) (c [10]byte) {
	switch k.Protocol {
	case unix.IPPROTO_TCP:
		copy(c[:], th[seqOffset:])
	case unix.IPPROTO_UDP:
		copy(c[:2], th[4:])
	default:
		copy(c[:2], th)
		copy(c[2:4], th[6:])
	}
	return c
}

// follow finds the walk that a message belongs to; false when its packet is not
// ours. Only the first message of a walk through a chain carries headers.
func (r *ruleTrace) follow(m *traceMessage) (walk, bool) {
	if len(m.network) == 0 || len(m.transport) == 0 {
		w, ok := r.walks[m.id]
		return w, ok
	}
	d := ""
	if l4proto(m.network, r.key.Protocol) == r.key.Protocol {
		d = r.key.direction(m.transport)
	}
	if d == "" {
		delete(r.walks, m.id) // the number was another packet's before
		return walk{}, false
	}
	k := copyKey{direction: d, content: r.key.content(m.transport)}
	if m.network[0]>>4 == 4 {
		k.ipID = binary.BigEndian.Uint16(m.network[4:])
	}
	if k.ipID == 0 {
		k.id = m.id
	}
	n, ok := r.copies[k]
	if !ok {
		n = uint32(len(r.copies)) + 1
		r.copies[k] = n
	}
	w := walk{d, n}
	r.walks[m.id] = w
	return w, true
}

// direction of a packet by its transport header.
func (k Key) direction(th []byte) string {
	if len(th) < 8 {
		return ""
	}
	u16 := func(at int) uint16 { return binary.BigEndian.Uint16(th[at:]) }
	switch k.Protocol {
	case unix.IPPROTO_TCP:
		if len(th) < 14 {
			return ""
		}
		seq, ack := binary.BigEndian.Uint32(th[seqOffset:]), binary.BigEndian.Uint32(th[ackOffset:])
		switch {
		case seq-k.ISN <= traceWindow:
			return evidence.Forward
		case th[13]&0x10 != 0 && ack-k.ISN <= traceWindow:
			return evidence.Reply
		}
	case unix.IPPROTO_UDP:
		switch k.Port {
		case u16(0):
			return evidence.Forward
		case u16(2):
			return evidence.Reply
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		switch {
		case u16(echoIDOffset) != k.Port:
		case th[0] == 8 || th[0] == 128: // echo request
			return evidence.Forward
		case th[0] == 0 || th[0] == 129:
			return evidence.Reply
		}
	}
	return ""
}

// l4proto of a network header. Extension headers of IPv6 are not followed:
// behind them stands the protocol that our own rule has matched.
func l4proto(h []byte, behindExtensions uint8) uint8 {
	switch {
	case h[0]>>4 == 4 && len(h) >= 20:
		return h[9]
	case h[0]>>4 == 6 && len(h) >= 40:
		if next := h[6]; next != 0 && next != 43 && next != 44 && next != 60 {
			return next
		}
		return behindExtensions
	}
	return 0
}

func (t *Tracer) readTrace(r *ruleTrace) {
	defer t.wg.Done()
	defer close(r.empty)
	buf := make([]byte, 256<<10)
	for {
		n, err := r.news.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded): // flush
			err = t.drainTrace(r, buf)
			_ = r.news.SetReadDeadline(time.Time{})
			if err != nil {
				t.fail(err)
				return
			}
			r.empty <- struct{}{} // flush waits for it
		case errors.Is(err, unix.ENOBUFS):
			t.traceLost.Add(1)
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			t.fail(fmt.Errorf("read rule traces: %w", err))
			return
		default:
			t.takeTraces(r, buf[:n])
		}
	}
}

// drainTrace takes what is in the socket already. The kernel queues trace
// messages before the traced packet goes on, so whatever a later event of that
// packet was seen, its trace is here.
func (t *Tracer) drainTrace(r *ruleTrace, buf []byte) error {
	conn, err := r.news.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Control(func(fd uintptr) {
		for {
			n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			switch err {
			case nil:
				t.takeTraces(r, buf[:n])
			case unix.EINTR:
			case unix.ENOBUFS:
				t.traceLost.Add(1)
			default:
				return
			}
		}
	})
}

// flush waits until the messages that are in the socket were taken.
func (r *ruleTrace) flush() {
	if r.news.SetReadDeadline(time.Unix(1, 0)) == nil {
		<-r.empty
	}
}

func (t *Tracer) takeTraces(r *ruleTrace, datagram []byte) {
	for _, m := range messages(datagram) {
		if m.typ == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_TRACE {
			t.takeTrace(r, m.payload)
		}
	}
}

func (t *Tracer) takeTrace(r *ruleTrace, payload []byte) {
	m, err := parseTrace(payload)
	if err != nil {
		t.fail(err)
		return
	}
	w, ours := r.follow(&m)
	if !ours || m.table == r.table {
		return
	}
	s := m.step()
	s.TraceID = w.number
	t.take(Record{Event: evidence.Event{
		Kind: evidence.RuleVerdict, Netns: t.dec.netns(r.inode), Direction: w.direction, Rule: &s,
		Hook: r.hookOf(m.id, s),
	}})
}
