// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg/guard"
	"github.com/pathtrace/pathtrace/report"
	"github.com/pathtrace/pathtrace/verdict"
)

// TestMain makes this binary serve as the command too: as pathtrace in the scripts.
func TestMain(m *testing.M) {
	guard.Serve()
	if os.Getenv("PATHTRACE_STATE_DIR") == "" { // no test minds the changes that this host has pending
		os.Setenv("PATHTRACE_STATE_DIR", filepath.Join(os.TempDir(), fmt.Sprintf("pathtrace-test-%d", os.Getpid())))
	}
	testscript.Main(m, map[string]func(){"pathtrace": main, "pathtrace-without-uprobes": withoutUprobes})
}

// withoutUprobes is pathtrace on a kernel that has no uprobes, as far as it can tell.
func withoutUprobes() {
	a := newApp(os.Stdin, os.Stdout, os.Stderr)
	a.job = func(ctx context.Context, o Options, t Target, _ io.Writer) (evidence.Case, verdict.Verdict, error) {
		r := newRequest(o, t)
		r.uprobes = fmt.Errorf("attach: %w", unix.ENOENT)
		return r.run(ctx, o.Clock)
	}
	os.Exit(a.run(context.Background(), os.Args[1:]))
}

func TestScripts(t *testing.T) {
	cases, err := filepath.Abs("../../report/testdata")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			e.Setenv("CASES", cases)
			return archives(filepath.Join(cases, "nft-drop.json"), e.WorkDir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exit": exits},
	})
}

// archives puts a sound bundle and one that was cut off into dir.
func archives(name, dir string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := report.ReadCase(f)
	if err != nil {
		return err
	}
	c := s.Case
	var b bytes.Buffer
	if err := report.WriteBundle(&b, report.Bundle{Document: report.NewDocument(c, verdict.Judge(&c))}); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "sound.zip"), b.Bytes(), 0o600),
		os.WriteFile(filepath.Join(dir, "cut.zip"), b.Bytes()[:b.Len()/2], 0o600))
}

// exits runs a command and compares its exit code: exit 3 pathtrace …
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE COMMAND [ARG ...]")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var e *exec.ExitError
		if !errors.As(err, &e) {
			ts.Fatalf("%v", err)
		}
		code = e.ExitCode()
	}
	if want := args[0]; want != strconv.Itoa(code) {
		ts.Fatalf("exit code %d, want %s", code, want)
	}
}
