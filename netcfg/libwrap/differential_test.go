// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	seed  = flag.Uint64("seed", 1, "of the generated cases; 0: a new one")
	cases = flag.Int("cases", 20000, "how many pairs of rule files to generate")
)

// TestAgreesWithLibwrap compares generated cases with the real libwrap: the
// verdict, the line it logs, and its complaints to the letter.
func TestAgreesWithLibwrap(t *testing.T) {
	exe := buildOracle(t)
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("go test -run %s -seed %d -cases %d", t.Name(), *seed, *cases)
	g := newGen(*seed)
	count, open := map[string]int{}, 0
	for left := *cases; left > 0; left -= 2000 {
		var worlds []world
		for range min(left, 2000) {
			worlds = append(worlds, g.world())
		}
		for i, answers := range ask(t, exe, worlds) {
			for j, r := range worlds[i].asked {
				d := Evaluate(worlds[i].tables(), r)
				if s := differs(d, answers[2*j:2*j+2]); s != "" {
					t.Fatalf("%s\nrequest %+v\nallow %q\ndeny %q\n/hosts %q\n/more %q\nours %+v\nlibwrap %+v", s, r, worlds[i].files["allow"],
						worlds[i].files["deny"], worlds[i].files["/hosts"], worlds[i].files["/more"], d, answers[2*j:2*j+2])
				}
				if less := g.forget(r); d.Verdict != Unknown {
					d := Evaluate(worlds[i].tables(), less)
					if d.Verdict != Unknown && d.Verdict != answers[2*j].verdict {
						t.Fatalf("%+v\nis decided from %+v,\nlibwrap %+v\nallow %q\ndeny %q", d, less, answers[2*j], worlds[i].files["allow"], worlds[i].files["deny"])
					}
				}
				count[string(d.Verdict)]++
				if d.Verdict != Unknown && len(d.Reasons) > 0 {
					open++
				}
			}
		}
	}
	total := 3 * *cases
	t.Logf("%d requests: %v, %d of them with a line that is not certain", total, count, open)
	for v, least := range map[Verdict]int{Granted: 20, Denied: 20} {
		if count[string(v)]*100 < least*total {
			t.Errorf("only %d of %d are %s: the cases are not worth much", count[string(v)], total, v)
		}
	}
	if count[string(Unknown)]*100 > 10*total {
		t.Errorf("%d of %d are unknown", count[string(Unknown)], total)
	}
}

// differs says what is wrong with a decision; the two answers are those for
// hosts in no netgroup and in every one.
func differs(d Decision, answers []answer) string {
	if d.Verdict == Unknown {
		if len(d.Reasons) == 0 {
			return "unknown without a reason"
		}
		return ""
	}
	for _, a := range answers {
		if a.verdict != d.Verdict {
			return "verdict"
		}
		if len(d.Reasons) > 0 {
			continue
		}
		file, line := d.File, d.Line
		if file == "" || strings.HasPrefix(d.Fault, "missing newline") || strings.HasPrefix(d.Fault, "cannot open") {
			file, line = "-", 0
		}
		if a.file != file || a.line != line {
			return fmt.Sprintf("line %s %d", file, line)
		}
		var ours []string
		for _, w := range d.Warnings {
			ours = append(ours, w.String())
		}
		theirs := slices.DeleteFunc(slices.Clone(a.complaints), func(s string) bool {
			// What we may not read the server perhaps may: that is a doubt, not a complaint. Banners decide nothing.
			return strings.HasSuffix(s, "open /shut: Permission denied") || strings.HasSuffix(s, ": No such file or directory")
		})
		if !slices.Equal(ours, theirs) {
			return "complaints"
		}
	}
	return ""
}
