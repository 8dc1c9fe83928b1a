// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

// Rules of a long chain are printed from a copy: word by word what nft prints of the chain itself.
func TestExcerptIsWhatNFTLists(t *testing.T) {
	need(t, "nft")
	l := newLab(t)
	kinds := []string{
		"ip saddr 10.0.0.1 tcp dport 80 counter drop comment \"of ours # handle 3\"",
		"ip saddr @friends tcp dport { 22, 80-90 } accept",
		"ip daddr . tcp dport @pairs limit rate over 5/minute burst 7 packets drop",
		"iifname { \"lo\", \"eth*\" } ct state vmap { established : accept, invalid : drop }", // a map: not copied
		"meta mark & 0xff == 0x7 ct mark set 0x1 jump elsewhere",
		"tcp flags & (fin | syn) == syn tcp option maxseg size set 1200 goto other",
		"reject with icmpx admin-prohibited",
		"log prefix \"a } # handle 9\" group 3",
		"fib saddr . iif oif missing drop",
		"update @seen { ip saddr limit rate 1/second } accept", // adds to a set: not copied
		"tcp dport { 25, 26 } ct count over 5 drop",            // an expression that is not among those known,
	}
	// These are listed with the whole chain; the kernel takes no copy of an option that is set as it shows it.
	notCopied := []string{"vmap", "update", "ct count", "maxseg"}
	var script strings.Builder
	script.WriteString("table inet fw {\nset friends { type ipv4_addr; flags interval; elements = { 10.1.0.0/16 }; }\n" +
		"set pairs { type ipv4_addr . inet_service; elements = { 10.0.0.1 . 80 }; }\n" +
		"set seen { type ipv4_addr; flags dynamic; size 100; timeout 1m; }\n" +
		"chain elsewhere { }\nchain other { }\n" +
		"chain long {\ntype filter hook input priority -7; policy drop;\n")
	for range 20 {
		for _, k := range kinds {
			script.WriteString(k + "\n")
		}
	}
	script.WriteString("}\n}\n")
	l.sh("nft -f - <<'X'\n" + script.String() + "X")
	handles, err := l.nftRules(nftFamilies["inet"], "fw", "long")
	if err != nil {
		t.Fatal(err)
	}
	if len(handles) != 20*len(kinds) {
		t.Fatalf("%d rules", len(handles))
	}
	all := make([]uint64, len(handles))
	for i, h := range handles {
		all[i] = h.handle
	}
	listing, err := parseNFTListing(l.sh("nft -s -a list chain inet fw long"), "long", all)
	if err != nil {
		t.Fatal(err)
	}
	copied := 0
	for i := range kinds {
		at := 3*len(kinds) + i
		c := evidence.Chain{Family: "inet", Table: "fw", Name: "long", Rules: []evidence.FirewallRule{{Number: 1, Handle: all[0]}, {Number: at + 1, Handle: all[at]}}}
		err := l.excerpt(context.Background(), &c)
		if cannot := slices.ContainsFunc(notCopied, func(k string) bool { return strings.Contains(kinds[i], k) }); cannot != (err != nil) {
			t.Errorf("%s: %v", kinds[i], err)
			continue
		} else if cannot {
			continue
		}
		copied++
		if diff := cmp.Diff([]string{listing.texts[0], listing.texts[at]}, []string{c.Rules[0].Text, c.Rules[1].Text}); diff != "" {
			t.Error(diff)
		}
		if c.Text != listing.declaration {
			t.Errorf("declared as %q, want %q", c.Text, listing.declaration)
		}
	}
	if copied != 7 {
		t.Errorf("%d kinds of rules were copied", copied)
	}
	for i := range 2 * len(kinds) { // whether copied or not, the chain that is handed out is the same
		c := l.chain("inet", "fw", "long", all[i])
		if c.Total != len(all) || c.Unread != "" || c.Text != listing.declaration {
			t.Fatalf("got %+v", c)
		}
		for _, r := range c.Rules {
			if r.Text != listing.texts[r.Number-1] || r.Handle != all[r.Number-1] {
				t.Errorf("rule %d: handle %d, %q, want %d, %q", r.Number, r.Handle, r.Text, all[r.Number-1], listing.texts[r.Number-1])
			}
		}
	}
}

// What was remembered of a long chain is that of its generation.
func TestLongChainIsReadAgain(t *testing.T) {
	need(t, "nft")
	l := newLab(t)
	l.sh("nft -f - <<'X'\ntable inet fw {\nchain long {\n" + strings.Repeat("tcp dport 80 accept\n", wholeChain+1) + "}\n}\nX")
	before, err := l.nftRules(nftFamilies["inet"], "fw", "long")
	if err != nil {
		t.Fatal(err)
	}
	l.sh(fmt.Sprintf("nft insert rule inet fw long position %d tcp dport 81 limit rate 1/second accept", before[100].handle))
	handles, err := l.NFTStateful("inet", "fw", "long")
	if err != nil || len(handles) != 1 {
		t.Fatalf("rules that remember packets: %d, %v", handles, err)
	}
	c := l.chain("inet", "fw", "long", handles...)
	if c.Total != wholeChain+2 || len(c.Rules) != 7 || c.Rules[3].Number != 101 || c.Rules[3].Text != "tcp dport 81 limit rate 1/second accept" {
		t.Errorf("got %+v", c)
	}
}
