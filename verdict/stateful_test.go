// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

func TestStatefulUsed(t *testing.T) {
	syn := &evidence.Packet{Family: 4, Protocol: "tcp", Source: "10.1.0.2", Dest: "10.2.0.2", SPort: 40000, DPort: 80, Flags: "S"}
	for _, c := range []struct {
		text    string
		matched bool
		want    answer
	}{
		{"limit rate 5/minute accept", true, yes},
		{"limit rate 5/minute burst 5 packets accept", false, no}, // above its limit it takes nothing
		{"tcp dport 80 limit rate over 5/minute drop", true, no},  // it matched because there was none
		{"tcp dport 80 limit rate over 5/minute drop", false, yes},
		{"tcp dport 22 limit rate over 5/minute drop", false, no},
		{"tcp dport { 22, 80-90 } limit rate over 5/minute drop", false, yes},
		{"tcp dport != { 22, 80-90 } limit rate over 5/minute drop", false, no},
		{"udp dport 80 limit rate over 5/minute drop", false, no},
		{"ip saddr 10.1.0.0/16 ip daddr 10.2.0.2 limit rate over 1 mbytes/second drop", false, yes},
		{"ip saddr != 10.1.0.0/16 limit rate over 5/minute drop", false, no},
		{"ip saddr @friends limit rate over 5/minute drop", false, unknown},
		{"ct state new limit rate over 5/minute drop", false, unknown},
		{"limit rate over 5/minute tcp dport 80 drop", false, unknown}, // the port may be what failed
		{"limit rate 5/minute ip saddr 10.9.0.0/16 accept", false, unknown},
		{"quota over 10 mbytes drop", false, yes},
		{`tcp dport 80 quota name "q" drop`, false, yes},
		{"tcp dport 443 quota 10 mbytes drop", false, no},
		{"tcp dport 80 ct count over 10 reject", false, yes},
		{"tcp dport 80 update @seen { ip saddr }", true, yes},
		{"tcp dport 80 update @seen { ip saddr } drop", false, unknown}, // the set may be full
		{"tcp dport 22 add @seen { ip saddr timeout 1m } drop", false, no},
		{"update @meters { ip saddr limit rate over 5/minute } drop", true, yes},
		{`counter name "web" accept`, true, yes},
		{"-A IN -p tcp -m tcp --dport 80 -m limit --limit 5/min -j ACCEPT", true, yes},
		{"-A IN -p tcp -m tcp --dport 80 -m limit --limit 5/min -j ACCEPT", false, no},
		{"-A IN -p tcp -m tcp ! --dport 80 -m statistic --mode nth --every 3 --packet 0 -j DROP", false, no},
		{"-A IN -s 10.1.0.0/16 -p tcp -m tcp --dport 80:90 -m connlimit --connlimit-above 3 --connlimit-mask 32 --connlimit-saddr -j DROP", false, yes},
		{"-A IN -p tcp -m tcp --dport 80 -m hashlimit --hashlimit-above 5/sec --hashlimit-name x -j DROP", false, yes},
		{"-A IN -p udp -m hashlimit --hashlimit-above 5/sec --hashlimit-name x -j DROP", false, no},
		{"-A IN -m recent --set --name SEEN --mask 255.255.255.255 --rsource", true, yes},
		{"-A IN -m recent --update --seconds 60 --name SEEN --mask 255.255.255.255 --rsource -j DROP", true, unknown},
		{"-A IN -m set --match-set a src -m limit --limit 5/min -j ACCEPT", false, no},
		{"-A IN -m set --match-set a src -m quota --quota 1000 -j ACCEPT", false, no},
		{"-A IN -p tcp -j SET --add-set seen src", true, yes},
	} {
		k := stateful(c.text)
		if len(k) != 1 {
			t.Errorf("%s: %d expressions that keep state", c.text, len(k))
			continue
		}
		if got := k[0].used(c.matched, syn); got != c.want {
			t.Errorf("%s, matched %v: %v, want %v (before %q, after %q)", c.text, c.matched, got, c.want, k[0].before, k[0].after)
		}
	}
	for _, text := range []string{
		`tcp dport 80 accept comment "limit rate 5/minute"`, "tcp dport 80 counter accept", "-A IN -m comment --comment \"-m limit --limit 5/min\" -j DROP",
		`log prefix "quota 10 mbytes" drop`, "numgen random mod 2 vmap { 0 : drop }", "-A IN -m statistic --mode random --probability 0.5 -j DROP",
	} {
		if k := stateful(text); len(k) != 0 {
			t.Errorf("%s: keeps state: %+v", text, k)
		}
	}
}

// Rules that the packet did not come to, and those of another chain, have used nothing up.
func TestConsumed(t *testing.T) {
	step := func(chain, verdict, target string, handle uint64) evidence.Event {
		return evidence.Event{Kind: evidence.RuleVerdict, Netns: "s", Direction: evidence.Forward, SKB: "a", Hook: evidence.Input,
			Rule: &evidence.RuleStep{Backend: "nft", Family: "inet", Table: "fw", Chain: chain, Handle: handle, Verdict: verdict, Target: target, TraceID: 1}}
	}
	rules := func(texts ...string) (list []evidence.FirewallRule) {
		for i, text := range texts {
			list = append(list, evidence.FirewallRule{Number: i + 1, Handle: uint64(i + 1), Text: text})
		}
		return list
	}
	c := &evidence.Case{
		Namespaces: []evidence.Namespace{{Name: "s", Chains: evidence.Have([]evidence.Chain{
			{Backend: "nft", Family: "inet", Table: "fw", Name: "in", Base: true, Rules: rules("quota 1 mbytes", "tcp dport 80 jump web", "limit rate 3/second accept", "quota 3 mbytes")},
			{Backend: "nft", Family: "inet", Table: "fw", Name: "web", Rules: rules("tcp dport 80 limit rate over 3/second drop", "update @seen { ip saddr }")},
			{Backend: "nft", Family: "inet", Table: "fw", Name: "other", Rules: rules("quota 9 mbytes")},
		})}},
		Events: []evidence.Event{
			{Kind: evidence.Receive, Netns: "s", Direction: evidence.Forward, SKB: "a", Packet: &evidence.Packet{Family: 4, Protocol: "tcp", Source: "10.1.0.2", Dest: "10.2.0.2", DPort: 80, Flags: "S"}},
			step("in", "jump", "web", 2), step("web", "continue", "", 2), step("web", "return", "", 0), step("in", "accept", "", 3),
		},
	}
	want := []string{
		`the probe has been counted against "quota 1 mbytes", nft inet fw chain in rule 1 (handle 1) in s`,
		`the probe has taken a token of "limit rate 3/second", nft inet fw chain in rule 3 (handle 3) in s`,
		`the probe has taken a token of "limit rate over 3/second", nft inet fw chain web rule 1 (handle 1) in s`,
		`the probe has left an entry by "update @seen { ip saddr }", nft inet fw chain web rule 2 (handle 2) in s`,
	}
	if diff := cmp.Diff(want, consumed(c)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	c.Events = c.Events[:2]
	c.Events[0].Packet.DPort = 81 // it jumped all the same; the limit's own rule cannot have been met in full
	if got := strings.Join(consumed(c), "\n"); strings.Contains(got, "rule 3") || strings.Contains(got, "web") {
		t.Errorf("with the end not seen: %s", got)
	}
}
