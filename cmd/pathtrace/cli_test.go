// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg/resolv"
	"github.com/pathtrace/pathtrace/report"
	"github.com/pathtrace/pathtrace/tracer"
	"github.com/pathtrace/pathtrace/verdict"
)

// fake is the program with a job that is told what to find.
type fake struct {
	app
	stdout, stderr bytes.Buffer
	asked          Target
	options        Options
	tty            bool
}

func newFake(c evidence.Case, v verdict.Verdict, err error) *fake {
	f := &fake{}
	f.app = app{
		stdin: strings.NewReader(""), stdout: &f.stdout, stderr: &f.stderr,
		job: func(_ context.Context, o Options, t Target, progress io.Writer) (evidence.Case, verdict.Verdict, error) {
			f.asked, f.options = t, o
			io.WriteString(progress, "working\n")
			o.Clock.lap("load and attach")
			return c, v, err
		},
		judge: func(*evidence.Case) verdict.Verdict {
			return verdict.Verdict{Cause: "unexplained", Certainty: verdict.None, Summary: "judged late"}
		},
		lookup: func(Options) Lookup {
			return func(context.Context, int, string) (resolv.Answer, error) {
				return resolv.Answer{Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.0.6")}}, nil
			}
		},
		getenv:   func(string) string { return "" },
		terminal: func(any) (int, bool) { return 80, f.tty },
	}
	return f
}

func seen() evidence.Case {
	return evidence.Case{FormatVersion: evidence.FormatVersion, Target: evidence.Target{Address: "10.0.0.5", Port: 80, Protocol: "tcp"},
		Probe: evidence.Probe{Outcome: evidence.Timeout, Netns: "init"}}
}

func found(cause string, c verdict.Certainty) verdict.Verdict {
	return verdict.Verdict{Cause: cause, Certainty: c, Summary: "10.0.0.5:80/tcp: summary of " + cause}
}

func TestMainJob(t *testing.T) {
	for name, c := range map[string]struct {
		v    verdict.Verdict
		exit int
		line string
	}{
		"reached":     {found("reachable", verdict.Observed), 0, "✓ summary of reachable\n"},
		"found":       {found("firewall-drop", verdict.Observed), 1, "✗ summary of firewall-drop\n"},
		"unexplained": {found("unexplained", verdict.None), 3, "? not established: summary of unexplained\n"},
	} {
		f := newFake(seen(), c.v, nil)
		if got := f.run(t.Context(), []string{"web:80"}); got != c.exit {
			t.Errorf("%s: exit %d, want %d", name, got, c.exit)
		}
		if !strings.Contains(f.stdout.String(), c.line) || f.stderr.Len() > 0 {
			t.Errorf("%s: stdout %q, stderr %q", name, f.stdout.String(), f.stderr.String())
		}
		if len(f.asked.Addresses) != 1 || f.asked.Host != "web" {
			t.Errorf("%s: asked for %+v", name, f.asked)
		}
	}
}

// TestSeveralAddresses: each address of a name is probed, and the worst decides.
func TestSeveralAddresses(t *testing.T) {
	for name, c := range map[string]struct {
		causes []string // of 10.0.0.5 and 10.0.0.6
		exit   int
		worst  string
	}{
		"both reached":           {[]string{"reachable", "reachable"}, 0, "10.0.0.5"},
		"the second not":         {[]string{"reachable", "no-route"}, 1, "10.0.0.6"},
		"the first not":          {[]string{"no-route", "reachable"}, 1, "10.0.0.5"},
		"the second unexplained": {[]string{"no-route", "unexplained"}, 3, "10.0.0.6"},
	} {
		f := newFake(seen(), found("", verdict.None), nil)
		at := 0
		f.job = func(_ context.Context, _ Options, target Target, _ io.Writer) (evidence.Case, verdict.Verdict, error) {
			s := seen()
			s.Target.Address = target.Addresses[0].String()
			v := found(c.causes[at], verdict.Observed)
			at++
			return s, v, nil
		}
		exit := f.run(t.Context(), []string{"--json", "web:80"})
		var got struct {
			Target  struct{ Address string }
			Results []struct {
				Target  struct{ Address string }
				Verdict struct{ Cause string }
				Lost    *int
				Events  []any
				Probe   *struct{ Outcome string }
			}
		}
		one(t, f.stdout.Bytes(), &got)
		if exit != c.exit || got.Target.Address != c.worst || len(got.Results) != 2 {
			t.Fatalf("%s: exit %d, top %s, %d results", name, exit, got.Target.Address, len(got.Results))
		}
		for i, r := range got.Results {
			if want := []string{"10.0.0.5", "10.0.0.6"}[i]; r.Target.Address != want || r.Verdict.Cause != c.causes[i] || r.Lost == nil || r.Events == nil || r.Probe == nil {
				t.Errorf("%s: result %d: %+v", name, i, r)
			}
		}
	}
}

// TestJudgeSeveralAddresses: what --json printed of two addresses is judged at both, as the run was.
func TestJudgeSeveralAddresses(t *testing.T) {
	f := newFake(seen(), found("", verdict.None), nil)
	f.judge = verdict.Judge
	f.job = func(_ context.Context, _ Options, target Target, _ io.Writer) (evidence.Case, verdict.Verdict, error) {
		name := map[string]string{"10.0.0.5": "no-listener", "10.0.0.6": "nft-drop"}[target.Addresses[0].String()]
		c := read(t, filepath.Join("../../report/testdata", name+".json"))
		c.Target.Address = target.Addresses[0].String()
		return c, verdict.Judge(&c), nil
	}
	exit := f.run(t.Context(), []string{"--json", "web:80"})
	printed := f.stdout.String()
	for _, args := range [][]string{{"judge", "--json", "-"}, {"report", "--format", "json", "-"}} {
		again := newFake(seen(), found("", verdict.None), nil)
		again.judge, again.stdin = verdict.Judge, strings.NewReader(printed)
		if got := again.run(t.Context(), args); args[0] == "judge" && got != exit || args[0] == "report" && got != 0 || again.stdout.String() != printed {
			t.Errorf("%q: exit %d (%d before)\n%s", args, got, exit, cmp.Diff(printed, again.stdout.String()))
		}
	}
	words := newFake(seen(), found("", verdict.None), nil)
	words.judge, words.stdin = verdict.Judge, strings.NewReader(printed)
	words.run(t.Context(), []string{"judge", "-"})
	for _, address := range []string{"10.0.0.5:", "10.0.0.6:"} {
		if !strings.Contains(words.stdout.String(), address) {
			t.Errorf("no word of %s:\n%s", address, words.stdout.String())
		}
	}
}

func read(t *testing.T, name string) evidence.Case {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := report.ReadCase(f)
	if err != nil {
		t.Fatal(err)
	}
	return c.Case
}

func TestProgressOnlyOnATerminal(t *testing.T) {
	for _, c := range []struct {
		tty  bool
		args []string
		want string
	}{{false, nil, ""}, {true, nil, "working\n"}, {true, []string{"-q"}, ""}} {
		f := newFake(seen(), found("reachable", verdict.Observed), nil)
		f.tty = c.tty
		f.run(t.Context(), append(c.args, "10.0.0.5:80"))
		if got := f.stderr.String(); got != c.want {
			t.Errorf("%+v: stderr %q", c, got)
		}
	}
}

// one reads exactly one JSON document.
func one(t *testing.T, b []byte, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("more than one document: %q", b)
	}
}

