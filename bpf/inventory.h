/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Programs that user space runs by BPF_PROG_TEST_RUN: they attach to nothing,
 * see no packet, and read what no file shows.
 */
#ifndef PATHTRACE_INVENTORY_H
#define PATHTRACE_INVENTORY_H

#define MAX_NETNS   16384
#define MAX_DEVICES 4096
#define MAX_HOOKS   1024
#define SYMBOLS     64

#define container_of_list(ptr, type, member) ((type *)((void *)(ptr)-bpf_core_field_offset(type, member)))

/* the first eight letters tell the function: "nft_do_c", "ipt_do_t", "ip6t_do_", "iptable_", "ip6table", "nft_nat_", "nf_nat_i" */
static __always_inline int begins(const char *name, const char *with)
{
	return *(const __u64 *)name == *(const __u64 *)with;
}

struct inv {
	struct net *net;
	struct net *first;
	const struct proc_ns_operations *ops;
	struct nf_hook_entries *entries;
	struct net_device *dev;
	__u64 ops_of_nat; /* inv_nat: the nf_hook_ops of the NAT core's function */
	__u32 wanted; /* inode; 0: one record for each namespace that has hooks */
	__u32 init;   /* inode of the initial namespace: the one behind the head of the list */
	__u32 behind_head;
	__u32 inum;
	__u32 num;
	__u32 count;
	__u8 pf;
	__u8 hook;
};

enum { INV_LOST = -1, INV_NAT = 1 };

/*
 * Writes one registered function down. A function of its own, of plain numbers,
 * so that it is verified once. where: netns << 32 | flags << 16 | pf << 8 | hook.
 * Returns INV_NAT for one of the NAT core, which has a list of its own.
 */
__noinline int inv_record(__u64 function, __u64 priv, __u64 ops, __u64 dev, __u64 where)
{
	struct event *e = event_bare(KIND_NF_HOOK, 0);
	int nat;

	if (!e)
		return INV_LOST;
	e->netns = where >> 32;
	e->flags = where >> 16;
	e->pf = where >> 8;
	e->hook = where;
	e->function = function;
	e->skb = priv;
	e->err = ops ? BPF_CORE_READ((struct nf_hook_ops *)ops, priority) : 0;
	event_device(e, (struct net_device *)dev);
	BPF_SNPRINTF(e->text.function, sizeof(e->text.function), "%ps", function);
	/* types of modules that are not loaded: such hooks cannot be there */
	if (bpf_core_type_exists(struct nft_chain) &&
	    (begins(e->text.function, "nft_do_chain") || begins(e->text.function, "nft_nat_do_chain") ||
	     begins(e->text.function, "nf_route_table_"))) { /* chains of type route */
		struct nft_chain *chain = (void *)priv;
		struct nft_table *table = BPF_CORE_READ(chain, table);

		bpf_probe_read_kernel_str(e->text.chain, sizeof(e->text.chain), BPF_CORE_READ(chain, name));
		bpf_probe_read_kernel_str(e->text.table, sizeof(e->text.table), BPF_CORE_READ(table, name));
		e->family = BPF_CORE_READ_BITFIELD_PROBED(table, family);
	} else if (bpf_core_type_exists(struct xt_table) &&
		   (begins(e->text.function, "ipt_do_table") || begins(e->text.function, "ip6t_do_table") ||
		    begins(e->text.function, "iptable_mangle_hook") || begins(e->text.function, "ip6table_mangle_hook"))) {
		struct xt_table *table = (void *)priv;

		bpf_probe_read_kernel_str(e->text.table, sizeof(e->text.table), &table->name);
	}
	nat = begins(e->text.function, "nf_nat_ipv");
	bpf_ringbuf_submit(e, 0);
	return nat ? INV_NAT : 0;
}

/* the chains and tables of type nat: the NAT core calls them, at the place of its own hook function */
static long inv_nat(__u32 i, struct inv *v)
{
	void *base = (void *)v->entries + bpf_core_field_offset(struct nf_hook_entries, hooks);
	struct nf_hook_entry he = {};

	if (i >= v->num)
		return 1;
	bpf_probe_read_kernel(&he, sizeof(he), base + i * sizeof(he));
	return inv_record((__u64)he.hook, (__u64)he.priv, v->ops_of_nat, 0,
			  (__u64)v->inum << 32 | EV_NESTED << 16 | v->pf << 8 | v->hook) == INV_LOST;
}

