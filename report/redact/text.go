// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Text substitutes within prose, rule texts, commands and what tools print:
// IPv4 and IPv6 addresses and prefixes in the ways they are written, link
// addresses, names of hosts with their domains, and the known names.
//
// A nil Redactor substitutes nothing.
func (r *Redactor) Text(s string) string {
	if r == nil {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		if i > 0 && alnum(s[i-1]) {
			b.WriteByte(s[i])
			i++
			continue
		}
		if n, sub := r.at(s, i); n > 0 {
			b.WriteString(sub)
			i += n
			continue
		}
		b.WriteByte(s[i])
		i++
	}
	return b.String()
}

// at substitutes what begins at s[i]; it returns its length, or 0.
func (r *Redactor) at(s string, i int) (int, string) {
	c := s[i]
	if hexDigit(c) || c == ':' {
		for _, try := range []func(string, int) (int, string){r.macAt, r.v6At, r.v4At, r.dashedAt, r.partialAt} {
			if n, sub := try(s, i); n > 0 {
				return n, sub
			}
		}
	}
	if n, sub := r.hexAt(s, i); n > 0 {
		return n, sub
	}
	if c == '@' {
		if m := rawPayload.FindStringSubmatch(s[i:]); m != nil {
			return len(m[0]), m[1] + "0x0"
		}
	}
	if c == '/' {
		if n := homeAt(s, i); n > 0 {
			return n, "/home/" + r.User(s[i+len("/home/"):i+n])
		}
	}
	if alnum(c) {
		return r.nameAt(s, i)
	}
	return 0, ""
}

var (
	hexNumber  = regexp.MustCompile(`^0x([0-9a-fA-F]{7,8})\b`)
	deviceWith = regexp.MustCompile(`^(en|wl|ww|ib|sl)x([0-9a-f]{12})\b`)
)

// hexAt takes an IPv4 address that was met before, as the u32 match of iptables
// prints it, and a device that udev has named by its link address (systemd.net-naming-scheme(7)).
func (r *Redactor) hexAt(s string, i int) (int, string) {
	if s[i] == '0' {
		if m := hexNumber.FindStringSubmatch(s[i:]); m != nil {
			n, _ := strconv.ParseUint(m[1], 16, 32)
			a := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
			if x, ok := r.addresses.seen[a]; ok && x != a {
				b := x.As4()
				return len(m[0]), fmt.Sprintf("0x%02x%02x%02x%02x", b[0], b[1], b[2], b[3])
			}
		}
	}
	if m := deviceWith.FindStringSubmatch(s[i:]); m != nil {
		x := m[2]
		mac := r.MAC(x[:2] + ":" + x[2:4] + ":" + x[4:6] + ":" + x[6:8] + ":" + x[8:10] + ":" + x[10:])
		return len(m[0]), m[1] + "x" + strings.ReplaceAll(mac, ":", "")
	}
	return 0, ""
}

// rawPayload is how nft prints a match on header bytes that it has no name for; they may be an address.
var rawPayload = regexp.MustCompile(`^(@(?:nh|ll|th|ih),\d+,\d+ (?:& 0x[0-9a-f]+ )?(?:[!=<>]=? ?)?)0x[0-9a-f]+`)

// macAt takes six or more pairs of digits, as the log of a firewall strings link addresses together.
func (r *Redactor) macAt(s string, i int) (int, string) {
	if i+17 > len(s) || s[i+2] != ':' && s[i+2] != '-' {
		return 0, ""
	}
	sep := s[i+2]
	n := 0 // pairs
	for j := i; j+2 <= len(s) && hexDigit(s[j]) && hexDigit(s[j+1]); j += 3 {
		n++
		if j+2 == len(s) || s[j+2] != sep {
			break
		}
	}
	if n < 6 || i+3*n-1 < len(s) && alnum(s[i+3*n-1]) || n == 8 && sep == ':' { // eight are an IPv6 address
		return 0, ""
	}
	var out []string
	for j := 0; j+6 <= n; j += 6 {
		out = append(out, r.MAC(s[i+3*j:i+3*j+17]))
	}
	return 3*(n/6*6) - 1, strings.Join(out, string(sep))
}

func (r *Redactor) v6At(s string, i int) (int, string) {
	j := i
	for j < len(s) && j-i < 64 && (hexDigit(s[j]) || s[j] == ':' || s[j] == '.') {
		j++
	}
	if strings.Count(s[i:j], ":") < 2 || j < len(s) && (s[j] == '_' || letter(s[j])) {
		return 0, ""
	}
	for ; j > i+1; j-- {
		if a, err := netip.ParseAddr(s[i:j]); err == nil && a.Is6() {
			return r.addr(s, i, j, a)
		}
		if s[j-1] != ':' && s[j-1] != '.' { // only punctuation may follow an address
			break
		}
	}
	return 0, ""
}

