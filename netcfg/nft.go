// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"errors"
	"fmt"
	"math"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// sizeofNfgenmsg is the size of struct nfgenmsg (include/uapi/linux/netfilter/nfnetlink.h).
const sizeofNfgenmsg = 4

// nftFamilies are the NFPROTO_ numbers of the nft families.
var nftFamilies = map[string]uint8{"inet": unix.NFPROTO_INET, "ip": unix.NFPROTO_IPV4, "arp": unix.NFPROTO_ARP,
	"netdev": unix.NFPROTO_NETDEV, "bridge": unix.NFPROTO_BRIDGE, "ip6": unix.NFPROTO_IPV6}

func nftMessage(kind uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | kind }

// nftBody is a message to nf_tables with the attributes given as pairs of
// number and text.
func nftBody(family uint8, attrs ...any) []byte {
	b := []byte{family, unix.NFNETLINK_V0, 0, 0}
	for i := 0; i+1 < len(attrs); i += 2 {
		b = putText(b, uint16(attrs[i].(int)), attrs[i+1].(string))
	}
	return b
}

func nftAttributes(msg []byte) []attribute {
	if len(msg) < sizeofNfgenmsg {
		return nil
	}
	return attributes(msg[sizeofNfgenmsg:])
}

// NFTGeneration returns the generation of the nft ruleset of n, which changes
// with every transaction, iptables-nft's included (NFT_MSG_GETGEN). Counters
// and set elements added by packets do not change it.
func (n *Netns) NFTGeneration() (uint32, error) {
	msgs, err := n.request(unix.NETLINK_NETFILTER, nftMessage(unix.NFT_MSG_GETGEN), 0, nftBody(unix.AF_UNSPEC), nftMessage(unix.NFT_MSG_NEWGEN))
	if err != nil {
		return 0, fmt.Errorf("nft generation: %w", err)
	}
	for _, m := range msgs {
		for _, a := range nftAttributes(m) {
			if a.kind == unix.NFTA_GEN_ID {
				return a.be32(), nil
			}
		}
	}
	return 0, errors.New("nft generation: not in the kernel's answer")
}

// nftRule is what counts of one rule: its handle, and its counter if it has one.
type nftRule struct {
	handle, packets, bytes uint64
	stateful               bool
	expressions            []byte // as in the message that it was read from; not kept for long
}

// parseNFTRule reads an NFT_MSG_NEWRULE message. Attribute numbers are those
// of include/uapi/linux/netfilter/nf_tables.h, numbers in network order.
func parseNFTRule(msg []byte) (rule nftRule, chain string) {
	for _, a := range nftAttributes(msg) {
		switch a.kind {
		case unix.NFTA_RULE_HANDLE:
			rule.handle = a.be64()
		case unix.NFTA_RULE_CHAIN:
			chain = a.text()
		case unix.NFTA_RULE_EXPRESSIONS:
			rule.expressions = a.value
			rule.packets, rule.bytes, rule.stateful = ruleExpressions(a.value)
		}
	}
	return rule, chain
}

// ruleExpressions finds the first counter among the expressions of a rule, and whether one of them remembers packets.
func ruleExpressions(expressions []byte) (packets, bytes uint64, stateful bool) {
	counted := false
	for _, element := range attributes(expressions) {
		var name string
		var data []byte
		for _, a := range attributes(element.value) {
			switch a.kind {
			case unix.NFTA_EXPR_NAME:
				name = a.text()
			case unix.NFTA_EXPR_DATA:
				data = a.value
			}
		}
		stateful = stateful || remembers(name, data)
		if name != "counter" || counted {
			continue
		}
		counted = true
		for _, a := range attributes(data) {
			switch a.kind {
			case unix.NFTA_COUNTER_BYTES:
				bytes = a.be64()
			case unix.NFTA_COUNTER_PACKETS:
				packets = a.be64()
			}
		}
	}
	return packets, bytes, stateful
}

// longChain is what nftRules remembers of a chain that takes long to read: the
// kernel goes over it from its head again for each message of a hundred rules
// (nf_tables_dump_rules), so that 100,000 rules take seconds.
type longChain struct {
	generation uint32
	rules      []nftRule // without expressions; counters are those of then
}

