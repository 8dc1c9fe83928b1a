// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// routeCases is how many random questions TestExplainRandom asks; more of them with PATHTRACE_ROUTE_CASES=2000.
func routeCases(t *testing.T) (cases int, seed uint64) {
	cases, seed = 120, 1
	for name, to := range map[string]func(uint64){
		"PATHTRACE_ROUTE_CASES": func(n uint64) { cases = int(n) }, "PATHTRACE_ROUTE_SEED": func(n uint64) { seed = n },
	} {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			to(n)
		}
	}
	return cases, seed
}

// world makes random routes, rules and questions of one family.
type world struct {
	*rand.Rand
	six bool
}

func pick[T any](w world, of ...T) T { return of[w.IntN(len(of))] }

func (w world) chance(percent int) bool { return w.IntN(100) < percent }

// addr is an address of few, so that prefixes overlap.
func (w world) addr() netip.Addr {
	if w.six {
		b := netip.MustParseAddr("fd00::").As16()
		b[1], b[3], b[5], b[15] = uint8(w.IntN(3)), uint8(w.IntN(2)), uint8(w.IntN(4)), uint8(1+w.IntN(6))
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte{10, uint8(w.IntN(4)), uint8(w.IntN(3)), uint8(1 + w.IntN(6))})
}

func (w world) prefix() string {
	lengths := []int{0, 8, 16, 24, 30, 32}
	if w.six {
		lengths = []int{0, 16, 32, 48, 64, 128}
	}
	p, _ := w.addr().Prefix(pick(w, lengths...))
	if p.Bits() == 0 {
		return "default"
	}
	return p.String()
}

// via is a next hop on a device's link, with the device: d0 to d3 have links of their own.
func (w world) via() string {
	d := w.IntN(4)
	if w.six {
		return fmt.Sprintf("via fc0%d::%d dev d%d", d, 2+w.IntN(5), d)
	}
	return fmt.Sprintf("via 192.168.%d.%d dev d%d", d, 2+w.IntN(5), d)
}

func (w world) table() string {
	if w.chance(5) {
		return "local"
	}
	return pick(w, "main", "77", "78", "5000", "default")
}

func (w world) route() string {
	line := "route append "
	switch w.IntN(10) {
	case 0:
		line += pick(w, "blackhole ", "unreachable ", "prohibit ") + w.prefix()
	case 1:
		line += "throw " + w.prefix()
	case 2:
		line += "local " + w.prefix() + " dev " + pick(w, "lo", "d0")
	case 3, 4:
		line += w.prefix() + " dev " + pick(w, "d0", "d1", "d2", "d3")
	case 5:
		line += w.prefix() + " table " + w.table() + fmt.Sprintf(" metric %d ", 1+w.IntN(3))
		return line + " nexthop " + w.via() + " nexthop " + w.via() + " weight 3"
	default:
		line += w.prefix() + " " + w.via()
	}
	line += " table " + w.table()
	if w.chance(50) {
		line += fmt.Sprintf(" metric %d", pick(w, 1, 2, 3, 100))
	}
	if !w.six && w.chance(10) {
		line += " tos 0x10"
	}
	if w.six && w.chance(10) {
		line += " pref " + pick(w, "low", "high")
	}
	if w.six && w.chance(5) {
		line += " from " + strings.Replace(w.prefix(), "default", "::/0", 1)
	}
	return line
}

func (w world) rule() string {
	line := fmt.Sprintf("rule add pref %d", 1+w.IntN(60))
	if w.chance(10) {
		line += " not"
	}
	for selector, percent := range map[string]int{
		"from " + w.prefix(): 25, "to " + w.prefix(): 25, "iif " + pick(w, "lo", "d0", "d1", "gone"): 10,
		"oif " + pick(w, "d0", "d1", "gone"): 5, "fwmark " + pick(w, "1", "2", "0/1", "3/2", "0x10/0xf0"): 25,
		"uidrange " + pick(w, "0-999", "1000-1999"): 10, "ipproto " + pick(w, "tcp", "udp"): 10, "tos 0x10": 5,
		"dport " + pick(w, "53", "80-443"): 8, "sport 1000-2000": 4,
	} {
		if w.chance(percent) {
			line += " " + strings.Replace(selector, "default", "all", 1)
		}
	}
	switch w.IntN(8) {
	case 0:
		return line + pick(w, " blackhole", " unreachable", " prohibit")
	case 1:
		return line + pick(w, " nop", " goto 61", " goto 100", " goto 9999")
	case 2:
		return line + " lookup " + w.table() + " suppress_prefixlength " + pick(w, "0", "16", "24")
	case 3:
		return line + " lookup " + w.table() + " suppress_ifgroup " + pick(w, "0", "5")
	}
	return line + " lookup " + w.table()
}

