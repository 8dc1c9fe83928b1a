// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
)

// How a walk goes: so many TTLs at once, the next ones when these have answered or after a while,
// no farther than so many beyond the last router that answered; who is silent is asked again.
const (
	walkWave    = 6
	walkPace    = 60 * time.Millisecond
	walkSilence = 12
	walkPatient = 400 * time.Millisecond
	walkHurry   = 100 * time.Millisecond
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
	w := &walker{want: cfg.Size}
	defer w.close()
	if err := w.open(cfg.Config, numbers, 0); err != nil {
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

type walker struct {
	wire
	want int // size of each packet that was asked for
	size int // that it has

	stations [maxTTL + 1]station
	opened   int // TTLs up to here were sent
	end      int // TTL of the end of the way, 0: not known
	wave     time.Time
}

func (w *walker) run(ctx context.Context) error {
	deadline := time.Now().Add(w.cfg.Timeout)
	for {
		now := time.Now()
		next, err := w.sendDue(now)
		if err != nil {
			return err
		}
		if next.IsZero() || ctx.Err() != nil || !now.Before(deadline) {
			return nil
		}
		if next.After(deadline) {
			next = deadline
		}
		if err := w.listen(next, w.answered); err != nil {
			return err
		}
	}
}

// sendDue sends what is due, and returns when to look again; zero when there is nothing left to do.
func (w *walker) sendDue(now time.Time) (next time.Time, err error) {
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
		patience := w.patience(ttl)
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

// patience is how long an answer to ttl is waited for: where a host farther away has answered, not much longer than it took.
func (w *walker) patience(ttl int) time.Duration {
	if ttl > w.farthest() {
		return walkPatient
	}
	var slowest time.Duration
	for i := range w.stations {
		slowest = max(slowest, time.Duration(w.stations[i].hop.RTTNS))
	}
	return min(max(walkHurry, 4*slowest), walkPatient)
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

func (w *walker) sendOne(ttl int, now time.Time) (err error) {
	s := &w.stations[ttl]
	n := number(ttl, s.hop.Sent)
	s.sent[s.hop.Sent] = now
	s.hop.Sent++
	w.size, err = w.send(n, ttl, w.want)
	return err
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
