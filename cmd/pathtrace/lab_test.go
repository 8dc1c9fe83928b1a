// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/internal/lab"
)

// The services of a lab are this test binary, started again; that comes before any TestMain.
func init() { lab.Helper() }

// patience is how long one trace may take; the slowest wait six seconds for a neighbour.
const patience = 60 * time.Second

// TestFaults breaks a lab in every way that internal/lab knows, lets pathtrace find out how, and
// where it promises a mend, applies the fix, traces again, and takes it back.
func TestFaults(t *testing.T) {
	needRoot(t)
	bin := build(t)
	faults := lab.Faults()
	causes := map[string]bool{}
	controls := 0
	for _, f := range faults {
		causes[f.Cause] = true
		if f.Twin != "" {
			controls++
		}
	}
	t.Logf("%d causes, %d faults, %d controls", len(causes), len(faults)-controls, controls)
	two := make(chan struct{}, 2) // more at once would blur the times on a small machine
	for i, f := range faults {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			two <- struct{}{}
			defer func() { <-two }()
			checkFault(t, bin, f, startLab(t, f, i))
		})
	}
}

func checkFault(t *testing.T, bin string, f lab.Fault, l *lab.Lab) {
	before := snapshot(t, l)
	rate := measure(t, l, f)
	a := trace(t, bin, l, f)
	rate()
	if diff := cmp.Diff(expected(f), a.seen(l, f)); diff != "" {
		t.Errorf("verdict (-want +got):\n%s\n%s", diff, a.raw)
	}
	a.checkHandle(t, l)
	if diff := cmp.Diff(before, snapshot(t, l)); diff != "" {
		t.Fatalf("the trace has changed the configuration (-before +after):\n%s", diff)
	}
	if !f.Fix || t.Failed() {
		return
	}
	if len(a.Verdict.Fixes) == 0 || len(a.Verdict.Fixes[0].Commands) == 0 || len(a.Verdict.Fixes[0].Undo) == 0 {
		t.Fatalf("no fix with an undo:\n%s", a.raw)
	}
	fix := a.Verdict.Fixes[0]
	shell(t, fix.Commands)
	fixed := snapshot(t, l)
	if b := trace(t, bin, l, f); b.Verdict.Cause != "reachable" || b.exit != 0 {
		t.Errorf("after the fix the verdict is %s, exit %d:\n%s\n%s", b.Verdict.Cause, b.exit, strings.Join(fix.Commands, "\n"), b.raw)
	}
	shell(t, fix.Undo)
	if diff := cmp.Diff(before, snapshot(t, l)); diff != "" {
		t.Errorf("the undo does not restore the configuration (-before +after):\n%s\n%s", strings.Join(fix.Undo, "\n"), diff)
	}
	if strings.HasPrefix(f.Cause, "firewall-") {
		// A fix lets one flow pass, it does not open the firewall: a rule each way at most, nothing gone.
		if gone, added := lines(before, fixed), lines(fixed, before); len(gone) > 0 || len(added) > 2 {
			t.Errorf("the fix changes too much:\n%s", cmp.Diff(before, fixed))
		}
	}
}

// measure begins to count the packets that the router gets; the function it returns says how
// many a second they were. A flood that has dried up would show nothing.
func measure(t *testing.T, l *lab.Lab, f lab.Fault) func() {
	t.Helper()
	if f.Busy == 0 {
		return func() {}
	}
	count := func() uint64 {
		lan, err1 := l.Received(lab.Router, lab.LANDevice)
		dmz, err2 := l.Received(lab.Router, lab.DMZDevice)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return lan + dmz
	}
	start, first := time.Now(), count()
	return func() {
		t.Helper()
		rate := float64(count()-first) / time.Since(start).Seconds()
		t.Logf("%.0f packets a second came to the router, %d were sent for", rate, f.Busy)
		if rate < float64(f.Busy)/10 {
			t.Errorf("too few packets to show anything")
		}
	}
}

// lines returns the lines of a that are not in b.
func lines(a, b string) []string {
	have := strings.Split(b, "\n")
	return slices.DeleteFunc(strings.Split(a, "\n"), func(s string) bool { return slices.Contains(have, s) })
}

