// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/report"
	"github.com/pathtrace/pathtrace/verdict"
)

// Job traces one target. Progress is for a person who waits; it discards where
// nobody does. When ctx ends, the job cleans up and returns what it has seen
// with ctx.Err(), or nil.
type Job func(ctx context.Context, o Options, t Target, progress io.Writer) (evidence.Case, verdict.Verdict, error)

// app is the program, with everything it touches.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	out            bytes.Buffer // the result, written once at the end
	code           int

	job      Job
	judge    func(*evidence.Case) verdict.Verdict
	lookup   func(Options) Lookup
	getenv   func(string) string
	terminal func(any) (width int, ok bool)
	config   func(context.Context, *evidence.Case) toolTexts // for a bundle; nil: none
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return newApp(stdin, stdout, stderr).run(ctx, args)
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *app {
	return &app{
		stdin: stdin, stdout: stdout, stderr: stderr,
		job: traceJob, judge: verdict.Judge, lookup: namespaceLookup, getenv: os.Getenv, terminal: terminal, config: readTools,
	}
}

// subcommands lists what works beside the main job.
func (a *app) subcommands() []*cobra.Command {
	all := []*cobra.Command{
		newJudgeCmd(a),
		newReportCmd(a),
		newDoctorCmd(a),
		newLibwrapCmd(a),
		newRulesCmd(a),
		newRouteCmd(a),
		newUndoCmd(a),
		newAgentCmd(a),
		newDemoCmd(func(ctx context.Context, args []string) int {
			return run(ctx, args, a.stdin, a.stdout, a.stderr)
		}, func(code int) { a.code = code }),
	}
	for _, add := range optional {
		all = append(all, add(a))
	}
	return all
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(&a.out)
	root.SetErr(a.stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		a.fail(err, wantsJSON(args))
	}
	return a.flush()
}

func (a *app) root() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:           "pathtrace [flags] HOST:PORT",
		Short:         "say where a connection dies, and why",
		Args:          cobra.ArbitraryArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.version { // cobra's own flag prints a template, and whatever uses text/template keeps every method in the binary
				a.out.WriteString(versionLine(thisTool()))
				return nil
			}
			o, err := f.options(a)
			if err != nil {
				return err
			}
			return a.main(cmd.Context(), o, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	groups := f.groups()
	for _, g := range groups {
		cmd.Flags().AddFlagSet(g.FlagSet)
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return badUse("%w", err) })
	cmd.AddCommand(a.subcommands()...)
	cmd.SetHelpFunc(helpFunc(cmd, groups))
	for name, words := range choices {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
	}
	return cmd
}

// main is the main job, on one screen: what is asked, trace, report.
func (a *app) main(ctx context.Context, o Options, args []string) error {
	t, err := ParseTarget(args, o)
	if err != nil {
		return err
	}
	a.replay()
	if o.Trial != nil {
		if err := a.canAsk(o.Trial.Yes); err != nil {
			return err
		}
	}
	o.Clock.lap("")
	done := slowly(a.progress(o), "looking up "+t.Host)
	err = t.Resolve(ctx, o, a.lookup(o))
	done()
	switch {
	case err != nil && o.Redact: // the name is what is wrong, and must not be shown
		return err
	case err != nil:
		return a.tracePath(ctx, o, t, err)
	}
	o.Clock.lap("resolve")
	o.Peer = a.openPeer(ctx, o)
	results, untaken, err := a.probeAll(ctx, o, t)
	o.Peer.close()
	if err != nil {
		return err
	}
	results, unsaved := a.save(ctx, results, o)
	unsaved = errors.Join(untaken, unsaved)
	if len(results) > 0 {
		err = a.printAll(results, o)
	}
	if err != nil {
		return err
	}
	if unsaved != nil { // the verdict stands all the same
		fmt.Fprintln(a.stderr, "pathtrace: "+report.Clean(strings.ReplaceAll(unsaved.Error(), "\n", "; ")))
		a.code = exitNoTrace
	}
	if ctx.Err() != nil {
		a.code = exitInterrupted
		fmt.Fprintln(a.stderr, "pathtrace: interrupted; this is what was seen until then")
	}
	return nil
}

