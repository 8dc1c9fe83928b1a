// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

// What the author of a rule is free to write says nothing about what the rule does.
func TestReadRule(t *testing.T) {
	type does struct {
		Drops, Rejects, MayPass, Leaves, OneWay, LetsReplies bool
		LeadsTo                                              string
	}
	for name, test := range map[string]struct {
		backend, text string
		want          does
	}{
		"nft drop":             {"nft", `meta l4proto tcp counter drop`, does{Drops: true}},
		"nft comment":          {"nft", `meta l4proto tcp drop comment "reject, jump x, limit, dport, return"`, does{Drops: true}},
		"nft log prefix":       {"nft", `log prefix "-j REJECT drop " group 3 drop`, does{Drops: true}},
		"nft accept":           {"nft", `ct state established,related accept comment "drop"`, does{LetsReplies: true}},
		"nft reject":           {"nft", `tcp dport 80 reject with tcp reset`, does{Drops: true, Rejects: true, OneWay: true}},
		"nft extension":        {"nft", `meta l4proto tcp counter xt target "REJECT"`, does{Rejects: true}},
		"nft jump":             {"nft", `iifname "drop" jump known comment "goto away"`, does{OneWay: true, LeadsTo: "known"}},
		"nft limit":            {"nft", `limit rate over 1/second drop`, does{Drops: true, MayPass: true}},
		"nft return":           {"nft", `meta l4proto udp return`, does{Leaves: true}},
		"iptables drop":        {"iptables-legacy", `-A INPUT -p tcp -j DROP`, does{Drops: true, LeadsTo: "DROP"}},
		"iptables chain":       {"iptables-nft", `-A reject -p tcp -m comment --comment reject -j DROP`, does{Drops: true, LeadsTo: "DROP"}},
		"iptables comment":     {"iptables-nft", `-A INPUT -p tcp -m comment --comment "a \"b\" -j REJECT --dport" -j DROP`, does{Drops: true, LeadsTo: "DROP"}},
		"iptables jump":        {"iptables-legacy", `-A INPUT -p tcp -j reject`, does{LeadsTo: "reject"}},
		"iptables goto":        {"iptables-legacy", `-A INPUT -p tcp -g drop`, does{Leaves: true, LeadsTo: "drop"}},
		"iptables reject":      {"iptables-legacy", `-A INPUT -p tcp -m tcp --dport 80 -j REJECT --reject-with tcp-reset`, does{Drops: true, Rejects: true, OneWay: true, LeadsTo: "REJECT"}},
		"iptables log prefix":  {"iptables-nft", `-A INPUT -j LOG --log-prefix "limit -j DROP "`, does{LeadsTo: "LOG"}},
		"iptables established": {"iptables-nft", `-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`, does{LetsReplies: true, LeadsTo: "ACCEPT"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := readRule(test.backend, test.text)
			got := does{r.drops(), r.rejects(), r.mayPass(), r.leaves(), r.oneWay(nil), r.letsReplies(), r.leadsTo()}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestOneWay(t *testing.T) {
	back := &evidence.Packet{Family: 4, Protocol: "tcp", Source: "10.0.2.2", Dest: "10.0.1.2", SPort: 80, DPort: 40000}
	for name, test := range map[string]struct {
		backend, text string
		want          bool
	}{
		"nft source":           {"nft", `ip saddr 10.0.1.0/24 drop`, true},
		"nft net of both":      {"nft", `ip saddr 10.0.0.0/16 counter packets 3 bytes 180 drop`, false},
		"nft both in one net":  {"nft", `ip saddr 10.0.0.0/16 ip daddr 10.0.0.0/16 drop`, false},
		"nft other than":       {"nft", `ip daddr != 10.0.3.0/24 drop`, false},
		"nft set":              {"nft", `ip saddr @banned drop`, true},
		"nft high ports":       {"nft", `tcp dport 1024-65535 drop`, false},
		"nft flags":            {"nft", `ip saddr 10.0.0.0/16 tcp flags syn drop`, true},
		"nft device":           {"nft", `iifname "br0" drop`, true},
		"nft one bridge":       {"nft", `iifname "br0" oifname "br0" drop`, false},
		"nft two devices":      {"nft", `iifname "br0" oifname "br1" drop`, true},
		"nft not one device":   {"nft", `iifname "br0" oifname != "br0" drop`, true},
		"nft one way besides":  {"nft", `iifname "br0" oifname "br0" tcp dport 80 drop`, true},
		"iptables net of both": {"iptables-legacy", `-A FORWARD -s 10.0.0.0/16 -p tcp -m comment --comment "-i a" -j DROP`, false},
		"iptables port":        {"iptables-nft", `-A FORWARD -p tcp -m tcp --dport 80 -j DROP`, true},
		"iptables any ports":   {"iptables-nft", `-A FORWARD -p tcp -m multiport --dports 1:65535 -j DROP`, false},
		"iptables one bridge":  {"iptables-nft", `-A FORWARD -i br0 -o br0 -j DROP`, false},
		"iptables not one":     {"iptables-nft", `-A DOCKER ! -i br0 -o br0 -j DROP`, true},
		"iptables neither":     {"iptables-nft", `-A DOCKER ! -i br0 ! -o br0 -j DROP`, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := readRule(test.backend, test.text).oneWay(back); got != test.want {
				t.Errorf("oneWay of %q is %v", test.text, got)
			}
		})
	}
}
