// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// routeLab has a bit of everything that ip route can print. p0 has carrier, q0
// has not.
func routeLab(t *testing.T) lab {
	l := newLab(t)
	l.sh(`ip link add p0 type veth peer name p1; ip link set p0 up; ip link set p1 up
ip link add q0 type veth peer name q1; ip link set q0 up
ip addr add 10.1.0.1/24 dev p0; ip addr add 10.2.0.1/24 dev q0; ip addr add fd01::1/64 dev p0 nodad; ip addr add fd02::1/64 dev q0 nodad
ip route add default via 10.1.0.254 metric 100 proto dhcp src 10.1.0.1
ip route add 10.3.0.0/16 via 10.2.0.9 dev q0 onlink
ip route add 10.4.0.0/16 nexthop via 10.1.0.2 weight 2 nexthop via 10.1.0.3 dev p0
ip route add 10.5.0.1 via inet6 fd01::9 dev p0 proto static
ip route add 10.6.0.0/24 dev p0 scope link mtu 1400 advmss lock 1300 hoplimit 9 rto_min 300ms initcwnd 20
ip route add 10.7.0.0/24 dev p0 mtu lock 1300 tos 0x10 realm 5
ip route add blackhole 10.8.0.0/16
ip route add unreachable 10.9.0.0/16 metric 7
ip route add prohibit 10.10.0.0/16 table 77
ip route add throw 10.11.0.0/16 table 77 proto 99
ip route add default dev p0 table 5000
ip route add 10.12.0.0/16 dev p0 quickack 1 features ecn congctl reno
ip nexthop add id 9 via 10.1.0.7 dev p0; ip route add 10.13.0.0/16 nhid 9
ip -6 route add default via fd01::fe dev p0 metric 1024 proto ra pref high
ip -6 route add fd03::/64 nexthop via fd01::2 dev p0 nexthop via fd01::3 dev p0 weight 3
ip -6 route add blackhole fd04::/64; ip -6 route add prohibit fd05::/64; ip -6 route add unreachable fd06::1
ip -6 route add fd07::/64 dev p0 expires 1000 table 77
ip -6 route add fd08::/64 from fd09::/64 via fd01::5 dev p0`)
	return l
}

// ipRoutes is what ip prints of the routes: one line each, with the table in
// front in angle brackets.
func ipRoutes(l lab, family string) []string {
	out := strings.ReplaceAll(l.sh("ip "+family+" route show table all"), "\n\tnexthop", " nexthop")
	var list []string
	for _, line := range lines(out) {
		words, table := strings.Fields(line), "main"
		if i := slices.Index(words, "table"); i >= 0 {
			table = words[i+1]
			words = slices.Delete(words, i, i+2)
		}
		list = append(list, "<"+table+"> "+strings.Join(words, " "))
	}
	slices.Sort(list)
	return list
}

