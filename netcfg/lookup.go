// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// RouteQuery is a packet whose route is asked for. Only Dest is required.
type RouteQuery struct {
	Dest, Source netip.Addr
	IIF, OIF     string // device it comes in on; device it must leave by
	Mark         uint32
	TOS          uint8
	Protocol     uint8 // number, such as unix.IPPROTO_TCP
	SPort, DPort uint16
	UID          *uint32 // of who sends; nil: of this process
}

// Lookup asks the kernel for the route that a packet would take (RTM_GETROUTE),
// as "ip route get DEST from SOURCE iif IIF mark …" does. OIF, Gateway, PrefSrc,
// Type and Table are those of the packet; Text is the entry of the routing
// table that decided, as "ip route show" prints it.
//
// Errno names the refusal: EINVAL blackhole, EACCES prohibit, EHOSTUNREACH
// unreachable, ENETUNREACH no route or throw; with IIF also EXDEV for the
// reverse-path filter and EINVAL for a martian address. An IPv4 Source that
// the namespace does not own, without IIF, is EADDRNOTAVAIL here, for which
// the kernel says ENETUNREACH or EINVAL too. With an Errno comes no entry, and
// so no Text: the kernel does not tell it.
// A question that could not be put, as with a device that does not exist, has
// an Errno of ENODEV or whatever else the system call gave.
func (n *Netns) Lookup(q RouteQuery) evidence.Lookup {
	e := evidence.Lookup{Dest: q.Dest.String(), IIF: q.IIF, Mark: q.Mark}
	if q.Source.IsValid() {
		e.Source = q.Source.String()
	}
	r, err := n.getRoute(q, 0)
	if (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENETUNREACH)) && q.IIF == "" && q.Source.Unmap().Is4() {
		// IPv4 refuses a source of others like this (ip_route_output_key_hash_rcu).
		own, ownErr := n.getRoute(RouteQuery{Dest: q.Source}, 0)
		if ownErr != nil || own.kind != unix.RTN_LOCAL {
			err = unix.EADDRNOTAVAIL
		}
	}
	if err != nil {
		e.Errno = errnoName(err)
		return e
	}
	p := n.routePrinter()
	item := p.item(r)
	e.Type, e.OIF, e.Gateway, e.PrefSrc, e.Table = item.Type, item.Device, item.Gateway, item.Source, item.Table
	if entry, err := n.getRoute(q, unix.RTM_F_FIB_MATCH); err == nil {
		e.Text = p.text(entry)
	}
	return e
}

// getRoute sends the question with the given further RTM_F_ flags.
func (n *Netns) getRoute(q RouteQuery, flags uint32) (route, error) {
	body, err := n.routeRequest(q, flags|unix.RTM_F_LOOKUP_TABLE)
	if err != nil {
		return route{}, err
	}
	msgs, err := n.request(unix.NETLINK_ROUTE, unix.RTM_GETROUTE, 0, body, unix.RTM_NEWROUTE)
	if err != nil {
		return route{}, err
	}
	if len(msgs) == 0 {
		return route{}, unix.ENODATA
	}
	return parseRoute(msgs[0])
}

func (n *Netns) routeRequest(q RouteQuery, flags uint32) ([]byte, error) {
	dest, source := q.Dest.Unmap().WithZone(""), q.Source.Unmap().WithZone("")
	if !dest.IsValid() || source.IsValid() && source.Is4() != dest.Is4() {
		return nil, unix.EAFNOSUPPORT
	}
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[3] = unix.AF_INET6, q.TOS
	if dest.Is4() {
		b[0] = unix.AF_INET
	}
	b[1] = uint8(dest.BitLen())
	binary.NativeEndian.PutUint32(b[8:], flags)
	b = put(b, unix.RTA_DST, dest.AsSlice())
	if source.IsValid() {
		b[2] = uint8(source.BitLen())
		b = put(b, unix.RTA_SRC, source.AsSlice())
	}
	for _, d := range []struct {
		kind uint16
		name string
	}{{unix.RTA_IIF, q.IIF}, {unix.RTA_OIF, q.OIF}} {
		if d.name == "" {
			continue
		}
		index, err := n.deviceIndex(d.name)
		if err != nil {
			return nil, err
		}
		b = put32(b, d.kind, uint32(index))
	}
	if q.Mark != 0 {
		b = put32(b, unix.RTA_MARK, q.Mark)
	}
	if q.Protocol != 0 {
		b = put(b, unix.RTA_IP_PROTO, []byte{q.Protocol})
	}
	if q.SPort != 0 {
		b = put(b, unix.RTA_SPORT, binary.BigEndian.AppendUint16(nil, q.SPort))
	}
	if q.DPort != 0 {
		b = put(b, unix.RTA_DPORT, binary.BigEndian.AppendUint16(nil, q.DPort))
	}
	if q.UID != nil {
		b = put32(b, unix.RTA_UID, *q.UID)
	}
	return b, nil
}

// deviceIndex returns the index of a device of n; ENODEV if there is none.
func (n *Netns) deviceIndex(name string) (index uint32, err error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, unix.ENODEV
	}
	err = n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
	})
	return request.Uint32(), err
}

// errnoName returns the symbolic name of the errno in err, or its text.
func errnoName(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		if name := unix.ErrnoName(errno); name != "" {
			return name
		}
		return fmt.Sprintf("errno %d", int(errno))
	}
	return err.Error()
}
