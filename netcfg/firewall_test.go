// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// line words a chain in short: who has it, where it hangs, and each rule with its counter.
func (c FirewallChain) line() string {
	s := fmt.Sprintf("%s %s %s %s", c.Backend, c.Family, c.Table, c.Name)
	if c.Base {
		s += fmt.Sprintf(" hook %s %d %s", c.Hook, c.Priority, c.Policy)
	}
	if c.Device != "" {
		s += " " + c.Device
	}
	if c.Owner != "" {
		s += " of " + c.Owner
	}
	for _, r := range c.Rules {
		s += fmt.Sprintf(" | %d %s [%d]", r.Number, r.Text, r.Packets)
	}
	return s
}

func TestFirewall(t *testing.T) {
	for name, test := range map[string]struct {
		tools  []string
		script string
		want   []string
	}{
		"nothing": {},
		"nft of every family": {
			[]string{"nft"},
			`nft -f - <<'N'
table inet fw {
	set s { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5, 10.0.0.6, 10.0.0.7, 10.0.0.8, 10.0.0.9 }
	}
	chain in {
		type filter hook input priority 5; policy drop
		udp dport 9 counter jump web comment "a # handle 3"
		tcp dport vmap { 22 : accept, 25 : jump web }
	}
	chain web {
		accept
	}
}
table arp a {
	chain i { type filter hook input priority 0
		counter
	}
}
table bridge b {
	chain f { type filter hook forward priority -200; policy accept
		ether type arp accept
	}
}
table netdev n {
	chain g { type filter hook ingress device lo priority 0
		udp dport 9 counter
	}
}
table ip6 docker-bridges {
	chain c {
	}
}
N`,
			[]string{
				`nft inet fw in hook INPUT 5 drop | 1 udp dport 9 counter jump web comment "a # handle 3" [1] | 2 tcp dport vmap { 22 : accept, 25 : jump web } [0]`,
				`nft inet fw web | 1 accept [0]`,
				`nft arp a i hook INPUT 0 accept | 1 counter [0]`,
				`nft bridge b f hook FORWARD -200 accept | 1 ether type arp accept [0]`,
				`nft netdev n g hook INGRESS 0 accept lo | 1 udp dport 9 counter [1]`,
				`nft ip6 docker-bridges c of docker`,
			},
		},
		"iptables-nft": {
			[]string{"iptables-nft"},
			`iptables-nft -N DOCKER; iptables-nft -A INPUT -p udp --dport 9 -j DOCKER; iptables-nft -A DOCKER -m comment --comment "two words" -j DROP; ip6tables-nft -t raw -A PREROUTING -j ACCEPT`,
			[]string{
				`iptables-nft ip filter DOCKER of docker | 1 -A DOCKER -m comment --comment "two words" -j DROP [1]`,
				`iptables-nft ip filter INPUT hook INPUT 0 accept | 1 -A INPUT -p udp -m udp --dport 9 -j DOCKER [1]`,
				`iptables-nft ip6 raw PREROUTING hook PREROUTING -300 accept | 1 -A PREROUTING -j ACCEPT [0]`,
			},
		},
		"iptables-legacy": {
			[]string{"iptables-legacy", "ip6tables-legacy"},
			`iptables-legacy -N ufw-user-input; iptables-legacy -A INPUT -p udp --dport 9 -j ufw-user-input; iptables-legacy -A ufw-user-input -j DROP
			 iptables-legacy -P FORWARD DROP; iptables-legacy -t raw -A OUTPUT -j ACCEPT; ip6tables-legacy -t security -A INPUT -j ACCEPT`,
			[]string{
				`iptables-legacy ip raw PREROUTING hook PREROUTING -300 accept`,
				`iptables-legacy ip raw OUTPUT hook OUTPUT -300 accept | 1 -A OUTPUT -j ACCEPT [1]`,
				`iptables-legacy ip filter INPUT hook INPUT 0 accept | 1 -A INPUT -p udp -m udp --dport 9 -j ufw-user-input [1]`,
				`iptables-legacy ip filter FORWARD hook FORWARD 0 drop`,
				`iptables-legacy ip filter OUTPUT hook OUTPUT 0 accept`,
				`iptables-legacy ip filter ufw-user-input of ufw | 1 -A ufw-user-input -j DROP [1]`,
				`iptables-legacy ip6 security INPUT hook INPUT 50 accept | 1 -A INPUT -j ACCEPT [0]`,
				`iptables-legacy ip6 security FORWARD hook FORWARD 50 accept`,
				`iptables-legacy ip6 security OUTPUT hook OUTPUT 50 accept`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			need(t, test.tools...)
			l := newLab(t)
			l.sh(test.script)
			l.send("127.0.0.1:9")
			f := l.Firewall(t.Context())
			var got []string
			for _, c := range f.Chains {
				if c.Unread != "" {
					t.Errorf("%s: %s", c.Name, c.Unread)
				}
				got = append(got, c.line())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if len(f.Unread) > 0 {
				t.Error(f.Unread)
			}
		})
	}
}

// The two kinds of iptables may have tables of one name.
func TestFirewallBesideEachOther(t *testing.T) {
	need(t, "iptables-nft", "iptables-legacy")
	l := newLab(t)
	l.sh("iptables-nft -A INPUT -j ACCEPT; iptables-legacy -A INPUT -j DROP")
	var got []string
	for _, c := range l.Firewall(t.Context()).Chains {
		if len(c.Rules) > 0 {
			got = append(got, c.line())
		}
	}
	want := []string{"iptables-nft ip filter INPUT hook INPUT 0 accept | 1 -A INPUT -j ACCEPT [0]", "iptables-legacy ip filter INPUT hook INPUT 0 accept | 1 -A INPUT -j DROP [0]"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSplitRuleset(t *testing.T) {
	const out = "table ip a { # handle 1\n\tset s {\n\t\ttype ipv4_addr\n\t}\n\n\tchain x { # handle 1\n\t\taccept # handle 2\n\t}\n}\ntable ip6 a {\n\tchain x {\n\t}\n\tchain y {\n\t\tdrop # handle 4\n\t}\n}\n"
	got := splitRuleset(out)
	want := map[nftChainKey]string{
		{"ip", "a", "x"}:  "\tchain x { # handle 1\n\t\taccept # handle 2\n\t}\n",
		{"ip6", "a", "x"}: "\tchain x {\n\t}\n",
		{"ip6", "a", "y"}: "\tchain y {\n\t\tdrop # handle 4\n\t}\n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// FuzzRuleset holds what reads the output of tools against anything.
func FuzzRuleset(f *testing.F) {
	f.Add("table ip a {\n\tchain x {\n\t\taccept # handle 2\n\t}\n}\n", "*filter\n:INPUT DROP [0:0]\n-A INPUT -j DROP\nCOMMIT\n")
	f.Fuzz(func(t *testing.T, listing, saved string) {
		for key, text := range splitRuleset(listing) {
			if !strings.Contains(listing, text) {
				t.Errorf("%v: %q is not in the listing", key, text)
			}
		}
		for _, chains := range parseSaves(saved) {
			for name, s := range chains {
				for _, rule := range s.rules {
					if !strings.HasPrefix(rule, "-A "+name) || !strings.Contains(saved, rule) {
						t.Errorf("%q is no rule of %q", rule, name)
					}
				}
			}
		}
	})
}
