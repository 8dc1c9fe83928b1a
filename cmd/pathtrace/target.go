// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"github.com/pathtrace/pathtrace/probe"
)

// Target is where the probe is to go.
type Target struct {
	Input     string // as typed, without a password
	Host      string // a name, or an address without brackets
	Port      uint16
	Protocol  string       // tcp, udp or icmp
	Scheme    string       // of a URL; empty if it was none
	Path      string       // of a URL whose protocol has a use for it, with its query
	User      string       // of a URL whose protocol names a user before it asks for a password
	Addresses []netip.Addr // filled by Resolve, in the resolver's order
	Lookup    []string     // filled by Resolve: where the addresses came from
}

// scheme is what the first word of a URL stands for.
type scheme struct {
	port     uint16 // 0: the URL must name it
	protocol string // tcp, udp or icmp
	speaks   string // one of probe.Protocols; empty: nothing is said
	tls      bool   // from the first byte
}

var schemes = map[string]scheme{
	"tcp": {0, "tcp", "", false}, "udp": {0, "udp", "", false}, "icmp": {0, "icmp", "", false}, "tls": {0, "tcp", "", true},
	"http": {80, "tcp", "http", false}, "https": {443, "tcp", "http", true},
	"ftp": {21, "tcp", "ftp", false}, "ftps": {990, "tcp", "ftp", true},
	"ssh":  {22, "tcp", "ssh", false},
	"smtp": {25, "tcp", "smtp", false}, "smtps": {465, "tcp", "smtp", true},
	"pop3": {110, "tcp", "pop3", false}, "pop3s": {995, "tcp", "pop3", true},
	"imap": {143, "tcp", "imap", false}, "imaps": {993, "tcp", "imap", true},
	"redis": {6379, "tcp", "redis", false}, "rediss": {6379, "tcp", "redis", true},
	"mysql":    {3306, "tcp", "mysql", false},
	"postgres": {5432, "tcp", "postgresql", false}, "postgresql": {5432, "tcp", "postgresql", false},
	"dns": {53, "udp", "dns", false}, "dns+tcp": {53, "tcp", "dns", false},
}

// schemeWords are the schemes as help and errors list them.
const schemeWords = "tcp udp icmp tls http(s) ftp(s) ssh smtp(s) pop3(s) imap(s) redis(s) mysql postgresql dns dns+tcp"

// ParseTarget understands HOST:PORT, [V6]:PORT, HOST PORT and URLs. It looks
// nothing up but names of services; Resolve does the rest.
func ParseTarget(args []string, o Options) (Target, error) {
	var t Target
	var err error
	switch {
	case len(args) == 0:
		return t, badUse("no target: pathtrace HOST:PORT (pathtrace --help shows more)")
	case len(args) > 2:
		return t, badUse("one target at a time: HOST:PORT, or HOST PORT; got %d words", len(args))
	case len(args) == 2:
		t, err = parsePair(args[0], args[1])
	case strings.Contains(args[0], "://"):
		t, err = parseURL(args[0])
	default:
		t, err = parseHostPort(args[0])
	}
	if err != nil {
		return t, err
	}
	switch {
	case o.UDP && t.Scheme != "" && schemes[t.Scheme].protocol != "udp":
		return t, badUse("-u and %s:// exclude each other", t.Scheme)
	case t.Scheme != "":
		t.Protocol = schemes[t.Scheme].protocol
	case o.UDP:
		t.Protocol = "udp"
	default:
		t.Protocol = "tcp"
	}
	return t, t.check(o)
}

func parsePair(host, port string) (Target, error) {
	t := Target{Input: host + " " + port}
	if strings.Contains(host, "://") {
		return t, badUse("a URL holds its port itself: tcp://HOST:%s", port) // it is not repeated: it may hold a password
	}
	t.Host = unbracket(host)
	if strings.Contains(t.Host, ":") {
		if _, err := netip.ParseAddr(t.Host); err != nil {
			return t, badUse("%s %s: two ports, or not an address", host, port)
		}
	}
	var err error
	if t.Port, err = parsePort(port); err != nil {
		return t, badUse("%s %s: %w", host, port, err)
	}
	return t, nil
}

func parseHostPort(s string) (Target, error) {
	t := Target{Input: s}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return t, unsplit(s)
	}
	t.Host = host
	if strings.HasPrefix(s, "[") {
		if a, err := netip.ParseAddr(host); err != nil || a.Is4() {
			return t, badUse("%s: only an IPv6 address stands in brackets", s)
		}
	}
	if t.Port, err = parsePort(port); err != nil {
		return t, badUse("%s: %w", s, err)
	}
	return t, nil
}

