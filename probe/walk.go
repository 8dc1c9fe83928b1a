// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// How a walk goes: so many TTLs at once, the next ones when these have answered or after a while,
// no farther than so many beyond the last router that answered; who is silent is asked again.
const (
	walkWave    = 6
	walkPace    = 60 * time.Millisecond
	walkSilence = 12
	walkPatient = 400 * time.Millisecond
)

// WalkConfig is what a walk looks like: the probe's own packets, as far as that goes.
type WalkConfig struct {
	Config
	Size int // of each packet, bytes, IP header included; 0: as small as may be
}

// Walk sends packets like the probe's with rising TTL, in the network namespace
// of the calling thread, and returns who answered. A SYN that is answered is
// reset by the kernel, which knows no such connection. It needs CAP_NET_RAW.
func Walk(ctx context.Context, cfg WalkConfig) (evidence.Walk, error) {
	w := &walker{cfg: cfg, fds: [3]int{-1, -1, -1}}
	defer w.close()
	if err := w.open(); err != nil {
		return evidence.Walk{}, err
	}
	err := w.run(ctx)
	return evidence.Walk{
		Protocol: cfg.Protocol, Source: w.flow.local.Addr().String(), Dest: cfg.Target.Addr().String(), Size: w.size, Hops: w.hops(),
	}, err
}

// station is one TTL of a walk.
type station struct {
	hop  evidence.Hop
	sent [maxTries]time.Time
}

// The sockets of a walk.
const (
	sendSocket = iota
	icmpSocket
	answerSocket
)

type walker struct {
	cfg      WalkConfig
	flow     walkFlow
	fds      [3]int
	reserved socket // keeps our port from others
	size     int

	stations [maxTTL + 1]station
	opened   int // TTLs up to here were sent
	end      int // TTL of the end of the way, 0: not known
	wave     time.Time
}

func (w *walker) run(ctx context.Context) error {
	deadline := time.Now().Add(w.cfg.Timeout)
	for {
		now := time.Now()
		next, err := w.send(now)
		if err != nil {
			return err
		}
		if next.IsZero() || ctx.Err() != nil || !now.Before(deadline) {
			return nil
		}
		if next.After(deadline) {
			next = deadline
		}
		if err := w.listen(next); err != nil {
			return err
		}
	}
}

// send sends what is due, and returns when to look again; zero when there is nothing left to do.
func (w *walker) send(now time.Time) (next time.Time, err error) {
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	waiting := false // for an answer of those that were just sent
	for ttl := 1; ttl <= w.opened && (w.end == 0 || ttl < w.end); ttl++ {
		s := &w.stations[ttl]
		if s.hop.Answer != "" {
			continue
		}
		patience := walkPatient
		if w.end != 0 && s.hop.Sent == 1 {
			patience = walkPace // the end is known: its half-open connection stood in the way of this one
		}
		due := s.sent[s.hop.Sent-1].Add(patience)
		if now.Before(due) {
			waiting = true
		} else if s.hop.Sent < maxTries {
			if err := w.sendOne(ttl, now); err != nil {
				return next, err
			}
			due = now.Add(patience)
		} else {
			continue // it had its chances
		}
		sooner(due)
	}
	limit := min(maxTTL, w.farthest()+walkSilence)
	if w.end != 0 || w.opened >= limit {
		return next, nil
	}
	if due := w.wave.Add(walkPace); waiting && now.Before(due) {
		sooner(due)
		return next, nil
	}
	for range min(walkWave, limit-w.opened) {
		w.opened++
		if err := w.sendOne(w.opened, now); err != nil {
			return next, err
		}
	}
	w.wave = now
	sooner(now.Add(walkPace))
	return next, nil
}

// farthest is the last TTL that was answered.
func (w *walker) farthest() int {
	for ttl := w.opened; ttl > 0; ttl-- {
		if w.stations[ttl].hop.Answer != "" {
			return ttl
		}
	}
	return 0
}

func (w *walker) sendOne(ttl int, now time.Time) error {
	s := &w.stations[ttl]
	b, err := w.flow.packet(number(ttl, s.hop.Sent), w.cfg.Size)
	if err != nil {
		return err
	}
	w.size = len(b)
	s.sent[s.hop.Sent] = now
	s.hop.Sent++
	sa, err := sockaddr(netip.AddrPortFrom(w.cfg.Target.Addr(), 0))
	if err != nil {
		return err
	}
	switch err := unix.Sendto(w.fds[sendSocket], b, 0, sa); err {
	case nil, unix.ENOBUFS, unix.EAGAIN:
		return nil
	case unix.EPERM: // a rule of this host dropped it
		return nil
	default:
		return fmt.Errorf("send with TTL %d: %w", ttl, err)
	}
}

// listen takes what has come, and waits until next for it.
func (w *walker) listen(next time.Time) error {
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
		if err := w.take(int(p.Fd), i == 0); err != nil {
			return err
		}
	}
	return nil
}

// take reads a socket empty.
func (w *walker) take(fd int, icmp bool) error {
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
		w.answered(r, time.Now())
	}
}

// answered notes the first answer to a TTL.
func (w *walker) answered(r reading, now time.Time) {
	ttl, try := ofNumber(r.n)
	if r.n == 0 { // a datagram that does not say what it answers: the nearest that may have reached the target
		ttl, try = w.lastRouter()+1, 0
	}
	if ttl > w.opened {
		return
	}
	s := &w.stations[ttl]
	if s.hop.Answer != "" || try >= s.hop.Sent {
		return
	}
	r.hop.TTL, r.hop.Sent, r.hop.Address = ttl, s.hop.Sent, r.from.String()
	r.hop.RTTNS = int64(now.Sub(s.sent[try]))
	s.hop = r.hop
	if r.hop.Ends() && (w.end == 0 || ttl < w.end) {
		w.end = ttl
	}
}

// lastRouter is the farthest TTL at which a packet ended under way.
func (w *walker) lastRouter() int {
	for ttl := w.opened; ttl > 0; ttl-- {
		if w.stations[ttl].hop.Answer == evidence.TimeExceeded {
			return ttl
		}
	}
	return 0
}

// hops returns the stations up to the end, or up to the last one that answered and the first that did not.
func (w *walker) hops() []evidence.Hop {
	last := w.end
	if last == 0 {
		last = min(w.farthest()+1, w.opened)
	}
	out := make([]evidence.Hop, 0, last)
	for ttl := 1; ttl <= last; ttl++ {
		h := w.stations[ttl].hop
		h.TTL = ttl
		out = append(out, h)
	}
	return out
}
