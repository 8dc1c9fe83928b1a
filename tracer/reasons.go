// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// reasons names drop and reset reasons by the running kernel's own enums: the
// numbers are no ABI and differ from kernel to kernel.
type reasons map[uint32]string

// loadReasons reads an enum of the kernel's BTF. A kernel without it has no reasons.
func loadReasons(spec *btf.Spec, enum string, prefixes ...string) reasons {
	var e *btf.Enum
	if err := spec.TypeByName(enum, &e); err != nil {
		return nil
	}
	r := make(reasons, len(e.Values))
	for _, v := range e.Values {
		name := v.Name
		for _, p := range prefixes {
			name = strings.TrimPrefix(name, p)
		}
		if _, dup := r[uint32(v.Value)]; !dup {
			r[uint32(v.Value)] = name
		}
	}
	return r
}

func (r reasons) name(n uint32) string {
	if s, ok := r[n]; ok {
		return s
	}
	if len(r) == 0 {
		return ""
	}
	return fmt.Sprintf("%#x", n) // of another subsystem (SKB_DROP_REASON_SUBSYS)
}
