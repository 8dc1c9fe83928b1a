// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"errors"
	"net"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// retry calls read until the table has held still for it, a few times at most.
func retry[T any](read func() ([]T, error)) (items []T, err error) {
	for range dumpTries {
		items, err = read()
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	return items, err
}

// inside is retry on a thread in n.
func inside[T any](n *Netns, read func() ([]T, error)) (items []T, err error) {
	err = n.Do(func() error {
		items, err = retry(read)
		return err
	})
	return items, err
}

// Links returns the network devices of n (RTM_GETLINK).
func (n *Netns) Links() evidence.Section[evidence.Link] {
	links, err := inside(n, netlink.LinkList)
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	ports, trees := n.bridgePorts(links), n.spanningTrees(links)
	list := make([]evidence.Link, 0, len(links))
	for _, l := range links {
		e := linkEvidence(l, names)
		p := ports[e.Index]
		e.Isolated, e.PortState, e.STP = p.isolated, p.state, trees[e.Index]
		list = append(list, e)
	}
	return section("links", list, err)
}

func linkEvidence(l netlink.Link, names map[int]string) evidence.Link {
	a := l.Attrs()
	e := evidence.Link{Index: a.Index, Name: a.Name, Kind: l.Type(), Up: a.RawFlags&unix.IFF_UP != 0,
		Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0, State: strings.ToUpper(a.OperState.String()),
		MTU: a.MTU, MAC: a.HardwareAddr.String(), Flags: linkFlags(a.RawFlags)}
	if e.Kind == "device" {
		e.Kind = "" // the library's word for a link without a kind: hardware, lo
	}
	// As ip link does: the words of RFC 2863 without spaces.
	e.State = strings.ReplaceAll(strings.ReplaceAll(e.State, "-", ""), " ", "")
	if a.MasterIndex != 0 {
		if e.Master = names[a.MasterIndex]; e.Master == "" {
			e.Master = "if" + strconv.Itoa(a.MasterIndex)
		}
	}
	if a.Xdp != nil && a.Xdp.Attached {
		e.XDP = a.Xdp.ProgId
	}
	return e
}

// linkFlags names the flags of netdevice(7) in the order of ip link.
func linkFlags(flags uint32) []string {
	var list []string
	if flags&unix.IFF_UP != 0 && flags&unix.IFF_RUNNING == 0 {
		list = append(list, "NO-CARRIER")
	}
	for _, f := range []struct {
		bit  uint32
		name string
	}{
		{unix.IFF_LOOPBACK, "LOOPBACK"}, {unix.IFF_BROADCAST, "BROADCAST"}, {unix.IFF_POINTOPOINT, "POINTOPOINT"},
		{unix.IFF_MULTICAST, "MULTICAST"}, {unix.IFF_NOARP, "NOARP"}, {unix.IFF_ALLMULTI, "ALLMULTI"},
		{unix.IFF_PROMISC, "PROMISC"}, {unix.IFF_MASTER, "MASTER"}, {unix.IFF_SLAVE, "SLAVE"},
		{unix.IFF_DEBUG, "DEBUG"}, {unix.IFF_DYNAMIC, "DYNAMIC"}, {unix.IFF_AUTOMEDIA, "AUTOMEDIA"},
		{unix.IFF_PORTSEL, "PORTSEL"}, {unix.IFF_NOTRAILERS, "NOTRAILERS"}, {unix.IFF_UP, "UP"},
		{unix.IFF_LOWER_UP, "LOWER_UP"}, {unix.IFF_DORMANT, "DORMANT"}, {unix.IFF_ECHO, "ECHO"},
	} {
		if flags&f.bit != 0 {
			list = append(list, f.name)
		}
	}
	return list
}

// deviceNames returns a function that names the devices of n by index, as
// "if7" when it does not know one, which is also what ip prints.
func (n *Netns) deviceNames() func(index int) string {
	names := map[int]string{}
	if links, err := inside(n, net.Interfaces); err == nil {
		for _, l := range links {
			names[l.Index] = l.Name
		}
	}
	return func(index int) string {
		if name, ok := names[index]; ok {
			return name
		}
		return "if" + strconv.Itoa(index)
	}
}

// Addresses returns the addresses of all devices of n, both families
// (RTM_GETADDR).
func (n *Netns) Addresses() evidence.Section[evidence.Address] {
	addrs, err := inside(n, func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	device, words := n.deviceNames(), readRouteNames()
	list := make([]evidence.Address, 0, len(addrs))
	for _, a := range addrs {
		list = append(list, evidence.Address{Device: device(a.LinkIndex), Prefix: a.IPNet.String(),
			Scope: words.scope(uint8(a.Scope)), Flags: addrFlags(a.Flags, a.IP.To4() == nil)})
	}
	return section("addresses", list, err)
}

// addrFlags names the flags of include/uapi/linux/if_addr.h as ip address does.
func addrFlags(flags int, v6 bool) string {
	secondary := "secondary"
	if v6 {
		secondary = "temporary" // the same bit
	}
	words := []string{}
	for _, f := range []struct {
		bit  int
		name string
	}{
		{unix.IFA_F_SECONDARY, secondary}, {unix.IFA_F_NODAD, "nodad"}, {unix.IFA_F_OPTIMISTIC, "optimistic"},
		{unix.IFA_F_DADFAILED, "dadfailed"}, {unix.IFA_F_HOMEADDRESS, "home"}, {unix.IFA_F_DEPRECATED, "deprecated"},
		{unix.IFA_F_TENTATIVE, "tentative"}, {unix.IFA_F_MANAGETEMPADDR, "mngtmpaddr"},
		{unix.IFA_F_NOPREFIXROUTE, "noprefixroute"}, {unix.IFA_F_MCAUTOJOIN, "autojoin"}, {unix.IFA_F_STABLE_PRIVACY, "stable-privacy"},
	} {
		if flags&f.bit != 0 {
			words = append(words, f.name)
		}
	}
	if flags&unix.IFA_F_PERMANENT == 0 {
		words = append(words, "dynamic")
	}
	return strings.Join(words, " ")
}

// Neighbors returns the ARP and ND entries of n (RTM_GETNEIGH).
func (n *Netns) Neighbors() evidence.Section[evidence.Neighbor] {
	neighs, err := inside(n, func() ([]netlink.Neigh, error) {
		v4, err := netlink.NeighList(0, netlink.FAMILY_V4)
		if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
			return nil, err
		}
		v6, err6 := netlink.NeighList(0, netlink.FAMILY_V6)
		if err6 != nil && !errors.Is(err6, nl.ErrDumpInterrupted) {
			return nil, err6
		}
		return append(v4, v6...), errors.Join(err, err6)
	})
	device := n.deviceNames()
	list := make([]evidence.Neighbor, 0, len(neighs))
	for _, e := range neighs {
		list = append(list, evidence.Neighbor{Address: e.IP.String(), Device: device(e.LinkIndex),
			MAC: e.HardwareAddr.String(), State: neighborState(e.State)})
	}
	return section("neighbours", list, err)
}

// neighborState names the NUD_ states of rtnetlink(7) as ip neighbour does.
func neighborState(state int) string {
	for _, s := range []struct {
		bit  int
		name string
	}{
		{netlink.NUD_INCOMPLETE, "INCOMPLETE"}, {netlink.NUD_REACHABLE, "REACHABLE"}, {netlink.NUD_STALE, "STALE"},
		{netlink.NUD_DELAY, "DELAY"}, {netlink.NUD_PROBE, "PROBE"}, {netlink.NUD_FAILED, "FAILED"},
		{netlink.NUD_NOARP, "NOARP"}, {netlink.NUD_PERMANENT, "PERMANENT"},
	} {
		if state&s.bit != 0 {
			return s.name
		}
	}
	return "NONE"
}
