// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// Firewall is every chain of nftables and iptables in a namespace, with all its rules.
type Firewall struct {
	Chains []FirewallChain // of nftables in the kernel's order, then of iptables-legacy
	Unread []string        // what could not be read, and why
}

// FirewallChain is one chain. Base chains of iptables count what comes to their policy.
type FirewallChain struct {
	evidence.Chain
	Counts  bool   // packets that come to the policy
	Packets uint64 // that did
	Bytes   uint64
}

// Firewall reads the whole ruleset of n: order, handles and counters from the
// kernel, the text of rules from the user's own tools, each run once.
func (n *Netns) Firewall(ctx context.Context) Firewall {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	var f Firewall
	chains, err := n.allNFTChains(ctx)
	if err != nil {
		f.Unread = append(f.Unread, "nftables: "+err.Error())
	}
	f.Chains = chains
	for _, family := range []string{"ip", "ip6"} {
		chains, err := n.allLegacyChains(ctx, family)
		if err != nil {
			f.Unread = append(f.Unread, fmt.Sprintf("iptables-legacy, %s: %v", family, err))
		}
		f.Chains = append(f.Chains, chains...)
	}
	return f
}

// nftChainKey identifies a chain of nftables.
type nftChainKey struct{ family, table, chain string }

// allNFTChains reads until the ruleset holds still meanwhile.
func (n *Netns) allNFTChains(ctx context.Context) (chains []FirewallChain, err error) {
	for range dumpTries {
		before, err := n.NFTGeneration()
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil, nil // no nf_tables
		}
		if err != nil {
			return nil, err
		}
		if chains, err = n.dumpNFTChains(); err != nil {
			return chains, err
		}
		n.nftTexts(ctx, chains)
		after, err := n.NFTGeneration()
		if err != nil || before == after {
			return chains, err
		}
	}
	return chains, fmt.Errorf("the ruleset changed each of the %d times it was read", dumpTries)
}

// dumpNFTChains reads chains and rules of all families, without texts.
func (n *Netns) dumpNFTChains() ([]FirewallChain, error) {
	msgs, err := n.dump(unix.NETLINK_NETFILTER, nftMessage(unix.NFT_MSG_GETCHAIN), nftBody(unix.NFPROTO_UNSPEC), nftMessage(unix.NFT_MSG_NEWCHAIN))
	if err != nil {
		return nil, err
	}
	var chains []FirewallChain
	at := map[nftChainKey]int{}
	for _, m := range msgs {
		if c := parseFirewallChain(m); c.Family != "" {
			at[nftChainKey{c.Family, c.Table, c.Name}] = len(chains)
			chains = append(chains, c)
		}
	}
	msgs, err = n.dump(unix.NETLINK_NETFILTER, nftMessage(unix.NFT_MSG_GETRULE), nftBody(unix.NFPROTO_UNSPEC), nftMessage(unix.NFT_MSG_NEWRULE))
	if err != nil {
		return chains, err
	}
	for _, m := range msgs {
		rule, chain := parseNFTRule(m)
		i, ok := at[nftChainKey{familyOf(m), tableOf(m, unix.NFTA_RULE_TABLE), chain}]
		if !ok {
			continue // made since
		}
		c := &chains[i]
		c.Total++
		c.Rules = append(c.Rules, evidence.FirewallRule{Number: c.Total, Handle: rule.handle, Packets: rule.packets, Bytes: rule.bytes})
	}
	return chains, nil
}

// familyOf names the family in the head of a message; "" for one that is not known.
func familyOf(msg []byte) string {
	for name, number := range nftFamilies {
		if len(msg) > 0 && msg[0] == number {
			return name
		}
	}
	return ""
}

func tableOf(msg []byte, kind uint16) string {
	for _, a := range nftAttributes(msg) {
		if a.kind == kind {
			return a.text()
		}
	}
	return ""
}

func parseFirewallChain(msg []byte) FirewallChain {
	c := FirewallChain{Chain: evidence.Chain{Backend: "nft", Family: familyOf(msg), Table: tableOf(msg, unix.NFTA_CHAIN_TABLE),
		Name: tableOf(msg, unix.NFTA_CHAIN_NAME), Rules: []evidence.FirewallRule{}}}
	c.Owner = chainOwner(c.Table, c.Name)
	if c.Family == "" {
		return c
	}
	parseNFTChain(msg, nftFamilies[c.Family], &c.Chain)
	for _, a := range nftAttributes(msg) {
		if a.kind != unix.NFTA_CHAIN_COUNTERS {
			continue
		}
		c.Counts = true
		for _, x := range attributes(a.value) {
			switch x.kind {
			case unix.NFTA_COUNTER_BYTES:
				c.Bytes = x.be64()
			case unix.NFTA_COUNTER_PACKETS:
				c.Packets = x.be64()
			}
		}
	}
	return c
}

