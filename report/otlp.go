// SPDX-License-Identifier: Apache-2.0

package report

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// OTLP prints probes as an ExportTraceServiceRequest in OTLP's JSON encoding
// (OpenTelemetry protocol 1.x: identifiers in hexadecimal digits, 64-bit numbers
// as decimal strings, enumerations as numbers). Each probe is a trace: its root
// span is the probe, and each place that its packets passed (a netfilter hook, a
// device, a socket) is a span below it. Identifiers come from the case, so that
// the same case sent twice is one trace.
func OTLP(w io.Writer, probes []Document) error {
	var out otlpRequest
	for i := range probes {
		out.ResourceSpans = append(out.ResourceSpans, otlpProbe(&probes[i]))
	}
	list(&out.ResourceSpans)
	return encode(w, out)
}

// The part of opentelemetry/proto/trace/v1/trace.proto that a probe needs.
type (
	otlpRequest struct {
		ResourceSpans []otlpResourceSpans `json:"resourceSpans"`
	}
	otlpResourceSpans struct {
		Resource struct {
			Attributes attributes `json:"attributes"`
		} `json:"resource"`
		ScopeSpans []otlpScopeSpans `json:"scopeSpans"`
	}
	otlpScopeSpans struct {
		Scope struct {
			Name    string `json:"name"`
			Version string `json:"version,omitempty"`
		} `json:"scope"`
		Spans []otlpSpan `json:"spans"`
	}
	otlpSpan struct {
		TraceID    string      `json:"traceId"`
		SpanID     string      `json:"spanId"`
		Parent     string      `json:"parentSpanId,omitempty"`
		Name       string      `json:"name"`
		Kind       int         `json:"kind"`
		Start      uint64      `json:"startTimeUnixNano,string"`
		End        uint64      `json:"endTimeUnixNano,string"`
		Attributes attributes  `json:"attributes"`
		Events     []otlpEvent `json:"events,omitempty"`
		Status     *otlpStatus `json:"status,omitempty"` // nil: unset, which means that nothing failed
	}
	otlpEvent struct {
		Time       uint64     `json:"timeUnixNano,string"`
		Name       string     `json:"name"`
		Attributes attributes `json:"attributes,omitempty"`
	}
	otlpStatus struct {
		Message string `json:"message"`
		Code    int    `json:"code"`
	}
	otlpAttribute struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct {
		String *string    `json:"stringValue,omitempty"`
		Int    *string    `json:"intValue,omitempty"`
		Array  *otlpArray `json:"arrayValue,omitempty"`
	}
	otlpArray struct {
		Values []otlpValue `json:"values"`
	}
)

const (
	spanInternal = 1 // SPAN_KIND_INTERNAL
	spanClient   = 3 // SPAN_KIND_CLIENT
	statusError  = 2 // STATUS_CODE_ERROR
)

// attributes are those that have a value. Names without "pathtrace." are those
// of OpenTelemetry's semantic conventions.
type attributes []otlpAttribute

func (a *attributes) text(key, value string) {
	if value != "" {
		value = Clean(value)
		*a = append(*a, otlpAttribute{key, otlpValue{String: &value}})
	}
}

func (a *attributes) number(key string, n int64) {
	if n != 0 {
		s := strconv.FormatInt(n, 10)
		*a = append(*a, otlpAttribute{key, otlpValue{Int: &s}})
	}
}

func (a *attributes) texts(key string, values []string) {
	var array otlpArray
	for _, s := range values {
		s = Clean(s)
		array.Values = append(array.Values, otlpValue{String: &s})
	}
	if len(values) > 0 {
		*a = append(*a, otlpAttribute{key, otlpValue{Array: &array}})
	}
}

func otlpProbe(d *Document) otlpResourceSpans {
	var out otlpResourceSpans
	r := &out.Resource.Attributes
	r.text("service.name", "pathtrace")
	r.text("service.version", d.Tool.Version)
	r.text("host.name", d.Host.Name)
	r.text("os.type", "linux")
	r.text("os.version", d.Host.Kernel)
	scope := otlpScopeSpans{Spans: spans(&d.Case, d.Verdict)}
	scope.Scope.Name, scope.Scope.Version = "github.com/pathtrace/pathtrace", Clean(d.Tool.Version)
	out.ScopeSpans = []otlpScopeSpans{scope}
	return out
}

