// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pathtrace/pathtrace/internal/lab"
)

func TestDemoList(t *testing.T) {
	out, err := exec.Command(build(t), "demo", "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range lab.Faults() {
		if !strings.Contains(string(out), "\n"+f.Name+" ") {
			t.Errorf("%s is not listed", f.Name)
		}
	}
}

func TestDemo(t *testing.T) {
	needRoot(t)
	bin := build(t)
	for _, c := range []struct {
		args  []string
		exit  int
		cause string
	}{
		{[]string{"demo", "no-listener", "--", "--json"}, 1, "no-listener"},
		{[]string{"demo", "reachable-v6", "--", "--json"}, 0, "reachable"},
		{[]string{"demo", "nonsense"}, 2, ""},
	} {
		cmd := exec.Command(bin, c.args...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != c.exit {
			t.Errorf("%v: exit %d, want %d\n%s", c.args, code, c.exit, stderr.String())
		}
		var a answer
		if err := json.Unmarshal(stdout.Bytes(), &a); c.cause != "" && (err != nil || a.Verdict.Cause != c.cause) {
			t.Errorf("%v: want %s, got (%v)\n%s", c.args, c.cause, err, stdout.String())
		}
		nothingLeft(t, cmd.Process.Pid)
	}
}

// TestDemoInterrupted presses Ctrl-C as soon as the lab stands.
func TestDemoInterrupted(t *testing.T) {
	needRoot(t)
	cmd := exec.Command(build(t), "demo", "neighbor-router", "--", "--json")
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for said, b := "", make([]byte, 4096); !strings.Contains(said, "broken"); {
		n, err := stderr.Read(b)
		said += string(b[:n])
		if err != nil {
			t.Fatalf("the demo ended early: %s", said)
		}
	}
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit %d, want 130", code)
	}
	nothingLeft(t, cmd.Process.Pid)
}

func nothingLeft(t *testing.T, pid int) {
	t.Helper()
	for _, dir := range []string{"/run/netns", "/run/pathtrace-lab"} {
		left, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("ptdemo%d*", pid)))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range left {
			if _, err := os.Lstat(path); err == nil {
				t.Errorf("%s is left", path)
			}
		}
	}
}
