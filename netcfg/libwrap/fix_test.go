// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestAllowLine(t *testing.T) {
	for _, c := range []struct{ daemon, client, want string }{
		{"vsftpd", "10.0.0.5", "vsftpd : 10.0.0.5"},
		{"sshd", "2001:db8::1", "sshd : [2001:db8::1]"},
		{"sshd", "::ffff:10.0.0.5", "sshd : 10.0.0.5"},
		{"sshd", "fe80::1%eth0", "sshd : [fe80::1]"},
		{"in.tftpd", "::", "in.tftpd : [::]"},
		{"2222", "10.0.0.5", "?222 : 10.0.0.5"},
		{"all", "10.0.0.5", "?ll : 10.0.0.5"},
		{"a b:c,d@'[x]", "10.0.0.5", "a?b?c?d???x? : 10.0.0.5"},
		{".x.", "10.0.0.5", "?x? : 10.0.0.5"},
		{"#x", "10.0.0.5", "?x : 10.0.0.5"},
	} {
		r := Request{Daemon: c.daemon, Client: netip.MustParseAddr(c.client)}
		if got := AllowLine(r); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.daemon, c.client, got, c.want)
		}
		if d := Evaluate(NewTables([]byte(AllowLine(r)+"\n"), []byte(all), nil), r); d.Verdict != Granted || d.Line != 1 {
			t.Errorf("%s %s: %+v", c.daemon, c.client, d)
		}
		r.Client = r.Client.Next()
		if d := Evaluate(NewTables([]byte(AllowLine(Request{Daemon: c.daemon, Client: r.Client.Prev()})+"\n"), []byte(all), nil), r); d.Verdict != Denied {
			t.Errorf("%s %s: the next client passes too: %+v", c.daemon, c.client, d)
		}
	}
	if s := AllowLine(Request{Daemon: "sshd"}) + AllowLine(Request{Daemon: "\x00", Client: netip.MustParseAddr("::1")}) + AllowLine(Request{Client: netip.MustParseAddr("::1")}); s != "" {
		t.Errorf("without client or daemon: %q", s)
	}
}

// TestAllowLineWithLibwrap puts the line before generated files, and the real libwrap lets the client pass.
func TestAllowLineWithLibwrap(t *testing.T) {
	exe := buildOracle(t)
	g := newGen(7)
	var worlds []world
	for range 1000 {
		w := g.world()
		w.asked = w.asked[:1]
		w.asked[0].Daemon = g.one("2222", "a b:c,d@'[x]", ".x.", "#x", w.asked[0].Daemon)
		if !w.asked[0].NoServer {
			w.files["allow"] = []byte("# mark\n" + AllowLine(w.asked[0]) + "\n" + string(w.files["allow"]))
			worlds = append(worlds, w)
		}
	}
	for i, answers := range ask(t, exe, worlds) {
		if a := answers[0]; a.verdict != Granted || a.line != 2 || len(a.complaints) > 0 {
			t.Errorf("%+v: %+v\n%s", worlds[i].asked[0], a, worlds[i].files["allow"])
		}
	}
}

func shell(t *testing.T, commands []string) {
	t.Helper()
	for _, c := range commands {
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
	}
}

// TestAllowChange runs the commands and their undo: the client passes, and
// then the file is what it was, to the byte; it stays the same file.
func TestAllowChange(t *testing.T) {
	r := Request{Daemon: "sshd", Client: netip.MustParseAddr("2001:db8::1")}
	for name, before := range map[string]*string{
		"missing": nil, "empty": word(""), "plain": word("ALL : 10.0.0.5\n"), "no newline": word("ALL : 10.0.0.5"),
		"denies": word("ALL:ALL:deny\n"), "binary": word("\x00\xff\xfe\n\n\r\n\x80 x\\"), "like ours": word("# pathtrace-1a2c\nsshd : [2001:db8::1]\n"),
		"blank": word("\n"), "long": word(strings.Repeat("x", 100000)),
	} {
		dir := filepath.Join(t.TempDir(), "it's here")
		path := filepath.Join(dir, "hosts.allow")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if before != nil {
			if err := os.WriteFile(path, []byte(*before), 0o640); err != nil {
				t.Fatal(err)
			}
		}
		old, _ := os.Stat(path)
		change, ok := AllowChange(path, before == nil, "pathtrace-1a2b", r)
		if !ok {
			t.Fatal("no change")
		}
		shell(t, change.Commands)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := Evaluate(NewTables(data, []byte(all), nil), r); d.Verdict != Granted || d.Line != 2 || d.Text != change.Rule {
			t.Errorf("%s: %+v", name, d)
		}
		shell(t, change.Undo)
		data, err = os.ReadFile(path)
		now, _ := os.Stat(path)
		switch {
		case before == nil && !errors.Is(err, fs.ErrNotExist):
			t.Errorf("%s: it exists: %q %v", name, data, err)
		case before != nil && (!bytes.Equal(data, []byte(*before)) || !os.SameFile(old, now) || now.Mode() != old.Mode()):
			t.Errorf("%s: %q, was %q; %v", name, data, *before, now.Mode())
		}
	}
}

// TestUndoOnlyOurs: what others have written since stays.
func TestUndoOnlyOurs(t *testing.T) {
	r := Request{Daemon: "sshd", Client: netip.MustParseAddr("10.0.0.5")}
	path := filepath.Join(t.TempDir(), "hosts.allow")
	change, _ := AllowChange(path, true, "pathtrace-1a2b", r)
	shell(t, change.Commands)
	data, _ := os.ReadFile(path)
	theirs := "# theirs\n" + string(data) + "ALL : 10.0.0.6\n# pathtrace-1a2b\nALL : 10.0.0.7\n# pathtrace-1a2b"
	if err := os.WriteFile(path, []byte(theirs), 0o600); err != nil {
		t.Fatal(err)
	}
	shell(t, change.Undo)
	want := strings.Replace(theirs, string(data), "", 1)
	if got, _ := os.ReadFile(path); string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
	if err := exec.Command("sh", "-c", change.Commands[0]).Run(); err == nil {
		t.Error("a file that has appeared since is overwritten")
	}
}

func TestNoChange(t *testing.T) {
	r := Request{Daemon: "sshd", Client: netip.MustParseAddr("10.0.0.5")}
	for _, mark := range []string{"", "a b", "a'b", "x/y", "a\nb"} {
		if c, ok := AllowChange(AllowPath, false, mark, r); ok {
			t.Errorf("%q: %+v", mark, c)
		}
	}
	if c, ok := AllowChange(AllowPath, false, "pathtrace-1", Request{}); ok {
		t.Errorf("%+v", c)
	}
}

func word(s string) *string { return &s }
