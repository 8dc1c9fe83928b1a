// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/internal/lab"
)

// deducible are the faults of tcp wrappers whose rules decide without what only
// libwrap knows: the name that a server gives itself, or that of the client.
var deducible = []string{"libwrap-vsftpd", "libwrap-vsftpd-option", "libwrap-inetd-tcpd", "libwrap-xinetd-tcpd", "libwrap-sshd", "libwrap-inetd-tcpd-spawn"}

// TestLibwrapWithoutUprobes: where the calls of libwrap cannot be watched its
// denials are inferred, or not spoken of, and nobody else's refusal is taken for one.
func TestLibwrapWithoutUprobes(t *testing.T) {
	needRoot(t)
	bin, err := exec.LookPath("pathtrace-without-uprobes")
	if err != nil {
		t.Fatal(err)
	}
	two := make(chan struct{}, 2)
	for i, f := range lab.Faults() {
		if !strings.Contains(f.Name, "libwrap-") {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			two <- struct{}{}
			defer func() { <-two }()
			l := startLab(t, f, 1200+i)
			a := trace(t, bin, l, f)
			base := strings.TrimSuffix(f.Name, "-v6")
			switch {
			case strings.HasSuffix(base, "-banners"): // what libwrap says itself cannot be told from what the server says
				f.Cause, f.Want = "reachable", lab.Want{Role: lab.Server}
			case f.Cause == "libwrap-denied" && slices.Contains(deducible, base):
				f.Want.Certainty = "inferred"
			case f.Cause == "libwrap-denied":
				if !slices.Contains([]string{"closed-by-app", "reset-by-app", "app-error"}, a.Verdict.Cause) || a.Verdict.Where.File != nil {
					t.Errorf("%s, %v\n%s", a.Verdict.Cause, a.Verdict.Where.File, brief(a))
				}
				if !strings.HasSuffix(base, "-twist") && !strings.Contains(a.raw, "whether tcp wrappers denied: ") {
					t.Errorf("it is not said why tcp wrappers are not to blame\n%s", brief(a))
				}
				return
			}
			if diff := cmp.Diff(expected(f), a.seen(l, f)); diff != "" {
				t.Errorf("verdict (-want +got):\n%s\n%s", diff, brief(a))
			}
		})
	}
}

// buildArchive compiles a server that libwrap is linked into. It skips the test
// where there is no compiler or no such library.
func buildArchive(t *testing.T) string {
	t.Helper()
	var library []byte
	_, err := exec.LookPath("gcc")
	if err == nil {
		library, err = exec.Command("gcc", "-print-file-name=libwrap.a").Output()
	}
	if path := strings.TrimSpace(string(library)); err == nil && !strings.Contains(path, "/") {
		err = errors.New("no libwrap.a")
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v: install gcc, libc6-dev and libwrap0-dev", err)
		}
		t.Skipf("%v: gcc, libc6-dev and libwrap0-dev are needed", err)
	}
	exe := filepath.Join(t.TempDir(), "archive")
	out, err := exec.Command("gcc", "-Wall", "-Werror", "-o", exe, "testdata/archive.c", strings.TrimSpace(string(library))).CombinedOutput()
	if err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return exe
}

// TestLibwrapLinkedIn: a library that no process maps cannot be watched by
// uprobes. What is not the work of the rules must not be put down to them.
func TestLibwrapLinkedIn(t *testing.T) {
	needRoot(t)
	bin, exe := build(t), buildArchive(t)
	for i, x := range []struct {
		name, how, allow, deny string
		cause                  string
		line                   int
		unseen                 string
	}{
		{name: "denied", how: "obeys", deny: "# all\nALL : ALL\n", cause: "libwrap-denied", line: 2},
		{name: "granted", how: "obeys", allow: "ALL : 198.18.4.10\n", deny: "ALL : ALL\n", cause: "reachable"},
		{name: "granted and closed", how: "heedless", allow: "ALL : 198.18.4.10\n", deny: "ALL : ALL\n", cause: "closed-by-app", unseen: "they grant this client"},
		{name: "granted by no rule and closed", how: "heedless", deny: "ALL : 198.18.4.11\n", cause: "closed-by-app", unseen: "they grant this client"},
		{name: "its name decides", how: "obeys", deny: "archive : ALL\n", cause: "closed-by-app", unseen: "what the server calls itself is not known"},
		{name: "another name than its program's", how: "heedless", deny: "archivist : ALL\n", cause: "closed-by-app", unseen: "what the server calls itself is not known"},
		{name: "the client's name decides", how: "obeys", deny: "ALL : .branch.example\n", cause: "closed-by-app", unseen: "which is not known here"},
		{name: "asked about another connection", how: "about", deny: "ALL : ALL\n", cause: "closed-by-app", unseen: "held other connections"},
	} {
		t.Run(x.name, func(t *testing.T) {
			f := lab.Fault{
				Name: "libwrap-linked-in", Family: 4, Cause: x.cause,
				Setup: func(l *lab.Lab) error {
					err := l.RunServer(lab.Server, lab.Program{Argv: []string{exe, x.how}, Addr: netip.MustParseAddrPort("[::]:8080"),
						Files: map[string]string{"/etc/hosts": "198.18.4.10 pc.branch.example\n", "/etc/hosts.allow": x.allow, "/etc/hosts.deny": x.deny}})
					if err == nil && x.how == "about" {
						err = l.Hold(lab.Client, lab.Connect{To: netip.MustParseAddrPort("198.18.9.80:8080"), Count: 1})
					}
					return err
				},
				Target: func(*lab.Lab) string { return "198.18.9.80:8080" },
			}
			a := trace(t, bin, startLab(t, f, 1500+i), f)
			line := 0
			if a.Verdict.Where.File != nil {
				line = a.Verdict.Where.File.Line
			}
			if a.Verdict.Cause != x.cause || line != x.line || x.line > 0 && a.Verdict.Certainty != "inferred" || !strings.Contains(a.raw, x.unseen) {
				t.Errorf("%s (%s), line %d, want %s, line %d and %q\n%s", a.Verdict.Cause, a.Verdict.Certainty, line, x.cause, x.line, x.unseen, brief(a))
			}
		})
	}
}
