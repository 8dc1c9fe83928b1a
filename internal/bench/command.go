// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/pathtrace/pathtrace/netcfg"
)

// limit is how long a peer may take; one that needs more is said to.
const limit = 10 * time.Second

// ownLimit is how long pathtrace may take.
const ownLimit = time.Minute

// ran is what one run of a command cost.
type ran struct {
	took   time.Duration
	memory float64 // MiB, of the largest process; 0: not known
	stdout []byte
}

// timed runs a command in a namespace, from its start to its end. Its exit status is no concern.
func timed(ctx context.Context, limit time.Duration, netns string, argv ...string) (ran, error) {
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout = &out
	cmd.WaitDelay = time.Second
	n, err := netcfg.Open(netns)
	if err != nil {
		return ran{}, err
	}
	defer n.Close()
	begin := time.Now()
	if err := n.Start(cmd); err != nil {
		return ran{}, fmt.Errorf("%s: %w", argv[0], err)
	}
	err = cmd.Wait()
	r := ran{took: time.Since(begin), stdout: out.Bytes()}
	if cmd.ProcessState == nil {
		return r, err
	}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.memory = float64(u.Maxrss) / 1024
		// What we had when it was started counts as its own (getrusage(2)): it is not known then.
		var own syscall.Rusage
		if syscall.Getrusage(syscall.RUSAGE_SELF, &own) != nil || own.Maxrss >= u.Maxrss {
			r.memory = 0
		}
	}
	if ctx.Err() != nil {
		r.took = max(r.took, limit) // the limit runs from before the start
		return r, fmt.Errorf("%s: not done after %s", argv[0], limit)
	}
	return r, nil
}

// trace is what pathtrace said and cost.
type trace struct {
	ran
	Verdict struct{ Cause, Certainty string }
	Lost    int
	Timing  map[string]int64
}

// trace runs pathtrace on a target from a namespace. An answer that is not the awaited cause is an error:
// what is fast and wrong is worth nothing.
func (b *bench) trace(ctx context.Context, netns, cause string, args ...string) (trace, error) {
	return b.traceBy(ctx, nil, netns, cause, args...)
}

// traceBy is trace with pathtrace started by another command.
func (b *bench) traceBy(ctx context.Context, by []string, netns, cause string, args ...string) (t trace, err error) {
	argv := slices.Concat(by, []string{b.pathtrace, "--json", "--timing", "-n"}, args)
	if t.ran, err = timed(ctx, ownLimit, netns, argv...); err != nil {
		return t, err
	}
	if err := json.Unmarshal(t.stdout, &t); err != nil {
		return t, fmt.Errorf("%v: what it printed: %w", argv, err)
	}
	if t.Verdict.Cause != cause {
		return t, fmt.Errorf("%v: the verdict is %s (%s), not %s", argv, t.Verdict.Cause, t.Verdict.Certainty, cause)
	}
	return t, nil
}

// series is what several runs of pathtrace cost.
type series struct {
	took, memory figures
	parts        map[string]figures // by --timing
	certainty    string             // of every run; "mixed" otherwise
	lost         int
}

func (s *series) add(t trace) {
	s.took, s.memory, s.lost = append(s.took, milliseconds(t.took)), append(s.memory, t.memory), s.lost+t.Lost
	if s.parts == nil {
		s.parts, s.certainty = map[string]figures{}, t.Verdict.Certainty
	}
	if s.certainty != t.Verdict.Certainty {
		s.certainty = "mixed"
	}
	for name, ns := range t.Timing {
		s.parts[name] = append(s.parts[name], float64(ns)/1e6)
	}
}
