// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket options of include/uapi/linux/netfilter_ipv4/ip_tables.h, which
// ip6_tables.h has with the same numbers.
const (
	iptGetInfo    = 64
	iptGetEntries = 65
)

// LegacyTable is a table of iptables-legacy as the kernel hands it out: the
// layout in the kernel is the same, only the counters lie elsewhere.
type LegacyTable struct {
	Family    int    // 4 or 6
	Name      string // filter, nat, mangle, raw or security
	Size      uint32 // of all entries in bytes, as in struct xt_table_info
	Entries   []LegacyEntry
	HookEntry map[string]int // index of a hook's first entry, for the hooks the table has
	Underflow map[string]int // index of a hook's policy

	shape uint64 // of all but the counters: another reading with the same is of the same rules
}

// LegacyEntry is one entry of a table. Every entry has a counter, also
// policies, the heads and the implicit ends of user chains; an entry's index
// is its place in the kernel's order of counters.
type LegacyEntry struct {
	Offset  uint32 // in bytes from the first entry
	Size    uint32
	Chain   string
	Number  int    // from 1 within Chain, as iptables --line-numbers counts; 0 for what is not a rule
	Policy  bool   // of a base chain
	Head    bool   // of a user chain, or the end of the table
	End     bool   // the implicit return at the end of a user chain
	Target  string // ACCEPT, DROP, QUEUE, RETURN, a chain, an extension such as REJECT; "" for a rule without
	Jump    int    // index of the entry that is jumped to; -1 if this is not a jump
	Goto    bool   // of a jump: it does not come back here
	Packets uint64 // summed over all CPUs
	Bytes   uint64

	stateful bool // a match or the target remembers packets
	standard bool // the verdict is in the entry, no target function is called
}

// LegacyTableNames returns the tables of iptables-legacy that exist in n, for
// family 4 or 6. A kernel without the module has none.
func (n *Netns) LegacyTableNames(family int) ([]string, error) {
	// thread-self: /proc/net leads to the namespace of the main thread.
	path := "/proc/thread-self/net/ip_tables_names"
	if family == 6 {
		path = "/proc/thread-self/net/ip6_tables_names"
	}
	var text []byte
	err := n.Do(func() (err error) {
		text, err = os.ReadFile(path)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return []string{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("legacy tables: %w", err)
	}
	return strings.Fields(string(text)), nil
}

// LegacyTable reads a table of iptables-legacy by getsockopt(2). It needs
// CAP_NET_ADMIN in n. A table that does not exist is not asked for, because
// the question would create it: the error wraps [fs.ErrNotExist].
func (n *Netns) LegacyTable(family int, name string) (*LegacyTable, error) {
	what := fmt.Sprintf("legacy table %s of ipv%d", name, family)
	if strconv.IntSize != 64 {
		return nil, fmt.Errorf("%s: its form on 32-bit systems is not known", what)
	}
	exist, err := n.LegacyTableNames(family)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(exist, name) {
		return nil, fmt.Errorf("%s: %w", what, fs.ErrNotExist)
	}
	var t *LegacyTable
	err = n.legacyBlob(family, name, func(info, entries []byte) (err error) {
		t, err = parseLegacyTable(family, info, entries)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return t, nil
}

// sameRules reports whether the table still has the rules of t.
func (n *Netns) sameRules(t *LegacyTable) (same bool, err error) {
	err = n.legacyBlob(t.Family, t.Name, func(_, entries []byte) error {
		shape, err := legacyShape(t.Family, entries)
		same = shape == t.shape
		return err
	})
	if err != nil {
		return false, fmt.Errorf("legacy table %s of ipv%d: %w", t.Name, t.Family, err)
	}
	return same, nil
}

// legacyBlob reads a table for use, which may keep nothing of it.
func (n *Netns) legacyBlob(family int, name string, use func(info, entries []byte) error) error {
	return n.Do(func() error { return readLegacyBlob(family, name, use) })
}

// readLegacyBlob fetches struct ipt_getinfo and the entries behind struct
// ipt_get_entries in the namespace of the calling thread. 100,000 rules are 20
// MB: they are mapped, and gone when use returns.
func readLegacyBlob(family int, name string, use func(info, entries []byte) error) error {
	domain, level := unix.AF_INET, unix.IPPROTO_IP
	if family == 6 {
		domain, level = unix.AF_INET6, unix.IPPROTO_IPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for range dumpTries {
		if again, err := readLegacyOnce(fd, level, name, use); !again {
			return err
		}
	}
	return fmt.Errorf("changed each of the %d times it was read", dumpTries)
}

func readLegacyOnce(fd, level int, name string, use func(info, entries []byte) error) (again bool, err error) {
	info := make([]byte, sizeofLegacyInfo)
	copy(info[:tableNameLen-1], name)
	if err := getsockopt(fd, level, iptGetInfo, info); err != nil {
		return false, err
	}
	size := binary.NativeEndian.Uint32(info[offsetofLegacySize:])
	entries, err := unix.Mmap(-1, 0, sizeofLegacyEntriesHead+int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return false, fmt.Errorf("room for %d bytes: %w", size, err)
	}
	defer unix.Munmap(entries)
	copy(entries[:tableNameLen-1], name)
	binary.NativeEndian.PutUint32(entries[tableNameLen:], size)
	// EAGAIN: replaced since by one of another size. One of the same size
	// would slip through: is it still the same?
	if err := getsockopt(fd, level, iptGetEntries, entries); err != nil {
		return errors.Is(err, unix.EAGAIN), err
	}
	now := slices.Clone(info)
	clear(now[tableNameLen:])
	if err := getsockopt(fd, level, iptGetInfo, now); err != nil || !bytes.Equal(now, info) {
		return err == nil, err
	}
	return false, use(info, entries[sizeofLegacyEntriesHead:])
}

func getsockopt(fd, level, option int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
