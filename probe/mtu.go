// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"slices"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
)

// How sizes are tried: so many at once where the target itself answers, and one
// where a router does, who may give only so many answers a second. What is not
// answered is given up this long after a smaller one was, which left behind it.
const (
	mtuWidth   = 8
	mtuSlack   = 50 * time.Millisecond
	mtuPatient = 400 * time.Millisecond
	mtuSteps   = 8    // links on the way whose MTU is told
	mtuNumbers = 4096 // of packets
	mtuShift   = 16   // a packet's length fits below
	mtuSmall   = 52   // size of the small packets, 20 more of IPv6: a SYN of these carries data, too
)

// MTUConfig says what the path MTU is looked for with.
type MTUConfig struct {
	Config
	Size int            // of the largest packets, IP header included, bytes
	Hops []evidence.Hop // of a walk with the same protocol: who may answer
}

// PathMTU sends packets like the probe's that may not be fragmented, in the
// network namespace of the calling thread: as large as cfg.Size first, with every TTL
// that was answered before, and smaller ones to the first host that the large ones do not come to. It
// needs CAP_NET_RAW. Where nobody answers it returns no tests.
func PathMTU(ctx context.Context, cfg MTUConfig) (evidence.PathMTU, error) {
	s := &sizer{shots: map[uint32]*shot{}, next: maxTries, patience: mtuPatient, deadline: time.Now().Add(cfg.Timeout)}
	defer s.close()
	if err := s.open(cfg.Config, mtuNumbers, mtuShift); err != nil {
		return evidence.PathMTU{}, err
	}
	small := mtuSmall
	if s.flow.v6() {
		small += 20
	}
	s.got = evidence.PathMTU{Small: small, Protocol: cfg.Protocol, Source: s.flow.local.Addr().String(), Dest: cfg.Target.Addr().String(), Tests: []evidence.SizeTest{}}
	var ttls []int
	for _, h := range cfg.Hops {
		if h.Answer != "" {
			ttls = append(ttls, h.TTL)
			s.patience = max(s.patience, 3*time.Duration(h.RTTNS))
		}
	}
	err := s.run(ctx, ttls, cfg.Size)
	return s.got, err
}

// row is what leaves at once with one TTL: the largest first, a small one last.
type row struct {
	ttl   int
	sent  time.Time
	shots []*shot
}

// shot is one packet.
type shot struct {
	row      *row
	size     int
	answered time.Time
}

type sizer struct {
	wire
	got      evidence.PathMTU
	next     uint32 // number
	shots    map[uint32]*shot
	patience time.Duration // with an answer
	deadline time.Time
}

func (s *sizer) over(ctx context.Context) bool {
	return ctx.Err() != nil || !time.Now().Before(s.deadline)
}

func (s *sizer) run(ctx context.Context, ttls []int, size int) error {
	for range mtuSteps {
		if err := s.reach(ctx, ttls, size); err != nil {
			return err
		}
		told := s.got.Told(size)
		if told == nil || told.MTU >= size || told.MTU <= s.got.Small {
			break
		}
		size = told.MTU
	}
	_, behind := s.got.Hole(size)
	if behind == nil {
		return nil
	}
	ttl, width := behind.TTL, 1
	for _, n := range ttls {
		if t := s.got.At(n, size); t.Lost >= evidence.SizeTries && (t.Answer == evidence.SYNACK || t.Answer == evidence.RSTAnswer || t.Answer == evidence.Replied) {
			ttl, width = n, mtuWidth
		}
	}
	return s.search(ctx, ttl, width, size)
}

// reach finds out how far packets of a size come.
func (s *sizer) reach(ctx context.Context, ttls []int, size int) error {
	for try := range evidence.SizeTries + 2 {
		var rows []*row
		for _, ttl := range ttls {
			t := s.got.At(ttl, size)
			silent := try >= 2 && t.Lost == 0 // to small ones as well
			if t == nil || !t.Passed && t.Lost < evidence.SizeTries && !silent {
				rows = append(rows, s.newRow(ttl, size))
			}
		}
		if len(rows) == 0 || s.over(ctx) {
			return nil
		}
		if err := s.round(ctx, rows); err != nil {
			return err
		}
		if s.got.Told(size) != nil || s.got.At(ttls[len(ttls)-1], size).Passed {
			return nil
		}
	}
	return nil
}

