// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
)

// asRead is a generated ruleset as it would be read, and its hooks in order.
func (r *ruleset) asRead() (chains []netcfg.FirewallChain, hooks []evidence.Hook) {
	for _, c := range r.chains {
		read := evidence.Chain{Backend: "nft", Family: c.family, Table: c.table, Name: c.name, Base: c.hook != "", Hook: c.hook}
		hook := evidence.Hook{Family: "ip", Hook: c.hook, Type: "nft", NFFamily: c.family, Table: c.table, Chain: c.name}
		if r.legacy {
			read.Backend, hook.Type, hook.NFFamily = "iptables-legacy", "iptables-legacy", ""
		}
		if c.hook != "" {
			read.Policy = "accept"
			if c.drops {
				read.Policy = "drop"
			}
			hooks = append(hooks, hook)
		}
		for i, rule := range c.rules {
			text := rule.text
			if r.legacy {
				text = strings.TrimSpace("-A " + c.name + " " + text)
			}
			read.Rules = append(read.Rules, evidence.FirewallRule{Number: i + 1, Text: text})
		}
		read.Total = len(read.Rules)
		chains = append(chains, netcfg.FirewallChain{Chain: read})
	}
	return chains, hooks
}

// What is marked as met is what the judge of the generated rulesets meets: all of it, and nothing else where no
// verdict stands in a map.
func TestMarksOfRandomRulesets(t *testing.T) {
	decisions, maybe := 0, 0
	for i := range number(t, "PATHTRACE_RULESETS", 1000) {
		g := generator{rand.New(rand.NewPCG(uint64(i), 1))}
		r := g.nft()
		if i%2 == 1 {
			r = g.iptables()
		}
		d := datagram{sources[g.IntN(len(sources))], g.port()}
		want := r.judge(d)
		chains, hooks := r.asRead()
		local := netip.MustParseAddr("127.0.0.1")
		w := newWalker(chains, packet{protocol: "udp", source: netip.MustParseAddr(d.source), dest: local, dport: d.port, inKnown: true, oif: "lo"})
		on := isMet
		for _, h := range hooks {
			on = w.base(h, on)
		}
		var certain, possible []string
		for _, c := range r.chains {
			marks := w.rules[chainName{r.legacy, c.family, c.table, c.name}]
			for j, m := range marks {
				place := fmt.Sprintf("%s %s %s rule %d", c.family, c.table, c.name, j+1)
				if m == isMet {
					certain = append(certain, place)
				}
				if m != notMet {
					possible = append(possible, place)
				}
			}
		}
		decisions += len(want)
		maybe += len(possible) - len(certain)
		for _, step := range want {
			if place := placeOf(step); place != "" && !slices.Contains(possible, place) {
				t.Fatalf("ruleset %d, %+v: %s is met, and not marked\n%s%s", i, d, step, r.nftText(), strings.Join(want, "\n"))
			}
		}
		for _, place := range certain {
			if r.rule(place).decides(d) && !slices.ContainsFunc(want, func(s string) bool { return placeOf(s) == place }) {
				t.Fatalf("ruleset %d, %+v: %s is not met, and marked as if it were\n%s%s", i, d, place, r.nftText(), strings.Join(want, "\n"))
			}
		}
		if len(possible) > len(certain) && !strings.Contains(r.nftText(), "vmap") {
			t.Fatalf("ruleset %d, %+v: every text can be read, and yet %v only may be met\n%s", i, d, possible, r.nftText())
		}
	}
	t.Logf("%d decisions; %d rules that may be met", decisions, maybe)
	if decisions == 0 || maybe == 0 {
		t.Error("the rulesets show nothing")
	}
}

// placeOf cuts a step of the judge to its rule; "" for a policy.
func placeOf(step string) string {
	words := strings.Fields(step)
	if words[4] == "0" {
		return ""
	}
	return strings.Join(words[:5], " ")
}

func (r *ruleset) rule(place string) *genRule {
	words := strings.Fields(place)
	for _, c := range r.chains {
		for i := range c.rules {
			if words[0] == c.family && words[1] == c.table && words[2] == c.name && words[4] == fmt.Sprint(i+1) {
				return &c.rules[i]
			}
		}
	}
	panic("no rule " + place)
}

// decides reports whether the judge tells of the rule: whether it has a verdict for the packet.
func (g *genRule) decides(d datagram) bool {
	if !g.matches(d) {
		return true // and it must not be marked
	}
	verdict, _ := g.verdict(d)
	return verdict != ""
}

