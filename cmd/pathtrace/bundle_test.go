// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/report"
	"github.com/pathtrace/pathtrace/report/redact"
	"github.com/pathtrace/pathtrace/verdict"
)

// secretive is a recorded case that holds what should not leave the house.
func secretive(t *testing.T) evidence.Case {
	t.Helper()
	f, err := os.Open("../../verdict/testdata/cases/firewall-drop/case.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := report.ReadCase(f)
	if err != nil {
		t.Fatal(err)
	}
	c := s.Case
	c.Host.Name = "db01.corp.acme"
	c.Target.Input = "http://bob@web7.corp.acme/private?token=hunter2-S3cr3t"
	c.Unseen = append(c.Unseen, "web7: password=hunter2-S3cr3t")
	return c
}

// saving runs the main job with -o in a new directory, and returns it.
func saving(t *testing.T, c evidence.Case, args ...string) (f *fake, dir string, code int) {
	t.Helper()
	dir = t.TempDir()
	f = newFake(c, verdict.Verdict{}, nil)
	f.judge = verdict.Judge
	f.config = func(context.Context, *evidence.Case) toolTexts {
		return toolTexts{files: []report.File{{Name: "db01/nft.txt", Data: []byte("ip saddr 10.77.1.2 drop comment \"secret=hunter2-S3cr3t web7\"\n")}},
			unread: map[string]string{"db01/sysctls.txt": "sysctl: not installed"}}
	}
	code = f.run(t.Context(), append(args, "-o", filepath.Join(dir, "x.zip"), "10.77.2.2:80"))
	return f, dir, code
}

// unzipped returns everything that is in an archive as one text.
func unzipped(t *testing.T, name string) string {
	t.Helper()
	z, err := zip.OpenReader(name)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var all strings.Builder
	for _, f := range z.File {
		data, err := fs.ReadFile(z, f.Name)
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(f.Name + "\n" + string(data) + "\n")
	}
	return all.String()
}

// TestBundleMasksSecrets: without --redact addresses stay, secrets do not.
func TestBundleMasksSecrets(t *testing.T) {
	f, dir, code := saving(t, secretive(t))
	if code != exitCause || f.stderr.Len() > 0 {
		t.Fatalf("exit %d: %s", code, f.stderr.String())
	}
	text := unzipped(t, filepath.Join(dir, "x.zip"))
	if strings.Contains(text, "hunter2") || strings.Count(text, redact.Hidden) < 3 || !strings.Contains(text, "10.77.1.2") || !strings.Contains(text, "sysctl: not installed") {
		t.Errorf("%s", text)
	}
	info, err := os.Stat(filepath.Join(dir, "x.zip"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if names := list(t, dir); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

// TestRedactedBundle: neither the bundle nor what is shown holds a name or address; the map does.
func TestRedactedBundle(t *testing.T) {
	c := secretive(t)
	f, dir, code := saving(t, c, "--redact")
	if code != exitCause || f.stderr.Len() > 0 {
		t.Fatalf("exit %d: %s", code, f.stderr.String())
	}
	name := filepath.Join(dir, "x.zip")
	for where, text := range map[string]string{"bundle": unzipped(t, name), "stdout": f.stdout.String()} {
		for _, s := range []string{"10.77.1.2", "10.77.2.2", "db01", "web7", "corp", "acme", "bob", "hunter2", "private"} {
			if strings.Contains(strings.ReplaceAll(text, "private key", ""), s) {
				t.Errorf("%s is in the %s", s, where)
			}
		}
	}
	var m redact.Map
	data, err := os.ReadFile(name + ".map")
	if err != nil || json.Unmarshal(data, &m) != nil || m.Addresses["10.77.2.2"] == "" || m.Hosts["web7"] == "" || m.Users["bob"] == "" {
		t.Errorf("%v: %s", err, data)
	}
	if info, err := os.Stat(name + ".map"); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	back, err := (&app{}).openCase(name)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := verdict.Judge(&back.Case), verdict.Judge(&c); got.Cause != want.Cause || got.Certainty != want.Certainty {
		t.Errorf("judged as %s %s, was %s %s", got.Cause, got.Certainty, want.Cause, want.Certainty)
	}
}

// TestRedactWithoutBundle: --redact alone is about what is shown.
func TestRedactWithoutBundle(t *testing.T) {
	f := newFake(secretive(t), verdict.Verdict{}, nil)
	f.judge = verdict.Judge
	if code := f.run(t.Context(), []string{"--redact", "--json", "10.77.2.2:80"}); code != exitCause || strings.Contains(f.stdout.String(), "10.77.2.2") {
		t.Errorf("exit %d: %s", code, f.stdout.String())
	}
}

// TestUnsavedBundle: the verdict is told all the same, and the exit code says that something is missing.
func TestUnsavedBundle(t *testing.T) {
	c := secretive(t)
	c.Unseen = append(c.Unseen, strings.Repeat("x", 9<<20))
	f, dir, code := saving(t, c)
	if code != exitNoTrace || !strings.Contains(f.stderr.String(), "pathtrace: no bundle: cases of more than 8 MiB") || f.stdout.Len() == 0 {
		t.Errorf("exit %d: %s", code, f.stderr.String())
	}
	if names := list(t, dir); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

// TestLargeBundle: a case that is too large is saved all the same, and what it leaves out is said.
func TestLargeBundle(t *testing.T) {
	c := secretive(t)
	whole := verdict.Judge(&c)
	first := c.Events[0]
	c.Events = append(slices.Repeat([]evidence.Event{first}, 20000), c.Events...)
	for _, args := range [][]string{nil, {"--redact"}} {
		f, dir, code := saving(t, c, args...)
		if code != exitCause || !strings.HasPrefix(f.stderr.String(), "pathtrace: left out of the bundle, which would be too large: of 10.77.2.2: 199") || strings.Count(f.stderr.String(), "\n") != 1 {
			t.Errorf("%v: exit %d: %.300s", args, code, f.stderr.String())
		}
		back, err := (&app{}).openCase(filepath.Join(dir, "x.zip"))
		if err != nil {
			t.Fatal(err)
		}
		if got := verdict.Judge(&back.Case); got.Cause != whole.Cause || got.Certainty != whole.Certainty {
			t.Errorf("%v: judged as %s %s", args, got.Cause, got.Certainty)
		}
	}
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	name, victim := filepath.Join(dir, "x.zip"), filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, name); err != nil {
		t.Fatal(err)
	}
	write := func(w io.Writer) error { _, err := w.Write([]byte("new")); return err }
	o := owner{-1, -1}
	if os.Geteuid() == 0 {
		o = owner{1234, 2345}
	}
	if err := writeFile(name, o, write); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(victim); string(data) != "mine" {
		t.Errorf("a link was followed: %s", data)
	}
	info, err := os.Lstat(name)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	if s := info.Sys().(*syscall.Stat_t); o.uid >= 0 && (s.Uid != 1234 || s.Gid != 2345) {
		t.Errorf("it belongs to %d:%d", s.Uid, s.Gid)
	}
	if err := writeFile(name, owner{-1, -1}, func(io.Writer) error { return errors.New("full") }); err == nil || err.Error() != "full" {
		t.Errorf("%v", err)
	}
	if data, _ := os.ReadFile(name); string(data) != "new" || len(list(t, dir)) != 2 {
		t.Errorf("after a failure: %s, %v", data, list(t, dir))
	}
}

func TestRunTool(t *testing.T) {
	for _, c := range []struct {
		args      []string
		most      int
		out, want string
	}{
		{[]string{"echo", "hello"}, 100, "hello\n", ""},
		{[]string{"echo", "hello"}, 3, "hel", "echo: cut after 3 bytes"},
		{[]string{"pathtrace-no-such-tool"}, 100, "", "pathtrace-no-such-tool: not installed"},
		{[]string{"sh", "-c", "echo some; echo why >&2; exit 3"}, 100, "some\n", "sh: exit status 3: why"},
	} {
		out, err := runTool(t.Context(), nil, c.args, c.most)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if string(out) != c.out || got != c.want {
			t.Errorf("%v: %q, %q", c.args, out, got)
		}
	}
}

func TestSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		done := slowly(&b, "quick")
		time.Sleep(patience - 1)
		done()
		time.Sleep(time.Second)
		if b.Len() > 0 {
			t.Errorf("%q", b.String())
		}
		done = slowly(&b, "slow")
		time.Sleep(patience + 1)
		done()
		if b.String() != "pathtrace: slow …\n" {
			t.Errorf("%q", b.String())
		}
	})
}
