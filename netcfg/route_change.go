// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// Why a change was not planned.
var (
	ErrNoChange = errors.New("it is so already")
	ErrIsThere  = errors.New("it exists")           // what is to be added, or what could not be told from it
	ErrNotThere = errors.New("nothing was changed") // what is to be deleted
	ErrNoUndo   = errors.New("nothing was changed") // it could not be taken back
)

// A Change of one route or ip rule that has been worked out and not been made.
// [Netns.PlanRoute] and [Netns.PlanRule] make them.
type Change struct {
	What string   // one line: "replace IPv4 route …, which is now …"
	Undo []string // lines for /bin/sh that take it back, to be run inside the namespace
	// Now and Then are the routes (or rules, by their text alone) that it
	// replaces or deletes, and that will be there; nil: none.
	Now, Then *evidence.RouteItem

	netns         *Netns
	kind          uint16 // RTM_*
	flags         int    // NLM_F_*
	body          []byte
	before, after *routing
}

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

// PlanRoute works out what "ip route OPERATION WORDS" would do: add, replace or
// del. Nothing is changed. The error wraps one of the errors above, or is a [*WordError].
func (n *Netns) PlanRoute(operation string, w RouteWords) (*Change, error) {
	t, err := n.readRouting(w.family)
	if err != nil {
		return nil, err
	}
	p := n.routePrinter()
	c := &Change{netns: n, before: t}
	switch operation {
	case "del":
		return c, c.planDelete(p, w)
	case "add", "replace":
		r, err := n.complete(w)
		if err != nil {
			return nil, err
		}
		return c, c.planNew(p, r, operation == "replace")
	}
	return nil, badWord(operation, "not add, replace or del")
}

func (c *Change) planDelete(p routePrinter, w RouteWords) error {
	i := slices.IndexFunc(c.before.routes, w.fits)
	if i < 0 {
		return fmt.Errorf("%w: table %s has no such route", ErrNotThere, p.words.table(w.inTable()))
	}
	r := c.before.routes[i]
	c.kind, c.flags, c.body = unix.RTM_DELROUTE, unix.NLM_F_ACK, r.body()
	c.What, c.Now = "delete "+p.describe(r), p.route(&r)
	c.after = c.before.without(&r, nil)
	return c.undoDelete(p, r)
}

// undoDelete puts a route back where it was: of those of one prefix and metric
// the order decides, and may be anything.
func (c *Change) undoDelete(p routePrinter, r route) error {
	var twins []route
	at := -1
	for _, x := range c.before.routes {
		if x.sameKey(r) {
			if x.same(r) {
				at = len(twins)
			}
			twins = append(twins, x)
		}
	}
	verb, later := "append", twins[at+1:]
	switch {
	case len(twins) == 1:
		verb = "add"
	case at == 0 && r.family == unix.AF_INET:
		verb, later = "prepend", nil
	}
	err := c.undo(p.command(verb, r))
	for _, x := range later {
		err = errors.Join(err, c.undo(p.command("del", x)), c.undo(p.command("append", x)))
	}
	return err
}

// undo adds a line.
func (c *Change) undo(line string, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoUndo, err)
	}
	c.Undo = append(c.Undo, line)
	return nil
}

func (c *Change) planNew(p routePrinter, r route, replace bool) error {
	c.kind, c.body = unix.RTM_NEWROUTE, r.body()
	c.flags = unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_EXCL
	old := c.before.inPlaceOf(r)
	c.Then = p.route(&r)
	switch {
	case old != nil && old.same(r):
		return fmt.Errorf("nothing was changed: %w: %s", ErrNoChange, p.describe(r))
	case old != nil && !replace:
		return fmt.Errorf("nothing was changed: %w: %s", ErrIsThere, p.describe(*old))
	case old == nil:
		c.What = "add " + p.describe(r)
		c.after = c.before.with(r)
		return c.undo(p.command("del", r))
	}
	c.flags = unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	c.What, c.Now = fmt.Sprintf("replace %s by %s", p.describe(*old), p.text(r)), p.route(old)
	other := *c.before
	other.routes = slices.Clone(c.before.routes)
	other.routes[slices.IndexFunc(other.routes, old.same)] = r
	c.after = &other
	return c.undo(p.command("replace", *old))
}

// inPlaceOf returns the route that r would replace, or nil.
func (t *routing) inPlaceOf(r route) *route {
	var first *route
	for i := range t.routes {
		x := &t.routes[i]
		if !x.sameKey(r) {
			continue
		}
		// IPv6 replaces one with a gateway by one with a gateway (fib6_add_rt).
		if r.family == unix.AF_INET || gateways(*x) == gateways(r) {
			return x
		}
		if first == nil {
			first = x
		}
	}
	return first
}

// gateways is rt6_qualify_for_ecmp, but for routes from router advertisements.
func gateways(r route) bool {
	for _, h := range r.hops() {
		return h.gateway.IsValid() && r.protocol != unix.RTPROT_RA
	}
	return false
}

// with returns the routing with one route more, where the kernel inserts it.
func (t *routing) with(r route) *routing {
	other := *t
	at := slices.IndexFunc(t.routes, func(x route) bool {
		return x.table == r.table && x.dstLen == r.dstLen && x.srcLen == r.srcLen &&
			x.addr(unix.RTA_DST) == r.addr(unix.RTA_DST) && x.addr(unix.RTA_SRC) == r.addr(unix.RTA_SRC) &&
			(x.tos < r.tos || x.tos == r.tos && x.metric() > r.metric())
	})
	if at < 0 {
		at = len(t.routes)
	}
	other.routes = slices.Insert(slices.Clone(t.routes), at, r)
	return &other
}

// describe words a route with its family and table.
func (p routePrinter) describe(r route) string {
	return fmt.Sprintf("IPv%d route %s, table %s", ipVersion(r.family), p.text(r), p.words.table(r.table))
}

// Apply makes the change, in one message to the kernel: all of it or, with an error, nothing.
func (c *Change) Apply() error {
	_, err := c.netns.request(unix.NETLINK_ROUTE, c.kind, c.flags, c.body, 0)
	if err != nil {
		return fmt.Errorf("the kernel refuses to %s: %w", c.What, err)
	}
	return nil
}
