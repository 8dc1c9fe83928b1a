// SPDX-License-Identifier: Apache-2.0

// Package probe sends one connection attempt and says what came back, as the
// program that connects would see it.
package probe

import (
	"context"
	"crypto/rand"
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

// Causes with which the context of [TCP.Run] may be cancelled.
var (
	// ErrExplained: the kernel has said why there will be no answer.
	ErrExplained = errors.New("the kernel has explained the outcome")
	// ErrAccepted: a process has accepted the connection.
	ErrAccepted = errors.New("a process has accepted the connection")
)

// AcceptWait is how long a connection that has nothing to say or hear stays open for a process to accept it.
const AcceptWait = 100 * time.Millisecond

// Config of a TCP probe.
type Config struct {
	Target  netip.AddrPort // a zone names the device
	Source  netip.AddrPort // zero address: the kernel chooses; zero port: the kernel chooses one
	Device  string         // SO_BINDTODEVICE
	Mark    uint32         // SO_MARK
	Timeout time.Duration
	Send    []byte         // once connected
	Expect  *regexp.Regexp // what must be heard
	Wait    bool           // wait for a byte, a close or a reset until the deadline
}

// TCP is a socket that is bound and ready to connect.
type TCP struct {
	ISN uint32 // the initial sequence number of its SYN

	cfg   Config
	fd    int
	wake  int // eventfd
	start atomic.Int64
}

// Open makes the socket in the network namespace of the calling thread, binds
// its port and chooses its initial sequence number (TCP_REPAIR, tcp(7), needs
// CAP_NET_ADMIN): so the SYN is known before it exists, and through any NAT.
func Open(cfg Config) (*TCP, error) {
	domain := unix.AF_INET
	if cfg.Target.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return nil, fmt.Errorf("open a TCP socket: %w", err)
	}
	t := &TCP{cfg: cfg, fd: fd, wake: -1}
	if err := t.prepare(); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (t *TCP) prepare() error {
	var err error
	if t.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if t.cfg.Device != "" {
		if err := unix.BindToDevice(t.fd, t.cfg.Device); err != nil {
			return fmt.Errorf("bind to device %s: %w", t.cfg.Device, err)
		}
	}
	if t.cfg.Mark != 0 {
		if err := unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_MARK, int(t.cfg.Mark)); err != nil {
			return fmt.Errorf("set mark %#x: %w", t.cfg.Mark, err)
		}
	}
	if err := t.chooseISN(); err != nil {
		return err
	}
	if t.cfg.Source.Port() != 0 {
		// a port in TIME_WAIT may be bound; connect() then tells whether the whole tuple is free
		if err := unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return fmt.Errorf("SO_REUSEADDR: %w", err)
		}
	}
	src := t.cfg.Source
	if !src.Addr().IsValid() {
		any := netip.IPv4Unspecified()
		if t.cfg.Target.Addr().Is6() {
			any = netip.IPv6Unspecified()
		}
		src = netip.AddrPortFrom(any, src.Port())
	}
	sa, err := sockaddr(src)
	if err != nil {
		return err
	}
	if err := unix.Bind(t.fd, sa); err != nil {
		return fmt.Errorf("bind %s: %w", src, err)
	}
	return nil
}

// chooseISN: a socket that was given a send sequence keeps it in connect().
func (t *TCP) chooseISN() error {
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return fmt.Errorf("choose a sequence number: %w", err)
	}
	// neither 0 (the kernel would choose) nor so high that the numbers of a short exchange wrap
	t.ISN = binary.NativeEndian.Uint32(b[:])%0x7fff0000 + 1
	for _, o := range []struct{ name, value int }{
		{unix.TCP_REPAIR, 1},
		{unix.TCP_REPAIR_QUEUE, 2}, // TCP_SEND_QUEUE
		{unix.TCP_QUEUE_SEQ, int(int32(t.ISN))},
		{unix.TCP_REPAIR, -1}, // TCP_REPAIR_OFF_NO_WP
	} {
		if err := unix.SetsockoptInt(t.fd, unix.IPPROTO_TCP, o.name, o.value); err != nil {
			return fmt.Errorf("choose a sequence number (TCP_REPAIR): %w", err)
		}
	}
	return nil
}

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

