// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/pathtrace/pathtrace/evidence"
)

// drawable reports whether a packet says enough of itself for headers to be made.
func drawable(p *evidence.Packet) bool { return p.Protocol == "arp" || p.Family == 4 || p.Family == 6 }

// headerBytes makes the headers of a packet, from the network header on (ARP:
// from the Ethernet header on), and returns the length that it had on the wire.
func headerBytes(p *evidence.Packet) (data []byte, length int) {
	if p.Protocol == "arp" {
		data = arpBytes(p)
		return data, len(data)
	}
	var stack []gopacket.SerializableLayer
	ip, network := ipLayer(p)
	stack = append(stack, ip)
	if p.Fragment {
		if p.Family == 6 { // next header as recorded, offset 1: not the first
			stack = append(stack, gopacket.Payload{byte(protocolNumber(p.Protocol)), 0, 0, 8, 0, 0, 0, 0})
		}
	} else {
		stack = append(stack, transport(p, network)...)
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true}, stack...); err != nil {
		return nil, 0 // cannot be: every field is in range
	}
	return buf.Bytes(), max(p.Length, len(buf.Bytes()))
}

func ipLayer(p *evidence.Packet) (gopacket.SerializableLayer, gopacket.NetworkLayer) {
	proto := protocolNumber(p.Protocol)
	if p.Family == 6 {
		ip := &layers.IPv6{Version: 6, HopLimit: uint8(p.TTL), NextHeader: proto, Length: clamp(p.Length - 40),
			SrcIP: ipBytes(p.Source, 16), DstIP: ipBytes(p.Dest, 16)}
		if p.Fragment {
			ip.NextHeader = layers.IPProtocolIPv6Fragment
		}
		return ip, ip
	}
	ip := &layers.IPv4{Version: 4, IHL: 5, TTL: uint8(p.TTL), Protocol: proto, Id: uint16(p.ID), Length: clamp(p.Length),
		SrcIP: ipBytes(p.Source, 4), DstIP: ipBytes(p.Dest, 4)}
	if p.Fragment {
		ip.FragOffset = 1
	}
	return ip, ip
}

func transport(p *evidence.Packet, network gopacket.NetworkLayer) []gopacket.SerializableLayer {
	kind := func(n *int) uint8 {
		if n == nil {
			return 0
		}
		return uint8(*n)
	}
	switch p.Protocol {
	case "tcp":
		t := &layers.TCP{SrcPort: layers.TCPPort(p.SPort), DstPort: layers.TCPPort(p.DPort), Seq: p.Seq, Ack: p.Ack, DataOffset: words32(p)}
		for flag, to := range map[string]*bool{"S": &t.SYN, "F": &t.FIN, "R": &t.RST, "P": &t.PSH, ".": &t.ACK, "U": &t.URG} {
			*to = strings.Contains(p.Flags, flag)
		}
		_ = t.SetNetworkLayerForChecksum(network) // fails for other layers than IP
		return []gopacket.SerializableLayer{t}
	case "udp":
		u := &layers.UDP{SrcPort: layers.UDPPort(p.SPort), DstPort: layers.UDPPort(p.DPort), Length: clamp(p.Length - ipHeader(p))}
		_ = u.SetNetworkLayerForChecksum(network)
		return []gopacket.SerializableLayer{u}
	case "icmp":
		return []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind(p.Type), kind(p.Code))}}
	case "icmpv6":
		i := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind(p.Type), kind(p.Code))}
		_ = i.SetNetworkLayerForChecksum(network)
		return []gopacket.SerializableLayer{i}
	}
	return nil
}

// words32 is the length of a TCP header in words of 32 bits. The evidence has
// the length of the packet only: what a segment that pushes nothing has beyond 20
// bytes is taken for options, so that a SYN does not seem to carry data.
func words32(p *evidence.Packet) uint8 {
	n := p.Length - ipHeader(p)
	if strings.Contains(p.Flags, "P") || n < 20 || n > 60 {
		return 5
	}
	return uint8(n / 4)
}

func ipHeader(p *evidence.Packet) int {
	if p.Family == 6 {
		return 40
	}
	return 20
}

// arpBytes makes an Ethernet frame with an ARP packet (RFC 826) whose link addresses are zero.
func arpBytes(p *evidence.Packet) []byte {
	b := make([]byte, 14, 42)
	b[12], b[13] = 0x08, 0x06
	b = append(b, 0, 1, 8, 0, 6, 4)
	op := 0
	if p.Type != nil {
		op = *p.Type
	}
	b = binary.BigEndian.AppendUint16(b, uint16(op))
	b = append(b, make([]byte, 6)...)
	b = append(b, ipBytes(p.Source, 4)...)
	b = append(b, make([]byte, 6)...)
	return append(b, ipBytes(p.Dest, 4)...)
}

// ipBytes returns the bytes of an address, zeros where it is unset or of the other family.
func ipBytes(s string, n int) []byte {
	if a, err := netip.ParseAddr(s); err == nil && len(a.AsSlice()) == n {
		return a.AsSlice()
	}
	return make([]byte, n)
}

func protocolNumber(s string) layers.IPProtocol {
	switch s {
	case "tcp":
		return layers.IPProtocolTCP
	case "udp":
		return layers.IPProtocolUDP
	case "icmp":
		return layers.IPProtocolICMPv4
	case "icmpv6":
		return layers.IPProtocolICMPv6
	}
	n, _ := strconv.ParseUint(s, 10, 8) // 0 where it is no number
	return layers.IPProtocol(n)
}

func clamp(n int) uint16 { return uint16(max(0, min(n, 0xffff))) }
