// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/probe"
	"github.com/pathtrace/pathtrace/tracer"
)

// inNetns runs f in a new network namespace whose loopback is up. The thread is thrown away with it.
func inNetns(t *testing.T, f func(inode uint32)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		var st unix.Stat_t
		if err == nil {
			err = unix.Stat("/proc/thread-self/ns/net", &st)
		}
		if err != nil {
			t.Error(err)
			return
		}
		f(uint32(st.Ino))
	}()
	<-done
}

// watched traces one connection attempt in the calling thread's namespace.
// others runs once everything is armed, before the probe.
func watched(t *testing.T, inode uint32, target string, others func()) (evidence.Probe, []tracer.Record) {
	t.Helper()
	return watchedBetween(t, inode, target, func(*tracer.Tracer) {
		if others != nil {
			others()
		}
	}, func() {})
}

// watchedBetween runs before when everything is armed, and after when the probe is over and all is still watched.
func watchedBetween(t *testing.T, inode uint32, target string, before func(*tracer.Tracer), after func()) (evidence.Probe, []tracer.Record) {
	t.Helper()
	var mu sync.Mutex
	var records []tracer.Record
	tr, err := tracer.Open(tracer.Options{
		NetnsName: func(i uint32) string {
			if i == inode {
				return "here"
			}
			return ""
		},
		Take: func(r tracer.Record) { mu.Lock(); records = append(records, r); mu.Unlock() },
	})
	if err != nil {
		t.Error(err)
		return evidence.Probe{}, nil
	}
	defer tr.Close()
	to := netip.MustParseAddrPort(target)
	p, err := probe.Open(probe.Config{Protocol: "tcp", Target: to, Timeout: 2 * time.Second})
	if err != nil {
		t.Error(err)
		return evidence.Probe{}, nil
	}
	defer p.Close()
	key := tracer.Key{Protocol: unix.IPPROTO_TCP, ISN: p.ISN(), Target: to}
	if err := tr.Watch(key); err != nil {
		t.Error(err)
	}
	if err := tr.TraceRules(inode, key); err != nil {
		t.Error(err)
	}
	before(tr)
	outcome := p.Run(context.Background())
	after()
	if err := tr.Flush(); err != nil {
		t.Error(err)
	}
	if err := tr.Err(); err != nil {
		t.Error(err)
	}
	if n := tr.Lost(); n != 0 {
		t.Errorf("%d events lost", n)
	}
	mu.Lock()
	defer mu.Unlock()
	return outcome, slices.Clone(records)
}

func find(records []tracer.Record, match func(evidence.Event) bool) *evidence.Event {
	for i := range records {
		if records[i].Counters == nil && match(records[i].Event) {
			return &records[i].Event
		}
	}
	return nil
}

func TestClosedPort(t *testing.T) {
	for _, target := range []string{"127.0.0.1:7", "[::1]:7"} {
		t.Run(target, func(t *testing.T) {
			inNetns(t, func(inode uint32) {
				p, records := watched(t, inode, target, nil)
				if p.Outcome != evidence.Refused {
					t.Errorf("outcome %s, want %s", p.Outcome, evidence.Refused)
				}
				drop := find(records, func(e evidence.Event) bool { return e.Kind == evidence.Drop && e.Reason == "NO_SOCKET" })
				if drop == nil {
					t.Errorf("no drop with NO_SOCKET among %d records", len(records))
					return
				}
				if drop.Netns != "here" || drop.Direction != evidence.Forward || drop.Packet.Flags != "S" || drop.Packet.Seq != p.ISN || drop.Device != "lo" {
					t.Errorf("the drop: %+v of %+v", drop, drop.Packet)
				}
				if len(drop.Stack) == 0 {
					t.Error("the drop has no call stack")
				}
				if find(records, func(e evidence.Event) bool { return e.Kind == evidence.ResetGot }) == nil {
					t.Error("the RST was not seen to arrive")
				}
				if find(records, func(e evidence.Event) bool {
					return e.Kind == evidence.Transmit && e.Direction == evidence.Reply && e.Packet.Flags == "R."
				}) == nil {
					t.Error("the RST was not seen to leave")
				}
				if find(records, func(e evidence.Event) bool {
					return e.Kind == evidence.Route && e.Netns == "here" && e.Route.OIF == "lo"
				}) == nil {
					t.Error("no route lookup was seen")
				}
			})
		})
	}
}

