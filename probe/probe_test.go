// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// inNetns runs f on a thread in a new network namespace whose loopback is up.
func inNetns(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			var lo netlink.Link
			if lo, err = netlink.LinkByName("lo"); err == nil {
				err = netlink.LinkSetUp(lo)
			}
		}
		if err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// serve accepts connections in the calling thread's namespace and gives each to handle.
func serve(t *testing.T, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return netip.AddrPort{}
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handle(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func runProbe(t *testing.T, ctx context.Context, cfg Config) evidence.Probe {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Error(err)
		return evidence.Probe{}
	}
	defer s.Close()
	return s.Run(ctx)
}

func TestTCP(t *testing.T) {
	inNetns(t, func() {
		hello := serve(t, func(c net.Conn) { c.Write([]byte("220 hello\r\n")); c.Read(make([]byte, 1)); c.Close() })
		silent := serve(t, func(c net.Conn) { c.Read(make([]byte, 100)) })
		closer := serve(t, func(c net.Conn) { c.Close() })
		resetter := serve(t, func(c net.Conn) { c.(*net.TCPConn).SetLinger(0); c.Close() })
		closed := netip.MustParseAddrPort("127.0.0.1:7")
		for _, c := range []struct {
			name          string
			cfg           Config
			outcome, errn string
			banner        string
			unmatched     bool
		}{
			{"refused", Config{Target: closed}, evidence.Refused, "ECONNREFUSED", "", false},
			{"connected, nothing asked", Config{Target: silent}, evidence.Connected, "", "", false},
			{"a banner", Config{Target: hello, Wait: true}, evidence.Answered, "", "220 hello\r\n", false},
			{"the answer that was wanted", Config{Target: hello, Expect: regexp.MustCompile("^220")}, evidence.Answered, "", "220 hello\r\n", false},
			{"another answer", Config{Target: hello, Expect: regexp.MustCompile("^421")}, evidence.Silent, "", "220 hello\r\n", true},
			{"no answer", Config{Target: silent, Expect: regexp.MustCompile(".")}, evidence.Silent, "", "", false},
			{"closed", Config{Target: closer, Wait: true}, evidence.Closed, "", "", false},
			{"reset", Config{Target: resetter, Wait: true}, evidence.Reset, "ECONNRESET", "", false},
			{"no route", Config{Target: netip.MustParseAddrPort("192.0.2.1:7")}, evidence.Unreachable, "ENETUNREACH", "", false},
		} {
			c.cfg.Protocol, c.cfg.Timeout = "tcp", 300*time.Millisecond
			p := runProbe(t, context.Background(), c.cfg)
			if p.Outcome != c.outcome || p.Errno != c.errn || p.Banner != c.banner || p.Unmatched != c.unmatched {
				t.Errorf("%s: %s %s %q unmatched=%v, want %s %s %q %v", c.name, p.Outcome, p.Errno, p.Banner, p.Unmatched, c.outcome, c.errn, c.banner, c.unmatched)
			}
		}
	})
}

// Whoever ends the context ends the probe, long before its deadline.
func TestCancel(t *testing.T) {
	inNetns(t, func() {
		silent := serve(t, func(c net.Conn) { c.Read(make([]byte, 100)) })
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(ErrExplained)
		p := runProbe(t, ctx, Config{Protocol: "tcp", Target: silent, Timeout: time.Hour, Expect: regexp.MustCompile(".")})
		if took := time.Duration(p.DurationNS); took > time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

// The port holds from Open on, and the sequence number is never one that the kernel would choose itself.
func TestKnownBeforeItLeaves(t *testing.T) {
	inNetns(t, func() {
		s, err := Open(Config{Protocol: "tcp", Target: netip.MustParseAddrPort("127.0.0.1:7"), Timeout: time.Second})
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		port := s.Local().Port()
		if port == 0 || s.ISN() == 0 || s.ISN() > 0x7fff0000 {
			t.Errorf("port %d, sequence number %d", port, s.ISN())
		}
		p := s.Run(context.Background())
		if got := netip.MustParseAddrPort(p.Local).Port(); got != port {
			t.Errorf("it came from port %d, not from %d", got, port)
		}
	})
}

func TestDatagrams(t *testing.T) {
	inNetns(t, func() {
		echo, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		defer echo.Close()
		go func() {
			b := make([]byte, 100)
			for {
				n, from, err := echo.ReadFrom(b)
				if err != nil {
					return
				}
				echo.WriteTo(b[:n], from)
			}
		}()
		to := echo.LocalAddr().(*net.UDPAddr).AddrPort()
		var local, remote netip.AddrPort
		ready := func(l, r netip.AddrPort) error { local, remote = l, r; return nil }
		for _, c := range []struct {
			name    string
			cfg     Config
			outcome string
		}{
			{"udp answered", Config{Protocol: "udp", Target: to, Send: []byte("x")}, evidence.Answered},
			{"udp refused", Config{Protocol: "udp", Target: netip.MustParseAddrPort("127.0.0.1:7"), Send: []byte("x")}, evidence.Refused},
			{"icmp", Config{Protocol: "icmp", Target: netip.MustParseAddrPort("127.0.0.1:0")}, evidence.Answered},
			{"icmpv6", Config{Protocol: "icmp", Target: netip.MustParseAddrPort("[::1]:0")}, evidence.Answered},
		} {
			local, remote = netip.AddrPort{}, netip.AddrPort{}
			c.cfg.Timeout, c.cfg.Ready = time.Second, ready
			p := runProbe(t, context.Background(), c.cfg)
			if p.Outcome != c.outcome {
				t.Errorf("%s: %s %s, want %s", c.name, p.Outcome, p.Errno, c.outcome)
			}
			if local.Port() == 0 || local.Addr().IsUnspecified() || remote.Addr() != c.cfg.Target.Addr() {
				t.Errorf("%s: announced as %v to %v", c.name, local, remote)
			}
		}
		refuse := errors.New("not ready")
		p := runProbe(t, context.Background(), Config{Protocol: "udp", Target: to, Timeout: time.Second,
			Ready: func(netip.AddrPort, netip.AddrPort) error { return refuse }})
		if p.Outcome != evidence.Denied || p.Sent != 0 {
			t.Errorf("nobody was ready: %s, %d bytes sent", p.Outcome, p.Sent)
		}
	})
}

func TestBadConfig(t *testing.T) {
	inNetns(t, func() {
		for name, cfg := range map[string]Config{
			"protocol": {Protocol: "sctp", Target: netip.MustParseAddrPort("127.0.0.1:7")},
			"device":   {Protocol: "tcp", Target: netip.MustParseAddrPort("127.0.0.1:7"), Device: "nodev0"},
			"source":   {Protocol: "tcp", Target: netip.MustParseAddrPort("127.0.0.1:7"), Source: netip.MustParseAddrPort("192.0.2.9:0")},
			"zone":     {Protocol: "tcp", Target: netip.MustParseAddrPort("[fe80::1%nodev0]:7")},
		} {
			if s, err := Open(cfg); err == nil {
				s.Close()
				t.Errorf("%s: no error", name)
			}
		}
	})
}
