// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// stream is a connected probe as a [net.Conn]: what is said and heard is
// counted, and the end of the wait is [os.ErrDeadlineExceeded].
type stream struct {
	socket *socket
	ctx    context.Context
	until  time.Time
	probe  *evidence.Probe
	raw    []byte // what came first, below TLS
}

func (s *stream) Read(b []byte) (int, error) {
	for {
		ev, err := s.socket.wait(s.ctx, unix.POLLIN, s.until)
		switch {
		case err != nil:
			return 0, err
		case ev == 0:
			return 0, os.ErrDeadlineExceeded
		}
		n, err := unix.Read(s.socket.fd, b)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			continue
		case err != nil:
			s.probe.Syscall = "read"
			return 0, err
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		}
		s.probe.Received += int64(n)
		if room := evidence.MaxHeard - len(s.raw); room > 0 {
			s.raw = append(s.raw, b[:min(n, room)]...)
		}
		return n, nil
	}
}

func (s *stream) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.SendmsgN(s.socket.fd, b[done:], nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EAGAIN:
			if ev, err := s.socket.wait(s.ctx, unix.POLLOUT, s.until); err != nil {
				return done, err
			} else if ev == 0 {
				return done, os.ErrDeadlineExceeded
			}
			continue
		case err == unix.EINTR:
			continue
		case err != nil:
			s.probe.Syscall = "send"
			return done, err
		}
		done += n
		s.probe.Sent += int64(n)
	}
	return done, nil
}

func (s *stream) Close() error                     { return nil } // the probe's own Close does it
func (s *stream) LocalAddr() net.Addr              { return net.TCPAddrFromAddrPort(s.socket.Local()) }
func (s *stream) RemoteAddr() net.Addr             { return net.TCPAddrFromAddrPort(s.socket.cfg.Target) }
func (s *stream) SetDeadline(time.Time) error      { return nil } // the probe's own stands
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

// ended says how a probe ended whose reading or writing came to err. ok is
// false when that is no end of the connection, but what TLS makes of the bytes.
func ended(p *evidence.Probe, err error) (outcome string, ok bool) {
	var errno unix.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return evidence.Silent, true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return evidence.Closed, true
	case errors.As(err, &errno):
		return failed(p, err), true
	}
	return "", false
}
