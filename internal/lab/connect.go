// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// connectLimit is how long one connection may take.
const connectLimit = 5 * time.Second

func connect(c Connect, say func(string)) error {
	var held []int
	for range c.Count {
		fd, err := c.open()
		if err != nil {
			return fmt.Errorf("connect to %s: %w", c.To, err)
		}
		held = append(held, fd)
	}
	for _, fd := range held {
		if c.Ended {
			if err := end(fd, c.First); err != nil {
				return fmt.Errorf("end a connection to %s: %w", c.To, err)
			}
		}
	}
	say("ready")
	io.Copy(io.Discard, os.Stdin)
	return nil
}

func (c Connect) open() (int, error) {
	domain, sa := sockaddr(c.To)
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	limit := unix.NsecToTimeval(int64(connectLimit))
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit) // socket(7): of connect() too
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	}
	if err == nil && c.ISN != 0 {
		err = setISN(fd, c.ISN)
	}
	if err == nil && c.From.IsValid() {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // its port may be bound again in TIME_WAIT
	}
	if err == nil && c.From.IsValid() {
		_, from := sockaddr(c.From)
		err = unix.Bind(fd, from)
	}
	if err == nil {
		err = unix.Connect(fd, sa)
	}
	return fd, err
}

// setISN chooses the initial sequence number of a connection (TCP_REPAIR, tcp(7)).
func setISN(fd int, isn uint32) error {
	for _, o := range []struct{ name, value int }{
		{unix.TCP_REPAIR, 1},
		{unix.TCP_REPAIR_QUEUE, 2}, // TCP_SEND_QUEUE
		{unix.TCP_QUEUE_SEQ, int(int32(isn))},
		{unix.TCP_REPAIR, -1}, // TCP_REPAIR_OFF_NO_WP
	} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, o.name, o.value); err != nil {
			return err
		}
	}
	return nil
}

// end closes a connection and returns when the FINs of both sides are through.
func end(fd int, first bool) error {
	if first {
		if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
			return err
		}
	}
	for b := make([]byte, 512); ; {
		n, err := unix.Read(fd, b)
		if n == 0 && err == nil {
			break
		}
		if err != nil && err != unix.EINTR {
			return err
		}
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil && err != unix.ENOTCONN {
		return err
	}
	if first {
		return unix.Close(fd)
	}
	// LAST_ACK ends with the peer's ACK, by which the peer is in TIME_WAIT.
	for {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return err
		}
		if info.State == unix.BPF_TCP_CLOSE {
			return unix.Close(fd)
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1); err != nil && err != unix.EINTR {
			return err
		}
	}
}
