// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/bpf"
	"github.com/pathtrace/pathtrace/evidence"
)

// rankKey names a hook of a family in a namespace; the observers there are
// known by their rank, see bpf/netfilter.h.
type rankKey struct {
	netns    uint32
	pf, hook uint8
}

// xtSlot is an x_tables table whose counters are read.
type xtSlot struct {
	family  int
	table   string
	address uint64    // struct xt_table
	blocks  *ebpf.Map // nil while it is looked up
}

// Observe puts observers between the netfilter functions of one IP version in
// the namespace of the calling thread, whose inode number is given: around each
// function that is neither nftables nor BPF, so that it can be told which of
// them dropped, and which rules of an x_tables table did. The observers see
// every packet there for as long as the tracer is open, and change none.
// The second result names what could not be observed.
func (t *Tracer) Observe(inode uint32, version int) (unseen []string, err error) {
	prog := t.coll.Programs[progObserve]
	if prog == nil {
		return nil, ErrNoObservers
	}
	hooks, _, err := t.takeInventory(inode)
	if err != nil {
		return nil, err
	}
	pf := pfOf(version)
	for nr := range uint8(5) {
		var here []nfHook
		for _, h := range hooks {
			if h.pf == pf && h.nr == nr {
				here = append(here, h)
			}
		}
		if len(here) == 0 {
			continue
		}
		ranks, err := t.place(prog, pf, nr, observerPriorities(here))
		if err != nil {
			return unseen, err
		}
		key := rankKey{inode, pf, nr}
		t.mu.Lock()
		t.ranks[key] = ranks
		t.mu.Unlock()
		why, err := t.watchTables(key, here, ranks)
		if err != nil {
			return unseen, err
		}
		unseen = append(unseen, why...)
	}
	return unseen, nil
}

// place attaches observers at the given priorities; one that is taken after all is left out.
func (t *Tracer) place(prog *ebpf.Program, pf, nr uint8, priorities []int) ([]int, error) {
	var ranks []int
	for _, p := range priorities {
		l, err := link.AttachNetfilter(link.NetfilterOptions{
			Program: prog, ProtocolFamily: link.NetfilterProtocolFamily(pf), Hook: link.NetfilterInetHook(nr), Priority: int32(p),
		})
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("observe %s at priority %d: %w", hookName(pf, nr), p, err)
		}
		t.links = append(t.links, l)
		ranks = append(ranks, p)
	}
	return ranks, nil
}

