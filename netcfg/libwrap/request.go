// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"net/netip"
	"strings"
)

// NameState says what became of the lookup of a host's name, which libwrap
// makes twice: the name of the address, then the addresses of that name.
type NameState int

// The states of a name, hosts_access(5) "WILDCARDS".
const (
	NameNotAsked NameState = iota // nobody has looked it up, unless a name is given
	NameKnown                     // both lookups agree
	NameUnknown                   // there is none: matches UNKNOWN
	NameParanoid                  // the lookups disagree: matches PARANOID
)

// Unknown words of libwrap for what could not be found out.
const (
	unknown  = "unknown"
	paranoid = "paranoid"
)

// Request is what libwrap knows about one connection, hosts_access(3).
type Request struct {
	Daemon string // the name that the server gives to libwrap; mostly that of its program
	// AnyDaemon says that this name is not known to us.
	AnyDaemon bool

	Client      netip.Addr // with its zone where it has one; IPv4-mapped is welcome
	ClientName  string
	ClientState NameState

	ServerAddr  netip.Addr // the server's end of the connection; invalid: not known to us
	ServerPort  uint16     // 0: not known to us
	ServerName  string
	ServerState NameState
	// NoServer says that the server tells libwrap nothing about its own end,
	// as those do that call hosts_ctl(3).
	NoServer bool

	// User is what the client's RFC 1413 server calls the user: "unknown" where
	// there is no such server. Empty: nobody has asked it.
	User string
}

// longest is how much libwrap keeps of a name (STRING_LENGTH, less its end mark).
const longest = 127

func clip(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	return s[:min(len(s), longest)]
}

// endpoint is one end of the connection in libwrap's own words. What is not
// given is not known to us, though it may well be to libwrap.
type endpoint struct {
	addr, name           string
	addrGiven, nameGiven bool
}

func newEndpoint(a netip.Addr, name string, state NameState) endpoint {
	e := endpoint{addr: addrText(a), addrGiven: a.IsValid(), name: clip(name), nameGiven: true}
	switch {
	case state == NameUnknown:
		e.name = unknown
	case state == NameParanoid:
		e.name = paranoid
	case name == "":
		e.nameGiven = false
	}
	return e
}

func (e endpoint) nameKnown() bool { return !fold(e.name, unknown) && !fold(e.name, paranoid) }

func (r Request) client() endpoint { return newEndpoint(r.Client, r.ClientName, r.ClientState) }

func (r Request) server() endpoint {
	if r.NoServer {
		return endpoint{addr: unknown, name: unknown, addrGiven: true, nameGiven: true}
	}
	return newEndpoint(r.ServerAddr, r.ServerName, r.ServerState)
}
