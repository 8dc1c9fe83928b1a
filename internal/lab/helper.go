// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// helperEnv makes a program that calls [Helper] act as a helper of a lab.
const helperEnv = "PATHTRACE_LAB_HELPER"

// Helper turns this process into one of a lab's services when it was started as such, and
// then does not return. A program or test that uses labs calls it before anything else:
// a service needs a process of its own, else the tracer would find the test to be the owner.
func Helper() {
	if os.Getenv(helperEnv) == "" {
		return
	}
	os.Unsetenv(helperEnv)
	if err := help(os.Args[len(os.Args)-1], os.NewFile(3, "parent")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func help(arg string, parent *os.File) error {
	var j job
	if err := json.Unmarshal([]byte(arg), &j); err != nil {
		return fmt.Errorf("read the helper's task: %w", err)
	}
	unix.CloseOnExec(int(parent.Fd()))
	err := j.run(func(word string) { fmt.Fprintln(parent, word) })
	if err != nil && j.Reap == nil && j.Enter == nil {
		fmt.Fprintln(parent, err)
	}
	return err
}

// run does the job; say reports to the parent.
func (j job) run(say func(string)) error {
	switch {
	case j.Listen != nil && j.Listen.Behaviour == Stopped:
		return j.Listen.stopped(say)
	case j.Listen != nil:
		if err := os.WriteFile("/proc/self/comm", []byte(or(j.Listen.Comm, "labd")), 0); err != nil {
			return fmt.Errorf("set the name of the process: %w", err)
		}
		go leaveWithParent()
		return listen(*j.Listen, j.Filled, say)
	case j.Connect != nil:
		return connect(*j.Connect, say)
	case j.Flood != nil:
		go leaveWithParent()
		return flood(*j.Flood, say)
	case j.Reader != nil:
		if err := os.WriteFile("/proc/self/comm", []byte("queued"), 0); err != nil {
			return fmt.Errorf("set the name of the process: %w", err)
		}
		go leaveWithParent()
		return j.Reader.run(say)
	case j.Try != nil:
		say(j.Try.run())
		return nil
	case j.Reap != nil:
		return j.Reap.run()
	case j.Program != nil:
		return j.Program.supervise(say)
	case j.Enter != nil:
		return j.Enter.enter()
	}
	return errors.New("a helper without a task")
}

// leaveWithParent ends this process when the parent closes its end of stdin, or dies.
func leaveWithParent() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
