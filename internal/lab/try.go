// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Try is one attempt of a plain client, without pathtrace.
type Try struct {
	Protocol string // tcp, udp or icmp
	To       netip.AddrPort
	From     netip.AddrPort
	Mark     int
	Say      string // "x" when empty; over TCP nothing is said then
	Hear     bool   // over TCP: an answer is waited for
	Patience time.Duration
}

// Attempt has a plain client of the fault make one attempt from the client's namespace and cgroup, and
// returns the errno that it saw, ETIMEDOUT where nothing came in time, or nil.
func (l *Lab) Attempt(f Fault, patience time.Duration) error {
	t := Try{Protocol: or(f.Protocol, "tcp"), To: f.service(l), Patience: patience}
	for i := 0; i+1 < len(f.Args); i++ {
		var err error
		switch f.Args[i] {
		case "-u":
			t.Protocol = "udp"
		case "--send":
			t.Say = f.Args[i+1]
		case "--expect":
			t.Hear = true
		case "--mark":
			_, err = fmt.Sscan(f.Args[i+1], &t.Mark)
		case "-s":
			var a netip.Addr
			a, err = netip.ParseAddr(f.Args[i+1])
			t.From = netip.AddrPortFrom(a, t.From.Port())
		case "-p":
			var port int
			port, err = strconv.Atoi(f.Args[i+1])
			if !t.From.IsValid() {
				t.From = netip.AddrPortFrom(l.Addr(Client, f.Family), 0)
			}
			t.From = netip.AddrPortFrom(t.From.Addr(), uint16(port))
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", f.Args[i], f.Args[i+1], err)
		}
	}
	s, err := l.spawn(Client, job{Try: &t})
	if err != nil {
		return err
	}
	defer s.stop()
	line, err := s.said.ReadString('\n')
	if err != nil {
		return fmt.Errorf("the client said nothing: %w", err)
	}
	switch n, err := strconv.Atoi(strings.TrimSpace(line)); {
	case err != nil:
		return errors.New(strings.TrimSpace(line))
	case n != 0:
		return syscall.Errno(n)
	}
	return nil
}

// run returns the errno as a number, 0 for success, or in words what else went wrong.
func (t Try) run() string {
	err := t.attempt()
	var errno syscall.Errno
	switch {
	case err == nil:
		return "0"
	case errors.As(err, &errno):
		return strconv.Itoa(int(errno))
	}
	return err.Error()
}

func (t Try) attempt() error {
	kind, protocol := unix.SOCK_STREAM, 0
	to := t.To
	domain, _ := sockaddr(to)
	switch {
	case t.Protocol == "udp":
		kind = unix.SOCK_DGRAM
	case t.Protocol == "icmp" && domain == unix.AF_INET6:
		kind, protocol, to = unix.SOCK_RAW, unix.IPPROTO_ICMPV6, netip.AddrPortFrom(to.Addr(), 0)
	case t.Protocol == "icmp":
		kind, protocol = unix.SOCK_RAW, unix.IPPROTO_ICMP
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if t.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, t.Mark); err != nil {
			return err
		}
	}
	if t.From.Port() != 0 && t.Protocol == "tcp" {
		// Low, as a probe's is: whether an old connection of that port gives way depends on it.
		if err := setISN(fd, 1); err != nil {
			return err
		}
	}
	if t.From.IsValid() {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		_, from := sockaddr(t.From)
		if err := unix.Bind(fd, from); err != nil {
			return err
		}
	}
	_, sa := sockaddr(to)
	if err := unix.Connect(fd, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	if t.Protocol == "tcp" {
		if err := t.await(fd, unix.POLLOUT); err != nil {
			return err
		}
		errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && errno != 0 {
			err = syscall.Errno(errno)
		}
		if err != nil || !t.Hear {
			return err
		}
	}
	return t.exchange(fd)
}

// await waits for events of a socket until its patience is over.
func (t *Try) await(fd int, events int16) error {
	for deadline := time.Now().Add(t.Patience); ; {
		left := time.Until(deadline)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, int(max(left.Milliseconds(), 0)))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n == 1 {
			return nil
		}
		if left <= 0 {
			return unix.ETIMEDOUT
		}
	}
}

// exchange says something, or sends an echo request, and waits for the answer.
func (t Try) exchange(fd int) error {
	say, answer, head := []byte(or(t.Say, "x")), -1, 0
	if t.Protocol == "icmp" {
		say, answer, head = []byte{8, 0, 0, 0, 0, 7, 0, 1}, 0, 20
		binary.BigEndian.PutUint16(say[2:], checksum(0, say))
		if t.To.Addr().Is6() {
			say[0], answer, head = 128, 129, 0 // its checksum is the kernel's work
		}
	}
	if _, err := unix.Write(fd, say); err != nil {
		return err
	}
	for b := make([]byte, 2048); ; {
		if err := t.await(fd, unix.POLLIN); err != nil {
			return err
		}
		n, err := unix.Read(fd, b)
		if err != nil {
			return err
		}
		if answer < 0 || n > head && int(b[head]) == answer {
			return nil
		}
	}
}