// observerPriorities chooses where to observe: as near as can be before and
// behind every function of the kernel and every x_tables table. An observer
// cannot share a priority (EBUSY), nor take INT_MIN or INT_MAX (ERANGE).
func observerPriorities(hooks []nfHook) []int {
	taken := make(map[int]bool)
	for _, h := range hooks {
		taken[h.Priority] = true
	}
	var out []int
	for _, h := range hooks {
		if h.Type == "nft" || h.Type == "bpf" {
			continue
		}
		for _, step := range []int{-1, 1} {
			p := h.Priority + step
			for taken[p] && p > math.MinInt32 && p < math.MaxInt32 {
				p += step
			}
			if p > math.MinInt32 && p < math.MaxInt32 && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	slices.Sort(out)
	return withoutTwins(out, taken)
}

// withoutTwins drops an observer that has nothing but another observer before it.
func withoutTwins(priorities []int, taken map[int]bool) []int {
	var out []int
	for i, p := range priorities {
		if i > 0 && !between(taken, priorities[i-1], p) {
			continue
		}
		out = append(out, p)
	}
	return out
}

func between(taken map[int]bool, low, high int) bool {
	for p := range taken {
		if low < p && p < high {
			return true
		}
	}
	return false
}

// priority of the observer that wrote a sample. t.mu is held.
func (t *Tracer) priority(s *sample) (int, bool) {
	ranks := t.ranks[rankKey{s.Netns, s.Pf, s.TracepointEvent.Hook}]
	if s.Err < 0 || int(s.Err) >= len(ranks) {
		return 0, false
	}
	return ranks[s.Err], true
}

// watchTables has the counters of the x_tables tables of a hook read from the observer before each of them.
func (t *Tracer) watchTables(key rankKey, hooks []nfHook, ranks []int) (unseen []string, err error) {
	used := map[int]string{}
	for _, h := range hooks {
		if h.Type != "iptables-legacy" {
			continue
		}
		rank := -1
		for i, p := range ranks {
			if p < h.Priority {
				rank = i
			}
		}
		name := fmt.Sprintf("%s table %s in %s", h.Family, h.Table, h.Hook.Hook)
		switch {
		case rank < 0:
			unseen = append(unseen, name+": no room for an observer before it")
			continue
		case used[rank] != "":
			unseen = append(unseen, fmt.Sprintf("%s: it cannot be told apart from %s", name, used[rank]))
			continue
		}
		slot, why, err := t.slot(h)
		if err != nil {
			return unseen, fmt.Errorf("%s: %w", name, err)
		}
		if why != "" {
			unseen = append(unseen, name+": "+why)
			continue
		}
		used[rank] = h.Table
		k := bpf.TracepointXtHook{Netns: key.netns, Pf: key.pf, Hook: key.hook, Rank: uint8(rank)}
		if err := t.coll.Maps["xt_hooks"].Put(k, slot); err != nil {
			return unseen, fmt.Errorf("%s: %w", name, err)
		}
	}
	return unseen, nil
}

// slot makes room for a table's counters and has the kernel find them; it is used by every hook of the table.
func (t *Tracer) slot(h nfHook) (slot uint32, why string, err error) {
	n, err := ebpf.PossibleCPU()
	if err != nil {
		return 0, "", err
	}
	if n == 1 {
		return 0, "with one possible CPU its counters are kept elsewhere", nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	table, slots := t.coll.Maps["xt_blocks"], t.coll.Maps["xt_slots"]
	if slot, err = t.freeSlot(h, slots.MaxEntries()); err != nil {
		return 0, err.Error(), nil
	}
	version := uint64(4)
	if h.pf == pfIPv6 {
		version = 6
	}
	arm := func() (uint32, error) {
		return t.coll.Programs[progArmTable].Run(&ebpf.RunOptions{Context: []uint64{h.priv, uint64(slot), version}})
	}
	blocks, err := arm()
	if err != nil {
		return 0, "", err
	}
	if blocks == 0 {
		return 0, "its rules could not be read", nil
	}
	inner := &ebpf.MapSpec{Name: "xt_counters", Type: ebpf.Array, KeySize: 4, ValueSize: xtBlockSize, MaxEntries: blocks, Flags: unix.BPF_F_INNER_MAP}
	m, err := ebpf.NewMap(inner)
	if err != nil {
		return 0, "", fmt.Errorf("make room for its counters: %w", err)
	}
	t.slots[slot].blocks = m
	if err := table.Put(slot, m); err != nil {
		return 0, "", err
	}
	if got, err := arm(); err != nil {
		return 0, "", err
	} else if got != blocks {
		return 0, "it was replaced while it was looked at", nil
	}
	return slot, "", nil
}

// freeSlot finds the slot of a table that was looked up before, perhaps with other rules, or takes a new one. t.mu is held.
func (t *Tracer) freeSlot(h nfHook, most uint32) (uint32, error) {
	for i, s := range t.slots {
		if s.address != h.priv {
			continue
		}
		err := errors.Join(t.coll.Maps["xt_blocks"].Delete(uint32(i)), s.blocks.Close())
		s.blocks = nil
		return uint32(i), err
	}
	if uint32(len(t.slots)) >= most {
		return 0, fmt.Errorf("more than %d tables", most)
	}
	version := 4
	if h.pf == pfIPv6 {
		version = 6
	}
	t.slots = append(t.slots, &xtSlot{family: version, table: h.Table, address: h.priv})
	return uint32(len(t.slots) - 1), nil
}

// TableChanged reports whether the table that c was counted in has been
// replaced since it was armed: what is read of it now is then another table. It
// reports true also when that cannot be told.
func (t *Tracer) TableChanged(c *Counters) bool {
	var before, after bpf.TracepointXtSlot
	slots := t.coll.Maps["xt_slots"]
	if slots.Lookup(c.slot, &before) != nil {
		return true
	}
	// looking the table up again notes where it is now
	n, err := t.coll.Programs[progArmTable].Run(&ebpf.RunOptions{Context: []uint64{before.Table, uint64(c.slot), uint64(c.Family)}})
	if err != nil || n != before.Blocks || slots.Lookup(c.slot, &after) != nil {
		return true
	}
	if before.Private == after.Private {
		return false
	}
	_ = slots.Put(c.slot, before) // so that it stays changed, however often it is asked
	return true
}

const xtBlockSize = 8 + 4096 // struct xt_block

// Flags of a counters event, bpf/event.h.
const (
	xtForeign    = 2
	xtUnreadable = 4
	xtReplaced   = 8
	xtMore       = 16
)

// counters turns a sample into counters to replay.
func (t *Tracer) counters(s *sample) *Counters {
	c := &Counters{
		Event: evidence.Event{
			At: int64(s.Time), Kind: evidence.RuleVerdict, CPU: int(s.Cpu), Direction: directionName(s.Direction),
			Netns: t.dec.netns(s.Netns), Hook: hookName(s.Pf, s.TracepointEvent.Hook), SKB: fmt.Sprintf("%x", s.Skb),
		},
		Moved: s.moved(),
		slot:  s.Table,
	}
	t.mu.Lock()
	if int(s.Table) < len(t.slots) {
		c.Family, c.Table = t.slots[s.Table].family, t.slots[s.Table].table
	}
	t.mu.Unlock()
	if s.Flags&evResult != 0 {
		c.Result = verdictName(s.Err)
	}
	switch f := s.XtFlags; {
	case c.Table == "":
		c.Trouble = "an unknown table"
	case f&xtUnreadable != 0:
		c.Trouble = "the counters could not be read"
	case f&xtReplaced != 0:
		c.Trouble = "the table was replaced meanwhile"
	case f&xtForeign != 0:
		c.Trouble = "other packets were counted at the same time"
	case f&xtMore != 0:
		c.Trouble = "more rules were counted than one record holds"
	}
	return c
}
