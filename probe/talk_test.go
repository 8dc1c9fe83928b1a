// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
)

// says is a server that reads up to `first`, says words, and keeps the connection until the other end closes.
func says(first, words string) func(net.Conn) {
	return func(c net.Conn) {
		defer c.Close()
		in := bufio.NewReader(c)
		if first != "" {
			if l, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(l, first) {
				return
			}
		}
		io.WriteString(c, words)
		io.Copy(io.Discard, in)
	}
}

func TestDialogues(t *testing.T) {
	inNetns(t, func() {
		endless := func(c net.Conn) {
			defer c.Close()
			for b := bytes.Repeat([]byte("220-and on\r\n"), 100); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}
		smtp := func(c net.Conn) {
			defer c.Close()
			io.WriteString(c, "220 mx ESMTP\r\n")
			in := bufio.NewReader(c)
			if l, _ := in.ReadString('\n'); l != "EHLO [127.0.0.1]\r\n" {
				io.WriteString(c, "421 odd\r\n")
				return
			}
			io.WriteString(c, "250-mx\r\n250 SIZE\r\n")
			io.Copy(io.Discard, in)
		}
		reset := func(c net.Conn) { c.Read(make([]byte, 1)); c.(*net.TCPConn).SetLinger(0); c.Close() }
		turnsAway := func(c net.Conn) { io.WriteString(c, "421 go\r\n"); c.Close() }
		for _, c := range []struct {
			name    string
			serve   func(net.Conn)
			speech  Speech
			outcome string
			reply   string
			line    string
		}{
			{"http", says("GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nSet-Cookie: secret\r\n\r\n"), Speech{Protocol: "http", Host: "web"}, evidence.Answered, "ok", "HTTP/1.1 200 OK"},
			{"http path", says("GET /a?b ", "HTTP/1.1 204 No\r\n"), Speech{Protocol: "http", Host: "web", Path: "/a?b"}, evidence.Answered, "ok", "HTTP/1.1 204 No"},
			{"http error", says("GET", "HTTP/1.1 502 Bad Gateway\r\n"), Speech{Protocol: "http", Host: "web"}, evidence.Answered, "error", "HTTP/1.1 502 Bad Gateway"},
			{"ftp", says("", "220 hello\r\n"), Speech{Protocol: "ftp"}, evidence.Answered, "ok", "220 hello"},
			{"ftp turned away", turnsAway, Speech{Protocol: "ftp"}, evidence.Closed, "error", "421 go"},
			{"smtp", smtp, Speech{Protocol: "smtp"}, evidence.Answered, "ok", "220 mx ESMTP"},
			{"redis", says("PING", "+PONG\r\n"), Speech{Protocol: "redis"}, evidence.Answered, "ok", "+PONG"},
			{"another protocol", says("", "SSH-2.0-x\r\n"), Speech{Protocol: "ftp"}, evidence.Answered, "foreign", "SSH: SSH-2.0-x"},
			{"escape sequences", says("", "220 \x1b]0;owned\x07\x1b[2J\r\n"), Speech{Protocol: "ftp"}, evidence.Answered, "ok", "220 \x1b]0;owned\x07\x1b[2J"},
			{"endless", endless, Speech{Protocol: "ftp"}, evidence.Answered, "foreign", "FTP or SMTP: more than 65536 bytes and no end: 220-and on"},
			{"silent", says("", ""), Speech{Protocol: "ssh"}, evidence.Silent, "none", ""},
			{"half an answer", says("GET", "HTTP/1.1 2"), Speech{Protocol: "http", Host: "web"}, evidence.Silent, "none", ""},
			{"closed", func(c net.Conn) { c.Close() }, Speech{Protocol: "ssh"}, evidence.Closed, "none", ""},
			{"reset", reset, Speech{Protocol: "http", Host: "web"}, evidence.Reset, "none", ""},
			{"tls with plain text", says("", "220 hello\r\n"), Speech{Protocol: "ftp", TLS: true, Host: "web"}, evidence.Answered, "foreign", "FTP or SMTP: 220 hello"},
			{"tls that stops", says("", "\x16\x03\x03\x00\x80half"), Speech{Protocol: "http", TLS: true, Host: "web"}, evidence.Silent, "none", ""},
			{"tls that closes", func(c net.Conn) { c.Read(make([]byte, 8192)); c.Close() }, Speech{TLS: true, Host: "web"}, evidence.Closed, "none", ""},
			{"tls alert", says("", "\x15\x03\x03\x00\x02\x02\x28"), Speech{TLS: true, Host: "web"}, evidence.Answered, "error", "TLS alert: handshake failure"},
			{"tls nonsense", says("", "\x16\x03\x03\x00\x04\x63\x00\x00\x00"), Speech{TLS: true, Host: "web"}, evidence.Answered, "foreign", "no TLS that can be understood: unexpected message"},
		} {
			p := runProbe(t, context.Background(), Config{Protocol: "tcp", Target: serve(t, c.serve), Timeout: 400 * time.Millisecond, Speech: c.speech})
			d := p.Dialogue
			if d == nil {
				t.Errorf("%s: no dialogue, %s %s", c.name, p.Outcome, p.Errno)
				continue
			}
			if p.Outcome != c.outcome || d.Reply != c.reply || d.Line != c.line || !p.Expected {
				t.Errorf("%s: %s %s %q, want %s %s %q (%s)", c.name, p.Outcome, d.Reply, d.Line, c.outcome, c.reply, c.line, p.Errno)
			}
			if p.Unmatched != (d.Reply == evidence.ReplyError || d.Reply == evidence.ReplyForeign) {
				t.Errorf("%s: unmatched %v with reply %s", c.name, p.Unmatched, d.Reply)
			}
			if len(p.Banner) > evidence.MaxHeard || strings.Contains(p.Banner, "secret") {
				t.Errorf("%s: %d bytes kept: %.100q", c.name, len(p.Banner), p.Banner)
			}
		}
	})
}

