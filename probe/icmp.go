// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// echo is one ICMP or ICMPv6 echo request.
type echo struct {
	socket
	id uint16
}

func newICMP(cfg Config) (Sender, error) {
	e := &echo{socket: socket{cfg: cfg}}
	if err := e.prepare(); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

func (e *echo) prepare() error {
	protocol := unix.IPPROTO_ICMP
	if e.v6() {
		protocol = unix.IPPROTO_ICMPV6
	}
	var b [2]byte
	if _, err := rand.Read(b[:]); err != nil {
		return fmt.Errorf("choose an identifier: %w", err)
	}
	e.id = binary.NativeEndian.Uint16(b[:]) | 1
	if err := e.open(unix.SOCK_RAW, protocol); err != nil {
		return err
	}
	// errors about our request are to be an errno of the socket
	level, option := unix.IPPROTO_IP, unix.IP_RECVERR
	if e.v6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	if err := unix.SetsockoptInt(e.fd, level, option, 1); err != nil {
		return fmt.Errorf("ask for ICMP errors: %w", err)
	}
	if !e.cfg.Source.Addr().IsValid() {
		return nil
	}
	e.cfg.Source = netip.AddrPortFrom(e.cfg.Source.Addr(), 0)
	return e.bind()
}

func (e *echo) v6() bool { return e.cfg.Target.Addr().Is6() }

// Local has the echo identifier for a port.
func (e *echo) Local() netip.AddrPort { return netip.AddrPortFrom(e.socket.Local().Addr(), e.id) }

// Run sends one echo request and waits for its reply.
func (e *echo) Run(ctx context.Context) evidence.Probe {
	var p evidence.Probe
	e.run(ctx, &p, func(deadline time.Time) string {
		request, err := e.request()
		if err != nil {
			return failed(&p, err)
		}
		target := netip.AddrPortFrom(e.cfg.Target.Addr(), 0)
		sa, err := sockaddr(target)
		if err == nil {
			err = unix.Connect(e.fd, sa)
		}
		if err != nil {
			p.Syscall = "connect"
			return failed(&p, err)
		}
		if e.cfg.Ready != nil {
			if err := e.cfg.Ready(e.Local(), netip.AddrPortFrom(target.Addr(), e.id)); err != nil {
				return failed(&p, err)
			}
		}
		if outcome := e.write(&p, request, 0); outcome != "" {
			return outcome
		}
		return e.receive(ctx, &p, deadline, e.reply)
	})
	if e.cfg.Expect == nil && len(e.cfg.Send) == 0 {
		p.Banner = "" // our own words, sent back
	}
	if l := e.socket.Local(); l.Addr().IsValid() && !l.Addr().IsUnspecified() {
		p.Local = l.Addr().String()
	}
	return p
}

// request builds the message; the kernel adds the IP header, and for ICMPv6 the checksum.
func (e *echo) request() ([]byte, error) {
	payload := e.cfg.Send
	if len(payload) == 0 {
		payload = []byte("pathtrace")
	}
	if e.v6() {
		b := make([]byte, 8, 8+len(payload))
		b[0] = layers.ICMPv6TypeEchoRequest
		binary.BigEndian.PutUint16(b[4:], e.id)
		binary.BigEndian.PutUint16(b[6:], 1)
		return append(b, payload...), nil
	}
	buf := gopacket.NewSerializeBuffer()
	icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: e.id, Seq: 1}
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true}, icmp, gopacket.Payload(payload))
	if err != nil {
		return nil, fmt.Errorf("build the echo request: %w", err)
	}
	return buf.Bytes(), nil
}

// reply returns the payload of a reply to our request. A raw socket sees every ICMP message to this host.
func (e *echo) reply(b []byte) (payload []byte, ours bool) {
	want := byte(layers.ICMPv4TypeEchoReply)
	if e.v6() {
		want = layers.ICMPv6TypeEchoReply
	} else {
		// a raw IPv4 socket hands the IP header over
		if len(b) < 20 || int(b[0]&0xf)<<2 > len(b) {
			return nil, false
		}
		b = b[int(b[0]&0xf)<<2:]
	}
	if len(b) < 8 || b[0] != want || binary.BigEndian.Uint16(b[4:]) != e.id {
		return nil, false
	}
	return b[8:], true
}
