// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// several is about a name with three addresses, of which the first is dropped.
func several(t testing.TB) Saved {
	all := recorded(t)
	s := Saved{Case: all["firewall-drop"], Others: []evidence.Case{all["reachable"], all["no-listener-v6"]}}
	s.Others[0].Target.Address = "10.77.2.3"
	return s
}

// TestSeveralAddresses: a bundle of a name with several addresses tells what came of each.
func TestSeveralAddresses(t *testing.T) {
	s := several(t)
	tool := evidence.Tool{Version: "9", Commit: "1"}
	d := s.Document(verdict.Judge, tool)
	got, err := read(write(t, Bundle{Document: d, Others: s.Others}))
	if err != nil {
		t.Fatal(err)
	}
	back := got.Document(verdict.Judge, tool)
	if x := cmp.Diff(d, back); x != "" {
		t.Errorf("(-want +got):\n%s", x)
	}
	var md, otlp bytes.Buffer
	if err := Markdown(&md, &back); err != nil {
		t.Fatal(err)
	}
	if err := OTLP(&otlp, []Document{back}); err != nil {
		t.Fatal(err)
	}
	if want := "- Other addresses: `10.77.2.3:80/tcp` `reachable`; `[fd77:2::2]:80/tcp` `no-listener`\n"; !strings.Contains(md.String(), want) {
		t.Errorf("no %q in\n%s", want, md.String())
	}
	page := htmlOf(t, &back)
	table, _, _ := strings.Cut(page[max(0, strings.Index(page, `<table class="results">`)):], "</table>")
	if strings.Count(table, "<tr") != 3 || strings.Count(table, `class="died"`) != 2 || !strings.Contains(table, `<tr class="fine"><td>✓</td><td><code>10.77.2.3:80/tcp</code>`) {
		t.Error(table)
	}
}

// TestJudgedAnew: what another judge said is told where it is something else, and only there.
func TestJudgedAnew(t *testing.T) {
	for name, c := range recorded(t) {
		first := NewDocument(c, verdict.Judge(&c))
		saved, err := read(write(t, Bundle{Document: first}))
		if err != nil {
			t.Fatal(err)
		}
		if d := saved.Document(verdict.Judge, evidence.Tool{}); d.Recorded != nil || d.JudgedBy != nil {
			t.Errorf("%s: judged by the same it is said to be another", name)
		}
	}
	c := recorded(t)["firewall-drop"]
	old := NewDocument(c, verdict.Judge(&c))
	for what, change := range map[string]func(*verdict.Verdict){
		"cause":     func(v *verdict.Verdict) { v.Cause = "unexplained" },
		"certainty": func(v *verdict.Verdict) { v.Certainty = verdict.Inferred },
		"place":     func(v *verdict.Verdict) { r := *v.Where.Rule; r.Number = 9; v.Where.Rule = &r },
	} {
		was := old
		change(&was.Verdict)
		saved, err := read(write(t, Bundle{Document: was}))
		if err != nil {
			t.Fatal(err)
		}
		d := saved.Document(verdict.Judge, evidence.Tool{Version: "9"})
		if d.Recorded == nil || d.JudgedBy.Version != "9" || d.Verdict.Cause != "firewall-drop" {
			t.Errorf("%s: %+v %+v", what, d.Recorded, d.JudgedBy)
		}
	}
	same := old
	same.Verdict.Summary = "in other words"
	saved, err := read(write(t, Bundle{Document: same}))
	if err != nil {
		t.Fatal(err)
	}
	if d := saved.Document(verdict.Judge, evidence.Tool{}); d.Recorded != nil {
		t.Error("other words are taken for another verdict")
	}
}

// TestHops: silence of many hops is one line, names and answers are told.
func TestHops(t *testing.T) {
	kind, code := 3, 13
	w := evidence.Walk{Protocol: "tcp", Dest: "203.0.113.5", Hops: []evidence.Hop{
		{TTL: 1, Address: "198.19.0.2", Name: "r1.example", Answer: evidence.TimeExceeded, RTTNS: 210000},
		{TTL: 2}, {TTL: 3}, {TTL: 4},
		{TTL: 5, Address: "203.0.113.1", Answer: evidence.ICMPError, Type: &kind, Code: &code, RTTNS: 1400000},
		{TTL: 6},
	}}
	c := recorded(t)["remote-silent-walk"]
	c.Walks = []evidence.Walk{w}
	var b bytes.Buffer
	if err := Text(&b, &c, verdict.Judge(&c), Options{}); err != nil {
		t.Fatal(err)
	}
	want := `  hops   SYNs to 203.0.113.5 with a rising TTL:
         1    198.19.0.2 (r1.example)  router                                 0.21 ms
         2–4  silent
         5    203.0.113.1              ICMP 3/13 administratively prohibited  1.40 ms
         6    silent
`
	if !strings.Contains(b.String(), want) {
		t.Errorf("no\n%s in\n%s", want, b.String())
	}
	if strings.Contains(b.String(), "hint:") {
		t.Errorf("a hint about the way back, of which nothing is known:\n%s", b.String())
	}
	c.Walks[0].Hops = []evidence.Hop{
		{TTL: 1, Address: "198.19.0.2", Answer: evidence.TimeExceeded, ReplyTTL: 64},
		{TTL: 2, Address: "198.19.1.2", Answer: evidence.TimeExceeded, ReplyTTL: 251},
		{TTL: 3, Address: "203.0.113.5", Answer: evidence.SYNACK, ReplyTTL: 59},
	}
	b.Reset()
	if err := Text(&b, &c, verdict.Judge(&c), Options{}); err != nil {
		t.Fatal(err)
	}
	hint := "hint: answers from TTL 2 on seem to come back by 3 more routers than there are on the way there, guessing that 198.19.1.2 sends with a TTL of 255"
	if !strings.Contains(strings.Join(strings.Fields(b.String()), " "), hint) {
		t.Errorf("no %q in\n%s", hint, b.String())
	}
}
