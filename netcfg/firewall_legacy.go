// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/pathtrace/pathtrace/evidence"
)

// allLegacyChains reads the tables of iptables-legacy; family is ip or ip6.
func (n *Netns) allLegacyChains(ctx context.Context, family string) (chains []FirewallChain, failed error) {
	version := map[string]int{"ip": 4, "ip6": 6}[family]
	names, err := n.LegacyTableNames(version)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	slices.SortFunc(names, func(a, b string) int { return slices.Index(legacyOrder, a) - slices.Index(legacyOrder, b) })
	for _, name := range names {
		read, err := n.legacyChains(ctx, family, version, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
		chains = append(chains, read...)
	}
	return chains, failed
}

// legacyOrder is the order in which the tables are asked.
var legacyOrder = []string{"raw", "mangle", "nat", "filter", "security"}

func (n *Netns) legacyChains(ctx context.Context, family string, version int, table string) ([]FirewallChain, error) {
	for range dumpTries {
		t, err := n.LegacyTable(version, table)
		if err != nil {
			return nil, err
		}
		saved := n.saveAll(ctx, family, "legacy", "-t", table)[table]
		same, err := n.sameRules(t)
		if err != nil {
			return nil, err
		}
		if same {
			return t.chains(saved), nil
		}
	}
	return nil, fmt.Errorf("table %s changed each of the %d times it was read", table, dumpTries)
}

// chains takes the whole table apart, with the texts that iptables-save has for it.
func (t *LegacyTable) chains(saved map[string]*savedChain) []FirewallChain {
	var chains []FirewallChain
	at := map[string]int{}
	for _, e := range t.Entries {
		if e.Chain == "" || e.Head && e.Chain == "ERROR" {
			continue
		}
		i, ok := at[e.Chain]
		if !ok {
			i = len(chains)
			at[e.Chain] = i
			chains = append(chains, t.emptyChain(e.Chain))
		}
		c := &chains[i]
		switch {
		case e.Policy:
			c.Policy = map[string]string{"ACCEPT": "accept", "DROP": "drop"}[e.Target]
			c.Counts, c.Packets, c.Bytes = true, e.Packets, e.Bytes
		case e.Number > 0:
			c.Total++
			c.Rules = append(c.Rules, evidence.FirewallRule{Number: e.Number, Packets: e.Packets, Bytes: e.Bytes})
		}
	}
	for i := range chains {
		c := &chains[i].Chain
		switch s := saved[c.Name]; {
		case s == nil || len(s.rules) != c.Total || c.Base != (s.policy != ""):
			c.Unread = "iptables-legacy-save does not list it, or is not installed"
		default:
			setTexts(c, s.policy, s.rules)
		}
	}
	return chains
}

func (t *LegacyTable) emptyChain(name string) FirewallChain {
	c := evidence.Chain{Backend: "iptables-legacy", Family: "ip", Table: t.Name, Name: name, Rules: []evidence.FirewallRule{}, Owner: chainOwner(t.Name, name)}
	if t.Family == 6 {
		c.Family = "ip6"
	}
	if t.isHook(name) {
		c.Base, c.Hook, c.Priority = true, name, legacyPriority(t.Name, name)
	}
	return FirewallChain{Chain: c}
}
