// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// load makes the maps, then loads the programs, several at a time: most of the
// time goes to the kernel's verifier, which works on each alone.
func load(spec *ebpf.CollectionSpec, types *btf.Cache) (*ebpf.Collection, error) {
	opts := ebpf.CollectionOptions{Cache: types, Programs: ebpf.ProgramOptions{ExtraRelocationTargets: moduleTypes(types)}}
	shared := *spec
	shared.Programs = nil
	all, err := ebpf.NewCollectionWithOptions(&shared, opts)
	if err != nil {
		return nil, err
	}
	opts.MapReplacements = all.Maps
	names := slices.Sorted(maps.Keys(spec.Programs))
	workers := min(runtime.GOMAXPROCS(0), 4)
	parts := make([]*ebpf.Collection, workers)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		part := spec.Copy()
		for i, name := range names {
			if i%workers != w {
				delete(part.Programs, name)
			}
		}
		wg.Go(func() { parts[w], errs[w] = ebpf.NewCollectionWithOptions(part, opts) })
	}
	wg.Wait()
	all.Programs = map[string]*ebpf.Program{}
	for _, part := range parts {
		if part == nil {
			continue
		}
		for name, prog := range part.Programs {
			all.Programs[name] = prog
			delete(part.Programs, name) // it is all's now
		}
		part.Close()
	}
	if err := errors.Join(errs...); err != nil {
		all.Close()
		return nil, err
	}
	return all, nil
}

// moduleTypes returns the types of netfilter's modules, where they are modules and loaded.
func moduleTypes(types *btf.Cache) []*btf.Spec {
	var specs []*btf.Spec
	for _, m := range []string{"nf_tables", "x_tables", "nf_nat"} {
		if _, err := os.Stat("/sys/kernel/btf/" + m); err != nil {
			continue
		}
		if s, err := types.Module(m); err == nil {
			specs = append(specs, s)
		}
	}
	return specs
}