// spans returns the root first, then the places in the order in which they were come to.
func spans(c *evidence.Case, v verdict.Verdict) []otlpSpan {
	trace := sha256.Sum256(fmt.Appendf(nil, "pathtrace %s %d", c.ID, c.Probe.Started.UnixNano()))
	ids := spanIDs{trace: hex.EncodeToString(trace[:16])}
	root := ids.span(rootName(c), spanClient, unixNano(c, 0), unixNano(c, c.Probe.DurationNS))
	rootAttributes(&root.Attributes, c, v)
	if v.Cause != "reachable" {
		root.Status = &otlpStatus{Clean(v.Summary), statusError}
	}
	places := visited(c, v)
	all := make([]otlpSpan, 1, 1+len(places))
	for _, p := range places {
		from, to := p.span()
		s := ids.span(p.name(), spanInternal, unixNano(c, from), unixNano(c, to))
		s.Parent = root.SpanID
		p.tell(&s, c)
		// What was read or freed before connect(), or after it had returned, is within the probe too.
		root.Start, root.End = min(root.Start, s.Start), max(root.End, s.End)
		all = append(all, s)
	}
	all[0] = root
	return all
}

// spanIDs hands out identifiers, the same for the same case.
type spanIDs struct {
	trace string
	n     int
}

func (x *spanIDs) span(name string, kind int, start, end uint64) otlpSpan {
	id := sha256.Sum256(fmt.Appendf(nil, "%s %d", x.trace, x.n))
	x.n++
	return otlpSpan{TraceID: x.trace, SpanID: hex.EncodeToString(id[:8]), Name: Clean(name), Kind: kind, Start: start, End: max(start, end), Attributes: attributes{}}
}

// unixNano is when at, in nanoseconds since connect(), was; 0 where the case does not say when that was.
func unixNano(c *evidence.Case, at int64) uint64 {
	t := c.Probe.Started
	if y := t.Year(); y < 1970 || y > 2200 {
		return 0
	}
	return uint64(max(0, t.Add(time.Duration(at)).UnixNano()))
}

func rootName(c *evidence.Case) string { return "probe " + endpoint(c.Target) }

func rootAttributes(a *attributes, c *evidence.Case, v verdict.Verdict) {
	a.text("network.transport", c.Target.Protocol)
	a.text("server.address", c.Target.Address)
	a.number("server.port", int64(c.Target.Port))
	if to, err := netip.ParseAddr(c.Target.Address); err == nil {
		a.text("network.type", map[bool]string{true: "ipv4", false: "ipv6"}[to.Unmap().Is4()])
	}
	if local, err := netip.ParseAddrPort(c.Probe.Local); err == nil {
		a.text("network.local.address", local.Addr().String())
		a.number("network.local.port", int64(local.Port()))
	}
	if v.Cause != "reachable" {
		a.text("error.type", v.Cause)
	}
	a.text("pathtrace.case", c.ID)
	a.text("pathtrace.target", c.Target.Input)
	a.text("pathtrace.netns", c.Probe.Netns)
	a.text("pathtrace.outcome", c.Probe.Outcome)
	a.text("pathtrace.errno", c.Probe.Errno)
	a.text("pathtrace.cause", v.Cause)
	a.text("pathtrace.certainty", string(v.Certainty))
	a.text("pathtrace.direction", v.Direction)
	a.text("pathtrace.summary", v.Summary)
	a.text("pathtrace.died.netns", v.Where.Netns)
	a.text("pathtrace.died.device", v.Where.Device)
	a.text("pathtrace.died.hook", v.Where.Hook)
	a.texts("pathtrace.proof", v.Proof)
	for i, f := range v.Fixes {
		if i == 0 {
			a.texts("pathtrace.fix", f.Commands)
			a.texts("pathtrace.undo", f.Undo)
		}
	}
	a.texts("pathtrace.unseen", unseen(c, v, 0))
	a.number("pathtrace.lost_events", int64(min(c.Lost, 1<<62)))
}
