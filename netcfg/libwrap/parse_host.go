// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"net/netip"
	"strings"
)

// host warns of a pattern that does not match what it seems to.
func (p *parser) host(tok string) {
	if tok == "" || tok[0] == '@' {
		return
	}
	if tok[0] == '/' {
		p.hostFile(tok)
		return
	}
	network, mask, isMasked := splitAt(tok, '/')
	switch {
	case strings.ContainsAny(tok, "[]") && strings.ContainsAny(tok, "*?"):
		p.warn("%s: * and ? do not work in square brackets: it matches nothing", tok)
	case strings.HasPrefix(tok, "[") && !isMasked && strings.Contains(tok, "/"):
		p.warn("%s: the length of the prefix belongs behind the brackets: it matches nothing", tok)
	case tok[0] == '[' && !isMasked && bracketed(tok):
		p.literal6(tok, tok)
	case isMasked && bracketed(network):
		p.net6(tok, network, mask)
	case isMasked:
		p.net4(tok, network, mask)
	case numeric(tok):
		p.literal4(tok)
	}
}

// literal6 says whether the brackets hold an address that can match.
func (p *parser) literal6(tok, literal string) bool {
	a, ok := parse6(literal[1 : len(literal)-1])
	switch {
	case !ok:
		p.warn("%s: the brackets hold no IPv6 address: it matches nothing", tok)
	case a.Is4In6():
		p.warn("%s: IPv4-mapped clients are compared as IPv4: it matches nothing", tok)
	default:
		return true
	}
	return false
}

func (p *parser) net6(tok, network, mask string) {
	if !p.literal6(tok, network) {
		return
	}
	bits := atoi(mask)
	switch {
	case bits < 0 || bits > 128:
		p.warn("%s: the length of the prefix is not one of 0 to 128: it matches nothing", tok)
	case !digits(mask):
		p.warn("%s: the length of the prefix is read as %d", tok, bits)
	}
}

func (p *parser) net4(tok, network, mask string) {
	bare, ok := dotQuad(network)
	if !ok {
		p.warn("%s: a network has four groups of numbers (IPv6 in square brackets): it matches nothing", tok)
		return
	}
	_, m, ok := net4(network, mask)
	switch {
	case !ok && mask == "255.255.255.255":
		p.warn("%s: it matches nothing; write /32, or the address alone", tok)
	case !ok && atoi(mask) == 0:
		p.warn("%s: it matches nothing; all of IPv4 is 0.0.0.0/0.0.0.0", tok)
	case !ok:
		p.warn("%s: the mask is neither four groups nor a length of 1 to 32: it matches nothing", tok)
	case bare&^m != 0:
		p.warn("%s: bits of the host are set, so that it matches nothing; the network is %s/%s", tok, quad(bare&m), mask)
	case quad(bare) != network:
		p.warn("%s: a leading 0 makes a number octal: the network is %s", tok, quad(bare))
	}
}

func quad(v uint32) string {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, v))).String()
}

// literal4 looks at numbers and dots alone, which are compared as text.
func (p *parser) literal4(tok string) {
	if tok[0] == '.' || strings.HasSuffix(tok, ".") || p.cut {
		return
	}
	if _, err := netip.ParseAddr(tok); err == nil {
		return
	}
	if strings.Count(tok, ".") < 3 {
		p.warn("%s: a network prefix ends in a dot: it matches nothing", tok)
		return
	}
	p.warn("%s is not how an IPv4 address is written: it matches nothing", tok)
}

// hostFile looks at a file of patterns, not at those which that one names.
func (p *parser) hostFile(path string) {
	data, err := p.open.read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.warn("%s does not exist: it matches nothing", path)
		return
	case err != nil:
		p.warn("%s is not read: %v", path, cause(err))
		return
	}
	for _, tok := range fields(data) {
		if tok[0] == '#' {
			p.warn("%s knows no comments: every word in it is a pattern", path)
			return
		}
	}
}
