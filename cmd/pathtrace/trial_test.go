// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/internal/lab"
	"github.com/pathtrace/pathtrace/netcfg/guard"
)

// tried is what a caller of --verify-fix --json reads.
type tried struct {
	Verdict struct {
		Cause  string
		Proof  []string
		Unseen []string
		Fixes  []struct{ Verified bool }
	}
	Counterfactual *struct {
		Cause, Summary, Again, Untried string
		Probe                          struct{ Outcome string }
		Restored                       bool
		Differs                        []string
	}
	exit   int
	stderr string
}

// stateDir has records and the audit file of this test alone.
func stateDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	t.Setenv("PATHTRACE_STATE_DIR", dir)
	return dir
}

func findFault(t *testing.T, name string) lab.Fault {
	t.Helper()
	f, ok := lab.Find(name)
	if !ok {
		t.Fatalf("no fault %s", name)
	}
	return f
}

func tryFault(t *testing.T, bin string, args ...string) tried {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		t.Fatal(err)
	}
	r := tried{exit: cmd.ProcessState.ExitCode(), stderr: stderr.String()}
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatalf("%v\n%s%s", err, stdout.String(), r.stderr)
	}
	return r
}

func has(lines []string, part string) bool {
	return slices.ContainsFunc(lines, func(s string) bool { return strings.Contains(s, part) })
}

// A fix that heals is proven to, and the configuration is that of before.
func TestVerifyFix(t *testing.T) {
	needRoot(t)
	bin := build(t)
	for n, name := range []string{"nft-input", "nft-policy-v6", "legacy-chains-v6", "iptables-nft-input", "blackhole-router", "forwarding-off", "link-down"} {
		f, ok := lab.Find(name)
		if !ok {
			t.Errorf("no fault %s", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := stateDir(t)
			l := startLab(t, f, 2000+n)
			before := snapshot(t, l)
			r := tryFault(t, bin, append([]string{"--verify-fix", "--yes"}, arguments(l, f)...)...)
			if r.exit != 1 || r.Verdict.Cause != f.Cause {
				t.Errorf("exit %d, cause %s", r.exit, r.Verdict.Cause)
			}
			if c := r.Counterfactual; c == nil || c.Cause != "reachable" || c.Again != f.Cause || !c.Restored || c.Probe.Outcome != "connected" {
				t.Errorf("%+v", c)
			}
			if !r.Verdict.Fixes[0].Verified || !has(r.Verdict.Proof, " the service answers, and without it not") {
				t.Errorf("%+v", r.Verdict)
			}
			if diff := cmp.Diff(before, snapshot(t, l)); diff != "" {
				t.Error(diff)
			}
			if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
				t.Errorf("besides the audit file: %v, %v", list, err)
			}
		})
	}
}

