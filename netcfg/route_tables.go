// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// routing is what decides about packets of one family in a namespace, read at
// one time: every route and ip rule in the order in which the kernel has them,
// and what else it looks at.
type routing struct {
	family  uint8
	routes  []route
	rules   []ipRule
	devices map[string]device
	failed  map[netip.Addr]map[uint32]bool // neighbours in state FAILED, by device
	router  bool                           // IPv6: net.ipv6.conf.all.forwarding
}

type device struct {
	index, group uint32
	vrf          bool // is a VRF, or belongs to one
}

// readRouting reads the routing of one family, AF_INET or AF_INET6.
func (n *Netns) readRouting(family uint8) (*routing, error) {
	t := &routing{family: family}
	var err error
	if t.routes, err = n.dumpRoutes(family); err != nil {
		return nil, fmt.Errorf("routes: %w", err)
	}
	if t.rules, err = n.dumpRules(family); err != nil {
		return nil, fmt.Errorf("ip rules: %w", err)
	}
	if t.devices, err = n.routeDevices(); err != nil {
		return nil, fmt.Errorf("links: %w", err)
	}
	if family == unix.AF_INET6 {
		neighbors, err := inside(n, func() ([]netlink.Neigh, error) { return netlink.NeighList(0, netlink.FAMILY_V6) })
		if err != nil {
			return nil, fmt.Errorf("neighbours: %w", err)
		}
		t.failed = map[netip.Addr]map[uint32]bool{}
		for _, e := range neighbors {
			if addr, ok := netip.AddrFromSlice(e.IP); ok && e.State&netlink.NUD_FAILED != 0 {
				if t.failed[addr] == nil {
					t.failed[addr] = map[uint32]bool{}
				}
				t.failed[addr][uint32(e.LinkIndex)] = true
			}
		}
		forwarding := n.Sysctls("net.ipv6.conf.all.forwarding")
		t.router = len(forwarding.Items) == 1 && forwarding.Items[0].Value != "0"
	}
	return t, nil
}

// dumpRoutes returns the routes of all tables of a family, which may have none
// because the kernel does not have the family.
func (n *Netns) dumpRoutes(family uint8) (list []route, err error) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = family
	msgs, err := n.dump(unix.NETLINK_ROUTE, unix.RTM_GETROUTE, body, unix.RTM_NEWROUTE)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, nil // a kernel without IPv6 has no IPv6 routes
	}
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return nil, err
	}
	for _, m := range msgs {
		r, parseErr := parseRoute(m)
		if parseErr != nil {
			return nil, parseErr
		}
		// Without IPv6 the kernel answers for IPv6 with what it has.
		if r.family == family && r.flags&unix.RTM_F_CLONED == 0 {
			list = append(list, r)
		}
	}
	return list, err
}

// dumpRules returns the ip rules of a family in the order in which they are asked.
func (n *Netns) dumpRules(family uint8) (list []ipRule, err error) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = family
	msgs, err := n.dump(unix.NETLINK_ROUTE, unix.RTM_GETRULE, body, unix.RTM_NEWRULE)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, nil // not compiled in: one table, no rules
	}
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return nil, err
	}
	for _, m := range msgs {
		r, parseErr := parseRule(m)
		if parseErr != nil {
			return nil, parseErr
		}
		if r.family == family {
			list = append(list, r)
		}
	}
	slices.SortStableFunc(list, func(a, b ipRule) int { return int(int64(a.priority()) - int64(b.priority())) })
	return list, err
}

func (n *Netns) routeDevices() (map[string]device, error) {
	links, err := inside(n, netlink.LinkList)
	if err != nil {
		return nil, err
	}
	vrfs := map[int]bool{}
	for _, l := range links {
		vrfs[l.Attrs().Index] = l.Type() == "vrf"
	}
	devices := map[string]device{}
	for _, l := range links {
		a := l.Attrs()
		devices[a.Name] = device{index: uint32(a.Index), group: a.Group, vrf: vrfs[a.Index] || vrfs[a.MasterIndex]}
	}
	return devices, nil
}

// group returns the group of the device of that index, and whether there is such a device.
func (t *routing) group(index uint32) (uint32, bool) {
	for _, d := range t.devices {
		if d.index == index {
			return d.group, true
		}
	}
	return 0, false
}

// without returns the routing as it would be without one route or rule of it.
func (t *routing) without(r *route, rule *ipRule) *routing {
	other := *t
	if r != nil {
		other.routes = slices.DeleteFunc(slices.Clone(t.routes), func(x route) bool { return x.same(*r) })
	} else if rule != nil {
		other.rules = slices.DeleteFunc(slices.Clone(t.rules), func(x ipRule) bool { return x.same(*rule) })
	}
	return &other
}
