// SPDX-License-Identifier: Apache-2.0

//go:build tickets && !notickets

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pathtrace/pathtrace/report"
	"github.com/pathtrace/pathtrace/verdict"
)

// system is a real ticket system with a ticket in it.
type system struct {
	kind, url, ticket, token string
	t                        *testing.T
}

// get asks the system, without any of our own code.
func (s *system) get(path string, out any) {
	s.t.Helper()
	data := s.raw(path)
	if err := json.Unmarshal(data, out); err != nil {
		s.t.Fatalf("%s: %v: %.300s", path, err, data)
	}
}

func (s *system) raw(path string) []byte {
	s.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = s.url + path
	}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "token "+s.token)
	req.Header.Set("X-Redmine-API-Key", s.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %d, %v", path, resp.StatusCode, err)
	}
	return data
}

// files returns what is attached to the ticket, and how many comments it has.
func (s *system) files() (files map[string][]byte, comments []string) {
	s.t.Helper()
	files = map[string][]byte{}
	if s.kind == "redmine" {
		var got struct {
			Issue struct {
				Attachments []struct {
					Filename   string
					ContentURL string `json:"content_url"`
				}
				Journals []struct{ Notes string }
			}
		}
		s.get("/issues/"+s.ticket+".json?include=attachments,journals", &got)
		for _, a := range got.Issue.Attachments {
			files[a.Filename] = s.raw(a.ContentURL)
		}
		for _, j := range got.Issue.Journals {
			comments = append(comments, j.Notes)
		}
		return files, comments
	}
	var list struct{ Items []struct{ ID string } }
	s.get("/REST/2.0/ticket/"+s.ticket+"/attachments?per_page=100", &list)
	for _, x := range list.Items {
		var a struct {
			Filename, ContentType, Content string
		}
		s.get("/REST/2.0/attachment/"+x.ID, &a)
		data, err := base64.StdEncoding.DecodeString(a.Content)
		if err != nil {
			s.t.Fatal(err)
		}
		switch {
		case a.Filename != "":
			files[a.Filename] = data
		case a.ContentType == "text/plain":
			comments = append(comments, string(data))
		}
	}
	return files, comments
}