func TestReadRule(t *testing.T) {
	p := packet{protocol: "tcp", source: netip.MustParseAddr("10.0.0.1"), dest: netip.MustParseAddr("10.0.0.5"), dport: 80, oif: "eth0", inKnown: true}
	for text, want := range map[string]reading{
		`-A OUTPUT -j ACCEPT`: {fits: isMet, does: "accept"},
		`-A OUTPUT -d 10.0.0.0/8 -o eth+ -p tcp -m tcp --dport 80 -m comment --comment "a -j DROP" -j DROP`: {fits: isMet, does: "drop"},
		`-A OUTPUT ! -d 10.0.0.0/8 -j DROP`:                                             {fits: notMet, does: "drop"},
		`-A OUTPUT -i eth0 -j DROP`:                                                     {fits: notMet, does: "drop"},
		`-A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`:                {fits: notMet, does: "accept"},
		`-A OUTPUT -m conntrack ! --ctstate NEW -j ACCEPT`:                              {fits: notMet, does: "accept"},
		`-A OUTPUT -m owner --uid-owner 0 -j ACCEPT`:                                    {fits: mayMeet, does: "accept"},
		`-A OUTPUT -m owner --uid-owner 0 -p udp -j ACCEPT`:                             {fits: notMet, does: "accept"},
		`-A OUTPUT -m string --string "-j DROP" --algo bm -j RETURN`:                    {fits: mayMeet, does: "return"},
		`-A OUTPUT -p tcp -m multiport --dports 22,70:90 -g web`:                        {fits: isMet, does: "goto", to: []string{"web"}},
		`-A OUTPUT -j MARK --set-xmark 0x1/0xffffffff`:                                  {fits: isMet},
		`-A OUTPUT -j MASQUERADE`:                                                       {fits: isMet, does: "accept", snat: true},
		`-A OUTPUT -p tcp -j REDIRECT --to-ports 81`:                                    {fits: isMet, does: "accept", dnat: true},
		`-A OUTPUT -j NFQUEUE --queue-num 1`:                                            {fits: isMet, does: "?"},
		`accept`:                                                                        {fits: isMet, does: "accept"},
		`meta nfproto ipv6 drop`:                                                        {fits: notMet, does: "drop"},
		`ip6 daddr != fe80::/10 drop`:                                                   {fits: notMet, does: "drop"},
		`udp dport != 53 drop`:                                                          {fits: notMet, does: "drop"},
		`tcp dport { 80, 443 } counter packets 1 bytes 60 jump web`:                     {fits: isMet, does: "jump", to: []string{"web"}},
		`tcp dport 80-90 ip daddr @banned drop`:                                         {fits: mayMeet, does: "drop"},
		`tcp dport 81 ip daddr @banned drop`:                                            {fits: notMet, does: "drop"},
		`ct state established,related accept`:                                           {fits: notMet, does: "accept"},
		`ct state { new, untracked } tcp dport 80 log prefix "drop " level info accept`: {fits: isMet, does: "accept"},
		`ct state vmap { established : accept, invalid : drop, new : jump fresh }`:      {fits: mayMeet, does: "?", to: []string{"fresh"}},
		`ip saddr . tcp dport vmap { 10.0.0.1 . 80 : goto web }`:                        {fits: mayMeet, does: "?", to: []string{"web"}},
		`fib saddr . iif oif missing drop`:                                              {fits: mayMeet, does: "drop"},
		`ip daddr & 255.0.0.0 == 11.0.0.0 drop`:                                         {fits: mayMeet, does: "drop"},
		`ip daddr . tcp dport { 10.0.0.9 . 81 } drop`:                                   {fits: mayMeet, does: "drop"},
		`limit rate over 5/second drop`:                                                 {fits: mayMeet, does: "drop"},
		`oifname "eth0" masquerade`:                                                     {fits: isMet, does: "accept", snat: true},
		`iifname "lo" accept`:                                                           {fits: notMet, does: "accept"},
		`oifname { "docker0", "eth*" } reject with icmpx admin-prohibited`:              {fits: isMet, does: "drop"},
		`tcp dport 80 notrack`:                                                          {fits: isMet, raw: true},
		`comment "accept"`:                                                              {fits: isMet},
		``:                                                                              {fits: mayMeet, does: "?"},
		`tcp dport`:                                                                     {fits: mayMeet},
		`jump`:                                                                          {fits: isMet, does: "jump", to: []string{""}},
		`-A OUTPUT -p`:                                                                  {fits: notMet},
	} {
		backend := "nft"
		if strings.HasPrefix(text, "-A") {
			backend = "iptables-nft"
		}
		if diff := cmp.Diff(want, p.read(backend, text), cmp.AllowUnexported(reading{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

// FuzzReadRule: whatever a ruleset holds, it is read to its end.
func FuzzReadRule(f *testing.F) {
	f.Add("-A INPUT -m comment --comment \"a\\\"b\" ! -s 10.0.0.0/8 -j DROP")
	f.Add(`ip saddr . tcp dport vmap { 10.0.0.1 . 80 : goto web } comment "x`)
	p := packet{protocol: "tcp", dest: netip.MustParseAddr("10.0.0.5"), dport: 80}
	f.Fuzz(func(t *testing.T, text string) {
		for _, backend := range []string{"nft", "iptables-legacy"} {
			if r := p.read(backend, text); r.fits < notMet || r.fits > isMet {
				t.Errorf("%+v", r)
			}
		}
	})
}
