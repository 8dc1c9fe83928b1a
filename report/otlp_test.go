// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

func otlpOf(t testing.TB, s *story) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := OTLP(&b, []Document{NewDocument(s.c, s.v)}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// collected reads a request as the OpenTelemetry collector does.
func collected(t testing.TB, data []byte) ptrace.Traces {
	t.Helper()
	r := ptraceotlp.NewExportRequest()
	if err := r.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return r.Traces()
}

func spansOf(t testing.TB, data []byte) ptrace.SpanSlice {
	t.Helper()
	tr := collected(t, data)
	if tr.ResourceSpans().Len() != 1 || tr.ResourceSpans().At(0).ScopeSpans().Len() != 1 {
		t.Fatalf("%s", data)
	}
	return tr.ResourceSpans().At(0).ScopeSpans().At(0).Spans()
}

// TestOTLP: the collector's own parser takes the trace of every case, and loses
// nothing of it: every event is in one span, below the root, within its time.
func TestOTLP(t *testing.T) {
	for name, s := range told(t) {
		list := spansOf(t, otlpOf(t, s))
		root := list.At(0)
		if !root.ParentSpanID().IsEmpty() || root.Kind() != ptrace.SpanKindClient || root.TraceID().IsEmpty() {
			t.Errorf("%s: the root is %v %v", name, root.ParentSpanID(), root.Kind())
		}
		wrong := root.Status().Code() == ptrace.StatusCodeError
		if wrong != (s.v.Cause != "reachable") || wrong && root.Status().Message() != Clean(s.v.Summary) {
			t.Errorf("%s: status %v %q", name, root.Status().Code(), root.Status().Message())
		}
		if got, _ := root.Attributes().Get("pathtrace.cause"); got.Str() != s.v.Cause {
			t.Errorf("%s: cause %q", name, got.Str())
		}
		if s.c.Probe.Started.Year() > 1970 && root.EndTimestamp()-root.StartTimestamp() < pcommon.Timestamp(s.c.Probe.DurationNS) {
			t.Errorf("%s: the root is shorter than the probe", name)
		}
		want := 0
		for i := range s.c.Events {
			if e := &s.c.Events[i]; e.Rule == nil || !ours(e.Rule.Table) {
				want++
			}
		}
		got := 0
		seen := map[pcommon.SpanID]bool{}
		for i := range list.Len() {
			x := list.At(i)
			if seen[x.SpanID()] || x.SpanID().IsEmpty() || x.TraceID() != root.TraceID() || i > 0 && x.ParentSpanID() != root.SpanID() || x.Name() == "" {
				t.Errorf("%s: span %d: %v of %v below %v, called %q", name, i, x.SpanID(), x.TraceID(), x.ParentSpanID(), x.Name())
			}
			seen[x.SpanID()] = true
			if x.StartTimestamp() < root.StartTimestamp() || x.EndTimestamp() > root.EndTimestamp() || x.EndTimestamp() < x.StartTimestamp() {
				t.Errorf("%s: span %d is not within the root", name, i)
			}
			for j := range x.Events().Len() {
				if at := x.Events().At(j).Timestamp(); at < x.StartTimestamp() || at > x.EndTimestamp() {
					t.Errorf("%s: span %d: event %d is not within it", name, i, j)
				}
				got++
			}
		}
		if got != want {
			t.Errorf("%s: %d events, want %d", name, got, want)
		}
	}
}

// TestOTLPPlace: the span of the hook where the packet died says so, with rule and reason, to the nanosecond.
func TestOTLPPlace(t *testing.T) {
	s := told(t)["firewall-drop"]
	list := spansOf(t, otlpOf(t, s))
	var died []string
	for i := range list.Len() {
		if x := list.At(i); i > 0 && x.Status().Code() == ptrace.StatusCodeError {
			died = append(died, x.Name()+" | "+x.Status().Message())
			var text []string
			for j := range x.Events().Len() {
				e := x.Events().At(j)
				if r, ok := e.Attributes().Get("pathtrace.reason"); ok {
					text = append(text, e.Name()+" "+r.Str())
					if at := e.Timestamp().AsTime(); !at.Equal(s.c.Probe.Started.Add(dropAt(&s.c))) {
						t.Errorf("the drop is at %v", at)
					}
				}
			}
			if d := cmp.Diff([]string{"drop NETFILTER_DROP"}, text); d != "" {
				t.Error(d)
			}
		}
	}
	if len(died) != 1 || !strings.Contains(died[0], s.v.Where.Netns+" "+s.v.Where.Hook+" SYN | SYN: ") {
		t.Errorf("died: %q", died)
	}
}

func dropAt(c *evidence.Case) time.Duration {
	for i := range c.Events {
		if c.Events[i].Kind == evidence.Drop {
			return time.Duration(c.Events[i].At)
		}
	}
	return -1
}

// TestOTLPAgain: the same case is the same trace, to the byte; another case is another.
func TestOTLPAgain(t *testing.T) {
	s := told(t)["firewall-drop"]
	first := otlpOf(t, s)
	if !bytes.Equal(first, otlpOf(t, s)) {
		t.Error("sent twice it is not the same")
	}
	id := spansOf(t, first).At(0).TraceID()
	other := *s
	other.c.ID = "00000001"
	if spansOf(t, otlpOf(t, &other)).At(0).TraceID() == id {
		t.Error("another case has the same trace")
	}
	var b bytes.Buffer
	if err := OTLP(&b, []Document{NewDocument(s.c, s.v), NewDocument(other.c, other.v)}); err != nil {
		t.Fatal(err)
	}
	if n := collected(t, b.Bytes()).ResourceSpans().Len(); n != 2 {
		t.Errorf("%d probes of two", n)
	}
}

// TestOTLPHostile: times and numbers that no kernel gives.
func TestOTLPHostile(t *testing.T) {
	for name, c := range map[string]evidence.Case{
		"empty":   {},
		"past":    {Probe: evidence.Probe{Started: time.Unix(-1<<40, 0), DurationNS: -1 << 63}, Events: []evidence.Event{{At: -1 << 63}}},
		"future":  {Probe: evidence.Probe{Started: time.Unix(1<<40, 0), DurationNS: 1<<63 - 1}, Events: []evidence.Event{{At: 1<<63 - 1}, {At: -5}}},
		"present": {Probe: evidence.Probe{Started: time.Unix(1700000000, 0), DurationNS: 1<<63 - 1}, Events: []evidence.Event{{At: 1<<63 - 1}, {At: -1 << 63}, {Rule: &evidence.RuleStep{Handle: 1<<64 - 1}}}},
	} {
		list := spansOf(t, otlpOf(t, &story{c: c, v: verdict.Verdict{Cause: "unexplained"}}))
		for i := range list.Len() {
			if x := list.At(i); x.EndTimestamp() < x.StartTimestamp() {
				t.Errorf("%s: span %d ends before it begins", name, i)
			}
		}
	}
}
