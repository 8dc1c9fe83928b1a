/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * iptables-legacy by its own function: the rule counters of the table are read
 * when ipt_do_table() or ip6t_do_table() is entered and left, and what moved is
 * what the packet matched (see netfilter.h). Softirqs are off inside, so only
 * another packet before the entry hook's end or behind it can be counted, too.
 */
#ifndef PATHTRACE_FUNCTION_XT_H
#define PATHTRACE_FUNCTION_XT_H

/* slots of the tables that are read */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, XT_SLOTS);
	__type(key, __u64); /* struct xt_table */
	__type(value, __u32);
} xt_tables SEC(".maps");

static __always_inline int xt_reading(void)
{
	struct xt_cpu *c = xt_cpu();

	return c && c->skb;
}

/* returns whether the table is read for this packet */
static __always_inline int xt_enter(__u64 table, __u64 skb, __u64 state)
{
	const struct nf_hook_state *st = (void *)state;
	struct xt_cpu *c;
	__u32 *slot;
	__u8 d;

	if (!probe.on)
		return 0;
	slot = bpf_map_lookup_elem(&xt_tables, &table);
	c = xt_cpu();
	if (!slot || !c)
		return 0;
	__builtin_memset(&c->p, 0, sizeof(c->p));
	d = match_address(skb, &c->p);
	if (!d) {
		if (c->skb && c->slot == *slot)
			c->foreign++;
		return 0;
	}
	if (c->skb) /* this packet was caused by the one that is being read: a REJECT's answer */
		counters_finish(bpf_get_smp_processor_id());
	c->netns = BPF_CORE_READ(st, net, ns.inum);
	c->direction = d;
	c->pf = BPF_CORE_READ(st, pf);
	c->hook = BPF_CORE_READ(st, hook);
	counters_begin(c, *slot, skb);
	return c->skb == skb;
}

static __always_inline int xt_leave(__u64 skb, __u64 ret)
{
	struct xt_cpu *c = xt_cpu();

	if (c && c->skb && c->skb == skb) {
		c->e.err = (__u32)ret;
		c->e.flags |= EV_RESULT;
		counters_finish(bpf_get_smp_processor_id());
	}
	return 0;
}

#endif
