// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"maps"
	"os"
	"runtime"
	"slices"
	"testing"
)

// What a trace costs on every machine of this kernel family, as ceilings: what
// goes beyond them is to be found out before it is allowed. Instructions are
// those that the verifier went over, from which most of the time to attach comes;
// kernels of other families take other paths through the same program.
const (
	maxPrograms     = 20
	maxInstructions = 8_000   // of any program
	maxVerified     = 40_000  // of all programs
	maxOpenAllocs   = 125_000 // of Open

	maxOpenAllocsVM = 220_000 // on a distribution's kernel, whose structures lead to more types
)

func TestCostOfOpen(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	tr, err := Open(Options{Hooks: Tracepoint, NetnsName: func(uint32) string { return "" }, Take: func(Record) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	runtime.ReadMemStats(&after)
	limit := uint64(maxOpenAllocs)
	if os.Getenv("VM_KERNEL") != "" {
		limit = maxOpenAllocsVM
	}
	if n := after.Mallocs - before.Mallocs; n > limit {
		t.Errorf("%d allocations to open, the ceiling is %d", n, limit)
	} else {
		t.Logf("%d allocations to open", n)
	}
	if n := len(tr.coll.Programs); n > maxPrograms {
		t.Errorf("%d programs are loaded, the ceiling is %d", n, maxPrograms)
	}
	sum := 0
	for _, name := range slices.Sorted(maps.Keys(tr.coll.Programs)) {
		info, err := tr.coll.Programs[name].Info()
		if err != nil {
			t.Fatal(err)
		}
		n, told := info.VerifiedInstructions()
		if !told {
			t.Skipf("this kernel does not tell how many instructions it verified (since Linux 5.16)")
		}
		if sum += int(n); n > maxInstructions {
			t.Errorf("%s: %d instructions were verified, the ceiling is %d", name, n, maxInstructions)
		}
		t.Logf("%s: %d", name, n)
	}
	if sum > maxVerified {
		t.Errorf("%d instructions were verified, the ceiling is %d", sum, maxVerified)
	}
	t.Logf("%d programs, %d instructions", len(tr.coll.Programs), sum)
}
