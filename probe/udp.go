// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// udp is one datagram.
type udp struct{ socket }

func newUDP(cfg Config) (Sender, error) {
	u := &udp{socket{cfg: cfg}}
	err := u.open(unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	if err == nil {
		err = u.bind()
	}
	if err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

// Run sends one datagram and waits for an answer, or for an ICMP error, which
// the kernel reports on a connected socket (udp(7), ip(7)).
func (u *udp) Run(ctx context.Context) evidence.Probe {
	var p evidence.Probe
	u.run(ctx, &p, func(deadline time.Time) string {
		if outcome := u.send(&p); outcome != "" {
			return outcome
		}
		return u.receive(ctx, &p, deadline, func(b []byte) ([]byte, bool) { return b, true })
	})
	return p
}

func (u *udp) send(p *evidence.Probe) string {
	sa, err := sockaddr(u.cfg.Target)
	if err == nil {
		err = unix.Connect(u.fd, sa)
	}
	if err != nil {
		p.Syscall = "connect"
		return failed(p, err)
	}
	if u.cfg.Ready != nil {
		if err := u.cfg.Ready(u.Local(), u.cfg.Target); err != nil {
			return failed(p, err)
		}
	}
	return u.write(p, u.cfg.Send)
}

// write sends one message on a connected socket; it returns "" when that worked.
func (s *socket) write(p *evidence.Probe, b []byte) string {
	n, err := unix.SendmsgN(s.fd, b, nil, nil, unix.MSG_NOSIGNAL)
	if err != nil {
		p.Syscall = "send"
		return failed(p, err)
	}
	p.Sent = int64(n)
	return ""
}

// receive waits for a message that take says is an answer to ours, and returns what it says.
func (s *socket) receive(ctx context.Context, p *evidence.Probe, deadline time.Time, take func([]byte) ([]byte, bool)) string {
	buf := make([]byte, 64<<10)
	for {
		ev, err := s.wait(ctx, unix.POLLIN, deadline)
		if err != nil {
			return failed(p, err)
		}
		if ev == 0 {
			return evidence.Silent
		}
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			continue
		case err != nil:
			p.Syscall = "recv"
			return failed(p, err)
		}
		heard, ours := take(buf[:n])
		if !ours {
			continue
		}
		p.Banner = string(heard)
		p.Unmatched = s.cfg.Expect != nil && !s.cfg.Expect.Match(heard)
		return evidence.Answered
	}
}
