// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// Sockets returns who has port in n, of both families, by sock_diag(7): the
// TCP sockets that listen on it, or the UDP sockets that are bound to it
// (connected ones included, with Remote). protocol is "tcp" or "udp". Each
// comes with the processes that hold it.
func (n *Netns) Sockets(protocol string, port uint16) evidence.Section[evidence.Socket] {
	what := fmt.Sprintf("%s sockets on port %d", protocol, port)
	r := diagRequest{local: netip.AddrPortFrom(netip.Addr{}, port)}
	switch protocol {
	case "tcp":
		r.protocol, r.states = unix.IPPROTO_TCP, 1<<unix.BPF_TCP_LISTEN
	case "udp":
		r.protocol, r.states = unix.IPPROTO_UDP, ^uint32(0)
	default:
		return evidence.Missing[evidence.Socket](fmt.Sprintf("%s: unknown protocol", what))
	}
	found, err := n.diagDump(r)
	list := make([]evidence.Socket, 0, len(found))
	device := n.deviceNames()
	for _, s := range found {
		// The kernel has filtered by the port; an older one might not.
		if s.local.Port() == port {
			list = append(list, s.evidence(protocol, device))
		}
	}
	addOwners(list)
	return section(what, list, err)
}

// Connection looks a TCP connection of n up by its exact addresses, as seen
// from its own end. IPv4 addresses also find a connection of an IPv6 socket;
// the answer then has Family 6 and addresses like [::ffff:10.0.0.1]:80.
// A connection in the accept queue has Inode 0 and no process, one in the SYN
// queue has the State NEW_SYN_RECV or SYN_RECV. found is false when there is none.
func (n *Netns) Connection(local, remote netip.AddrPort) (sock evidence.Socket, found bool, err error) {
	local, remote = unmap(local), unmap(remote)
	s, found, err := n.diagExact(local, remote)
	if err != nil {
		return sock, false, fmt.Errorf("connection %s to %s: %w", local, remote, err)
	}
	if !found || unmap(s.local) != local || unmap(s.remote) != remote {
		return sock, false, nil
	}
	list := []evidence.Socket{s.evidence("tcp", n.deviceNames())}
	addOwners(list)
	return list[0], true, nil
}

// ConnectionFilter selects TCP sockets. The zero value of a field selects all;
// an address that is not valid with a port selects by the port alone.
type ConnectionFilter struct {
	Local, Remote netip.AddrPort
	States        []string // names of include/net/tcp_states.h without TCP_: TIME_WAIT, SYN_RECV …
}

// Connections returns the TCP sockets of n that fit, without their processes:
// to see who still holds a tuple (TIME_WAIT), or how long the SYN queue is
// (SYN_RECV).
func (n *Netns) Connections(f ConnectionFilter) evidence.Section[evidence.Socket] {
	mask, err := stateMask(f.States...)
	if err != nil {
		return evidence.Missing[evidence.Socket](err.Error())
	}
	found, err := n.diagDump(diagRequest{protocol: unix.IPPROTO_TCP, states: mask, local: f.Local, remote: f.Remote})
	list := make([]evidence.Socket, 0, len(found))
	device := n.deviceNames()
	for _, s := range found {
		if fits(f.Local, s.local) && fits(f.Remote, s.remote) {
			list = append(list, s.evidence("tcp", device))
		}
	}
	return section("tcp connections", list, err)
}

// fits reports whether an address is the wanted one, as far as that is given.
func fits(want, have netip.AddrPort) bool {
	if want.Port() != 0 && want.Port() != have.Port() {
		return false
	}
	return !want.Addr().IsValid() || want.Addr().Unmap() == have.Addr().Unmap()
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
