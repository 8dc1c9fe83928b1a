// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"context"
	"fmt"
	"io/fs"
	"slices"

	"github.com/pathtrace/pathtrace/evidence"
)

// LegacyChain takes a chain out of a table that was read: rules and counters
// are the kernel's, the text of a rule is from "iptables-legacy-save -t TABLE"
// (or ip6tables-legacy-save, or iptables-save where that is the legacy one), whose
// n-th "-A CHAIN" line is the n-th rule.
//
// Of a chain with more than 200 rules only those with the given numbers and
// three on either side are kept; Total counts all. Where the tool could not
// say the text, or the table's rules are others by now, Unread says so. The
// error wraps [fs.ErrNotExist] when the table has no such chain.
func (n *Netns) LegacyChain(t *LegacyTable, chain string, numbers []int) (evidence.Chain, error) {
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	total := t.rules(chain)
	wanted := func(number int) bool {
		return total <= wholeChain || slices.ContainsFunc(numbers, func(n int) bool { return max(n-number, number-n) <= neighbours })
	}
	c, err := t.chain(chain, wanted)
	if err != nil {
		return c, err
	}
	saved, err := n.save(ctx, c.Family, "legacy", t.Name, chain, wanted)
	if err != nil {
		c.Unread = err.Error()
		return c, nil
	}
	same, err := n.sameRules(t)
	switch {
	case err != nil:
		c.Unread = err.Error()
	case !same:
		c.Unread = "the table's rules were changed while they were read"
	case saved.total != c.Total || c.Base != (saved.policy != ""):
		c.Unread = fmt.Sprintf("iptables-save lists %d rules where the kernel has %d", saved.total, c.Total)
	default:
		c.Text = saved.policy
		for i := range c.Rules {
			c.Rules[i].Text = saved.rules[c.Rules[i].Number]
		}
	}
	return c, nil
}

// rules counts the rules of a chain.
func (t *LegacyTable) rules(chain string) int {
	n := 0
	for i := range t.Entries {
		if e := &t.Entries[i]; e.Chain == chain && e.Number > 0 {
			n++
		}
	}
	return n
}

// chain takes the wanted rules of one chain out of a table, without texts.
func (t *LegacyTable) chain(name string, wanted func(number int) bool) (evidence.Chain, error) {
	c := evidence.Chain{Backend: "iptables-legacy", Family: "ip", Table: t.Name, Name: name, Rules: []evidence.FirewallRule{},
		Total: t.rules(name), Owner: chainOwner(t.Name, name)}
	if t.Family == 6 {
		c.Family = "ip6"
	}
	found := false
	for i := range t.Entries {
		e := &t.Entries[i]
		if e.Chain != name {
			continue
		}
		found = found || !e.Head || e.Chain != "ERROR"
		switch {
		case e.Policy:
			c.Policy = map[string]string{"ACCEPT": "accept", "DROP": "drop"}[e.Target]
		case e.Number > 0 && wanted(e.Number):
			c.Rules = append(c.Rules, evidence.FirewallRule{Number: e.Number, Packets: e.Packets, Bytes: e.Bytes})
		}
	}
	if !found {
		return c, fmt.Errorf("legacy chain %s of table %s: %w", name, t.Name, fs.ErrNotExist)
	}
	if t.isHook(name) {
		c.Base, c.Hook, c.Priority = true, name, legacyPriority(t.Name, name)
	}
	return c, nil
}

// legacyPriority is where the kernel registers a table's hook (enum
// nf_ip_hook_priorities in include/uapi/linux/netfilter_ipv4.h).
func legacyPriority(table, hook string) int {
	switch table {
	case "raw":
		return -300
	case "mangle":
		return -150
	case "security":
		return 50
	case "nat":
		if hook == evidence.Input || hook == evidence.Postrouting {
			return 100
		}
		return -100
	}
	return 0
}