// What this process asks for itself is not the probe's. What is asked for a packet is, though the packet
// comes while this process asks, on top of it.
func TestReadingHidesNoPacket(t *testing.T) {
	for _, target := range []string{"127.0.0.1:7", "[::1]:7"} {
		t.Run(target, func(t *testing.T) {
			inNetns(t, func(inode uint32) {
				_, records := watchedBetween(t, inode, target, func(tr *tracer.Tracer) {
					if err := tr.Reading(true); err != nil {
						t.Error(err)
					}
				}, func() {})
				if find(records, func(e evidence.Event) bool { return e.Kind == evidence.Route && e.SKB != "" }) == nil {
					t.Error("the way back of the RST was asked for, and not told")
				}
				if e := find(records, func(e evidence.Event) bool { return e.Kind == evidence.Route && e.SKB == "" }); e != nil {
					t.Errorf("this process asked itself, and that was told: %+v", e.Route)
				}
			})
		})
	}
}

// The files of rules that a process opens are told while it holds the probe's connection, and no others.
func TestRulesOpened(t *testing.T) {
	dir := t.TempDir()
	open := func(name string) {
		f, err := os.Open(filepath.Join(dir, name))
		if err == nil {
			f.Close()
		}
	}
	for _, name := range []string{"hosts.deny", "hosts.equiv"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inNetns(t, func(inode uint32) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		served := make(chan struct{})
		go func() {
			defer close(served)
			var held []net.Conn
			for range 2 {
				open("hosts.deny") // before there is a connection, then before there is ours
				c, err := l.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				held = append(held, c)
			}
			open("hosts.allow") // there is none
			open("hosts.equiv")
			open("hosts.deny")
			held[0].Close()
			open("hosts.deny")
		}()
		_, records := watchedBetween(t, inode, l.Addr().String(), func(tr *tracer.Tracer) {
			if err := tr.WatchOpens(); err != nil {
				t.Error(err)
			}
			other, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { other.Close() })
		}, func() { <-served })
		var got []evidence.Opened
		for _, r := range records {
			if o := r.Event.Opened; o != nil {
				if o.Root == nil || o.Argv0 != os.Args[0] && len(os.Args[0]) < 128 || r.Event.PID != os.Getpid() || r.Event.Netns != "here" {
					t.Errorf("%+v: %+v", r.Event, o)
				}
				got = append(got, evidence.Opened{Path: filepath.Base(o.Path), Errno: o.Errno, Others: o.Others})
			}
		}
		// held by this process too: the other connection's far end, and the probe's own, which is not a server's
		want := []evidence.Opened{{Path: "hosts.allow", Errno: "ENOENT", Others: 3}, {Path: "hosts.deny", Others: 3}, {Path: "hosts.deny", Others: 2}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// A tracer reports the probe it was told to watch, and no other connection to the same port.
func TestOthersStayOut(t *testing.T) {
	inNetns(t, func(inode uint32) {
		_, records := watched(t, inode, "127.0.0.1:7", func() {
			for range 20 {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Error(err)
					return
				}
				if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 7}); err != unix.ECONNREFUSED {
					t.Errorf("connect: %v", err)
				}
				unix.Close(fd)
			}
		})
		ports := map[int]bool{}
		for _, r := range records {
			if p := r.Event.Packet; p != nil && r.Event.Direction == evidence.Forward {
				ports[p.SPort] = true
			}
		}
		if len(ports) != 1 {
			t.Errorf("packets from ports %v, want those of the probe alone", ports)
		}
	})
}

// A datagram that was read is freed unseen since Linux 6.18. Whoever's datagram the kernel puts into
// its buffer next is not the probe's.
func TestReusedBuffer(t *testing.T) {
	inNetns(t, func(inode uint32) {
		var mu sync.Mutex
		ports := map[int]bool{}
		tr, err := tracer.Open(tracer.Options{
			NetnsName: func(uint32) string { return "here" },
			Take: func(r tracer.Record) {
				if p := r.Event.Packet; p != nil {
					mu.Lock()
					defer mu.Unlock()
					ports[p.DPort] = true
				}
			},
		})
		if err != nil {
			t.Error(err)
			return
		}
		defer tr.Close()
		// talk sends a datagram to a socket of its own, which reads it.
		talk := func(prepare func(from, to netip.AddrPort) error) (to netip.AddrPort) {
			server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Error(err)
				return to
			}
			defer server.Close()
			to = server.LocalAddr().(*net.UDPAddr).AddrPort()
			client, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
			if err != nil {
				t.Error(err)
				return to
			}
			defer client.Close()
			ready := prepare(client.LocalAddr().(*net.UDPAddr).AddrPort(), to)
			_, sent := client.Write([]byte("x"))
			_, read := server.Read(make([]byte, 1))
			if err := errors.Join(ready, sent, read); err != nil {
				t.Error(err)
			}
			return to
		}
		ours := talk(func(from, to netip.AddrPort) error {
			return errors.Join(tr.Watch(tracer.Key{Protocol: unix.IPPROTO_UDP, Target: to}), tr.Follow(unix.IPPROTO_UDP, from, to))
		})
		for range 100 {
			talk(func(netip.AddrPort, netip.AddrPort) error { return nil })
		}
		if err := tr.Flush(); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(ports) != 1 || !ports[int(ours.Port())] {
			t.Errorf("datagrams to ports %v, want those to %d alone", ports, ours.Port())
		}
	})
}

