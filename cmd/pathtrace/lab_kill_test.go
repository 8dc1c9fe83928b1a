// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/internal/lab"
)

// TestKilledTracesLeaveNothing kills 50 traces at random moments: each leaves the
// configuration of the lab, and the host's logging of packets, as it was.
func TestKilledTracesLeaveNothing(t *testing.T) {
	needRoot(t)
	bin := build(t)
	const kills = 50
	names := []string{"nft-input", "legacy-input", "legacy-chains-v6", "iptables-nft-input"}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for n, name := range names {
		f, ok := lab.Find(name)
		if !ok {
			t.Fatalf("no fault %s", name)
		}
		l := startLab(t, f, 1000+n)
		before := snapshot(t, l) + hostLogging(t)
		start := time.Now()
		if a := trace(t, bin, l, f); a.Verdict.Cause != f.Cause {
			t.Fatalf("%s: the verdict is %s before any kill", name, a.Verdict.Cause) // else nothing would be shown by killing it
		}
		whole := time.Since(start)
		argv := append([]string{bin}, arguments(l, f)...)
		for range (kills + len(names) - 1 - n) / len(names) {
			after := time.Duration(random.Int64N(int64(whole)))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			err := lab.KillAfter(ctx, after, argv...)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, snapshot(t, l)+hostLogging(t)); diff != "" {
				t.Fatalf("%s: killed after %v of %v, it leaves (-before +after):\n%s", name, after, whole, diff)
			}
		}
	}
}

// hostLogging returns the settings of the host that a rule trace may have to change.
func hostLogging(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("/proc/sys/net/netfilter/nf_log*")
	if err != nil {
		t.Fatal(err)
	}
	below, err := filepath.Glob("/proc/sys/net/netfilter/nf_log/*")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, path := range append(files, below...) {
		if value, err := os.ReadFile(path); err == nil { // the directory itself cannot be read
			fmt.Fprintf(&b, "host %s = %s", path, value)
		}
	}
	return b.String()
}
