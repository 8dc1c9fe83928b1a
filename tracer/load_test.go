// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/pathtrace/pathtrace/bpf"
)

// Workers that decode the types of one module at the same time crash the
// program ("concurrent map writes"), so no two have the same.
func TestRelocationTargetsApart(t *testing.T) {
	kernel, module := new(btf.Spec), new(btf.Spec)
	seen := []*btf.Spec{kernel, module}
	for i, o := range relocationTargets(kernel, []*btf.Spec{module, module}, 3) {
		if o.KernelTypes != kernel {
			t.Errorf("worker %d has not the kernel's types: the cache's modules come in then", i)
		}
		if len(o.ExtraRelocationTargets) != 2 {
			t.Errorf("worker %d has %d modules, want 2", i, len(o.ExtraRelocationTargets))
		}
		for _, m := range o.ExtraRelocationTargets {
			if slices.Contains(seen, m) {
				t.Errorf("worker %d shares a module's types", i)
			}
			seen = append(seen, m)
		}
	}
}

// Loading must not decode the types of modules that no program reads: they are
// shared by all workers, and there may be a hundred of them.
func TestLoadLeavesModulesAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	spec, err := bpf.LoadTracepoint()
	if err != nil {
		t.Fatal(err)
	}
	types := btf.NewCache()
	if _, _, err := fit(spec, types); err != nil {
		t.Fatal(err)
	}
	if err := setRegisters(spec); err != nil {
		t.Fatal(err)
	}
	wrapPrograms(spec)
	functionPrograms(spec)
	coll, err := load(spec, types)
	if err != nil {
		t.Fatal(err)
	}
	coll.Close()
	for _, name := range reflect.ValueOf(types).Elem().FieldByName("moduleTypes").MapKeys() {
		if m := name.String(); !slices.Contains([]string{"nf_tables", "x_tables", "nf_nat", "ip_tables", "ip6_tables"}, m) {
			t.Errorf("the types of module %s were read", m)
		}
	}
}
