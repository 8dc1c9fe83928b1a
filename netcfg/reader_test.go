// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReader(t *testing.T) {
	const status = "Name:\tslapd\nUid:\t0\t0\t0\t105\nGid:\t110\t110\t110\t110\nGroups:\t110 4 \nCapEff:\t0000000000000000\n"
	file := filepath.Join(t.TempDir(), "hosts.deny")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for name, x := range map[string]struct {
		status   string
		uid, gid int
		mode     os.FileMode
		refused  bool
	}{
		"for all":               {status, 0, 0, 0o644, false},
		"for root":              {status, 0, 0, 0o600, true},
		"its own":               {status, 105, 0, 0o600, false},
		"its own, not for it":   {status, 105, 4, 0o044, true},
		"its group's":           {status, 0, 4, 0o640, false},
		"for all but its group": {status, 0, 110, 0o604, true},
		"a capability":          {status + "CapEff:\t0000000000000004\n", 0, 0, 0o600, false},
		"nothing known":         {"", 0, 0, 0o600, false},
	} {
		if err := os.Chown(file, x.uid, x.gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, x.mode); err != nil {
			t.Fatal(err)
		}
		if got := parseReader(x.status).refused(file); got != x.refused {
			t.Errorf("%s: refused %t", name, got)
		}
	}
	if NewReader(os.Getpid()).refused(file) || NewReader(1<<30).refused(file) {
		t.Error("root, or a process that is gone, is refused")
	}
	if NewReader(os.Getpid()).refused(file + ".none") {
		t.Error("a file that is not there is refused")
	}
}
