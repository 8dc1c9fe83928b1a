/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What TCP does where older kernels have no tracepoint, and accept() nowhere has one. */
#ifndef PATHTRACE_FUNCTION_TCP_H
#define PATHTRACE_FUNCTION_TCP_H

/*
 * A RST in answer to a packet. Where a socket had been found the tracepoint
 * tcp_send_reset tells it; before 6.10 it says nothing of a packet for nobody.
 */
static __always_inline int tcp_reset(__u64 sk, __u64 skb)
{
	struct packet p = {};
	struct event *e;
	__u8 state, d;

	if (!probe.on)
		return 0;
	if (sk) {
		state = BPF_CORE_READ((struct sock *)sk, __sk_common.skc_state);
		if (state != 6 && state != 12) /* TIME_WAIT and NEW_SYN_RECV are no full sockets */
			return 0;
	}
	d = match_address(skb, &p);
	if (!d)
		return 0;
	e = event_skb(KIND_RESET_SENT, d, (struct sk_buff *)skb, &p);
	if (e) {
		event_sock(e, (struct sock *)sk);
		event_send(e);
	}
	return 0;
}

/* Called when accept() has a connection in hand, by its task: a server that slept in accept() when we came is seen, too. */
static __always_inline int tcp_accept(__u64 sk)
{
	struct event *e = event_tcp(KIND_ACCEPT, (struct sock *)sk);

	if (!e)
		return 0;
	event_process(e, (void *)bpf_get_current_task());
	event_send(e);
	return 0;
}

/* The socket that a packet was for, where kfree_skb does not say it (before 6.11). */
static __always_inline int tcp_filter(__u64 sk, __u64 skb)
{
	struct packet p = {};
	struct skb_info *si;

	if (!match_address(skb, &p))
		return 0;
	si = bpf_map_lookup_elem(&skbs, &skb);
	if (si)
		si->sock = sk;
	return 0;
}

#endif
