// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/pathtrace/pathtrace/evidence"
)

// Layout on 64-bit kernels, in bytes: struct ipt_getinfo, struct
// ipt_get_entries, struct xt_entry_target.
const (
	tableNameLen            = 32
	offsetofHookEntry       = 36
	offsetofUnderflow       = 56
	offsetofLegacyNumber    = 76
	offsetofLegacySize      = 80
	sizeofLegacyInfo        = 84
	sizeofLegacyEntriesHead = 40
	sizeofTargetHead        = 32
)

// Verdicts of standard targets: -NF_verdict-1, and RETURN in the place of
// NF_REPEAT (include/uapi/linux/netfilter/x_tables.h).
const (
	verdictDrop   = -1
	verdictAccept = -2
	verdictQueue  = -4
	verdictReturn = -5
)

// legacyLayout is where things are in struct ipt_entry or struct ip6t_entry.
type legacyLayout struct {
	flags, gotoFlag                         int // of struct ipt_ip; IPT_F_GOTO
	targetOffset, nextOffset, counter, size int
}

func layoutOf(family int) legacyLayout {
	if family == 6 {
		return legacyLayout{flags: 131, gotoFlag: 0x04, targetOffset: 140, nextOffset: 142, counter: 152, size: 168}
	}
	return legacyLayout{flags: 82, gotoFlag: 0x02, targetOffset: 88, nextOffset: 90, counter: 96, size: 112}
}

// legacyHooks are the hooks in the order of NF_INET_*.
func legacyHooks() []string {
	return []string{evidence.Prerouting, evidence.Input, evidence.ForwardHook, evidence.Output, evidence.Postrouting}
}

// parseLegacyTable reads a table from what getsockopt gave: struct
// ipt_getinfo, and the entries alone.
func parseLegacyTable(family int, info, blob []byte) (*LegacyTable, error) {
	if len(info) < sizeofLegacyInfo {
		return nil, fmt.Errorf("table header of %d bytes", len(info))
	}
	t := &LegacyTable{Family: family, Name: text(info[:tableNameLen]), Size: uint32(len(blob)), HookEntry: map[string]int{}, Underflow: map[string]int{}}
	number := binary.NativeEndian.Uint32(info[offsetofLegacyNumber:])
	room := min(int(number), len(blob)/layoutOf(family).size)
	t.Entries = make([]LegacyEntry, 0, room)
	jumps := make([]int32, 0, room) // where the entry jumps, in bytes, or its verdict
	var err error
	if t.shape, err = eachLegacyEntry(family, blob, func(e LegacyEntry, verdict int32) {
		t.Entries, jumps = append(t.Entries, e), append(jumps, verdict)
	}); err != nil {
		return nil, err
	}
	if uint32(len(t.Entries)) != number {
		return nil, fmt.Errorf("%d entries where the kernel says %d", len(t.Entries), number)
	}
	valid := binary.NativeEndian.Uint32(info[tableNameLen:])
	for i, hook := range legacyHooks() {
		if valid&(1<<i) == 0 {
			continue
		}
		entry, ok := t.at(binary.NativeEndian.Uint32(info[offsetofHookEntry+4*i:]))
		policy, okToo := t.at(binary.NativeEndian.Uint32(info[offsetofUnderflow+4*i:]))
		if !ok || !okToo || policy < entry {
			return nil, fmt.Errorf("the chain of %s does not begin and end with entries", hook)
		}
		t.HookEntry[hook], t.Underflow[hook] = entry, policy
	}
	if err := t.nameChains(jumps); err != nil {
		return nil, err
	}
	return t, t.resolveJumps(jumps)
}

// eachLegacyEntry goes over the entries of a table. The shape that it returns is another when anything but the counters is.
func eachLegacyEntry(family int, blob []byte, each func(e LegacyEntry, verdict int32)) (shape uint64, err error) {
	var h maphash.Hash
	h.SetSeed(legacySeed)
	for offset := 0; offset < len(blob); {
		e, verdict, err := parseLegacyEntry(family, blob[offset:])
		if err != nil {
			return 0, fmt.Errorf("entry at byte %d: %w", offset, err)
		}
		e.Offset = uint32(offset)
		each(e, verdict)
		var numbers [9]byte
		binary.NativeEndian.PutUint32(numbers[:], e.Size)
		binary.NativeEndian.PutUint32(numbers[4:], uint32(verdict))
		if e.Goto {
			numbers[8] = 1
		}
		h.Write(numbers[:])
		for _, s := range []string{e.Target, e.Chain} {
			h.WriteString(s)
			h.WriteByte(0)
		}
		l := layoutOf(family)
		h.Write(blob[offset : offset+l.nextOffset+2]) // addresses and devices; what follows is the kernel's own
		offset += int(e.Size)
	}
	return h.Sum64(), nil
}

var legacySeed = maphash.MakeSeed()

func legacyShape(family int, blob []byte) (uint64, error) {
	return eachLegacyEntry(family, blob, func(LegacyEntry, int32) {})
}

