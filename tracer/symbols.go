// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/pathtrace/pathtrace/bpf"
)

// symbols names kernel addresses. The kernel does it itself, in a program run
// by BPF_PROG_TEST_RUN: /proc/kallsyms need not be read, and may be hidden.
type symbols struct {
	prog  *ebpf.Program
	table *ebpf.Map
	known map[uint64]string
}

func newSymbols(prog *ebpf.Program, table *ebpf.Map) *symbols {
	return &symbols{prog: prog, table: table, known: map[uint64]string{0: ""}}
}

// names returns the symbol of each address; "" for 0.
func (s *symbols) names(addresses []uint64) ([]string, error) {
	var unknown []uint64
	for _, a := range addresses {
		if _, ok := s.known[a]; !ok && !slices.Contains(unknown, a) {
			unknown = append(unknown, a)
		}
	}
	for batch := range slices.Chunk(unknown, int(s.table.MaxEntries())) {
		if err := s.ask(batch); err != nil {
			return nil, err
		}
	}
	out := make([]string, len(addresses))
	for i, a := range addresses {
		out[i] = s.known[a]
	}
	return out, nil
}

func (s *symbols) ask(batch []uint64) error {
	for i, a := range batch {
		if err := s.table.Put(uint32(i), bpf.TracepointSymbol{Address: a}); err != nil {
			return fmt.Errorf("hand over an address: %w", err)
		}
	}
	if _, err := s.prog.Run(&ebpf.RunOptions{Context: []uint64{uint64(len(batch))}}); err != nil {
		return fmt.Errorf("name addresses: %w", err)
	}
	for i, a := range batch {
		var sym bpf.TracepointSymbol
		if err := s.table.Lookup(uint32(i), &sym); err != nil {
			return fmt.Errorf("read a name: %w", err)
		}
		name := make([]byte, len(sym.Name))
		for j, c := range sym.Name {
			name[j] = byte(c)
		}
		s.known[a] = symbolName(name)
	}
	return nil
}

// symbolName cuts what a compiler appended (.isra.0, .constprop.0, .part.0) and a module's name.
func symbolName(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	if i := bytes.IndexAny(b, ". ["); i > 0 {
		b = b[:i]
	}
	return string(b)
}
