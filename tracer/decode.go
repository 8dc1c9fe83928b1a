// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/bpf"
	"github.com/pathtrace/pathtrace/evidence"
)

// Kinds of enum kind in bpf/event.h.
const (
	kindNone = iota
	kindReceive
	kindTransmit
	kindDrop
	kindConsume
	kindHook
	kindXTables
	kindRoute
	kindState
	kindResetSent
	kindResetGot
	kindICMPSent
	kindNeighbor
	_
	_
	kindNFHook
	kindRetransmit
	kindWrap
	kindNFT
	kindAccept
)

// protoARP stands for ARP where an IP protocol is expected, bpf/packet.h.
const protoARP = 254

// Flags of struct event.
const (
	evSocket    = 1
	evFilter    = 2
	evFragment  = 4
	evNested    = 1 // of kindNFHook: the NAT core calls it
	evPacket    = 8
	evAborts    = 16
	evCopy      = 32
	evOtherHost = 64
	evResult    = 128 // of kindXTables
)

const (
	sampleSize  = int(unsafe.Sizeof(bpf.TracepointEvent{}))
	unionOffset = int(unsafe.Offsetof(bpf.TracepointEvent{}.Stack))
)

// sample is a ring buffer record: the fixed part, and the union behind it.
type sample struct {
	bpf.TracepointEvent
	union []byte
	whole []byte
}

// parseSample reads a record in the byte order of this machine.
func parseSample(raw []byte) (sample, error) {
	var s sample
	if len(raw) < sampleSize {
		return s, fmt.Errorf("ring buffer record of %d bytes, %d expected", len(raw), sampleSize)
	}
	if _, err := binary.Decode(raw[:sampleSize], binary.NativeEndian, &s.TracepointEvent); err != nil {
		return s, fmt.Errorf("ring buffer record: %w", err)
	}
	s.union, s.whole = raw[unionOffset:sampleSize], raw
	return s, nil
}

// moved returns the entries of an x_tables table that counted the packet, and how often (255: or more).
func (s *sample) moved() map[int]uint64 {
	m := make(map[int]uint64)
	for i := range min(int(s.Count), len(s.union)/4) {
		v := binary.NativeEndian.Uint32(s.union[4*i:])
		m[int(v&0xffffff)] += uint64(v >> 24)
	}
	return m
}

// end of a connection; nil when the state before was none of a connection.
func (s *sample) end() *evidence.End {
	old := tcpState(s.OldState)
	if old != "ESTABLISHED" && old != "CLOSE_WAIT" {
		return nil
	}
	u64 := func(at int) int64 { return int64(binary.NativeEndian.Uint64(s.union[at:])) }
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(s.union[at:]) }
	e := &evidence.End{Received: u64(0), Sent: u64(8), Unread: int64(u32(16)), Parent: int(u32(20))}
	if old == "CLOSE_WAIT" { // the other end's FIN has a number of its own
		e.Received, e.Unread = max(e.Received-1, 0), max(e.Unread-1, 0)
	}
	if e.Unread > e.Received { // it overtook the reader's number
		e.Unread = 0
	}
	if status := unix.WaitStatus(u32(28)); u32(24) != 0 {
		e.Exit = &evidence.Exit{}
		if status.Signaled() {
			e.Exit.Signal, e.Exit.Core = unix.SignalName(status.Signal()), status.CoreDump()
		} else {
			e.Exit.Code = status.ExitStatus()
		}
	}
	return e
}

// kernelStrings of an inventory record: function, table, chain.
func (s *sample) kernelStrings() (function, table, chain string) {
	return symbolName(s.union[:48]), cstring(s.union[48:112]), cstring(s.union[112:192])
}

func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return strings.ToValidUTF8(string(b), "\ufffd")
}

// decoder turns samples into events. Beside symbols it is pure.
type decoder struct {
	drops, resets reasons
	symbols       interface {
		names([]uint64) ([]string, error)
	}
	netns func(inode uint32) string // name of a namespace; "" when it is not known
}

