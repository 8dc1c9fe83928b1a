// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"testing"

	"github.com/google/go-cmp/cmp"
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
			got := does{r.drops(), r.rejects(), r.mayPass(), r.leaves(), r.oneWay(), r.letsReplies(), r.leadsTo()}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