func TestRoutes(t *testing.T) {
	l := routeLab(t)
	for family, flag := range map[int]string{4: "-4", 6: "-6"} {
		// The kernel adds and ages routes of IPv6 by itself for a moment.
		for try := range 50 {
			s := l.Routes()
			if !s.Read() {
				t.Fatal(s.Why())
			}
			got := []string{}
			for _, r := range s.Items {
				if r.Family == family {
					got = append(got, "<"+r.Table+"> "+r.Text)
				}
			}
			slices.Sort(got)
			diff := cmp.Diff(ipRoutes(l, flag), got)
			if diff == "" {
				break
			}
			if try == 49 {
				t.Error(diff)
			}
		}
	}
	for _, want := range []evidence.RouteItem{
		{Family: 4, Type: "unicast", Dest: "default", Gateway: "10.1.0.254", Device: "p0", Source: "10.1.0.1", Table: "main", Metric: 100,
			Protocol: "dhcp", Scope: "global", Text: "default via 10.1.0.254 dev p0 proto dhcp src 10.1.0.1 metric 100"},
		{Family: 4, Type: "unicast", Dest: "10.3.0.0/16", Gateway: "10.2.0.9", Device: "q0", Table: "main",
			Protocol: "boot", Scope: "global", Flags: "onlink linkdown", Text: "10.3.0.0/16 via 10.2.0.9 dev q0 onlink linkdown"},
		{Family: 4, Type: "unicast", Dest: "10.5.0.1/32", Gateway: "fd01::9", Device: "p0", Table: "main",
			Protocol: "static", Scope: "global", Text: "10.5.0.1 via inet6 fd01::9 dev p0 proto static"},
		{Family: 4, Type: "prohibit", Dest: "10.10.0.0/16", Table: "77", Protocol: "boot", Scope: "global", Text: "prohibit 10.10.0.0/16"},
		{Family: 6, Type: "blackhole", Dest: "fd04::/64", Device: "lo", Table: "main", Metric: 1024, Protocol: "boot", Scope: "global",
			Text: "blackhole fd04::/64 dev lo metric 1024 pref medium"},
	} {
		i := slices.IndexFunc(l.Routes().Items, func(r evidence.RouteItem) bool {
			return r.Dest == want.Dest && r.Table == want.Table && r.Family == want.Family
		})
		if i < 0 {
			t.Errorf("no route %s", want.Text)
			continue
		}
		if diff := cmp.Diff(want, l.Routes().Items[i]); diff != "" {
			t.Error(diff)
		}
	}
}

func TestIPRules(t *testing.T) {
	l := newLab(t)
	l.sh(`ip rule add pref 200 fwmark 7 lookup 77
ip rule add pref 201 fwmark 0x10/0xff lookup 77
ip rule add pref 100 from 10.0.0.0/8 prohibit
ip rule add pref 101 from 10.0.0.1 to 10.2.0.0/16 blackhole
ip rule add pref 102 unreachable
ip rule add pref 110 not from 10.9.0.0/16 iif lo oif nosuch tos 0x10 lookup main
ip rule add pref 111 ipproto tcp sport 1000 dport 80-90 lookup 5000
ip rule add pref 112 uidrange 1000-1999 lookup main suppress_prefixlength 0
ip rule add pref 113 lookup main suppress_ifgroup 5
ip rule add pref 114 goto 200
ip rule add pref 115 goto 30000
ip rule add pref 116 nop
ip rule add pref 117 to 10.5.0.0/16 lookup main realms 3/4
ip rule add pref 118 lookup default protocol static
ip rule add pref 119 ipproto ipv6-icmp lookup main
ip rule add pref 0 fwmark 0/0xf lookup main
ip -6 rule add pref 300 from fd00::/8 prohibit
ip -6 rule add pref 301 to fd01::1 lookup 77`)
	s := l.IPRules()
	if !s.Read() {
		t.Fatal(s.Why())
	}
	for family, flag := range map[int]string{4: "-4", 6: "-6"} {
		got := []string{}
		for _, r := range s.Items {
			if r.Family == family {
				got = append(got, r.Text)
				if !strings.HasPrefix(r.Text, fmt.Sprintf("%d: ", r.Priority)) {
					t.Errorf("priority %d of %s", r.Priority, r.Text)
				}
			}
		}
		if diff := cmp.Diff(lines(l.sh("ip "+flag+" rule show")), got); diff != "" {
			t.Error(diff)
		}
	}
	for text, want := range map[string][2]string{
		"200: from all fwmark 0x7 lookup 77": {"lookup", "77"}, "100: from 10.0.0.0/8 prohibit": {"prohibit", ""},
		"101: from 10.0.0.1 to 10.2.0.0/16 blackhole": {"blackhole", ""}, "102: from all unreachable": {"unreachable", ""},
		"114: from all goto 200": {"goto", ""}, "116: from all nop": {"nop", ""}, "32766: from all lookup main": {"lookup", "main"},
	} {
		i := slices.IndexFunc(s.Items, func(r evidence.IPRule) bool { return r.Text == text })
		if i < 0 || s.Items[i].Action != want[0] || s.Items[i].Table != want[1] {
			t.Errorf("%s: %d, want %q", text, i, want)
		}
	}
}