// question is one of RTM_GETROUTE, and the words of ip route get for it.
func (w world) question() (RouteQuery, []string) {
	q := RouteQuery{Dest: w.addr()}
	words := []string{q.Dest.String()}
	add := func(word string, value any) { words = append(words, word, fmt.Sprint(value)) }
	in := w.chance(25)
	if in || w.chance(20) {
		q.Source = w.addr()
		if !in {
			q.Source = pick(w, netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("192.168.1.1"))
			if w.six {
				q.Source = pick(w, netip.MustParseAddr("fc00::1"), netip.MustParseAddr("fc01::1"))
			}
		}
		add("from", q.Source)
	}
	switch {
	case in:
		q.IIF = pick(w, "d0", "d1", "d2")
		add("iif", q.IIF)
	case w.chance(15):
		q.OIF = pick(w, "d0", "d1", "d3")
		add("oif", q.OIF)
	}
	if w.chance(40) {
		q.Mark = pick[uint32](w, 1, 2, 3, 0x10, 0x25)
		add("mark", q.Mark)
	}
	if w.chance(15) && !in {
		uid := pick[uint32](w, 5, 1500, 5000)
		q.UID = &uid
		add("uid", uid)
	}
	if w.chance(10) {
		q.TOS = 0x10
		add("tos", "0x10")
	}
	if w.chance(30) {
		q.Protocol = pick[uint8](w, unix.IPPROTO_TCP, unix.IPPROTO_UDP)
		q.DPort = pick[uint16](w, 53, 80, 99)
		add("ipproto", protocolName(q.Protocol))
		add("dport", q.DPort)
		if w.chance(50) {
			q.SPort = 1500
			add("sport", q.SPort)
		}
	}
	return q, words
}

// build puts a world into a namespace. What the kernel refuses, since it is
// there already or cannot be, is left out.
func (w world) build(l lab) {
	l.sh(`for d in 0 1 2 3; do
ip link add d$d type veth peer name e$d; ip link set e$d up; ip addr add 192.168.$d.1/24 dev d$d; ip addr add fc0$d::1/64 dev d$d nodad; ip link set d$d up; done
ip link set d1 group 5
for f in all default d0 d1 d2 d3; do echo 0 > /proc/sys/net/ipv4/conf/$f/rp_filter; done; echo 1 > /proc/sys/net/ipv4/ip_forward`)
	var batch strings.Builder
	for range 60 {
		fmt.Fprintln(&batch, w.route())
	}
	for range 9 {
		fmt.Fprintln(&batch, w.rule())
	}
	fmt.Fprintf(&batch, "rule add pref 61 fwmark 3 lookup 77\nrule add pref 100 lookup 5000\n")
	if w.chance(20) { // the born rules, and IPv4 has split its tables
		batch.Reset()
		for range 60 {
			fmt.Fprintln(&batch, w.route())
		}
	}
	if w.six && w.chance(50) {
		batch.WriteString("neigh add fc00::2 dev d0 nud failed\n")
		l.sh("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
	}
	cmd := exec.Command("ip", w.flag(), "-n", l.Name, "-force", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch.String())
	cmd.Run()
}

func (w world) flag() string { return map[bool]string{false: "-4", true: "-6"}[w.six] }

// ipRouteGet is what ip says: device, gateway, source and table, or an error.
func ipRouteGet(t *testing.T, l lab, flag string, words []string) evidence.Lookup {
	cmd := exec.Command("ip", append([]string{"-j", flag, "-n", l.Name, "route", "get"}, words...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		text := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(stderr.String()), "RTNETLINK answers: "))
		for _, errno := range []unix.Errno{unix.EINVAL, unix.EACCES, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EXDEV, unix.EAGAIN} {
			if strings.HasPrefix(strings.ToLower(text), errno.Error()) {
				return evidence.Lookup{Errno: unix.ErrnoName(errno)}
			}
		}
		return evidence.Lookup{Errno: text}
	}
	var answer []struct {
		Type, Dev, Gateway, PrefSrc, Table string
		Via                                struct{ Host string }
	}
	if err := json.Unmarshal(out, &answer); err != nil || len(answer) != 1 {
		t.Fatalf("ip route get %v: %v: %s", words, err, out)
	}
	a := answer[0]
	if a.Table == "" {
		a.Table = "main"
	}
	return evidence.Lookup{OIF: a.Dev, Gateway: a.Gateway + a.Via.Host, PrefSrc: a.PrefSrc, Table: a.Table}
}

