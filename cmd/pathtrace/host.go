// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/tracer"
)

// host is this host while it is watched for one probe, be that our own or one that comes from elsewhere.
type host struct {
	spaces *spaces
	tracer *tracer.Tracer
	watch  *watch
}

// openHost loads and attaches what watches. Nothing is watched for before it is armed.
func (r request) openHost(clock *stopwatch) (*host, error) {
	s, err := openSpaces(r.netns, r.ownOnly)
	if err != nil {
		return nil, err
	}
	clock.lap("namespaces")
	w := newWatch(s, r.wait || r.expect != nil || r.speech.Any())
	w.wraps = r.findWraps(s)
	w.scheme = r.scheme
	t, err := tracer.Open(tracer.Options{Hooks: r.hooks, NoUprobes: r.uprobes, NetnsName: s.name, Take: w.take})
	if err != nil {
		s.close()
		if errors.Is(err, tracer.ErrTier) {
			return nil, noTier(r.hooks, err)
		}
		return nil, cannotTrace(err)
	}
	clock.lap("load and attach")
	return &host{s, t, w}, nil
}

// arm watches for the packets of key, and returns the case to be filled with what is seen of them.
func (h *host) arm(r request, key tracer.Key) (evidence.Case, error) {
	unseen, err := r.arm(h.tracer, h.spaces, key)
	if err == nil {
		err = r.followTuple(h.tracer, h.spaces)
	}
	if err != nil {
		return evidence.Case{}, cannotTrace(err)
	}
	unseen = append(unseen, h.watch.wraps.arm(h.tracer)...)
	c := newCase(r, h.spaces, h.tracer)
	c.Unseen = append(r.unseen, unseen...)
	return c, nil
}

func (h *host) close() {
	h.tracer.Close()
	h.spaces.close()
}
