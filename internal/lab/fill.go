// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// watchQueue never accepts; it reports when filled connections wait. Each connection that
// joins the queue is one edge, and the count is read after each, so none can be missed.
func watchQueue(fd, filled int, say func(string)) error {
	if err := awaitQueue(fd, filled, say); err != nil {
		return err
	}
	select {}
}

func awaitQueue(fd, filled int, say func(string)) error {
	if filled == 0 {
		return nil
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("watch the accept queue: %w", err)
	}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}); err != nil {
		return fmt.Errorf("watch the accept queue: %w", err)
	}
	for events := make([]unix.EpollEvent, 1); ; {
		if _, err := unix.EpollWait(ep, events, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("watch the accept queue: %w", err)
		}
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return fmt.Errorf("read the length of the accept queue: %w", err)
		}
		if int(info.Unacked) >= filled { // of a listener: connections not yet accepted
			say("full")
			return nil
		}
	}
}

// awaitOverflow returns when the kernel has turned a connection away that met the full queue.
func awaitOverflow(fd, filled int, say func(string)) error {
	before, err := listenOverflows()
	if err != nil {
		return err
	}
	if err := awaitQueue(fd, filled, say); err != nil {
		return err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if now, err := listenOverflows(); err != nil || now != before {
			return err
		}
	}
	return nil
}

// listenOverflows is TcpExtListenOverflows of this process's namespace.
func listenOverflows() (uint64, error) {
	b, err := os.ReadFile("/proc/self/net/netstat")
	if err != nil {
		return 0, fmt.Errorf("read counters: %w", err)
	}
	lines := strings.Split(string(b), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		if k := slices.Index(names, "ListenOverflows"); k >= 0 && k < len(values) {
			return strconv.ParseUint(values[k], 10, 64)
		}
	}
	return 0, errors.New("the kernel does not count ListenOverflows")
}

// fillBuffer sends datagrams to the socket until the kernel has dropped one of them, and reads none.
func fillBuffer(fd int, addr netip.AddrPort, say func(string)) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 2304); err != nil {
		return fmt.Errorf("make the receive buffer small: %w", err)
	}
	domain, to := sockaddr(addr)
	from, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	const drops = 8 // SK_MEMINFO_DROPS of SO_MEMINFO (Linux 4.11)
	for range 1000 {
		if err := unix.Sendto(from, make([]byte, 64), 0, to); err != nil {
			return fmt.Errorf("fill the receive buffer: %w", err)
		}
		info, err := meminfo(fd)
		if err != nil {
			return err
		}
		if info[drops] > 0 {
			unix.Close(from)
			say("ready")
			select {}
		}
	}
	return errors.New("the receive buffer does not fill")
}
