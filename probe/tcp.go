// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// tcp is a connection attempt.
type tcp struct {
	socket
	isn uint32
}

// newTCP binds the port and chooses the initial sequence number (TCP_REPAIR,
// tcp(7), needs CAP_NET_ADMIN): so the SYN is known before it exists, and
// through any translation of addresses.
func newTCP(cfg Config) (Sender, error) {
	t := &tcp{socket: socket{cfg: cfg}}
	if err := t.prepare(); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (t *tcp) ISN() uint32 { return t.isn }

func (t *tcp) prepare() error {
	if _, err := t.cfg.script(t.cfg.Source); err != nil {
		t.fd, t.wake = -1, -1
		return err
	}
	if err := t.open(unix.SOCK_STREAM, unix.IPPROTO_TCP); err != nil {
		return err
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
	return t.bind()
}

// chooseISN: a socket that was given a send sequence keeps it in connect().
func (t *tcp) chooseISN() error {
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return fmt.Errorf("choose a sequence number: %w", err)
	}
	// neither 0 (the kernel would choose) nor so high that the numbers of a short exchange wrap
	t.isn = binary.NativeEndian.Uint32(b[:])%0x7fff0000 + 1
	for _, o := range []struct{ name, value int }{
		{unix.TCP_REPAIR, 1},
		{unix.TCP_REPAIR_QUEUE, 2}, // TCP_SEND_QUEUE
		{unix.TCP_QUEUE_SEQ, int(int32(t.isn))},
		{unix.TCP_REPAIR, -1}, // TCP_REPAIR_OFF_NO_WP
	} {
		if err := unix.SetsockoptInt(t.fd, unix.IPPROTO_TCP, o.name, o.value); err != nil {
			return fmt.Errorf("choose a sequence number (TCP_REPAIR): %w", err)
		}
	}
	return nil
}

func (t *tcp) Run(ctx context.Context) evidence.Probe {
	p := evidence.Probe{ISN: t.isn}
	t.run(ctx, &p, func(deadline time.Time) string {
		outcome := t.connect(ctx, &p, deadline)
		if outcome == evidence.Connected {
			p.ConnectedNS = monotonic() - t.start.Load()
			outcome = t.talk(ctx, &p, deadline)
		}
		return outcome
	})
	if info, err := unix.GetsockoptTCPInfo(t.fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
		p.Retransmit = int(info.Total_retrans)
		t.acked(&p, info)
	}
	return p
}

// acked notes what of the bytes sent is acknowledged and what is not, and how large a packet of the latter was at most.
func (t *tcp) acked(p *evidence.Probe, info *unix.TCPInfo) {
	waiting, err1 := unix.IoctlGetInt(t.fd, unix.SIOCOUTQ)
	unsent, err2 := unix.IoctlGetInt(t.fd, unix.SIOCOUTQNSD)
	if p.Sent == 0 || err1 != nil || err2 != nil {
		return
	}
	p.Acked = max(0, p.Sent-int64(waiting))
	if waiting <= unsent {
		return
	}
	header := 20
	if info.Options&tcpiOptTimestamps != 0 {
		header += 12 // which tcpi_snd_mss leaves room for
	}
	p.Unacked = int64(waiting - unsent)
	p.Segment = t.whole(min(waiting-unsent, int(info.Snd_mss)) + header)
}

const tcpiOptTimestamps = 1 // TCPI_OPT_TIMESTAMPS, linux/tcp.h

func (t *tcp) connect(ctx context.Context, p *evidence.Probe, deadline time.Time) string {
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
