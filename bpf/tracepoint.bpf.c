//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The tracepoint tier: for kernels that refuse kprobes and fentry. One program a hook, a few lines each. */
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/in6.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "kernel.h"
#include "event.h"
#include "packet.h"
#include "match.h"
#include "emit.h"
#include "netfilter.h"
#include "inventory.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Arguments that not every kernel passes; user space looks them up in its BTF. */
const volatile _Bool kfree_has_reason = 1; /* since 5.17 */
const volatile _Bool kfree_has_sock = 1;   /* since 6.11 */
const volatile _Bool reset_has_reason = 1; /* since 6.10 */
const volatile _Bool consume_has_location = 1; /* since 6.3 */
const volatile _Bool has_observers = 1;	   /* since 6.4 */

SEC("tp_btf/netif_receive_skb")
int netif_receive_skb(__u64 *ctx)
{
	struct sk_buff *skb = (void *)ctx[0];
	struct current_skb *cur = current_skb();
	struct packet p = {};
	struct event *e;
	__u8 d = match_skb(skb, &p);

	if (!cur)
		return 0;
	if (!d) {
		cur->skb = 0;
		return 0;
	}
	e = event_skb(KIND_RECEIVE, d, skb, &p);
	if (!e)
		return 0;
	cur->skb = p.t.proto == PROTO_ARP ? 0 : e->skb; /* routes that ARP asks for are not the probe's */
	cur->netns = e->netns;
	cur->ifindex = e->ifindex;
	cur->direction = d;
	__builtin_memcpy(cur->device, e->device, sizeof(cur->device));
	event_send(e);
	return 0;
}

SEC("tp_btf/net_dev_queue")
int net_dev_queue(__u64 *ctx)
{
	struct sk_buff *skb = (void *)ctx[0];
	struct packet p = {};
	struct event *e;
	__u8 d = match_skb(skb, &p);

	if (d && (e = event_skb(KIND_TRANSMIT, d, skb, &p)))
		event_send(e);
	return 0;
}

static __always_inline void forget(__u64 skb)
{
	struct current_skb *cur = current_skb();

	bpf_map_delete_elem(&skbs, &skb);
	if (cur && cur->skb == skb)
		cur->skb = 0;
}

/*
 * What is done whether or not there was room for an event comes after it: the
 * verifier of 6.1 does not remember that an event was looked at before.
 */
SEC("tp_btf/kfree_skb")
int kfree_skb(__u64 *ctx)
{
	struct sk_buff *skb = (void *)ctx[0];
	struct packet p = {};
	struct sock *sk = 0;
	struct event *e;
	__u8 d = match_skb(skb, &p);

	if (!d)
		return 0;
	if (has_observers)
		counters_end((__u64)skb);
	e = event_skb(KIND_DROP, d, skb, &p);
	if (e) {
		e->function = ctx[1];
		if (kfree_has_reason)
			e->reason = ctx[2];
		if (kfree_has_sock)
			sk = (void *)ctx[3];
		event_sock(e, sk ? sk : BPF_CORE_READ(skb, sk));
		if (!e->netns)
			e->netns = sock_netns(sk);
		event_stack(ctx, e);
		event_send(e);
	}
	forget((__u64)skb);
	return 0;
}

SEC("tp_btf/consume_skb")
int consume_skb(__u64 *ctx)
{
	struct sk_buff *skb = (void *)ctx[0];
	struct packet p = {};
	struct event *e;
	__u8 d = match_skb(skb, &p);

	if (!d)
		return 0;
	e = event_skb(KIND_CONSUME, d, skb, &p);
	if (e) {
		if (consume_has_location)
			e->function = ctx[1];
		else
			event_stack(ctx, e);
		event_send(e);
	}
	forget((__u64)skb);
	return 0;
}

static __always_inline void reset_sent(__u64 *ctx, __u32 reason)
{
	struct sk_buff *skb = (void *)ctx[1];
	const struct sock *sk = (void *)ctx[0];
	struct packet p = {};
	struct event *e;
	__u8 d;

	if (skb) {
		d = match_skb(skb, &p);
		if (!d)
			return;
		e = event_skb(KIND_RESET_SENT, d, skb, &p);
	} else {
		if (!probe.on || !sk)
			return;
		p.t.proto = PROTO_TCP;
		sock_addresses(sk, p.t.saddr, p.t.daddr);
		p.t.sport = sock_port(sk);
		p.t.dport = BPF_CORE_READ(sk, __sk_common.skc_dport);
		d = known_flow(&p.t);
		if (!d)
			return;
		e = event_open(KIND_RESET_SENT, d);
	}
	if (!e)
		return;
	e->reason = reason;
	event_sock(e, sk);
	if (!e->netns)
		e->netns = sock_netns(sk);
	event_send(e);
}

SEC("tp_btf/tcp_send_reset")
int tcp_send_reset(__u64 *ctx)
{
	reset_sent(ctx, reset_has_reason ? ctx[2] : 0);
	return 0;
}