// nftTexts gives every rule the words of iptables-nft-save if that prints its chain, else those of nft.
func (n *Netns) nftTexts(ctx context.Context, chains []FirewallChain) {
	isTable := func(c *evidence.Chain) bool {
		return (c.Family == "ip" || c.Family == "ip6") && slices.Contains(iptablesTables(), c.Table)
	}
	list := sync.OnceValues(func() (map[nftChainKey]string, error) {
		out, _, err := n.Output(ctx, "nft", "-s", "-a", "list", "ruleset")
		return splitRuleset(string(out)), err
	})
	if slices.ContainsFunc(chains, func(c FirewallChain) bool { return !isTable(&c.Chain) }) {
		go list() // is needed: both tools take long with a long ruleset
	}
	saved := map[string]map[string]map[string]*savedChain{}
	for i := range chains {
		c := &chains[i].Chain
		if isTable(c) {
			if _, asked := saved[c.Family]; !asked {
				saved[c.Family] = n.saveAll(ctx, c.Family, "nft") // nil: not installed
			}
			if s := saved[c.Family][c.Table][c.Name]; s != nil && len(s.rules) == len(c.Rules) && c.Base == (s.policy != "") {
				c.Backend = "iptables-nft"
				setTexts(c, s.policy, s.rules)
				continue
			}
		}
		listed, err := list()
		if err == nil {
			err = listTexts(c, listed[nftChainKey{c.Family, c.Table, c.Name}])
		}
		if err != nil {
			c.Unread = err.Error()
		}
	}
}

// setTexts gives a chain its declaration and its rules their texts, one each.
func setTexts(c *evidence.Chain, declaration string, rules []string) {
	c.Text = declaration
	for i := range c.Rules {
		c.Rules[i].Text = rules[i]
	}
}

// listTexts takes the texts from a chain's part of what nft has listed.
func listTexts(c *evidence.Chain, listing string) error {
	handles := make([]uint64, len(c.Rules))
	for i, r := range c.Rules {
		handles[i] = r.Handle
	}
	l, err := parseNFTListing(listing, c.Name, handles)
	if err == nil {
		setTexts(c, l.declaration, l.texts)
	}
	return err
}

// splitRuleset cuts what "nft list ruleset" printed into its chains, each as "nft list chain" prints it.
func splitRuleset(out string) map[nftChainKey]string {
	chains := map[nftChainKey]string{}
	var at nftChainKey
	var text strings.Builder
	flush := func() {
		if at.chain != "" {
			chains[at] = text.String()
		}
		at.chain = ""
		text.Reset()
	}
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "table ") && len(words) >= 4:
			flush()
			at = nftChainKey{family: words[1], table: strings.Trim(words[2], `"`)}
		case strings.HasPrefix(line, "\tchain ") && len(words) >= 3:
			flush()
			at.chain = strings.Trim(words[1], `"`)
			text.WriteString(line)
		case strings.HasPrefix(line, "\t}"), strings.HasPrefix(line, "}"):
			text.WriteString(line)
			flush()
		default:
			text.WriteString(line)
		}
	}
	return chains
}

// savedChain is one chain as iptables-save prints it.
type savedChain struct {
	policy string   // "-P INPUT DROP"; empty for a chain of the user
	rules  []string // the lines "-A CHAIN …", in order
}

// saveAll runs iptables-save and reads every chain of every table that it prints; nil when it cannot be run.
func (n *Netns) saveAll(ctx context.Context, family, backend string, arg ...string) map[string]map[string]*savedChain {
	tool, err := n.saveTool(ctx, family, backend)
	if err != nil {
		return nil
	}
	out, _, err := n.Output(ctx, tool, arg...)
	if err != nil {
		return nil
	}
	return parseSaves(string(out))
}

// parseSaves reads tables and chains of what iptables-save printed.
func parseSaves(out string) map[string]map[string]*savedChain {
	tables := map[string]map[string]*savedChain{}
	var table map[string]*savedChain
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "*"):
			table = map[string]*savedChain{}
			tables[line[1:]] = table
		case table == nil:
		case strings.HasPrefix(line, ":"):
			name, rest, _ := strings.Cut(line[1:], " ")
			s := &savedChain{}
			if policy, _, _ := strings.Cut(rest, " "); policy != "-" {
				s.policy = "-P " + name + " " + policy
			}
			table[name] = s
		case strings.HasPrefix(line, "-A "):
			name, _, _ := strings.Cut(line[3:], " ")
			if s := table[name]; s != nil {
				s.rules = append(s.rules, line)
			}
		}
	}
	return tables
}
