// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"bytes"
	"encoding/binary"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The attributes of a route that are the route, not what the kernel reports
// about it. Those of a message are put in the order of their numbers.
var routeAttributes = []uint16{unix.RTA_DST, unix.RTA_SRC, unix.RTA_OIF, unix.RTA_GATEWAY, unix.RTA_PRIORITY, unix.RTA_PREFSRC,
	unix.RTA_METRICS, unix.RTA_MULTIPATH, unix.RTA_FLOW, unix.RTA_VIA, unix.RTA_NEWDST, unix.RTA_PREF, unix.RTA_ENCAP_TYPE,
	unix.RTA_ENCAP, unix.RTA_EXPIRES, unix.RTA_TTL_PROPAGATE, rtaNexthopID}

// The flags that an administrator sets; the others are states.
const routeSetFlags = unix.RTNH_F_ONLINK | unix.RTNH_F_PERVASIVE

// body returns the message that makes the route, or deletes just it: what the
// kernel reports beside the route is left out.
func (r route) body() []byte {
	b := make([]byte, unix.SizeofRtMsg)
	copy(b, []byte{r.family, r.dstLen, r.srcLen, r.tos, unix.RT_TABLE_COMPAT, r.protocol, r.scope, r.kind})
	if r.table < 256 {
		b[4] = uint8(r.table)
	}
	binary.NativeEndian.PutUint32(b[8:], r.flags&routeSetFlags)
	b = put32(b, unix.RTA_TABLE, r.table)
	_, byID := r.attrs[rtaNexthopID]
	for _, kind := range routeAttributes {
		value := r.attrs[kind].value
		if _, ok := r.attrs[kind]; !ok {
			continue
		}
		switch kind {
		case unix.RTA_OIF, unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH, unix.RTA_ENCAP, unix.RTA_ENCAP_TYPE:
			if byID { // what the nexthop object of that id has
				continue
			}
		}
		if kind == unix.RTA_MULTIPATH {
			value = withoutStates(value)
		}
		b = put(b, kind, value)
	}
	return b
}

// rawHops cuts RTA_MULTIPATH into its elements: struct rtnexthop (length, flags,
// weight less one, index of the device) with attributes. They lie in b.
func rawHops(b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(b) >= unix.SizeofRtNexthop {
			length := int(binary.NativeEndian.Uint16(b))
			if length < unix.SizeofRtNexthop || length > len(b) || !yield(b[:length:length]) {
				return
			}
			b = b[min(align4(length), len(b)):]
		}
	}
}

// hopAttributes returns the attributes of one element, by number.
func hopAttributes(raw []byte) map[uint16]attribute {
	attrs := map[uint16]attribute{}
	for _, a := range attributes(raw[unix.SizeofRtNexthop:]) {
		attrs[a.kind] = a
	}
	return attrs
}

// withoutStates clears the flags of next hops that are states.
func withoutStates(hops []byte) []byte {
	hops = slices.Clone(hops)
	for raw := range rawHops(hops) {
		raw[2] &= routeSetFlags
	}
	return hops
}

// same reports whether both are one route, whatever its state. IPv6 tells the
// next hop that it chose first.
func (r route) same(other route) bool {
	if r.family == unix.AF_INET6 && len(r.hops()) > 1 {
		r, other = r.ordered(), other.ordered()
	}
	return bytes.Equal(r.body(), other.body())
}

// ordered returns the route with its next hops in the order of their bytes, and
// without the preference: each hop has its own, of which only the first's is told.
func (r route) ordered() route {
	var hops [][]byte
	for raw := range rawHops(withoutStates(r.attrs[unix.RTA_MULTIPATH].value)) {
		hops = append(hops, append(raw, make([]byte, align4(len(raw))-len(raw))...))
	}
	slices.SortFunc(hops, bytes.Compare)
	r.attrs = maps.Clone(r.attrs)
	delete(r.attrs, unix.RTA_PREF)
	r.attrs[unix.RTA_MULTIPATH] = attribute{unix.RTA_MULTIPATH, slices.Concat(hops...)}
	return r
}

func (r route) metric() uint32 { return r.attrs[unix.RTA_PRIORITY].u32() }

// hop is one way out of a route.
type hop struct {
	index   uint32
	gateway netip.Addr // not valid: the destination itself is asked for
	flags   uint32     // RTNH_F_*
}

// hops returns the next hops of a route; none for one that is not for packets to go on.
func (r route) hops() []hop {
	b := r.attrs[unix.RTA_MULTIPATH].value
	if len(b) == 0 {
		if _, ok := r.attrs[unix.RTA_OIF]; !ok {
			return nil
		}
		return []hop{{r.attrs[unix.RTA_OIF].u32(), gatewayOf(r.attrs), r.flags}}
	}
	var list []hop
	for raw := range rawHops(b) {
		list = append(list, hop{binary.NativeEndian.Uint32(raw[4:]), gatewayOf(hopAttributes(raw)), uint32(raw[2])})
	}
	return list
}

// gatewayOf returns the next hop of any family.
func gatewayOf(attrs map[uint16]attribute) netip.Addr {
	if a, ok := netip.AddrFromSlice(attrs[unix.RTA_GATEWAY].value); ok {
		return a
	}
	if v := attrs[unix.RTA_VIA].value; len(v) > 2 {
		a, _ := netip.AddrFromSlice(v[2:])
		return a
	}
	return netip.Addr{}
}

// holds reports whether addr lies in the prefix of an attribute of a route or rule.
func (r route) holds(kind uint16, length uint8, addr netip.Addr) bool {
	if length == 0 {
		return true
	}
	p, err := r.addr(kind).Prefix(int(length))
	return err == nil && p.Contains(addr)
}

func (r ipRule) priority() uint32 { return r.attrs[nl.FRA_PRIORITY].u32() }

// same reports whether both are one rule, whatever state it is in.
func (r ipRule) same(other ipRule) bool { return bytes.Equal(r.body(), other.body()) }

// body returns the message that makes the rule, or deletes just it.
func (r ipRule) body() []byte {
	b := make([]byte, unix.SizeofRtMsg)
	copy(b, []byte{r.family, r.dstLen, r.srcLen, r.tos, unix.RT_TABLE_COMPAT, 0, 0, r.action})
	if r.table < 256 {
		b[4] = uint8(r.table)
	}
	binary.NativeEndian.PutUint32(b[8:], r.ruleFlags&fibRuleInvert)
	for _, kind := range slices.Sorted(maps.Keys(r.attrs)) {
		switch a := r.attrs[kind]; {
		case kind == nl.FRA_TABLE, kind == nl.FRA_PRIORITY, kind == nl.FRA_PAD:
		case kind == nl.FRA_SUPPRESS_PREFIXLEN || kind == nl.FRA_SUPPRESS_IFGROUP:
			if a.u32() != ^uint32(0) {
				b = put(b, kind, a.value)
			}
		case kind == nl.FRA_PROTOCOL && a.u8() == unix.RTPROT_UNSPEC:
		default:
			b = put(b, kind, a.value)
		}
	}
	if r.table != 0 {
		b = put32(b, nl.FRA_TABLE, r.table)
	}
	return put32(b, nl.FRA_PRIORITY, r.priority()) // of 0 the kernel does not tell
}