type answer struct {
	Error   *struct{ Code, Message string }
	Verdict *struct{ Cause string }
	Timing  map[string]int64
}

func TestJSON(t *testing.T) {
	for name, c := range map[string]struct {
		args  []string
		err   error
		exit  int
		code  string
		cause string
	}{
		"verdict":     {[]string{"--json", "web:80"}, nil, 1, "", "rp-filter"},
		"usage":       {[]string{"--json", "web:0"}, nil, 2, "usage", ""},
		"flag":        {[]string{"web:80", "--json", "--no-such"}, nil, 2, "usage", ""},
		"flag first":  {[]string{"--no-such", "--json", "web:80"}, nil, 2, "usage", ""},
		"cannot":      {[]string{"--json", "web:80"}, &TraceError{Code: "no-btf", Message: "no BTF"}, 4, "no-btf", ""},
		"no hooks":    {[]string{"--json", "--hooks", "fentry", "web:80"}, noTier("fentry", tracer.ErrTier), 4, "hooks", ""},
		"interrupted": {[]string{"--json", "web:80"}, context.Canceled, 1, "", "rp-filter"},
	} {
		f := newFake(seen(), found("rp-filter", verdict.Observed), c.err)
		if got := f.run(t.Context(), c.args); got != c.exit {
			t.Errorf("%s: exit %d, want %d", name, got, c.exit)
		}
		var a answer
		one(t, f.stdout.Bytes(), &a)
		if (a.Error == nil) != (c.code == "") || a.Error != nil && (a.Error.Code != c.code || a.Error.Message == "" || a.Verdict != nil) {
			t.Errorf("%s: %s", name, f.stdout.String())
		}
		if c.cause != "" && a.Verdict.Cause != c.cause {
			t.Errorf("%s: %s", name, f.stdout.String())
		}
		if c.code != "" && strings.Count(f.stderr.String(), "\n") != 1 {
			t.Errorf("%s: stderr %q", name, f.stderr.String())
		}
	}
}

