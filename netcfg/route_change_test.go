// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// routingState is what ip prints, without what the kernel adds by itself to a
// device that has come up, and without the age of a route.
func routingState(l lab) string {
	return l.sh(`ip -4 route show table all; ip -6 route show table all | grep -v -e '^fe80::' -e 'local fe80::' -e '^anycast fe80::' -e 'ff00::/8' | sed 's/expires [0-9]*sec//'; ip -4 rule; ip -6 rule`)
}

// TestChangeAndUndo makes each change both by us and by ip: both must come to
// the same; and the undo, run by a shell, must bring back every byte.
func TestChangeAndUndo(t *testing.T) {
	build := func() lab {
		l := routeLab(t)
		l.sh(`ip route append 10.20.0.0/16 via 10.1.0.2; ip route append 10.20.0.0/16 via 10.1.0.3; ip route append 10.20.0.0/16 via 10.1.0.4
ip rule add pref 200 fwmark 7 lookup 77; ip rule add pref 200 to 10.4.0.0/16 goto 30000
ip rule add pref 300 from 10.5.0.0/16 prohibit; ip rule add pref 300 from 10.6.0.0/16 lookup main; ip rule add pref 300 from 10.7.0.0/16 nop
ip -6 rule add pref 301 to fd01::1 lookup 77`)
		return l
	}
	ours, theirs := build(), build()
	for _, line := range []string{
		"route add 10.30.0.0/16 via 10.1.0.2",
		"route add 10.30/16 dev p0",
		"route add default dev p0 table 77 proto static scope link src 10.1.0.1 metric 7",
		"route add to 10.30.0.5 via 10.2.0.9 dev q0 onlink mtu 1300 advmss 1200 realm 4",
		"route add 10.30.0.0/16 dev p0 mtu lock 1300 window 5000 rtt 300ms rttvar 10ms ssthresh 10 cwnd 20 reordering 4 hoplimit 9 initcwnd 10 features ecn rto_min 1s initrwnd 9 quickack 1 congctl lock reno",
		"route add 10.30.0.0/16 tos 10 via 10.1.0.2",
		"route add 10.31.0.0/16 via inet6 fd01::9 dev p0",
		"route add blackhole 10.30.0.0/16", "route add unreachable default metric 50 table 78", "route add prohibit 10.30.0.1/32",
		"route add throw 10.30.0.0/16 table 77", "route add local 10.30.0.0/24 dev lo", "route add broadcast 10.30.0.255 dev p0",
		"route add multicast 224.0.0.0/4 dev p0",
		"route add 10.30.0.0/16 nexthop via 10.1.0.2 weight 2 nexthop via 10.1.0.3 dev p0 onlink nexthop dev q0 weight 256",
		"route add 10.30.0.0/16 nhid 9",
		"route replace default via 10.1.0.253 metric 100",
		"route replace default via 10.1.0.253",
		"route replace 10.4.0.0/16 via 10.1.0.7",
		"route replace 10.20.0.0/16 via 10.1.0.9",
		"route replace blackhole 10.6.0.0/24",
		"route del default", "route del 10.3.0.0/16", "route del 10.4.0.0/16", "route del 10.5.0.1", "route del 10.6.0.0/24", "route del 10.7.0.0/24 tos 10",
		"route del blackhole 10.8.0.0/16", "route del unreachable 10.9.0.0/16 metric 7", "route del 10.10.0.0/16 table 77",
		"route del 10.11.0.0/16 table 77 proto 99", "route del default table 5000", "route del 10.12.0.0/16", "route del 10.13.0.0/16",
		"route del local 10.1.0.1 dev p0", "route del 10.1.0.0/24",
		"route del 10.20.0.0/16 via 10.1.0.2", "route del 10.20.0.0/16 via 10.1.0.3", "route del 10.20.0.0/16 via 10.1.0.4",
		"-6 route add default via fd01::7 metric 7", "route add fd30::/64 via fd01::2", "route add fd30::/64 dev p0 pref low metric 3 mtu 1400",
		"route add fd30::/64 nexthop via fd01::2 nexthop via fd01::3 dev p0 weight 5", "route add fd30::1 from fd09::/64 via fd01::5",
		"route add blackhole fd30::/64", "-6 route add unreachable default table 77", "route add prohibit fd30::/64 metric 5", "route add throw fd30::/64 table 77",
		"route add local fd30::1 dev lo", "route add anycast fd30::2 dev p0", "route add default from fd09::/64 via fd01::5",
		"-6 route replace default via fd01::fd metric 1024 proto ra", "route replace fd03::/64 via fd01::4 dev p0",
		"-6 route del default", "route del fd03::/64", "route del fd04::/64", "route del prohibit fd05::/64", "route del fd06::1",
		"route del fd08::/64 from fd09::/64", "route del fd01::/64",
		"rule add fwmark 7 lookup 77", "rule add from 10.0.0.0/8 to 10.2.0.0/16 iif lo oif nosuch fwmark 0x10/0xff lookup 77 pref 9",
		"rule add pref 100 uidrange 1000-1999 ipproto tcp sport 1000 dport 80-90 tos 0x10 lookup main suppress_prefixlength 0",
		"rule add not from 10.9.0.0/16 pref 5 goto 32766", "rule add pref 9 nop", "rule add pref 10 blackhole", "rule add pref 11 unreachable from 10.0.0.1",
		"rule add prohibit to 10.0.0.1", "rule add pref 0 fwmark 0/0xf table main", "rule add pref 12 l3mdev", "rule add pref 13 lookup main suppress_ifgroup 5 realms 3/4 protocol static",
		"-6 rule add from fd00::/8 lookup 77", "-6 rule add pref 3 lookup main",
		"rule del pref 200", "rule del fwmark 7", "rule del from 10.5.0.0/16", "rule del pref 300", "rule del from 10.6.0.0/16 table main", "rule del lookup default",
		"-6 rule del pref 301",
	} {
		before := routingState(ours)
		c := plan(t, ours, line)
		if err := c.Apply(); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		theirs.sh("ip " + line)
		changed := routingState(ours)
		if diff := cmp.Diff(routingState(theirs), changed); diff != "" {
			t.Errorf("%s: ip makes something else of it: %s", line, diff)
		}
		if changed == before {
			t.Errorf("%s: nothing has changed", line)
		}
		after, err := ours.readRouting(c.before.family)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(bodies(after), bodies(c.after)); diff != "" {
			t.Errorf("%s: not what was planned: %s", c.What, diff)
		}
		undo := strings.Join(c.Undo, "\n")
		ours.sh(undo)
		theirs.sh(undo)
		if diff := cmp.Diff(before, routingState(ours)); diff != "" {
			t.Fatalf("%s: %s: after %s: %s", line, c.What, undo, diff)
		}
	}
}

