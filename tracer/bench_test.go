// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/tracer"
)

// BenchmarkOpen is what every run pays before its probe leaves.
func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		t, err := tracer.Open(tracer.Options{NetnsName: func(uint32) string { return "" }, Take: func(tracer.Record) {}})
		if err != nil {
			b.Fatal(err)
		}
		t.Close()
	}
}

// BenchmarkBystander is what others pay while a probe is watched: the round
// trip of a datagram that is not the probe's, over veth, through a chain of
// nftables and one of iptables-legacy on both ends. Where functions cannot be
// hooked, and where bpftrace is not installed, these are skipped.
func BenchmarkBystander(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	b.Run("none", func(b *testing.B) { bystander(b, func(uint32) func() { return func() {} }) })
	for _, family := range []string{tracer.Tracepoint, tracer.Fentry, tracer.Kprobe} {
		b.Run(family, func(b *testing.B) { bystander(b, func(inode uint32) func() { return traced(b, inode, family) }) })
	}
	b.Run("bpftrace", func(b *testing.B) { bystander(b, func(uint32) func() { return bpftraced(b) }) })
}

// traced opens a tracer for a probe that never comes, and returns what closes it.
func traced(b *testing.B, inode uint32, family string) func() {
	t, err := tracer.Open(tracer.Options{Hooks: family, NetnsName: func(uint32) string { return "" }, Take: func(tracer.Record) {}})
	if errors.Is(err, tracer.ErrTier) {
		b.Skip(err)
	}
	if err != nil {
		b.Fatal(err)
	}
	key := tracer.Key{Protocol: unix.IPPROTO_TCP, ISN: 1, Target: netip.MustParseAddrPort("198.51.100.2:9")}
	if err := t.Watch(key); err != nil {
		b.Fatal(err)
	}
	if !t.SeesRules() {
		if err := t.TraceRules(inode, key); err != nil {
			b.Fatal(err)
		}
	}
	if t.SeesTables(4) {
		_, err = t.WatchTables(inode, 4)
	} else {
		_, err = t.Observe(inode, 4)
	}
	if err != nil && !errors.Is(err, tracer.ErrNoObservers) {
		b.Fatal(err)
	}
	return func() { t.Close() }
}

// bpftraced counts calls of the same functions with bpftrace.
func bpftraced(b *testing.B) func() {
	if _, err := exec.LookPath("bpftrace"); err != nil {
		b.Skip("needs bpftrace")
	}
	const same = "kprobe:nft_do_chain,kretprobe:nft_do_chain,kprobe:nft_immediate_eval,kretprobe:nft_immediate_eval,kprobe:ipt_do_table,kretprobe:ipt_do_table," +
		"tracepoint:net:netif_receive_skb,tracepoint:net:net_dev_queue,tracepoint:skb:kfree_skb,tracepoint:skb:consume_skb"
	cmd := exec.Command("bpftrace", "-e", same+" { @ = count(); } interval:s:1 { printf(\"attached\\n\"); }")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "attached" {
	}
	stop := func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	if lines.Text() != "attached" {
		stop()
		b.Skip("bpftrace cannot attach here")
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return stop
}

// bystander measures round trips between two namespaces while what with began goes on.
func bystander(b *testing.B, with func(inode uint32) (stop func())) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		var here unix.Stat_t
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Stat("/proc/thread-self/ns/net", &here)
		}
		if err != nil {
			b.Error(err)
			return
		}
		// the far end is in the namespace of a process that ends with its standard input
		far := exec.Command("unshare", "-n", "sh", "-c", "echo; exec cat")
		in, _ := far.StdinPipe()
		out, _ := far.StdoutPipe()
		if err := far.Start(); err != nil {
			b.Error(err)
			return
		}
		defer func() { in.Close(); _ = far.Wait() }()
		_, _ = out.Read(make([]byte, 1))
		rules := "table inet fw { chain in { type filter hook input priority 0; tcp dport 1-1000 counter drop; meta l4proto udp counter accept; }; }"
		script := fmt.Sprintf("set -e; ip link add near0 type veth peer name far0 netns %[1]d; ip addr add 198.51.100.1/24 dev near0; ip link set near0 up; "+
			"nsenter -t %[1]d -n ip addr add 198.51.100.2/24 dev far0; nsenter -t %[1]d -n ip link set far0 up; "+
			"for e in '' 'nsenter -t %[1]d -n'; do $e nft '%[2]s'; $e iptables-legacy -A INPUT -p tcp --dport 1:1000 -j DROP; $e iptables-legacy -A INPUT -p udp -j ACCEPT; done",
			far.Process.Pid, rules)
		if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
			b.Errorf("%v: %s", err, out)
			return
		}
		near, err := net.ListenPacket("udp4", "198.51.100.1:0")
		if err != nil {
			b.Error(err)
			return
		}
		defer near.Close()
		stop := with(uint32(here.Ino))
		defer stop()
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", far.Process.Pid))
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			b.Error(err)
			return
		}
		echo, err := net.ListenPacket("udp4", "198.51.100.2:0")
		if err != nil {
			b.Error(err)
			return
		}
		defer echo.Close()
		go func() {
			buf := make([]byte, 64)
			for {
				n, from, err := echo.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = echo.WriteTo(buf[:n], from)
			}
		}()
		buf := make([]byte, 64)
		for b.Loop() {
			if _, err := near.WriteTo([]byte("x"), echo.LocalAddr()); err != nil {
				b.Error(err)
				return
			}
			if _, _, err := near.ReadFrom(buf); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	<-done
}
