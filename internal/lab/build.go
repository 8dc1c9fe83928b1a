// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// settleLimit is how long the kernel may take to bring the cables up; it needs about a second.
const settleLimit = 20 * time.Second

func (l *Lab) build() error {
	for _, r := range roles {
		if _, err := os.Lstat("/run/netns/" + l.Netns(r)); err == nil {
			return fmt.Errorf("namespace %s exists already", l.Netns(r))
		}
	}
	var err error
	if l.record, err = openRecord(l.prefix); err != nil {
		return err
	}
	for _, r := range wired {
		if err := l.addNamespace(r); err != nil {
			return err
		}
	}
	if err := l.cable(nics[0], nics[1]); err != nil {
		return err
	}
	if err := l.cable(nics[3], nics[2]); err != nil {
		return err
	}
	if err := l.defaultRoutes(Client, nics[1]); err != nil {
		return err
	}
	return l.defaultRoutes(Server, nics[2])
}

func (l *Lab) defaultRoutes(r Role, gateway nic) error {
	for _, family := range []int{4, 6} {
		if err := l.defaultRoute(r, gateway.prefix(family).Addr()); err != nil {
			return err
		}
	}
	return nil
}

// addNamespace leaves the naming to ip, which also makes /run/netns a shared mount:
// without that a namespace lives on in the mount namespaces of others after its removal.
func (l *Lab) addNamespace(r Role) error {
	ip, err := tool("ip")
	if err != nil {
		return err
	}
	if out, err := exec.Command(ip, "netns", "add", l.Netns(r)).CombinedOutput(); err != nil {
		return fmt.Errorf("add namespace %s: %w: %s", l.Netns(r), err, strings.TrimSpace(string(out)))
	}
	if l.ns[r], err = netns.GetFromName(l.Netns(r)); err != nil {
		return fmt.Errorf("open namespace %s: %w", l.Netns(r), err)
	}
	if l.links[r], err = netlink.NewHandleAt(l.ns[r], unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("netlink in %s: %w", l.Netns(r), err)
	}
	lo, err := l.links[r].LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo in %s: %w", l.Netns(r), err)
	}
	if err := l.links[r].LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo up in %s: %w", l.Netns(r), err)
	}
	// The kernel copies some of these from the host's namespace, so each is set.
	forward := "0"
	if r == Router {
		forward = "1"
	}
	for _, s := range [][2]string{
		{"net.ipv4.ip_forward", forward},
		{"net.ipv6.conf.all.forwarding", forward},
		{"net.ipv4.conf.all.rp_filter", "0"},
		{"net.ipv4.conf.default.rp_filter", "0"},
		{"net.ipv4.icmp_ratelimit", "0"},
		{"net.ipv6.icmp.ratelimit", "0"},
		{"net.ipv6.conf.all.router_solicitations", "0"},
		{"net.ipv6.conf.default.router_solicitations", "0"},
		{"net.ipv6.conf.default.accept_dad", "0"},
		{"net.ipv6.conf.all.accept_dad", "0"},
	} {
		if err := l.Sysctl(r, s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// cable joins two namespaces and returns when both ends carry packets of either family.
func (l *Lab) cable(a, b nic) error {
	events := map[Role]*nl.NetlinkSocket{}
	for _, n := range []nic{a, b} {
		s, err := l.watch(n.role)
		if err != nil {
			return err
		}
		defer s.Close()
		events[n.role] = s
	}
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: a.device, Namespace: netlink.NsFd(l.ns[a.role])},
		PeerName:      b.device,
		PeerNamespace: netlink.NsFd(l.ns[b.role]),
	}
	if err := l.links[a.role].LinkAdd(veth); err != nil {
		return fmt.Errorf("add cable %s %s to %s %s: %w", a.role, a.device, b.role, b.device, err)
	}
	for _, n := range []nic{a, b} {
		if err := l.plug(n); err != nil {
			return fmt.Errorf("%s of the %s: %w", n.device, n.role, err)
		}
	}
	for _, n := range []nic{a, b} {
		if err := await(events[n.role], func() (bool, error) { return l.ready(n) }); err != nil {
			return fmt.Errorf("%s of the %s: %w", n.device, n.role, err)
		}
	}
	return nil
}