// answer is what a caller of `pathtrace --json` reads.
type answer struct {
	Verdict struct {
		Cause     string
		Certainty string
		Direction string
		Where     where
		Proof     []string
		Unseen    []string
		Fixes     []struct{ Commands, Undo []string }
	}
	Lost   *uint64
	Timing map[string]int64
	exit   int
	raw    string
}

type where struct {
	Host, Netns, Device, Hook string
	Rule                      *rule
	Route                     struct{ Text, Table string }
	IPRule                    struct{ Priority int } `json:"ip_rule"`
	Sysctl                    struct{ Name, Value string }
	Process                   struct{ Comm string }
	Socket                    struct {
		Local   string
		Backlog int
	}
	Cgroup   struct{ Path string }
	Program  struct{ Name string }
	Neighbor struct{ Address string }
	NAT      translation
	SNAT     translation
	File     *lab.File
}

type rule struct {
	Backend, Family, Table, Chain, Text string
	Path                                []string
	Handle                              uint64
	Number                              int
}

type translation struct {
	To   string
	Rule *rule
}

// address of To, without the port.
func (t translation) address() string {
	ap, err := netip.ParseAddrPort(t.To)
	if err != nil {
		return t.To
	}
	return ap.Addr().String()
}

// found is the part of an answer that a fault asks about.
type found struct {
	Cause string
	Exit  int
	Lost  string
	lab.Want
}

func expected(f lab.Fault) found {
	want := found{Cause: f.Cause, Exit: 1, Lost: "0", Want: f.Want}
	switch f.Cause {
	case "reachable":
		want.Exit = 0
	case "unexplained":
		want.Exit, want.Certainty = 3, "none"
	}
	if want.Certainty == "" && f.Cause != "reachable" {
		want.Certainty = "observed or inferred"
	}
	return want
}

// seen reduces an answer to what f asks about.
func (a *answer) seen(l *lab.Lab, f lab.Fault) found {
	v, w, asked := a.Verdict, a.Verdict.Where, f.Want
	got := found{Cause: v.Cause, Exit: a.exit, Lost: "missing"}
	if a.Lost != nil {
		got.Lost = fmt.Sprint(*a.Lost)
	}
	got.Want = lab.Want{
		Certainty: keep(asked.Certainty, v.Certainty),
		Direction: keep(asked.Direction, v.Direction),
		Role:      keep(asked.Role, l.Role(w.Netns)),
		Hook:      keep(asked.Hook, w.Hook),
		Device:    keep(asked.Device, w.Device),
		Route:     w.Route.Text,
		Table:     keep(asked.Table, w.Route.Table),
		Priority:  keep(asked.Priority, w.IPRule.Priority),
		Sysctl:    keep(asked.Sysctl, [2]string{w.Sysctl.Name, w.Sysctl.Value}),
		Comm:      keep(asked.Comm, w.Process.Comm),
		Socket:    keep(asked.Socket, w.Socket.Local),
		Backlog:   keep(asked.Backlog, w.Socket.Backlog),
		Neighbor:  keep(asked.Neighbor, w.Neighbor.Address),
		NATTo:     keep(asked.NATTo, w.NAT.To),
		NATRule:   w.NAT.Rule.seen(asked.NATRule),
		NoNAT:     keep(asked.NoNAT, w.NAT.To == "" && w.SNAT.To == ""),
		SNATTo:    keep(asked.SNATTo, w.SNAT.address()),
		SNATRule:  w.SNAT.Rule.seen(asked.SNATRule),
		Rule:      w.Rule.seen(asked.Rule),
		Program:   keep(asked.Program, w.Program.Name),
	}
	if asked.Cgroup != "" && w.Cgroup.Path == l.CgroupPath(asked.Cgroup) {
		got.Cgroup = asked.Cgroup
	}
	if strings.HasPrefix(got.Route, asked.Route) {
		got.Route = asked.Route
	}
	for _, p := range asked.Proof {
		if slices.ContainsFunc(v.Proof, func(line string) bool { return strings.Contains(line, p) }) {
			got.Proof = append(got.Proof, p)
		}
	}
	if asked.File != nil {
		got.File = w.File
	}
	if asked.Certainty == "" && f.Cause != "reachable" { // what a cause that was found may be
		got.Certainty = v.Certainty
		if v.Certainty == "observed" || v.Certainty == "inferred" {
			got.Certainty = "observed or inferred"
		}
	}
	return got
}

