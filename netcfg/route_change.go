// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"bytes"
	"errors"
	"fmt"
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

// readChangeable is readRouting, where an undo can be run at all.
func (n *Netns) readChangeable(family uint8) (*routing, error) {
	if lookTool("ip") == "" {
		return nil, fmt.Errorf("%w: the undo needs ip (iproute2), which is not installed", ErrNoUndo)
	}
	return n.readRouting(family)
}

// PlanRoute works out what "ip route OPERATION WORDS" would do: add, replace or
// del. Nothing is changed. The error wraps one of the errors above, or is a [*WordError].
func (n *Netns) PlanRoute(operation string, w RouteWords) (*Change, error) {
	t, err := n.readChangeable(w.family)
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
	if x := c.before.routes[slices.IndexFunc(c.before.routes, r.deletes)]; !x.same(r) {
		return fmt.Errorf("%w: %s could not be told from %s", ErrNoUndo, p.describe(r), p.text(x))
	}
	return c.undoDelete(p, r)
}

// deletes reports whether a message to delete r may delete x: what r does not
// have fits anything, a metric of 0 too (fib_table_delete, ip6_route_del).
func (r route) deletes(x route) bool {
	absent := func(kind uint16) bool {
		a, ok := r.attrs[kind]
		return !ok || bytes.Equal(a.value, x.attrs[kind].value)
	}
	return r.table == x.table && r.dstLen == x.dstLen && r.srcLen == x.srcLen && r.tos == x.tos &&
		r.addr(unix.RTA_DST) == x.addr(unix.RTA_DST) && r.addr(unix.RTA_SRC) == x.addr(unix.RTA_SRC) &&
		(r.kind == x.kind || r.kind == unix.RTN_UNICAST) && r.protocol == x.protocol && r.scope == x.scope &&
		(r.metric() == 0 || r.metric() == x.metric()) && absent(unix.RTA_PREFSRC) && absent(unix.RTA_FLOW) &&
		slices.EqualFunc(r.hops(), x.hops(), func(a, b hop) bool { return a.index == b.index && a.gateway == b.gateway })
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
		// When it is gone already, its undo may not take another.
		if i := slices.IndexFunc(c.before.routes, r.deletes); i >= 0 {
			return fmt.Errorf("%w: %s could not be told from %s; give it a metric of its own", ErrNoUndo, p.describe(r), p.text(c.before.routes[i]))
		}
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
