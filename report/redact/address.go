// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"
)

// addresses substitutes addresses so that two that have their first n bits in
// common still have (Xu et al., "Prefix-preserving IP address anonymization", 2002):
// bit n is turned over or not by a keyed function of the n bits before it; of
// the last 24 of an IPv6 address, of those among them only.
type addresses struct {
	key  [32]byte
	seen map[netip.Addr]netip.Addr
}

// kept are the ranges that mean something by themselves: their own bits stay, and
// nothing else comes into them. Whole ones stay as they are, down to the last bit.
var kept = []struct {
	prefix netip.Prefix
	whole  bool
}{
	{netip.MustParsePrefix("0.0.0.0/8"), true},
	{netip.MustParsePrefix("10.0.0.0/8"), false},
	{netip.MustParsePrefix("100.64.0.0/10"), false},
	{netip.MustParsePrefix("127.0.0.0/8"), true},
	{netip.MustParsePrefix("169.254.0.0/16"), false},
	{netip.MustParsePrefix("172.16.0.0/12"), false},
	{netip.MustParsePrefix("192.168.0.0/16"), false},
	{netip.MustParsePrefix("224.0.0.0/4"), true},
	{netip.MustParsePrefix("240.0.0.0/4"), true}, // the limited broadcast and netmasks
	{netip.MustParsePrefix("::/127"), true},
	{netip.MustParsePrefix("64:ff9b::/96"), false},
	{netip.MustParsePrefix("2000::/3"), false},
	{netip.MustParsePrefix("fd00::/8"), false},
	{netip.MustParsePrefix("fe80::/64"), false},
	{netip.MustParsePrefix("ff00::/8"), true},
}

// solicitedNode holds the groups at which the link address of an IPv6 host is asked for: they end as its address does (RFC 4291, 2.7.1).
var solicitedNode = netip.MustParsePrefix("ff02::1:ff00:0/104")

// solicited is the group of that kind to which a belongs.
func solicited(a netip.Addr) netip.Addr {
	group, own := solicitedNode.Addr().As16(), a.As16()
	copy(group[13:], own[13:])
	return netip.AddrFrom16(group)
}

// of returns what stands for a. A zone stays.
func (x *addresses) of(a netip.Addr) netip.Addr {
	if z := a.Zone(); z != "" {
		return x.of(a.WithZone("")).WithZone(z)
	}
	if a.Is4In6() {
		return netip.AddrFrom16(x.of(a.Unmap()).As16())
	}
	if s, ok := x.seen[a]; ok {
		return s
	}
	s := x.compute(a)
	if x.seen == nil {
		x.seen = map[netip.Addr]netip.Addr{}
	}
	x.seen[a] = s
	return s
}

func (x *addresses) compute(a netip.Addr) netip.Addr {
	in, first := a.AsSlice(), 0
	if solicitedNode.Contains(a) {
		first = solicitedNode.Bits()
	} else {
		for _, k := range kept {
			if k.prefix.Contains(a) {
				if k.whole {
					return a
				}
				first = k.prefix.Bits()
			}
		}
	}
	out := append([]byte{}, in...)
	for n := first; n < a.BitLen(); n++ {
		before, _ := a.Prefix(n)
		if onTheWay(before) {
			continue
		}
		if a.Is6() && n >= solicitedNode.Bits() {
			// By these bits alone, so that the group of the substitute is the substitute of the group.
			before, _ = solicited(a).Prefix(n)
		}
		if x.flips(before) {
			out[n/8] ^= 0x80 >> (n % 8)
		}
	}
	s, _ := netip.AddrFromSlice(out)
	return s
}

// onTheWay reports whether a kept range lies within p, so that the bit after p decides about it.
func onTheWay(p netip.Prefix) bool {
	for _, k := range kept {
		if k.prefix.Bits() > p.Bits() && p.Contains(k.prefix.Addr()) {
			return true
		}
	}
	return false
}

func (x *addresses) flips(before netip.Prefix) bool {
	h := sha256.New()
	h.Write(x.key[:])
	h.Write(before.Addr().AsSlice())
	h.Write([]byte{byte(before.Bits())})
	return h.Sum(nil)[0]&1 == 1
}

// Addr returns what stands for an address.
func (r *Redactor) Addr(a netip.Addr) netip.Addr {
	s := r.addresses.of(a)
	if s != a {
		r.m.Addresses[a.WithZone("").String()] = s.WithZone("").String()
	}
	return s
}

// Prefix returns what stands for a prefix. One without host bits stays so, and
// holds the substitutes of the addresses that it held.
func (r *Redactor) Prefix(p netip.Prefix) netip.Prefix {
	if p != p.Masked() {
		return netip.PrefixFrom(r.Addr(p.Addr()), p.Bits())
	}
	if p.IsSingleIP() {
		return netip.PrefixFrom(r.Addr(p.Addr()), p.Bits())
	}
	s := netip.PrefixFrom(r.addresses.of(p.Addr()), p.Bits()).Masked()
	if s != p {
		r.m.Addresses[p.String()] = s.String()
	}
	return s
}

// MAC returns what stands for a link address of six bytes, written with
// separators. Broadcast, zero and what IP multicast is sent to stay, or stay of that kind.
func (r *Redactor) MAC(s string) string {
	low := strings.ToLower(strings.ReplaceAll(s, "-", ":"))
	var b [6]byte
	if n, err := fmt.Sscanf(low, "%02x:%02x:%02x:%02x:%02x:%02x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]); n != 6 || err != nil {
		return s
	}
	keep := 0
	switch {
	case low == "ff:ff:ff:ff:ff:ff", low == "00:00:00:00:00:00", strings.HasPrefix(low, "01:80:c2:"), strings.HasPrefix(low, "33:33:00:00:00:"):
		return s
	case strings.HasPrefix(low, "33:33:ff:"): // of solicited nodes
		keep = 3
	case strings.HasPrefix(low, "33:33:"):
		keep = 2
	case strings.HasPrefix(low, "01:00:5e:"):
		keep = 3
	}
	sum := sha256.Sum256(append(append([]byte("mac"), r.addresses.key[:]...), b[:]...))
	if keep == 0 {
		sum[0] = 0x02 | b[0]&1 // locally administered; unicast or not as before
	}
	for i := keep; i < 6; i++ {
		b[i] = sum[i]
	}
	out := fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
	r.m.MACs[low] = out
	if strings.Contains(s, "-") {
		out = strings.ReplaceAll(out, ":", "-")
	}
	return out
}
