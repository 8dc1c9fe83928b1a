// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// route is a message of type RTM_NEWROUTE (rtnetlink(7)): struct rtmsg and
// its attributes, by number.
type route struct {
	family, dstLen, srcLen, tos, protocol, scope, kind uint8
	flags, table                                       uint32
	attrs                                              map[uint16]attribute
}

func parseRoute(b []byte) (route, error) {
	if len(b) < unix.SizeofRtMsg {
		return route{}, fmt.Errorf("route message of %d bytes", len(b))
	}
	r := route{family: b[0], dstLen: b[1], srcLen: b[2], tos: b[3], table: uint32(b[4]), protocol: b[5], scope: b[6], kind: b[7],
		flags: binary.NativeEndian.Uint32(b[8:]), attrs: map[uint16]attribute{}}
	for _, a := range attributes(b[unix.SizeofRtMsg:]) {
		r.attrs[a.kind] = a
	}
	if a, ok := r.attrs[unix.RTA_TABLE]; ok {
		r.table = a.u32()
	}
	return r, nil
}

// addr returns the address in the attribute kind; invalid if there is none.
func (r route) addr(kind uint16) netip.Addr {
	addr, _ := netip.AddrFromSlice(r.attrs[kind].value)
	return addr
}

func (r route) hostLen() uint8 {
	if r.family == unix.AF_INET6 {
		return 128
	}
	return 32
}

// prefix words a prefix as ip does: without the length when it is a whole
// address, and none when everything fits.
func (r route) prefix(kind uint16, length uint8, all string) string {
	addr := r.addr(kind)
	switch {
	case addr.IsValid() && length == r.hostLen():
		return addr.String()
	case addr.IsValid():
		return fmt.Sprintf("%s/%d", addr, length)
	case length != 0:
		return fmt.Sprintf("0/%d", length)
	}
	return all
}

// gateway returns the next hop of any family, or "".
func (r route) gateway() string {
	if a := gatewayOf(r.attrs); a.IsValid() {
		return a.String()
	}
	return ""
}

func ipVersion(family uint8) int {
	if family == unix.AF_INET6 {
		return 6
	}
	return 4
}

// Routes returns the routes of all tables and both families (RTM_GETROUTE).
// Text is one line, where ip prints a line for each next hop.
func (n *Netns) Routes() evidence.Section[evidence.RouteItem] {
	p := n.routePrinter()
	var list []evidence.RouteItem
	var interrupted error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		routes, err := n.dumpRoutes(family)
		switch {
		case errors.Is(err, nl.ErrDumpInterrupted):
			interrupted = err
		case err != nil:
			return evidence.Missing[evidence.RouteItem](fmt.Sprintf("routes: %v", err))
		}
		for _, r := range routes {
			list = append(list, p.item(r))
		}
	}
	return section("routes", list, interrupted)
}

// manyRoutes is how many routes of a family are kept whatever they are about; a router may have a million.
const manyRoutes = 1000

// RoutesAbout is [Netns.Routes] for a question. Of a family with more than a
// thousand, it keeps those whose prefix holds one of the addresses, the first of
// each table, and those of router advertisements, and counts what it leaves out.
func (n *Netns) RoutesAbout(addresses []netip.Addr) evidence.Section[evidence.RouteItem] {
	p := n.routePrinter()
	list := []evidence.RouteItem{}
	left := 0
	var interrupted error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		k, err := n.keepRoutes(family, addresses)
		switch {
		case errors.Is(err, nl.ErrDumpInterrupted):
			interrupted = err
		case err != nil:
			return evidence.Missing[evidence.RouteItem](fmt.Sprintf("routes: %v", err))
		}
		left += k.count - len(k.kept)
		for _, r := range k.kept {
			list = append(list, p.item(r))
		}
	}
	s := section("routes", list, interrupted)
	s.Omitted = left
	return s
}

// routeKeeper keeps the routes of a dump that matter.
type routeKeeper struct {
	family    uint8
	addresses []netip.Addr
	tables    map[uint32]bool
	all, kept []route // all: nil once there are too many
	count     int
}

// keepRoutes goes over the routes of a family as dumpRoutes does. What it kept of a dump that changed meanwhile comes with
// [nl.ErrDumpInterrupted]; one of many routes, which some daemon changes all the time, is not asked for again.
func (n *Netns) keepRoutes(family uint8, addresses []netip.Addr) (*routeKeeper, error) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = family
	for tries := 1; ; tries++ {
		k := &routeKeeper{family: family, addresses: addresses, tables: map[uint32]bool{}}
		var bad error
		err := n.requestEach(unix.NETLINK_ROUTE, unix.RTM_GETROUTE, unix.NLM_F_DUMP, body, unix.RTM_NEWROUTE, func(b []byte) {
			if err := k.take(b); err != nil && bad == nil {
				bad = err
			}
		})
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
			return k, nil // a kernel without IPv6 has no IPv6 routes
		}
		if bad != nil {
			return nil, bad
		}
		if errors.Is(err, nl.ErrDumpInterrupted) && k.count <= manyRoutes && tries < dumpTries {
			continue
		}
		if k.count <= manyRoutes {
			k.kept = k.all
		}
		return k, err
	}
}

func (k *routeKeeper) take(b []byte) error {
	r, err := parseRoute(b)
	// Without IPv6 the kernel answers for IPv6 with what it has.
	if err != nil || r.family != k.family || r.flags&unix.RTM_F_CLONED != 0 {
		return err
	}
	k.count++
	if k.count <= manyRoutes {
		k.all = append(k.all, r)
	} else {
		k.all = nil
	}
	if k.tables[r.table] && r.protocol != unix.RTPROT_RA && !slices.ContainsFunc(k.addresses, func(a netip.Addr) bool { return r.holds(unix.RTA_DST, r.dstLen, a) }) {
		return nil
	}
	k.tables[r.table] = true
	k.kept = append(k.kept, r)
	return nil
}

// routePrinter words routes as ip route does.
type routePrinter struct {
	words  *routeNames
	device func(index int) string
	tables bool // name other tables than main in the text
}

func (n *Netns) routePrinter() routePrinter {
	return routePrinter{words: readRouteNames(), device: n.deviceNames()}
}

func (p routePrinter) item(r route) evidence.RouteItem {
	e := evidence.RouteItem{Family: ipVersion(r.family), Type: routeType(r.kind), Dest: r.prefix(unix.RTA_DST, r.dstLen, "default"),
		Gateway: r.gateway(), Table: p.words.table(r.table), Metric: int(r.attrs[unix.RTA_PRIORITY].u32()),
		Protocol: p.words.protocol(r.protocol), Scope: p.words.scope(r.scope), Flags: routeFlags(r.flags), Text: p.text(r)}
	if e.Dest != "default" && r.dstLen == r.hostLen() {
		// A prefix also where ip leaves the length out.
		e.Dest = fmt.Sprintf("%s/%d", e.Dest, r.dstLen)
	}
	if oif, ok := r.attrs[unix.RTA_OIF]; ok {
		e.Device = p.device(int(oif.u32()))
	}
	if a := r.addr(unix.RTA_PREFSRC); a.IsValid() {
		e.Source = a.String()
	}
	return e
}
