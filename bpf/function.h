/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The function tier: hooks on functions, by fentry and fexit or by kprobe and
 * kretprobe. What a hook does is written once, of plain numbers; behind it
 * stand the programs of both families, a line each.
 */
#ifndef PATHTRACE_FUNCTION_H
#define PATHTRACE_FUNCTION_H

#include "function_nft.h"
#include "function_xt.h"
#include "function_tcp.h"

/* Arguments of the running kernel's functions, by its BTF; set by user space. */
const volatile _Bool ipt_table_first = 1;  /* ipt_do_table(table, skb, state) since 5.16, (skb, state, table) before */
const volatile _Bool return_pops = 1;	   /* a call pushes the return address: amd64 */

static __always_inline __u64 parm(void *ctx, int n)
{
	struct pt_regs___x86 *x = ctx;
	struct pt_regs___arm64 *a = ctx;

	if (!bpf_core_field_exists(struct pt_regs___x86, di))
		return n == 0 ? BPF_CORE_READ(a, regs[0]) : n == 1 ? BPF_CORE_READ(a, regs[1]) : BPF_CORE_READ(a, regs[2]);
	return n == 0 ? BPF_CORE_READ(x, di) : n == 1 ? BPF_CORE_READ(x, si) : BPF_CORE_READ(x, dx);
}

static __always_inline __u64 returned(void *ctx)
{
	struct pt_regs___x86 *x = ctx;
	struct pt_regs___arm64 *a = ctx;

	return bpf_core_field_exists(struct pt_regs___x86, ax) ? BPF_CORE_READ(x, ax) : BPF_CORE_READ(a, regs[0]);
}

static __always_inline __u64 stack_pointer(void *ctx)
{
	struct pt_regs___x86 *x = ctx;
	struct pt_regs___arm64 *a = ctx;

	return bpf_core_field_exists(struct pt_regs___x86, ax) ? BPF_CORE_READ(x, sp) : BPF_CORE_READ(a, sp);
}

/*
 * A kretprobe is not told the arguments: its kprobe leaves them here, under the
 * place on the stack where the call began. Only calls for packets of ours are kept.
 */
struct call {
	__u64 a, b, c;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct call);
} calls SEC(".maps");

static __always_inline void keep_call(void *ctx, __u64 a, __u64 b, __u64 c)
{
	struct call call = {a, b, c};
	__u64 sp = stack_pointer(ctx);

	bpf_map_update_elem(&calls, &sp, &call, BPF_ANY);
}

static __always_inline int take_call(void *ctx, struct call *to)
{
	__u64 sp = stack_pointer(ctx) - (return_pops ? 8 : 0);
	struct call *call = bpf_map_lookup_elem(&calls, &sp);

	if (!call)
		return 0;
	*to = *call;
	bpf_map_delete_elem(&calls, &sp);
	return 1;
}

/* nft_do_chain(struct nft_pktinfo *, void *chain) */

SEC("fentry/nft_do_chain")
int fentry_nft_do_chain(__u64 *ctx) { return nft_enter(ctx[0], ctx[1]) & 0; }

SEC("fexit/nft_do_chain")
int fexit_nft_do_chain(__u64 *ctx) { return nft_leave(ctx[0], ctx[2]); }

SEC("kprobe")
int kprobe_nft_do_chain(void *ctx)
{
	__u64 pkt = parm(ctx, 0);

	if (nft_enter(pkt, parm(ctx, 1)))
		keep_call(ctx, pkt, 0, 0);
	return 0;
}

SEC("kretprobe")
int kretprobe_nft_do_chain(void *ctx)
{
	struct call call;

	if (nft_running && take_call(ctx, &call))
		nft_leave(call.a, returned(ctx));
	return 0;
}

/* every evaluator: (const struct nft_expr *, struct nft_regs *, const struct nft_pktinfo *) */

SEC("fexit/nft_immediate_eval")
int fexit_nft_eval(__u64 *ctx) { return nft_evaluated(ctx[0], ctx[1], ctx[2]); }

SEC("kprobe")
int kprobe_nft_eval(void *ctx)
{
	__u64 pkt;

	if (!nft_running)
		return 0;
	pkt = parm(ctx, 2);
	if (nft_run_of(pkt))
		keep_call(ctx, parm(ctx, 0), parm(ctx, 1), pkt);
	return 0;
}

SEC("kretprobe")
int kretprobe_nft_eval(void *ctx)
{
	struct call call;

	if (nft_running && take_call(ctx, &call))
		nft_evaluated(call.a, call.b, call.c);
	return 0;
}

/* ipt_do_table() and ip6t_do_table() */

SEC("fentry/ipt_do_table")
int fentry_ipt_do_table(__u64 *ctx)
{
	__u64 a = *(volatile __u64 *)ctx, b = *(volatile __u64 *)(ctx + 1), c = *(volatile __u64 *)(ctx + 2);

	return (ipt_table_first ? xt_enter(a, b, c) : xt_enter(c, a, b)) & 0;
}

SEC("fexit/ipt_do_table")
int fexit_ipt_do_table(__u64 *ctx)
{
	__u64 a = *(volatile __u64 *)ctx, b = *(volatile __u64 *)(ctx + 1); /* both: the verifier lets no address in ctx be chosen */

	return xt_leave(ipt_table_first ? b : a, ctx[3]);
}

SEC("kprobe")
int kprobe_ipt_do_table(void *ctx)
{
	__u64 a = parm(ctx, 0), b = parm(ctx, 1), c = parm(ctx, 2);

	if (ipt_table_first ? xt_enter(a, b, c) : xt_enter(c, a, b))
		keep_call(ctx, ipt_table_first ? b : a, 0, 0);
	return 0;
}

SEC("kretprobe")
int kretprobe_ipt_do_table(void *ctx)
{
	struct call call;

	if (xt_reading() && take_call(ctx, &call))
		xt_leave(call.a, returned(ctx));
	return 0;
}

/* tcp_v4_send_reset(), tcp_v6_send_reset(): (sk, skb, …) */

SEC("fentry/tcp_v4_send_reset")
int fentry_tcp_send_reset(__u64 *ctx) { return tcp_reset(ctx[0], ctx[1]); }

SEC("kprobe")
int kprobe_tcp_send_reset(void *ctx) { return tcp_reset(parm(ctx, 0), parm(ctx, 1)); }

/* security_sock_graft(sk, parent): accept() gives a connection to a process */

SEC("fentry/security_sock_graft")
int fentry_security_sock_graft(__u64 *ctx) { return tcp_accept(ctx[0]); }

SEC("kprobe")
int kprobe_security_sock_graft(void *ctx) { return tcp_accept(parm(ctx, 0)); }

/* sk_filter_trim_cap(sk, skb, cap) */

SEC("fentry/sk_filter_trim_cap")
int fentry_sk_filter_trim_cap(__u64 *ctx) { return tcp_filter(ctx[0], ctx[1]); }

SEC("kprobe")
int kprobe_sk_filter_trim_cap(void *ctx) { return tcp_filter(parm(ctx, 0), parm(ctx, 1)); }

#endif
