// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
)

// Session is a conversation with an agent. Its methods may be called from one goroutine at a time.
type Session struct {
	Hello Hello
	// Offset is the agent's clocks minus ours, Bound by how much that may be wrong.
	Offset Clock
	Bound  time.Duration

	limits  Limits
	in      io.WriteCloser
	replies chan reply
	news    chan News
	ended   chan struct{} // the reader has ended
	mu      sync.Mutex    // guards err
	err     error
	last    uint64 // ID of the last request
	broken  error  // after the first failure there is no second try
	release func() error
}

// errEnded is what is left to say when the other end has gone.
var errEnded = fmt.Errorf("the connection to it ended: %w", io.EOF)

// rounds of asking for the clock; the quickest counts.
const rounds = 8

// Start begins a conversation with the agent that reads what is written to in,
// and writes to out. It closes in when it ends; release is called after that,
// and shall make reads of out end.
func Start(ctx context.Context, in io.WriteCloser, out *bufio.Reader, l Limits, release func() error) (*Session, error) {
	s := &Session{
		limits: l.orDefault(), in: in, replies: make(chan reply, 8), news: make(chan News, 1), ended: make(chan struct{}), release: release,
	}
	hello := make(chan Hello, 1)
	go s.read(out, hello)
	timer := time.NewTimer(s.limits.Reply)
	defer timer.Stop()
	select {
	case s.Hello = <-hello:
	case <-s.ended:
		return nil, s.fail(s.why())
	case <-timer.C:
		return nil, s.fail(fmt.Errorf("its agent said nothing for %s", s.limits.Reply))
	case <-ctx.Done():
		return nil, s.fail(ctx.Err())
	}
	if s.Hello.Protocol != Version {
		return nil, s.fail(fmt.Errorf("its agent speaks version %d of the protocol, this one %d", s.Hello.Protocol, Version))
	}
	if err := s.readClock(ctx); err != nil {
		return nil, s.fail(err)
	}
	return s, nil
}

// read takes the agent's lines, until there are no more or one is not allowed.
func (s *Session) read(out *bufio.Reader, hello chan<- Hello) {
	defer close(s.ended)
	total, greeted := 0, false
	for n := 0; ; n++ {
		line, err := readLine(out, maxReply)
		total += len(line)
		var r reply
		switch {
		case err != nil:
		case n == maxReplies || total > maxTotal:
			err = errors.New("it says more than the protocol allows")
		default:
			err = decode(line, &r)
		}
		if err != nil {
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
			return
		}
		switch {
		case r.Hello != nil && !greeted:
			greeted = true
			hello <- *r.Hello
		case r.News != "":
			select {
			case s.news <- r.News:
			default: // one that was not heard yet says the same: read
			}
		case r.ID != 0:
			select {
			case s.replies <- r:
			default: // nobody has asked so often
			}
		}
	}
}

func (s *Session) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err == nil, errors.Is(s.err, io.EOF), errors.Is(s.err, io.ErrUnexpectedEOF), errors.Is(s.err, io.ErrClosedPipe):
		return errEnded
	}
	return s.err
}

// News is what the agent says unasked.
func (s *Session) News() <-chan News { return s.news }

// Trace has the agent watch from now on.
func (s *Session) Trace(ctx context.Context, o Order) error {
	_, err := s.askWithin(ctx, request{Do: "trace", Order: &o}, s.limits.Work)
	return err
}

// Read returns what the agent has seen so far; p is what came of the probe.
func (s *Session) Read(ctx context.Context, p evidence.Probe) (Case, error) {
	r, err := s.askWithin(ctx, request{Do: "read", Probe: &p}, s.limits.Work)
	if err != nil {
		return Case{}, err
	}
	if r.Case == nil {
		return Case{}, s.fail(errors.New("its agent sent no case"))
	}
	return *r.Case, nil
}

// readClock compares the clocks as NTP does (RFC 5905, 8): the agent's is taken
// for that of the middle of a round, which is wrong by half the round at most.
func (s *Session) readClock(ctx context.Context) error {
	for i := range rounds {
		before := now()
		r, err := s.ask(ctx, request{Do: "read", Clock: true})
		after := now()
		if err != nil {
			return err
		}
		if r.Clock == nil {
			return errors.New("its agent sent no clock")
		}
		took := after.Monotonic - before.Monotonic
		if bound := time.Duration(took+1) / 2; i == 0 || bound < s.Bound {
			s.Bound = bound
			s.Offset = Clock{Monotonic: r.Clock.Monotonic - before.Monotonic - took/2, Wall: r.Clock.Wall - before.Wall - took/2}
		}
	}
	return nil
}

func (s *Session) ask(ctx context.Context, q request) (reply, error) {
	return s.askWithin(ctx, q, s.limits.Reply)
}

// askWithin sends a request and waits for its reply.
func (s *Session) askWithin(ctx context.Context, q request, limit time.Duration) (reply, error) {
	if s.broken != nil {
		return reply{}, s.broken
	}
	for len(s.replies) > 0 {
		<-s.replies
	}
	s.last++
	q.ID = s.last
	line, err := json.Marshal(q)
	if err != nil {
		return reply{}, err
	}
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	written := make(chan error, 1)
	go func() { // who does not read must not stop us
		_, err := s.in.Write(append(line, '\n'))
		written <- err
	}()
	for {
		select {
		case err := <-written:
			if err != nil {
				return reply{}, s.fail(errEnded)
			}
			written = nil
		case r := <-s.replies:
			if r.ID == q.ID {
				return r.result()
			}
		case <-s.ended:
			for len(s.replies) > 0 { // what it said before that counts
				if r := <-s.replies; r.ID == q.ID {
					return r.result()
				}
			}
			return reply{}, s.fail(s.why())
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return reply{}, s.fail(ctx.Err())
			}
			return reply{}, s.fail(fmt.Errorf("its agent did not answer for %s", limit))
		}
	}
}

func (r reply) result() (reply, error) {
	if r.Error != "" {
		return reply{}, errors.New(r.Error)
	}
	return r, nil
}

// fail ends the conversation for good.
func (s *Session) fail(err error) error {
	if s.broken == nil {
		s.broken = err
		_ = s.hangUp() // err says more
	}
	return err
}

func (s *Session) hangUp() error {
	err := s.in.Close()
	if s.release != nil {
		err = errors.Join(err, s.release())
	}
	return err
}

// Close tells the agent to end, and waits until the connection to it has.
func (s *Session) Close() error {
	if s.broken != nil {
		return nil
	}
	_, err := s.ask(context.Background(), request{Do: "end"})
	if s.broken == nil {
		s.broken = errors.New("the conversation was ended")
		err = errors.Join(err, s.hangUp())
	}
	return err
}