func TestLookup(t *testing.T) {
	l := routeLab(t)
	l.sh("ip rule add pref 200 fwmark 7 lookup 77; ip rule add pref 100 ipproto udp dport 99 prohibit; ip -6 rule add pref 99 to fd0a::/64 blackhole; echo 1 > /proc/sys/net/ipv4/ip_forward")
	addr := netip.MustParseAddr
	for _, c := range []struct {
		query RouteQuery
		want  evidence.Lookup
	}{
		{RouteQuery{Dest: addr("1.2.3.4")}, evidence.Lookup{Type: "unicast", OIF: "p0", Gateway: "10.1.0.254", PrefSrc: "10.1.0.1", Table: "main",
			Text: "default via 10.1.0.254 dev p0 proto dhcp src 10.1.0.1 metric 100"}},
		{RouteQuery{Dest: addr("10.8.1.1")}, evidence.Lookup{Errno: "EINVAL"}},
		{RouteQuery{Dest: addr("10.9.1.1")}, evidence.Lookup{Errno: "EHOSTUNREACH"}},
		{RouteQuery{Dest: addr("10.10.1.1"), Mark: 7}, evidence.Lookup{Errno: "EACCES"}},
		{RouteQuery{Dest: addr("1.2.3.4"), Protocol: unix.IPPROTO_UDP, DPort: 99}, evidence.Lookup{Errno: "EACCES"}},
		{RouteQuery{Dest: addr("1.2.3.4"), Protocol: unix.IPPROTO_UDP, DPort: 98, SPort: 3}, evidence.Lookup{Type: "unicast", OIF: "p0", Gateway: "10.1.0.254", PrefSrc: "10.1.0.1", Table: "main",
			Text: "default via 10.1.0.254 dev p0 proto dhcp src 10.1.0.1 metric 100"}},
		{RouteQuery{Dest: addr("10.1.0.1")}, evidence.Lookup{Type: "local", OIF: "lo", PrefSrc: "10.1.0.1", Table: "local",
			Text: "local 10.1.0.1 dev p0 proto kernel scope host src 10.1.0.1"}},
		{RouteQuery{Dest: addr("10.1.0.77"), Source: addr("9.9.9.9")}, evidence.Lookup{Errno: "EADDRNOTAVAIL"}},
		{RouteQuery{Dest: addr("10.8.0.77"), Source: addr("10.1.0.1")}, evidence.Lookup{Errno: "EINVAL"}},
		{RouteQuery{Dest: addr("10.6.0.77"), Source: addr("10.1.0.9"), IIF: "p0"}, evidence.Lookup{Type: "unicast", OIF: "p0", Table: "main",
			Text: "10.6.0.0/24 dev p0 scope link mtu 1400 advmss lock 1300 hoplimit 9 initcwnd 20 rto_min lock 300ms"}},
		{RouteQuery{Dest: addr("10.1.0.77"), OIF: "nosuch"}, evidence.Lookup{Errno: "ENODEV"}},
		{RouteQuery{Dest: addr("10.1.0.77"), Source: addr("::1")}, evidence.Lookup{Errno: "EAFNOSUPPORT"}},
		{RouteQuery{Dest: addr("fd04::1")}, evidence.Lookup{Errno: "EINVAL"}},
		{RouteQuery{Dest: addr("fd0a::1")}, evidence.Lookup{Errno: "EINVAL"}},
		{RouteQuery{Dest: addr("fd05::1")}, evidence.Lookup{Errno: "EACCES"}},
		{RouteQuery{Dest: addr("fd06::1")}, evidence.Lookup{Errno: "EHOSTUNREACH"}},
		{RouteQuery{Dest: addr("fd01::7")}, evidence.Lookup{Type: "unicast", OIF: "p0", PrefSrc: "fd01::1", Table: "main",
			Text: "fd01::/64 dev p0 proto kernel metric 256 pref medium"}},
	} {
		c.want.Dest, c.want.IIF, c.want.Mark = c.query.Dest.String(), c.query.IIF, c.query.Mark
		if c.query.Source.IsValid() {
			c.want.Source = c.query.Source.String()
		}
		if diff := cmp.Diff(c.want, l.Lookup(c.query)); diff != "" {
			t.Errorf("%+v: %s", c.query, diff)
		}
	}
	l.sh("ip route del default")
	if got := l.Lookup(RouteQuery{Dest: addr("1.2.3.4")}); got.Errno != "ENETUNREACH" {
		t.Errorf("without a route: %+v", got)
	}
}

