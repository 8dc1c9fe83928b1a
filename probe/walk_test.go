// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/internal/lab"
)

func init() { lab.Helper() }

// inClient runs f in the network namespace of a lab's client.
func inClient(t *testing.T, l *lab.Lab, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		ns, err := netns.GetFromName(l.Netns(lab.Client))
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// walkFrom walks from the client of a lab.
func walkFrom(t *testing.T, l *lab.Lab, cfg WalkConfig) (w evidence.Walk) {
	t.Helper()
	inClient(t, l, func() (err error) {
		w, err = Walk(context.Background(), cfg)
		return err
	})
	return w
}

// brief is who answered and how, TTL by TTL.
func brief(w evidence.Walk) []string {
	var out []string
	for _, h := range w.Hops {
		s := h.Address + " " + h.Answer
		if h.Type != nil && h.Answer == evidence.ICMPError {
			s += fmt.Sprintf(" %d/%d", *h.Type, *h.Code)
		}
		if h.MTU != 0 {
			s += fmt.Sprintf(" mtu %d", h.MTU)
		}
		out = append(out, s)
	}
	return out
}

func TestWalk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const routers, port = 4, 8080
	l, err := lab.NewLine(fmt.Sprintf("ptw%x", os.Getpid()), routers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, family := range []int{4, 6} {
		server := lab.LineAddr(routers, family, true)
		if err := l.Serve(lab.Server, lab.Listen{Addr: netip.AddrPortFrom(server, port)}); err != nil {
			t.Fatal(err)
		}
		var way []string
		for n := range routers {
			way = append(way, lab.LineAddr(n, family, true).String()+" "+evidence.TimeExceeded)
		}
		for protocol, end := range map[string]string{
			"tcp": evidence.SYNACK, "icmp": evidence.Replied, "udp": map[int]string{4: "unreachable 3/3", 6: "unreachable 1/4"}[family],
		} {
			t.Run(fmt.Sprintf("%s%d", protocol, family), func(t *testing.T) {
				start := time.Now()
				w := walkFrom(t, l, WalkConfig{Config: Config{Protocol: protocol, Target: netip.AddrPortFrom(server, port), Timeout: 5 * time.Second}})
				if diff := gocmp.Diff(append(way[:len(way):len(way)], server.String()+" "+end), brief(w)); diff != "" {
					t.Errorf("hops (-want +got):\n%s", diff)
				}
				if back := w.WayBack(); back != nil {
					t.Errorf("another way back: %+v", back)
				}
				t.Logf("%v, %d bytes each", time.Since(start), w.Size)
			})
		}
	}
}

// What routers do to a walk: who is silent is left out, who ends the way is named.
func TestWalkFaults(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	const routers, port = 4, 8080
	for i, c := range []struct {
		name     string
		hop      int // the router with the fault
		rules    string
		mtu      int // of its link to the server
		protocol string
		size     int
		want4    []string
		want6    []string
	}{
		{name: "a silent router", hop: 2, rules: `chain o { type filter hook output priority filter; policy accept; icmp type time-exceeded drop; icmpv6 type time-exceeded drop; }`, want4: []string{"198.19.0.2 time-exceeded", " ", "198.19.2.2 time-exceeded", "198.19.3.2 time-exceeded", "198.19.4.2 syn-ack"},
			want6: []string{"fd5c:7e1a:10::2 time-exceeded", " ", "fd5c:7e1a:12::2 time-exceeded", "fd5c:7e1a:13::2 time-exceeded", "fd5c:7e1a:14::2 syn-ack"}},
		{name: "dropped under way", hop: 3, rules: `chain f { type filter hook forward priority filter; policy accept; tcp dport 8080 drop; }`,
			want4: []string{"198.19.0.2 time-exceeded", "198.19.1.2 time-exceeded", "198.19.2.2 time-exceeded", " "},
			want6: []string{"fd5c:7e1a:10::2 time-exceeded", "fd5c:7e1a:11::2 time-exceeded", "fd5c:7e1a:12::2 time-exceeded", " "}},
		{name: "refused by a router", hop: 3, rules: `chain f { type filter hook forward priority filter; policy accept; tcp dport 8080 reject with icmpx admin-prohibited; }`,
			want4: []string{"198.19.0.2 time-exceeded", "198.19.1.2 time-exceeded", "198.19.2.2 time-exceeded", "198.19.2.2 unreachable 3/13"},
			want6: []string{"fd5c:7e1a:10::2 time-exceeded", "fd5c:7e1a:11::2 time-exceeded", "fd5c:7e1a:12::2 time-exceeded", "fd5c:7e1a:12::2 unreachable 1/1"}},
		{name: "a forged RST", hop: 2, rules: `chain f { type filter hook forward priority filter; policy accept; tcp dport 8080 reject with tcp reset; }`,
			want4: []string{"198.19.0.2 time-exceeded", "198.19.1.2 time-exceeded", "198.19.4.2 rst"},
			want6: []string{"fd5c:7e1a:10::2 time-exceeded", "fd5c:7e1a:11::2 time-exceeded", "fd5c:7e1a:14::2 rst"}},
		{name: "translated under way", hop: 2, rules: `chain n { type nat hook postrouting priority srcnat; policy accept; masquerade; }`,
			want4: []string{"198.19.0.2 time-exceeded", "198.19.1.2 time-exceeded", "198.19.2.2 time-exceeded", "198.19.3.2 time-exceeded", "198.19.4.2 syn-ack"},
			want6: []string{"fd5c:7e1a:10::2 time-exceeded", "fd5c:7e1a:11::2 time-exceeded", "fd5c:7e1a:12::2 time-exceeded", "fd5c:7e1a:13::2 time-exceeded", "fd5c:7e1a:14::2 syn-ack"}},
		{name: "a narrow link", hop: 3, mtu: 1400, protocol: "udp", size: 1500,
			want4: []string{"198.19.0.2 time-exceeded", "198.19.1.2 time-exceeded", "198.19.2.2 time-exceeded", "198.19.2.2 unreachable 3/4 mtu 1400"},
			want6: []string{"fd5c:7e1a:10::2 time-exceeded", "fd5c:7e1a:11::2 time-exceeded", "fd5c:7e1a:12::2 time-exceeded", "fd5c:7e1a:12::2 unreachable 2/0 mtu 1400"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, err := lab.NewLine(fmt.Sprintf("ptv%x-%d", os.Getpid(), i), routers)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
			if c.rules != "" {
				err = l.Nft(lab.Hop(c.hop), "table inet way { "+c.rules+"; }")
			} else {
				err = l.IP(lab.Hop(c.hop), 4, fmt.Sprintf("link set out0 mtu %d", c.mtu))
			}
			if err != nil {
				t.Fatal(err)
			}
			for family, want := range map[int][]string{4: c.want4, 6: c.want6} {
				server := netip.AddrPortFrom(lab.LineAddr(routers, family, true), port)
				if err := l.Serve(lab.Server, lab.Listen{Addr: server}); err != nil {
					t.Fatal(err)
				}
				protocol := cmp.Or(c.protocol, "tcp")
				start := time.Now()
				w := walkFrom(t, l, WalkConfig{Config: Config{Protocol: protocol, Target: server, Timeout: 5 * time.Second}, Size: c.size})
				if diff := gocmp.Diff(want, brief(w)); diff != "" {
					t.Errorf("IPv%d hops (-want +got):\n%s", family, diff)
				}
				t.Logf("IPv%d: %v", family, time.Since(start))
			}
		})
	}
}
