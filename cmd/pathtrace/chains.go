// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
)

// ourTable reports whether an nft table is a trace table of ours, of this run or another.
func ourTable(name string) bool { return strings.HasPrefix(name, "pathtrace-") }

// ruleChains reads the chains that decided about our packets in a namespace,
// as the user's own tools print them. Chains that let everything pass are not read.
func (g *gatherer) ruleChains(n *netcfg.Netns, name string, c *evidence.Case) evidence.Section[evidence.Chain] {
	wanted := map[chainKey][]uint64{}
	numbers := map[chainKey][]int{}
	var order []chainKey
	for _, e := range c.Events {
		s := e.Rule
		if e.Netns != name || s == nil || !deciding(s) {
			continue
		}
		k := chainKey{name, s.Backend, s.Family, s.Table, s.Chain}
		if wanted[k] == nil && numbers[k] == nil {
			order = append(order, k)
			wanted[k], numbers[k] = []uint64{}, []int{}
		}
		wanted[k] = append(wanted[k], s.Handle)
		numbers[k] = append(numbers[k], s.Number)
	}
	out := []evidence.Chain{}
	var unread []string
	for _, k := range order {
		chain, ok := g.chains[k]
		if !ok {
			var err error
			if k.backend == "iptables-legacy" {
				chain, err = n.LegacyChain(k.family, k.table, k.chain, numbers[k])
			} else {
				chain, err = n.NFTChain(k.family, k.table, k.chain, wanted[k])
			}
			if err != nil {
				unread = append(unread, fmt.Sprintf("%s %s %s: %v", k.family, k.table, k.chain, err))
				continue
			}
			g.chains[k] = chain
		}
		out = append(out, chain)
	}
	return evidence.Section[evidence.Chain]{Items: out, Unread: strings.Join(unread, "; ")}
}

// deciding reports whether a step may have ended the packet's way.
func deciding(s *evidence.RuleStep) bool {
	switch s.Verdict {
	case "accept", "continue", "jump", "goto", "return":
		return false
	}
	return true
}
