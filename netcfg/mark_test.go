// SPDX-License-Identifier: Apache-2.0

package netcfg

import "testing"

func TestMarked(t *testing.T) {
	const mark = "pathtrace-00c0ffee"
	for name, test := range map[string]struct {
		tool   string
		script string
	}{
		"nft":              {"nft", `nft 'add table inet t; add chain inet t c; add rule inet t c accept comment "` + mark + `"'`},
		"nft, bridge":      {"nft", `nft 'add table bridge t; add chain bridge t c; add rule bridge t c accept comment "` + mark + `"'`},
		"iptables-nft":     {"iptables-nft", "iptables-nft -A INPUT -m comment --comment " + mark + " -j ACCEPT"},
		"iptables-legacy":  {"iptables-legacy", "iptables-legacy -t mangle -A INPUT -m comment --comment " + mark + " -j ACCEPT"},
		"ip6tables-legacy": {"ip6tables-legacy", "ip6tables-legacy -A INPUT -m comment --comment " + mark + " -j ACCEPT"},
	} {
		t.Run(name, func(t *testing.T) {
			need(t, test.tool)
			l := newLab(t)
			if got, err := l.Marked(mark); got || err != nil {
				t.Errorf("before: %v, %v", got, err)
			}
			l.sh(test.script)
			if got, err := l.Marked(mark); !got || err != nil {
				t.Errorf("%v, %v", got, err)
			}
			if got, err := l.Marked(mark + "0"); got || err != nil {
				t.Errorf("another mark: %v, %v", got, err)
			}
		})
	}
}

func TestCookie(t *testing.T) {
	one, two := newLab(t), newLab(t)
	a, err := one.Cookie()
	if err != nil {
		t.Fatal(err)
	}
	again, _ := one.Cookie()
	b, _ := two.Cookie()
	if a == 0 || a != again || a == b {
		t.Errorf("cookies %d, %d and of another namespace %d", a, again, b)
	}
}