func (l *Lab) plug(n nic) error {
	link, err := l.links[n.role].LinkByName(n.device)
	if err != nil {
		return err
	}
	for _, p := range []netip.Prefix{n.v4, n.v6} {
		if !p.IsValid() {
			continue // a port of the switch
		}
		if err := l.addAddress(n.role, link, p); err != nil {
			return err
		}
	}
	return l.links[n.role].LinkSetUp(link)
}

func (l *Lab) addAddress(r Role, link netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := l.links[r].AddrAdd(link, a); err != nil {
		return fmt.Errorf("add address %s: %w", p, err)
	}
	return nil
}

// cut takes a device down and returns when the other end of its cable has noticed.
func (l *Lab) cut(near, far nic) error {
	events, err := l.watch(far.role)
	if err != nil {
		return err
	}
	defer events.Close()
	if err := l.IP(near.role, 4, "link set "+near.device+" down"); err != nil {
		return err
	}
	return await(events, func() (bool, error) {
		link, err := l.links[far.role].LinkByName(far.device)
		if err != nil {
			return false, fmt.Errorf("look at %s: %w", far.device, err)
		}
		return link.Attrs().OperState != netlink.OperUp, nil
	})
}

// watch subscribes to what happens to the links and IPv6 routes of a namespace.
func (l *Lab) watch(r Role) (*nl.NetlinkSocket, error) {
	s, err := nl.SubscribeAt(l.ns[r], netns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", l.Netns(r), err)
	}
	return s, nil
}

// await returns when done does, which is asked again after each event.
func await(events *nl.NetlinkSocket, done func() (bool, error)) error {
	deadline := time.Now().Add(settleLimit)
	for {
		ready, err := done()
		if ready || err != nil {
			return err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("the kernel is not ready after %s", settleLimit)
		}
		tv := unix.NsecToTimeval(int64(left))
		if err := events.SetReceiveTimeout(&tv); err != nil {
			return fmt.Errorf("wait for the kernel: %w", err)
		}
		// ENOBUFS: too many events to tell; EAGAIN: the deadline. Both are answered by looking again.
		if _, _, err := events.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("wait for the kernel: %w", err)
		}
	}
}

// ready reports whether a device carries packets of both families. The kernel reports the
// carrier up to a second after the device went up, and only then adds the multicast
// route without which nobody answers a neighbour solicitation.
func (l *Lab) ready(n nic) (bool, error) {
	link, err := l.links[n.role].LinkByName(n.device)
	if err != nil {
		return false, fmt.Errorf("look at the link: %w", err)
	}
	if link.Attrs().OperState != netlink.OperUp {
		return false, nil
	}
	if !n.v6.IsValid() {
		return true, nil
	}
	return l.local6(n.role, link, "ff00::", n.v6.Addr().String())
}

// local6 reports whether the local table holds IPv6 routes of that device to all of these addresses.
// An address without its route, which a worker of the kernel adds later, takes no packets yet.
func (l *Lab) local6(r Role, link netlink.Link, addresses ...string) (bool, error) {
	routes, err := l.links[r].RouteListFiltered(unix.AF_INET6,
		&netlink.Route{Table: unix.RT_TABLE_LOCAL, LinkIndex: link.Attrs().Index}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF)
	if err != nil {
		return false, fmt.Errorf("read routes: %w", err)
	}
	for _, a := range addresses {
		if !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.IP.Equal(net.ParseIP(a)) }) {
			return false, nil
		}
	}
	return true, nil
}

func (l *Lab) defaultRoute(r Role, via netip.Addr) error {
	link, err := l.links[r].LinkByName(HostDevice)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", HostDevice, l.Netns(r), err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: via.AsSlice(), Dst: ipNet(netip.PrefixFrom(netip.IPv6Unspecified(), 0))}
	if via.Is4() {
		route.Dst = ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	if err := l.links[r].RouteAdd(route); err != nil {
		return fmt.Errorf("add default route by %s in %s: %w", via, l.Netns(r), err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func removeNamespaces(prefix string) error {
	var errs []error
	for _, r := range append(lineRoles(), roles...) {
		err := netns.DeleteNamed(prefix + "-" + string(r))
		if errors.Is(err, unix.EINVAL) { // a file that never became a mount
			err = os.Remove("/run/netns/" + prefix + "-" + string(r))
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove namespace %s-%s: %w", prefix, r, err))
		}
	}
	return errors.Join(errs...)
}
