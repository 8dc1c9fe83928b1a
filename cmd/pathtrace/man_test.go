// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra/doc"
)

// manual is what the first page says before the flags.
const manual = `Sends one real connection and watches, inside the kernel, where its packets die and why. It names the rule, route, setting,
listener or queue that decided, with the proof, the smallest fix and its undo. Where a cause is not proven it says "unexplained".

The exit code is 0 when the service was reached and, where something was to be heard, answered; 1 when it was not and the cause is found;
2 for wrong usage or a name that does not resolve; 3 when it was not reached and the cause is not established; 4 when pathtrace could
not trace, for want of a privilege or a kernel that lets it; 130 when it was interrupted.`

var updateMan = flag.Bool("update-man", false, "write docs/man again")

// TestManPages holds docs/man against the commands and flags that there are.
func TestManPages(t *testing.T) {
	const dir = "../../docs/man"
	root := newApp(os.Stdin, &bytes.Buffer{}, &bytes.Buffer{}).root()
	root.Long = manual
	root.CompletionOptions.DisableDefaultCmd = true // it explains itself
	made := t.TempDir()
	fixed := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC) // a page is as old as its text
	header := &doc.GenManHeader{Title: "PATHTRACE", Section: "8", Source: "pathtrace", Manual: "System Administration", Date: &fixed}
	if err := doc.GenManTree(root, header, made); err != nil {
		t.Fatal(err)
	}
	if *updateMan {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(dir, os.DirFS(made)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(pages(t, dir), pages(t, made)); diff != "" {
		t.Errorf("docs/man is not what the commands say (-committed +made); go test ./cmd/pathtrace -run TestManPages -update-man writes it:\n%s", diff)
	}
}

func pages(t *testing.T, dir string) map[string]string {
	t.Helper()
	names, err := filepath.Glob(dir + "/*.8")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(name)] = string(b)
	}
	return all
}
