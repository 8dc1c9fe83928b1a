// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/pathtrace/pathtrace/bpf"
	"github.com/pathtrace/pathtrace/evidence"
)

// Registered returns the functions registered with netfilter in the namespace
// of that inode number, in calling order, as [Tracer.Hooks] does. It attaches
// nothing, and takes a fraction of the time of [Open]. The caller needs CAP_BPF and CAP_PERFMON.
func Registered(inode uint32) (hooks []evidence.Hook, err error) {
	types := btf.NewCache()
	spec, err := bpf.LoadTracepoint()
	if err != nil {
		return nil, fmt.Errorf("parse the programs: %w", err)
	}
	if _, _, err := fit(spec, types); err != nil {
		return nil, err
	}
	spec.Programs = map[string]*ebpf.ProgramSpec{progInventory: spec.Programs[progInventory]}
	t := &Tracer{types: types, take: func(Record) {}, flushed: make(chan struct{}), stopped: make(chan struct{}), ranks: map[rankKey][]int{}}
	if t.coll, err = load(spec, types); err != nil {
		return nil, fmt.Errorf("load the programs: %w", err)
	}
	defer t.Close()
	if err := t.listen(); err != nil {
		return nil, err
	}
	return t.Hooks(inode)
}
