// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// attach puts the filter on a socket.
func (f Filter) attach(fd int) error {
	switch f {
	case ClassicDrop, ClassicPass:
		keep := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
		if f == ClassicPass {
			keep.K = 0xffffffff // bytes of the packet
		}
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &keep})
	case ProgramDrop:
		p, err := load("lab_socket", ebpf.SocketFilter, 0, always(0))
		if err != nil {
			return err
		}
		defer p.Close() // the socket keeps it
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, p.FD())
	}
	return nil
}

// meminfo is the SO_MEMINFO of a socket, by SK_MEMINFO_* of linux/sock_diag.h.
func meminfo(fd int) (info [9]uint32, err error) {
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return info, fmt.Errorf("read SO_MEMINFO: %w", errno)
	}
	return info, nil
}

// demandMD5 fills in a struct tcp_md5sig: address, then at 130 the length of the key, at 136 the key.
func demandMD5(fd int, peer netip.Addr) error {
	const key = "lab"
	var sig [216]byte
	if peer.Is4() {
		binary.NativeEndian.PutUint16(sig[0:], unix.AF_INET)
		copy(sig[4:], peer.AsSlice())
	} else {
		binary.NativeEndian.PutUint16(sig[0:], unix.AF_INET6)
		copy(sig[8:], peer.AsSlice())
	}
	binary.NativeEndian.PutUint16(sig[130:], uint16(len(key)))
	copy(sig[136:], key)
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_MD5SIG,
		uintptr(unsafe.Pointer(&sig)), uintptr(len(sig)), 0)
	if errno != 0 {
		return fmt.Errorf("demand MD5 signatures: %w", errno)
	}
	return nil
}
