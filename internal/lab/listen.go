// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

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
		if what.Behaviour == NeverRead {
			return fillBuffer(fd, what.Addr, say)
		}
		say("ready")
		return serveUDP(fd, what)
	}
	if err := unix.Listen(fd, or(what.Backlog, 128)); err != nil {
		return fmt.Errorf("listen on %s: %w", what.Addr, err)
	}
	say("ready")
	switch what.Behaviour {
	case NeverAccept:
		return watchQueue(fd, filled, say)
	case Recover:
		if err := awaitOverflow(fd, filled, say); err != nil {
			return err
		}
	}
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil {
			continue // the other end has gone meanwhile
		}
		go what.serve(c)
		if what.Behaviour == CloseFirst {
			what.Behaviour = Hold
		}
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
	if what.Transparent && domain == unix.AF_INET6 {
		set(unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, 1)
	} else if what.Transparent {
		set(unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)
	}
	if err == nil && what.Device != "" {
		err = unix.BindToDevice(fd, what.Device)
	}
	if err == nil {
		err = what.Filter.attach(fd)
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
	case CloseAtOnce, CloseFirst:
		return
	case CloseSoon:
		for since := time.Now(); time.Since(since) < 10*time.Millisecond; { // not asleep: it has not had enough of the processor yet
		}
		return
	case ExitAtOnce:
		os.Exit(3)
	case DieAtOnce:
		unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	case ResetAtOnce:
		unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		return
	}
	if what.Behaviour == CloseAfter {
		unix.Read(c, make([]byte, 4096))
		unix.Write(c, []byte(what.Banner))
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

func sockaddr(ap netip.AddrPort) (int, unix.Sockaddr) {
	if ap.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
}
