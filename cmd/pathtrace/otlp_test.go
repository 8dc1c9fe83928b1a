// SPDX-License-Identifier: Apache-2.0

//go:build !notickets

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/pathtrace/pathtrace/verdict"
)

// exporting runs the main job on a case with secrets in it.
func exporting(t *testing.T, env string, args ...string) (f *fake, code int) {
	t.Helper()
	f = newFake(secretive(t), verdict.Verdict{}, nil)
	f.judge = verdict.Judge
	f.getenv = func(k string) string { return map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": env}[k] }
	return f, f.run(t.Context(), append(args, "10.77.2.2:80"))
}

// TestOTLPFlag: a collector gets what its own parser takes, without secrets, and with --redact without names.
func TestOTLPFlag(t *testing.T) {
	var body []byte
	var asked string
	var header http.Header
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, header = r.Method+" "+r.URL.Path, r.Header
		body, _ = io.ReadAll(r.Body)
		io.WriteString(w, `{"partialSuccess":{}}`)
	}))
	defer s.Close()
	for to, want := range map[string]string{
		s.URL: "POST /v1/traces", s.URL + "/": "POST /v1/traces", s.URL + "/otlp": "POST /otlp/v1/traces", s.URL + "/v1/traces": "POST /v1/traces",
	} {
		f, code := exporting(t, "x-tenant=ops%20team, Authorization=Bearer%20t0k3n", "--otlp", to)
		if code != exitCause || f.stderr.Len() > 0 || asked != want {
			t.Fatalf("exit %d, asked %s: %s", code, asked, f.stderr.String())
		}
		if header.Get("X-Tenant") != "ops team" || header.Get("Authorization") != "Bearer t0k3n" || header.Get("Content-Type") != "application/json" {
			t.Errorf("%v", header)
		}
		r := ptraceotlp.NewExportRequest()
		if err := r.UnmarshalJSON(body); err != nil || r.Traces().SpanCount() < 5 {
			t.Errorf("%v: %d spans", err, r.Traces().SpanCount())
		}
		if text := string(body); strings.Contains(text, "hunter2") || !strings.Contains(text, "10.77.2.2") {
			t.Error(text)
		}
	}
	if f, code := exporting(t, "", "--redact", "--otlp", s.URL); code != exitCause || f.stderr.Len() > 0 {
		t.Fatalf("exit %d: %s", code, f.stderr.String())
	}
	for _, original := range []string{"10.77.1.2", "10.77.2.2", "db01", "web7", "acme", "bob", "hunter2"} {
		if strings.Contains(string(body), original) {
			t.Errorf("%s was sent", original)
		}
	}
}

// TestOTLPFails: what a collector does changes neither verdict nor exit code; one line says it.
func TestOTLPFails(t *testing.T) {
	plain, _ := exporting(t, "")
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		want  string
		times int
	}{
		"refused": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			io.WriteString(w, `{"message":"bad\nspan"}`)
		}, `it answered 400 Bad Request: bad; span`, 1},
		"no right": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, "it answered 401 Unauthorized", 1},
		"busy":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, "it answered 503 Service Unavailable", 2},
		"moved": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/", http.StatusFound)
		}, "it sends on to https://elsewhere.example/", 1},
		"partial": {func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}`)
		}, "it rejected 3 spans: too old", 1},
		"hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF", 1},
	} {
		times := 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { times++; c.serve(w, r) }))
		f, code := exporting(t, "Authorization=t0k3n", "--otlp", s.URL)
		s.Close()
		line := f.stderr.String()
		if code != exitCause || f.stdout.String() != plain.stdout.String() || times != c.times {
			t.Errorf("%s: exit %d, asked %d times", name, code, times)
		}
		if !strings.HasPrefix(line, "pathtrace: no trace sent to "+s.URL+"/v1/traces: ") || !strings.Contains(line, c.want) || strings.Count(line, "\n") != 1 || strings.Contains(line, "t0k3n") {
			t.Errorf("%s: %q", name, line)
		}
	}
	tls := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was sent to whom nobody vouches for") }))
	tls.Config.ErrorLog = nil
	defer tls.Close()
	if f, code := exporting(t, "", "--otlp", tls.URL); code != exitCause || !strings.Contains(f.stderr.String(), "certificate") {
		t.Errorf("exit %d: %s", code, f.stderr.String())
	}
	if f, code := exporting(t, "", "--otlp", "http://127.0.0.1:1"); code != exitCause || !strings.Contains(f.stderr.String(), "connection refused") {
		t.Errorf("exit %d: %s", code, f.stderr.String())
	}
}

// TestOTLPUsage: what cannot work is said before anything is sent.
func TestOTLPUsage(t *testing.T) {
	for name, c := range map[string]struct{ url, env, want string }{
		"no URL":    {"collector:4318", "", "not a URL"},
		"query":     {"https://c.example/?a=b", "", "not a URL"},
		"password":  {"https://me:s3cr3t@c.example", "", "must hold no user"},
		"headers":   {"https://c.example", "s3cr3t", "not of the form name=value"},
		"name":      {"https://c.example", "a b=s3cr3t", "not of the form name=value"},
		"value":     {"https://c.example", "a=s3cr3t%0d%0ab: c", "not of the form name=value"},
		"encoding":  {"https://c.example", "a=s3cr3t%zz", "not of the form name=value"},
		"clear":     {"http://c.example", "a=s3cr3t", "sent over https only"},
		"otherwise": {"ftp://c.example", "", "not a URL"},
	} {
		f, code := exporting(t, c.env, "--otlp", c.url)
		if code != exitUsage || !strings.Contains(f.stderr.String(), c.want) || strings.Contains(f.stderr.String(), "s3cr3t") || f.stdout.Len() > 0 || f.asked.Input != "" {
			t.Errorf("%s: exit %d: %s", name, code, f.stderr.String())
		}
	}
}
