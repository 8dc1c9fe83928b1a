// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// Sizes of struct inet_diag_req_v2 and struct inet_diag_msg of
// include/uapi/linux/inet_diag.h.
const (
	sizeofDiagRequest = 56
	sizeofDiagMessage = 72
)

// tcpStates are the states of include/net/tcp_states.h by number.
var tcpStates = [...]string{1: "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
	"CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV", "BOUND_INACTIVE"}

func stateName(state uint8) string {
	if int(state) < len(tcpStates) && tcpStates[state] != "" {
		return tcpStates[state]
	}
	return fmt.Sprintf("state %d", state)
}

// stateMask returns the bits of the states called names; all when there is no name.
func stateMask(names ...string) (uint32, error) {
	if len(names) == 0 {
		return 1<<len(tcpStates) - 1, nil
	}
	var mask uint32
next:
	for _, name := range names {
		for i, s := range tcpStates {
			if s == name && s != "" {
				mask |= 1 << i
				continue next
			}
		}
		return 0, fmt.Errorf("unknown TCP state %q", name)
	}
	if mask&(1<<unix.BPF_TCP_SYN_RECV) != 0 {
		// The kernel keeps half-open connections as NEW_SYN_RECV, and takes
		// and reports them as SYN_RECV.
		mask |= 1 << unix.BPF_TCP_NEW_SYN_RECV
	}
	return mask, nil
}

// diagRequest is a question to sock_diag(7).
type diagRequest struct {
	family        uint8 // unix.AF_INET or AF_INET6
	protocol      uint8
	states        uint32
	local, remote netip.AddrPort // zero: any; only ports are looked at in a dump
}

func (r diagRequest) body() []byte {
	b := make([]byte, 4, sizeofDiagRequest)
	b[0], b[1] = r.family, r.protocol
	b[2] = 1 << (netlink.INET_DIAG_SKMEMINFO - 1)
	b = binary.NativeEndian.AppendUint32(b, r.states)
	b = binary.BigEndian.AppendUint16(b, r.local.Port())
	b = binary.BigEndian.AppendUint16(b, r.remote.Port())
	for _, a := range []netip.Addr{r.local.Addr(), r.remote.Addr()} {
		var field [16]byte
		copy(field[:], a.AsSlice())
		b = append(b, field[:]...)
	}
	b = binary.NativeEndian.AppendUint32(b, 0) // any device
	return append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
}

// diagSocket is a socket as sock_diag tells it.
type diagSocket struct {
	family        uint8
	state         uint8
	local, remote netip.AddrPort
	device        uint32 // index; 0: none
	rqueue        uint32
	wqueue        uint32
	uid           uint32
	inode         uint32
	v6only        bool
	rmem, rcvbuf  uint32
}

func parseDiag(b []byte) (diagSocket, error) {
	if len(b) < sizeofDiagMessage {
		return diagSocket{}, fmt.Errorf("sock_diag message of %d bytes", len(b))
	}
	s := diagSocket{family: b[0], state: b[1]}
	port := func(at int) uint16 { return binary.BigEndian.Uint16(b[at:]) }
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	addr := func(at int) netip.Addr {
		if s.family == unix.AF_INET6 {
			return netip.AddrFrom16([16]byte(b[at:]))
		}
		return netip.AddrFrom4([4]byte(b[at:]))
	}
	s.local = netip.AddrPortFrom(addr(8), port(4))
	s.remote = netip.AddrPortFrom(addr(24), port(6))
	s.device, s.rqueue, s.wqueue = u32(40), u32(56), u32(60)
	s.uid, s.inode = u32(64), u32(68)
	for _, a := range attributes(b[sizeofDiagMessage:]) {
		switch a.kind {
		case netlink.INET_DIAG_SKV6ONLY:
			s.v6only = a.u8() != 0
		case netlink.INET_DIAG_SKMEMINFO:
			// SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_RCVBUF come first.
			if len(a.value) >= 8 {
				s.rmem, s.rcvbuf = a.u32(), binary.NativeEndian.Uint32(a.value[4:])
			}
		}
	}
	return s, nil
}

// diagDump returns the sockets of both families that fit.
func (n *Netns) diagDump(r diagRequest) ([]diagSocket, error) {
	var list []diagSocket
	var interrupted error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		r.family = family
		msgs, err := n.dump(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, r.body(), nl.SOCK_DIAG_BY_FAMILY)
		switch {
		case errors.Is(err, nl.ErrDumpInterrupted):
			interrupted = err
		case err != nil:
			return nil, err
		}
		for _, m := range msgs {
			s, err := parseDiag(m)
			if err != nil {
				return nil, err
			}
			list = append(list, s)
		}
	}
	return list, interrupted
}

// diagExact asks for one TCP socket. The kernel answers with the listener that
// would take the packet when there is no such connection: look at the state.
func (n *Netns) diagExact(local, remote netip.AddrPort) (s diagSocket, found bool, err error) {
	r := diagRequest{family: unix.AF_INET6, protocol: unix.IPPROTO_TCP, states: ^uint32(0), local: local, remote: remote}
	if local.Addr().Is4() {
		r.family = unix.AF_INET
	}
	msgs, err := n.request(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, 0, r.body(), nl.SOCK_DIAG_BY_FAMILY)
	if errors.Is(err, unix.ENOENT) || err == nil && len(msgs) == 0 {
		return s, false, nil
	}
	if err != nil {
		return s, false, err
	}
	s, err = parseDiag(msgs[0])
	return s, err == nil, err
}

// evidence gives the socket its words. device names a device by its index.
func (s diagSocket) evidence(protocol string, device func(int) string) evidence.Socket {
	e := evidence.Socket{Protocol: protocol, Family: 4, Local: s.local.String(), State: stateName(s.state), V6Only: s.v6only,
		Queue: int(s.rqueue), Backlog: int(s.wqueue), Inode: uint64(s.inode), UID: int(s.uid),
		RcvBuf: int(s.rcvbuf), RMem: int(s.rmem), Process: []evidence.Process{}}
	if s.family == unix.AF_INET6 {
		e.Family = 6
	}
	if s.remote.Port() != 0 {
		e.Remote = s.remote.String()
	}
	if s.device != 0 {
		e.Device = device(int(s.device))
	}
	return e
}
