// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

func flood(f Flood, say func(string)) error {
	domain, to := sockaddr(netip.AddrPortFrom(f.To.Addr(), 0)) // raw sockets have no ports
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	ports := or(f.Ports, 20000)
	send := func(i int) error {
		if err := unix.Sendto(fd, f.packet(uint16(20000+i%ports), uint32(i)*7919), 0, to); err != nil {
			return fmt.Errorf("send packet %d: %w", i, err)
		}
		return nil
	}
	for i := range max(f.Count, 1) {
		if err := send(i); err != nil {
			return err
		}
	}
	say("ready")
	if f.Count > 0 {
		return nil
	}
	rate := or(f.Rate, 1000)
	tick := time.NewTicker(time.Millisecond)
	start, sent := time.Now(), 0
	for now := range tick.C {
		// What was missed while this process did not run is made up for, but no more than a tenth of a second of it.
		due := int(now.Sub(start).Seconds() * float64(rate))
		for sent = max(sent, due-rate/10); sent < due; sent++ {
			// ENOBUFS and the like: one packet fewer does not matter to a stream of them.
			_ = send(sent)
		}
	}
	return nil
}

// packet builds an IP packet with a TCP segment or a datagram of 20 bytes from a port.
func (f Flood) packet(port uint16, seq uint32) []byte {
	protocol := uint8(unix.IPPROTO_TCP)
	if f.UDP {
		protocol = unix.IPPROTO_UDP
	}
	head := 20
	if f.To.Addr().Is6() {
		head = 40
	}
	p := make([]byte, head+20)
	addresses := p[12:20]
	if f.To.Addr().Is6() {
		p[0], p[6], p[7] = 0x60, protocol, 64
		binary.BigEndian.PutUint16(p[4:], 20)
		addresses = p[8:40]
	} else {
		p[0], p[8], p[9] = 0x45, 64, protocol // the kernel fills in length and checksum of the IP header
	}
	copy(addresses, f.From.AsSlice())
	copy(addresses[len(addresses)/2:], f.To.Addr().AsSlice())
	l4 := p[head:]
	binary.BigEndian.PutUint16(l4[0:], port)
	binary.BigEndian.PutUint16(l4[2:], f.To.Port())
	sum := l4[16:]
	if f.UDP {
		binary.BigEndian.PutUint16(l4[4:], 20)
		sum = l4[6:]
	} else {
		binary.BigEndian.PutUint32(l4[4:], seq)
		l4[12], l4[13] = 5<<4, or(f.Flags, 1<<1) // five words of header, SYN
		binary.BigEndian.PutUint16(l4[14:], 1024)
	}
	binary.BigEndian.PutUint16(sum, checksum(uint32(protocol)+20, addresses, l4))
	return p
}

// checksum is that of the pseudo header and the rest (RFC 1071).
func checksum(sum uint32, parts ...[]byte) uint16 {
	for _, b := range parts {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// Received counts the packets that have come to a device.
func (l *Lab) Received(r Role, device string) (uint64, error) {
	d, err := l.links[r].LinkByName(device)
	if err != nil {
		return 0, fmt.Errorf("find %s in %s: %w", device, l.Netns(r), err)
	}
	return d.Attrs().Statistics.RxPackets, nil
}