var kinds = map[uint8]evidence.Kind{
	kindReceive: evidence.Receive, kindTransmit: evidence.Transmit, kindDrop: evidence.Drop, kindConsume: evidence.Consume,
	kindHook: evidence.HookPassed, kindRoute: evidence.Route, kindState: evidence.State, kindResetSent: evidence.ResetSent,
	kindResetGot: evidence.ResetGot, kindICMPSent: evidence.ICMPSent, kindNeighbor: evidence.NeighborEvt,
	kindRetransmit: evidence.Retransmit, kindWrap: evidence.WrapCall,
	kindAccept: evidence.Accept, kindNFT: evidence.RuleVerdict,
}

// event decodes one sample; At stays in nanoseconds of CLOCK_MONOTONIC.
func (d *decoder) event(s *sample) (evidence.Event, error) {
	kind, ok := kinds[s.Kind]
	if !ok {
		return evidence.Event{}, fmt.Errorf("event of unknown kind %d", s.Kind)
	}
	e := evidence.Event{
		At: int64(s.Time), Kind: kind, CPU: int(s.Cpu), Direction: directionName(s.Direction),
		Device: cstring(s.Device[:]), PID: int(s.Pid), Comm: cstring(s.Comm[:]),
	}
	if s.Netns != 0 {
		e.Netns = d.netns(s.Netns)
	}
	if s.Skb != 0 {
		e.SKB = fmt.Sprintf("%x", s.Skb)
	}
	if s.Flags&evPacket != 0 {
		e.Packet = s.packet()
	}
	if s.Flags&evSocket != 0 {
		e.Socket = &evidence.EventSocket{
			Local: addrPort(s.SockAddr, uint16(s.SockPort)), State: tcpState(uint8(s.SockState)),
			Filter: s.Flags&evFilter != 0, Aborts: s.Flags&evAborts != 0, Queue: int(s.Queue), Limit: int(s.Backlog),
		}
	}
	return e, d.details(s, &e)
}

func (d *decoder) details(s *sample, e *evidence.Event) error {
	switch s.Kind {
	case kindDrop, kindICMPSent:
		if s.Kind == kindDrop {
			e.Reason = d.drops.name(s.Reason)
			e.Copy, e.OtherHost = s.Flags&evCopy != 0, s.Flags&evOtherHost != 0
		} else {
			e.ICMP = &evidence.ICMP{Type: int(s.IcmpType), Code: int(s.IcmpCode)}
		}
		return d.stack(s, e)
	case kindConsume:
		if s.Function == 0 { // before 6.3 the tracepoint does not tell
			return d.stack(s, e)
		}
		names, err := d.symbols.names([]uint64{s.Function})
		if err != nil {
			return err
		}
		e.Function = names[0]
	case kindHook:
		e.Hook = hookName(s.Pf, s.Hook)
	case kindResetSent:
		e.Reason = d.resets.name(s.Reason)
	case kindState:
		e.State = &evidence.StateChange{Old: tcpState(s.OldState), New: tcpState(s.NewState), End: s.end()}
	case kindRoute:
		e.Device = ""
		e.Route = &evidence.RouteLookup{
			Table: tableName(s.Table), Source: address(s.Saddr), Dest: address(s.Daddr), Gateway: address(s.Gateway),
			IIF: cstring(s.Input[:]), OIF: cstring(s.Device[:]), Mark: s.Mark, Errno: errnoName(s.Err),
		}
	case kindWrap:
		return wrapCall(s.whole, e)
	case kindNeighbor:
		e.Neighbor = &evidence.Neighbor{Address: address(s.Gateway), Device: e.Device, State: nudState(s.NudState)}
	}
	return nil
}

// stack names where the packet was freed, or the event raised, and its callers.
func (d *decoder) stack(s *sample, e *evidence.Event) error {
	addresses := []uint64{s.Function}
	for i := 0; i+8 <= len(s.union) && i < 8*len(s.Stack); i += 8 {
		if a := binary.NativeEndian.Uint64(s.union[i:]); a != 0 {
			addresses = append(addresses, a)
		}
	}
	names, err := d.symbols.names(addresses)
	if err != nil {
		return err
	}
	e.Function = names[0]
	frames := names[1:]
	if s.Function != 0 {
		// the frames of the hook itself end where the packet was freed
		for i, a := range addresses[1:] {
			if a == s.Function {
				frames = frames[i+1:]
				break
			}
		}
	} else {
		frames = afterRaiser(frames)
		if len(frames) > 0 {
			e.Function, frames = frames[0], frames[1:]
		}
	}
	e.Stack = frames
	e.Hook = hookOfStack(append([]string{e.Function}, frames...))
	return nil
}