// What the user wants to say and hear goes before the protocol's own words.
func TestSpeechAndExpect(t *testing.T) {
	inNetns(t, func() {
		web := serve(t, says("GET /", "HTTP/1.1 200 OK\r\n\r\nbody: fine\r\n"))
		own := serve(t, says("STAT", "220 up\r\n"))
		for name, c := range map[string]struct {
			cfg       Config
			unmatched bool
		}{
			"expect in the body":   {Config{Target: web, Speech: Speech{Protocol: "http", Host: "web"}, Expect: regexp.MustCompile("fine")}, false},
			"not in it":            {Config{Target: web, Speech: Speech{Protocol: "http", Host: "web"}, Expect: regexp.MustCompile("other")}, true},
			"own words to the ftp": {Config{Target: own, Speech: Speech{Protocol: "ftp"}, Send: []byte("STAT\r\n"), Expect: regexp.MustCompile("^220")}, false},
		} {
			c.cfg.Protocol, c.cfg.Timeout = "tcp", 400*time.Millisecond
			p := runProbe(t, context.Background(), c.cfg)
			if p.Unmatched != c.unmatched || !c.unmatched && p.Outcome != evidence.Answered || p.Banner == "" {
				t.Errorf("%s: %s unmatched=%v %q", name, p.Outcome, p.Unmatched, p.Banner)
			}
		}
	})
}

// certificate makes a certificate for web.example that is signed by parent, or by itself.
func certificate(t *testing.T, from, to time.Time, parent *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "web"}, DNSNames: []string{"web.example"}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: parent == nil, BasicConstraintsValid: true,
	}
	signer, by := any(key), template
	if parent != nil {
		signer, by = parent.PrivateKey, parent.Leaf
		template.Subject.CommonName = "leaf"
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestCertificateProblems(t *testing.T) {
	now := time.Now()
	ago, later := now.Add(-48*time.Hour), now.Add(48*time.Hour)
	ca := certificate(t, ago, later, nil)
	roots := x509.NewCertPool()
	roots.AddCert(ca.Leaf)
	for name, c := range map[string]struct {
		leaf  tls.Certificate
		host  string
		roots *x509.CertPool
		want  []string // each a part of one problem
	}{
		"good":                {certificate(t, ago, later, &ca), "web.example", roots, nil},
		"expired":             {certificate(t, ago, now.Add(-time.Hour), &ca), "web.example", roots, []string{"expired on"}},
		"not yet":             {certificate(t, now.Add(time.Hour), later, &ca), "web.example", roots, []string{"not valid before"}},
		"another name":        {certificate(t, ago, later, &ca), "www.example", roots, []string{"is not for www.example but for web.example"}},
		"by address":          {certificate(t, ago, later, &ca), "10.0.0.5", roots, []string{"is not for 10.0.0.5"}},
		"self-signed":         {ca, "web.example", x509.NewCertPool(), []string{"signed by itself"}},
		"unknown":             {certificate(t, ago, later, &ca), "web.example", x509.NewCertPool(), []string{"no authority that this host trusts"}},
		"all at once":         {certificate(t, ago, now.Add(-time.Hour), &ca), "x", x509.NewCertPool(), []string{"expired", "is not for x", "no authority"}},
		"no roots to ask for": {certificate(t, ago, later, &ca), "web.example", nil, nil},
	} {
		got := problems([]*x509.Certificate{c.leaf.Leaf}, c.host, c.roots, now)
		if len(got) != len(c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
			continue
		}
		for i, part := range c.want {
			if !strings.Contains(got[i], part) {
				t.Errorf("%s: %q has no %q", name, got[i], part)
			}
		}
	}
}

func TestTLS(t *testing.T) {
	inNetns(t, func() {
		cert := certificate(t, time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour), nil)
		over := func(cfg *tls.Config, f func(net.Conn)) netip.AddrPort {
			cfg.Certificates = []tls.Certificate{cert}
			return serve(t, func(c net.Conn) {
				s := tls.Server(c, cfg)
				if s.Handshake() != nil {
					c.Close()
					return
				}
				f(s)
			})
		}
		web := over(&tls.Config{}, says("GET /", "HTTP/1.1 200 OK\r\n\r\n"))
		p := runProbe(t, context.Background(), Config{Protocol: "tcp", Target: web, Timeout: 5 * time.Second, Speech: Speech{Protocol: "http", TLS: true, Host: "web.example"}})
		if p.Outcome != evidence.Answered || p.Dialogue.Reply != "ok" || p.Dialogue.Line != "HTTP/1.1 200 OK" {
			t.Errorf("https: %s %+v", p.Outcome, p.Dialogue)
		}
		f := p.Dialogue.TLS
		if f.Version != "TLS 1.3" || f.SNI != "web.example" || len(f.Certificates) != 1 || !strings.Contains(strings.Join(f.Problems, "\n"), "expired on") {
			t.Errorf("facts: %+v", f)
		}
		mutual := over(&tls.Config{ClientAuth: tls.RequireAnyClientCert}, says("GET /", "HTTP/1.1 200 OK\r\n\r\n"))
		p = runProbe(t, context.Background(), Config{Protocol: "tcp", Target: mutual, Timeout: 5 * time.Second, Speech: Speech{Protocol: "http", TLS: true, Host: "web.example"}})
		if p.Outcome != evidence.Answered || p.Dialogue.Reply != "error" || p.Dialogue.TLS.Alert != "certificate required" {
			t.Errorf("a demand for a client's certificate: %s %+v %+v", p.Outcome, p.Dialogue, p.Dialogue.TLS)
		}
	})
}