// seen reduces a rule to what is asked about it.
func (r *rule) seen(asked *lab.Rule) *lab.Rule {
	if r == nil || asked == nil {
		return nil
	}
	got := &lab.Rule{Backend: r.Backend, Family: r.Family, Table: r.Table, Chain: r.Chain, Path: r.Path, Number: r.Number, Text: r.Text}
	if strings.Contains(r.Text, asked.Text) {
		got.Text = asked.Text
	}
	return got
}

// keep returns got where something was asked for.
func keep[T comparable](asked, got T) T {
	var nothing T
	if asked == nothing {
		return nothing
	}
	return got
}

// checkHandle asks nft whether the rule of that number has that handle.
func (a *answer) checkHandle(t *testing.T, l *lab.Lab) {
	t.Helper()
	r := a.Verdict.Where.Rule
	switch {
	case r == nil:
		return
	case r.Number == 0 || r.Backend == "iptables-legacy":
		if r.Handle != 0 {
			t.Errorf("a policy or legacy rule has handle %d", r.Handle)
		}
		return
	}
	role := l.Role(a.Verdict.Where.Netns)
	if role == "" {
		return // reported already
	}
	out, err := l.Output(role, "nft", "-a", "list", "chain", r.Family, r.Table, r.Chain)
	if err != nil {
		t.Error(err)
		return
	}
	var rules []string
	for _, line := range strings.Split(out, "\n") {
		if strings.HasPrefix(line, "\t\t") && !strings.HasPrefix(line, "\t\ttype ") {
			rules = append(rules, line)
		}
	}
	if r.Number > len(rules) || !strings.HasSuffix(rules[r.Number-1], fmt.Sprintf("# handle %d", r.Handle)) {
		t.Errorf("rule %d with handle %d is not in:\n%s", r.Number, r.Handle, out)
	}
}

// trace runs pathtrace on a fault.
func trace(t *testing.T, bin string, l *lab.Lab, f lab.Fault) *answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, arguments(l, f)...)
	cgroup, err := l.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	if cgroup != nil {
		defer cgroup.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	}
	return runTrace(t, cmd)
}

func runTrace(t *testing.T, cmd *exec.Cmd) *answer {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		t.Fatal(err)
	}
	a := &answer{exit: cmd.ProcessState.ExitCode(), raw: stdout.String() + stderr.String()}
	if err := json.Unmarshal(stdout.Bytes(), a); err != nil || a.Verdict.Cause == "" {
		t.Fatalf("no verdict in the JSON (%v), exit %d:\n%s", err, a.exit, a.raw)
	}
	return a
}

func arguments(l *lab.Lab, f lab.Fault) []string {
	args := []string{"--json", "--netns", l.Netns(lab.Client)}
	if hooks := os.Getenv("PATHTRACE_HOOKS"); hooks != "" {
		args = append(args, "--hooks", hooks)
	}
	return slices.Concat(args, f.Arguments(l))
}

// build compiles the program as its users do. PATHTRACE names one that was built elsewhere.
func build(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("PATHTRACE"); bin != "" {
		return bin
	}
	bin := filepath.Join(t.TempDir(), "pathtrace")
	cmd := exec.Command("go", "build", "-o", bin, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build pathtrace: %v\n%s", err, out)
	}
	return bin
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// startLab builds a lab for one test and takes it down after it.
func startLab(t *testing.T, f lab.Fault, n int) *lab.Lab {
	t.Helper()
	if missing := lab.Missing(f); missing != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("not installed: %v", missing)
		}
		t.Skipf("not installed: %v", missing)
	}
	l, err := lab.Start(fmt.Sprintf("pt%x-%d", os.Getpid(), n), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func snapshot(t *testing.T, l *lab.Lab) string {
	t.Helper()
	s, err := l.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shell runs commands as a reader of the report would.
func shell(t *testing.T, commands []string) {
	t.Helper()
	cmd := exec.Command("bash", "-e")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s\n%v\n%s", strings.Join(commands, "\n"), err, out)
	}
}
