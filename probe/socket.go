// SPDX-License-Identifier: Apache-2.0

// Package probe sends one connection attempt, datagram or echo request and says
// what came back, as the program that sends would see it.
package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// Causes with which the context of a probe's Run may be cancelled.
var (
	// ErrExplained: the kernel has said why there will be no answer.
	ErrExplained = errors.New("the kernel has explained the outcome")
	// ErrAccepted: a process has accepted the connection.
	ErrAccepted = errors.New("a process has accepted the connection")
)

// AcceptWait is how long a connection that has nothing to say or hear stays open for a process to accept it.
const AcceptWait = 100 * time.Millisecond

// Config of a probe.
type Config struct {
	Protocol string         // tcp, udp or icmp
	Target   netip.AddrPort // a zone names the device; icmp has no port
	Source   netip.AddrPort // zero address: the kernel chooses; zero port: the kernel chooses one
	Device   string         // SO_BINDTODEVICE
	Mark     uint32         // SO_MARK
	Timeout  time.Duration
	Send     []byte         // what to say
	Expect   *regexp.Regexp // what must be heard
	Wait     bool           // tcp: wait for a byte, a close or a reset until the deadline
	Speech   Speech         // the protocol to speak; Send and Expect go before its own words
	// Ready is called before the first datagram or echo request leaves, with the
	// addresses it will bear; icmp has its identifier for a port. TCP is known by
	// its sequence number instead, see [Sender.ISN].
	Ready func(local, remote netip.AddrPort) error
}

// Sender is a probe whose socket is bound and ready.
type Sender interface {
	// ISN is the initial sequence number of a TCP probe's SYN, 0 for others.
	ISN() uint32
	// Local returns the socket's own address; its port holds at once, its IP once the kernel has chosen one.
	Local() netip.AddrPort
	// Start is when the probe was sent, in nanoseconds of CLOCK_MONOTONIC; 0 before that.
	Start() int64
	// Run sends, and listens until the deadline or until ctx ends. It is called once.
	Run(ctx context.Context) evidence.Probe
	Close() error
}

// senders by protocol.
var senders = map[string]func(Config) (Sender, error){"tcp": newTCP, "udp": newUDP, "icmp": newICMP}

// Open makes the socket in the network namespace of the calling thread and binds it.
func Open(cfg Config) (Sender, error) {
	f := senders[cfg.Protocol]
	if f == nil {
		return nil, fmt.Errorf("no probe for protocol %q", cfg.Protocol)
	}
	return f(cfg)
}

// socket is what all probes share.
type socket struct {
	cfg   Config
	fd    int
	wake  int // eventfd: ctx has ended
	start atomic.Int64
}

func (s *socket) open(kind, protocol int) error {
	s.fd, s.wake = -1, -1
	if _, err := sockaddr(s.cfg.Target); err != nil {
		return err
	}
	domain := unix.AF_INET
	if s.cfg.Target.Addr().Is6() {
		domain = unix.AF_INET6
	}
	var err error
	if s.fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol); err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if s.cfg.Device != "" {
		if err := unix.BindToDevice(s.fd, s.cfg.Device); err != nil {
			return fmt.Errorf("bind to device %s: %w", s.cfg.Device, err)
		}
	}
	if s.cfg.Mark != 0 {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_MARK, int(s.cfg.Mark)); err != nil {
			return fmt.Errorf("set mark %#x: %w", s.cfg.Mark, err)
		}
	}
	return nil
}

func (s *socket) bind() error {
	src := s.cfg.Source
	if !src.Addr().IsValid() {
		unspecified := netip.IPv4Unspecified()
		if s.cfg.Target.Addr().Is6() {
			unspecified = netip.IPv6Unspecified()
		}
		src = netip.AddrPortFrom(unspecified, src.Port())
	}
	sa, err := sockaddr(src)
	if err != nil {
		return err
	}
	if err := unix.Bind(s.fd, sa); err != nil {
		return fmt.Errorf("bind %s: %w", src, err)
	}
	return nil
}