func TestTiming(t *testing.T) {
	f := newFake(seen(), found("reachable", verdict.Observed), nil)
	f.run(t.Context(), []string{"--timing", "--json", "web:80"})
	var a answer
	one(t, f.stdout.Bytes(), &a)
	if _, ok := a.Timing["load_and_attach_ns"]; !ok || len(a.Timing) != 2 {
		t.Errorf("timing %v", a.Timing)
	}
	if !strings.Contains(f.stderr.String(), "ms  resolve\n") {
		t.Errorf("stderr %q", f.stderr.String())
	}
}

// TestInterrupt: what was seen is reported; nothing seen is an error.
func TestInterrupt(t *testing.T) {
	for name, c := range map[string]struct {
		c    evidence.Case
		v    verdict.Verdict
		err  error
		want string
	}{
		"seen and judged": {seen(), found("firewall-drop", verdict.Observed), context.Canceled, "firewall-drop"},
		"without error":   {seen(), found("firewall-drop", verdict.Observed), nil, "firewall-drop"},
		"not judged":      {seen(), verdict.Verdict{}, context.Canceled, "judged late"},
		"nothing":         {evidence.Case{}, verdict.Verdict{}, context.Canceled, `"code": "interrupted"`},
		"not even that":   {evidence.Case{}, verdict.Verdict{}, nil, `"code": "interrupted"`},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		f := newFake(c.c, c.v, c.err)
		job := f.job
		f.job = func(ctx context.Context, o Options, t Target, w io.Writer) (evidence.Case, verdict.Verdict, error) {
			cancel()
			return job(ctx, o, t, w)
		}
		if got := f.run(ctx, []string{"--json", "10.0.0.5:80"}); got != exitInterrupted {
			t.Errorf("%s: exit %d", name, got)
		}
		if !strings.Contains(f.stdout.String(), c.want) {
			t.Errorf("%s: %s", name, f.stdout.String())
		}
		cancel()
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestStdoutWrittenOnceAndClosed(t *testing.T) {
	for _, c := range []struct {
		err    error
		exit   int
		stderr string
	}{
		{nil, 1, ""},
		{&os.PathError{Op: "write", Path: "stdout", Err: syscall.EPIPE}, 1, ""},
		{&os.PathError{Op: "write", Path: "stdout", Err: syscall.ENOSPC}, 4, "no space left on device"},
	} {
		f := newFake(seen(), found("firewall-drop", verdict.Observed), nil)
		writes := 0
		f.app.stdout = writer(func(p []byte) (int, error) { writes++; return len(p), c.err })
		if got := f.run(t.Context(), []string{"10.0.0.5:80"}); got != c.exit || writes != 1 {
			t.Errorf("%v: exit %d after %d writes", c.err, got, writes)
		}
		if got := f.stderr.String(); !strings.Contains(got, c.stderr) || c.stderr == "" && got != "" {
			t.Errorf("%v: stderr %q", c.err, got)
		}
	}
}

// TestClosedPipe runs the real program with a standard output that nobody reads.
func TestClosedPipe(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	var stderr bytes.Buffer
	cmd := exec.Command(exe, "judge", "--json", "../../report/testdata/nft-drop.json")
	cmd.Args[0], cmd.Stdout, cmd.Stderr = "pathtrace", w, &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitCause || stderr.Len() > 0 {
		t.Errorf("%v, stderr %q", err, stderr.String())
	}
}
