// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
)

const (
	toolTimeout = 10 * time.Second // for the user's own tools, which may print 100,000 rules
	wholeChain  = 200              // longer chains are cut to the rules wanted and their neighbours
	neighbours  = 3                // kept on either side
)

// NFTChain reads a chain of nftables, whoever made it. Order, handles,
// counters and the attributes of a base chain come from the kernel; the text
// of a rule is what the user's own tool prints for it: iptables-nft-save if
// that prints this very chain (then Backend is "iptables-nft"), else
// "nft -s -a list chain". -s leaves the counters out of the text.
//
// Of a chain with more than 200 rules only those with the given handles and
// three on either side are kept, with their true numbers; Total counts all.
// Where no tool could say the text, Unread says why. The error is ENOENT when
// there is no such chain.
func (n *Netns) NFTChain(family, table, chain string, handles []uint64) (evidence.Chain, error) {
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	var c evidence.Chain
	for range dumpTries {
		before, err := n.NFTGeneration()
		if err != nil {
			return c, err
		}
		if c, err = n.readNFTChain(ctx, family, table, chain, handles); err != nil {
			return c, fmt.Errorf("nft chain %s %s %s: %w", family, table, chain, err)
		}
		after, err := n.NFTGeneration()
		if err != nil {
			return c, err
		}
		if before == after {
			trim(&c, func(r evidence.FirewallRule) bool { return slices.Contains(handles, r.Handle) })
			return c, nil
		}
	}
	// Rules and handles come from one generation all the same, and nft's text
	// was matched by handle. What was matched by its place is worth nothing.
	if c.Backend == "iptables-nft" {
		for i := range c.Rules {
			c.Rules[i].Text = ""
		}
		c.Unread = fmt.Sprintf("the ruleset changed each of the %d times it was read", dumpTries)
	}
	trim(&c, func(r evidence.FirewallRule) bool { return slices.Contains(handles, r.Handle) })
	return c, nil
}

func (n *Netns) readNFTChain(ctx context.Context, family, table, chain string, wanted []uint64) (evidence.Chain, error) {
	c, err := n.nftChain(family, table, chain)
	if err != nil {
		return c, err
	}
	rules, err := n.nftRules(nftFamilies[family], table, chain)
	if err != nil {
		return c, err
	}
	c.Total = len(rules)
	if len(rules) > wholeChain {
		short := c
		short.Rules = excerptOf(rules, wanted)
		if n.iptablesTexts(ctx, &short) {
			return short, nil
		}
		if !mayBeOfIptables(family, table) && n.excerpt(ctx, &short) == nil {
			return short, nil
		}
	}
	handles := make([]uint64, len(rules))
	for i, r := range rules {
		handles[i] = r.handle
		c.Rules = append(c.Rules, evidence.FirewallRule{Number: i + 1, Handle: r.handle, Packets: r.packets, Bytes: r.bytes})
	}
	if n.iptablesTexts(ctx, &c) {
		return c, nil
	}
	out, _, err := n.Output(ctx, "nft", "-s", "-a", "list", "chain", family, table, chain)
	if err == nil {
		var listing nftListing
		if listing, err = parseNFTListing(string(out), chain, handles); err == nil {
			c.Text = listing.declaration
			for i := range c.Rules {
				c.Rules[i].Text = listing.texts[i]
			}
		}
	}
	if err != nil {
		c.Unread = err.Error()
	}
	return c, nil
}

// excerptOf keeps of a long chain the wanted rules and their neighbours, as trim does.
func excerptOf(rules []nftRule, wanted []uint64) []evidence.FirewallRule {
	keep, next := []evidence.FirewallRule{}, 0
	for i, r := range rules {
		if !slices.Contains(wanted, r.handle) {
			continue
		}
		for next = max(i-neighbours, next); next < min(i+neighbours+1, len(rules)); next++ {
			keep = append(keep, evidence.FirewallRule{Number: next + 1, Handle: rules[next].handle, Packets: rules[next].packets, Bytes: rules[next].bytes})
		}
	}
	return keep
}

