// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// helperEnv makes a program that calls [Helper] act as a helper of a lab.
const helperEnv = "PATHTRACE_LAB_HELPER"

// Helper turns this process into one of a lab's services when it was started as such, and
// then does not return. A program or test that uses labs calls it before anything else:
// a service needs a process of its own, else the tracer would find the test to be the owner.
func Helper() {
	if os.Getenv(helperEnv) == "" {
		return
	}
	os.Unsetenv(helperEnv)
	if err := help(os.Args[len(os.Args)-1], os.NewFile(3, "parent")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func help(arg string, parent *os.File) error {
	var j job
	if err := json.Unmarshal([]byte(arg), &j); err != nil {
		return fmt.Errorf("read the helper's task: %w", err)
	}
	unix.CloseOnExec(int(parent.Fd()))
	err := j.run(func(word string) { fmt.Fprintln(parent, word) })
	if err != nil && j.Reap == nil {
		fmt.Fprintln(parent, err)
	}
	return err
}

// run does the job; say reports to the parent.
func (j job) run(say func(string)) error {
	switch {
	case j.Listen != nil:
		if err := os.WriteFile("/proc/self/comm", []byte(or(j.Listen.Comm, "labd")), 0); err != nil {
			return fmt.Errorf("set the name of the process: %w", err)
		}
		go leaveWithParent()
		return listen(*j.Listen, j.Filled, say)
	case j.Connect != nil:
		return connect(*j.Connect, say)
	case j.Flood != nil:
		go leaveWithParent()
		return flood(*j.Flood, say)
	case j.Reap != nil:
		return j.Reap.run()
	}
	return errors.New("a helper without a task")
}

// leaveWithParent ends this process when the parent closes its end of stdin, or dies.
func leaveWithParent() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func connect(c Connect, say func(string)) error {
	d := net.Dialer{Timeout: 5 * time.Second, KeepAlive: -1}
	var held []net.Conn
	for range c.Count {
		conn, err := d.Dial("tcp", c.To.String())
		if err != nil {
			return fmt.Errorf("connect to %s: %w", c.To, err)
		}
		held = append(held, conn)
	}
	say("ready")
	io.Copy(io.Discard, os.Stdin)
	for _, conn := range held {
		conn.Close()
	}
	return nil
}

func flood(f Flood, say func(string)) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	send := func(i int) error {
		p := syn(netip.AddrPortFrom(f.From, uint16(20000+i%20000)), f.To, uint32(i)*7919)
		if err := unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: f.To.Addr().As4()}); err != nil {
			return fmt.Errorf("send SYN %d: %w", i, err)
		}
		return nil
	}
	for i := range max(f.Count, 1) {
		if err := send(i); err != nil {
			return err
		}
	}
	say("ready")
	if f.Count > 0 {
		return nil
	}
	tick := time.NewTicker(time.Millisecond)
	for i := 1; ; i++ {
		<-tick.C
		// ENOBUFS and the like: one SYN fewer does not matter to a stream of them.
		_ = send(i)
	}
}

// syn builds an IPv4 packet with a TCP SYN.
func syn(from, to netip.AddrPort, seq uint32) []byte {
	p := make([]byte, 40)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_TCP // the kernel fills in length and checksum of the IP header
	copy(p[12:], from.Addr().AsSlice())
	copy(p[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint32(p[24:], seq)
	p[32], p[33] = 5<<4, 1<<1 // five words of header, SYN
	binary.BigEndian.PutUint16(p[34:], 1024)
	sum := uint32(unix.IPPROTO_TCP + 20)
	for i := 12; i < 40; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(p[36:], ^uint16(sum))
	return p
}