// sockaddr of an address; a zone becomes the index of its device in the calling thread's namespace.
func sockaddr(ap netip.AddrPort) (unix.Sockaddr, error) {
	a := ap.Addr()
	if a.Is4() {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: a.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(ap.Port()), Addr: a.As16()}
	if z := a.Zone(); z != "" {
		ifr, err := unix.NewIfreq(z)
		if err != nil {
			return nil, fmt.Errorf("device %q: %w", z, err)
		}
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
			return nil, fmt.Errorf("device %q: %w", z, err)
		}
		sa.ZoneId = ifr.Uint32()
	}
	return sa, nil
}

func (s *socket) ISN() uint32  { return 0 }
func (s *socket) Start() int64 { return s.start.Load() }

func (s *socket) Local() netip.AddrPort {
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return netip.AddrPort{}
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// run brackets a probe: the clock, the deadline, the wake-up when ctx ends.
func (s *socket) run(ctx context.Context, p *evidence.Probe, f func(deadline time.Time) string) {
	p.TimeoutNS, p.Mark, p.Device, p.Expected = int64(s.cfg.Timeout), s.cfg.Mark, s.cfg.Device, s.cfg.Expect != nil
	stop := context.AfterFunc(ctx, func() {
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = unix.Write(s.wake, one[:]) // cannot block: the counter is ours alone
	})
	defer stop()
	p.Started = time.Now()
	s.start.Store(monotonic())
	p.Outcome = f(p.Started.Add(s.cfg.Timeout))
	p.DurationNS = monotonic() - s.start.Load()
	// Without an address when the port that was asked for is taken: that says who holds it.
	if l := s.Local(); l.IsValid() && (!l.Addr().IsUnspecified() || p.Errno == "EADDRNOTAVAIL" && s.cfg.Source.Port() != 0) {
		p.Local = l.String()
	}
}

// whole is the size of a packet that carries n bytes to the target in one piece,
// IP header included; 0 when the kernel, or a router, may cut it up (ip(7), IP_MTU_DISCOVER).
func (s *socket) whole(n int) int {
	level, header, mtu := unix.IPPROTO_IP, 20, unix.IP_MTU
	if s.cfg.Target.Addr().Is6() {
		level, header, mtu = unix.IPPROTO_IPV6, 40, unix.IPV6_MTU
	} else if how, err := unix.GetsockoptInt(s.fd, level, unix.IP_MTU_DISCOVER); err != nil || how == unix.IP_PMTUDISC_DONT {
		return 0
	}
	if limit, err := unix.GetsockoptInt(s.fd, level, mtu); err != nil || n+header > limit {
		return 0
	}
	return n + header
}

// wait polls for events; 0 means that the deadline passed or ctx ended.
func (s *socket) wait(ctx context.Context, events int16, deadline time.Time) (int16, error) {
	for {
		// an answer that is there already counts, however late we look
		left := max(0, time.Until(deadline))
		over := left == 0 || ctx.Err() != nil
		if over {
			left = 0
		}
		ts := unix.NsecToTimespec(int64(left))
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: events}, {Fd: int32(s.wake), Events: unix.POLLIN}}
		_, err := unix.Ppoll(fds, &ts, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("poll: %w", err)
		}
		if fds[0].Revents != 0 {
			return fds[0].Revents, nil
		}
		if over {
			return 0, nil
		}
	}
}

// failed notes an error and says how the probe ended.
func failed(p *evidence.Probe, err error) string {
	var e unix.Errno
	if !errors.As(err, &e) {
		p.Errno = err.Error()
		return evidence.Denied
	}
	p.Errno = unix.ErrnoName(e)
	switch e {
	case unix.ECONNREFUSED:
		return evidence.Refused
	case unix.ECONNRESET, unix.EPIPE:
		return evidence.Reset
	case unix.ETIMEDOUT:
		return evidence.Timeout
	case unix.EPERM, unix.EADDRNOTAVAIL, unix.EADDRINUSE, unix.EACCES: // EACCES: a prohibit route, or a security module
		return evidence.Denied
	}
	return evidence.Unreachable
}

// Close closes the socket.
func (s *socket) Close() error {
	var errs []error
	for _, fd := range []int{s.fd, s.wake} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	s.fd, s.wake = -1, -1
	return errors.Join(errs...)
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // fails for bad arguments only
	return ts.Nano()
}
