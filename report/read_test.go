// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// TestRoundTrip: what --json printed gives the same case, and the same text, again.
func TestRoundTrip(t *testing.T) {
	for name, tell := range stories {
		if name == "hostile" {
			continue // JSON cannot hold what is not UTF-8
		}
		s := tell()
		var b bytes.Buffer
		if err := JSON(&b, NewDocument(s.c, s.v)); err != nil {
			t.Fatal(err)
		}
		got, err := ReadCase(&b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := NewDocument(s.c, s.v)
		want.Verdict.Transient, want.Verdict.Copied = false, false // of the judge's own
		if d := cmp.Diff(Saved{Case: want.Case, Verdict: &want.Verdict}, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// TestReadResults: of several addresses each is a case, where the document holds them whole.
func TestReadResults(t *testing.T) {
	var all []Document
	var results []Result
	for _, name := range []string{"nft-drop", "reachable"} {
		s := stories[name]()
		all, results = append(all, NewDocument(s.c, s.v)), append(results, NewResult(s.c, s.v))
	}
	d := all[0]
	d.Results = results
	old := `{"format_version":"1.0","id":"a","results":[{"target":{"address":"10.0.0.5"}},{"target":{"address":"10.0.0.6"}}]}`
	for name, x := range map[string]struct {
		in   string
		want []evidence.Case
	}{
		"two":       {printed(t, d), []evidence.Case{all[0].Case, all[1].Case}},
		"one":       {printed(t, all[1]), []evidence.Case{all[1].Case}},
		"not whole": {old, []evidence.Case{{FormatVersion: "1.0", ID: "a", Host: evidence.Host{Missing: []string{}}, Events: []evidence.Event{}, Namespaces: []evidence.Namespace{}, Unseen: []string{}}}},
	} {
		s, err := ReadCase(strings.NewReader(x.in))
		got := append([]evidence.Case{s.Case}, s.Others...)
		if diff := cmp.Diff(x.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	if _, err := ReadCase(strings.NewReader(`{"format_version":"1.0","results":7}`)); err == nil {
		t.Error("results that are none are taken")
	}
}

func printed(t *testing.T, d Document) string {
	t.Helper()
	var b bytes.Buffer
	if err := JSON(&b, d); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReadCaseErrors(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "not a case: empty"},
		{" \n", "not a case: empty"},
		{"hello", "not a case: line 1 is not JSON"},
		{"{", "not a case: the JSON ends too early"},
		{"{\n\n\"format_version\": nope}", "not a case: line 3 is not JSON"},
		{"[]", "not a case: array where an object belongs"},
		{"7", "not a case: number where an object belongs"},
		{"null", "not a case: no format_version"},
		{"{}", "not a case: no format_version"},
		{`{"format_version":1}`, "not a case: format_version cannot be a number"},
		{`{"format_version":"2.0"}`, "format version 2.0 is not understood here: this pathtrace reads 1.x"},
		{`{"format_version":""}`, "format version  is not understood here"},
		{`{"format_version":"1.0","events":[{"at_ns":"soon"}]}`, "events.at_ns cannot be a string"},
		{`{"format_version":"1.0"} {}`, "not a case: line 1 is not JSON"},
		{`{"error":{"code":"no-btf","message":"this kernel has no BTF"}}`, "no case in it, only the error of a run that could not trace: this kernel has no BTF"},
		{`{"error":{"message":"\u001b[2J"}}`, `: \x1b[2J`},
		{strings.Repeat("[", 100_000), "not a case: "},
	} {
		_, err := ReadCase(strings.NewReader(c.in))
		switch {
		case err == nil:
			t.Errorf("%.60q: no error", c.in)
		case !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 300:
			t.Errorf("%.60q: %q, want %q", c.in, err, c.want)
		}
	}
}

func TestReadCaseTakesWhatIsNewer(t *testing.T) {
	c, err := ReadCase(strings.NewReader("\xef\xbb\xbf" + `{"format_version":"1.7","novelty":{"a":1},"events":null}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Events == nil || c.FormatVersion != "1.7" {
		t.Errorf("got %+v", c)
	}
}

// TestReadCaseIsBounded: a file without end is refused, not read.
func TestReadCaseIsBounded(t *testing.T) {
	if _, err := ReadCase(endless{}); err == nil || !strings.Contains(err.Error(), "larger than 64 MiB") {
		t.Errorf("got %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// FuzzReadCase: whatever is read can be printed, and neither panics.
func FuzzReadCase(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no goldens", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ReadCase(bytes.NewReader(data))
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("error %q", err)
			}
			return
		}
		printable(t, &c.Case)
	})
}

func printable(t *testing.T, c *evidence.Case) {
	v := verdict.Verdict{Cause: "unexplained", Certainty: verdict.None}
	for _, o := range []Options{{Color: true, Width: 80}, {Verbose: 2}} {
		if err := Text(io.Discard, c, v, o); err != nil {
			t.Error(err)
		}
	}
	if err := JSON(io.Discard, NewDocument(*c, v)); err != nil {
		t.Error(err)
	}
}
