// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
)

var update = flag.Bool("update", false, "write want.json of each case")

type namedCase struct {
	name string
	raw  []byte
}

// cause is the id that the folder's name begins with.
func (n namedCase) cause(t *testing.T, ids []string) string {
	t.Helper()
	best := ""
	for _, id := range ids {
		if (n.name == id || strings.HasPrefix(n.name, id+"-")) && len(id) > len(best) {
			best = id
		}
	}
	if best == "" {
		t.Fatalf("%s: no cause of the contract has this name", n.name)
	}
	return best
}

func (n namedCase) load(t testing.TB) *evidence.Case {
	t.Helper()
	c := new(evidence.Case)
	if err := json.Unmarshal(n.raw, c); err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	return c
}

func cases(t testing.TB) []namedCase {
	t.Helper()
	files, err := filepath.Glob("testdata/cases/*/case.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var list []namedCase
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, namedCase{filepath.Base(filepath.Dir(f)), raw})
	}
	return list
}

func lines(t testing.TB, file string) []string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(raw))
}

// golden is a verdict as want.json holds it: with what the JSON leaves out.
type golden struct {
	Verdict
	Transient bool `json:"transient"`
}

func TestCases(t *testing.T) {
	ids := lines(t, "testdata/ids.txt")
	for _, n := range cases(t) {
		t.Run(n.name, func(t *testing.T) {
			v := Judge(n.load(t))
			if want := n.cause(t, ids); v.Cause != want {
				t.Errorf("cause %s, want %s: %s\n%s", v.Cause, want, v.Summary, strings.Join(append(v.Proof, v.Unseen...), "\n"))
			}
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			if err := e.Encode(golden{v, v.Transient}); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata/cases", n.name, "want.json")
			if *update {
				if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, b.Bytes()) {
				t.Errorf("differs from %s (go test ./verdict -update, and read it):\n%s", file, b.Bytes())
			}
		})
	}
}

func TestJudgeLeavesTheCaseAlone(t *testing.T) {
	for _, n := range cases(t) {
		c := n.load(t)
		before, _ := json.Marshal(c)
		first := Judge(c)
		after, _ := json.Marshal(c)
		if !bytes.Equal(before, after) {
			t.Errorf("%s: Judge changed the case", n.name)
		}
		a, _ := json.Marshal(first)
		b, _ := json.Marshal(Judge(n.load(t)))
		if !bytes.Equal(a, b) {
			t.Errorf("%s: two verdicts about one case differ", n.name)
		}
	}
}

func TestIDs(t *testing.T) {
	frozen := lines(t, "testdata/ids.txt")
	seen := map[string]bool{}
	for _, c := range Causes {
		if seen[c.ID] {
			t.Errorf("%s is registered twice", c.ID)
		}
		seen[c.ID] = true
		if !slices.Contains(frozen, c.ID) {
			t.Errorf("%s is not an id of the contract", c.ID)
		}
		if c.Means == "" || c.Needs == "" || c.Find == nil {
			t.Errorf("%s is incomplete", c.ID)
		}
	}
	for _, id := range lines(t, "testdata/found.txt") {
		if !seen[id] && id != "unexplained" {
			t.Errorf("%s was found once and is no longer: ids never vanish", id)
		}
	}
	for _, n := range cases(t) {
		delete(seen, n.cause(t, frozen))
	}
	for id := range seen {
		t.Errorf("%s is reached by no case", id)
	}
}

func TestReasonsExist(t *testing.T) {
	var known []string // by package tracer, from the kernels themselves
	for _, kernel := range []string{"6.1", "6.12", "6.18"} {
		known = append(known, lines(t, "testdata/reasons-"+kernel+".txt")...)
	}
	for _, c := range Causes {
		for _, r := range c.Reasons {
			if !slices.Contains(known, r) {
				t.Errorf("%s: no kernel of ours has the drop reason %s", c.ID, r)
			}
		}
	}
}

func TestCausesDocument(t *testing.T) {
	got, err := os.ReadFile("../docs/causes.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != CausesMarkdown() {
		t.Error("docs/causes.md is stale: run go generate ./verdict")
	}
}
