// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime/debug"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// Set by the linker in packages: -X main.version=1.2.3 -X main.commit=abcdef0.
var version, commit string

// thisTool names this program: by the linker, else by what `go build` and
// `go install` noted.
func thisTool() evidence.Tool {
	t := evidence.Tool{Version: version, Commit: commit}
	if info, ok := debug.ReadBuildInfo(); ok {
		if t.Version == "" {
			t.Version = strings.TrimPrefix(info.Main.Version, "v")
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && t.Commit == "" {
				t.Commit = s.Value
			}
		}
	}
	if t.Version == "" || t.Version == "(devel)" {
		t.Version = "devel"
	}
	return t
}

func versionLine(t evidence.Tool) string {
	s := "pathtrace " + t.Version
	if t.Commit != "" {
		s += " (commit " + t.Commit[:min(12, len(t.Commit))] + ")"
	}
	return s + "\n"
}
