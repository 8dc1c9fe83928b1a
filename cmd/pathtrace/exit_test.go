// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/verdict"
)

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		cause     string
		certainty verdict.Certainty
		want      int
	}{
		{"reachable", verdict.Observed, 0},
		{"reachable", verdict.Inferred, 0},
		{"firewall-drop", verdict.Observed, 1},
		{"accept-queue-full", verdict.Inferred, 1},
		{"remote-silent", verdict.Inferred, 1},
		{"app-error", verdict.Observed, 1},
		{"unexplained", verdict.None, 3},
		{"firewall-drop", verdict.None, 3},
		{"", "", 3},
	} {
		if got := exitCode(verdict.Verdict{Cause: c.cause, Certainty: c.certainty}); got != c.want {
			t.Errorf("%s, %s: exit %d, want %d", c.cause, c.certainty, got, c.want)
		}
	}
}

func TestFailure(t *testing.T) {
	verifier := errors.New("program drop: invalid argument: R1 type=ctx\n\t0: (b7) r0 = 0\n\t1: …")
	for _, c := range []struct {
		err     error
		exit    int
		code    string
		message string
	}{
		{badUse("port %d", 0), 2, "usage", "port 0"},
		{fmt.Errorf("outer: %w", badUse("inner")), 2, "usage", "inner"},
		{&UsageError{Code: "resolve", Err: errors.New("x does not resolve")}, 2, "resolve", "x does not resolve"},
		{&TraceError{Code: "no-btf", Message: "this kernel has no BTF", Help: "CONFIG_DEBUG_INFO_BTF"}, 4, "no-btf", "this kernel has no BTF; CONFIG_DEBUG_INFO_BTF"},
		{cannotTrace(verifier), 4, "trace", "program drop: invalid argument: R1 type=ctx"},
		{cannotTrace(fmt.Errorf("load: %w (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", unix.EPERM)), 4, "privilege", "load: operation not permitted; "},
		{cannotTrace(badUse("no such namespace")), 2, "usage", "no such namespace"},
		{cannotTrace(context.Canceled), 130, "interrupted", "interrupted"},
		{errors.New("unknown command"), 2, "usage", "unknown command"},
	} {
		exit, code, message := failure(c.err)
		if exit != c.exit || code != c.code || !strings.HasPrefix(message, c.message) {
			t.Errorf("%v: %d %s %q", c.err, exit, code, message)
		}
	}
	if cannotTrace(nil) != nil {
		t.Error("nothing became an error")
	}
	if !errors.Is(cannotTrace(unix.EPERM), fs.ErrPermission) {
		t.Error("the cause is lost")
	}
}
