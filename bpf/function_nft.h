/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * nftables by its own functions. nft_do_chain() runs a base chain for a packet
 * and calls the evaluator of each expression; one that leaves another verdict
 * than "go on" has decided, and the rule around it is the rule that matched.
 *
 * struct nft_pktinfo lies on the stack of nft_do_chain()'s caller and is handed
 * to every evaluator: its address tells nested runs apart (the RST of a reject
 * passes OUTPUT inside INPUT), and stays when the packet's task is moved.
 */
#ifndef PATHTRACE_FUNCTION_NFT_H
#define PATHTRACE_FUNCTION_NFT_H

#define NFT_CONTINUE -1
#define NFT_BREAK    -2
#define NFT_JUMP     -3
#define NFT_GOTO     -4

#define NFT_DEPTH    16 /* NFT_JUMP_STACK_SIZE */
#define NFT_LEVELS   32 /* a power of two above it */
#define NFT_RULES    (1 << 22)
#define NFT_NAME     256 /* NFT_NAME_MAXLEN */

/* One step of a packet's way through a ruleset; its names stand behind the fixed part. */
struct nft_event {
	struct event e;
	char table[NFT_NAME];
	char chain[NFT_NAME];
	char target[NFT_NAME];
};

struct nft_level {
	__u64 chain;
	/* struct nft_rule_blob: both generations of its rules when it was entered; a commit frees neither before the run ends */
	__u64 blob[2];
};

struct nft_run {
	__u64 skb;
	__u32 netns;
	__u32 depth;
	__u8 direction;
	__u8 pf;
	__u8 hook;
	__u8 ended;
	__u64 base; /* struct nft_chain; a goto replaces it in levels[] */
	__u64 last; /* when the last step was seen, CLOCK_MONOTONIC, ns */
	struct packet p;
	struct nft_level levels[NFT_LEVELS];
};

/*
 * No LRU: that evicts entries in use, a whole batch of 128 at once, as soon as a
 * CPU finds no free one of its own. A REJECT's answer would end the run around it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 128);
	__type(key, __u64); /* struct nft_pktinfo */
	__type(value, struct nft_run);
} nft_runs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nft_run);
} nft_new SEC(".maps");

__u32 nft_running; /* runs for packets of ours: 0 is one load for everybody else */

const struct nft_event *unused_nft_event __attribute__((unused));

static __always_inline struct nft_level *nft_level(struct nft_run *run, __u32 i)
{
	asm volatile("%0 &= 31" : "+r"(i));
	return &run->levels[i];
}

static __always_inline void nft_descend(struct nft_run *run, __u32 depth, struct nft_chain *chain)
{
	struct nft_level *l = nft_level(run, depth);

	l->chain = (__u64)chain;
	l->blob[0] = (__u64)BPF_CORE_READ(chain, blob_gen_0);
	l->blob[1] = (__u64)BPF_CORE_READ(chain, blob_gen_1);
	run->depth = depth;
}

/* The run of a packet of ours that this nft_pktinfo belongs to: the address may be another run's by now. */
static __always_inline struct nft_run *nft_run_of(__u64 pkt)
{
	struct nft_run *run = bpf_map_lookup_elem(&nft_runs, &pkt);

	return run && (__u64)BPF_CORE_READ((struct nft_pktinfo *)pkt, skb) == run->skb ? run : 0;
}

/* returns whether the packet is one of ours */
static __always_inline int nft_enter(__u64 pkt, __u64 chain)
{
	struct nft_pktinfo *info = (void *)pkt;
	const struct nf_hook_state *state;
	struct nft_run *run;
	__u32 zero = 0;
	__u64 skb;
	__u8 d;

	if (!probe.on)
		return 0;
	run = bpf_map_lookup_elem(&nft_new, &zero);
	if (!run)
		return 0;
	__builtin_memset(&run->p, 0, sizeof(run->p));
	skb = (__u64)BPF_CORE_READ(info, skb);
	d = match_address(skb, &run->p);
	if (!d) {
		if (nft_running)
			bpf_map_delete_elem(&nft_runs, &pkt);
		return 0;
	}
	state = BPF_CORE_READ(info, state);
	run->skb = skb;
	run->netns = BPF_CORE_READ(state, net, ns.inum);
	run->direction = d;
	run->pf = BPF_CORE_READ(state, pf);
	run->hook = BPF_CORE_READ(state, hook);
	run->ended = 0;
	run->base = chain;
	run->last = bpf_ktime_get_ns();
	nft_descend(run, 0, (struct nft_chain *)chain);
	if (bpf_map_update_elem(&nft_runs, &pkt, run, BPF_ANY))
		return 0;
	__sync_fetch_and_add(&nft_running, 1);
	return 1;
}

/* Where an expression stands. */
struct nft_search {
	struct nft_run *run;
	__u64 expr;
	__u64 at;
	__u64 handle;
	__u32 depth;
	__u32 number;
	__u32 found;
};

static __always_inline int nft_within(__u64 expr, __u64 address)
{
	struct nft_rule_blob *blob = (void *)address;
	__u64 data = address + bpf_core_field_offset(struct nft_rule_blob, data);

	return blob && expr >= data && expr < data + BPF_CORE_READ(blob, size);
}

/* the innermost chain that holds the expression: those further in were left at their end, which no function shows */
static long nft_owner(__u32 i, struct nft_search *s)
{
	__u32 depth = s->depth - i;
	struct nft_level *l;

	if (i > s->depth)
		return 1;
	l = nft_level(s->run, depth);
	for (int gen = 0; gen < 2; gen++) {
		if (!nft_within(s->expr, l->blob[gen]))
			continue;
		s->at = l->blob[gen] + bpf_core_field_offset(struct nft_rule_blob, data);
		s->depth = depth;
		return 1;
	}
	return 0;
}