/* an event of a TCP socket of ours; NULL when it is not ours */
static __always_inline struct event *event_tcp(__u8 kind, const struct sock *sk)
{
	struct tuple t = {.proto = PROTO_TCP};
	struct event *e;
	__u8 d;

	if (!probe.on)
		return 0;
	t.dport = BPF_CORE_READ(sk, __sk_common.skc_dport);
	t.sport = sock_port(sk);
	sock_addresses(sk, t.saddr, t.daddr);
	d = known_flow(&t);
	if (!d)
		return 0;
	e = event_open(kind, d);
	if (!e)
		return 0;
	e->netns = sock_netns(sk);
	e->sport = bpf_ntohs(t.sport);
	e->dport = bpf_ntohs(t.dport);
	e->proto = PROTO_TCP;
	__builtin_memcpy(e->saddr, t.saddr, 16);
	__builtin_memcpy(e->daddr, t.daddr, 16);
	event_sock(e, sk);
	return e;
}

SEC("tp_btf/tcp_receive_reset")
int tcp_receive_reset(__u64 *ctx)
{
	struct event *e = event_tcp(KIND_RESET_GOT, (void *)ctx[0]);

	if (e)
		event_send(e);
	return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int tcp_retransmit_skb(__u64 *ctx)
{
	struct event *e = event_tcp(KIND_RETRANSMIT, (void *)ctx[0]);

	if (e)
		event_send(e);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int inet_sock_set_state(__u64 *ctx)
{
	const struct sock *sk = (void *)ctx[0];
	struct event *e = event_tcp(KIND_STATE, sk);

	if (!e)
		return 0;
	e->old_state = ctx[1];
	e->new_state = ctx[2];
	event_send(e);
	return 0;
}

SEC("tp_btf/icmp_send")
int icmp_send(__u64 *ctx)
{
	struct sk_buff *skb = (void *)ctx[0];
	struct packet p = {};
	struct event *e;
	__u8 d = match_skb(skb, &p);

	if (!d)
		return 0;
	if (has_observers)
		counters_end((__u64)skb);
	e = event_skb(KIND_ICMP_SENT, d, skb, &p);
	if (!e)
		return 0;
	e->icmp_type = ctx[1];
	e->icmp_code = ctx[2];
	event_stack(ctx, e);
	event_send(e);
	return 0;
}

/*
 * Routing. A lookup is ours when this CPU works on a packet of ours, or when our
 * task asks for the way to the target and its port, as connect() does. Without
 * the port it is another's: softirqs run on top of our task too.
 */

__u32 reading; /* our process asks for routes itself, by netlink: not the probe */

static __always_inline struct event *event_route(const __u8 *saddr, const __u8 *daddr, __u16 sport, __u16 dport, __u32 iif)
{
	struct current_skb *cur;
	struct event *e;

	if (!probe.on || (reading && bpf_get_current_pid_tgid() >> 32 == probe.tgid))
		return 0;
	cur = current_skb();
	if (!cur)
		return 0;
	if (!cur->skb && (bpf_get_current_pid_tgid() >> 32 != probe.tgid || dport != probe.port || !same16(daddr, probe.target)))
		return 0;
	e = event_open(KIND_ROUTE, cur->skb ? cur->direction : DIR_FORWARD);
	if (!e)
		return 0;
	e->skb = cur->skb;
	if (cur->skb) {
		e->netns = cur->netns;
		if (iif == cur->ifindex) /* else a lookup for a packet of this host's own: its answer */
			__builtin_memcpy(e->input, cur->device, sizeof(e->input));
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
	__u32 s = BPF_CORE_READ(fl, saddr), d = BPF_CORE_READ(fl, daddr);
	__u8 saddr[16], daddr[16];
	struct event *e;

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
	cur = current_skb();
	if (!cur || (!cur->skb && bpf_get_current_pid_tgid() >> 32 != probe.tgid))
		return 0;
	e = event_open(KIND_NEIGHBOR, cur->skb ? cur->direction : DIR_FORWARD);
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

static __always_inline int packet_on_socket(__u8 kind, struct sk_buff *skb, const struct sock *sk, int err)
{
	struct packet p = {};
	struct event *e;
	__u8 d = match_skb(skb, &p);

	if (!d || !(e = event_skb(kind, d, skb, &p)))
		return 0;
	e->err = err;
	event_sock(e, sk);
	event_send(e);
	return 0;
}

SEC("tp_btf/tcp_hash_md5_required")
int tcp_hash_md5_required(__u64 *ctx) { return packet_on_socket(KIND_MD5, (void *)ctx[1], (void *)ctx[0], 0); }

SEC("tp_btf/tcp_hash_md5_unexpected")
int tcp_hash_md5_unexpected(__u64 *ctx) { return packet_on_socket(KIND_MD5, (void *)ctx[1], (void *)ctx[0], 0); }

SEC("tp_btf/tcp_hash_md5_mismatch")
int tcp_hash_md5_mismatch(__u64 *ctx) { return packet_on_socket(KIND_MD5, (void *)ctx[1], (void *)ctx[0], 0); }

SEC("tp_btf/udp_fail_queue_rcv_skb")
int udp_fail_queue_rcv_skb(__u64 *ctx) { return packet_on_socket(KIND_QUEUE_FULL, (void *)ctx[2], (void *)ctx[1], ctx[0]); }