func (r *Redactor) v4At(s string, i int) (int, string) {
	j, dots := i, 0
	if i > 1 && s[i-1] == '.' && digit(s[i-2]) {
		return 0, "" // within a longer number
	}
	for j < len(s) && j-i < 16 && (digit(s[j]) || s[j] == '.') {
		if s[j] == '.' {
			if dots == 3 || j+1 == len(s) || !digit(s[j+1]) {
				break
			}
			dots++
		}
		j++
	}
	if dots != 3 || j < len(s) && (alnum(s[j]) || s[j] == '.' && j+1 < len(s) && digit(s[j+1])) {
		return 0, ""
	}
	a, err := netip.ParseAddr(s[i:j])
	if err != nil {
		return 0, ""
	}
	return r.addr(s, i, j, a)
}

// addr substitutes the address s[i:j], with the prefix length or netmask that may follow it.
func (r *Redactor) addr(s string, i, j int, a netip.Addr) (int, string) {
	if j < len(s) && s[j] == '/' {
		k := j + 1
		for k < len(s) && k-j < 17 && (digit(s[k]) || s[k] == '.' && k+1 < len(s) && digit(s[k+1])) {
			k++
		}
		bits, err := strconv.Atoi(s[j+1 : k])
		if mask, merr := netip.ParseAddr(s[j+1 : k]); merr == nil && mask.Is4() {
			bits, err = ones(mask)
		}
		if err == nil && bits >= 0 && bits <= a.BitLen() {
			return k - i, r.Prefix(netip.PrefixFrom(a, bits)).Addr().String() + s[j:k]
		}
	}
	return j - i, r.Addr(a).String()
}

func ones(mask netip.Addr) (int, error) {
	v := mask.As4()
	n := uint32(v[0])<<24 | uint32(v[1])<<16 | uint32(v[2])<<8 | uint32(v[3])
	for bits := 0; bits <= 32; bits++ {
		if n == ^uint32(0)<<(32-bits) {
			return bits, nil
		}
	}
	return 0, fmt.Errorf("%s is no netmask", mask)
}

// dashedAt takes an address as cloud providers put it into names: ip-10-0-0-5.
func (r *Redactor) dashedAt(s string, i int) (int, string) {
	j, dashes := i, 0
	for j < len(s) && (digit(s[j]) || s[j] == '-' && dashes < 3) {
		if s[j] == '-' {
			dashes++
		}
		j++
	}
	if dashes != 3 || j < len(s) && alnum(s[j]) {
		return 0, ""
	}
	a, err := netip.ParseAddr(strings.ReplaceAll(s[i:j], "-", "."))
	if err != nil {
		return 0, ""
	}
	return j - i, strings.ReplaceAll(r.Addr(a).String(), ".", "-")
}

var partial = regexp.MustCompile(`^\d{1,3}\.\d{1,3}\.(?:\d{1,3}\.)?(?:[\s,]|$)`)

// partialAt takes the beginning of an address, as hosts.allow has it: "10.77. ".
func (r *Redactor) partialAt(s string, i int) (int, string) {
	if !digit(s[i]) || !partial.MatchString(s[i:min(len(s), i+13)]) {
		return 0, ""
	}
	j := i
	for j < len(s) && (digit(s[j]) || s[j] == '.') {
		j++
	}
	dots := strings.Count(s[i:j], ".")
	a, err := netip.ParseAddr(s[i:j] + strings.Repeat("0.", 3-dots) + "0")
	if err != nil {
		return 0, ""
	}
	parts := strings.Split(r.Prefix(netip.PrefixFrom(a, 8*dots)).Addr().String(), ".")
	return j - i, strings.Join(parts[:dots], ".") + "."
}

// homeAt returns how far /home/NAME reaches from s[i], or 0.
func homeAt(s string, i int) int {
	rest, ok := strings.CutPrefix(s[i:], "/home/")
	if !ok {
		return 0
	}
	n := strings.IndexFunc(rest, func(c rune) bool { return !(c < 0x80 && (alnum(byte(c)) || c == '-' || c == '.')) })
	if n < 0 {
		n = len(rest)
	}
	if n == 0 {
		return 0
	}
	return len("/home/") + n
}

func digit(c byte) bool    { return c >= '0' && c <= '9' }
func letter(c byte) bool   { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func hexDigit(c byte) bool { return digit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

func alnum(c byte) bool { return digit(c) || letter(c) }
