// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// walkFlow is what all packets of a walk have in common. Each bears a number,
// from which its TTL follows, where an ICMP error is bound to quote it: a TCP
// segment in its sequence number, an echo request in its own, a datagram in the
// IPv4 identification and behind its payload. Ports, and the checksums
// of echo requests and datagrams, stay the same: routers that share the load go by them.
type walkFlow struct {
	protocol      string // tcp, udp or icmp
	local, remote netip.AddrPort
	base          uint32 // numbers count from here
	limit         uint32 // and stay below this
	shift         uint   // of numbers in TCP sequence numbers: who resets a SYN acknowledges its payload as well
	payload       []byte
}

// Numbers of packets are TTL and try.
const (
	maxTries = 4
	maxTTL   = 64
	numbers  = (maxTTL + 1) * maxTries
)

// tcpHeader is the length of the TCP header of a walk's SYNs, bytes.
const tcpHeader = 24

func number(ttl, try int) uint32            { return uint32(ttl*maxTries + try) }
func ofNumber(n uint32) (ttl, try int)      { return int(n / maxTries), int(n % maxTries) }
func (f *walkFlow) v6() bool                { return f.remote.Addr().Is6() }
func (f *walkFlow) valid(n uint32) bool     { return n >= maxTries && n < f.limit }
func (f *walkFlow) echoID() uint16          { return f.local.Port() }
func (f *walkFlow) ipID(n uint32) uint16    { return uint16(f.base>>16) + uint16(n) }
func (f *walkFlow) ofIPID(id uint16) uint32 { return uint32(id - uint16(f.base>>16)) }
func (f *walkFlow) transport() (p layers.IPProtocol) {
	switch {
	case f.protocol == "tcp":
		return layers.IPProtocolTCP
	case f.protocol == "udp":
		return layers.IPProtocolUDP
	case f.v6():
		return layers.IPProtocolICMPv6
	}
	return layers.IPProtocolICMPv4
}

// packet builds the packet with number n, IP header included, at least size bytes long; it may not be fragmented.
func (f *walkFlow) packet(n uint32, ttl, size int) ([]byte, error) {
	var ip gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	header := 20
	if f.v6() {
		l := &layers.IPv6{Version: 6, HopLimit: uint8(ttl), NextHeader: f.transport(), SrcIP: f.local.Addr().AsSlice(), DstIP: f.remote.Addr().AsSlice()}
		ip, network, header = l, l, 40
	} else {
		l := &layers.IPv4{
			Version: 4, TTL: uint8(ttl), Protocol: f.transport(), Id: f.ipID(n), Flags: layers.IPv4DontFragment,
			SrcIP: f.local.Addr().AsSlice(), DstIP: f.remote.Addr().AsSlice(),
		}
		ip, network = l, l
	}
	upper, err := f.segment(n, network, size-header)
	if err != nil {
		return nil, err
	}
	buf := gopacket.NewSerializeBuffer()
	err = gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, append([]gopacket.SerializableLayer{ip}, upper...)...)
	if err != nil {
		return nil, fmt.Errorf("build a packet: %w", err)
	}
	return buf.Bytes(), nil
}

// segment is the transport layer of packet n and its payload, together at least size bytes.
func (f *walkFlow) segment(n uint32, network gopacket.NetworkLayer, size int) ([]gopacket.SerializableLayer, error) {
	switch f.protocol {
	case "tcp":
		l := &layers.TCP{
			SrcPort: layers.TCPPort(f.local.Port()), DstPort: layers.TCPPort(f.remote.Port()), Seq: f.base + n<<f.shift, SYN: true, Window: 64240,
			Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{0x05, 0xb4}}},
		}
		data := f.padded(nil, size-tcpHeader)
		return []gopacket.SerializableLayer{l, gopacket.Payload(data)}, l.SetNetworkLayerForChecksum(network)
	case "udp":
		l := &layers.UDP{SrcPort: layers.UDPPort(f.local.Port()), DstPort: layers.UDPPort(f.remote.Port())}
		data := f.padded(binary.BigEndian.AppendUint32(f.words(), n<<16|^n&0xffff), size-8)
		return []gopacket.SerializableLayer{l, gopacket.Payload(data)}, l.SetNetworkLayerForChecksum(network)
	}
	data := f.padded(binary.BigEndian.AppendUint16(f.words(), ^uint16(n)), size-8)
	body := binary.BigEndian.AppendUint16(nil, f.echoID())
	body = append(binary.BigEndian.AppendUint16(body, uint16(n)), data...)
	if f.v6() {
		l := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
		return []gopacket.SerializableLayer{l, gopacket.Payload(body)}, l.SetNetworkLayerForChecksum(network)
	}
	l := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: f.echoID(), Seq: uint16(n)}
	return []gopacket.SerializableLayer{l, gopacket.Payload(data)}, nil
}

// words is the payload, made even: the checksum goes by words.
func (f *walkFlow) words() []byte {
	data := append(make([]byte, 0, len(f.payload)+8), f.payload...)
	if len(data)%2 != 0 {
		data = append(data, 0)
	}
	return data
}

func (f *walkFlow) padded(data []byte, size int) []byte {
	return append(data, make([]byte, max(0, size-len(data)))...)
}

// reading is what an incoming packet tells about one of ours.
type reading struct {
	n    uint32 // 0: one of ours, but not which
	hop  evidence.Hop
	from netip.Addr
}

