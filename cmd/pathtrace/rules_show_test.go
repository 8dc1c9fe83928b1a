// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/netcfg"
)

// rulesHost is a namespace with a device eth0, a default route, and a ruleset.
type rulesHost struct {
	t    *testing.T
	path string
	n    *netcfg.Netns
}

func newRulesHost(t *testing.T, script string) rulesHost {
	t.Helper()
	h := rulesHost{t: t, path: ownNetns(t)}
	for _, tool := range []string{"nft", "iptables-legacy", "ip6tables-legacy", "iptables-nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool)
		}
	}
	n, err := netcfg.Open(h.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	h.n = n
	h.sh(`ip link add eth0 type veth peer name other
ip addr add 10.1.0.1/24 dev eth0; ip link set eth0 up; ip link set other up; ip route add default via 10.1.0.2`)
	h.sh(script)
	return h
}

func (h rulesHost) sh(script string) {
	h.t.Helper()
	cmd := exec.Command("sh", "-e", "-c", script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := h.n.Start(cmd); err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		h.t.Fatalf("%v: %s", err, out.String())
	}
}

// show runs `rules show`, and leaves out what the kernel has of its own, which differs by version.
func (h rulesHost) show(args ...string) string {
	h.t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(h.t.Context(), append([]string{"rules", "show", "--netns", h.path}, args...), strings.NewReader(""), &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		h.t.Fatalf("exit %d: %s", code, stderr.String())
	}
	var b strings.Builder
	for line := range strings.Lines(stdout.String()) {
		if !strings.Contains(line, "  kernel ") && !strings.HasPrefix(line, "netfilter in ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

const everyBackend = `
iptables-legacy -A OUTPUT -p tcp --dport 443 -j ACCEPT
iptables-legacy -N DOCKER-USER; iptables-legacy -I FORWARD -j DOCKER-USER; iptables-legacy -A DOCKER-USER -s 10.9.0.0/16 -j DROP
ip6tables-legacy -t mangle -A OUTPUT -p tcp --dport 22 -j ACCEPT
iptables-nft -t mangle -A OUTPUT -d 10.0.0.0/8 -j MARK --set-mark 1
iptables-nft -t nat -A POSTROUTING -o eth0 -j MASQUERADE
nft -f - <<'N'
table inet fw {
	set banned { type ipv4_addr; elements = { 10.0.0.7 }
	}
	chain late { type filter hook output priority 5; policy drop
		ct state established,related accept
		tcp dport { 80, 443 } counter jump web
		ip daddr @banned drop
	}
	chain web {
		ip saddr 10.1.0.1 accept comment "our own"
		drop
	}
	chain early { type filter hook output priority -5
		tcp dport 25 drop
	}
	chain lost {
		accept
	}
}
table bridge b {
	chain f { type filter hook forward priority 0
		ether type arp accept
	}
}
table arp a {
	chain i { type filter hook input priority 0; policy drop
		arp operation request accept
	}
}
table netdev n {
	chain e { type filter hook egress device eth0 priority 0
		tcp dport 80 counter
	}
	chain in { type filter hook ingress device eth0 priority 0
		ip saddr 192.0.2.0/24 counter drop
	}
}
N`

func TestRulesShow(t *testing.T) {
	h := newRulesHost(t, everyBackend)
	want := `tcp from 10.1.0.1 to 10.0.0.5 port 80, the first packet of a connection that nobody expects
route: default via 10.1.0.2 dev eth0
it comes to ip OUTPUT, ip POSTROUTING, netdev EGRESS eth0; > meets, ? may meet

netdev INGRESS eth0
       0  nft netdev n in, policy accept
            1  0 packets 0 bytes  ip saddr 192.0.2.0/24 counter drop

netdev EGRESS eth0
>      0  nft netdev n e, policy accept
>           1  0 packets 0 bytes  tcp dport 80 counter

bridge FORWARD
       0  nft bridge b f, policy accept
            1  -  ether type arp accept

arp INPUT
       0  nft arp a i, policy drop
            1  -  arp operation request accept

ip PREROUTING

ip INPUT
       0  iptables-legacy ip filter INPUT, policy accept 0 packets 0 bytes, no rules

ip FORWARD
       0  iptables-legacy ip filter FORWARD, policy accept 0 packets 0 bytes
            1  0 packets 0 bytes  -A FORWARD -j DOCKER-USER
          chain iptables-legacy ip filter DOCKER-USER (docker)
              1  0 packets 0 bytes  -A DOCKER-USER -s 10.9.0.0/16 -j DROP

ip OUTPUT
>   -150  iptables-nft ip mangle OUTPUT, policy accept
>           1  0 packets 0 bytes  -A OUTPUT -d 10.0.0.0/8 -j MARK --set-xmark 0x1/0xffffffff
>     -5  nft inet fw early, policy accept
            1  -  tcp dport 25 drop
>      0  iptables-legacy ip filter OUTPUT, policy accept 0 packets 0 bytes
            1  0 packets 0 bytes  -A OUTPUT -p tcp -m tcp --dport 443 -j ACCEPT
>      5  nft inet fw late, policy drop
            1  -  ct state established,related accept
>           2  0 packets 0 bytes  tcp dport { 80, 443 } counter jump web
            3  -  ip daddr @banned drop
>         chain nft inet fw web
>             1  -  ip saddr 10.1.0.1 accept comment "our own"
              2  -  drop

ip POSTROUTING
>    100  iptables-nft ip nat POSTROUTING, policy accept, for the first packet of a connection
>           1  0 packets 0 bytes  -A POSTROUTING -o eth0 -j MASQUERADE
`
	got, _, _ := strings.Cut(h.show("10.0.0.5:80"), "\nip6 ")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A packet that a rule may drop, or that leaves no route, is not said to go on.
func TestRulesShowMarks(t *testing.T) {
	h := newRulesHost(t, everyBackend)
	for target, want := range map[string]map[string]string{ // of chains, what is not "no"
		"10.0.0.7:80":         {"mangle OUTPUT": "yes", "fw early": "yes", "fw late": "yes", "fw web": "yes", "filter OUTPUT": "yes", "nat POSTROUTING": "yes", "n e": "yes"},
		"10.0.0.7:25":         {"mangle OUTPUT": "yes", "fw early": "yes"},
		"10.0.0.7:26":         {"mangle OUTPUT": "yes", "fw early": "yes", "fw late": "yes", "filter OUTPUT": "yes"},
		"udp://10.0.0.5:80":   {"mangle OUTPUT": "yes", "fw early": "yes", "fw late": "yes", "filter OUTPUT": "yes"},
		"[2001:db8::1]:80":    {},
		"tcp://127.0.0.1:443": {"mangle OUTPUT": "yes", "fw early": "yes", "fw late": "yes", "fw web": "yes", "filter OUTPUT": "yes"},
	} {
		var v rulesView
		if err := json.Unmarshal([]byte(h.show("--json", target)), &v); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, c := range v.Chains {
			if c.Met != "no" {
				got[c.Table+" "+c.Name] = c.Met
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", target, diff)
		}
	}
}

func TestRulesShowNothing(t *testing.T) {
	h := rulesHost{t: t, path: ownNetns(t)}
	if got := h.show(); got != "\nnothing is registered with netfilter here\n" {
		t.Errorf("%q", got)
	}
}

// dockerLike and firewalldLike are rulesets of some 5,000 rules as these programs make them.
func dockerLike() string {
	var b strings.Builder
	b.WriteString("*nat\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n:DOCKER -\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n")
	for i := range 2500 {
		fmt.Fprintf(&b, "-A DOCKER ! -i docker0 -p tcp -m tcp --dport %d -j DNAT --to-destination 172.17.%d.%d:80\n", 10000+i, i/250, i%250+2)
	}
	b.WriteString("COMMIT\n*filter\n:FORWARD DROP\n:DOCKER -\n:DOCKER-USER -\n-A FORWARD -j DOCKER-USER\n-A FORWARD -o docker0 -j DOCKER\n-A DOCKER-USER -j RETURN\n")
	for i := range 2500 {
		fmt.Fprintf(&b, "-A DOCKER -d 172.17.%d.%d/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT\n", i/250, i%250+2)
	}
	return b.String() + "COMMIT\n"
}

func firewalldLike() string {
	var chains, zones strings.Builder
	for z := range 50 {
		fmt.Fprintf(&chains, "chain filter_IN_zone%d_allow {\n", z)
		for p := range 96 {
			fmt.Fprintf(&chains, "tcp dport %d ct state new,untracked accept\n", 1000+p)
		}
		fmt.Fprintf(&chains, "}\nchain filter_IN_zone%d {\njump filter_IN_zone%d_allow\nreject with icmpx admin-prohibited\n}\n", z, z)
		fmt.Fprintf(&zones, "iifname \"eth%d\" goto filter_IN_zone%d\n", z, z)
	}
	return "table inet firewalld {\n" + chains.String() + "chain filter_INPUT_ZONES {\n" + zones.String() + "}\n" +
		"chain filter_INPUT {\ntype filter hook input priority filter + 10; policy accept;\nct state established,related accept\njump filter_INPUT_ZONES\n}\n}\n"
}

// TestRulesShowIsQuick counts the time of the program and of the tools that it runs on a
// processor: how long they wait for one says nothing about them.
func TestRulesShowIsQuick(t *testing.T) {
	for name, ruleset := range map[string]struct{ load, text, owner string }{
		"docker, iptables-nft":    {"iptables-nft-restore", dockerLike(), "docker"},
		"docker, iptables-legacy": {"iptables-legacy-restore", dockerLike(), "docker"},
		"firewalld":               {"nft -f -", firewalldLike(), "firewalld"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newRulesHost(t, "")
			file := filepath.Join(t.TempDir(), "rules")
			if err := os.WriteFile(file, []byte(ruleset.text), 0o600); err != nil {
				t.Fatal(err)
			}
			h.sh(ruleset.load + " <" + file)
			cmd := exec.Command("/proc/self/exe", "rules", "show", "--json", "--netns", h.path, "127.0.0.1:1050")
			cmd.Args[0] = "pathtrace" // which makes this binary the program
			var stdout bytes.Buffer
			cmd.Stdout = &stdout
			start := time.Now()
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			wall, cpu := time.Since(start), cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()
			var v rulesView
			if err := json.Unmarshal(stdout.Bytes(), &v); err != nil {
				t.Fatal(err)
			}
			rules, owned := 0, 0
			for _, c := range v.Chains {
				rules += len(c.Rules)
				if c.Owner == ruleset.owner {
					owned++
				}
				for _, r := range c.Rules {
					if r.Text == "" {
						t.Fatalf("%s rule %d has no text", c.Name, r.Number)
					}
				}
			}
			t.Logf("%d rules: %v on a processor, %v in all", rules, cpu, wall)
			if rules < 4900 || owned == 0 || cpu > time.Second {
				t.Errorf("%d rules, %d chains of %s, %v", rules, owned, ruleset.owner, cpu)
			}
		})
	}
}
