// SPDX-License-Identifier: Apache-2.0

package ticket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Error is an answer that says no.
type Error struct {
	Status  int
	Message string // what the server said, one line
	after   time.Duration
}

func (e *Error) Error() string {
	why := map[int]string{
		http.StatusUnauthorized:          "the token is not accepted",
		http.StatusForbidden:             "the token gives no right to do that",
		http.StatusNotFound:              "no such ticket, or none that this token may see",
		http.StatusRequestEntityTooLarge: "the file is too large for this system",
		http.StatusTooManyRequests:       "too many requests",
	}[e.Status]
	if why == "" {
		why = "the server answered " + strings.TrimSpace(strconv.Itoa(e.Status)+" "+http.StatusText(e.Status))
	}
	if e.Message != "" {
		why += ": " + e.Message
	}
	return why
}

// errNever marks what another attempt does not change.
var errNever = errors.New("not sent")

const (
	answerWait  = 60 * time.Second
	answerLimit = 4 << 20 // bytes of an answer
)

// session makes requests of one client.
type session struct {
	base   *url.URL
	http   *http.Client
	header http.Header
	token  string
}

// open checks the address: a token goes over TLS, or to this very machine.
func (c *Client) open() (*session, error) {
	u, err := url.Parse(strings.TrimRight(c.URL, "/"))
	switch {
	case err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the address of the ticket system is no URL such as https://tickets.example.com")
	case u.User != nil:
		return nil, errors.New("the address of the ticket system must hold no user and no password")
	case u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())):
		return nil, fmt.Errorf("%s://%s: a token is sent over https only", u.Scheme, u.Host)
	case c.Token == "":
		return nil, errors.New("no token")
	}
	h := &http.Client{Timeout: answerWait}
	if c.HTTP != nil {
		*h = *c.HTTP
	}
	// A redirect would carry the token, or lose the body.
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &session{base: u, http: h, header: http.Header{}, token: c.Token}, nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// call makes a request and decodes the JSON of its answer into out, which may be nil.
func (s *session) call(ctx context.Context, method, path string, kind string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, s.base.String()+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %w", errNever, err)
	}
	req.Header = s.header.Clone()
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "pathtrace")
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the address, which the caller names
		}
		if untrusted(err) {
			return fmt.Errorf("%w: %w", errNever, err)
		}
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit+1))
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return fmt.Errorf("%w: the server sends on to %s: is that its address?", errNever, oneLine(resp.Header.Get("Location")))
	case resp.StatusCode >= 400:
		after, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // a date, or nothing: 0
		return &Error{Status: resp.StatusCode, Message: message(data), after: time.Duration(max(0, after)) * time.Second}
	case err != nil:
		return err
	case len(data) > answerLimit:
		return fmt.Errorf("%w: an answer of more than %d MiB", errNever, answerLimit>>20)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("%w: the answer is not understood (%s): is that the address of the ticket system?", errNever, oneLine(err.Error()))
	}
	return nil
}

// untrusted reports whether TLS came to nothing for a reason that stays.
func untrusted(err error) bool {
	s := err.Error()
	return strings.HasPrefix(s, "tls: ") || strings.Contains(s, "x509: ") || strings.Contains(s, "server gave HTTP response to HTTPS client")
}

func (s *session) get(ctx context.Context, path string, out any) error {
	return s.call(ctx, http.MethodGet, path, "", nil, out)
}

func (s *session) json(ctx context.Context, method, path string, in, out any) error {
	data, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("%w: %w", errNever, err)
	}
	return s.call(ctx, method, path, "application/json", data, out)
}

// part is a field of a form, with a file's name where it is a file.
type part struct {
	field, file, kind string
	data              []byte
}

func (s *session) form(ctx context.Context, path string, out any, parts ...part) error {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		h := textproto.MIMEHeader{}
		disposition := fmt.Sprintf(`form-data; name="%s"`, p.field)
		if p.file != "" {
			disposition += fmt.Sprintf(`; filename="%s"`, p.file)
		}
		h.Set("Content-Disposition", disposition)
		h.Set("Content-Type", p.kind)
		to, err := w.CreatePart(h)
		if err == nil {
			_, err = to.Write(p.data)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errNever, err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("%w: %w", errNever, err)
	}
	return s.call(ctx, http.MethodPost, path, w.FormDataContentType(), b.Bytes(), out)
}

// message finds what a server says in an error: message, errors, errorMessages or error, whatever its form.
func message(data []byte) string {
	var m map[string]any
	if json.Unmarshal(data, &m) != nil {
		return ""
	}
	for _, k := range []string{"message", "errorMessages", "errors", "error"} {
		if s := words(m[k]); s != "" {
			return oneLine(s)
		}
	}
	return ""
}

func words(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		var out []string
		for _, x := range v {
			out = append(out, words(x))
		}
		return strings.Join(out, "; ")
	case map[string]any:
		if s := words(v["message"]); s != "" {
			return s
		}
		return words(v["detail"])
	}
	return ""
}

// oneLine makes a server's text harmless and short.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	if r := []rune(s); len(r) > 200 {
		s = string(r[:200]) + "…"
	}
	return strings.TrimSpace(s)
}
