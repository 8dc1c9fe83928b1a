// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/netcfg/guard"
)

// armed is a route in a namespace of its own, with a guard over it.
func armed(t *testing.T) (n *netcfg.Netns, path string) {
	t.Helper()
	t.Setenv("PATHTRACE_STATE_DIR", t.TempDir()+"/state")
	path = ownNetns(t)
	n, err := netcfg.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	g, err := guard.Arm(guard.Change{Netns: n, What: "a route\x1b[2J", Undo: []string{"ip route del blackhole 192.0.2.0/24"}, For: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.Output(t.Context(), "ip", "route", "add", "blackhole", "192.0.2.0/24"); err != nil {
		t.Fatal(err)
	}
	if err := g.Detach(); err != nil {
		t.Fatal(err)
	}
	return n, path
}

func hasRoute(t *testing.T, n *netcfg.Netns) bool {
	t.Helper()
	routes := n.Routes()
	if !routes.Read() {
		t.Fatal(routes.Why())
	}
	for _, r := range routes.Items {
		if r.Type == "blackhole" {
			return true
		}
	}
	return false
}

func undoCommand(t *testing.T, want int, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), append([]string{"undo"}, args...), strings.NewReader(""), &stdout, &stderr); code != want {
		t.Errorf("undo %v: exit %d, want %d: %s", args, code, want, stderr.String())
	}
	return stdout.String() + stderr.String()
}

func TestUndoByID(t *testing.T) {
	n, path := armed(t)
	var stdout, stderr bytes.Buffer
	run(t.Context(), []string{"--netns", path, "127.0.0.1:9"}, strings.NewReader(""), &stdout, &stderr)
	if !strings.HasPrefix(stderr.String(), "pathtrace: a change is in force until ") || !hasRoute(t, n) {
		t.Errorf("%q", stderr.String())
	}
	list := undoCommand(t, 0, "--list")
	if strings.Count(list, "\n") != 2 || !strings.Contains(list, "until ") || strings.Contains(list, "\x1b") {
		t.Errorf("%q", list)
	}
	if out := undoCommand(t, 0); out != "" || !hasRoute(t, n) { // its guard lives
		t.Errorf("%q", out)
	}
	if out := undoCommand(t, 2, "00000000"); !strings.Contains(out, "there is no such change") {
		t.Errorf("%q", out)
	}
	id := strings.Fields(strings.Split(list, "\n")[1])[0]
	if out := undoCommand(t, 0, id); !strings.Contains(out, id+": taken back in ") || hasRoute(t, n) {
		t.Errorf("%q", out)
	}
	if list := undoCommand(t, 0, "--list"); list != "" {
		t.Errorf("%q", list)
	}
}

func TestUndoOfWhatWasLeft(t *testing.T) {
	n, path := armed(t)
	list, err := guard.List()
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	f, err := os.Open(filepath.Join(os.Getenv("PATHTRACE_STATE_DIR"), list[0].Record.ID+".undo.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(list[0].Record.Guard.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil { // its lock goes with it
		t.Fatal(err)
	}
	f.Close()
	if out := undoCommand(t, 0, "--list"); !strings.Contains(out, "left behind") {
		t.Errorf("%q", out)
	}
	// The next trace takes it back, before it looks at anything.
	var stdout, stderr bytes.Buffer
	run(t.Context(), []string{"--netns", path, "127.0.0.1:9"}, strings.NewReader(""), &stdout, &stderr)
	if !strings.HasPrefix(stderr.String(), "pathtrace: of a run that was killed: ") || hasRoute(t, n) {
		t.Errorf("%q", stderr.String())
	}
}
