// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"encoding/binary"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// addrText writes an address as getnameinfo(3) does, which is what patterns are compared with.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return unknown
	}
	b := a.As16()
	if a.Is6() && strings.Trim(string(b[:12]), "\x00") == "" && (b[12] != 0 || b[13] != 0) {
		return "::" + netip.AddrFrom4([4]byte(b[12:])).String() // IPv4-compatible
	}
	return a.String()
}

// dotQuad reads an IPv4 address of exactly four groups as inet_addr(3) does:
// octal and hexadecimal groups count, and 255.255.255.255 is the value for "not one".
func dotQuad(s string) (uint32, bool) {
	groups := strings.Split(strings.TrimRight(s, " \t\n\v\f\r"), ".")
	if len(groups) != 4 {
		return 0, false
	}
	var v uint32
	for _, g := range groups {
		n, ok := quadGroup(g)
		if !ok {
			return 0, false
		}
		v = v<<8 | n
	}
	return v, v != math.MaxUint32
}

func quadGroup(g string) (uint32, bool) {
	if g == "" || g[0] < '0' || g[0] > '9' || strings.Contains(g, "_") {
		return 0, false
	}
	base := 10
	switch {
	case len(g) > 2 && (g[:2] == "0x" || g[:2] == "0X"):
		base, g = 16, g[2:]
	case len(g) > 1 && g[0] == '0':
		base = 8
	}
	n, err := strconv.ParseUint(g, base, 8)
	return uint32(n), err == nil
}

// atoi is that of the C library: what cannot be read is 0, what is too big wraps.
func atoi(s string) int {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	n, _, _ := leadingInt(s, 10)
	return int(int32(n))
}

// leadingInt reads a number as strtol(3) does and returns what follows it.
func leadingInt(s string, base uint64) (n int64, rest string, ok bool) {
	negative := false
	if s != "" && (s[0] == '-' || s[0] == '+') {
		negative, s = s[0] == '-', s[1:]
	}
	var v uint64
	i := 0
	for ; i < len(s) && s[i] >= '0' && uint64(s[i]-'0') < base; i++ {
		d := uint64(s[i] - '0')
		if v > (math.MaxInt64-d)/base {
			v = math.MaxInt64
			continue
		}
		v = v*base + d
	}
	switch {
	case negative && v == math.MaxInt64:
		n = math.MinInt64
	case negative:
		n = -int64(v)
	default:
		n = int64(v)
	}
	return n, s[i:], i > 0
}

// wholeInt reads a number that nothing may follow.
func wholeInt(s string, base uint64) (int64, bool) {
	n, rest, ok := leadingInt(strings.TrimLeft(s, " \t\n\v\f\r"), base)
	return n, ok && rest == ""
}

// parse6 reads an IPv6 address as getaddrinfo(3) does when told to look nothing up.
func parse6(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	return a, err == nil && a.Is6()
}

func bracketed(tok string) bool { return len(tok) > 1 && tok[0] == '[' && tok[len(tok)-1] == ']' }

// unmap takes the IPv4 address out of an IPv4-mapped one.
func unmap(s string) (string, bool) {
	const prefix = "::ffff:"
	if len(s) <= len(prefix) || !fold(s[:len(prefix)], prefix) {
		return s, false
	}
	_, ok := dotQuad(s[len(prefix):])
	if !ok {
		return s, false
	}
	return s[len(prefix):], true
}

// masked matches an address with net/mask.
func masked(network, mask, addr string) tri {
	four, mapped := unmap(addr)
	if masked4(network, mask, four) {
		return yes
	}
	if mapped {
		return no
	}
	return masked6(network, mask, addr)
}

func masked4(network, mask, addr string) bool {
	a, ok := dotQuad(addr)
	if !ok {
		return false
	}
	n, m, ok := net4(network, mask)
	return ok && a&m == n
}

// net4 reads net/mask; the mask may be four groups or the length of the prefix, from 1 to 32.
func net4(network, mask string) (n, m uint32, ok bool) {
	n, ok = dotQuad(network)
	if !ok {
		return 0, 0, false
	}
	if m, ok = dotQuad(mask); ok {
		return n, m, true
	}
	bits := atoi(mask)
	if bits < 1 || bits > 32 {
		return 0, 0, false
	}
	return n, math.MaxUint32 << (32 - bits), true
}

func masked6(network, mask, addr string) tri {
	a, ok := parse6(addr)
	if !ok || !bracketed(network) {
		return no
	}
	n, ok := parse6(network[1 : len(network)-1])
	bits := atoi(mask)
	if !ok || bits < 0 || bits > 128 {
		return no
	}
	x, y := a.As16(), n.As16()
	for i := 0; i < 16 && bits > 0; i, bits = i+4, bits-32 {
		m := uint32(math.MaxUint32)
		if bits < 32 {
			m <<= 32 - bits
		}
		if (binary.BigEndian.Uint32(x[i:])^binary.BigEndian.Uint32(y[i:]))&m != 0 {
			return no
		}
	}
	return zoned(n, a)
}

// same6 compares a bracketed pattern with an address.
func same6(tok, addr string) tri {
	p, ok := parse6(tok[1 : len(tok)-1])
	if !ok {
		return no
	}
	a, ok := parse6(addr)
	if !ok || p.As16() != a.As16() {
		return no
	}
	return zoned(p, a)
}

// zoned says whether a pattern that fits the address can be read at all. libwrap
// as built for Linux does not compare zones, but one that is a name must be
// that of an interface, of an address that has any.
func zoned(pattern, addr netip.Addr) tri {
	z := pattern.Zone()
	_, err := strconv.ParseUint(z, 10, 32)
	switch {
	case z == "" || err == nil:
		return yes
	case digits(z) || !(pattern.IsLinkLocalUnicast() || pattern.IsLinkLocalMulticast() || pattern.IsInterfaceLocalMulticast()):
		return no
	case z == addr.Zone() || z == "lo":
		return yes
	}
	return maybe
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