// What stands behind a fault is told as such, and no fix is said to heal.
func TestFaultBehindAFault(t *testing.T) {
	needRoot(t)
	bin := build(t)
	for n, test := range []struct{ fault, behind, says string }{
		{"drop-behind-drop", "firewall-drop", "iptables-legacy ip filter chain INPUT"},
		{"drop-behind-drop-v6", "firewall-drop", "iptables-legacy ip6 filter chain INPUT"},
		{"no-listener-behind-drop", "no-listener", "nothing listens"},
		{"no-listener-behind-drop-v6", "no-listener", "nothing listens"},
	} {
		t.Run(test.fault, func(t *testing.T) {
			stateDir(t)
			f := findFault(t, test.fault)
			l := startLab(t, f, 2100+n)
			before := snapshot(t, l)
			r := tryFault(t, bin, append([]string{"rules", "try", "--yes"}, arguments(l, f)...)...)
			c := r.Counterfactual
			if r.exit != 1 || c == nil || c.Cause != test.behind || c.Again != "" || !c.Restored || !strings.Contains(c.Summary, test.says) {
				t.Errorf("exit %d, %+v", r.exit, c)
			}
			if !has(r.Verdict.Proof, "behind it stands another cause ("+test.behind+")") || r.Verdict.Fixes[0].Verified {
				t.Errorf("%+v", r.Verdict)
			}
			if diff := cmp.Diff(before, snapshot(t, l)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNothingToTry(t *testing.T) {
	needRoot(t)
	bin := build(t)
	for n, test := range []struct {
		name, fault string
		args        []string
		untried     string
	}{
		{"no fix", "no-listener", []string{"--verify-fix", "--yes"}, "there is none that a command makes"},
		{"not a rule", "blackhole-router", []string{"rules", "try", "--yes"}, "it changes no firewall rule"},
		{"a process", "stopped", []string{"--verify-fix", "--yes"}, "it does more than to change the configuration"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := stateDir(t)
			f := findFault(t, test.fault)
			l := startLab(t, f, 2200+n)
			r := tryFault(t, bin, append(test.args, arguments(l, f)...)...)
			if c := r.Counterfactual; c == nil || !strings.Contains(c.Untried, test.untried) || !has(r.Verdict.Unseen, test.untried) {
				t.Errorf("%+v, %v", c, r.Verdict.Unseen)
			}
			if _, err := os.Stat(dir); err == nil {
				t.Error("something was recorded")
			}
		})
	}
}

// Without a terminal nobody can be asked: nothing is probed, and nothing changed.
func TestTrialNeedsATerminalOrYes(t *testing.T) {
	needRoot(t)
	bin := build(t)
	dir := stateDir(t)
	for _, args := range [][]string{{"--verify-fix", "127.0.0.1:9"}, {"rules", "try", "127.0.0.1:9"}} {
		cmd := exec.Command(bin, args...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 2 || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), "--yes") {
			t.Errorf("%v: %v, %s", args, err, out)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("something was recorded")
	}
}

// TestKilledTrials kills trials at random moments: alone, with the guard, and while another program
// changes the ruleset. PATHTRACE_KILLS says how many.
func TestKilledTrials(t *testing.T) {
	needRoot(t)
	bin := build(t)
	kills := 12
	if s := os.Getenv("PATHTRACE_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	names := []string{"nft-input", "legacy-input", "legacy-chains-v6", "iptables-nft-input"}
	for n, name := range names {
		t.Run(name, func(t *testing.T) {
			k := killing{t: t, bin: bin, dir: stateDir(t), lab: startLab(t, findFault(t, name), 2300+n)}
			k.argv = append([]string{bin, "rules", "try", "--yes"}, arguments(k.lab, findFault(t, name))...)
			start := time.Now()
			if r := tryFault(t, bin, k.argv[1:]...); len(r.Verdict.Fixes) == 0 || !r.Verdict.Fixes[0].Verified {
				t.Fatalf("not verified before any kill: %+v", r) // else nothing would be shown by killing it
			}
			whole := time.Since(start)
			for i := range (kills + len(names) - 1 - n) / len(names) {
				k.round(i, time.Duration(random.Int64N(int64(whole))))
			}
			t.Logf("%d kills within %v; at most %v until all was as before; %d records left to the next run, %d kills while a change was in force",
				k.rounds, whole, k.slowest, k.left, k.changed)
		})
	}
}

type killing struct {
	t                     *testing.T
	bin, dir              string
	lab                   *lab.Lab
	argv                  []string
	rounds, left, changed int
	slowest               time.Duration
}

// round kills one trial, and looks what it has left.
func (k *killing) round(i int, after time.Duration) {
	k.t.Helper()
	k.rounds++
	before := snapshot(k.t, k.lab)
	switch i % 3 {
	case 0:
		k.alone(after)
	case 1:
		k.withGuard(after)
	case 2: // another program is at work meanwhile; its change is to survive
		done := make(chan error, 1)
		table := fmt.Sprintf("table inet other%d { chain c { tcp dport 22 accept; }; }", i)
		time.AfterFunc(after*9/10, func() { done <- k.lab.Nft(lab.Server, table) })
		k.alone(after)
		if err := <-done; err != nil {
			k.t.Fatal(err)
		}
		now := snapshot(k.t, k.lab)
		if !strings.Contains(now, fmt.Sprintf("table inet other%d {", i)) {
			k.t.Fatalf("the other program's change is gone:\n%s", now)
		}
		if err := k.lab.Nft(lab.Server, fmt.Sprintf("delete table inet other%d", i)); err != nil {
			k.t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, snapshot(k.t, k.lab)); diff != "" {
		k.t.Fatalf("killed after %v (way %d), it leaves (-before +after):\n%s", after, i%3, diff)
	}
	if list, err := guard.List(); err != nil || len(list) > 0 {
		k.t.Fatalf("killed after %v, records are left: %+v, %v", after, list, err)
	}
}

// alone kills the program; its guard takes back what was done.
func (k *killing) alone(after time.Duration) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	changes := k.audited()
	start := time.Now()
	if err := lab.KillAfter(ctx, after, k.argv...); err != nil { // returns when the guard has ended, too
		k.t.Fatal(err)
	}
	took := time.Since(start) - after
	if k.slowest = max(k.slowest, took); took > 2*time.Second {
		k.t.Errorf("killed after %v, it took %v until all was as before", after, took)
	}
	if k.audited() > changes {
		k.changed++
	}
}

// withGuard kills the guard and the program; the next run takes back what was done.
func (k *killing) withGuard(after time.Duration) {
	k.t.Helper()
	cmd := exec.Command(k.argv[0], k.argv[1:]...)
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	killed := make(chan struct{})
	time.AfterFunc(after, func() {
		defer close(killed)
		list, _ := guard.List() // none yet, or none any more
		for _, p := range list {
			if !p.Left {
				unix.Kill(p.Record.Guard.PID, unix.SIGKILL)
			}
		}
		cmd.Process.Kill()
	})
	<-killed
	cmd.Wait()
	list, err := guard.List()
	if err != nil {
		k.t.Fatal(err)
	}
	for _, p := range list {
		k.left++
		k.waitUnlocked(filepath.Join(k.dir, p.Record.ID+".undo.json"))
	}
	if out, err := exec.Command(k.bin, "undo").CombinedOutput(); err != nil {
		k.t.Fatalf("undo: %v: %s", err, out)
	}
}

// waitUnlocked returns when nothing of the killed run lives any more, neither a guard nor a command.
func (k *killing) waitUnlocked(record string) {
	k.t.Helper()
	f, err := os.Open(record)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		k.t.Fatal(err)
	}
}

// audited counts the changes that were noted.
func (k *killing) audited() int {
	text, err := os.ReadFile(filepath.Join(k.dir, "changes.log"))
	if err != nil {
		k.t.Fatal(err)
	}
	return strings.Count(string(text), " changes ")
}

// TestTrialInterrupted: Ctrl-C while the second probe is on its way takes the change back, and tells what was seen.
func TestTrialInterrupted(t *testing.T) {
	needRoot(t)
	bin := build(t)
	dir := stateDir(t)
	f := findFault(t, "drop-behind-drop") // the second probe waits for an answer that does not come
	l := startLab(t, f, 2400)
	before := snapshot(t, l)
	cmd := exec.Command(bin, append([]string{"rules", "try", "--yes"}, arguments(l, f)...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	inotify := watchFor(t, filepath.Dir(dir))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inotify() // the directory of records: the change is about to be made
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	var r tried
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s%s", err, stdout.String(), stderr.String())
	}
	if code := cmd.ProcessState.ExitCode(); code != 130 || r.Counterfactual == nil || !strings.Contains(r.Counterfactual.Untried, "interrupted") {
		t.Errorf("exit %d, %+v", code, r.Counterfactual)
	}
	if diff := cmp.Diff(before, snapshot(t, l)); diff != "" {
		t.Error(diff)
	}
	if list, err := guard.List(); err != nil || len(list) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// watchFor returns a function that waits until something is made in dir.
func watchFor(t *testing.T, dir string) func() {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds())); n != 1 {
			t.Fatalf("nothing was made in %s: %v", dir, err)
		}
	}
}
