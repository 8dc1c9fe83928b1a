// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

func (l lab) legacyTable(family int, name string) *LegacyTable {
	l.t.Helper()
	table, err := l.LegacyTable(family, name)
	if err != nil {
		l.t.Fatal(err)
	}
	return table
}

// A question must not create the table.
func TestLegacyNotThere(t *testing.T) {
	need(t, "iptables-legacy")
	l := newLab(t)
	for _, family := range []int{4, 6} {
		if _, err := l.LegacyTable(family, "filter"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a table that is none: %v", err)
		}
	}
	for _, family := range []int{4, 6} {
		if names, err := l.LegacyTableNames(family); err != nil || len(names) != 0 {
			t.Errorf("ipv%d has now the tables %q (%v)", family, names, err)
		}
	}
}

func TestLegacyTable(t *testing.T) {
	need(t, "iptables-legacy")
	l := newLab(t)
	l.sh(`iptables-legacy -P FORWARD DROP
iptables-legacy -N web; iptables-legacy -N empty
iptables-legacy -A INPUT -p tcp --dport 80 -j web
iptables-legacy -A INPUT -p udp -g web
iptables-legacy -A INPUT -p icmp
iptables-legacy -A web -s 10.0.0.0/8 -j RETURN
iptables-legacy -A web -j LOG --log-prefix "x "
iptables-legacy -A web -j REJECT
iptables-legacy -A web -j ACCEPT
iptables-legacy -A OUTPUT -j DROP`)
	if names, err := l.LegacyTableNames(4); err != nil || !slices.Equal(names, []string{"filter"}) {
		t.Errorf("tables %q (%v)", names, err)
	}
	table := l.legacyTable(4, "filter")
	var got []string
	for i, e := range table.Entries {
		switch {
		case e.Head:
			got = append(got, "head "+e.Chain)
			continue
		case e.Policy:
			got = append(got, fmt.Sprintf("%s policy %s", e.Chain, e.Target))
			continue
		case e.End:
			got = append(got, e.Chain+" end")
			continue
		}
		s := fmt.Sprintf("%s %d %q", e.Chain, e.Number, e.Target)
		if e.Jump >= 0 {
			s += fmt.Sprintf(" jump=%s/%d", table.Entries[e.Jump].Chain, table.Entries[e.Jump].Number)
		}
		if e.Goto {
			s += " goto"
		}
		if i > 0 && e.Offset != table.Entries[i-1].Offset+table.Entries[i-1].Size {
			t.Errorf("entry %d is at %d", i, e.Offset)
		}
		got = append(got, s)
	}
	want := []string{`INPUT 1 "web" jump=web/1`, `INPUT 2 "web" jump=web/1 goto`, `INPUT 3 ""`, "INPUT policy ACCEPT", "FORWARD policy DROP",
		`OUTPUT 1 "DROP"`, "OUTPUT policy ACCEPT", "head empty", "empty end", "head web", `web 1 "RETURN"`, `web 2 "LOG"`, `web 3 "REJECT"`, `web 4 "ACCEPT"`, "web end", "head ERROR"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if table.HookEntry["INPUT"] != 0 || table.Underflow["INPUT"] != 3 || table.HookEntry["FORWARD"] != 4 || table.Underflow["FORWARD"] != 4 || len(table.HookEntry) != 3 {
		t.Errorf("hooks %v, %v", table.HookEntry, table.Underflow)
	}
}

func TestLegacyChain(t *testing.T) {
	need(t, "iptables-legacy", "ip6tables-legacy")
	l := newLab(t)
	l.sh(`iptables-legacy -P INPUT DROP; iptables-legacy -N f2b-sshd; iptables-legacy -N none
iptables-legacy -A INPUT -p tcp --dport 22 -j f2b-sshd
iptables-legacy -A INPUT -p udp --dport 9 -m comment --comment "-A INPUT # no" -j DROP
iptables-legacy -A f2b-sshd -s 1.2.3.4 -j REJECT
iptables-legacy -t mangle -A PREROUTING -p udp -j MARK --set-mark 7
ip6tables-legacy -A INPUT -p tcp --dport 80 -j DROP`)
	l.send("127.0.0.1:9")
	get := func(family int, table, name string) evidence.Chain {
		t.Helper()
		c, err := l.LegacyChain(l.legacyTable(family, table), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := get(4, "filter", "INPUT")
	if c.Backend != "iptables-legacy" || !c.Base || c.Hook != "INPUT" || c.Policy != "drop" || c.Text != "-P INPUT DROP" || c.Total != 2 || c.Unread != "" {
		t.Errorf("got %+v", c)
	}
	if r := c.Rules[1]; r.Number != 2 || r.Packets != 1 || r.Bytes != 29 || r.Text != `-A INPUT -p udp -m udp --dport 9 -m comment --comment "-A INPUT # no" -j DROP` {
		t.Errorf("got %+v", r)
	}
	if c := get(4, "filter", "f2b-sshd"); c.Base || c.Owner != "fail2ban" || c.Text != "" || len(c.Rules) != 1 || !strings.HasPrefix(c.Rules[0].Text, "-A f2b-sshd -s 1.2.3.4/32 -j REJECT") {
		t.Errorf("got %+v", c)
	}
	if c := get(4, "filter", "none"); c.Rules == nil || c.Total != 0 || c.Unread != "" {
		t.Errorf("got %+v", c)
	}
	if c := get(4, "mangle", "PREROUTING"); c.Priority != -150 || c.Rules[0].Packets != 1 {
		t.Errorf("got %+v", c)
	}
	if c := get(6, "filter", "INPUT"); c.Family != "ip6" || len(c.Rules) != 1 || c.Rules[0].Text != "-A INPUT -p tcp -m tcp --dport 80 -j DROP" {
		t.Errorf("got %+v", c)
	}
	table := l.legacyTable(4, "filter")
	if _, err := l.LegacyChain(table, "ERROR", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the end of the table is a chain: %v", err)
	}
	l.sh("iptables-legacy -R f2b-sshd 1 -s 1.2.3.5 -j REJECT") // of the same size
	if c, err := l.LegacyChain(table, "f2b-sshd", nil); err != nil || c.Unread == "" || c.Rules[0].Text != "" {
		t.Errorf("a rule replaced since has the text of another: %+v, %v", c, err)
	}
}

// Blob parts for tables made by hand.
const (
	handEntry  = 112 + 40 // of IPv4 with a standard target
	handError  = 112 + 64
	handHooked = 1<<1 | 1<<3 // INPUT, OUTPUT
)

func standardEntry(verdict int32, flags byte) []byte {
	b := make([]byte, handEntry)
	b[82] = flags
	binary.NativeEndian.PutUint16(b[88:], 112)
	binary.NativeEndian.PutUint16(b[90:], handEntry)
	binary.NativeEndian.PutUint32(b[112+32:], uint32(verdict))
	return b
}

func errorEntry(chain string) []byte {
	b := make([]byte, handError)
	binary.NativeEndian.PutUint16(b[88:], 112)
	binary.NativeEndian.PutUint16(b[90:], handError)
	copy(b[112+2:], "ERROR")
	copy(b[112+32:], chain)
	return b
}

// handBlob is a table with INPUT (a jump to "u" and the policy), OUTPUT (the
// policy) and u (DROP).
func handBlob() (info, blob []byte) {
	u := int32(3*handEntry + handError)
	blob = slices.Concat(standardEntry(u, 0), standardEntry(verdictAccept, 0), standardEntry(verdictAccept, 0),
		errorEntry("u"), standardEntry(verdictDrop, 0), standardEntry(verdictReturn, 0), errorEntry("ERROR"))
	info = make([]byte, sizeofLegacyInfo)
	copy(info, "filter")
	for at, v := range map[int]uint32{tableNameLen: handHooked, offsetofHookEntry + 4: 0, offsetofHookEntry + 12: 2 * handEntry,
		offsetofUnderflow + 4: handEntry, offsetofUnderflow + 12: 2 * handEntry, offsetofLegacyNumber: 7, offsetofLegacySize: uint32(len(blob))} {
		binary.NativeEndian.PutUint32(info[at:], v)
	}
	return info, blob
}

func TestParseLegacyTable(t *testing.T) {
	info, blob := handBlob()
	table, err := parseLegacyTable(4, info, blob)
	if err != nil {
		t.Fatal(err)
	}
	if e := table.Entries[0]; e.Jump != 4 || e.Target != "u" || e.Chain != "INPUT" || e.Number != 1 {
		t.Errorf("got %+v", e)
	}
	for name, spoil := range map[string]func(info, blob []byte){
		"jump into nothing":     func(_, b []byte) { binary.NativeEndian.PutUint32(b[144:], 8) },
		"jump to a head":        func(_, b []byte) { binary.NativeEndian.PutUint32(b[144:], 3*handEntry) },
		"jump into a chain":     func(_, b []byte) { binary.NativeEndian.PutUint32(b[144:], 2*handEntry) },
		"unknown verdict":       func(_, b []byte) { binary.NativeEndian.PutUint32(b[144:], 0xfffffff0) },
		"target beyond the end": func(_, b []byte) { binary.NativeEndian.PutUint16(b[88:], 60000) },
		"entry beyond the end":  func(_, b []byte) { binary.NativeEndian.PutUint16(b[90:], 65528) },
		"entry of no size":      func(_, b []byte) { binary.NativeEndian.PutUint16(b[90:], 0) },
		"another number":        func(i, _ []byte) { binary.NativeEndian.PutUint32(i[offsetofLegacyNumber:], 8) },
		"hook between entries":  func(i, _ []byte) { binary.NativeEndian.PutUint32(i[offsetofHookEntry+4:], 4) },
		"policy before chain":   func(i, _ []byte) { binary.NativeEndian.PutUint32(i[offsetofUnderflow+12:], 0) },
		"chain that is no hook": func(i, _ []byte) { binary.NativeEndian.PutUint32(i[tableNameLen:], 1<<3) },
	} {
		info, blob := handBlob()
		spoil(info, blob)
		if _, err := parseLegacyTable(4, info, blob); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

// The counters alone may differ between two readings of the same rules.
func TestLegacyShape(t *testing.T) {
	shape := func(spoil func(b []byte)) uint64 {
		_, blob := handBlob()
		spoil(blob)
		s, err := legacyShape(4, blob)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	plain := shape(func([]byte) {})
	if shape(func(b []byte) { b[layoutOf(4).counter]++ }) != plain {
		t.Error("a counter counts")
	}
	for name, spoil := range map[string]func(b []byte){
		"source address": func(b []byte) { b[0] = 10 },
		"goto":           func(b []byte) { b[82] |= 2 },
		"verdict":        func(b []byte) { binary.NativeEndian.PutUint32(b[handEntry+144:], 0xffffffff) },
	} {
		if shape(spoil) == plain {
			t.Errorf("another %s goes unnoticed", name)
		}
	}
}

func FuzzLegacyTable(f *testing.F) {
	info, blob := handBlob()
	f.Add(info, blob, true)
	f.Add(info, blob[:len(blob)-8], true)
	f.Add(info, blob, false)
	f.Add([]byte{}, []byte{}, true)
	f.Fuzz(func(t *testing.T, info, blob []byte, v4 bool) {
		family := 6
		if v4 {
			family = 4
		}
		table, err := parseLegacyTable(family, info, blob)
		if err != nil {
			return
		}
		for _, moved := range []uint64{0, 1, 2} {
			for hook := range table.HookEntry {
				table.Replay(hook, func(int) uint64 { return moved })
			}
		}
		for _, e := range table.Entries {
			table.chain(e.Chain, func(int) bool { return true })
		}
	})
}
