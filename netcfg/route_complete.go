// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// inTable returns the table that the words mean.
func (w RouteWords) inTable() uint32 {
	switch {
	case w.typed["table"]:
		return w.table
	case w.kind == unix.RTN_LOCAL || w.kind == unix.RTN_BROADCAST || w.kind == unix.RTN_ANYCAST:
		return unix.RT_TABLE_LOCAL
	}
	return unix.RT_TABLE_MAIN
}

// inScope returns the scope that the words mean, as ip does.
func (w RouteWords) inScope() uint8 {
	has := func(kind uint16) bool { _, ok := w.attrs[kind]; return ok }
	switch {
	case w.typed["scope"] && w.family == unix.AF_INET:
		return w.scope
	case w.family == unix.AF_INET6:
		return unix.RT_SCOPE_UNIVERSE
	case w.kind == unix.RTN_LOCAL:
		return unix.RT_SCOPE_HOST
	case w.kind == unix.RTN_BROADCAST || w.kind == unix.RTN_MULTICAST || w.kind == unix.RTN_ANYCAST:
		return unix.RT_SCOPE_LINK
	case w.kind != unix.RTN_UNICAST && w.kind != unix.RTN_UNSPEC,
		has(unix.RTA_GATEWAY), has(unix.RTA_VIA), has(unix.RTA_MULTIPATH), has(rtaNexthopID):
		return unix.RT_SCOPE_UNIVERSE
	}
	return unix.RT_SCOPE_LINK
}

// complete returns the route that the kernel will have for the words.
func (n *Netns) complete(w RouteWords) (route, error) {
	r := w.route
	r.attrs = map[uint16]attribute{}
	for kind, a := range w.attrs {
		r.attrs[kind] = a
	}
	r.table, r.scope = w.inTable(), w.inScope()
	if !w.typed["type"] {
		r.kind = unix.RTN_UNICAST
	}
	if !w.typed["proto"] {
		r.protocol = unix.RTPROT_BOOT
	}
	if r.family == unix.AF_INET6 {
		if r.metric() == 0 {
			r.set(unix.RTA_PRIORITY, binary.NativeEndian.AppendUint32(nil, 1024)) // IP6_RT_PRIO_USER
		}
		if _, ok := r.attrs[unix.RTA_PREF]; !ok {
			r.set(unix.RTA_PREF, []byte{0})
		}
		if _, ok := r.attrs[unix.RTA_OIF]; !ok && routeErrno(r.kind) != 0 {
			const loopback = 1
			r.set(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, loopback))
		}
	} else if _, ok := r.attrs[unix.RTA_PRIORITY]; ok && r.metric() == 0 {
		delete(r.attrs, unix.RTA_PRIORITY)
	}
	if r.kind == unix.RTN_UNICAST && !slices.ContainsFunc([]uint16{unix.RTA_OIF, unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH, rtaNexthopID},
		func(kind uint16) bool { _, ok := r.attrs[kind]; return ok }) {
		return r, badWord("route", "where to? via GATEWAY, dev DEVICE or both")
	}
	n.findDevices(&r)
	return r, nil
}

// findDevices fills in the devices of gateways that were given without one.
// Where there is none the kernel is left to say what is wrong.
func (n *Netns) findDevices(r *route) {
	if gateway := gatewayOf(r.attrs); gateway.IsValid() {
		if _, ok := r.attrs[unix.RTA_OIF]; !ok {
			if index := n.deviceTo(gateway); index != 0 {
				r.set(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, index))
			}
		}
	}
	hops := slices.Clone(r.attrs[unix.RTA_MULTIPATH].value)
	for raw := range rawHops(hops) {
		if gateway := gatewayOf(hopAttributes(raw)); gateway.IsValid() && binary.NativeEndian.Uint32(raw[4:]) == 0 {
			binary.NativeEndian.PutUint32(raw[4:], n.deviceTo(gateway))
		}
	}
	if len(hops) > 0 {
		r.set(unix.RTA_MULTIPATH, hops)
	}
}

func (n *Netns) deviceTo(gateway netip.Addr) uint32 {
	r, err := n.getRoute(RouteQuery{Dest: gateway}, 0)
	if err != nil || r.kind != unix.RTN_UNICAST {
		return 0
	}
	return r.attrs[unix.RTA_OIF].u32()
}

// fits reports whether the route is what was typed, all that was not typed being free.
func (w RouteWords) fits(r route) bool {
	if r.table != w.inTable() || r.dstLen != w.dstLen || r.srcLen != w.srcLen || r.tos != w.tos ||
		w.typed["type"] && r.kind != w.kind || w.typed["proto"] && r.protocol != w.protocol ||
		w.typed["scope"] && w.family == unix.AF_INET && r.scope != w.scope ||
		w.flags&routeSetFlags&^r.flags != 0 {
		return false
	}
	for kind, want := range w.attrs {
		have, ok := r.attrs[kind]
		switch {
		case kind == unix.RTA_PRIORITY && want.u32() == r.metric(), kind == unix.RTA_EXPIRES:
		case kind == unix.RTA_METRICS:
			for _, m := range attributes(want.value) {
				if !slices.ContainsFunc(attributes(have.value), func(a attribute) bool { return a.kind == m.kind && bytes.Equal(a.value, m.value) }) {
					return false
				}
			}
		case kind == unix.RTA_MULTIPATH && !sameHops(want.value, have.value), kind != unix.RTA_MULTIPATH && (!ok || !bytes.Equal(want.value, have.value)):
			return false
		}
	}
	return true
}

// sameHops compares next hops; a device that was not typed is free.
func sameHops(want, have []byte) bool {
	a := route{attrs: map[uint16]attribute{unix.RTA_MULTIPATH: {value: want}}}.hops()
	b := route{attrs: map[uint16]attribute{unix.RTA_MULTIPATH: {value: have}}}.hops()
	return slices.EqualFunc(a, b, func(x, y hop) bool {
		return x.gateway == y.gateway && (x.index == 0 || x.index == y.index)
	})
}