func FuzzRoute(f *testing.F) {
	f.Add([]byte{unix.AF_INET, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0})
	f.Add(put(make([]byte, unix.SizeofRtMsg), unix.RTA_METRICS, put32(put32(nil, unix.RTAX_LOCK, 4), unix.RTAX_MTU, 1400)))
	f.Add(put(make([]byte, unix.SizeofRtMsg), unix.RTA_MULTIPATH, put([]byte{8, 0, 1, 1, 2, 0, 0, 0}, unix.RTA_GATEWAY, []byte{1, 2, 3, 4})))
	words := readRouteNames()
	p := routePrinter{words: words, device: func(i int) string { return fmt.Sprint("if", i) }}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRoute(b); err == nil && p.item(r).Text == "" {
			t.Error("a route without words")
		}
		if r, err := parseRule(b); err == nil && r.evidence(words).Text == "" {
			t.Error("a rule without words")
		}
	})
}

func FuzzAttributes(f *testing.F) {
	f.Add(put(nil, 1, []byte{1}))
	f.Add([]byte{3, 0, 1, 0})
	f.Add([]byte{255, 255, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for _, a := range attributes(b) {
			total += unix.SizeofNlAttr + len(a.value)
			a.u8()
			a.u16()
			a.u32()
			a.be32()
			a.be64()
			a.text()
		}
		if total > len(b) {
			t.Errorf("%d bytes of attributes in %d", total, len(b))
		}
	})
}

// A selector that is not known must not be left out silently.
func TestUnknownSelector(t *testing.T) {
	header := []byte{unix.AF_INET, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0}
	for want, attrs := range map[string][]byte{
		"0: from all lookup main":   put(nil, 28, []byte{0xff, 0xff}),
		"0: from all … lookup main": put(nil, 25, []byte{46}),
	} {
		r, err := parseRule(slices.Concat(header, attrs))
		if got := r.text(readRouteNames()); err != nil || got != want {
			t.Errorf("%q (%v), want %q", got, err, want)
		}
	}
}

// Of a family's many routes only those that may decide are kept, and the others counted.
func TestRoutesAbout(t *testing.T) {
	l := routeLab(t)
	about := []netip.Addr{netip.MustParseAddr("10.20.3.4"), netip.MustParseAddr("10.8.1.1")}
	if few := l.Netns.RoutesAbout(about); few.Omitted != 0 || !cmp.Equal(few, l.Netns.Routes()) {
		t.Errorf("of few routes some are left out: %s", cmp.Diff(l.Netns.Routes(), few))
	}
	var batch strings.Builder
	for i := range manyRoutes {
		fmt.Fprintf(&batch, "route add 10.%d.%d.0/24 via 10.1.0.2 table 88\n", 20+i/256, i%256)
	}
	l.sh("ip -batch - <<'END'\n" + batch.String() + "END")
	all, s := l.Netns.Routes(), l.Netns.RoutesAbout(about)
	if !s.Read() || s.Omitted != len(all.Items)-len(s.Items) || s.Omitted < manyRoutes-50 {
		t.Fatalf("%d of %d routes, %d left out; %s", len(s.Items), len(all.Items), s.Omitted, s.Why())
	}
	tables := map[string]bool{}
	var want []evidence.RouteItem
	for _, r := range all.Items {
		key := fmt.Sprint(r.Family, r.Table)
		holds := r.Dest == "default"
		if p, err := netip.ParsePrefix(r.Dest); err == nil {
			holds = slices.ContainsFunc(about, p.Contains)
		}
		if r.Family == 6 || holds || !tables[key] {
			want = append(want, r)
		}
		tables[key] = true
	}
	if diff := cmp.Diff(want, s.Items); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
}
