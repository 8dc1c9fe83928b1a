// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// udp is one datagram.
type udp struct {
	socket
	query *question // of DNS
}

func newUDP(cfg Config) (Sender, error) {
	u := &udp{socket: socket{cfg: cfg, fd: -1, wake: -1}}
	err := u.ask()
	if err == nil {
		err = u.open(unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	}
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
		if u.query != nil {
			p.Expected = true
			p.Dialogue = &evidence.Dialogue{Protocol: "dns", Said: []string{"query " + u.query.String()}, Reply: evidence.ReplyNone}
		}
		if outcome := u.send(&p); outcome != "" {
			return outcome
		}
		return u.receive(ctx, &p, deadline, func(b []byte) ([]byte, bool) { return u.hear(&p, b) })
	})
	return p
}

// ask builds the datagram of a protocol, unless the user has chosen one.
func (u *udp) ask() error {
	if !u.cfg.Speech.Any() || u.cfg.Send != nil {
		return nil
	}
	if u.cfg.Speech.Protocol != "dns" || u.cfg.Speech.TLS {
		return fmt.Errorf("no dialogue for protocol %q over udp", u.cfg.Speech.Protocol)
	}
	q, err := newQuestion(strings.Trim(u.cfg.Speech.Path, "/"))
	if err != nil {
		return err
	}
	u.query = &q
	u.cfg.Send, err = q.pack()
	return err
}

// hear judges a datagram that came; false: it answers something else.
func (u *udp) hear(p *evidence.Probe, b []byte) ([]byte, bool) {
	p.Received += int64(len(b))
	if u.query == nil {
		return b, true
	}
	h, ours := u.query.answer(b)
	if !ours {
		return nil, false
	}
	p.Dialogue.Reply, p.Dialogue.Line = h.reply, h.line
	p.Unmatched = h.reply != evidence.ReplyOK
	return []byte(h.line), true
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
	return u.write(p, u.cfg.Send, 8)
}

// write sends one message on a connected socket, to which the kernel adds a header
// of so many bytes, and that of IP; it returns "" when that worked.
func (s *socket) write(p *evidence.Probe, b []byte, header int) string {
	n, err := unix.SendmsgN(s.fd, b, nil, nil, unix.MSG_NOSIGNAL)
	if err != nil {
		p.Syscall = "send"
		return failed(p, err)
	}
	p.Sent = int64(n)
	p.Segment = s.whole(n + header)
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
		p.Banner = string(heard[:min(len(heard), evidence.MaxHeard)])
		p.Unmatched = p.Unmatched || s.cfg.Expect != nil && !s.cfg.Expect.Match(heard)
		return evidence.Answered
	}
}