// at returns the index of the entry that begins at an offset.
func (t *LegacyTable) at(offset uint32) (int, bool) {
	return slices.BinarySearchFunc(t.Entries, offset, func(e LegacyEntry, o uint32) int { return cmp.Compare(e.Offset, o) })
}

// parseLegacyEntry reads one struct ipt_entry or ip6t_entry with its target.
// The verdict is that of a standard target: an offset, or a negative verdict.
func parseLegacyEntry(family int, b []byte) (e LegacyEntry, verdict int32, err error) {
	l := layoutOf(family)
	if len(b) < l.size {
		return e, 0, errors.New("cut short")
	}
	target := int(binary.NativeEndian.Uint16(b[l.targetOffset:]))
	next := int(binary.NativeEndian.Uint16(b[l.nextOffset:]))
	if target < l.size || next < target+sizeofTargetHead || next > len(b) || next%8 != 0 {
		return e, 0, fmt.Errorf("target at %d of %d bytes", target, next)
	}
	e = LegacyEntry{Size: uint32(next), Jump: -1, Goto: int(b[l.flags])&l.gotoFlag != 0,
		Packets: binary.NativeEndian.Uint64(b[l.counter:]), Bytes: binary.NativeEndian.Uint64(b[l.counter+8:])}
	// struct xt_entry_target: two bytes of size, the name, a byte of revision;
	// behind it the verdict of a standard target, or the name of a chain.
	e.Target = text(b[target+2 : target+sizeofTargetHead-1])
	e.stateful = e.Target == "SET" || keepsState(b[l.size:target])
	data := b[target+sizeofTargetHead : next]
	switch e.Target {
	case "":
		if len(data) < 4 {
			return e, 0, errors.New("no verdict")
		}
		e.standard, verdict = true, int32(binary.NativeEndian.Uint32(data))
	case "ERROR":
		e.Head = true
		e.Chain = text(data)
	}
	return e, verdict, nil
}

// text is a string up to its zero byte, if it has one.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// statefulMatches are the extensions of x_tables that remember packets.
var statefulMatches = []string{"limit", "hashlimit", "recent", "connlimit", "quota", "statistic"}

// keepsState reports whether one of an entry's matches does. struct
// xt_entry_match: two bytes of size, the name, a byte of revision, then its data.
func keepsState(matches []byte) bool {
	for len(matches) >= sizeofTargetHead {
		size := int(binary.NativeEndian.Uint16(matches))
		if size < sizeofTargetHead || size > len(matches) {
			return false
		}
		if slices.Contains(statefulMatches, text(matches[2:sizeofTargetHead-1])) {
			return true
		}
		matches = matches[size:]
	}
	return false
}

// nameChains says of each entry in which chain it is, and numbers the rules.
func (t *LegacyTable) nameChains(jumps []int32) error {
	starts, policies := map[int]string{}, map[int]bool{}
	for hook, i := range t.HookEntry {
		starts[i] = hook
		policies[t.Underflow[hook]] = true
	}
	chain, number := "", 0
	for i := range t.Entries {
		e := &t.Entries[i]
		if hook, ok := starts[i]; ok {
			chain, number = hook, 0
		}
		if e.Head {
			chain, number = e.Chain, 0
			continue
		}
		if chain == "" {
			return fmt.Errorf("entry %d belongs to no chain", i)
		}
		e.Chain = chain
		switch {
		case policies[i]:
			e.Policy = true
		case jumps[i] == verdictReturn && e.standard && !t.isHook(chain) && i+1 < len(t.Entries) && t.Entries[i+1].Head:
			e.End = true
		default:
			number++
			e.Number = number
		}
	}
	return nil
}

func (t *LegacyTable) isHook(chain string) bool {
	_, ok := t.HookEntry[chain]
	return ok
}

// resolveJumps gives the standard targets their names.
func (t *LegacyTable) resolveJumps(jumps []int32) error {
	for i := range t.Entries {
		e, verdict := &t.Entries[i], jumps[i]
		if !e.standard {
			continue
		}
		if verdict < 0 {
			switch verdict {
			case verdictDrop:
				e.Target = "DROP"
			case verdictAccept:
				e.Target = "ACCEPT"
			case verdictQueue:
				e.Target = "QUEUE"
			case verdictReturn:
				e.Target = "RETURN"
			default:
				return fmt.Errorf("entry %d has the verdict %d", i, verdict)
			}
			continue
		}
		to, ok := t.at(uint32(verdict))
		if !ok {
			return fmt.Errorf("entry %d jumps to byte %d, where no entry begins", i, verdict)
		}
		if to == i+1 && !e.Goto {
			continue // a rule without target: on to the next entry
		}
		if to == 0 || !t.Entries[to-1].Head {
			return fmt.Errorf("entry %d jumps to entry %d, which begins no chain", i, to)
		}
		e.Jump, e.Target = to, t.Entries[to].Chain
		if t.Entries[to].Head {
			return fmt.Errorf("entry %d jumps to the head of a chain", i)
		}
	}
	return nil
}