// search narrows down which sizes come to the host at ttl, of which those of size
// bytes do not. What every path takes comes first: where that is lost, it is not the size alone that matters.
func (s *sizer) search(ctx context.Context, ttl, width, size int) error {
	low, high := evidence.EveryPath(s.flow.v6()), size
	if low >= high {
		return nil
	}
	if err := s.try(ctx, ttl, []int{low}); err != nil || !s.got.At(ttl, low).Passed {
		return err
	}
	for high-low > 1 && !s.over(ctx) {
		if err := s.try(ctx, ttl, between(low, high, width)); err != nil {
			return err
		}
		lower, higher := s.got.Bounds(ttl)
		if lower == low && higher == high || higher == 0 {
			return nil // it has stopped answering
		}
		low, high = lower, higher
	}
	return nil
}

// try sends packets of some sizes, the largest first, until the largest that comes through is known.
func (s *sizer) try(ctx context.Context, ttl int, sizes []int) error {
	for range evidence.SizeTries {
		if err := s.round(ctx, []*row{s.newRow(ttl, sizes...)}); err != nil {
			return err
		}
		low, _ := s.got.Bounds(ttl)
		sizes = slices.DeleteFunc(sizes, func(n int) bool { return n <= low })
		if len(sizes) == 0 || s.over(ctx) {
			break
		}
	}
	return nil
}

// between divides the sizes between low and high by n, the largest first.
func between(low, high, n int) []int {
	var out []int
	for i := n; i > 0; i-- {
		if size := low + (high-low)*i/(n+1); size > low && !slices.Contains(out, size) {
			out = append(out, size)
		}
	}
	return out
}

func (s *sizer) newRow(ttl int, sizes ...int) *row {
	r := &row{ttl: ttl}
	for _, size := range append(sizes[:len(sizes):len(sizes)], s.got.Small) {
		r.shots = append(r.shots, &shot{row: r, size: size})
		if size != s.got.Small && s.got.At(ttl, size) == nil {
			s.got.Tests = append(s.got.Tests, evidence.SizeTest{TTL: ttl, Size: size})
		}
	}
	return r
}

// round sends rows, waits for their answers and counts what was lost.
func (s *sizer) round(ctx context.Context, rows []*row) error {
	for _, r := range rows {
		r.sent = time.Now()
		for _, x := range r.shots {
			if s.next >= mtuNumbers {
				s.deadline = time.Time{}
				return nil
			}
			s.shots[s.next] = x
			if _, err := s.send(s.next, r.ttl, x.size); err != nil {
				return err
			}
			s.next++
			if x.size != s.got.Small {
				s.got.At(r.ttl, x.size).Sent++
			}
		}
	}
	for ctx.Err() == nil {
		now := time.Now()
		var next time.Time
		for _, r := range rows {
			if due := r.due(s.patience); due.After(now) && due.After(next) {
				next = due
			}
		}
		if next.IsZero() {
			break
		}
		if err := s.listen(next, s.take); err != nil {
			return err
		}
	}
	for _, r := range rows {
		s.count(r)
	}
	return nil
}

// due is when r is to be given up: at once when all was answered, soon after a
// smaller one than those that are missing was.
func (r *row) due(patience time.Duration) (due time.Time) {
	later := time.Time{}
	for _, x := range slices.Backward(r.shots) {
		switch {
		case !x.answered.IsZero():
			later = x.answered
			continue
		case later.IsZero():
			due = r.sent.Add(patience)
		case later.Add(mtuSlack).After(due):
			due = later.Add(mtuSlack)
		}
	}
	return due
}

func (s *sizer) count(r *row) {
	later := false
	for _, x := range slices.Backward(r.shots) {
		if !x.answered.IsZero() {
			later = true
		} else if later && x.size != s.got.Small {
			s.got.At(r.ttl, x.size).Lost++
		}
	}
}

// take notes an answer.
func (s *sizer) take(a reading, now time.Time) {
	x := s.shots[a.n]
	if x == nil { // a datagram does not say what it answers
		return
	}
	if x.answered.IsZero() {
		x.answered = now
	}
	tooBig := a.hop.Answer == evidence.ICMPError && a.hop.Type != nil && a.hop.Code != nil &&
		(s.flow.v6() && *a.hop.Type == 2 || !s.flow.v6() && *a.hop.Type == 3 && *a.hop.Code == 4)
	for _, y := range x.row.shots {
		if y.size == s.got.Small {
			continue
		}
		t := s.got.At(x.row.ttl, y.size)
		switch {
		case tooBig && y == x:
			t.TooBig, t.MTU = a.from.String(), a.hop.MTU
		case !tooBig:
			if t.Address == "" || y == x {
				t.Address, t.Answer = a.from.String(), a.hop.Answer
			}
			t.Passed = t.Passed || y == x
		}
	}
}
