// SPDX-License-Identifier: Apache-2.0

//go:build !notickets

package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pathtrace/pathtrace/report"
	"github.com/pathtrace/pathtrace/verdict"
)

func TestReadToken(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"private":  {"t0k3n\n", 0o600, ""},
		"readonly": {"t0k3n", 0o400, ""},
		"group":    {"t0k3n", 0o640, "others may read it"},
		"world":    {"t0k3n", 0o644, "others may read it"},
		"empty":    {"\n", 0o600, "it should hold a token"},
		"lines":    {"a\nb\n", 0o600, "it should hold a token"},
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		token, err := readToken(file)
		if c.want == "" && (err != nil || token != "t0k3n") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %q, %v", name, token, err)
		}
	}
}

// TestAttachUsage: what is missing is said before anything is sent.
func TestAttachUsage(t *testing.T) {
	sound := t.TempDir()
	if err := archives("../../report/testdata/nft-drop.json", sound); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"PATHTRACE_RT_URL": "https://127.0.0.1:1", "PATHTRACE_RT_TOKEN": "x", "PATHTRACE_JIRA_URL": "https://127.0.0.1:1"}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no bundle": {[]string{"attach", "--to", "rt:1"}, "attach takes one bundle"},
		"no ticket": {[]string{"attach", "x"}, "--to: ticket \"\""},
		"no URL":    {[]string{"attach", "x", "--to", "redmine:1"}, "PATHTRACE_REDMINE_URL is not set"},
		"no token":  {[]string{"attach", "x", "--to", "jira:A-1"}, "neither PATHTRACE_JIRA_TOKEN nor"},
		"no file":   {[]string{"attach", "x", "--to", "rt:1"}, "open x: no such file"},
		"flag":      {[]string{"--ticket", "redmine:1", "10.0.0.5:80"}, "PATHTRACE_REDMINE_URL is not set"},
		"flag form": {[]string{"--ticket", "12", "10.0.0.5:80"}, "--ticket: ticket \"12\""},
		"damaged":   {[]string{"attach", filepath.Join(sound, "cut.zip"), "--to", "rt:1"}, "not a sound bundle"},
	} {
		f := newFake(seen(), found("reachable", "observed"), nil)
		f.getenv = func(k string) string { return env[k] }
		if code := f.run(t.Context(), c.args); code != exitUsage || !strings.Contains(f.stderr.String(), c.want) || f.stdout.Len() > 0 {
			t.Errorf("%s: exit %d, %q", name, code, f.stderr.String())
		}
	}
}

// TestTicketFlag: the bundle is attached when the trace is done; a server that refuses leaves the verdict.
func TestTicketFlag(t *testing.T) {
	var got []byte
	for name, refuse := range map[string]bool{"taken": false, "refused": true} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case refuse:
				w.WriteHeader(http.StatusForbidden)
			case r.Method == http.MethodPost:
				f, _, err := r.FormFile("Attachments")
				if err != nil {
					t.Error(err)
					return
				}
				got, _ = io.ReadAll(f)
			default:
				io.WriteString(w, "{}")
			}
		}))
		f := newFake(secretive(t), verdict.Verdict{}, nil)
		f.judge = verdict.Judge
		f.getenv = func(k string) string {
			return map[string]string{"PATHTRACE_RT_URL": s.URL, "PATHTRACE_RT_TOKEN": "x"}[k]
		}
		code := f.run(t.Context(), []string{"--ticket", "rt:12", "10.77.2.2:80"})
		s.Close()
		if refuse {
			if code != exitNoTrace || !strings.Contains(f.stderr.String(), "gives no right") || f.stdout.Len() == 0 {
				t.Errorf("%s: exit %d: %s", name, code, f.stderr.String())
			}
			continue
		}
		if code != exitCause || f.stderr.Len() > 0 {
			t.Errorf("%s: exit %d: %s", name, code, f.stderr.String())
		}
		if _, err := report.ReadBundle(bytes.NewReader(got), int64(len(got))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