func TestInitialNamespaceIsFound(t *testing.T) {
	inNetns(t, func(inode uint32) {
		tr, err := tracer.Open(tracer.Options{NetnsName: func(uint32) string { return "" }, Take: func(tracer.Record) {}})
		if err != nil {
			t.Error(err)
			return
		}
		defer tr.Close()
		_, initial, err := tr.Hooked()
		if err != nil {
			t.Error(err)
		}
		if initial == 0 || initial == inode {
			t.Errorf("initial namespace %d, ours %d", initial, inode)
		}
	})
}

// Events that find no room are counted, and nobody waits for them.
func TestFullRing(t *testing.T) {
	inNetns(t, func(inode uint32) {
		full := make(chan struct{})
		tr, err := tracer.Open(tracer.Options{
			NetnsName: func(uint32) string { return "here" }, Ring: uint32(os.Getpagesize()), Take: func(tracer.Record) { <-full },
		})
		if err != nil {
			t.Error(err)
			return
		}
		defer tr.Close()
		for range 3 { // one refused connection is about ten events, and eight fill the page
			to := netip.MustParseAddrPort("127.0.0.1:7")
			p, err := probe.Open(probe.Config{Protocol: "tcp", Target: to, Timeout: 2 * time.Second})
			if err != nil {
				t.Error(err)
				break
			}
			if err := tr.Watch(tracer.Key{Protocol: unix.IPPROTO_TCP, ISN: p.ISN(), Target: to}); err != nil {
				t.Error(err)
			}
			if got := p.Run(context.Background()); got.Outcome != evidence.Refused {
				t.Errorf("outcome %s, want %s", got.Outcome, evidence.Refused)
			}
			p.Close()
		}
		if tr.Lost() == 0 {
			t.Error("no event was lost")
		}
		close(full)
		if err := tr.Flush(); err != nil {
			t.Error(err)
		}
	})
}

// A legacy table that is replaced after the packet was counted is noticed: its rules then say nothing about the packet.
func TestLegacyTableChanged(t *testing.T) {
	if _, err := exec.LookPath("iptables-legacy"); err != nil {
		t.Skip("needs iptables-legacy")
	}
	inNetns(t, func(inode uint32) {
		rule := func() {
			if out, err := exec.Command("iptables-legacy", "-w", "-A", "INPUT", "-p", "tcp", "--dport", "7", "-j", "DROP").CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
		rule()
		counted := make(chan *tracer.Counters, 100)
		tr, err := tracer.Open(tracer.Options{NetnsName: func(uint32) string { return "here" }, Take: func(r tracer.Record) {
			if r.Counters != nil {
				counted <- r.Counters
			}
		}})
		if err != nil {
			t.Error(err)
			return
		}
		defer tr.Close()
		to := netip.MustParseAddrPort("127.0.0.1:7")
		p, err := probe.Open(probe.Config{Protocol: "tcp", Target: to, Timeout: 50 * time.Millisecond})
		if err != nil {
			t.Error(err)
			return
		}
		defer p.Close()
		if err := tr.Watch(tracer.Key{Protocol: unix.IPPROTO_TCP, ISN: p.ISN(), Target: to}); err != nil {
			t.Error(err)
		}
		if _, err := tr.Observe(inode, 4); err != nil {
			t.Error(err)
		}
		p.Run(context.Background())
		if err := tr.Flush(); err != nil {
			t.Error(err)
		}
		if len(counted) == 0 {
			t.Error("no counters")
			return
		}
		c := <-counted
		if tr.TableChanged(c) {
			t.Error("changed, though nobody touched it")
		}
		rule()
		for range 2 {
			if !tr.TableChanged(c) {
				t.Error("not noticed")
			}
		}
	})
}

// However many probes one tracer watches, one after the other, the flows of those before take no room.
func TestWatchForgets(t *testing.T) {
	inNetns(t, func(uint32) {
		tr, err := tracer.Open(tracer.Options{NetnsName: func(uint32) string { return "" }, Take: func(tracer.Record) {}})
		if err != nil {
			t.Error(err)
			return
		}
		defer tr.Close()
		to := netip.MustParseAddrPort("127.0.0.1:9")
		for port := range uint16(600) { // two flows each, and there is room for 1024
			if err := tr.Watch(tracer.Key{Protocol: unix.IPPROTO_UDP, Target: to}); err != nil {
				t.Error(err)
				return
			}
			if err := tr.Follow(unix.IPPROTO_UDP, netip.AddrPortFrom(to.Addr(), 1000+port), to); err != nil {
				t.Errorf("probe %d: %v", port+1, err)
				return
			}
		}
	})
}