// Local returns the socket's own address; its port holds from [Open] on, its IP once connect() has chosen one.
func (t *TCP) Local() netip.AddrPort {
	sa, err := unix.Getsockname(t.fd)
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

// Start is when connect() was called, in nanoseconds of CLOCK_MONOTONIC; 0 before that.
func (t *TCP) Start() int64 { return t.start.Load() }

// Run connects, says what is to be said and listens, until the deadline or
// until ctx ends. It is called once.
func (t *TCP) Run(ctx context.Context) evidence.Probe {
	p := evidence.Probe{TimeoutNS: int64(t.cfg.Timeout), ISN: t.ISN, Mark: t.cfg.Mark, Device: t.cfg.Device, Expected: t.cfg.Expect != nil}
	stop := context.AfterFunc(ctx, func() {
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = unix.Write(t.wake, one[:]) // cannot block: the counter is ours alone
	})
	defer stop()
	p.Started = time.Now()
	t.start.Store(monotonic())
	deadline := p.Started.Add(t.cfg.Timeout)
	p.Outcome = t.connect(ctx, &p, deadline)
	if p.Outcome == evidence.Connected {
		p.Outcome = t.talk(ctx, &p, deadline)
	}
	p.DurationNS = monotonic() - t.start.Load()
	if l := t.Local(); l.IsValid() && !l.Addr().IsUnspecified() {
		p.Local = l.String()
	}
	if info, err := unix.GetsockoptTCPInfo(t.fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
		p.Retransmit = int(info.Total_retrans)
	}
	return p
}

func (t *TCP) connect(ctx context.Context, p *evidence.Probe, deadline time.Time) string {
	sa, err := sockaddr(t.cfg.Target)
	if err == nil {
		err = unix.Connect(t.fd, sa)
	}
	p.Syscall = "connect"
	if err != nil && err != unix.EINPROGRESS {
		return failed(p, err)
	}
	if err == unix.EINPROGRESS {
		if ev, err := t.wait(ctx, unix.POLLOUT, deadline); err != nil {
			return failed(p, err)
		} else if ev == 0 {
			return evidence.Timeout
		}
		soerr, err := unix.GetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			return failed(p, err)
		}
		if soerr != 0 {
			return failed(p, unix.Errno(soerr))
		}
	}
	p.Syscall = ""
	return evidence.Connected
}

// talk says what is to be said and judges what is heard.
func (t *TCP) talk(ctx context.Context, p *evidence.Probe, deadline time.Time) string {
	if len(t.cfg.Send) > 0 {
		n, err := unix.SendmsgN(t.fd, t.cfg.Send, nil, nil, unix.MSG_NOSIGNAL)
		if err != nil {
			p.Syscall = "send"
			return failed(p, err)
		}
		p.Sent = int64(n)
	}
	until := deadline
	if !t.cfg.Wait && t.cfg.Expect == nil {
		until = time.Now().Add(AcceptWait)
		if deadline.Before(until) {
			until = deadline
		}
	}
	buf := make([]byte, 4096)
	var heard []byte
	for {
		ev, err := t.wait(ctx, unix.POLLIN, until)
		if err != nil {
			return failed(p, err)
		}
		if ev == 0 {
			return t.quiet(p, heard)
		}
		n, err := unix.Read(t.fd, buf)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			continue
		case err != nil:
			p.Syscall = "read"
			return failed(p, err)
		case n == 0:
			p.Unmatched = t.cfg.Expect != nil && len(heard) > 0
			if len(heard) > 0 && !p.Unmatched {
				return evidence.Answered
			}
			return evidence.Closed
		}
		heard = append(heard, buf[:n]...)
		p.Banner = string(heard)
		if t.cfg.Expect == nil || t.cfg.Expect.Match(heard) {
			return evidence.Answered
		}
		if len(heard) > 1<<20 {
			p.Unmatched = true
			return evidence.Answered
		}
	}
}

// quiet judges a connection on which nothing more was heard in time.
func (t *TCP) quiet(p *evidence.Probe, heard []byte) string {
	if t.cfg.Expect != nil {
		p.Unmatched = len(heard) > 0
		return evidence.Silent
	}
	return evidence.Connected
}

// wait polls for events; 0 means that the deadline passed or ctx ended.
func (t *TCP) wait(ctx context.Context, events int16, deadline time.Time) (int16, error) {
	for {
		// an answer that is there already counts, however late we look
		left := max(0, time.Until(deadline))
		over := left == 0 || ctx.Err() != nil
		if over {
			left = 0
		}
		ts := unix.NsecToTimespec(int64(left))
		fds := []unix.PollFd{{Fd: int32(t.fd), Events: events}, {Fd: int32(t.wake), Events: unix.POLLIN}}
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
func (t *TCP) Close() error {
	var errs []error
	for _, fd := range []int{t.fd, t.wake} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	t.fd, t.wake = -1, -1
	return errors.Join(errs...)
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // fails for bad arguments only
	return ts.Nano()
}
