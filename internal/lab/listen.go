// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// listen serves until the process ends. It works on bare sockets because
// package net always asks for the largest backlog.
func listen(what Listen, filled int, say func(string)) error {
	fd, err := what.socket()
	if err != nil {
		return fmt.Errorf("listen on %s: %w", what.Addr, err)
	}
	if strings.HasPrefix(what.Network, "udp") {
		say("ready")
		return serveUDP(fd, what)
	}
	if err := unix.Listen(fd, or(what.Backlog, 128)); err != nil {
		return fmt.Errorf("listen on %s: %w", what.Addr, err)
	}
	say("ready")
	if what.Behaviour == NeverAccept {
		return watchQueue(fd, filled, say)
	}
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil {
			continue // the other end has gone meanwhile
		}
		go what.serve(c)
	}
}

func (what Listen) socket() (int, error) {
	domain, sa := sockaddr(what.Addr)
	kind := unix.SOCK_STREAM
	if strings.HasPrefix(what.Network, "udp") {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	set := func(level, option, value int) {
		if err == nil {
			err = unix.SetsockoptInt(fd, level, option, value)
		}
	}
	set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if domain == unix.AF_INET6 && !what.Dual {
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if what.MinTTL > 0 && domain == unix.AF_INET6 {
		set(unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, what.MinTTL)
	} else if what.MinTTL > 0 {
		set(unix.IPPROTO_IP, unix.IP_MINTTL, what.MinTTL)
	}
	if err == nil && what.Device != "" {
		err = unix.BindToDevice(fd, what.Device)
	}
	if err == nil && what.Filter {
		drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop})
	}
	if err == nil && what.MD5.IsValid() {
		err = demandMD5(fd, what.MD5)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	return fd, err
}

// serve deals with one connection.
func (what Listen) serve(c int) {
	defer unix.Close(c)
	switch what.Behaviour {
	case CloseAtOnce:
		return
	case ResetAtOnce:
		unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		return
	}
	if what.Banner != "" {
		unix.Write(c, []byte(what.Banner))
	}
	b := make([]byte, 4096)
	for {
		n, err := unix.Read(c, b)
		if n <= 0 || err != nil {
			return
		}
		if what.Behaviour == Echo {
			unix.Write(c, b[:n])
		}
	}
}

func serveUDP(fd int, what Listen) error {
	b := make([]byte, 65536)
	for {
		n, from, err := unix.Recvfrom(fd, b, 0)
		switch {
		case err != nil: // an ICMP error about an earlier answer
		case what.Banner != "":
			unix.Sendto(fd, []byte(what.Banner), 0, from)
		case what.Behaviour == Echo:
			unix.Sendto(fd, b[:n], 0, from)
		}
	}
}

// watchQueue never accepts; it reports when filled connections wait. Each connection that
// joins the queue is one edge, and the count is read after each, so none can be missed.
func watchQueue(fd, filled int, say func(string)) error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("watch the accept queue: %w", err)
	}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}); err != nil {
		return fmt.Errorf("watch the accept queue: %w", err)
	}
	told := filled == 0
	for events := make([]unix.EpollEvent, 1); ; {
		if _, err := unix.EpollWait(ep, events, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("watch the accept queue: %w", err)
		}
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return fmt.Errorf("read the length of the accept queue: %w", err)
		}
		if !told && int(info.Unacked) >= filled { // of a listener: connections not yet accepted
			say("full")
			told = true
		}
	}
}

func sockaddr(ap netip.AddrPort) (int, unix.Sockaddr) {
	if ap.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
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
