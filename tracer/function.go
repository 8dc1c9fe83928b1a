// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// Families of hooks that [Options.Hooks] names, best first.
const (
	Auto       = "auto"
	Fentry     = "fentry"
	Kprobe     = "kprobe"
	Tracepoint = "tracepoint"
)

// Facts that hooks of the function tier give.
const (
	factNFT     = "rules of nftables"
	factLegacy4 = "rules of iptables-legacy"
	factLegacy6 = "rules of ip6tables-legacy"
	factAccept  = "processes that accept"
	factReset   = "RSTs for packets that no socket takes"
	factFilter  = "sockets whose filter refuses"
)

// function is a kernel function that is hooked. The programs behind it are
// named after Hook and the way they attach: fentry_, fexit_, kprobe_ and
// kretprobe_, as far as they stand in bpf/function.h.
type function struct {
	Symbol string
	Hook   string   // of the function that the programs are written for
	Params []string // types of the parameters that the programs read, as Go-like names; "" for any
	Fact   string
	Module string // that has it where it is not built in; "" never a module
	Gap    string // a tracepoint's argument that tells it, too: see fit
}

// functions of the tier beside the evaluators of nftables, which are looked up.
var functions = []function{
	{Symbol: "nft_do_chain", Hook: "nft_do_chain", Params: []string{"*nft_pktinfo", "*"}, Fact: factNFT, Module: "nf_tables"},
	{Symbol: "ipt_do_table", Hook: "ipt_do_table", Params: []string{"*", "*", "*nf_hook_state"}, Fact: factLegacy4, Module: "ip_tables"},
	{Symbol: "ip6t_do_table", Hook: "ipt_do_table", Params: []string{"*", "*", "*nf_hook_state"}, Fact: factLegacy6, Module: "ip6_tables"},
	{Symbol: "tcp_v4_send_reset", Hook: "tcp_send_reset", Params: []string{"*sock", "*sk_buff"}, Fact: factReset, Gap: "reset_has_reason"},
	{Symbol: "tcp_v6_send_reset", Hook: "tcp_send_reset", Params: []string{"*sock", "*sk_buff"}, Fact: factReset, Gap: "reset_has_reason"},
	{Symbol: "security_sock_graft", Hook: "security_sock_graft", Params: []string{"*sock", "*socket"}, Fact: factAccept},
	{Symbol: "sk_filter_trim_cap", Hook: "sk_filter_trim_cap", Params: []string{"*sock", "*sk_buff", ""}, Fact: factFilter, Gap: "kfree_has_sock"},
}

var evaluatorParams = []string{"*nft_expr", "*nft_regs", "*nft_pktinfo"}

// undecided are evaluators that never give a verdict: they load, compare and
// count. Whatever is not here is hooked, so that a new one cannot pass unseen.
var undecided = []string{
	"nft_bitwise_eval", "nft_byteorder_eval", "nft_cmp_eval", "nft_connlimit_eval", "nft_counter_eval", "nft_ct_get_eval", "nft_ct_get_fast_eval",
	"nft_dup_ipv4_eval", "nft_dup_ipv6_eval", "nft_dup_netdev_eval", "nft_exthdr_dccp_eval", "nft_exthdr_ipv4_eval", "nft_exthdr_ipv6_eval",
	"nft_exthdr_sctp_eval", "nft_exthdr_tcp_eval", "nft_fib_inet_eval", "nft_fib_netdev_eval", "nft_fib4_eval", "nft_fib4_eval_type", "nft_fib6_eval",
	"nft_fib6_eval_type", "nft_jhash_eval", "nft_last_eval", "nft_limit_bytes_eval", "nft_limit_pkts_eval", "nft_log_eval", "nft_meta_bridge_get_eval",
	"nft_meta_bridge_set_eval", "nft_meta_get_eval", "nft_meta_set_eval", "nft_ng_inc_eval", "nft_ng_random_eval", "nft_notrack_eval", "nft_osf_eval",
	"nft_payload_eval", "nft_payload_set_eval", "nft_quota_eval", "nft_range_eval", "nft_rt_get_eval", "nft_socket_eval", "nft_symhash_eval",
	"nft_tunnel_get_eval", "nft_xfrm_get_eval",
}

