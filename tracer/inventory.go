// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/pathtrace/pathtrace/evidence"
)

// nfHook is a function registered with netfilter in some namespace.
type nfHook struct {
	evidence.Hook
	netns  uint32
	pf, nr uint8
	priv   uint64 // struct nft_chain or xt_table
	count  int    // in a summary record: hooks of the namespace
}

func newNFHook(s *sample) nfHook {
	fn, table, chain := s.kernelStrings()
	h := nfHook{
		netns: s.Netns, pf: s.Pf, nr: s.TracepointEvent.Hook, priv: s.Skb, count: int(s.Length),
		Hook: evidence.Hook{
			Family: familyName(s.Pf), Hook: hookName(s.Pf, s.TracepointEvent.Hook), Device: cstring(s.Device[:]),
			Priority: int(s.Err), Function: fn, Type: "kernel", Table: table, Chain: chain,
		},
	}
	if s.Flags&evNested != 0 {
		h.NAT = true
	}
	switch {
	case strings.HasPrefix(fn, "nft_do_chain"), strings.HasPrefix(fn, "nft_nat_do_chain"), strings.HasPrefix(fn, "nf_route_table_"): // the last: of type route
		h.Type, h.NFFamily = "nft", familyName(s.Family)
	case table != "": // x_tables: ipt_do_table, or mangle's wrapper around it
		h.Type, h.Chain = "iptables-legacy", h.Hook.Hook
	case fn == "nf_hook_run_bpf":
		h.Type = "bpf"
	}
	return h
}

// Hooked walks the kernel's own list of namespaces. It returns the inode
// numbers of those that have netfilter hooks, entered or not, and that of the
// initial one.
func (t *Tracer) Hooked() (inodes []uint32, initial uint32, err error) {
	records, initial, err := t.takeInventory(0)
	if err != nil {
		return nil, 0, err
	}
	for _, r := range records {
		inodes = append(inodes, r.netns)
	}
	return inodes, initial, nil
}

// Hooks returns the functions registered with netfilter in a namespace, in
// calling order. Observers of this tracer have "pathtrace" for their Table.
func (t *Tracer) Hooks(inode uint32) ([]evidence.Hook, error) {
	records, _, err := t.takeInventory(inode)
	if err != nil {
		return nil, err
	}
	hooks := make([]evidence.Hook, 0, len(records))
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range records {
		if r.Type == "bpf" && slices.Contains(t.ranks[rankKey{inode, r.pf, r.nr}], r.Priority) {
			r.Table = "pathtrace" // a priority with an observer has nothing else (EBUSY)
		}
		hooks = append(hooks, r.Hook)
	}
	return hooks, nil
}

// takeInventory runs the program that walks net->nf. Our own observers are left out.
func (t *Tracer) takeInventory(inode uint32) (hooks []nfHook, returned uint32, err error) {
	before := t.Lost()
	t.mu.Lock()
	t.inventory = nil
	t.mu.Unlock()
	if returned, err = t.coll.Programs[progInventory].Run(&ebpf.RunOptions{Context: []uint64{uint64(inode), 0}}); err != nil {
		return nil, 0, fmt.Errorf("list netfilter hooks: %w", err)
	}
	if err := t.Flush(); err != nil {
		return nil, 0, err
	}
	if now := t.Lost(); now != before {
		return nil, 0, fmt.Errorf("list netfilter hooks: %d records were lost", now-before)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.inventory), returned, t.failed
}
