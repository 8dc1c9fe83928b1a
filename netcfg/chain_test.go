// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

func TestParseNFTListing(t *testing.T) {
	const out = `# Warning: table ip filter is managed by iptables-nft, do not touch!
table inet fw { # handle 3
	chain other { # handle 1
		drop # handle 7
	}
	chain in { # handle 2
		comment "of the chain"
		type filter hook input priority filter; policy drop;
		tcp dport 80 drop comment "see # handle 9" # handle 7
		ip saddr { 10.0.0.1, 10.0.0.2,
			   10.0.0.3 } drop # handle 9
		tcp dport vmap { 22 : accept,
				 25 : jump other } # handle 12
		comment "alone" # handle 13
	}
}
`
	l, err := parseNFTListing(out, "in", []uint64{7, 9, 12, 13})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`tcp dport 80 drop comment "see # handle 9"`, "ip saddr { 10.0.0.1, 10.0.0.2, 10.0.0.3 } drop",
		"tcp dport vmap { 22 : accept, 25 : jump other }", `comment "alone"`}
	if diff := cmp.Diff(want, l.texts); diff != "" {
		t.Error(diff)
	}
	if want := "type filter hook input priority filter; policy drop;"; l.declaration != want {
		t.Errorf("declaration %q", l.declaration)
	}
	for _, handles := range [][]uint64{nil, {7}, {7, 9, 12}, {9, 7, 12, 13}, {7, 9, 12, 13, 14}, {1, 2, 3, 4}} {
		if l, err := parseNFTListing(out, "in", handles); err == nil {
			t.Errorf("handles %d were taken for %d", handles, l.handles)
		}
	}
	if _, err := parseNFTListing(out, "inn", nil); err == nil {
		t.Error("a chain that is not listed was found")
	}
}

func TestSaveReader(t *testing.T) {
	const out = "# Generated\n*filter\n:INPUT DROP [0:0]\n:INPUT2 - [0:0]\n:E - [0:0]\n-A INPUT -j DROP\n-A INPUT2 -j INPUT\n-A INPUT\n-A INPUT -j E\nCOMMIT\n"
	for chain, want := range map[string]iptablesSave{
		"INPUT":  {found: true, policy: "-P INPUT DROP", total: 3, rules: map[int]string{2: "-A INPUT", 3: "-A INPUT -j E"}},
		"INPUT2": {found: true, total: 1},
		"E":      {found: true},
		"X":      {},
	} {
		s := saveReader{chain: chain, want: func(number int) bool { return number > 1 }}
		w := lineWriter{each: s.take}
		for b := range slices.Chunk([]byte(out), 7) { // as they may come through a pipe
			w.Write(b)
		}
		if diff := cmp.Diff(want, s.iptablesSave, cmp.AllowUnexported(iptablesSave{})); diff != "" {
			t.Errorf("%s: %s", chain, diff)
		}
	}
}

