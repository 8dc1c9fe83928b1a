// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

func (l lab) json(v any, command string) {
	l.t.Helper()
	if err := json.Unmarshal([]byte(l.sh(command)), v); err != nil {
		l.t.Fatal(err)
	}
}

func TestLinks(t *testing.T) {
	l := newLab(t)
	l.sh(`ip link add p0 type veth peer name p1; ip link set p0 up mtu 1400; ip link set p1 up
ip link add q0 type veth peer name q1; ip link set q0 up
ip link add br0 type bridge; ip link set q1 master br0; ip link add link p0 name p0.100 type vlan id 100 || true`)
	type link struct {
		Ifindex   int
		Ifname    string
		Flags     []string
		Mtu       int
		Master    string
		Operstate string
		Address   string
		LinkType  string `json:"link_type"`
		Linkinfo  struct {
			Kind string `json:"info_kind"`
		}
	}
	// Carrier comes by and by: wait until ip and we see the same.
	for try := range 100 {
		var want []link
		l.json(&want, "ip -d -j link show")
		var got []link
		s := l.Links()
		if !s.Read() {
			t.Fatal(s.Why())
		}
		for _, e := range s.Items {
			g := link{Ifindex: e.Index, Ifname: e.Name, Flags: e.Flags, Mtu: e.MTU, Master: e.Master, Operstate: e.State, Address: e.MAC}
			g.Linkinfo.Kind = e.Kind
			got = append(got, g)
			if e.Up != slices.Contains(e.Flags, "UP") || e.Carrier != slices.Contains(e.Flags, "LOWER_UP") {
				t.Errorf("got %+v", e)
			}
		}
		for i := range want {
			want[i].LinkType = ""
			slices.Sort(want[i].Flags)
			// Not a flag: ip says so of the other end.
			want[i].Flags = slices.DeleteFunc(want[i].Flags, func(f string) bool { return f == "M-DOWN" })
			if want[i].Ifname == "lo" {
				want[i].Address = "" // it has none; ip prints zeros
			}
		}
		for i := range got {
			slices.Sort(got[i].Flags)
		}
		diff := cmp.Diff(want, got)
		if diff == "" {
			break
		}
		if try == 99 {
			t.Error(diff)
		}
	}
}

func TestAddresses(t *testing.T) {
	l := newLab(t)
	l.sh(`ip link add p0 type veth peer name p1; ip addr add 10.1.0.1/24 dev p0; ip addr add 10.2.0.2/24 dev p0 scope link
ip addr add fd01::1/64 dev p0 nodad; ip addr add fd01::2/64 dev p0 valid_lft 1000 preferred_lft 0; ip addr add 10.5.0.1 peer 10.6.0.1 dev p0`)
	s := l.Addresses()
	if !s.Read() {
		t.Fatal(s.Why())
	}
	for _, want := range []evidence.Address{
		{Device: "lo", Prefix: "127.0.0.1/8", Scope: "host"},
		{Device: "lo", Prefix: "::1/128", Scope: "host"},
		{Device: "p0", Prefix: "10.1.0.1/24", Scope: "global"},
		{Device: "p0", Prefix: "10.2.0.2/24", Scope: "link"},
		{Device: "p0", Prefix: "10.5.0.1/32", Scope: "global"},
		{Device: "p0", Prefix: "fd01::1/64", Scope: "global", Flags: "nodad"},
		{Device: "p0", Prefix: "fd01::2/64", Scope: "global", Flags: "deprecated tentative dynamic"},
	} {
		i := slices.IndexFunc(s.Items, func(a evidence.Address) bool { return a.Prefix == want.Prefix })
		if i < 0 {
			t.Errorf("no %s in %+v", want.Prefix, s.Items)
			continue
		}
		if diff := cmp.Diff(want, s.Items[i]); diff != "" {
			t.Errorf("%s in\n%s", diff, l.sh("ip addr show dev "+want.Device))
		}
	}
}

func TestNeighbors(t *testing.T) {
	l := newLab(t)
	l.sh(`ip link add p0 type veth peer name p1; ip link set p0 up; ip addr add 10.1.0.1/24 dev p0
ip neigh add 10.1.0.2 lladdr 02:00:00:00:00:02 dev p0; ip neigh add 10.1.0.3 lladdr 02:00:00:00:00:03 dev p0 nud stale
ip neigh add 10.1.0.4 dev p0 nud failed; ip neigh add fd01::2 lladdr 02:00:00:00:00:04 dev p0 nud noarp`)
	s := l.Neighbors()
	if !s.Read() {
		t.Fatal(s.Why())
	}
	for _, want := range []evidence.Neighbor{
		{Address: "10.1.0.2", Device: "p0", MAC: "02:00:00:00:00:02", State: "PERMANENT"},
		{Address: "10.1.0.3", Device: "p0", MAC: "02:00:00:00:00:03", State: "STALE"},
		{Address: "10.1.0.4", Device: "p0", State: "FAILED"},
		{Address: "fd01::2", Device: "p0", MAC: "02:00:00:00:00:04", State: "NOARP"},
	} {
		if !slices.Contains(s.Items, want) {
			t.Errorf("no %+v in %+v", want, s.Items)
		}
	}
}