// probeAll traces each address of the target, one after the other, and tries
// their fixes where that was asked for. When ctx ends it returns what was seen until then. What
// could not be taken back is an error beside the results.
func (a *app) probeAll(ctx context.Context, o Options, t Target) (results []result, untaken, err error) {
	for _, address := range t.Addresses {
		one := t
		one.Addresses = []netip.Addr{address}
		r, err := a.probeOne(ctx, o, one)
		switch {
		case err != nil && !(r.seen() && errors.Is(err, context.Canceled)):
			return nil, untaken, cannotTrace(err)
		case !r.seen() && ctx.Err() != nil && len(results) == 0:
			return nil, untaken, ctx.Err()
		case !r.seen() && ctx.Err() != nil:
			return results, untaken, nil
		}
		if o.Trial != nil && r.v.Cause != "reachable" {
			untaken = errors.Join(untaken, a.tryFix(ctx, o, one, &r))
		}
		results = append(results, r)
		if ctx.Err() != nil {
			break
		}
	}
	return results, untaken, nil
}

// probeOne traces the first address of the target.
func (a *app) probeOne(ctx context.Context, o Options, t Target) (result, error) {
	c, v, err := a.job(ctx, o, t, a.progress(o))
	if v.Cause == "" && c.FormatVersion != "" {
		v = a.judge(&c)
	}
	return result{c, v}, err
}

// result is one address's.
type result struct {
	c evidence.Case
	v verdict.Verdict
}

// seen reports whether there is anything to tell.
func (r result) seen() bool { return r.c.FormatVersion != "" }

// worst is the first of the results whose exit code is the highest: what is not
// explained needs more attention than what is, and that more than what works.
func worst(results []result) int {
	at := 0
	for i, r := range results {
		if exitCode(r.v) > exitCode(results[at].v) {
			at = i
		}
	}
	return at
}

// printAll prints the results; the worst decides the exit code, and stands last
// in the text, where the eye falls.
func (a *app) printAll(results []result, o Options) error {
	at := worst(results)
	a.code = exitCode(results[at].v)
	if o.JSON || len(results) == 1 {
		return a.print(document(results, at), o)
	}
	order := append(slices.Delete(slices.Clone(results), at, at+1), results[at])
	for i, r := range order {
		if i > 0 && !o.Quiet {
			a.out.WriteByte('\n')
		}
		oneOf := o
		oneOf.Timing = o.Timing && i == len(order)-1
		if err := a.print(report.NewDocument(r.c, r.v), oneOf); err != nil {
			return err
		}
	}
	return nil
}

// document is about results[at], and lists what came of the others.
func document(results []result, at int) report.Document {
	d := report.NewDocument(results[at].c, results[at].v)
	if len(results) > 1 {
		for _, r := range results {
			d.Results = append(d.Results, report.NewResult(r.c, r.v))
		}
	}
	return d
}

func (a *app) print(d report.Document, o Options) error {
	if o.Timing {
		printTiming(a.stderr, o.Clock)
	}
	if !o.JSON {
		return report.Text(&a.out, &d.Case, d.Verdict, report.Options{Color: o.Color, Verbose: o.Verbose, Quiet: o.Quiet, Width: o.Width})
	}
	if o.Timing {
		d.Timing = timing(o.Clock)
	}
	return report.JSON(&a.out, d)
}

func (a *app) progress(o Options) io.Writer {
	if _, ok := a.terminal(a.stderr); ok && !o.Quiet {
		return a.stderr
	}
	return io.Discard
}

// fail says why there is no verdict: to people on stderr, to programs on stdout.
func (a *app) fail(err error, json bool) {
	code, id, message := failure(err)
	a.code = code
	fmt.Fprintln(a.stderr, "pathtrace: "+report.Clean(message))
	if json {
		a.out.Reset()
		var u *UnresolvedError
		if errors.As(err, &u) {
			_ = report.UnresolvedJSON(&a.out, id, message, u.Steps, u.Path)
			return
		}
		_ = report.ErrorJSON(&a.out, id, message) // a buffer takes everything
	}
}

// flush writes the result. Who closed the pipe has read enough.
func (a *app) flush() int {
	if a.out.Len() == 0 {
		return a.code
	}
	_, err := a.stdout.Write(a.out.Bytes())
	switch {
	case err == nil, errors.Is(err, syscall.EPIPE):
		return a.code
	}
	fmt.Fprintln(a.stderr, "pathtrace: standard output:", report.Clean(err.Error()))
	return exitNoTrace
}

// wantsJSON looks for --json where the flags could not be parsed.
func wantsJSON(args []string) bool {
	on := false
	for _, s := range args {
		switch {
		case s == "--":
			return on
		case s == "--json", s == "--json=true", s == "--json=1":
			on = true
		case strings.HasPrefix(s, "--json="):
			on = false
		}
	}
	return on
}

func terminal(f any) (width int, ok bool) {
	file, isFile := f.(*os.File)
	if !isFile || !term.IsTerminal(int(file.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0, true
	}
	return width, true
}
