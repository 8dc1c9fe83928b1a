// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/internal/lab"
)

// hadNetns is why there was no /etc/netns when the first test came.
var hadNetns = sync.OnceValue(func() error { _, err := os.Stat("/etc/netns"); return err })

// etc gives the programs of a lab's client their own files below /etc.
func etc(t *testing.T, l *lab.Lab, files map[string]string) {
	t.Helper()
	before := hadNetns()
	dir := filepath.Join("/etc/netns", l.Netns(lab.Client))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(dir)
		if before != nil {
			os.Remove("/etc/netns") // fails while another test needs it
		}
	})
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func plain(t *testing.T, n int) *lab.Lab {
	t.Helper()
	return startLab(t, lab.Fault{Name: "none", Family: 4, Setup: func(*lab.Lab) error { return nil }}, n)
}

// TestNames: a name is looked up with the files and the name servers of the
// namespace; each of its addresses is probed, and a name server that cannot be
// reached is traced to.
func TestNames(t *testing.T) {
	needRoot(t)
	bin := build(t)
	run := func(t *testing.T, l *lab.Lab, args ...string) (exit int, out []byte) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), bin, append([]string{"--json", "--netns", l.Netns(lab.Client), "-w", "1s"}, args...)...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		var status *exec.ExitError
		if err != nil && !errors.As(err, &status) {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), stdout.Bytes()
	}

	t.Run("each address", func(t *testing.T) {
		t.Parallel()
		l := plain(t, 950)
		four, six := l.Addr(lab.Server, 4), l.Addr(lab.Server, 6)
		etc(t, l, map[string]string{"hosts": fmt.Sprintf("%s twin.example\n%s twin.example\n", four, six), "nsswitch.conf": "hosts: files\n"})
		if err := l.Serve(lab.Server, lab.Listen{Addr: netip.AddrPortFrom(four, 8080)}); err != nil {
			t.Fatal(err)
		}
		exit, out := run(t, l, "twin.example:8080")
		var got struct {
			Target  struct{ Address string }
			Results []struct {
				Target  struct{ Address string }
				Verdict struct{ Cause string }
			}
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		var seen []string
		for _, r := range got.Results {
			seen = append(seen, r.Target.Address+" "+r.Verdict.Cause)
		}
		want := []string{four.String() + " reachable", six.String() + " listener-elsewhere"}
		if d := cmp.Diff(want, seen); d != "" || exit != 1 || got.Target.Address != six.String() {
			t.Errorf("exit %d, the worst is %s\n%s", exit, got.Target.Address, d)
		}
	})

	for i, c := range []struct{ name, script, cause string }{
		{"nobody listens on the name server", "", "no-listener"},
		{"the way to the name server is closed", "table inet fw { chain in { type filter hook input priority 0; udp dport 53 drop; }; }", "firewall-drop"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := plain(t, 951+i)
			if c.script != "" {
				if err := l.Nft(lab.Server, c.script); err != nil {
					t.Fatal(err)
				}
			}
			etc(t, l, map[string]string{
				"hosts": "127.0.0.1 localhost\n", "nsswitch.conf": "hosts: files dns\n",
				"resolv.conf": fmt.Sprintf("nameserver %s\noptions attempts:1 timeout:1\n", l.Addr(lab.Server, 4)),
			})
			exit, out := run(t, l, "web.example:80")
			var got struct {
				Error struct {
					Code, Message string
					Steps         []string
					Resolver      struct{ Verdict struct{ Cause string } }
				}
				Verdict any
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatal(err)
			}
			named := slices.ContainsFunc(got.Error.Steps, func(s string) bool {
				return strings.Contains(s, "name server "+l.Addr(lab.Server, 4).String()+":53")
			})
			if exit != 2 || got.Error.Code != "resolve" || got.Error.Resolver.Verdict.Cause != c.cause || !named || got.Verdict != nil {
				t.Errorf("exit %d, want %s of %q:\n%s", exit, c.cause, got.Error.Steps, got.Error.Message)
			}
		})
	}
}