// icmp reads an ICMP or ICMPv6 message, without the IP header that it came in.
func (f *walkFlow) icmp(b []byte) (reading, bool) {
	if len(b) < 8 {
		return reading{}, false
	}
	t, c := int(b[0]), int(b[1])
	r := reading{hop: evidence.Hop{Answer: evidence.ICMPError, Type: &t, Code: &c}}
	word := binary.BigEndian.Uint32(b[4:])
	if f.v6() {
		switch t {
		case layers.ICMPv6TypeEchoReply:
			return f.echoed(r, b)
		case layers.ICMPv6TypeTimeExceeded:
			r.hop.Answer = evidence.TimeExceeded
		case layers.ICMPv6TypePacketTooBig:
			r.hop.MTU = int(min(word, 1<<16))
		case layers.ICMPv6TypeDestinationUnreachable, layers.ICMPv6TypeParameterProblem:
		default:
			return reading{}, false
		}
		n, ok := f.quoted6(b[8:])
		r.n = n
		return r, ok
	}
	switch t {
	case layers.ICMPv4TypeEchoReply:
		return f.echoed(r, b)
	case layers.ICMPv4TypeTimeExceeded:
		r.hop.Answer = evidence.TimeExceeded
	case layers.ICMPv4TypeDestinationUnreachable:
		if c == layers.ICMPv4CodeFragmentationNeeded {
			r.hop.MTU = int(word & 0xffff) // RFC 1191
		}
	case layers.ICMPv4TypeParameterProblem:
	default:
		return reading{}, false
	}
	n, ok := f.quoted4(b[8:])
	r.n = n
	return r, ok
}

func (f *walkFlow) echoed(r reading, b []byte) (reading, bool) {
	r.hop.Answer, r.n = evidence.Replied, uint32(binary.BigEndian.Uint16(b[6:]))
	return r, f.protocol == "icmp" && binary.BigEndian.Uint16(b[4:]) == f.echoID() && f.valid(r.n)
}

// quoted4 tells which of our packets an ICMP error quotes.
func (f *walkFlow) quoted4(b []byte) (uint32, bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return 0, false
	}
	header := int(b[0]&0xf) << 2
	if header < 20 || len(b) < header+8 || layers.IPProtocol(b[9]) != f.transport() {
		return 0, false
	}
	n, ok := f.numberIn(b[header:])
	if f.protocol == "udp" {
		n, ok = f.ofIPID(binary.BigEndian.Uint16(b[4:])), f.ports(b[header:])
	}
	return n, ok && f.valid(n)
}

func (f *walkFlow) quoted6(b []byte) (uint32, bool) {
	if len(b) < 48 || b[0]>>4 != 6 || layers.IPProtocol(b[6]) != f.transport() {
		return 0, false
	}
	b = b[40:]
	n, ok := f.numberIn(b)
	if f.protocol == "udp" { // quoted as far as 1280 bytes allow (RFC 4443)
		at := 8 + len(f.words())
		if len(b) < at+4 {
			return 0, false
		}
		word := binary.BigEndian.Uint32(b[at:])
		n, ok = word>>16, f.ports(b) && word&0xffff == ^(word>>16)&0xffff
	}
	return n, ok && f.valid(n)
}

func (f *walkFlow) ports(b []byte) bool {
	return binary.BigEndian.Uint16(b) == f.local.Port() && binary.BigEndian.Uint16(b[2:]) == f.remote.Port()
}

// numberIn reads the number from the first eight bytes of a transport header.
func (f *walkFlow) numberIn(b []byte) (uint32, bool) {
	if f.protocol == "tcp" {
		return (binary.BigEndian.Uint32(b[4:]) - f.base) >> f.shift, f.ports(b)
	}
	return uint32(binary.BigEndian.Uint16(b[6:])), binary.BigEndian.Uint16(b[4:]) == f.echoID()
}

// answer reads a TCP segment or UDP datagram, without the IP header that it came in.
func (f *walkFlow) answer(b []byte) (reading, bool) {
	if len(b) < 8 || binary.BigEndian.Uint16(b) != f.remote.Port() || binary.BigEndian.Uint16(b[2:]) != f.local.Port() {
		return reading{}, false
	}
	if f.protocol == "udp" {
		return reading{hop: evidence.Hop{Answer: evidence.Replied}}, true
	}
	if len(b) < 20 {
		return reading{}, false
	}
	const fin, syn, rst, ack = 1, 2, 4, 16
	n := (binary.BigEndian.Uint32(b[8:]) - 1 - f.base) >> f.shift
	r := reading{n: n, hop: evidence.Hop{Answer: evidence.SYNACK}}
	if b[13]&rst != 0 {
		r.hop.Answer = evidence.RSTAnswer
	}
	// an ACK alone answers a SYN that met the half-open connection of the one before it (RFC 5961)
	return r, b[13]&ack != 0 && b[13]&fin == 0 && f.valid(n)
}

// networkHeader splits what an IPv4 raw socket hands over.
func networkHeader(b []byte) (ttl, id int, rest []byte, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 || int(b[0]&0xf)<<2 > len(b) || b[0]&0xf < 5 {
		return 0, 0, nil, false
	}
	return int(b[8]), int(binary.BigEndian.Uint16(b[4:])), b[int(b[0]&0xf)<<2:], true
}

// portFilter lets only segments to one local port through to a raw socket,
// which would be given every segment of the namespace (socket(7), SO_ATTACH_FILTER).
func portFilter(port uint16, v6 bool) []unix.SockFilter {
	const ldxb, ldh, jeq, ret = unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, unix.BPF_LD | unix.BPF_H | unix.BPF_IND, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	load := unix.SockFilter{Code: ldxb} // X = length of the IPv4 header
	if v6 {
		load = unix.SockFilter{Code: unix.BPF_LDX | unix.BPF_IMM} // X = 0: no header is handed over
	}
	return []unix.SockFilter{load, {Code: ldh, K: 2}, {Code: jeq, K: uint32(port), Jf: 1}, {Code: ret, K: 0xffff}, {Code: ret}}
}
