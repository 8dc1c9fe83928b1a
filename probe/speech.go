// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Speech is which protocol to speak once connected, and about what.
type Speech struct {
	Protocol string // one of [Protocols]; empty: none
	TLS      bool   // from the first byte
	Host     string // name or address of the service: SNI, certificate, Host of HTTP
	Path     string // http: request target; postgresql: database; dns: the name to ask for
	User     string // postgresql
}

// Any reports whether there is anything to say or hear.
func (s Speech) Any() bool { return s.Protocol != "" || s.TLS }

// Protocols lists what a [Speech] can be in.
func Protocols() []string { return slices.Sorted(maps.Keys(protocols)) }

// script is the dialogue of the protocol that is to be spoken.
func (c *Config) script(local netip.AddrPort) (script, error) {
	if c.Speech.Protocol == "" {
		return script{}, nil
	}
	f := protocols[c.Speech.Protocol]
	if f == nil {
		return script{}, fmt.Errorf("no dialogue for protocol %q", c.Speech.Protocol)
	}
	return f(c.Speech, local, c.Target)
}

// step of a dialogue: what the client says, and what it then awaits.
type step struct {
	said string // for the report
	say  []byte
	hear hear
}

// script is a dialogue: its steps, and a goodbye to which no answer is awaited.
type script struct {
	steps []step
	bye   string
}

// protocols say who speaks first, and the least that is polite and harmless: no
// login is tried, nothing is changed.
var protocols = map[string]func(s Speech, local, target netip.AddrPort) (script, error){
	"ftp":        fixed(script{steps: []step{{hear: code()}}, bye: "QUIT\r\n"}),
	"ssh":        fixed(script{steps: []step{{hear: sshVersion}}}),
	"pop3":       fixed(script{steps: []step{{hear: marked([]string{"+OK"}, []string{"-ERR"})}}, bye: "QUIT\r\n"}),
	"imap":       fixed(script{steps: []step{{hear: marked([]string{"* OK", "* PREAUTH"}, []string{"* BYE"})}}, bye: "a LOGOUT\r\n"}),
	"smtp":       smtp,
	"http":       http,
	"redis":      redis,
	"mysql":      fixed(script{steps: []step{{hear: mysqlGreeting}}, bye: mysqlGuest}),
	"postgresql": postgresql,
	"dns":        dns,
}

func fixed(s script) func(Speech, netip.AddrPort, netip.AddrPort) (script, error) {
	return func(Speech, netip.AddrPort, netip.AddrPort) (script, error) { return s, nil }
}

func say(words string, h hear) step {
	return step{said: strings.TrimRight(words, "\r\n"), say: []byte(words), hear: h}
}

// smtp awaits the greeting, then says EHLO with an address literal (RFC 5321
// 4.1.3), for which no server looks anything up. That it knows no EHLO is no trouble.
func smtp(_ Speech, local, _ netip.AddrPort) (script, error) {
	literal := "[127.0.0.1]"
	switch a := local.Addr().Unmap(); {
	case a.Is4():
		literal = "[" + a.String() + "]"
	case a.Is6():
		literal = "[IPv6:" + a.WithZone("").String() + "]"
	}
	return script{
		steps: []step{{hear: code()}, say("EHLO "+literal+"\r\n", code("500", "501", "502", "550"))},
		bye:   "QUIT\r\n",
	}, nil
}

func http(s Speech, _, target netip.AddrPort) (script, error) {
	host := s.Host
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.WithZone("").String()
	}
	usual := uint16(80)
	if s.TLS {
		usual = 443
	}
	if target.Port() != usual {
		host = net.JoinHostPort(host, strconv.Itoa(int(target.Port())))
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	path := s.Path
	if path == "" {
		path = "/"
	}
	if strings.ContainsFunc(path+host, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return script{}, fmt.Errorf("a space or control character in %q", host+path)
	}
	first := "GET " + path + " HTTP/1.1"
	words := first + "\r\nHost: " + host + "\r\nUser-Agent: pathtrace\r\nAccept: */*\r\nConnection: close\r\n\r\n"
	if before, _, query := strings.Cut(first, "?"); query {
		first = before + "?…" // may hold a token
	}
	return script{steps: []step{{said: first, say: []byte(words), hear: httpStatus}}}, nil
}

// redis asks PING. A demand for a password is an answer.
func redis(Speech, netip.AddrPort, netip.AddrPort) (script, error) {
	h := marked([]string{"+PONG", "-NOAUTH", "-NOPERM", "-WRONGPASS"}, []string{"-"})
	return script{steps: []step{say("PING\r\n", h)}, bye: "QUIT\r\n"}, nil
}

// mysqlGuest is a HandshakeResponse41 without a user. A server counts a client
// that goes away before this against max_connect_errors; one that it then turns away it does not.
const mysqlGuest = "\x22\x00\x00\x01" + "\x00\x82\x00\x00" + "\x00\x00\x00\x01" + "\x21" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00"

// postgresql begins a session as pg_isready does, and stops when asked for a password.
func postgresql(s Speech, _, _ netip.AddrPort) (script, error) {
	user, database := s.User, strings.Trim(s.Path, "/")
	if user == "" {
		user = "pathtrace"
	}
	if database == "" {
		database = user
	}
	if strings.ContainsRune(user+database, 0) || len(user)+len(database) > 1024 {
		return script{}, fmt.Errorf("not a user and database: %q, %q", user, database)
	}
	body := "\x00\x03\x00\x00user\x00" + user + "\x00database\x00" + database + "\x00\x00"
	b := binary.BigEndian.AppendUint32(nil, uint32(4+len(body)))
	return script{
		steps: []step{{said: fmt.Sprintf("StartupMessage user=%s database=%s", user, database), say: append(b, body...), hear: postgresReply(s.User == "")}},
		bye:   "X\x00\x00\x00\x04", // Terminate
	}, nil
}

func dns(s Speech, _, _ netip.AddrPort) (script, error) {
	q, err := newQuestion(strings.Trim(s.Path, "/"))
	if err != nil {
		return script{}, err
	}
	b, err := q.pack()
	if err != nil {
		return script{}, err
	}
	b = append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
	return script{steps: []step{{said: "query " + q.String(), say: b, hear: q.stream}}}, nil
}
