// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/pathtrace/pathtrace/verdict"
)

// Exit codes. They are a promise: people script against them.
const (
	exitReached     = 0
	exitCause       = 1   // not reached, and the cause is found
	exitUsage       = 2   // or the name does not resolve
	exitUnexplained = 3   // not reached, and the cause is not established
	exitNoTrace     = 4   // pathtrace could not trace
	exitInterrupted = 130 // what was seen so far is reported
)

// UsageError says that what was asked for makes no sense, or names what is not there. Exit code 2.
type UsageError struct {
	Code string // for programs
	Err  error
}

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// TraceError says that the machine does not let us trace. Exit code 4.
type TraceError struct {
	Code    string // for programs
	Message string // what does not work, one line
	Help    string // what would help, one line; may be empty
	Err     error  // may be nil
}

func (e *TraceError) Error() string {
	if e.Help == "" {
		return e.Message
	}
	return e.Message + "; " + e.Help
}
func (e *TraceError) Unwrap() error { return e.Err }

// badUse makes a [UsageError].
func badUse(format string, args ...any) error {
	return &UsageError{Code: "usage", Err: fmt.Errorf(format, args...)}
}

// cannotTrace makes a [TraceError] of what the kernel or a tool answered. An
// error that already says how the program is to end stays as it is.
func cannotTrace(err error) error {
	var usage *UsageError
	var trace *TraceError
	switch {
	case err == nil || errors.As(err, &usage) || errors.As(err, &trace) || errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return &TraceError{Code: "privilege", Message: oneLine(err), Help: "tracing needs root: sudo pathtrace …", Err: err}
	case errors.Is(err, fs.ErrPermission):
		return &TraceError{Code: "privilege", Message: oneLine(err),
			Help: "root is not allowed to here: a container without its capabilities, kernel lockdown or a security module", Err: err}
	}
	return &TraceError{Code: "trace", Message: oneLine(err), Err: err}
}

// oneLine cuts an error before its second line (a verifier's log follows), and
// takes out the BPF library's guess about locked memory, which every refusal gets.
func oneLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return strings.ReplaceAll(s, " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", "")
}

// exitCode is that of a run which came to a verdict.
func exitCode(v verdict.Verdict) int {
	switch {
	case v.Cause == "reachable":
		return exitReached
	case v.Cause == "unexplained", v.Certainty != verdict.Observed && v.Certainty != verdict.Inferred:
		return exitUnexplained
	}
	return exitCause
}

// failure says how the program ends, and what a program reads about it, when there is no verdict.
func failure(err error) (exit int, code, message string) {
	var usage *UsageError
	var trace *TraceError
	switch {
	case errors.As(err, &trace):
		return exitNoTrace, trace.Code, oneLine(trace)
	case errors.As(err, &usage):
		return exitUsage, usage.Code, oneLine(usage)
	case errors.Is(err, context.Canceled):
		return exitInterrupted, "interrupted", "interrupted"
	}
	// What is left comes from the command line library: unknown flags, wrong arguments.
	return exitUsage, "usage", oneLine(err)
}
