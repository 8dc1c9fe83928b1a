/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which routing tables were asked for our packets, and which next hops were asked for their link addresses. */
#ifndef PATHTRACE_ROUTE_H
#define PATHTRACE_ROUTE_H

/*
 * Routing. A lookup is ours when this CPU works on a packet of ours, or when our
 * task asks for the way to the target and its port, as connect() does. Without
 * the port it is another's: softirqs run on top of our task too.
 */

__u32 reading; /* our process asks for routes itself, by netlink: not the probe */

/* no lookup of ours, as far as the task and the CPU tell: what most are is told before anything is read */
static __always_inline int foreign_route(void)
{
	return !probe.on || (!skb_in_hand() && (reading || bpf_get_current_pid_tgid() >> 32 != probe.tgid));
}

static __always_inline struct event *event_route(const __u8 *saddr, const __u8 *daddr, __u16 sport, __u16 dport, __u32 iif)
{
	struct current_skb *cur;
	struct event *e;

	cur = skb_in_hand();
	if (!cur && (dport != probe.port || !same16(daddr, probe.target)))
		return 0;
	e = event_open(KIND_ROUTE, cur ? cur->direction : DIR_FORWARD);
	if (!e)
		return 0;
	if (cur) {
		e->skb = cur->skb;
		e->netns = cur->netns;
		if (iif == cur->ifindex) { /* else a lookup for a packet of this host's own: its answer */
			__builtin_memcpy(e->input, cur->device, sizeof(e->input));
			event_steered(e, (void *)cur->skb);
		}
	} else {
		struct task_struct *task = (void *)bpf_get_current_task();

		e->netns = BPF_CORE_READ(task, nsproxy, net_ns, ns.inum);
	}
	__builtin_memcpy(e->saddr, saddr, 16);
	__builtin_memcpy(e->daddr, daddr, 16);
	e->sport = bpf_ntohs(sport);
	e->dport = bpf_ntohs(dport);
	return e;
}

static __always_inline void event_nexthop(struct event *e, struct fib_nh_common *nhc)
{
	__u8 hop[16], direction = e->direction;
	__u32 gw4;

	if (!nhc)
		return;
	event_device(e, BPF_CORE_READ(nhc, nhc_dev));
	if (e->ifindex)
		e->netns = dev_netns(BPF_CORE_READ(nhc, nhc_dev));
	__builtin_memcpy(hop, e->daddr, 16); /* on the link, unless there is a gateway */
	switch (BPF_CORE_READ(nhc, nhc_gw_family)) {
	case 2:
		gw4 = BPF_CORE_READ(nhc, nhc_gw.ipv4);
		map_v4(hop, (__u8 *)&gw4);
		__builtin_memcpy(e->gateway, hop, 16);
		break;
	case 10:
		bpf_probe_read_kernel(hop, 16, &nhc->nhc_gw.ipv6);
		__builtin_memcpy(e->gateway, hop, 16);
		break;
	}
	bpf_map_update_elem(&next_hops, hop, &direction, BPF_ANY);
}

SEC("tp_btf/fib_table_lookup")
int fib_table_lookup(__u64 *ctx)
{
	const struct flowi4 *fl = (void *)ctx[1];
	struct fib_nh_common *nhc = (void *)ctx[2];
	__u8 saddr[16], daddr[16];
	struct event *e;
	__u32 s, d;

	if (foreign_route())
		return 0;
	s = BPF_CORE_READ(fl, saddr);
	d = BPF_CORE_READ(fl, daddr);
	map_v4(saddr, (__u8 *)&s);
	map_v4(daddr, (__u8 *)&d);
	e = event_route(saddr, daddr, BPF_CORE_READ(fl, uli.ports.sport), BPF_CORE_READ(fl, uli.ports.dport),
			BPF_CORE_READ(fl, __fl_common.flowic_iif));
	if (!e)
		return 0;
	e->family = 4;
	e->table = ctx[0];
	e->err = ctx[3];
	e->mark = BPF_CORE_READ(fl, __fl_common.flowic_mark);
	event_nexthop(e, nhc);
	event_send(e);
	return 0;
}

#define RTN_BLACKHOLE	6
#define RTN_UNREACHABLE 7
#define RTN_PROHIBIT	8
#define RTN_THROW	9

SEC("tp_btf/fib6_table_lookup")
int fib6_table_lookup(__u64 *ctx)
{
	const struct net *net = (void *)ctx[0];
	const struct fib6_result *res = (void *)ctx[1];
	const struct fib6_table *table = (void *)ctx[2];
	const struct flowi6 *fl = (void *)ctx[3];
	__u8 saddr[16], daddr[16];
	struct event *e;

	if (foreign_route())
		return 0;
	bpf_probe_read_kernel(saddr, 16, &fl->saddr);
	bpf_probe_read_kernel(daddr, 16, &fl->daddr);
	e = event_route(saddr, daddr, BPF_CORE_READ(fl, uli.ports.sport), BPF_CORE_READ(fl, uli.ports.dport),
			BPF_CORE_READ(fl, __fl_common.flowic_iif));
	if (!e)
		return 0;
	e->family = 6;
	e->netns = BPF_CORE_READ(net, ns.inum);
	e->table = BPF_CORE_READ(table, tb6_id);
	e->mark = BPF_CORE_READ(fl, __fl_common.flowic_mark);
	/* errors as ip6_rt_type_to_error() gives them, but for the null entry: no match in this table */
	if (BPF_CORE_READ(res, f6i) == BPF_CORE_READ(net, ipv6.fib6_null_entry) || !BPF_CORE_READ(res, f6i)) {
		e->err = -11;
	} else {
		switch (BPF_CORE_READ(res, fib6_type)) {
		case RTN_BLACKHOLE:
			e->err = -22;
			break;
		case RTN_UNREACHABLE:
			e->err = -113;
			break;
		case RTN_PROHIBIT:
			e->err = -13;
			break;
		case RTN_THROW:
			e->err = -11;
			break;
		}
		event_nexthop(e, (void *)BPF_CORE_READ(res, nh));
	}
	event_send(e);
	return 0;
}

static __always_inline int neighbor(struct neighbour *n, int err)
{
	struct current_skb *cur; /* softirqs for other packets run on our task too, see event_route() */
	struct event *e;

	if (!probe.on)
		return 0;
	cur = skb_in_hand();
	if (!cur && bpf_get_current_pid_tgid() >> 32 != probe.tgid)
		return 0;
	e = event_open(KIND_NEIGHBOR, cur ? cur->direction : DIR_FORWARD);
	if (!e)
		return 0;
	event_device(e, BPF_CORE_READ(n, dev));
	e->netns = dev_netns(BPF_CORE_READ(n, dev));
	e->nud_state = BPF_CORE_READ(n, nud_state);
	e->err = err;
	if (BPF_CORE_READ(n, tbl, family) == 2) {
		__u32 a = 0;

		bpf_probe_read_kernel(&a, 4, &n->primary_key);
		map_v4(e->gateway, (__u8 *)&a);
	} else {
		bpf_probe_read_kernel(e->gateway, 16, &n->primary_key);
	}
	event_send(e);
	return 0;
}

SEC("tp_btf/neigh_event_send_done")
int neigh_event_send_done(__u64 *ctx) { return neighbor((void *)ctx[0], ctx[1]); }

#endif
