/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Observers between netfilter hooks, and the rule counters of x_tables.
 *
 * One program is attached many times. It has no cookie that would tell where it
 * runs, so it counts: the n-th run for a packet in one hook of one namespace is
 * the n-th observer by priority, its rank.
 *
 * x_tables counts each matching rule per CPU before it runs the rule's target.
 * Between the observer in front of a table and the packet's next event the
 * packet stays on its CPU, so the counters that moved are the rules it matched.
 * A program that reads a queue gives it back on its own CPU: the counters are
 * then read from there. Whatever could spoil that is noticed: other packets, a
 * new table.
 */
#ifndef PATHTRACE_NETFILTER_H
#define PATHTRACE_NETFILTER_H

#define XT_BLOCK 4096 /* XT_PCPU_BLOCK_SIZE: counters come in such blocks, in the order of the rules */
#define XT_PER_BLOCK (XT_BLOCK / 16)
#define XT_SLOTS 128

struct xt_hook {
	__u32 netns;
	__u8 pf;
	__u8 hook;
	__u8 rank;
	__u8 pad;
};

/* which table's counters to read after the observer of this rank */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, XT_SLOTS * 5);
	__type(key, struct xt_hook);
	__type(value, __u32);
} xt_hooks SEC(".maps");

struct xt_slot {
	__u64 table;	/* struct xt_table */
	__u64 private;	/* its struct xt_table_info when it was armed */
	__u32 entries;
	__u32 blocks;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, XT_SLOTS);
	__type(key, __u32);
	__type(value, struct xt_slot);
} xt_slots SEC(".maps");

struct block {
	__u64 counters[XT_BLOCK / 8]; /* packets, bytes, packets, bytes … */
};

struct xt_block {
	__u64 pcnt; /* per-cpu address of these counters */
	struct block before;
};

/* one inner map for each slot, as large as its table */
struct xt_inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct xt_block));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, XT_SLOTS);
	__type(key, __u32);
	__array(values, struct xt_inner);
} xt_blocks SEC(".maps");

static __always_inline struct xt_block *xt_block(__u32 slot, __u32 i)
{
	void *inner = bpf_map_lookup_elem(&xt_blocks, &slot);

	return inner ? bpf_map_lookup_elem(inner, &i) : 0;
}

#define XT_TAKEN 1

struct xt_cpu {
	__u64 skb; /* the packet whose counters are being watched on this CPU; 0: none; XT_TAKEN: they are being compared */
	__u64 foreign; /* other packets that passed an observer on this CPU */
	__u64 foreign_before;
	__u64 percpu; /* distance from a per-cpu pointer to this CPU's copy */
	__u32 slot;
	__u32 netns;
	__u8 direction;
	__u8 pf;
	__u8 hook;
	__u8 pad;
	__u32 n;
	struct packet p;
	struct block before;
	struct block now;
	struct event e;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xt_cpu);
} xt_cpus SEC(".maps");

static __always_inline struct xt_cpu *xt_cpu(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&xt_cpus, &zero);
}

/* of any CPU, where the kernel lets another's be looked up (since Linux 5.19) */
static __always_inline struct xt_cpu *xt_cpu_of(__u32 cpu)
{
	__u32 zero = 0;

	if (cpu == bpf_get_smp_processor_id())
		return xt_cpu();
	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_map_lookup_percpu_elem))
		return 0;
	return bpf_map_lookup_percpu_elem(&xt_cpus, &zero, cpu);
}

/*
 * How far this CPU's copies are from per-cpu pointers: found from a per-cpu map
 * of our own, whose pointer and address we both know. No symbol is needed.
 */
static volatile __u64 xt_cpus_address;