static __always_inline void inv_nat_list(struct inv *v, void *priv, __u64 ops)
{
	struct nf_hook_entries *entries;
	struct inv nested = {};

	if (!bpf_core_type_exists(struct nf_nat_lookup_hook_priv))
		return;
	entries = BPF_CORE_READ((struct nf_nat_lookup_hook_priv *)priv, entries);
	if (!entries)
		return;
	nested.entries = entries;
	nested.num = BPF_CORE_READ(entries, num_hook_entries);
	nested.ops_of_nat = ops;
	nested.inum = v->inum;
	nested.pf = v->pf;
	nested.hook = v->hook;
	if (nested.num <= MAX_HOOKS)
		bpf_loop(nested.num, inv_nat, &nested, 0);
}

static long inv_hook(__u32 i, struct inv *v)
{
	const int size = sizeof(struct nf_hook_entry);
	void *base = (void *)v->entries + bpf_core_field_offset(struct nf_hook_entries, hooks);
	struct nf_hook_entry he = {};
	__u64 ops = 0;
	int what;

	if (i >= v->num)
		return 1;
	bpf_probe_read_kernel(&he, sizeof(he), base + i * size);
	bpf_probe_read_kernel(&ops, sizeof(ops), base + v->num * size + i * 8); /* nf_hook_entries_get_hook_ops() */
	what = inv_record((__u64)he.hook, (__u64)he.priv, ops, (__u64)v->dev, (__u64)v->inum << 32 | v->pf << 8 | v->hook);
	if (what == INV_NAT)
		inv_nat_list(v, he.priv, ops);
	return what == INV_LOST;
}

/*
 * The functions of one hook; returns how many they are. A function of its own,
 * verified once. where: as of inv_record, or 0 when they are only counted.
 */
__noinline int inv_entries(__u64 entries, __u64 dev, __u64 where)
{
	struct inv v = {};

	if (!entries)
		return 0;
	v.entries = (void *)entries;
	v.num = BPF_CORE_READ((struct nf_hook_entries *)entries, num_hook_entries);
	v.dev = (void *)dev;
	v.inum = where >> 32;
	v.pf = where >> 8;
	v.hook = where;
	if (where && v.num <= MAX_HOOKS)
		bpf_loop(v.num, inv_hook, &v, 0);
	return v.num;
}

static __always_inline __u64 inv_where(const struct inv *v, __u8 pf, __u8 hook)
{
	return v->wanted ? (__u64)v->inum << 32 | pf << 8 | hook : 0;
}

/* BPF_CORE_READ relocates every access in its first argument, so structures of ours must stay out of it */
static long inv_device(__u32 i, struct inv *v)
{
	struct net_device *dev = v->dev;
	struct list_head *next;

	if (i) {
		next = BPF_CORE_READ(dev, dev_list.next);
		dev = container_of_list(next, struct net_device, dev_list);
		v->dev = dev;
	}
	if (BPF_CORE_READ(dev, nd_net.net) != v->net)
		return 1; /* back at the head of the list */
	if (bpf_core_field_exists(struct net_device, nf_hooks_ingress))
		v->count += inv_entries((__u64)BPF_CORE_READ(dev, nf_hooks_ingress), (__u64)dev, inv_where(v, 5, 0));
	if (bpf_core_field_exists(struct net_device, nf_hooks_egress))
		v->count += inv_entries((__u64)BPF_CORE_READ(dev, nf_hooks_egress), (__u64)dev, inv_where(v, 5, 1));
	return 0;
}

/* the i-th list of hooks: five of IPv4, five of IPv6, three of ARP, five of bridges */
static long inv_list(__u32 i, struct inv *v)
{
	struct nf_hook_entries *entries = 0;
	struct net *net = v->net;
	__u32 hook = i % 5;
	void *list = 0;
	__u8 pf = 2;

	if (i < 5) {
		list = &net->nf.hooks_ipv4;
	} else if (i < 10) {
		list = &net->nf.hooks_ipv6;
		pf = 10;
	} else if (i < 15 && hook < 3 && bpf_core_field_exists(struct netns_nf, hooks_arp)) {
		list = &net->nf.hooks_arp;
		pf = 3;
	} else if (i >= 15 && bpf_core_field_exists(struct netns_nf, hooks_bridge)) {
		list = &net->nf.hooks_bridge;
		pf = 7;
	}
	if (list && !bpf_probe_read_kernel(&entries, sizeof(entries), list + hook * sizeof(entries)))
		v->count += inv_entries((__u64)entries, 0, inv_where(v, pf, hook));
	return 0;
}