func TestSysctls(t *testing.T) {
	a, b := newLab(t), newLab(t)
	a.sh("ip link add e0.100 type veth peer name e1; echo 1 > /proc/sys/net/ipv4/conf/e0.100/rp_filter; echo 1 > /proc/sys/net/ipv4/ip_forward")
	b.sh("echo 0 > /proc/sys/net/ipv4/ip_forward")
	name := SysctlName("net.ipv4.conf", "e0.100", "rp_filter")
	s := a.Sysctls("net.ipv4.ip_forward", name, "net/ipv4/conf/e0.100/rp_filter", "net.ipv4.no_such", "kernel.ostype")
	want := []evidence.Sysctl{{Name: "net.ipv4.ip_forward", Value: "1"}, {Name: "net.ipv4.conf.e0/100.rp_filter", Value: "1"},
		{Name: "net/ipv4/conf/e0.100/rp_filter", Value: "1"}, {Name: "kernel.ostype", Value: "Linux"}}
	if diff := cmp.Diff(want, s.Items); diff != "" || !s.Read() {
		t.Error(diff, s.Why())
	}
	// Each namespace has its own, whichever was read first.
	for range 20 {
		for l, want := range map[lab]string{a: "1", b: "0"} {
			if s := l.Sysctls("net.ipv4.ip_forward"); len(s.Items) != 1 || s.Items[0].Value != want {
				t.Fatalf("%s: %+v, want %s", l.Name, s, want)
			}
		}
	}
	if need := lookTool("sysctl"); need != "" {
		if got := strings.TrimSpace(a.sh("sysctl -n " + name)); got != "1" {
			t.Errorf("sysctl says %q for %s", got, name)
		}
	}
	for _, bad := range []string{"", "../kernel", "net/../../kernel", "net..ipv4", "/net/x"} {
		if s := a.Sysctls(bad); s.Read() || len(s.Items) != 0 {
			t.Errorf("%q was read: %+v", bad, s)
		}
	}
	if s := a.Sysctls("net.ipv4"); s.Read() {
		t.Errorf("a directory was read: %+v", s)
	}
}

func TestCounters(t *testing.T) {
	l := newLab(t)
	before, err := l.Counters()
	if err != nil {
		t.Fatal(err)
	}
	l.send("127.0.0.1:9")
	after, err := l.Counters()
	if err != nil {
		t.Fatal(err)
	}
	s := CounterDelta(before, after)
	if i := slices.IndexFunc(s.Items, func(c evidence.Counter) bool { return c.Name == "UdpNoPorts" }); i < 0 || s.Items[i].Delta != 1 {
		t.Errorf("no UdpNoPorts 1 in %+v", s)
	}
	for _, name := range []string{"IpExtInNoRoutes", "IpOutNoRoutes", "TcpExtListenOverflows", "Ip6InDiscards", "TcpExtTCPReqQFullDrop", "IpExtInOctets"} {
		if _, ok := after[name]; !ok {
			t.Errorf("no counter %s", name)
		}
	}
	if lookTool("nstat") != "" {
		for _, line := range lines(l.sh("nstat -asz")) {
			if name := strings.Fields(line)[0]; !strings.HasPrefix(name, "#") {
				if _, ok := after[name]; !ok && name != "TcpMaxConn" {
					t.Errorf("nstat knows %s", name)
				}
			}
		}
	}
	if s := CounterDelta(nil, after); s.Read() {
		t.Error("a delta of nothing was read")
	}
	if s := CounterDelta(after, after); !s.Read() || len(s.Items) != 0 {
		t.Errorf("nothing moved: %+v", s)
	}
}

func TestParseColumns(t *testing.T) {
	got := map[string]uint64{}
	parseColumns("entries  found insert_failed\n0000000a  00000001 0000000f\n0000000a  00000002 00000001 7\n\n", got)
	if diff := cmp.Diff(map[string]uint64{"ConntrackFound": 3, "ConntrackInsert_failed": 16}, got); diff != "" {
		t.Error(diff)
	}
	parsePairs("Ip: A B\nIp: 1\nX: C\nY: 2\n", got)
	if got["IpA"] != 1 || len(got) != 3 {
		t.Errorf("got %v", got)
	}
}

func TestFlows(t *testing.T) {
	need(t, "iptables-legacy")
	client, server := newPair(t)
	server.sh("iptables-legacy -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080; iptables-legacy -A INPUT -m conntrack --ctstate NEW -j ACCEPT")
	server.listen("tcp4", "10.9.0.2:8080", nil)
	client.dial("tcp4", "10.9.0.1:4000", "10.9.0.2:80")
	s := server.Flows(func(f evidence.Flow) bool { return f.Original.Source == "10.9.0.1:4000" })
	want := []evidence.Flow{{Protocol: "tcp", Original: evidence.Tuple{Source: "10.9.0.1:4000", Dest: "10.9.0.2:80"},
		Reply: evidence.Tuple{Source: "10.9.0.2:8080", Dest: "10.9.0.1:4000"}, State: "ESTABLISHED"}}
	if diff := cmp.Diff(want, s.Items); diff != "" || !s.Read() {
		t.Error(diff, s.Why())
	}
	if s := server.Flows(func(evidence.Flow) bool { return false }); !s.Read() || len(s.Items) != 0 {
		t.Errorf("none wanted: %+v", s)
	}
	if s := server.Sysctls(ConntrackCount, ConntrackMax); len(s.Items) != 2 || s.Items[0].Value != "1" {
		t.Errorf("got %+v", s)
	}
}