// bodies are the routes and rules of a routing. Which of the same prefix come
// first is compared, not the order of prefixes.
func bodies(t *routing) map[string][]string {
	all := map[string][]string{}
	p := routePrinter{words: readRouteNames(), device: func(i int) string { return string(rune('A' + i)) }}
	for _, r := range t.routes {
		if r.addr(unix.RTA_DST).IsLinkLocalUnicast() || r.addr(unix.RTA_DST).IsMulticast() && r.family == unix.AF_INET6 {
			continue // the kernel's own
		}
		r, _ = parseRoute(r.body())
		key := p.words.table(r.table) + " " + r.prefix(unix.RTA_DST, r.dstLen, "default") + r.prefix(unix.RTA_SRC, r.srcLen, "")
		all[key] = append(all[key], p.text(r))
	}
	for _, r := range t.rules {
		r.ruleFlags &= fibRuleInvert
		all["rules"] = append(all["rules"], r.text(p.words))
	}
	return all
}

// plan plans what "ip LINE" would do.
func plan(t *testing.T, l lab, line string) *Change {
	t.Helper()
	c, err := tryPlan(l, line)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryPlan(l lab, line string) (*Change, error) {
	words, family := strings.Fields(line), 0
	if rest, ok := strings.CutPrefix(line, "-6 "); ok {
		words, family = strings.Fields(rest), 6
	}
	if words[0] == "rule" {
		w, err := l.ParseRule(family, words[2:])
		if err != nil {
			return nil, err
		}
		return l.PlanRule(words[1], w)
	}
	w, err := l.ParseRoute(family, words[2:])
	if err != nil {
		return nil, err
	}
	return l.PlanRoute(words[1], w)
}

func TestPlanRefuses(t *testing.T) {
	l := routeLab(t)
	l.sh("ip route add 10.40.0.0/16 via 10.1.0.2 metric 9; ip rule add pref 50 from 10.0.0.0/8 lookup main; ip rule add pref 51 lookup main")
	before := routingState(l)
	for line, want := range map[string]string{
		"route add 10.3.0.0/16 via 10.1.0.2":                   "nothing was changed: it exists: IPv4 route 10.3.0.0/16 via 10.2.0.9 dev q0 onlink linkdown, table main",
		"route add default via 10.1.0.9 metric 100":            "nothing was changed: it exists: IPv4 route default via 10.1.0.254 dev p0 proto dhcp src 10.1.0.1 metric 100, table main",
		"route replace 10.3.0.0/16 via 10.2.0.9 dev q0 onlink": "nothing was changed: it is so already: IPv4 route 10.3.0.0/16 via 10.2.0.9 dev q0 onlink, table main",
		"route del 10.3.0.0/16 dev p0":                         "nothing was changed: table main has no such route",
		"route add 10.99.0.0/16":                               "route: where to? via GATEWAY, dev DEVICE or both",
		"route add 10.99.0.1/16 dev p0":                        "10.99.0.1/16: has bits beyond its length; the prefix is 10.99.0.0/16",
		"route add 10.99.0.0/33 dev p0":                        "10.99.0.0/33: not a prefix length of 0 to 32",
		"route add 10.40.0.0/16 via 10.1.0.2":                  "nothing was changed: IPv4 route 10.40.0.0/16 via 10.1.0.2 dev p0, table main could not be told from 10.40.0.0/16 via 10.1.0.2 dev p0 metric 9; give it a metric of its own",
		"route add 10.99.0.0/16 dev nosuch":                    "nosuch: no such device",
		"route add 10.99.0.0/16 via 10.1.0.300":                "10.1.0.300: not an address",
		"route add 10.99.0.0/16 table nosuch dev p0":           "nosuch: not a routing table: neither a name of /etc/iproute2 nor a number of 0 to 4294967295",
		"route add 10.99.0.0/16 encap mpls 5 dev p0":           "encap: light-weight tunnels are not supported",
		"route add 10.99.0.0/16 dev":                           "dev: a value must follow",
		"route add dev p0":                                     "route: the destination is missing: a prefix, an address or default",
		"route add 10.99.0.0/16 10.98.0.0/16 dev p0":           "10.98.0.0/16: not a word of a route",
		"route add fd99::/64 via 10.1.0.2":                     "10.1.0.2: an IPv6 route has no IPv4 gateway",
		"route add fd99::/64 src 10.1.0.1 dev p0":              "10.1.0.1: an IPv4 address where all else is IPv6",
		"route add 10.99.0.0/16 mtu 70000 dev p0":              "70000: mtu is at most 65520",
		"route add 10.99.0.0/16 dev p0 nexthop dev p0":         "nexthop: a route has either next hops or one via and dev",
		"route add 10.99.0.0/16 nexthop dev p0 weight 0":       "0: not a weight of 1 to 256",
		"rule add":                          "rule: what packets, and which table? from PREFIX lookup TABLE",
		"rule add from 10.0.0.0/8 fwmark x": "x: not a number of 0 to 4294967295",
		"rule add pref 100 goto 50":         "goto 50: a rule can only lead to a later one, and this is number 100",
		"rule add lookup main blackhole":    "blackhole: a rule has one action",
		"rule add frm 10.0.0.1":             "frm: not a word of an ip rule",
		"rule add from 10.0.0.1 to fd00::1": "fd00::1: an IPv6 address where all else is IPv4",
		"rule add dport 90-80 lookup main":  "90-80: ends before it begins",
		"rule add pref 51 lookup main":      "nothing was changed: it exists: IPv4 rule 51: from all lookup main",
		"rule add pref 50 lookup main":      "nothing was changed: IPv4 rule 50: from all lookup main could not be told from 50: from 10.0.0.0/8 lookup main, which has its priority",
		"rule del pref 52":                  "nothing was changed: there is no such ip rule",
	} {
		c, err := tryPlan(l, line)
		if err == nil {
			t.Errorf("%s: %s", line, c.What)
			continue
		}
		if err.Error() != want {
			t.Errorf("%s:\n%q, want\n%q", line, err, want)
		}
		var word *WordError
		if !errors.As(err, &word) && !errors.Is(err, ErrIsThere) && !errors.Is(err, ErrNotThere) && !errors.Is(err, ErrNoChange) && !errors.Is(err, ErrNoUndo) {
			t.Errorf("%s: %T", line, err)
		}
	}
	if diff := cmp.Diff(before, routingState(l)); diff != "" {
		t.Error(diff)
	}
	// What is beyond our knowledge the kernel refuses, and nothing has changed.
	if err := plan(t, l, "route add 10.99.0.0/16 via 172.16.0.1 dev p0").Apply(); err == nil || !strings.Contains(err.Error(), "network is unreachable") {
		t.Errorf("an unreachable gateway: %v", err)
	}
	if diff := cmp.Diff(before, routingState(l)); diff != "" {
		t.Error(diff)
	}
}

func FuzzWords(f *testing.F) {
	f.Add("add 10.0.0.0/8 via 10.0.0.1 dev x table 7 mtu lock 1400 nexthop via fd00::1 weight 3")
	f.Add("from 10.0.0.0/8 fwmark 1/3 uidrange 1-2 lookup main suppress_prefixlength 0 goto 7")
	f.Add("-6 via inet6 default/ 10/8 lock")
	n := &Netns{}
	f.Fuzz(func(t *testing.T, line string) {
		w := words{rest: strings.Fields(line), names: readRouteNames(), index: func(string) (uint32, error) { return 1, nil }}
		p := routeReader{words: &w, r: RouteWords{typed: map[string]bool{}}}
		for len(p.rest) > 0 && p.word(p.next()) == nil {
		}
		if r, err := p.end(); err == nil {
			printer := routePrinter{words: w.names, device: func(int) string { return "d" }}
			printer.text(r.route)
			printer.command("add", r.route)
		}
		if r, err := n.ParseRule(0, strings.Fields(line)); err == nil {
			r.text(w.names)
			r.command("add")
		}
	})
}

// What ip has no words for is no undo.
func TestNoUndo(t *testing.T) {
	p := routePrinter{words: readRouteNames(), device: func(int) string { return "p 0;x" }}
	r := route{family: unix.AF_INET, kind: unix.RTN_UNICAST, protocol: unix.RTPROT_BOOT, table: unix.RT_TABLE_MAIN, attrs: map[uint16]attribute{}}
	r.set(unix.RTA_OIF, []byte{9, 0, 0, 0})
	if got, err := p.command("del", r); err != nil || got != "ip -4 route del default dev 'p 0;x' proto boot scope global" {
		t.Errorf("%s, %v", got, err)
	}
	r.set(unix.RTA_ENCAP, []byte{1, 2, 3, 4})
	if got, err := p.command("add", r); err == nil {
		t.Error(got)
	}
	delete(r.attrs, unix.RTA_ENCAP)
	r.set(unix.RTA_METRICS, put32(nil, unix.RTAX_FEATURES, 0x8))
	if got, err := p.command("add", r); err == nil {
		t.Error(got)
	}
}