static long inv_net(__u32 i, struct inv *v)
{
	struct net *net = v->net;
	struct list_head *next;

	if (i) {
		next = BPF_CORE_READ(net, list.next);
		net = container_of_list(next, struct net, list);
		v->net = net;
	}
	if (BPF_CORE_READ(net, ns.ops) != v->ops) { /* the head of the list is no namespace */
		v->behind_head = 1;
		return 0;
	}
	v->inum = BPF_CORE_READ(net, ns.inum);
	if (v->behind_head) {
		v->init = v->inum;
		v->behind_head = 0;
	}
	if (i && net == v->first)
		return 1;
	if (v->wanted && v->inum != v->wanted)
		return 0;
	v->count = 0;
	bpf_loop(20, inv_list, v, 0);
	next = BPF_CORE_READ(net, dev_base_head.next);
	v->dev = container_of_list(next, struct net_device, dev_list);
	bpf_loop(MAX_DEVICES, inv_device, v, 0);
	v->dev = 0;
	if (!v->wanted && v->count) {
		struct event *e = event_open(KIND_NF_HOOK, 0);

		if (!e)
			return 1;
		e->netns = v->inum;
		e->length = v->count;
		bpf_ringbuf_submit(e, 0);
	}
	return v->wanted != 0;
}

/*
 * args: inode of a namespace, or 0 for one record for each that has netfilter hooks; and 0.
 * Returns, for 0, the inode of the initial namespace.
 *
 * The verifier of 6.1 goes over the body of bpf_loop() once, and takes branches out that
 * the first round does not take: it must not know what behind_head begins with.
 */
SEC("raw_tp")
int inventory(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct net *net = BPF_CORE_READ(task, nsproxy, net_ns);
	struct inv v = {};

	v.net = net;
	v.first = net;
	v.ops = BPF_CORE_READ(net, ns.ops);
	v.wanted = ctx->args[0];
	v.behind_head = ctx->args[1];
	bpf_loop(MAX_NETNS, inv_net, &v, 0);
	return v.init;
}

struct symbol {
	__u64 address;
	char name[64];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SYMBOLS);
	__type(key, __u32);
	__type(value, struct symbol);
} symbols SEC(".maps");

static long name_symbol(__u32 i, void *unused)
{
	struct symbol *s = bpf_map_lookup_elem(&symbols, &i);
	__u64 arg;

	if (!s)
		return 1;
	arg = s->address;
	if (arg)
		BPF_SNPRINTF(s->name, sizeof(s->name), "%ps", arg);
	return 0;
}

/* args: how many of symbols[] to name; kallsyms need not be read (bpf_snprintf %ps, since 5.13) */
SEC("raw_tp")
int symbolize(struct bpf_raw_tracepoint_args *ctx)
{
	bpf_loop(ctx->args[0], name_symbol, 0, 0);
	return 0;
}

struct xt_arm {
	void *entry;
	__u32 slot;
	__u32 pcnt; /* offset in the entry */
	__u32 blocks;
	__u32 failed;
};

/* ipt_entry and ip6t_entry are user ABI: next_offset follows target_offset, counters come at 96 and 152 */
static long arm_entry(__u32 i, struct xt_arm *a)
{
	__u16 next = 0;

	if (i % XT_PER_BLOCK == 0) {
		struct xt_block *b = xt_block(a->slot, i / XT_PER_BLOCK);

		if (!b || bpf_probe_read_kernel(&b->pcnt, 8, a->entry + a->pcnt)) {
			a->failed = 1;
			return 1;
		}
		a->blocks++;
	}
	if (bpf_probe_read_kernel(&next, 2, a->entry + (a->pcnt == 96 ? 90 : 142)) || !next) {
		a->failed = 1;
		return 1;
	}
	a->entry += next;
	return 0;
}

/*
 * args: struct xt_table, slot, 4 or 6. Looks a table up, so that its counters can be read. Returns how many
 * blocks of counters it has, so that their map can be made, when the slot has no map yet or is out of range;
 * 0 when the table cannot be followed.
 */
SEC("raw_tp")
int arm_table(struct bpf_raw_tracepoint_args *ctx)
{
	struct xt_table *t = (void *)ctx->args[0];
	__u32 slot = ctx->args[1], number;
	struct xt_table_info *info;
	struct xt_arm a = {};
	struct xt_slot *s;

	if (!bpf_core_type_exists(struct xt_table))
		return 0;
	info = BPF_CORE_READ(t, private);
	number = BPF_CORE_READ(info, number);
	s = bpf_map_lookup_elem(&xt_slots, &slot);
	if (!s || !xt_block(slot, 0))
		return (number + XT_PER_BLOCK - 1) / XT_PER_BLOCK;
	a.entry = (void *)info + bpf_core_field_offset(struct xt_table_info, entries);
	a.slot = slot;
	a.pcnt = ctx->args[2] == 6 ? 152 : 96;
	bpf_loop(number, arm_entry, &a, 0);
	if (a.failed || (__u64)BPF_CORE_READ(t, private) != (__u64)info)
		return 0;
	s->private = (__u64)info;
	s->entries = number;
	s->blocks = a.blocks;
	s->table = (__u64)t;
	return a.blocks;
}

#endif