// built are the evaluators that may decide, for kernels with nf_tables built in, whose types are too many to go through.
var built = []string{
	"nft_immediate_eval", "nft_lookup_eval", "nft_objref_eval", "nft_objref_map_eval", "nft_dynset_eval", "nft_reject_inet_eval", "nft_reject_ipv4_eval",
	"nft_reject_ipv6_eval", "nft_reject_bridge_eval", "nft_reject_netdev_eval", "nft_target_eval_xt", "nft_target_eval_bridge", "nft_match_eval",
	"nft_match_large_eval", "nft_queue_eval", "nft_queue_sreg_eval", "nft_nat_eval", "nft_nat_inet_eval", "nft_masq_eval", "nft_masq_ipv4_eval",
	"nft_masq_ipv6_eval", "nft_masq_inet_eval", "nft_redir_eval", "nft_redir_ipv4_eval", "nft_redir_ipv6_eval", "nft_redir_inet_eval", "nft_tproxy_eval",
	"nft_synproxy_eval", "nft_fwd_netdev_eval", "nft_fwd_neigh_eval", "nft_ct_set_eval", "nft_ct_set_zone_eval", "nft_exthdr_tcp_strip_eval",
	"nft_exthdr_tcp_set_eval", "nft_flow_offload_eval", "nft_inner_eval", "nft_payload_inner_eval", "nft_meta_inner_eval",
}

// errAbsent says that the kernel has no such function now; a module may bring it.
var errAbsent = errors.New("this kernel has not got it")

// find looks a function up in the types of the kernel or of its module, and checks that it takes what the programs read.
func (f function) find(types *btf.Cache) error {
	spec, err := types.Kernel()
	if err != nil {
		return err
	}
	var fn *btf.Func
	err = spec.TypeByName(f.Symbol, &fn)
	if errors.Is(err, btf.ErrNotFound) && f.Module != "" {
		if spec, err = moduleSpec(types, f.Module); err == nil {
			err = spec.TypeByName(f.Symbol, &fn)
		}
	}
	if errors.Is(err, btf.ErrNotFound) {
		return errAbsent
	}
	if err != nil {
		return err
	}
	if !takes(fn, f.Params) {
		return errors.New("it takes other arguments here")
	}
	return nil
}

// moduleSpec returns the types of a module; the error is [btf.ErrNotFound] where it is not loaded.
func moduleSpec(types *btf.Cache, module string) (*btf.Spec, error) {
	if _, err := os.Stat("/sys/kernel/btf/" + module); err != nil {
		return nil, btf.ErrNotFound
	}
	return types.Module(module)
}

// takes reports whether the first parameters of fn are pointers to the named
// structures: "*" is any pointer, "" anything.
func takes(fn *btf.Func, params []string) bool {
	proto, ok := fn.Type.(*btf.FuncProto)
	if !ok || len(proto.Params) < len(params) {
		return false
	}
	for i, want := range params {
		if want != "" && !points(proto.Params[i].Type, strings.TrimPrefix(want, "*")) {
			return false
		}
	}
	return true
}

func points(t btf.Type, to string) bool {
	p, ok := btf.UnderlyingType(t).(*btf.Pointer)
	if !ok || to == "" {
		return ok
	}
	s, ok := btf.UnderlyingType(p.Target).(*btf.Struct)
	return ok && s.Name == to
}

// evaluators finds the functions that may give the verdict of an nftables rule, by their signature.
func evaluators(types *btf.Cache) ([]function, error) {
	var out []function
	add := func(module string, fn *btf.Func) {
		f := function{Symbol: fn.Name, Hook: "nft_eval", Params: evaluatorParams, Fact: factNFT, Module: module}
		if strings.HasPrefix(fn.Name, "nft_") && takes(fn, evaluatorParams) && len(fn.Type.(*btf.FuncProto).Params) == 3 && !slices.Contains(undecided, fn.Name) {
			out = append(out, f)
		}
	}
	kernel, err := types.Kernel()
	if err != nil {
		return nil, err
	}
	for _, name := range built {
		var fn *btf.Func
		if kernel.TypeByName(name, &fn) == nil {
			add("", fn)
		}
	}
	modules, err := os.ReadDir("/sys/kernel/btf")
	if err != nil {
		return nil, fmt.Errorf("list the kernel's modules: %w", err)
	}
	for _, m := range modules {
		if m.Name() != "nf_tables" && !strings.HasPrefix(m.Name(), "nft_") {
			continue
		}
		spec, err := types.Module(m.Name())
		if err != nil {
			return nil, fmt.Errorf("types of %s: %w", m.Name(), err)
		}
		for t, err := range spec.All() {
			if err != nil {
				return nil, fmt.Errorf("types of %s: %w", m.Name(), err)
			}
			if fn, ok := t.(*btf.Func); ok {
				add(m.Name(), fn)
			}
		}
	}
	return out, nil
}

// tableFirst reports whether ipt_do_table() takes the table before the packet.
func tableFirst(types *btf.Cache) bool {
	for _, f := range []function{{Symbol: "ipt_do_table", Module: "ip_tables"}, {Symbol: "ip6t_do_table", Module: "ip6_tables"}} {
		for _, params := range [][]string{{"", "*sk_buff"}, {"*sk_buff", ""}} {
			f.Params = params
			if f.find(types) == nil {
				return params[0] == ""
			}
		}
	}
	return true
}