// wait until the system answers at all.
func (s *system) wait() {
	s.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; {
		resp, err := http.Get(s.url + "/")
		if err == nil {
			resp.Body.Close()
			return
		}
		if time.Now().After(end) {
			s.t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // a real server starts: there is nothing else to wait for
	}
}

// attach runs the command, as a user does.
func (s *system) attach(bundle, ticket, at, token string) (code int, stdout, stderr string) {
	s.t.Helper()
	s.t.Setenv("PATHTRACE_"+strings.ToUpper(s.kind)+"_URL", at)
	s.t.Setenv("PATHTRACE_"+strings.ToUpper(s.kind)+"_TOKEN", token)
	var out, errs bytes.Buffer
	code = run(s.t.Context(), []string{"attach", bundle, "--to", s.kind + ":" + ticket}, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// bundle writes a sound bundle that is at least so large.
func bundleOf(t *testing.T, size int) (name string, data []byte) {
	t.Helper()
	c := secretive(t)
	c.ID = fmt.Sprintf("%08x", size)
	noise := make([]byte, size)
	random := rand.NewChaCha8([32]byte{})
	random.Read(noise)
	var b bytes.Buffer
	if err := report.WriteBundle(&b, report.Bundle{Document: report.NewDocument(c, verdict.Judge(&c)), Config: []report.File{{Name: "init/noise", Data: noise}}}); err != nil {
		t.Fatal(err)
	}
	name = filepath.Join(t.TempDir(), "case.zip")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name, b.Bytes()
}

// TestRealTickets attaches bundles to the systems that internal/tickets/run.sh starts.
func TestRealTickets(t *testing.T) {
	data, err := os.ReadFile(os.Getenv("TICKETS"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) != 2 {
		t.Fatalf("%q", data)
	}
	for _, line := range lines {
		f := strings.Fields(line)
		t.Run(f[0], func(t *testing.T) {
			s := &system{f[0], f[1], f[2], f[3], t}
			s.wait()
			s.takes(t)
			s.refuses(t)
			s.loses(t)
			s.large(t)
		})
	}
}

// theOnly finds the only file with these bytes.
func theOnly(t *testing.T, files map[string][]byte, want []byte) {
	t.Helper()
	n := 0
	for _, data := range files {
		if bytes.Equal(data, want) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d of %d files are the bundle", n, len(files))
	}
}

func (s *system) takes(t *testing.T) {
	name, data := bundleOf(t, 1000)
	code, out, errs := s.attach(name, s.ticket, s.url, s.token)
	t.Logf("attach: exit %d, %s%s", code, out, errs)
	if code != exitReached || !strings.HasPrefix(out, s.kind+":"+s.ticket+" has pathtrace-000003e8-") || errs != "" {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	files, comments := s.files()
	theOnly(t, files, data)
	if len(comments) == 0 || !strings.Contains(comments[len(comments)-1], "**pathtrace: not reachable** `10.77.2.2:80/tcp`") {
		t.Errorf("%q", comments)
	}
	code, out, errs = s.attach(name, s.ticket, s.url, s.token)
	t.Logf("again: exit %d, %s%s", code, out, errs)
	if code != exitReached || !strings.HasSuffix(out, " already\n") || errs != "" {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	if f, c := s.files(); len(f) != len(files) || len(c) != len(comments) {
		t.Errorf("sent twice there are %d files and %d comments, were %d and %d", len(f), len(c), len(files), len(comments))
	}
}

func (s *system) refuses(t *testing.T) {
	name, _ := bundleOf(t, 2000)
	before, said := s.files()
	for what, c := range map[string]struct{ ticket, token, want string }{
		"wrong token":    {s.ticket, "1-14-0123456789abcdef", "the token is not accepted"},
		"missing ticket": {"4711", s.token, "no such ticket, or none that this token may see"},
	} {
		code, out, errs := s.attach(name, c.ticket, s.url, c.token)
		t.Logf("%s: exit %d, %s", what, code, errs)
		if code != exitNoTrace || out != "" || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 || strings.Contains(errs, c.token) {
			t.Errorf("%s: exit %d: %s%s", what, code, out, errs)
		}
	}
	if f, c := s.files(); len(f) != len(before) || len(c) != len(said) {
		t.Errorf("what was refused is there: %d files, %d comments", len(f), len(c))
	}
}

// loses has the answer to the first request that changes something get lost after it was done.
func (s *system) loses(t *testing.T) {
	name, data := bundleOf(t, 3000)
	before, said := s.files()
	to, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	lost := map[string]int{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(r *http.Response) error {
			if m := r.Request.Method; m != http.MethodGet && r.StatusCode < 300 {
				if lost[m]++; lost[m] == 1 {
					panic(http.ErrAbortHandler)
				}
			}
			return nil
		},
	}
	server := httptest.NewServer(proxy)
	defer server.Close()
	code, out, errs := s.attach(name, s.ticket, server.URL, s.token)
	t.Logf("answers lost %v: exit %d, %s%s", lost, code, out, errs)
	if code != exitReached || errs != "" || len(lost) == 0 {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	files, comments := s.files()
	theOnly(t, files, data)
	if len(files) != len(before)+1 || len(comments) != len(said)+1 {
		t.Errorf("%d files and %d comments, were %d and %d", len(files), len(comments), len(before), len(said))
	}
}

// large is taken whole or refused clearly: Redmine's own limit is 5 MB unless it was changed.
func (s *system) large(t *testing.T) {
	name, data := bundleOf(t, 12<<20)
	before, said := s.files()
	code, out, errs := s.attach(name, s.ticket, s.url, s.token)
	t.Logf("%d bytes: exit %d, %s%s", len(data), code, out, errs)
	files, comments := s.files()
	if s.kind == "rt" {
		if code != exitReached || errs != "" {
			t.Errorf("exit %d: %s%s", code, out, errs)
		}
		theOnly(t, files, data)
		return
	}
	if code != exitNoTrace || !strings.Contains(errs, "422") || !strings.Contains(errs, "exceeds the maximum allowed file size") || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	if len(files) != len(before) || len(comments) != len(said) {
		t.Errorf("what was refused is there: %d files, %d comments", len(files), len(comments))
	}
}