// afterRaiser skips the frames of the tracing machinery and of the function that raised the event.
func afterRaiser(frames []string) []string {
	for i, f := range frames {
		if f == "__icmp_send" || f == "icmp_send" || f == "icmp_ndo_send" || f == "consume_skb" {
			frames = frames[i+1:]
			break
		}
	}
	return frames
}

func (s *sample) packet() *evidence.Packet {
	p := &evidence.Packet{
		Family: int(s.Family), Protocol: protocolName(s.Proto), Source: address(s.Saddr), Dest: address(s.Daddr),
		SPort: int(s.Sport), DPort: int(s.Dport), TTL: int(s.Ttl), Length: int(s.Length), Mark: s.Mark,
		ID: int(s.IpId), Fragment: s.Flags&evFragment != 0,
	}
	switch s.Proto {
	case unix.IPPROTO_TCP:
		p.Seq, p.Ack, p.Flags = s.Seq, s.Ack, tcpFlags(s.TcpFlags)
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, protoARP:
		t, c := int(s.IcmpType), int(s.IcmpCode)
		if s.Kind != kindICMPSent {
			p.Type, p.Code = &t, &c
		}
		p.SPort, p.DPort = 0, 0
	case unix.IPPROTO_UDP:
	default: // GRE, IP in IP: ports are not what stands there
		p.SPort, p.DPort = 0, 0
	}
	if inner := s.NudState; inner != 0 { // the kernel's side calls it carries
		p.Carries = &evidence.Carried{Protocol: protocolName(inner)}
		if inner == unix.IPPROTO_TCP {
			p.Carries.Flags = tcpFlags(s.TcpFlags)
		}
	}
	return p
}

// address prints 16 bytes; IPv4 as such, "" when unset or any.
func address(b [16]byte) string {
	a := netip.AddrFrom16(b).Unmap()
	if a.IsUnspecified() {
		return ""
	}
	return a.String()
}

func addrPort(b [16]byte, port uint16) string {
	return netip.AddrPortFrom(netip.AddrFrom16(b).Unmap(), port).String()
}

func directionName(d uint8) string {
	return [...]string{"", evidence.Forward, evidence.Reply}[min(d, 2)%3]
}

// tcpFlags as tcpdump prints them.
func tcpFlags(f uint8) string {
	var b strings.Builder
	for _, x := range []struct {
		bit  uint8
		name string
	}{{2, "S"}, {1, "F"}, {4, "R"}, {8, "P"}, {32, "U"}, {16, "."}} {
		if f&x.bit != 0 {
			b.WriteString(x.name)
		}
	}
	return b.String()
}

func protocolName(p uint8) string {
	switch p {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_ICMPV6:
		return "icmpv6"
	case protoARP:
		return "arp"
	}
	return strconv.Itoa(int(p))
}

// tcpState names a state of include/net/tcp_states.h; the numbers are user ABI (sock_diag).
func tcpState(n uint8) string {
	names := [...]string{"", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE",
		"CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"}
	if int(n) < len(names) {
		return names[n]
	}
	return strconv.Itoa(int(n))
}

// nudState names a state of linux/neighbour.h.
func nudState(n uint8) string {
	for _, x := range []struct {
		bit  uint8
		name string
	}{{1, "INCOMPLETE"}, {2, "REACHABLE"}, {4, "STALE"}, {8, "DELAY"}, {16, "PROBE"}, {32, "FAILED"}, {64, "NOARP"}, {128, "PERMANENT"}} {
		if n&x.bit != 0 {
			return x.name
		}
	}
	return "NONE"
}

// tableName prints a routing table as ip route does without rt_tables.
func tableName(n uint32) string {
	switch n {
	case unix.RT_TABLE_MAIN:
		return "main"
	case unix.RT_TABLE_LOCAL:
		return "local"
	case unix.RT_TABLE_DEFAULT:
		return "default"
	}
	return strconv.FormatUint(uint64(n), 10)
}

func errnoName(e int32) string {
	if e >= 0 {
		return ""
	}
	if name := unix.ErrnoName(unix.Errno(-e)); name != "" {
		return name
	}
	return strconv.Itoa(int(-e))
}
