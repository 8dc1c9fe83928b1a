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
#include "route.h"
#include "libwrap.h"

#define TCP_ESTABLISHED 1
#define TCP_CLOSE_WAIT	8
#define PF_EXITING	4

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
	cur->task = bpf_get_current_task();
	cur->netns = e->netns;
	cur->ifindex = e->ifindex;
	cur->direction = d;
	__builtin_memcpy(cur->device, e->device, sizeof(cur->device));
	event_send(e);
	return 0;
}

/*
 * A queue of received packets has been worked off: what the CPU does from here on
 * it does for nobody's packet. A segment that waits in a socket is freed much later.
 */
SEC("tp_btf/napi_poll")
int napi_poll(__u64 *ctx)
{
	struct current_skb *cur = current_skb();

	if (cur)
		cur->skb = 0;
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

/* the socket of a buffer, or the one that was seen to be asked for it */
static __always_inline struct sock *buffer_sock(struct sk_buff *skb)
{
	struct sock *sk = BPF_CORE_READ(skb, sk);
	__u64 key = (__u64)skb;
	struct skb_info *si;

	if (sk)
		return sk;
	si = bpf_map_lookup_elem(&skbs, &key);
	return si ? (struct sock *)si->sock : 0;
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
		if (has_copy(skb))
			e->flags |= EV_COPY;
		if (for_other_host(skb))
			e->flags |= EV_OTHERHOST;
		event_sock(e, sk ? sk : buffer_sock(skb));
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

/* how a connection ends: what it has carried, and whether its process is at its end too */
static __always_inline void event_end(struct event *e, const struct tcp_sock *tp)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	event_process(e, task);
	e->end.received = BPF_CORE_READ(tp, bytes_received);
	e->end.sent = BPF_CORE_READ(tp, bytes_sent);
	e->end.unread = BPF_CORE_READ(tp, rcv_nxt) - BPF_CORE_READ(tp, copied_seq);
	e->end.parent = BPF_CORE_READ(task, real_parent, tgid);
	e->end.exiting = (BPF_CORE_READ(task, flags) & PF_EXITING) != 0;
	e->end.exit_code = BPF_CORE_READ(task, exit_code);
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
	if (e->old_state == TCP_ESTABLISHED || e->old_state == TCP_CLOSE_WAIT)
		event_end(e, (void *)sk);
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

#include "function.h"