#define rule_info(field, info) __builtin_preserve_field_info(((struct nft_rule_dp *)0)->field, BPF_FIELD_##info)
#define rule_bits(head, field) ((head) << rule_info(field, LSHIFT_U64) >> rule_info(field, RSHIFT_U64))

/* Rules stand one behind the other: a head, and as many bytes of expressions as it says. */
static long nft_rule(__u32 i, struct nft_search *s)
{
	__u64 head, next;

	if (bpf_probe_read_kernel(&head, sizeof(head), (void *)s->at + rule_info(handle, BYTE_OFFSET)) || rule_bits(head, is_last))
		return 1;
	s->number++;
	next = s->at + bpf_core_field_offset(struct nft_rule_dp, data) + rule_bits(head, dlen);
	if (s->expr < next) {
		s->handle = rule_bits(head, handle);
		s->found = 1;
		return 1;
	}
	s->at = next;
	return 0;
}

static __always_inline struct nft_event *nft_event(struct nft_run *run, __u64 address, __s32 verdict)
{
	struct nft_chain *chain = (void *)address;
	struct nft_event *r = bpf_ringbuf_reserve(&events, sizeof(*r), 0);
	struct nft_table *table;

	if (!r) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	__builtin_memset(&r->e, 0, sizeof(r->e));
	r->e.time = bpf_ktime_get_ns();
	r->e.kind = KIND_NFT;
	r->e.cpu = bpf_get_smp_processor_id();
	r->e.direction = run->direction;
	r->e.skb = run->skb;
	r->e.netns = run->netns;
	r->e.pf = run->pf;
	r->e.hook = run->hook;
	r->e.err = verdict;
	event_packet(&r->e, &run->p);
	r->target[0] = 0;
	table = BPF_CORE_READ(chain, table);
	r->e.count = BPF_CORE_READ_BITFIELD_PROBED(table, family);
	bpf_probe_read_kernel_str(r->table, sizeof(r->table), BPF_CORE_READ(table, name));
	bpf_probe_read_kernel_str(r->chain, sizeof(r->chain), BPF_CORE_READ(chain, name));
	return r;
}

/* after an evaluator: what it left behind, and which rule it stands in */
static __always_inline int nft_evaluated(__u64 expr, __u64 regs, __u64 pkt)
{
	struct nft_search s = {};
	struct nft_verdict verdict = {};
	struct nft_run *run;
	struct nft_event *r;
	struct nft_level *l;

	if (!nft_running)
		return 0;
	run = nft_run_of(pkt);
	if (!run)
		return 0;
	verdict.code = BPF_CORE_READ((struct nft_regs *)regs, verdict.code);
	if ((__s32)verdict.code == NFT_CONTINUE || (__s32)verdict.code == NFT_BREAK)
		return 0;
	verdict.chain = BPF_CORE_READ((struct nft_regs *)regs, verdict.chain);
	s.run = run;
	s.expr = expr;
	s.depth = run->depth;
	bpf_loop(NFT_LEVELS, nft_owner, &s, 0);
	if (s.at)
		bpf_loop(NFT_RULES, nft_rule, &s, 0);
	if ((__s32)verdict.code >= 0)
		run->ended = 1;
	run->depth = s.depth;
	l = nft_level(run, s.depth);
	r = nft_event(run, l->chain, verdict.code);
	if (r) {
		r->e.function = s.handle;
		r->e.table = s.number;
		if (!s.found)
			r->e.xt_flags |= NFT_UNTOLD;
		if ((__s32)verdict.code == NFT_JUMP || (__s32)verdict.code == NFT_GOTO)
			bpf_probe_read_kernel_str(r->target, sizeof(r->target), BPF_CORE_READ(verdict.chain, name));
		run->last = r->e.time;
		bpf_ringbuf_submit(r, 0);
	}
	if ((__s32)verdict.code == NFT_JUMP && s.depth < NFT_DEPTH)
		nft_descend(run, s.depth + 1, verdict.chain);
	if ((__s32)verdict.code == NFT_GOTO)
		nft_descend(run, s.depth, verdict.chain);
	return 0;
}

/*
 * The end of a run that no rule ended is the base chain's policy, if that is
 * what came out. From 6.8 on a drop comes out as NF_STOLEN with an errno above
 * it: the packet is gone by then and must not be looked at, and what decided about
 * it was before that.
 */
static __always_inline int nft_leave(__u64 pkt, __u64 ret)
{
	struct nft_base_chain *base;
	struct nft_run *run;
	struct nft_event *r;
	__u32 policy, result = ret;

	if (!nft_running)
		return 0;
	run = nft_run_of(pkt);
	if (!run)
		return 0;
	if (!run->ended) {
		base = (void *)run->base - bpf_core_field_offset(struct nft_base_chain, chain);
		policy = BPF_CORE_READ(base, policy);
		if ((result & 0xff) == 2 && result >> 16)
			result = 0;
		r = nft_event(run, run->base, result);
		if (r) {
			r->e.time = run->last + 1;
			r->e.xt_flags |= (result & 0xff) == policy ? NFT_POLICY : NFT_UNTOLD;
			bpf_ringbuf_submit(r, 0);
		}
	}
	bpf_map_delete_elem(&nft_runs, &pkt);
	__sync_fetch_and_add(&nft_running, -1);
	return 0;
}

#endif
