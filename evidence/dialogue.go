// SPDX-License-Identifier: Apache-2.0

package evidence

import "time"

// MaxHeard bounds what is kept of what a server said, in bytes.
const MaxHeard = 4096

// What a server's answer was, as its protocol defines it.
const (
	ReplyOK      = "ok"      // an answer that the protocol calls good, or that is about our question alone
	ReplyError   = "error"   // an error of the server: 421, 5xx, a TLS alert …
	ReplyForeign = "foreign" // not this protocol
	ReplyNone    = "none"    // no whole answer
)

// Dialogue is what the probe and a server said to one another.
type Dialogue struct {
	Protocol string   `json:"protocol"`       // http, ssh, dns …; tls where nothing but that was spoken
	Said     []string `json:"said,omitempty"` // by the probe, a line each, without credentials
	Reply    string   `json:"reply"`
	Line     string   `json:"line,omitempty"` // what decided about Reply, in the protocol's own words
	TLS      *TLS     `json:"tls,omitempty"`
}

// TLS is what was seen of a TLS handshake.
type TLS struct {
	SNI     string `json:"sni,omitempty"`     // server name that was asked for
	Version string `json:"version,omitempty"` // TLS 1.3; empty: no handshake was completed
	Cipher  string `json:"cipher,omitempty"`
	Alert   string `json:"alert,omitempty"`  // what the server refused the handshake with, as RFC 8446 names it
	Failed  string `json:"failed,omitempty"` // why the handshake came to no end
	// Certificates as the server sent them, its own first.
	Certificates []Certificate `json:"certificates,omitempty"`
	Problems     []string      `json:"problems,omitempty"` // why a client that checks the certificate refuses it
	Unverified   string        `json:"unverified,omitempty"`
}

// Certificate of a TLS server.
type Certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Names     []string  `json:"names,omitempty"` // host names and addresses it is for
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	SHA256    string    `json:"sha256"` // of the whole certificate, hexadecimal
}
