// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/netcfg/guard"
	"github.com/pathtrace/pathtrace/report"
	"github.com/pathtrace/pathtrace/verdict"
)

// Trial is how a fix is to be tried.
type Trial struct {
	For       time.Duration // until it is taken back at the latest
	RulesOnly bool          // only a change of firewall rules
	Yes       bool          // nobody is asked
	Force     bool          // also what may cut the session
}

// tryOut checks --verify-fix and what belongs to it.
func (f *flags) tryOut(o *Options) error {
	d, err := duration("--for", string(f.trial))
	if err != nil {
		return err
	}
	if !f.verifyFix {
		return nil
	}
	switch {
	case f.noTouch:
		return badUse("--no-touch changes nothing, so no fix can be tried")
	case d <= o.Timeout:
		return badUse("--for %s: a fix is tried with a probe, which may take %s (-w)", f.trial, o.Timeout)
	}
	o.Trial = &Trial{For: d, Yes: f.yes, Force: f.force}
	return nil
}

// tryFix applies the first fix that may be tried, probes again, takes it back, and
// notes in the case what came of it. The error is that the change could not be taken back.
func (a *app) tryFix(ctx context.Context, o Options, t Target, r *result) error {
	at := slices.IndexFunc(r.v.Fixes, func(f verdict.Fix) bool { return mayTry(f, *o.Trial) == "" })
	note := &evidence.Counterfactual{Fix: max(at, 0)}
	defer func() {
		r.c.Counterfactual = note
		r.v = a.judge(&r.c)
	}()
	if at < 0 {
		note.Untried = nothingToTry(r.v, *o.Trial)
		return nil
	}
	fix := r.v.Fixes[at]
	note.What, note.Commands, note.Undo = fix.Summary, fix.Commands, fix.Undo
	e := experiment{app: a, o: o, t: t, fix: fix, note: note}
	if space := r.c.Namespace(fix.Netns); space != nil {
		var err error
		if e.netns, err = netcfg.Open(fmt.Sprintf("net:[%d]", space.Inode)); err == nil {
			defer e.netns.Close()
		}
	}
	switch why := e.refused(); {
	case e.netns == nil:
		note.Untried = "the namespace " + fix.Netns + " cannot be entered"
	case why != "":
		note.Untried = why
	case !a.agreed(ctx, e.plan(), o.Trial.Yes):
		note.Untried = "it was not confirmed"
	default:
		return e.run(ctx)
	}
	return nil
}

// mayTry says why a fix may not be tried; "" when it may.
func mayTry(f verdict.Fix, t Trial) string {
	switch {
	case len(f.Commands) == 0:
		return "it is no command"
	case len(f.Undo) == 0:
		return "it cannot be taken back"
	case f.Netns == "":
		return "it does more than to change the configuration in the kernel"
	case t.RulesOnly && f.Mark == "":
		return "it changes no firewall rule"
	}
	return ""
}

func nothingToTry(v verdict.Verdict, t Trial) string {
	if len(v.Fixes) == 0 {
		return "for " + v.Cause + " as it was found there is none that a command makes and takes back"
	}
	return fmt.Sprintf("%q: %s", v.Fixes[0].Summary, mayTry(v.Fixes[0], t))
}

// experiment is one fix that is tried.
type experiment struct {
	app   *app
	o     Options
	t     Target
	fix   verdict.Fix
	netns *netcfg.Netns // where the fix changes something
	note  *evidence.Counterfactual
}

// plan is what is going to be done.
func (e *experiment) plan() string {
	var b strings.Builder
	fmt.Fprintf(&b, "to be tried for %s at most, and then taken back: %s\n", e.o.Trial.For, report.Clean(e.fix.Summary))
	for _, c := range e.fix.Commands {
		fmt.Fprintf(&b, "  do    %s\n", report.Clean(c))
	}
	for _, c := range e.fix.Undo {
		fmt.Fprintf(&b, "  undo  %s\n", report.Clean(c))
	}
	return b.String()
}