static __always_inline int find_percpu(struct xt_cpu *c)
{
	volatile __u64 *address = &c->percpu;
	__u64 pptr = 0;

	/* written and read back, pointers become numbers */
	*address = (__u64)c;
	xt_cpus_address = (__u64)&xt_cpus;
	if (bpf_probe_read_kernel(&pptr, 8, (void *)xt_cpus_address + bpf_core_field_offset(struct bpf_array, pptrs)))
		return -1;
	c->percpu = *address - pptr;
	return pptr ? 0 : -1;
}

struct xt_walk {
	struct xt_cpu *c;
	__u32 slot;
	__u32 block;
	__u32 entries;
	__u32 failed;
};

static long copy_block(__u32 i, struct xt_walk *w)
{
	struct xt_block *b = xt_block(w->slot, i);

	if (!b || bpf_probe_read_kernel(&b->before, sizeof(b->before), (void *)(b->pcnt + w->c->percpu)))
		w->failed = 1;
	return w->failed ? 1 : 0;
}

static __always_inline void counters_event(struct xt_cpu *c)
{
	c->e.count = c->n;
	if (bpf_ringbuf_output(&events, &c->e, sizeof(c->e), 0))
		__sync_fetch_and_add(&lost, 1);
	c->n = 0;
}

static long compare_counter(__u32 i, struct xt_walk *w)
{
	__u32 entry = w->block * XT_PER_BLOCK + i;
	struct xt_cpu *c = w->c;
	__u64 delta;

	if (i >= XT_PER_BLOCK || entry >= w->entries)
		return 1;
	delta = c->now.counters[i * 2] - c->before.counters[i * 2];
	if (!delta)
		return 0;
	if (c->n >= MOVED_MAX) {
		c->e.xt_flags |= XT_MORE;
		counters_event(c);
	}
	if (c->n < MOVED_MAX)
		c->e.moved[c->n++] = entry | (delta > 255 ? 255 : (__u32)delta) << 24;
	return 0;
}

static long compare_block(__u32 i, struct xt_walk *w)
{
	struct xt_block *b = xt_block(w->slot, i);
	struct xt_cpu *c = w->c;

	if (!b || bpf_probe_read_kernel(&c->now, sizeof(c->now), (void *)(b->pcnt + c->percpu)) ||
	    bpf_probe_read_kernel(&c->before, sizeof(c->before), &b->before)) {
		w->failed = 1;
		return 1;
	}
	w->block = i;
	bpf_loop(XT_PER_BLOCK, compare_counter, w, 0);
	return 0;
}

static __always_inline __u8 counters_flags(struct xt_cpu *c, struct xt_slot *s)
{
	struct xt_table *t = (void *)s->table;
	__u8 flags = 0;

	if (c->foreign != c->foreign_before)
		flags |= XT_FOREIGN;
	if (bpf_core_type_exists(struct xt_table) && (__u64)BPF_CORE_READ(t, private) != s->private)
		flags |= XT_REPLACED;
	return flags;
}

/* the counters that moved on a CPU since counters_begin() become an event */
static __noinline int counters_finish(__u32 cpu)
{
	struct xt_cpu *c = xt_cpu_of(cpu);
	struct xt_walk w = {};
	struct xt_slot *s;
	__u32 slot;
	__u64 skb;

	if (!c)
		return 0;
	slot = c->slot;
	skb = c->skb;
	s = bpf_map_lookup_elem(&xt_slots, &slot);
	if (!s || !skb || skb == XT_TAKEN || __sync_val_compare_and_swap(&c->skb, skb, XT_TAKEN) != skb)
		return 0;
	c->e.time = bpf_ktime_get_ns();
	c->e.skb = skb;
	c->e.netns = c->netns;
	c->e.cpu = cpu;
	c->e.kind = KIND_XTABLES;
	c->e.direction = c->direction;
	c->e.pf = c->pf;
	c->e.hook = c->hook;
	c->e.table = slot;
	c->e.xt_flags = counters_flags(c, s);
	c->n = 0;
	w.c = c;
	w.slot = slot;
	w.entries = s->entries;
	bpf_loop(s->blocks, compare_block, &w, 0);
	if (w.failed)
		c->e.xt_flags |= XT_UNREADABLE;
	counters_event(c);
	c->e.flags = 0;
	c->skb = 0;
	return 0;
}