// unsplit says what is wrong with something that is not HOST:PORT.
func unsplit(s string) error {
	if a, err := netip.ParseAddr(unbracket(s)); err == nil && a.Is6() {
		i := strings.LastIndex(s, ":")
		_, portErr := parsePort(s[i+1:])
		if head, err := netip.ParseAddr(s[:i]); err == nil && portErr == nil && !strings.HasPrefix(s, "[") {
			return badUse("%s: is %s the port? An IPv6 address goes in brackets: [%s]:%s", s, s[i+1:], head, s[i+1:])
		}
		return badUse("%s: no port: write [%s]:PORT", s, a)
	}
	switch i := strings.LastIndex(s, ":"); {
	case i < 0:
		return badUse("%s: no port: write %s:PORT", s, s)
	case strings.Count(s, ":") > 1 && !strings.HasPrefix(s, "["):
		if head, err := netip.ParseAddr(s[:i]); err == nil {
			return badUse("%s: an IPv6 address goes in brackets: [%s]:%s", s, head, s[i+1:])
		}
	}
	return badUse("%s: not HOST:PORT; an IPv6 address goes in brackets: [2001:db8::1]:80", s)
}

func parseURL(s string) (Target, error) {
	word, _, _ := strings.Cut(s, "://")
	word = strings.ToLower(word)
	t := Target{Input: s, Scheme: word}
	known, ok := schemes[word]
	if !ok {
		return t, badUse("%s://: not a scheme that is known here: %s", word, schemeWords)
	}
	u, err := url.Parse(s)
	if err != nil {
		// The library's error repeats the URL, password and all.
		return t, badUse("not a URL that can be understood: %s://…", word)
	}
	if _, secret := u.User.Password(); secret {
		t.Input = u.Redacted()
	}
	if u.Opaque != "" || u.Host == "" {
		return t, badUse("%s: no host in it", t.Input)
	}
	t.Host, t.Port = u.Hostname(), known.port
	switch known.speaks {
	case "http":
		t.Path = strings.TrimPrefix(u.RequestURI(), "/")
		if t.Path != "" {
			t.Path = "/" + t.Path
		}
	case "postgresql":
		t.Path, t.User = u.Path, u.User.Username()
	case "dns":
		t.Path = u.Path
	}
	switch port := u.Port(); {
	case word == "icmp" && port != "":
		return t, badUse("%s: ICMP has no ports", t.Input)
	case word == "icmp":
	case port != "":
		if t.Port, err = parsePort(port); err != nil {
			return t, badUse("%s: %w", t.Input, err)
		}
	case known.port == 0:
		return t, badUse("%s: no port: write %s://%s:PORT", t.Input, word, u.Host)
	}
	return t, nil
}

// parsePort takes a number from 1 to 65535 or the name of a service.
func parsePort(s string) (uint16, error) {
	switch {
	case s == "":
		return 0, fmt.Errorf("no port")
	case strings.Trim(s, "0123456789") == "":
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("port %s is not one of 1 to 65535", s)
		}
		return uint16(n), nil
	case !unicode.IsLetter(rune(s[0])):
		return 0, fmt.Errorf("%q is not a port", s)
	}
	n, err := net.DefaultResolver.LookupPort(context.Background(), "tcp", s)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is neither a port nor the name of a TCP service", s)
	}
	return uint16(n), nil
}

// speech is what the target's scheme has the probe say.
func (t *Target) speech() probe.Speech {
	known := schemes[t.Scheme]
	return probe.Speech{Protocol: known.speaks, TLS: known.tls, Host: t.Host, Path: t.Path, User: t.User}
}

func unbracket(s string) string {
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		return s[1 : len(s)-1]
	}
	return s
}

// check compares the host with what the flags demand, as far as that needs no lookup.
func (t *Target) check(o Options) error {
	if t.Host == "" {
		return badUse("%s: no host", t.Input)
	}
	a, err := netip.ParseAddr(t.Host)
	if err != nil {
		if strings.ContainsFunc(t.Host, func(r rune) bool { return r <= ' ' || r == '/' || r == '@' || !unicode.IsPrint(r) }) || strings.HasPrefix(t.Host, "-") {
			return badUse("%q is not a host", t.Host)
		}
		if o.Numeric {
			return badUse("%s is a name, and -n looks none up", t.Host)
		}
		return nil
	}
	a = a.Unmap()
	switch {
	case o.Family != 0 && o.Family != family(a) && o.Source.IsValid():
		return badUse("%s and the source %s are of different families", a, o.Source)
	case o.Family != 0 && o.Family != family(a):
		return badUse("%s is not an IPv%d address (-%d)", a, o.Family, o.Family)
	case a.IsUnspecified():
		return badUse("%s is no address to connect to", a)
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return badUse("%s is not an address of one host: TCP cannot go there", a)
	case a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" && o.Device == "":
		return badUse("%s is link-local: say on which device, %s%%eth0 or -i eth0", a, a)
	}
	t.Addresses = []netip.Addr{a}
	return nil
}
