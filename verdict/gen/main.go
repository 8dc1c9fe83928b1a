// SPDX-License-Identifier: Apache-2.0

// Command gen writes docs/causes.md from the registry of causes.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/pathtrace/pathtrace/verdict"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gen FILE")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "writing the causes:", err)
		os.Exit(1)
	}
}

func write(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(verdict.CausesMarkdown()), 0o644)
}