func TestChainOwner(t *testing.T) {
	for name, want := range map[string]string{"filter DOCKER-USER": "docker", "firewalld filter_INPUT": "firewalld", "filter INPUT_ZONES": "firewalld",
		"filter ufw-user-input": "ufw", "filter ufw6-x": "ufw", "nat KUBE-SERVICES": "kube", "filter CILIUM_INPUT": "cilium", "filter cali-INPUT": "calico",
		"filter f2b-sshd": "fail2ban", "filter LIBVIRT_INP": "libvirt", "filter INPUT": "", "fw input": ""} {
		table, chain, _ := strings.Cut(name, " ")
		if got := chainOwner(table, chain); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestTrim(t *testing.T) {
	for _, c := range []struct {
		total int
		want  []int // numbers wanted
		keep  []int
	}{
		{200, nil, nil}, // all
		{201, nil, []int{}},
		{300, []int{1}, []int{1, 2, 3, 4}},
		{300, []int{300}, []int{297, 298, 299, 300}},
		{300, []int{10, 12}, []int{7, 8, 9, 10, 11, 12, 13, 14, 15}},
		{300, []int{10, 20}, []int{7, 8, 9, 10, 11, 12, 13, 17, 18, 19, 20, 21, 22, 23}},
	} {
		chain := evidence.Chain{}
		for i := range c.total {
			chain.Rules = append(chain.Rules, evidence.FirewallRule{Number: i + 1})
		}
		trim(&chain, func(r evidence.FirewallRule) bool {
			for _, n := range c.want {
				if n == r.Number {
					return true
				}
			}
			return false
		})
		if c.keep == nil {
			if len(chain.Rules) != c.total {
				t.Errorf("%d of %d rules kept, want all", len(chain.Rules), c.total)
			}
			continue
		}
		got := []int{}
		for _, r := range chain.Rules {
			got = append(got, r.Number)
		}
		if diff := cmp.Diff(c.keep, got); diff != "" {
			t.Errorf("%d, %v: %s", c.total, c.want, diff)
		}
	}
}

func (l lab) chain(family, table, chain string, handles ...uint64) evidence.Chain {
	l.t.Helper()
	c, err := l.NFTChain(family, table, chain, handles)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

func TestNFTChain(t *testing.T) {
	need(t, "nft")
	l := newLab(t)
	if _, err := l.NFTChain("inet", "fw", "input", nil); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a chain that is none: %v", err)
	}
	if _, err := l.NFTChain("nonsense", "fw", "input", nil); err == nil {
		t.Error("a family that is none was read")
	}
	l.sh(`nft -f - <<'X'
table inet fw {
	comment "ours"
	set s { type ipv4_addr; elements = { 1.1.1.1, 2.2.2.2 }; }
	chain input {
		type filter hook input priority -5; policy drop;
		ct state established accept
		tcp dport 80 counter drop comment "shut # handle 7"
		ip saddr { 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5, 10.0.0.6, 10.0.0.7, 10.0.0.8, 10.0.0.9, 10.0.0.10, 10.0.0.11 } counter drop
		ip saddr @s limit rate 1/hour jump web
		log prefix "a } # handle 3"
	}
	chain web { counter accept; }
	chain empty { }
	chain nat { type nat hook prerouting priority dstnat; }
}
table netdev early { chain in { type filter hook ingress device "lo" priority 0; drop; }; }
table bridge br { chain f { type filter hook forward priority 0; drop; }; }
table arp a { chain o { type filter hook output priority 0; accept; }; }
X
nft delete rule inet fw input handle $(nft -a list chain inet fw input | sed -n 's/.*established accept # handle //p')
nft insert rule inet fw input ct state invalid counter accept`)
	c := l.chain("inet", "fw", "input")
	if c.Backend != "nft" || !c.Base || c.Type != "filter" || c.Hook != "INPUT" || c.Priority != -5 || c.Policy != "drop" || c.Unread != "" || c.Total != 5 || len(c.Rules) != 5 {
		t.Errorf("got %+v", c)
	}
	if !strings.HasPrefix(c.Text, "type filter hook input priority") || !strings.HasSuffix(c.Text, "policy drop;") {
		t.Errorf("declared as %q", c.Text)
	}
	for i, want := range []string{"ct state invalid counter accept", `tcp dport 80 counter drop comment "shut # handle 7"`,
		"ip saddr { 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5, 10.0.0.6, 10.0.0.7, 10.0.0.8, 10.0.0.9, 10.0.0.10, 10.0.0.11 } counter drop",
		"ip saddr @s limit rate 1/hour jump web", `log prefix "a } # handle 3"`} {
		r := c.Rules[i]
		if r.Number != i+1 || r.Text != want {
			t.Errorf("rule %d: %d %q, want %q", i+1, r.Number, r.Text, want)
		}
		// The handle is that of this text.
		if listed := l.sh("nft -s -a list chain inet fw input"); i != 2 && !strings.Contains(listed, fmt.Sprintf("%s # handle %d\n", want, r.Handle)) {
			t.Errorf("rule %d has not got handle %d in\n%s", i+1, r.Handle, listed)
		}
	}
	if c := l.chain("inet", "fw", "empty"); c.Base || c.Rules == nil || len(c.Rules) != 0 || c.Unread != "" {
		t.Errorf("empty: %+v", c)
	}
	if c := l.chain("inet", "fw", "nat"); c.Type != "nat" || c.Hook != "PREROUTING" || c.Priority != -100 || c.Policy != "accept" {
		t.Errorf("nat: %+v", c)
	}
	if c := l.chain("netdev", "early", "in"); c.Hook != "INGRESS" || c.Device != "lo" || c.Rules[0].Text != "drop" {
		t.Errorf("netdev: %+v", c)
	}
	if c := l.chain("bridge", "br", "f"); c.Hook != "FORWARD" || c.Rules[0].Text != "drop" {
		t.Errorf("bridge: %+v", c)
	}
	if c := l.chain("arp", "a", "o"); c.Hook != "OUTPUT" || c.Rules[0].Text != "accept" {
		t.Errorf("arp: %+v", c)
	}
}

func TestNFTCounters(t *testing.T) {
	need(t, "nft")
	l := newLab(t)
	l.sh("nft add table ip x; nft add chain ip x o '{ type filter hook output priority 0; }'; nft add rule ip x o udp dport 9 counter")
	l.send("127.0.0.1:9")
	if c := l.chain("ip", "x", "o"); c.Rules[0].Packets != 1 || c.Rules[0].Bytes != 29 || c.Rules[0].Text != "udp dport 9 counter" {
		t.Errorf("got %+v", c.Rules)
	}
}

func TestNFTGeneration(t *testing.T) {
	need(t, "nft")
	l := newLab(t)
	first, err := l.NFTGeneration()
	if err != nil {
		t.Fatal(err)
	}
	l.sh("nft add table ip x")
	if second, err := l.NFTGeneration(); err != nil || second == first {
		t.Errorf("generation %d, then %d (%v)", first, second, err)
	}
}

func TestManyRules(t *testing.T) {
	need(t, "nft")
	l := newLab(t)
	const total = 20000
	var script strings.Builder
	script.WriteString("table ip big {\nchain in {\ntype filter hook input priority 0;\n")
	for i := range total {
		fmt.Fprintf(&script, "ip saddr 10.%d.%d.%d tcp dport 80 drop\n", i>>16, i>>8&255, i&255)
	}
	script.WriteString("}\n}\n")
	file := t.TempDir() + "/rules"
	writeFile(t, file, script.String())
	l.sh("nft -f " + file)
	all, err := l.nftRules(unix.NFPROTO_IPV4, "big", "in")
	if err != nil || len(all) != total {
		t.Fatalf("%d rules (%v), want %d", len(all), err, total)
	}
	c := l.chain("ip", "big", "in", all[12344].handle)
	if c.Total != total || len(c.Rules) != 7 || c.Unread != "" {
		t.Fatalf("kept %d of %d: %s", len(c.Rules), c.Total, c.Unread)
	}
	if r := c.Rules[3]; r.Number != 12345 || r.Handle != all[12344].handle || r.Text != "ip saddr 10.0.48.56 tcp dport 80 drop" {
		t.Errorf("got %+v", r)
	}
}

func TestIptablesNFT(t *testing.T) {
	need(t, "iptables-nft", "ip6tables-nft", "nft")
	l := newLab(t)
	l.sh(`iptables-nft -P INPUT DROP
iptables-nft -N DOCKER-USER
iptables-nft -A INPUT -p tcp --dport 22 -m comment --comment "a # handle 7" -j ACCEPT
iptables-nft -A INPUT -p tcp -m multiport --dports 80,443 -j DROP
iptables-nft -A DOCKER-USER -s 10.0.0.0/8 -j REJECT
ip6tables-nft -A INPUT -p tcp --dport 80 -j DROP
nft add table ip mangle; nft add chain ip mangle mine; nft add rule ip mangle mine ct state new meta mark set 0x7 accept
nft add table ip6 nat; nft add chain ip6 nat input '{ type nat hook prerouting priority 0; }'; nft add rule ip6 nat input tcp dport 80 redirect to :8080
nft add table ip fw; nft add chain ip fw INPUT '{ type filter hook input priority 0; }'; nft add rule ip fw INPUT tcp dport 80 drop`)
	before, err := l.NFTGeneration()
	if err != nil {
		t.Fatal(err)
	}
	c := l.chain("ip", "filter", "INPUT")
	if c.Backend != "iptables-nft" || c.Text != "-P INPUT DROP" || c.Policy != "drop" || !c.Base || c.Total != 2 {
		t.Errorf("got %+v", c)
	}
	if want := `-A INPUT -p tcp -m multiport --dports 80,443 -j DROP`; c.Rules[1].Text != want || c.Rules[1].Number != 2 || c.Rules[1].Handle == 0 {
		t.Errorf("got %+v, want %s", c.Rules[1], want)
	}
	if c := l.chain("ip", "filter", "DOCKER-USER"); c.Backend != "iptables-nft" || c.Owner != "docker" || c.Text != "" || c.Base || !strings.HasPrefix(c.Rules[0].Text, "-A DOCKER-USER -s 10.0.0.0/8 -j REJECT") {
		t.Errorf("got %+v", c)
	}
	if c := l.chain("ip6", "filter", "INPUT"); c.Backend != "iptables-nft" || c.Rules[0].Text != "-A INPUT -p tcp -m tcp --dport 80 -j DROP" {
		t.Errorf("got %+v", c)
	}
	if c := l.chain("ip", "fw", "INPUT"); c.Backend != "nft" || c.Rules[0].Text != "tcp dport 80 drop" {
		t.Errorf("got %+v", c)
	}
	if c := l.chain("ip", "mangle", "mine"); c.Backend != "nft" || c.Unread != "" || len(c.Rules) != 1 {
		t.Errorf("a native rule in a table of iptables: %+v", c)
	}
	if c := l.chain("ip6", "nat", "input"); c.Backend != "nft" || c.Rules[0].Text != "tcp dport 80 redirect to :8080" || c.Text == "" {
		t.Errorf("a native table with a name of iptables: %+v", c)
	}
	if after, err := l.NFTGeneration(); err != nil || after != before {
		t.Errorf("reading changed the ruleset: generation %d, then %d (%v)", before, after, err)
	}
}

func FuzzNFTMessages(f *testing.F) {
	f.Add(nftBody(2, 1, "filter", 3, "INPUT"))
	f.Add(put([]byte{1, 0, 0, 0}, unix.NFTA_CHAIN_HOOK, put(put(nil, unix.NFTA_HOOK_HOOKNUM, []byte{0xff, 0xff, 0xff, 0xff}), nftaHookDevs, putText(nil, 1, "lo"))))
	counter := putText(put(nil, unix.NFTA_EXPR_DATA, put(nil, unix.NFTA_COUNTER_BYTES, []byte{1})), unix.NFTA_EXPR_NAME, "counter")
	f.Add(put([]byte{1, 0, 0, 0}, unix.NFTA_RULE_EXPRESSIONS, put(nil, 1, counter)))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseNFTRule(b)
		for _, family := range nftFamilies {
			parseNFTChain(b, family, &evidence.Chain{})
		}
	})
}

func FuzzListing(f *testing.F) {
	f.Add("chain c {\ndrop # handle 7\n}\n", uint64(7))
	f.Add("chain c {\n# handle 7\n # handle 7\n", uint64(7))
	f.Fuzz(func(t *testing.T, out string, handle uint64) {
		if l, err := parseNFTListing(out, "c", []uint64{handle}); err == nil && len(l.texts) != 1 {
			t.Errorf("%d texts for one rule", len(l.texts))
		}
		s := saveReader{chain: "c", want: func(int) bool { return true }}
		(&lineWriter{each: s.take}).Write([]byte(out))
	})
}