// run makes the change, probes, takes it back, looks whether all is as before, and probes again.
func (e *experiment) run(ctx context.Context) error {
	release, err := guard.Alone()
	if err != nil {
		e.note.Untried = "nothing was changed: " + err.Error()
		return nil
	}
	defer release()
	before, err := configuration(ctx, e.netns)
	if err != nil {
		e.note.Untried = "what would have to be restored cannot be read: " + err.Error()
		return nil
	}
	g, err := guard.Arm(guard.Change{Netns: e.netns, What: e.fix.Summary, Mark: e.fix.Mark, Undo: e.fix.Undo, For: e.o.Trial.For})
	if err != nil {
		e.note.Untried = err.Error()
		return nil
	}
	var second result
	err = g.Apply(ctx, e.fix.Commands)
	if err != nil {
		err = fmt.Errorf("the fix could not be applied: %w", err)
	} else {
		second, err = e.app.probeOne(ctx, e.o, e.t)
	}
	e.o.Clock.lap("try the fix")
	undone, undoErr := g.Undo()
	if undoErr != nil {
		undoErr = fmt.Errorf("%w; `pathtrace undo` tries again, and so does the next run", undoErr)
	}
	switch {
	case ctx.Err() != nil:
		err = errors.New("interrupted; it was taken back")
	case err == nil && undone.Why != guard.WhyAsked:
		err = fmt.Errorf("the change was taken back before the probe had ended (%s)", undone.Why)
	}
	e.compare(context.WithoutCancel(ctx), before)
	if err != nil {
		e.note.Untried = oneLine(err)
		return undoErr
	}
	e.note.Probe, e.note.Cause, e.note.Certainty, e.note.Summary = &second.c.Probe, second.v.Cause, string(second.v.Certainty), second.v.Summary
	if undoErr == nil && second.v.Cause == "reachable" {
		if third, err := e.app.probeOne(ctx, e.o, e.t); err == nil {
			e.note.Again = third.v.Cause
		}
	}
	e.o.Clock.lap("without it again")
	return undoErr
}

// compare notes how the configuration differs from that of before.
func (e *experiment) compare(ctx context.Context, before []string) {
	after, err := configuration(ctx, e.netns)
	if err != nil {
		e.note.Differs = []string{"not read: " + err.Error()}
	} else {
		e.note.Differs = differing(before, after)
	}
	e.note.Restored = len(e.note.Differs) == 0
	if !e.note.Restored {
		fmt.Fprintf(e.app.stderr, "pathtrace: the configuration of %s is not what it was before the fix was tried; our own change was taken back, so another program made this:\n", report.Clean(e.netns.Name))
		for _, line := range e.note.Differs {
			fmt.Fprintln(e.app.stderr, "  "+report.Clean(line))
		}
	}
}

// agreed prints a plan, and asks whether to go on unless that was answered by a flag.
func (a *app) agreed(ctx context.Context, plan string, yes bool) bool {
	fmt.Fprint(a.stderr, "pathtrace: "+plan)
	if yes {
		return true
	}
	fmt.Fprint(a.stderr, "Go on? [y/N] ")
	answer := make(chan string, 1)
	go func() {
		line, _ := readLine(a.stdin)
		answer <- line
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.stderr)
		return false
	case s := <-answer:
		s = strings.ToLower(strings.TrimSpace(s))
		return s == "y" || s == "yes"
	}
}

// readLine reads no further than the end of a line, of 4096 bytes at most.
func readLine(r io.Reader) (string, error) {
	var line []byte
	b := make([]byte, 1)
	for len(line) < 4096 {
		n, err := r.Read(b)
		if n > 0 && b[0] == '\n' || err != nil {
			return string(line), err
		}
		line = append(line, b[:n]...)
	}
	return string(line), nil
}

// canAsk refuses a change that nobody can be asked about.
func (a *app) canAsk(yes bool) error {
	_, in := a.terminal(a.stdin)
	_, out := a.terminal(a.stderr)
	if !yes && !(in && out) {
		return badUse("nothing was changed: there is no terminal to ask on; --yes goes on without asking")
	}
	return nil
}
