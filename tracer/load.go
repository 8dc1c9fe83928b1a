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

// load makes the maps and loads the programs.
func load(spec *ebpf.CollectionSpec, types *btf.Cache) (*ebpf.Collection, error) {
	shared := *spec
	shared.Programs = nil
	all, err := ebpf.NewCollectionWithOptions(&shared, ebpf.CollectionOptions{Cache: types})
	if err != nil {
		return nil, err
	}
	loaded, errs := loadPrograms(spec, all.Maps, types)
	all.Programs = loaded
	if len(errs) > 0 {
		all.Close()
		return nil, errors.Join(slices.Collect(maps.Values(errs))...)
	}
	return all, nil
}

// loadPrograms loads the programs of spec on maps that exist, several at a
// time: most of the time goes to the kernel's verifier, which works on each
// alone. It returns those that the kernel took, and why it refused the others.
//
// Programs for functions, which are looked up in all modules' types, are loaded
// one by one, for these types are shared: see [relocationTargets].
func loadPrograms(spec *ebpf.CollectionSpec, shared map[string]*ebpf.Map, types *btf.Cache) (loaded map[string]*ebpf.Program, refused map[string]error) {
	loaded, refused = map[string]*ebpf.Program{}, map[string]error{}
	workers := min(runtime.GOMAXPROCS(0), 4)
	for _, p := range spec.Programs {
		if p.AttachType == ebpf.AttachTraceFEntry || p.AttachType == ebpf.AttachTraceFExit {
			workers = 1
		}
	}
	kernel, err := types.Kernel()
	if err != nil {
		for name := range spec.Programs {
			refused[name] = err
		}
		return loaded, refused
	}
	names := make(chan string)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, targets := range relocationTargets(kernel, moduleTypes(types), workers) {
		opts := ebpf.CollectionOptions{Cache: types, MapReplacements: shared, Programs: targets}
		wg.Go(func() {
			for name := range names {
				prog, err := loadProgram(spec, name, opts)
				mu.Lock()
				if err != nil {
					refused[name] = err
				} else {
					loaded[name] = prog
				}
				mu.Unlock()
			}
		})
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		names <- name
	}
	close(names)
	wg.Wait()
	return loaded, refused
}

// relocationTargets are the types that each of some workers relocates programs
// by. The types of a module are decoded together with the kernel's, and in
// cilium/ebpf v0.22 no lock covers that: each worker has a copy of the modules'
// types. Without KernelTypes it would take the cache's, of every module there is.
func relocationTargets(kernel *btf.Spec, modules []*btf.Spec, workers int) []ebpf.ProgramOptions {
	out := make([]ebpf.ProgramOptions, workers)
	for i := range out {
		out[i].KernelTypes = kernel // decoded under a lock
		for _, m := range modules {
			if workers > 1 {
				m = m.Copy()
			}
			out[i].ExtraRelocationTargets = append(out[i].ExtraRelocationTargets, m)
		}
	}
	return out
}

func loadProgram(spec *ebpf.CollectionSpec, name string, opts ebpf.CollectionOptions) (*ebpf.Program, error) {
	one := *spec
	one.Variables = nil // they live in maps, which are there
	one.Programs = map[string]*ebpf.ProgramSpec{name: spec.Programs[name]}
	coll, err := ebpf.NewCollectionWithOptions(&one, opts)
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	return coll.DetachProgram(name), nil
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
