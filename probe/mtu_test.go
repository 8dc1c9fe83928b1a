// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/internal/lab"
)

// foundMTU is what a measurement of the path MTU tells.
type foundMTU struct {
	Last, Behind     int // TTLs between which large packets vanish, 0: nowhere
	Told             int // the MTU that a router has told of
	Passes, Vanishes int // bytes
}

func readMTU(m evidence.PathMTU) (f foundMTU) {
	size := m.Narrowest()
	if t := m.Told(m.Tests[0].Size); t != nil {
		f.Told = t.MTU
	}
	last, behind := m.Hole(size)
	if last != nil {
		f.Last = last.TTL
	}
	if behind != nil {
		f.Behind = behind.TTL
		f.Passes, f.Vanishes = m.Bounds(behind.TTL)
	}
	return f
}

// Links of several sizes on the way, which routers tell of or do not.
func TestPathMTU(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	const routers, port = 4, 8080
	wide := func(*lab.Lab) error { return nil }
	narrow := func(hop, mtu int) func(*lab.Lab) error {
		return func(l *lab.Lab) error { return l.IP(lab.Hop(hop), 4, fmt.Sprintf("link set out0 mtu %d", mtu)) }
	}
	rules := func(hook string) func(hop int, rule string) func(*lab.Lab) error {
		return func(hop int, rule string) func(*lab.Lab) error {
			return func(l *lab.Lab) error {
				return l.Nft(lab.Hop(hop), "table inet own { chain o { type filter hook "+hook+" priority filter; policy accept; "+rule+"; }; }")
			}
		}
	}
	own, forward := rules("output"), rules("forward")
	deaf := "icmp type destination-unreachable drop; icmpv6 type packet-too-big drop"
	limited := "icmp type time-exceeded limit rate over 1/second burst 2 packets drop; icmpv6 type time-exceeded limit rate over 1/second burst 2 packets drop"
	both := func(fs ...func(*lab.Lab) error) func(*lab.Lab) error {
		return func(l *lab.Lab) error {
			for _, f := range fs {
				if err := f(l); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for i, c := range []struct {
		name  string
		setup func(*lab.Lab) error
		want  foundMTU
		// datagrams are answered by routers alone, so seldom that the size is not found out
		udp foundMTU
		tcp *foundMTU // where it is not want
	}{
		{name: "wide", setup: wide},
		{name: "wide, answers limited", setup: both(own(2, limited), own(3, limited))},
		{name: "told", setup: narrow(3, 1400), want: foundMTU{Told: 1400}, udp: foundMTU{Told: 1400}},
		{name: "not told", setup: both(narrow(3, 1400), own(3, deaf)), want: foundMTU{Last: 3, Behind: 4, Passes: 1400, Vanishes: 1401}, udp: foundMTU{Last: 3, Behind: 4}},
		{name: "told, then not", setup: both(narrow(2, 1400), narrow(3, 1300), own(3, deaf)), want: foundMTU{Last: 3, Behind: 4, Told: 1400, Passes: 1300, Vanishes: 1301}, udp: foundMTU{Last: 3, Behind: 4, Told: 1400}},
		{name: "before a silent router", setup: both(narrow(2, 1400), own(2, deaf), own(3, "icmp type time-exceeded drop; icmpv6 type time-exceeded drop")),
			want: foundMTU{Last: 2, Behind: 4, Passes: 1400, Vanishes: 1401}, udp: foundMTU{Last: 2, Behind: 4}},
		// who does not answer to datagrams for its service might have nothing to say to large ones
		{name: "before the target", setup: both(narrow(4, 1400), own(4, deaf)), want: foundMTU{Last: 4, Behind: 5, Passes: 1400, Vanishes: 1401}, udp: foundMTU{Last: 4}},
		// what dies is not what is large
		{name: "wide, SYNs with data are dropped", setup: forward(2, "tcp flags syn meta nfproto ipv4 meta length > 48 drop; tcp flags syn meta nfproto ipv6 meta length > 68 drop"), tcp: &foundMTU{Last: 2}},
		{name: "wide, all but small SYNs are dropped", setup: forward(2, "tcp flags syn meta length > 80 drop"), tcp: &foundMTU{Last: 2, Behind: 3, Passes: -1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, err := lab.NewLine(fmt.Sprintf("ptm%x-%d", os.Getpid(), i), routers)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
			if err := c.setup(l); err != nil {
				t.Fatal(err)
			}
			for _, family := range []int{4, 6} {
				server := netip.AddrPortFrom(lab.LineAddr(routers, family, true), port)
				for _, network := range []string{"tcp", "udp"} {
					if err := l.Serve(lab.Server, lab.Listen{Network: fmt.Sprintf("%s%d", network, family), Addr: server, Behaviour: lab.Echo}); err != nil {
						t.Fatal(err)
					}
				}
				for _, protocol := range []string{"tcp", "udp", "icmp"} {
					cfg := Config{Protocol: protocol, Target: server, Timeout: 10 * time.Second}
					w := walkFrom(t, l, WalkConfig{Config: cfg})
					start := time.Now()
					var m evidence.PathMTU
					inClient(t, l, func() (err error) {
						m, err = PathMTU(context.Background(), MTUConfig{Config: cfg, Size: 1500, Hops: w.Hops})
						return err
					})
					got, want := readMTU(m), c.want
					if protocol == "icmp" && c.want.Behind == routers+1 {
						want = foundMTU{Last: routers} // it answers, but may be set to answer small ones alone
					}
					if protocol == "udp" {
						want = c.udp
						if want.Behind != 0 && (got.Passes >= got.Vanishes || got.Vanishes <= c.want.Passes || got.Passes > c.want.Passes) {
							t.Errorf("IPv%d udp: %d bytes pass and %d vanish", family, got.Passes, got.Vanishes)
						}
						got.Passes, got.Vanishes = 0, 0
					}
					if protocol == "tcp" && c.tcp != nil {
						want = *c.tcp
						if got.Behind != 0 && got.Passes < evidence.EveryPath(family == 6) {
							got.Passes, got.Vanishes = -1, 0 // no verdict is made of this
						}
					}
					if want.Behind == 0 && want.Last == 0 && got.Last != 0 {
						want.Last = map[bool]int{true: routers, false: routers + 1}[protocol == "udp"] // as far as answers come
					}
					if diff := gocmp.Diff(want, got); diff != "" {
						t.Errorf("IPv%d %s (-want +got):\n%s\n%+v", family, protocol, diff, m)
					}
					t.Logf("IPv%d %s: %v", family, protocol, time.Since(start))
				}
			}
		})
	}
}