// TestExplainRandom asks for random routes in random worlds, and compares the
// answer with that of ip; the rule with the answer; and what is said to stand
// behind it with what the kernel says when the route is really gone.
func TestExplainRandom(t *testing.T) {
	cases, seed := routeCases(t)
	const perWorld = 40
	asked, differ, unknown, behind, wrong := 0, 0, 0, 0, 0
	for at := uint64(0); asked < cases; at++ {
		w := world{rand.New(rand.NewPCG(seed, at)), at%2 == 1}
		l := newLab(t)
		w.build(l)
		for range min(perWorld, cases-asked) {
			asked++
			q, words := w.question()
			e, err := l.Explain(q)
			if err != nil {
				t.Fatalf("world %d: %v: %v", at, words, err)
			}
			want := ipRouteGet(t, l, w.flag(), words)
			got := evidence.Lookup{OIF: e.Answer.OIF, Gateway: e.Answer.Gateway, PrefSrc: e.Answer.PrefSrc, Table: e.Answer.Table}
			if got.Table == "unspec" && want.Table == "main" {
				got.Table = "main" // of no table; ip names neither
			}
			if e.Answer.Errno != "" {
				got = evidence.Lookup{Errno: e.Answer.Errno}
			}
			if got != want {
				differ++
				t.Errorf("world %d: %v: %+v, ip says %+v", at, words, got, want)
			}
			if len(e.Open) > 0 {
				unknown++
				if q.IIF == "" && q.OIF == "" && !strings.HasPrefix(e.Open[0], "what stands behind it") && !strings.Contains(e.Open[0], "suppress_ifgroup") {
					t.Errorf("world %d: %v: %+v: open: %q", at, words, e.Answer, e.Open)
				} else {
					t.Logf("world %d: %v: %+v: open: %q", at, words, e.Answer, e.Open)
				}
			}
			if e.Route != nil && e.Next != nil && asked%3 == 0 {
				behind++
				after, restored := l.behind(q, e)
				if !isNext(q, after, *e.Next) {
					wrong++
					next, _ := json.Marshal(e.Next)
					t.Errorf("world %d: %v: behind %q comes %+v, not %s", at, words, e.Route.Text, after, next)
				}
				if !restored {
					break
				}
			}
		}
	}
	t.Logf("seed %d: %d questions, %d differ from ip; rule not established %d; %d times the route was taken away, %d other than said",
		seed, asked, differ, unknown, behind, wrong)
}

// behind takes the route away for a moment and returns what the kernel answers
// then. It can be that the route cannot be put back: the kernel looks for a
// gateway by the rules, and one of these may refuse.
func (l lab) behind(q RouteQuery, e RouteExplanation) (after evidence.Lookup, restored bool) {
	l.t.Helper()
	routes, err := l.dumpRoutes(queryFamily(q))
	if err != nil {
		l.t.Fatal(err)
	}
	p := l.routePrinter()
	i := slices.IndexFunc(routes, func(r route) bool { return p.item(r) == *e.Route })
	if i < 0 {
		l.t.Fatalf("no route %+v", *e.Route)
	}
	if _, err := l.request(unix.NETLINK_ROUTE, unix.RTM_DELROUTE, unix.NLM_F_ACK, routes[i].body(), 0); err != nil {
		l.t.Fatalf("delete %+v: %v", *e.Route, err)
	}
	after = l.Lookup(q)
	_, err = l.request(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_APPEND, routes[i].body(), 0)
	return after, err == nil
}

// isNext reports whether the kernel's answer is what was said.
func isNext(q RouteQuery, after evidence.Lookup, next RouteNext) bool {
	switch {
	case after.Errno == "" && after.Table == "unspec":
		return q.OIF != "" // whatever the tables say, it is on that link
	case after.Errno != "" && q.IIF != "" && next.Errno == "":
		return true // the way is there, the packet may not come in
	case after.Errno != "" || next.Errno != "":
		return after.Errno == next.Errno
	case next.Route == nil || next.Route.Table != after.Table && !(next.Route.Table == "local" && after.Table == "main"): // merged
		return false
	}
	pick := next.Route.Dest == "default" && strings.HasPrefix(after.Text, "default") // among those of one metric
	said, _, _ := strings.Cut(next.Route.Text, " nexthop")                           // IPv6 tells the hop that it chose first
	is, _, _ := strings.Cut(after.Text, " nexthop")
	return pick || said == is || is == ""
}