// nftRules returns the rules of one chain in order. A long chain is read once in
// each generation of the ruleset: its counters may be older.
func (n *Netns) nftRules(family uint8, table, chain string) ([]nftRule, error) {
	key := fmt.Sprintf("%d %s %s", family, table, chain)
	if known, ok := n.long[key]; ok {
		if now, err := n.NFTGeneration(); err == nil && now == known.generation {
			return known.rules, nil
		}
	}
	var rules []nftRule
	for range dumpTries {
		before, err := n.NFTGeneration()
		if err != nil {
			return nil, err
		}
		rules, err = n.dumpNFTRules(family, table, chain)
		if errors.Is(err, nl.ErrDumpInterrupted) {
			continue
		}
		if err != nil {
			return nil, err
		}
		after, err := n.NFTGeneration()
		if err == nil && before == after && len(rules) > wholeChain {
			if n.long == nil {
				n.long = map[string]longChain{}
			}
			n.long[key] = longChain{after, rules}
		}
		return rules, nil
	}
	return rules, nl.ErrDumpInterrupted
}

// dumpNFTRules reads rule by rule: the messages of 100,000 rules take 60 MB.
func (n *Netns) dumpNFTRules(family uint8, table, chain string) (rules []nftRule, err error) {
	err = n.Do(func() error {
		req := nl.NewNetlinkRequest(int(nftMessage(unix.NFT_MSG_GETRULE)), unix.NLM_F_DUMP)
		req.AddRawData(nftBody(family, unix.NFTA_RULE_TABLE, table, unix.NFTA_RULE_CHAIN, chain))
		return req.ExecuteIter(unix.NETLINK_NETFILTER, nftMessage(unix.NFT_MSG_NEWRULE), func(m []byte) bool {
			// Kernels that cannot filter send the whole table.
			if rule, in := parseNFTRule(m); in == chain {
				rules = append(rules, rule)
			}
			if len(rules) > wholeChain {
				rules[len(rules)-1].expressions = nil
			}
			return true
		})
	})
	return rules, err
}

// nftChain returns the attributes of a chain. The error is ENOENT when it
// does not exist.
func (n *Netns) nftChain(family, table, chain string) (evidence.Chain, error) {
	c := evidence.Chain{Backend: "nft", Family: family, Table: table, Name: chain, Rules: []evidence.FirewallRule{}, Owner: chainOwner(table, chain)}
	number, ok := nftFamilies[family]
	if !ok {
		return c, fmt.Errorf("unknown nft family %q", family)
	}
	body := nftBody(number, unix.NFTA_CHAIN_TABLE, table, unix.NFTA_CHAIN_NAME, chain)
	msgs, err := n.request(unix.NETLINK_NETFILTER, nftMessage(unix.NFT_MSG_GETCHAIN), 0, body, nftMessage(unix.NFT_MSG_NEWCHAIN))
	if err != nil {
		return c, err
	}
	if len(msgs) == 0 {
		return c, unix.ENOENT
	}
	parseNFTChain(msgs[0], number, &c)
	return c, nil
}

// parseNFTChain fills in what an NFT_MSG_NEWCHAIN message says of a base chain.
func parseNFTChain(msg []byte, family uint8, c *evidence.Chain) {
	for _, a := range nftAttributes(msg) {
		switch a.kind {
		case unix.NFTA_CHAIN_TYPE:
			c.Type = a.text()
		case unix.NFTA_CHAIN_POLICY:
			c.Policy = map[uint32]string{0: "drop", 1: "accept"}[a.be32()]
		case unix.NFTA_CHAIN_HOOK:
			c.Base = true
			parseNFTHook(a.value, family, c)
		}
	}
}

func parseNFTHook(b []byte, family uint8, c *evidence.Chain) {
	for _, a := range attributes(b) {
		switch a.kind {
		case unix.NFTA_HOOK_HOOKNUM:
			c.Hook = hookName(family, a.be32())
		case unix.NFTA_HOOK_PRIORITY:
			c.Priority = int(int32(a.be32()))
		case unix.NFTA_HOOK_DEV:
			c.Device = a.text()
		case nftaHookDevs:
			// A list of NFTA_DEVICE_NAME; a single one comes in both forms.
			c.Device = ""
			for i, dev := range attributes(a.value) {
				if i > 0 {
					c.Device += ","
				}
				c.Device += dev.text()
			}
		}
	}
}

// nftaHookDevs is NFTA_HOOK_DEVS (Linux 5.5), which x/sys does not have.
const nftaHookDevs = 4

// hookName names a netfilter hook as this project does. Numbers mean
// different hooks by family (include/uapi/linux/netfilter.h).
func hookName(family uint8, number uint32) string {
	inet := []string{evidence.Prerouting, evidence.Input, evidence.ForwardHook, evidence.Output, evidence.Postrouting, evidence.Ingress}
	switch family {
	case unix.NFPROTO_NETDEV:
		inet = []string{evidence.Ingress, evidence.Egress}
	case unix.NFPROTO_ARP:
		inet = []string{evidence.Input, evidence.Output, evidence.ForwardHook}
	}
	if uint64(number) < uint64(len(inet)) && number < math.MaxInt32 {
		return inet[number]
	}
	return fmt.Sprintf("hook %d", number)
}
