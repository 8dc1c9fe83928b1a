// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// WordError says which word of a command line in the grammar of ip(8) cannot
// be followed, and why.
type WordError struct {
	Word, Why string
}

func (e *WordError) Error() string { return e.Word + ": " + e.Why }

func badWord(word, format string, args ...any) error {
	return &WordError{word, fmt.Sprintf(format, args...)}
}

// words are the words of a command line that are still to be read.
type words struct {
	rest  []string
	names *routeNames
	index func(device string) (uint32, error)
}

func (n *Netns) newWords(list []string) *words {
	return &words{rest: slices.Clone(list), names: readRouteNames(), index: n.deviceIndex}
}

// next returns the next word, or "".
func (w *words) next() string {
	if len(w.rest) == 0 {
		return ""
	}
	word := w.rest[0]
	w.rest = w.rest[1:]
	return word
}

// value returns the word that must follow the keyword.
func (w *words) value(keyword string) (string, error) {
	if len(w.rest) == 0 {
		return "", badWord(keyword, "a value must follow")
	}
	return w.next(), nil
}

// accept takes the next word if it is that one.
func (w *words) accept(word string) bool {
	if len(w.rest) == 0 || w.rest[0] != word {
		return false
	}
	w.next()
	return true
}

func number(word string, bits int) (uint32, error) {
	n, err := strconv.ParseUint(word, 0, bits)
	if err != nil {
		return 0, badWord(word, "not a number of 0 to %d", uint64(1)<<bits-1)
	}
	return uint32(n), nil
}

// named looks a word up among names, or reads it as a number of so many bits.
func named(word, what string, names map[uint32]string, bits int) (uint32, error) {
	found, ok := uint32(0), false
	for id, name := range names {
		if name == word && uint64(id) < 1<<bits && (!ok || id < found) {
			found, ok = id, true
		}
	}
	if ok {
		return found, nil
	}
	id, err := strconv.ParseUint(word, 0, bits)
	if err != nil {
		return 0, badWord(word, "not a %s: neither a name of /etc/iproute2 nor a number of 0 to %d", what, uint64(1)<<bits-1)
	}
	return uint32(id), nil
}

func (w *words) table(word string) (uint32, error) {
	id, err := named(word, "routing table", w.names.tables, 32)
	if err == nil && id == unix.RT_TABLE_UNSPEC {
		err = badWord(word, "not a routing table")
	}
	return id, err
}

func (w *words) protocol(word string) (uint8, error) {
	id, err := named(word, "routing protocol", w.names.protocols, 8)
	return uint8(id), err
}

// tos reads a type of service as ip does: a name, or a number in base 16.
func (w *words) tos(word string) (uint8, error) {
	for id, name := range w.names.dsfields {
		if name == word && id < 256 {
			return uint8(id), nil
		}
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(word), "0x"), 16, 8)
	if err != nil {
		return 0, badWord(word, "not a type of service: a name of rt_dsfield or two hexadecimal digits")
	}
	return uint8(n), nil
}

// realms reads REALM or FROM/TO into the value of an RTA_FLOW attribute.
func (w *words) realms(word string) (uint32, error) {
	first, second, two := strings.Cut(word, "/")
	flow, err := named(first, "realm", w.names.realms, 16)
	if err != nil || !two {
		return flow, err
	}
	to, err := named(second, "realm", w.names.realms, 16)
	return flow<<16 | to, err
}

func (w *words) device(word string) (uint32, error) {
	index, err := w.index(word)
	if errors.Is(err, unix.ENODEV) {
		return 0, badWord(word, "no such device")
	}
	return index, err
}

// address reads an address. A zone has no place in a route.
func address(word string) (netip.Addr, error) {
	a, err := netip.ParseAddr(word)
	if err != nil || a.Zone() != "" {
		return a, badWord(word, "not an address")
	}
	return a, nil
}

// prefix reads ADDRESS, ADDRESS/LENGTH, and of IPv4 what ip abbreviates, 10/8.
// The words default, all and any are a prefix of length 0 and no family: it is not valid.
func prefix(word string) (netip.Prefix, error) {
	if slices.Contains([]string{"default", "all", "any"}, word) {
		return netip.Prefix{}, nil
	}
	text, length, cut := strings.Cut(word, "/")
	if cut && text != "" && !strings.ContainsRune(text, ':') {
		text += strings.Repeat(".0", max(0, 3-strings.Count(text, ".")))
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, badWord(word, "not an address or prefix")
	}
	if !cut {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	bits, err := strconv.ParseUint(length, 10, 8)
	if err != nil || int(bits) > a.BitLen() {
		return netip.Prefix{}, badWord(word, "not a prefix length of 0 to %d", a.BitLen())
	}
	p := netip.PrefixFrom(a, int(bits))
	if p.Masked() != p {
		return p, badWord(word, "has bits beyond its length; the prefix is %s", p.Masked())
	}
	return p, nil
}

// addrFamily returns AF_INET or AF_INET6.
func addrFamily(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// oneFamily sets the family of a route or rule, which all its words must share.
func (r *route) oneFamily(family uint8, word string) error {
	if r.family != 0 && r.family != family {
		return badWord(word, "an IPv%d address where all else is IPv%d", ipVersion(family), ipVersion(r.family))
	}
	r.family = family
	return nil
}

// setPrefix sets the destination or source of a route or rule; the attributes of both have the same numbers.
func (r *route) setPrefix(kind uint16, length *uint8, word string) error {
	p, err := prefix(word)
	if err != nil || !p.IsValid() {
		return err
	}
	if err := r.oneFamily(addrFamily(p.Addr()), word); err != nil {
		return err
	}
	*length = uint8(p.Bits())
	if p.Bits() > 0 {
		r.set(kind, p.Addr().AsSlice())
	}
	return nil
}

func (r *route) set(kind uint16, value []byte) {
	if r.attrs == nil {
		r.attrs = map[uint16]attribute{}
	}
	r.attrs[kind] = attribute{kind, value}
}
