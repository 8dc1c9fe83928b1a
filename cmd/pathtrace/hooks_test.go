// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/pathtrace/pathtrace/tracer"
)

// A family of hooks that is asked for is the one that is used, or the reason why not is said in one line.
func TestHooksAskedFor(t *testing.T) {
	path := ownNetns(t)
	found := tracer.Survey()
	for _, family := range []string{tracer.Fentry, tracer.Kprobe, tracer.Tracepoint, tracer.Auto} {
		t.Run(family, func(t *testing.T) {
			want := family
			if family == tracer.Auto {
				want = tracer.Best(found)
			}
			works := slices.ContainsFunc(found, func(a tracer.Ability) bool { return a.Works && a.Name == want+" hooks" })
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), []string{"--json", "--netns", path, "--hooks", family, "127.0.0.1:9"}, strings.NewReader(""), &stdout, &stderr)
			var d struct {
				Host  struct{ Hooks string }
				Error *struct{ Code, Message string }
			}
			if err := json.Unmarshal(stdout.Bytes(), &d); err != nil {
				t.Fatal(err)
			}
			if !works {
				if code != exitNoTrace || d.Error == nil || d.Error.Code != "hooks" || strings.Count(stderr.String(), "\n") != 1 || !strings.Contains(stderr.String(), "--hooks "+family) {
					t.Errorf("exit %d, error %+v, stderr:\n%s", code, d.Error, stderr.String())
				}
				return
			}
			if code != exitCause || d.Host.Hooks != want {
				t.Errorf("exit %d with hooks %q, want %q; stderr:\n%s", code, d.Host.Hooks, want, stderr.String())
			}
		})
	}
}
