// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ownNetns makes a network namespace with loopback up, kept by a parked thread, and returns its path.
func ownNetns(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	type made struct {
		path string
		err  error
	}
	ready, release, gone := make(chan made), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and its namespace too
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			var lo netlink.Link
			if lo, err = netlink.LinkByName("lo"); err == nil {
				err = netlink.LinkSetUp(lo)
			}
		}
		ready <- made{fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()), err}
		<-release
	}()
	m := <-ready
	t.Cleanup(func() { close(release); <-gone })
	if m.err != nil {
		t.Fatal(m.err)
	}
	return m.path
}

func openFiles(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// ourLinks counts the BPF links that this process holds, by their descriptors.
func ourLinks(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range d {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && to == "anon_inode:bpf_link" {
			n++
		}
	}
	return n
}

// Two hundred traces leave no descriptor, no BPF link and no goroutine behind.
func TestNothingLeaks(t *testing.T) {
	path := ownNetns(t)
	r := request{input: "127.0.0.1:9", protocol: "tcp", target: netip.MustParseAddrPort("127.0.0.1:9"), netns: path, timeout: time.Second}
	trace := func() {
		_, v, err := r.run(context.Background(), &stopwatch{})
		if err != nil {
			t.Fatal(err)
		}
		if v.Cause != "no-listener" {
			t.Fatalf("%s: %v", v.Cause, v.Proof)
		}
	}
	trace() // what is set up once
	files, routines := openFiles(t), runtime.NumGoroutine()
	n := 200
	if testing.Short() {
		n = 10
	}
	for range n {
		trace()
	}
	if got := openFiles(t); got > files {
		t.Errorf("%d open files, then %d", files, got)
	}
	if got := ourLinks(t); got != 0 {
		t.Errorf("%d BPF links are left", got)
	}
	if got := runtime.NumGoroutine(); got > routines {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines, then %d:\n%s", routines, got, buf[:runtime.Stack(buf, true)])
	}
}
