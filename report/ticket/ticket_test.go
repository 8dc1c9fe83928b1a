// SPDX-License-Identifier: Apache-2.0

package ticket

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// server is a ticket system with one ticket. It checks what it is sent as the real ones do.
type server struct {
	*httptest.Server
	t        *testing.T
	files    map[string][]byte
	comments []string
	uploads  map[string][]byte
	fail     func(r *http.Request) int // what to answer instead, 0: nothing else
	lose     int                       // how many answers to what changes something are lost after it was done
	requests int
}

const token = "t0k3n-of-the-test"

func newServer(t *testing.T) *server {
	s := &server{t: t, files: map[string][]byte{}, uploads: map[string][]byte{}}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *server) client() *Client {
	return &Client{URL: s.URL, Token: token, HTTP: s.Client(), Wait: func(context.Context, time.Duration) error { return nil }}
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	s.requests++
	r.Body = http.MaxBytesReader(w, r.Body, 64<<20)
	if s.fail != nil {
		if code := s.fail(r); code != 0 {
			http.Error(w, `{"message":"no: `+token+`"}`, code)
			return
		}
	}
	if got := r.Header.Get("Authorization") + r.Header.Get("X-Redmine-API-Key") + r.Header.Get("PRIVATE-TOKEN"); !strings.HasSuffix(got, token) {
		http.Error(w, `{"message":"Unauthorized"}`, http.StatusUnauthorized)
		return
	}
	key := r.Method + " " + r.URL.EscapedPath()
	answer, ok := s.route(key, r)
	if !ok {
		http.Error(w, `{"message":"Not Found"}`, http.StatusNotFound)
		return
	}
	if r.Method != http.MethodGet && s.lose > 0 {
		s.lose--
		http.Error(w, `{"message":"the answer was lost"}`, http.StatusBadGateway)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

type object = map[string]any

func (s *server) names(key string) []object {
	list := []object{}
	for n := range s.files {
		list = append(list, object{key: n})
	}
	return list
}

func (s *server) bodies(key string) []object {
	list := []object{}
	for _, c := range s.comments {
		list = append(list, object{key: c})
	}
	return list
}

// take stores the file of a form, and returns its other field.
func (s *server) take(r *http.Request, field, other string) string {
	f, h, err := r.FormFile(field)
	if err != nil {
		s.t.Errorf("%s: %v", r.URL, err)
		return ""
	}
	data, _ := io.ReadAll(f)
	s.files[h.Filename] = data
	return r.FormValue(other)
}

func (s *server) body(r *http.Request) object {
	var m object
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		s.t.Errorf("%s: %v", r.URL, err)
	}
	return m
}

func (s *server) comment(v any) { s.comments = append(s.comments, fmt.Sprint(v)) }

func (s *server) route(key string, r *http.Request) (any, bool) {
	switch key {
	case "GET /REST/2.0/ticket/12":
		return object{}, true
	case "GET /REST/2.0/ticket/12/attachments":
		return object{"items": s.names("Filename"), "pages": json.RawMessage("1.0")}, true
	case "POST /REST/2.0/ticket/12/comment":
		var m object
		if err := json.Unmarshal([]byte(s.take(r, "Attachments", "JSON")), &m); err != nil {
			s.t.Error(err)
		}
		s.comment(m["Content"])
		return []string{"Comments added"}, true

	case "GET /users/current.json":
		return object{}, true
	case "GET /issues/12.json":
		return object{"issue": object{"attachments": s.names("filename")}}, true
	case "POST /uploads.json":
		s.uploads["1.aa"], _ = io.ReadAll(r.Body)
		return object{"upload": object{"token": "1.aa"}}, true
	case "PUT /issues/12.json":
		issue := s.body(r)["issue"].(object)
		up := issue["uploads"].([]any)[0].(object)
		s.files[up["filename"].(string)] = s.uploads[up["token"].(string)]
		s.comment(issue["notes"])
		return object{}, true

	case "GET /rest/api/2/issue/OPS-12":
		return object{"fields": object{"attachment": s.names("filename")}}, true
	case "POST /rest/api/2/issue/OPS-12/attachments":
		if r.Header.Get("X-Atlassian-Token") != "no-check" {
			return nil, false
		}
		s.take(r, "file", "")
		return []object{}, true
	case "GET /rest/api/2/issue/OPS-12/comment":
		return object{"comments": s.bodies("body")}, true
	case "POST /rest/api/2/issue/OPS-12/comment":
		s.comment(s.body(r)["body"])
		return object{}, true

	case "GET /api/v4/projects/g%2Fsub%2Fp/issues/12/notes":
		return s.bodies("body"), true
	case "POST /api/v4/projects/g%2Fsub%2Fp/uploads":
		s.take(r, "file", "")
		return object{"markdown": "[x](/uploads/x)"}, true
	case "POST /api/v4/projects/g%2Fsub%2Fp/issues/12/notes":
		s.comment(s.body(r)["body"])
		return object{}, true

	case "GET /api/v1/repos/o/r/issues/12/assets":
		return s.names("name"), true
	case "POST /api/v1/repos/o/r/issues/12/assets":
		s.take(r, "attachment", "")
		return object{}, true
	case "GET /api/v1/repos/o/r/issues/12/comments":
		return s.bodies("body"), true
	case "POST /api/v1/repos/o/r/issues/12/comments":
		s.comment(s.body(r)["body"])
		return object{}, true
	}
	return s.now(key, r)
}

// now is ServiceNow.
func (s *server) now(key string, r *http.Request) (any, bool) {
	query := r.URL.Query()
	result := func(found bool) object {
		if found {
			return object{"result": []object{{"sys_id": "5f"}}}
		}
		return object{"result": []object{}}
	}
	switch key {
	case "GET /api/now/table/incident":
		return result(query.Get("sysparm_query") == "number=INC0000012"), true
	case "GET /api/now/attachment":
		id, name, _ := strings.Cut(query.Get("sysparm_query"), "^file_name=")
		return result(id == "table_sys_id=5f" && s.files[name] != nil), true
	case "POST /api/now/attachment/file":
		if query.Get("table_sys_id") != "5f" {
			return nil, false
		}
		s.files[query.Get("file_name")], _ = io.ReadAll(r.Body)
		return object{}, true
	case "GET /api/now/table/sys_journal_field":
		_, name, _ := strings.Cut(query.Get("sysparm_query"), "^valueLIKE")
		return result(strings.Contains(strings.Join(s.comments, "\n"), name)), true
	case "PATCH /api/now/table/incident/5f":
		s.comment(s.body(r)["work_notes"])
		return object{}, true
	}
	return nil, false
}

var tickets = []string{"rt:12", "redmine:12", "jira:OPS-12", "gitlab:g/sub/p#12", "servicenow:INC0000012", "gitea:o/r#12", "forgejo:o/r#12"}

func ref(t *testing.T, s string) Ref {
	t.Helper()
	r, err := Parse(s)
	if err != nil || r.String() != s {
		t.Fatalf("%s: %v, %v", s, r, err)
	}
	return r
}

var sample = Comment{Text: "**pathtrace: not reachable** `ü`", Name: "pathtrace-3f2a11aa-01020304.zip", Data: bytes.Repeat([]byte("PK\x00\r\n\xff"), 1000)}

// TestAttach: the file arrives byte by byte, with one comment, and only once, also when answers are lost.
func TestAttach(t *testing.T) {
	for _, name := range tickets {
		for lose := range 3 {
			t.Run(fmt.Sprint(name, " ", lose), func(t *testing.T) {
				s := newServer(t)
				s.lose = lose
				for run := range 2 {
					changed, err := s.client().Attach(t.Context(), ref(t, name), sample)
					if err != nil || changed != (run == 0) {
						t.Fatalf("run %d: changed %v, %v", run, changed, err)
					}
				}
				if len(s.files) != 1 || !bytes.Equal(s.files[sample.Name], sample.Data) {
					t.Errorf("%d files, %d bytes", len(s.files), len(s.files[sample.Name]))
				}
				if len(s.comments) != 1 || !strings.Contains(s.comments[0], sample.Text) {
					t.Errorf("comments: %q", s.comments)
				}
			})
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, name := range tickets {
		for what, c := range map[string]struct {
			fail     func(*http.Request) int
			token    string
			want     string
			requests int // at most
		}{
			"wrong token": {nil, "other", "the token is not accepted", 1},
			"no right":    {func(r *http.Request) int { return 403 }, token, "the token gives no right to do that", 1},
			"missing":     {func(r *http.Request) int { return 404 }, token, "no such ticket", 1},
			"too large": {func(r *http.Request) int {
				if r.Method == http.MethodGet {
					return 0
				}
				return 413
			}, token, "too large for this system", 4},
			"fault": {func(r *http.Request) int { return 503 }, token, "503 Service Unavailable", attempts},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				s := newServer(t)
				s.fail = c.fail
				client := s.client()
				client.Token = c.token
				_, err := client.Attach(t.Context(), ref(t, name), sample)
				if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), name+": ") || strings.Contains(err.Error(), token) {
					t.Errorf("%v, want %q", err, c.want)
				}
				if s.requests > c.requests || len(s.files)+len(s.comments) > 0 {
					t.Errorf("%d requests, %d files, %d comments", s.requests, len(s.files), len(s.comments))
				}
			})
		}
	}
}