// mayBeOfIptables reports whether a table has the name of one that iptables-nft makes.
func mayBeOfIptables(family, table string) bool {
	return (family == "ip" || family == "ip6") && slices.Contains(iptablesTables(), table)
}

// iptablesTexts gives the chain the words of iptables-nft-save, if that prints
// it. Rules are matched by their place in the chain: iptables knows no handles.
func (n *Netns) iptablesTexts(ctx context.Context, c *evidence.Chain) bool {
	if !mayBeOfIptables(c.Family, c.Table) {
		return false
	}
	wanted := func(number int) bool { return true }
	if len(c.Rules) < c.Total {
		wanted = func(number int) bool {
			return slices.ContainsFunc(c.Rules, func(r evidence.FirewallRule) bool { return r.Number == number })
		}
	}
	saved, err := n.save(ctx, c.Family, "nft", c.Table, c.Name, wanted)
	if err != nil || !saved.found || saved.total != c.Total || c.Base != (saved.policy != "") {
		return false
	}
	c.Backend, c.Text = "iptables-nft", saved.policy
	for i := range c.Rules {
		c.Rules[i].Text = saved.rules[c.Rules[i].Number]
	}
	return true
}

func iptablesTables() []string { return []string{"filter", "nat", "mangle", "raw", "security"} }

// trim keeps of a long chain the wanted rules and their neighbours.
func trim(c *evidence.Chain, wanted func(evidence.FirewallRule) bool) {
	if len(c.Rules) <= wholeChain {
		return
	}
	keep := []evidence.FirewallRule{}
	next := 0 // first rule not looked at for keeping
	for i, r := range c.Rules {
		if !wanted(r) {
			continue
		}
		first, end := max(i-neighbours, next), min(i+neighbours+1, len(c.Rules))
		if first < end {
			keep = append(keep, c.Rules[first:end]...)
			next = end
		}
	}
	c.Rules = keep
}

// chainOwner guesses which program manages a chain, by the names these
// programs give; "" for any other.
func chainOwner(table, chain string) string {
	if table == "firewalld" {
		return "firewalld"
	}
	for _, o := range []struct{ prefix, owner string }{
		{"DOCKER", "docker"}, {"ufw-", "ufw"}, {"ufw6-", "ufw"}, {"KUBE-", "kube"}, {"CILIUM_", "cilium"}, {"OLD_CILIUM_", "cilium"},
		{"cali-", "calico"}, {"f2b-", "fail2ban"}, {"fail2ban-", "fail2ban"}, {"LIBVIRT_", "libvirt"},
		{"CNI-", "cni"}, {"CNI_", "cni"}, {"FLANNEL-", "flannel"}, {"NETAVARK", "podman"}, {"WEAVE", "weave"}, {"ANTREA-", "antrea"},
		{"IN_public", "firewalld"}, {"FWDI_", "firewalld"}, {"FWDO_", "firewalld"}, {"FWD_", "firewalld"}, {"PRE_public", "firewalld"}, {"POST_public", "firewalld"},
	} {
		if strings.HasPrefix(chain, o.prefix) {
			return o.owner
		}
	}
	switch {
	case strings.HasSuffix(chain, "_ZONES"):
		return "firewalld"
	case strings.HasPrefix(table, "f2b-"):
		return "fail2ban"
	case strings.HasPrefix(table, "libvirt_"):
		return "libvirt"
	case strings.HasPrefix(table, "kube-"):
		return "kube"
	case strings.HasPrefix(table, "docker-"):
		return "docker"
	case table == "netavark":
		return "podman"
	case strings.HasPrefix(table, "cni_"):
		return "cni"
	case strings.HasPrefix(table, "pathtrace-"):
		return "pathtrace"
	}
	return ""
}
