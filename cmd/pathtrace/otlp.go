// SPDX-License-Identifier: Apache-2.0

//go:build !notickets

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/pathtrace/pathtrace/report"
)

const (
	collectorWait   = 10 * time.Second // the default of OTEL_EXPORTER_OTLP_TIMEOUT
	collectorAnswer = 64 << 10         // bytes of an answer that are read
	collectorPath   = "/v1/traces"
)

// collector takes traces by OTLP over HTTP (OpenTelemetry protocol 1.x).
type collector struct {
	url    string
	header http.Header
}

// otlpFlag checks --otlp before anything is sent.
func (a *app) otlpFlag(to string) (func(context.Context, []report.Document) error, error) {
	u, err := url.Parse(to)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return nil, badUse("--otlp %s: not a URL such as https://collector.example:4318", to)
	case u.User != nil:
		return nil, badUse("--otlp: the URL must hold no user and no password: OTEL_EXPORTER_OTLP_HEADERS may")
	}
	if !strings.HasSuffix(u.Path, collectorPath) {
		u.Path = strings.TrimRight(u.Path, "/") + collectorPath
	}
	header, err := otlpHeaders(a.getenv("OTEL_EXPORTER_OTLP_HEADERS"))
	switch {
	case err != nil:
		return nil, badUse("OTEL_EXPORTER_OTLP_HEADERS: %w", err)
	case len(header) > 0 && u.Scheme == "http" && !thisMachine(u.Hostname()):
		return nil, badUse("--otlp %s: the headers of OTEL_EXPORTER_OTLP_HEADERS are sent over https only", to)
	}
	return collector{u.String(), header}.send, nil
}

func thisMachine(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// otlpHeaders reads name=value,name=value, values percent-encoded. What is wrong
// is not repeated: it may be a secret.
func otlpHeaders(s string) (http.Header, error) {
	h := http.Header{}
	for pair := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !ok || err != nil || name == "" || strings.ContainsFunc(name, notToken) || strings.ContainsFunc(value, unicode.IsControl) {
			return nil, errors.New("not of the form name=value,name=value")
		}
		h.Set(name, value)
	}
	return h, nil
}

// notToken reports whether r cannot be in the name of a header (RFC 9110, 5.6.2).
func notToken(r rune) bool {
	return r > '~' || !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
}

// send posts the probes in one request, once more where the collector says that it may have room later.
func (c collector) send(ctx context.Context, probes []report.Document) error {
	ctx, cancel := context.WithTimeout(ctx, collectorWait)
	defer cancel()
	var body bytes.Buffer
	if err := report.OTLP(&body, probes); err != nil {
		return err
	}
	again, err := c.post(ctx, body.Bytes())
	if again {
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
			_, err = c.post(ctx, body.Bytes())
		}
	}
	if err != nil {
		return fmt.Errorf("no trace sent to %s: %w", c.url, err)
	}
	return nil
}

// post reports whether another attempt may have another answer.
func (c collector) post(ctx context.Context, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header = c.header.Clone()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "pathtrace/"+thisTool().Version)
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} // it would carry the headers along
	resp, err := client.Do(req)
	var failed *url.Error
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return false, fmt.Errorf("no answer within %s", collectorWait)
	case errors.As(err, &failed):
		return false, failed.Err // without the URL, which stands before it
	case err != nil:
		return false, err
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, collectorAnswer)) // what was read is enough for a message
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return false, fmt.Errorf("it sends on to %.200s: is that its address?", resp.Header.Get("Location"))
	case resp.StatusCode >= 300:
		return resp.StatusCode == 429 || resp.StatusCode >= 502 && resp.StatusCode <= 504, fmt.Errorf("it answered %d %s%s", resp.StatusCode, http.StatusText(resp.StatusCode), said(answer))
	}
	return false, partial(answer)
}

// said is the message of a google.rpc.Status, which a refusal has for a body.
func said(answer []byte) string {
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(answer, &status) != nil || status.Message == "" {
		return ""
	}
	return fmt.Sprintf(": %.200s", status.Message)
}

// partial finds out whether a collector that took the request threw spans away.
func partial(answer []byte) error {
	var response struct {
		PartialSuccess struct {
			Rejected json.Number `json:"rejectedSpans"` // a string, or a number
			Message  string      `json:"errorMessage"`
		} `json:"partialSuccess"`
	}
	if json.Unmarshal(answer, &response) != nil {
		return nil // the body of an acceptance need not be JSON
	}
	if n := response.PartialSuccess.Rejected; n != "" && n != "0" {
		return fmt.Errorf("it rejected %s spans: %.200s", n, response.PartialSuccess.Message)
	}
	return nil
}