/* called where the packet's walk through a table has ended */
static __always_inline void counters_end(__u64 skb)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct xt_cpu *c = xt_cpu();
	struct skb_info *si;

	if (c && c->skb != skb) {
		si = bpf_map_lookup_elem(&skbs, &skb);
		if (!si || !si->counted_on)
			return;
		cpu = si->counted_on - 1;
		c = xt_cpu_of(cpu);
	}
	if (c && c->skb == skb)
		counters_finish(cpu);
}

static __always_inline void counters_begin(struct xt_cpu *c, __u32 slot, __u64 skb)
{
	struct xt_slot *s = bpf_map_lookup_elem(&xt_slots, &slot);
	struct skb_info *si = bpf_map_lookup_elem(&skbs, &skb);
	struct xt_walk w = {};

	if (!s || !s->table || c->skb || find_percpu(c))
		return;
	w.c = c;
	w.slot = slot;
	bpf_loop(s->blocks, copy_block, &w, 0);
	if (w.failed)
		return;
	c->slot = slot;
	c->foreign_before = c->foreign;
	if (si)
		si->counted_on = bpf_get_smp_processor_id() + 1;
	c->skb = skb;
}

/* the packet's rank in this hook: how many observers it has met before */
static __always_inline __u8 observer_rank(const struct packet *p, __u8 direction, __u32 netns, __u8 pf, __u8 hook)
{
	__u64 skb = p->skb;
	struct skb_info *si = bpf_map_lookup_elem(&skbs, &skb);

	if (!si) {
		struct skb_info new = {.netns = netns, .direction = direction, .identity = p->identity, .hook_netns = netns, .pf = pf, .hook = hook, .rank = 1};

		bpf_map_update_elem(&skbs, &skb, &new, BPF_ANY);
		return 0;
	}
	si->identity = p->identity;
	if (si->hook_netns != netns || si->pf != pf || si->hook != hook) {
		si->hook_netns = netns;
		si->pf = pf;
		si->hook = hook;
		si->rank = 0;
	}
	return si->rank++;
}

SEC("netfilter")
int observe(struct bpf_nf_ctx *ctx)
{
	const struct nf_hook_state *state = ctx->state;
	struct sk_buff *skb = ctx->skb;
	struct xt_cpu *c = xt_cpu();
	struct xt_hook key = {};
	struct packet p = {};
	struct event *e;
	__u32 *slot;
	__u8 d;

	if (!c || !probe.on)
		return 1;
	d = match_skb(skb, &p);
	if (!d) {
		c->foreign++;
		return 1;
	}
	counters_end((__u64)skb);
	if (c->skb) /* the walk of another is over, or it caused this one: a REJECT's answer */
		counters_finish(bpf_get_smp_processor_id());
	key.netns = BPF_CORE_READ(state, net, ns.inum);
	key.pf = state->pf;
	key.hook = state->hook;
	key.rank = observer_rank(&p, d, key.netns, key.pf, key.hook);
	e = event_bare(KIND_HOOK, d);
	if (e) {
		event_packet(e, &p);
		e->skb = (__u64)skb;
		e->netns = key.netns;
		e->pf = key.pf;
		e->hook = key.hook;
		e->err = key.rank;
		e->mark = skb->mark;
		event_device(e, BPF_CORE_READ(skb, dev));
		event_steered(e, skb);
		bpf_ringbuf_submit(e, 0);
	}
	slot = bpf_map_lookup_elem(&xt_hooks, &key);
	if (!slot)
		return 1;
	c->netns = key.netns;
	c->direction = d;
	c->pf = key.pf;
	c->hook = key.hook;
	counters_begin(c, *slot, (__u64)skb);
	return 1;
}

#endif
