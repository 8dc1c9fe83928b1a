// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// Watcher is what an agent does on its host.
type Watcher interface {
	// Trace watches from now on for the packets of o, and for no others. It
	// calls news, from any goroutine, until the next call of Trace or Close.
	Trace(ctx context.Context, o Order, news func(News)) error
	// Read returns what was seen so far; p is what came of the probe.
	Read(ctx context.Context, p evidence.Probe) (Case, error)
	Close() error
}

// Serve is the agent: it says hello and does what it is asked, one request
// after the other, until it is told to end, or in ends, or ctx does.
func Serve(ctx context.Context, in io.Reader, out io.Writer, h Hello, w Watcher) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer w.Close()
	a := &server{out: out, watcher: w}
	h.Protocol = Version
	if err := a.say(reply{Hello: &h}); err != nil {
		return err
	}
	// A reader of its own: that the other end is gone ends also what is under way.
	requests := make(chan request)
	go func() {
		r := bufio.NewReader(in)
		for {
			line, err := readLine(r, maxRequest)
			var q request
			if err == nil {
				err = decode(line, &q)
			}
			if err != nil {
				stop(err)
				return
			}
			select {
			case requests <- q:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, io.EOF) && !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		case q := <-requests:
			r := a.answer(ctx, q)
			r.ID = q.ID
			if err := a.say(r); err != nil || q.Do == "end" {
				return err
			}
		}
	}
}

type server struct {
	watcher Watcher
	mu      sync.Mutex // guards out
	out     io.Writer
}

func (a *server) say(r reply) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err = a.out.Write(append(line, '\n'))
	return err
}

func (a *server) answer(ctx context.Context, q request) (r reply) {
	var err error
	switch {
	case q.Do == "trace" && q.Order != nil:
		err = a.watcher.Trace(ctx, *q.Order, func(n News) { _ = a.say(reply{News: n}) }) // that nobody hears it shows when in ends
	case q.Do == "read" && q.Clock:
		r.Clock = now()
	case q.Do == "read" && q.Probe != nil:
		var c Case
		if c, err = a.watcher.Read(ctx, *q.Probe); err == nil {
			r.Case, err = fit(c)
		}
	case q.Do == "end":
		err = a.watcher.Close()
	default:
		err = fmt.Errorf("not a request: %.20q", q.Do)
	}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

func now() *Clock {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // fails for bad arguments only
	return &Clock{Monotonic: ts.Nano(), Wall: time.Now().UnixNano()}
}

// fit leaves out of a case what the other end would not take, and says so in it.
func fit(c Case) (*Case, error) {
	const tooMuch = "more than can be sent"
	if n := len(c.Events) - maxEvents; n > 0 {
		c.Events, c.Lost = c.Events[n:], c.Lost+uint64(n)
	}
	c.Namespaces = slices.Clone(c.Namespaces[:min(len(c.Namespaces), maxNamespaces)])
	for _, shrink := range []func(){
		func() {},
		func() {
			for i := range c.Namespaces {
				c.Namespaces[i].Routes = evidence.Missing[evidence.RouteItem](tooMuch)
			}
		},
		func() {
			for i := range c.Namespaces {
				c.Namespaces[i].Chains, c.Namespaces[i].Sockets = evidence.Missing[evidence.Chain](tooMuch), evidence.Missing[evidence.Socket](tooMuch)
			}
		},
		func() { n := len(c.Events) / 2; c.Events, c.Lost = c.Events[n:], c.Lost+uint64(n) },
	} {
		shrink()
		line, err := json.Marshal(reply{Case: &c})
		if err != nil {
			return nil, err
		}
		if len(line) < maxReply-1024 && measure(line) == nil {
			return &c, nil
		}
	}
	return nil, errors.New("there is " + tooMuch)
}
