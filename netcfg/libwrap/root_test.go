// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestRoot(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"etc/alternatives", "etc/dir"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/alternatives/deny"), []byte(all), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"etc/hosts.deny": "/etc/alternatives/deny", "etc/relative": "../etc/hosts.deny", "etc/above": "../../../../etc/hosts.deny", "etc/loop": "loop",
		"etc/dangling": "/none", "e": "etc",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "etc/pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	open := Root(dir)
	for _, name := range []string{"/etc/hosts.deny", "/etc/relative", "/etc/above", "/e/hosts.deny", "//etc/./dir/../hosts.deny", "/../etc/hosts.deny"} {
		if data, err := open(name); string(data) != all || err != nil {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	for name, want := range map[string]error{
		"/etc/none": fs.ErrNotExist, "/etc/dangling": fs.ErrNotExist, "/etc/loop": syscall.ELOOP, "/etc/dir": syscall.EISDIR, "/": syscall.EISDIR,
	} {
		if _, err := open(name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if _, err := open("/etc/pipe"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("pipe: %v", err)
	}
	if _, err := Root(filepath.Join(dir, "none"))("/etc/hosts.deny"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a root that is missing: %v", err)
	}
	tables := ReadTables(open)
	if string(tables.Deny.Data) != all || tables.Deny.Err != nil || !errors.Is(tables.Allow.Err, fs.ErrNotExist) {
		t.Errorf("%+v", tables)
	}
	if _, err := Root("")("/proc/self/stat"); err != nil {
		t.Error(err)
	}
}
