// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// hook is one kernel hook of the tracepoint tier.
type hook struct {
	Name    string // of the tracepoint and of the program
	Since   string // first kernel that has it
	Needed  bool   // without it no verdict is possible
	Shows   string // what is lost without it
	MinArgs int    // arguments the program reads, the context not counted
}

// hooks of the tracepoint tier; a program of the same name stands in bpf/tracepoint.bpf.c.
var hooks = []hook{
	{"kfree_skb", "2.6.30", true, "where packets are dropped", 2},
	{"consume_skb", "2.6.30", true, "packets used up without an answer", 1},
	{"netif_receive_skb", "2.6.37", true, "which device and namespace a packet reached", 1},
	{"napi_poll", "2.6.32", false, "where the work on a packet ends: routes that others ask for may stand among the probe's", 0},
	{"net_dev_queue", "2.6.37", true, "which device a packet left by", 1},
	{"inet_sock_set_state", "4.16", true, "handshakes and closes", 3},
	{"fib_table_lookup", "4.4", false, "which IPv4 routing tables were asked", 4},
	{"fib6_table_lookup", "4.4", false, "which IPv6 routing tables were asked", 4},
	{"tcp_send_reset", "4.16", false, "who sent a RST, and why", 2},
	{"tcp_receive_reset", "4.16", false, "RSTs that were taken", 1},
	{"tcp_retransmit_skb", "4.16", false, "retransmissions", 1},
	{"icmp_send", "6.10", false, "ICMP errors that this host sends", 3},
	{"neigh_event_send_done", "5.1", false, "next hops that do not answer", 2},
}

// Programs that attach to no tracepoint.
const (
	progObserve   = "observe"
	progInventory = "inventory"
	progSymbolize = "symbolize"
	progArmTable  = "arm_table"
)

// missingHook says why a hook cannot be used on this kernel.
type missingHook struct {
	hook
	why string
}

func (m missingHook) String() string {
	return fmt.Sprintf("tracepoint %s (since Linux %s): %s: not seen: %s", m.Name, m.Since, m.why, m.Shows)
}

// tracepointArgs counts the arguments of a tracepoint, by the running kernel's BTF.
func tracepointArgs(spec *btf.Spec, name string) (int, error) {
	var td *btf.Typedef
	if err := spec.TypeByName("btf_trace_"+name, &td); err != nil {
		return 0, err
	}
	ptr, ok := td.Type.(*btf.Pointer)
	if !ok {
		return 0, fmt.Errorf("btf_trace_%s is no pointer", name)
	}
	fn, ok := ptr.Target.(*btf.FuncProto)
	if !ok {
		return 0, fmt.Errorf("btf_trace_%s is no function", name)
	}
	return len(fn.Params) - 1, nil
}

// fit removes from spec what this kernel has not got, and tells the programs which arguments it passes.
// gaps tells, by name, which of the optional arguments are there.
func fit(spec *ebpf.CollectionSpec, types *btf.Cache) (missing []missingHook, gaps map[string]bool, err error) {
	kernel, err := types.Kernel()
	if err != nil {
		return nil, nil, fmt.Errorf("read the kernel's type information: %w", err)
	}
	for _, h := range hooks {
		n, err := tracepointArgs(kernel, h.Name)
		switch {
		case errors.Is(err, btf.ErrNotFound):
			missing = append(missing, missingHook{h, "this kernel has not got it"})
		case err != nil:
			missing = append(missing, missingHook{h, err.Error()})
		case n < h.MinArgs:
			missing = append(missing, missingHook{h, fmt.Sprintf("it passes %d arguments here, %d are read", n, h.MinArgs)})
		default:
			continue
		}
		if h.Needed {
			return nil, nil, fmt.Errorf("needed hook: %s", missing[len(missing)-1])
		}
		delete(spec.Programs, h.Name)
	}
	var ctx *btf.Struct
	observers := kernel.TypeByName("bpf_nf_ctx", &ctx) == nil
	if !observers {
		delete(spec.Programs, progObserve)
	}
	args := func(name string) int { n, _ := tracepointArgs(kernel, name); return n }
	gaps = map[string]bool{
		"kfree_has_reason":     args("kfree_skb") >= 3,
		"kfree_has_sock":       args("kfree_skb") >= 4,
		"reset_has_reason":     args("tcp_send_reset") >= 3,
		"consume_has_location": args("consume_skb") >= 2,
		"has_observers":        observers,
		"ipt_table_first":      tableFirst(types),
		"return_pops":          runtime.GOARCH == "amd64",
	}
	for name, has := range gaps {
		if err := spec.Variables[name].Set(has); err != nil {
			return nil, nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	return missing, gaps, nil
}

// hookNamed returns the table's entry for a program, if it is a tracepoint.
func hookNamed(name string) (hook, bool) {
	i := slices.IndexFunc(hooks, func(h hook) bool { return h.Name == name })
	if i < 0 {
		return hook{}, false
	}
	return hooks[i], true
}
