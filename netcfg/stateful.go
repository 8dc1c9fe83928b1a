// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"slices"

	"golang.org/x/sys/unix"
)

// statefulExpressions are those of nf_tables that remember packets. An objref
// is a named limit, quota or counter; a numgen only sometimes remembers.
var statefulExpressions = []string{"limit", "quota", "connlimit", "dynset", "objref", "numgen"}

// NFTStateful returns the handles of a chain's rules that remember packets:
// limits, quotas, counts of connections, sets that packets are added to.
// Unlike [Netns.NFTChain] it runs no program, so that many chains can be asked.
func (n *Netns) NFTStateful(family, table, chain string) (handles []uint64, err error) {
	number, ok := nftFamilies[family]
	if !ok {
		return nil, unix.EAFNOSUPPORT
	}
	rules, err := n.nftRules(number, table, chain)
	for _, r := range rules {
		if r.stateful {
			handles = append(handles, r.handle)
		}
	}
	return handles, err
}

// Stateful returns the numbers of a chain's rules that remember packets.
func (t *LegacyTable) Stateful(chain string) (numbers []int) {
	for _, e := range t.Entries {
		if e.Chain == chain && e.stateful && e.Number > 0 {
			numbers = append(numbers, e.Number)
		}
	}
	return numbers
}

// remembers reports whether an expression of a rule does; matches of x_tables stand in one called "match".
func remembers(name string, data []byte) bool {
	if name != "match" {
		return slices.Contains(statefulExpressions, name)
	}
	for _, a := range attributes(data) {
		if a.kind == unix.NFTA_MATCH_NAME {
			return slices.Contains(statefulMatches, a.text())
		}
	}
	return false
}