// TestTokenStaysHome: it goes to no server that is not believed, and to no other address.
func TestTokenStaysHome(t *testing.T) {
	s := newServer(t)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("asked for %s", r.URL) }))
	defer elsewhere.Close()
	away := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer away.Close()
	for name, c := range map[string]struct {
		client *Client
		want   string
	}{
		"unknown authority": {&Client{URL: s.URL, Token: token}, "x509: "},
		"plain":             {&Client{URL: "http://tickets.example.com", Token: token}, "over https only"},
		"ftp":               {&Client{URL: "ftp://127.0.0.1", Token: token}, "over https only"},
		"userinfo":          {&Client{URL: "https://u:p@127.0.0.1", Token: token}, "must hold no user"},
		"not a URL":         {&Client{URL: "tickets", Token: token}, "no URL"},
		"no token":          {&Client{URL: s.URL}, "no token"},
		"redirect":          {&Client{URL: away.URL, Token: token}, "sends on to"},
	} {
		for _, to := range tickets {
			before := s.requests
			if _, err := c.client.Attach(t.Context(), ref(t, to), sample); err == nil || !strings.Contains(err.Error(), c.want) || s.requests != before {
				t.Errorf("%s %s: %v", name, to, err)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{"", "12", "rt:", "rt:0", "rt:1/../../x", "rt:1?x", "jira:OPS", "gitlab:p#1", "gitlab:g/../p#1", "gitea:o/r/x#1", "github:o/r#1", "servicenow:12", "rt:12\n"} {
		if r, err := Parse(s); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, %v", s, r, err)
		}
	}
}

func TestHostileAnswers(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"endless":  func(w http.ResponseWriter, _ *http.Request) { io.CopyN(w, endless{}, answerLimit+10) },
		"not JSON": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
		"escapes": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(422)
			io.WriteString(w, `{"errors":["\u001b[2J\n`+strings.Repeat("x", 1000)+`"]}`)
		},
	} {
		s := httptest.NewServer(h)
		for _, to := range tickets {
			_, err := (&Client{URL: s.URL, Token: token}).Attach(t.Context(), ref(t, to), sample)
			if err == nil && to != "rt:12" || err != nil && (strings.ContainsAny(err.Error(), "\x1b\n") || len(err.Error()) > 500) {
				t.Errorf("%s %s: %q", name, to, err)
			}
		}
		s.Close()
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte(" "), len(p))), nil }
