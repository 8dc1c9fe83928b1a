// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// The sockets of a wire.
const (
	sendSocket = iota
	icmpSocket
	answerSocket
)

// wire sends packets of one flow, and reads the answers to them.
type wire struct {
	cfg      Config
	flow     walkFlow
	fds      [3]int
	reserved socket // keeps our port from others
}

// open opens the sockets. Packets bear numbers below limit, in TCP segments shifted
// left: so many bits are left free for the length of what they carry.
func (w *wire) open(cfg Config, limit uint32, shift uint) error {
	w.cfg, w.fds = cfg, [3]int{-1, -1, -1}
	w.reserved.cfg, w.reserved.fd, w.reserved.wake = cfg, -1, -1
	kind, protocol := unix.SOCK_DGRAM, 0
	if w.cfg.Protocol == "tcp" {
		kind = unix.SOCK_STREAM
	}
	w.reserved.cfg.Source = netip.AddrPortFrom(w.cfg.Source.Addr(), 0)
	err := w.reserved.open(kind, protocol)
	if err == nil {
		err = w.reserved.bind()
	}
	if err != nil {
		return err
	}
	from, err := w.source()
	if err != nil {
		return err
	}
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return err
	}
	w.flow = walkFlow{
		protocol: w.cfg.Protocol, local: netip.AddrPortFrom(from, w.reserved.Local().Port()), remote: w.cfg.Target,
		base: binary.NativeEndian.Uint32(b[:]), limit: limit, shift: shift, payload: w.cfg.Send,
	}
	return w.openRaw()
}

// source is the address that the kernel gives to packets to the target.
func (w *wire) source() (netip.Addr, error) {
	s := socket{cfg: w.cfg}
	defer s.Close()
	if err := s.open(unix.SOCK_DGRAM, 0); err != nil {
		return netip.Addr{}, err
	}
	s.cfg.Source = netip.AddrPortFrom(w.cfg.Source.Addr(), 0)
	if err := s.bind(); err != nil {
		return netip.Addr{}, err
	}
	port := max(w.cfg.Target.Port(), 1)
	sa, err := sockaddr(netip.AddrPortFrom(w.cfg.Target.Addr(), port))
	if err != nil {
		return netip.Addr{}, err
	}
	if err := unix.Connect(s.fd, sa); err != nil {
		return netip.Addr{}, fmt.Errorf("route to %s: %w", w.cfg.Target.Addr(), err)
	}
	return s.Local().Addr(), nil
}

func (w *wire) openRaw() error {
	domain, icmp := unix.AF_INET, unix.IPPROTO_ICMP
	if w.flow.v6() {
		domain, icmp = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	// IPPROTO_RAW: the IP header is ours, raw(7)
	for i, protocol := range []int{unix.IPPROTO_RAW, icmp, int(w.flow.transport())} {
		if i == answerSocket && w.flow.protocol == "icmp" {
			break
		}
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		if err != nil {
			return fmt.Errorf("open a raw socket: %w", err)
		}
		w.fds[i] = fd
	}
	if w.cfg.Mark != 0 {
		if err := unix.SetsockoptInt(w.fds[sendSocket], unix.SOL_SOCKET, unix.SO_MARK, int(w.cfg.Mark)); err != nil {
			return fmt.Errorf("set mark %#x: %w", w.cfg.Mark, err)
		}
	}
	if w.cfg.Device != "" {
		if err := unix.BindToDevice(w.fds[sendSocket], w.cfg.Device); err != nil {
			return fmt.Errorf("bind to device %s: %w", w.cfg.Device, err)
		}
	}
	// what the kernel learns of the path's MTU on the way must not stop the packets behind
	level, option := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
	if w.flow.v6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
	}
	if err := unix.SetsockoptInt(w.fds[sendSocket], level, option, unix.IP_PMTUDISC_PROBE); err != nil {
		return fmt.Errorf("send regardless of the path MTU: %w", err)
	}
	if w.flow.v6() {
		for _, fd := range w.fds[icmpSocket:] {
			if fd >= 0 {
				if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1); err != nil {
					return fmt.Errorf("ask for hop limits: %w", err)
				}
			}
		}
	}
	if w.fds[answerSocket] < 0 {
		return nil
	}
	filter := portFilter(w.flow.local.Port(), w.flow.v6())
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(w.fds[answerSocket], unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
		return fmt.Errorf("attach a filter: %w", err)
	}
	return nil
}

// send sends packet n of the flow, and returns its length.
func (w *wire) send(n uint32, ttl, size int) (int, error) {
	b, err := w.flow.packet(n, ttl, size)
	if err != nil {
		return 0, err
	}
	sa, err := sockaddr(netip.AddrPortFrom(w.cfg.Target.Addr(), 0))
	if err != nil {
		return 0, err
	}
	switch err := unix.Sendto(w.fds[sendSocket], b, 0, sa); err {
	case nil, unix.ENOBUFS, unix.EAGAIN:
	case unix.EPERM: // a rule of this host dropped it
	default:
		return 0, fmt.Errorf("send with TTL %d: %w", ttl, err)
	}
	return len(b), nil
}

// listen has what has come taken, and waits until next for it.
func (w *wire) listen(next time.Time, take func(reading, time.Time)) error {
	var fds []unix.PollFd
	for _, fd := range w.fds[icmpSocket:] {
		if fd >= 0 {
			fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	ts := unix.NsecToTimespec(int64(max(0, time.Until(next))))
	if _, err := unix.Ppoll(fds, &ts, nil); err != nil && err != unix.EINTR {
		return fmt.Errorf("poll: %w", err)
	}
	for i, p := range fds {
		if p.Revents == 0 {
			continue
		}
		if err := w.read(int(p.Fd), i == 0, take); err != nil {
			return err
		}
	}
	return nil
}

// read reads a socket empty.
func (w *wire) read(fd int, icmp bool, take func(reading, time.Time)) error {
	b, oob := make([]byte, 2048), make([]byte, 256)
	for {
		n, m, _, from, err := unix.Recvmsg(fd, b, oob, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		}
		ttl, id, rest := hopLimit(oob[:m]), 0, b[:n]
		if !w.flow.v6() {
			var ok bool
			if ttl, id, rest, ok = networkHeader(b[:n]); !ok {
				continue
			}
		}
		read := w.flow.answer
		if icmp {
			read = w.flow.icmp
		}
		r, ok := read(rest)
		if !ok {
			continue
		}
		r.hop.ReplyTTL, r.hop.ReplyID = ttl, id
		if r.from = fromAddr(from); r.hop.Answer != evidence.TimeExceeded && r.hop.Answer != evidence.ICMPError && r.from != w.flow.remote.Addr().WithZone("") {
			continue
		}
		take(r, time.Now())
	}
}

func (w *wire) close() {
	for _, fd := range w.fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	w.reserved.Close()
}

func fromAddr(sa unix.Sockaddr) netip.Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(sa.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(sa.Addr)
	}
	return netip.Addr{}
}

// hopLimit reads the hop limit of an IPv6 packet from its ancillary data (RFC 3542), 0 when it is not there.
func hopLimit(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT && len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return 0
}
