// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
)

const (
	maxCertificates = 10  // kept of a chain
	maxNames        = 100 // kept of a certificate
	maxText         = 256 // bytes kept of a name
)

// secure does a TLS handshake. It takes any certificate, and notes what is wrong
// with it: why others fail is what is asked. It returns how the probe ended, or
// "" when it may go on.
func (c *conversation) secure() string {
	sp, facts := c.cfg.Speech, &evidence.TLS{}
	c.probe.Dialogue.TLS = facts
	cfg := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10} //nolint:gosec // verified below, to tell why
	if _, err := netip.ParseAddr(sp.Host); err != nil {                        // RFC 6066 3: no addresses
		cfg.ServerName = strings.TrimSuffix(sp.Host, ".")
		facts.SNI = cfg.ServerName
	}
	if sp.Protocol == "http" {
		cfg.NextProtos = []string{"http/1.1"}
	}
	c.probe.Dialogue.Said = append(c.probe.Dialogue.Said, strings.TrimSpace("TLS ClientHello "+facts.SNI))
	conn := tls.Client(c.stream, cfg)
	err := conn.Handshake() // the stream ends with its context
	state := conn.ConnectionState()
	if len(state.PeerCertificates) > 0 {
		facts.Certificates = certificates(state.PeerCertificates)
		roots, rootsErr := x509.SystemCertPool()
		switch {
		case rootsErr != nil:
			facts.Unverified = "the authorities that this host trusts could not be read: " + rootsErr.Error()
		case roots.Equal(x509.NewCertPool()):
			facts.Unverified, roots = "this host has no certificates of authorities that it trusts (ca-certificates)", nil
		}
		facts.Problems = problems(state.PeerCertificates, sp.Host, roots, time.Now())
	}
	if err == nil {
		facts.Version, facts.Cipher = tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)
		c.conn = conn
		return ""
	}
	return c.insecure(err, facts)
}

// insecure says what the failure of a handshake means.
func (c *conversation) insecure(err error, facts *evidence.TLS) string {
	facts.Failed = err.Error()
	var record tls.RecordHeaderError
	switch {
	case c.refused(err):
		return evidence.Answered
	case errors.As(err, &record):
		c.heard = bytes.Clone(c.stream.raw)
		c.probe.Banner = string(c.heard)
		c.reply(foreign(c.heard, true))
		return c.turnedAway()
	}
	return c.end(err)
}

// refused notes a TLS alert by which the server ended the session.
func (c *conversation) refused(err error) bool {
	var op *net.OpError
	if err == nil || c.probe.Dialogue == nil || c.probe.Dialogue.TLS == nil || !errors.As(err, &op) || op.Op != "remote error" {
		return false
	}
	alert := strings.TrimPrefix(op.Err.Error(), "tls: ")
	facts := c.probe.Dialogue.TLS
	facts.Alert = alert
	c.probe.Unmatched = true
	c.reply(heard{reply: evidence.ReplyError, line: "TLS alert: " + alert})
	return true
}

func certificates(chain []*x509.Certificate) []evidence.Certificate {
	var out []evidence.Certificate
	for _, c := range chain[:min(len(chain), maxCertificates)] {
		sum := sha256.Sum256(c.Raw)
		e := evidence.Certificate{
			Subject: clip(c.Subject.String()), Issuer: clip(c.Issuer.String()),
			NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), SHA256: hex.EncodeToString(sum[:]),
		}
		for _, n := range c.DNSNames {
			e.Names = append(e.Names, clip(n))
		}
		for _, a := range c.IPAddresses {
			e.Names = append(e.Names, a.String())
		}
		e.Names = e.Names[:min(len(e.Names), maxNames)]
		out = append(out, e)
	}
	return out
}

func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}

// problems tells each reason for which a client refuses the certificate. Without
// roots its signer is not judged.
func problems(chain []*x509.Certificate, host string, roots *x509.CertPool, now time.Time) []string {
	leaf := chain[0]
	var out []string
	switch {
	case now.After(leaf.NotAfter):
		out = append(out, fmt.Sprintf("the certificate expired on %s", day(leaf.NotAfter)))
	case now.Before(leaf.NotBefore):
		out = append(out, fmt.Sprintf("the certificate is not valid before %s", day(leaf.NotBefore)))
	}
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.WithZone("").String()
	}
	if err := leaf.VerifyHostname(host); err != nil {
		out = append(out, fmt.Sprintf("the certificate is not for %s but for %s", host, named(leaf)))
	}
	if roots == nil {
		return out
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	at := now // a moment at which the leaf was valid: its own dates are told already
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	} else if at.Before(leaf.NotBefore) {
		at = leaf.NotBefore
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: at})
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
	case errors.As(err, &unknown) && selfSigned(leaf):
		out = append(out, "the certificate is signed by itself, and this host does not trust it")
	case errors.As(err, &unknown) && len(chain) == 1:
		out = append(out, fmt.Sprintf("no authority that this host trusts signed the certificate (its issuer is %s, and the server sent no other certificate)", clip(leaf.Issuer.String())))
	case errors.As(err, &unknown):
		out = append(out, fmt.Sprintf("no authority that this host trusts signed the certificate (its issuer is %s)", clip(leaf.Issuer.String())))
	default:
		out = append(out, strings.TrimPrefix(clip(err.Error()), "x509: "))
	}
	return out
}

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// named is what a certificate is for, in a few words.
func named(c *x509.Certificate) string {
	var names []string
	for _, n := range c.DNSNames {
		names = append(names, clip(n))
	}
	for _, a := range c.IPAddresses {
		names = append(names, a.String())
	}
	switch {
	case len(names) == 0 && c.Subject.CommonName != "":
		return "no name (its subject is " + clip(c.Subject.CommonName) + ", which no client looks at)"
	case len(names) == 0:
		return "no name"
	case len(names) > 4:
		return fmt.Sprintf("%s and %d others", strings.Join(names[:4], ", "), len(names)-4)
	}
	return strings.Join(names, ", ")
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
