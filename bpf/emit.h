/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Filling and handing over events. */
#ifndef PATHTRACE_EMIT_H
#define PATHTRACE_EMIT_H

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* bpf2go makes the Go twin of what is used as a type. */
const struct event *unused_event __attribute__((unused));
const struct probe_key *unused_key __attribute__((unused));
const struct wrap_event *unused_wrap __attribute__((unused));

__u64 lost; /* events that found no room */

/* An event without its task: netfilter programs may not ask for that on every kernel. */
static __always_inline struct event *event_bare(__u8 kind, __u8 direction)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time = bpf_ktime_get_ns();
	e->kind = kind;
	e->direction = direction;
	e->cpu = bpf_get_smp_processor_id();
	return e;
}

static __always_inline struct event *event_open(__u8 kind, __u8 direction)
{
	struct event *e = event_bare(kind, direction);

	if (!e)
		return 0;
	e->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	return e;
}

/* the process by the name that ps shows: a thread may have one of its own */
static __always_inline void event_process(struct event *e, struct task_struct *task)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	bpf_probe_read_kernel_str(e->comm, sizeof(e->comm), &leader->comm);
}

static __always_inline void event_packet(struct event *e, const struct packet *p)
{
	e->flags |= EV_PACKET | (p->fragment ? EV_FRAGMENT : 0);
	e->family = p->family;
	e->proto = p->t.proto;
	e->tcp_flags = p->tcp_flags;
	e->carries = p->carries;
	e->ttl = p->ttl;
	e->icmp_type = p->icmp_type;
	e->icmp_code = p->icmp_code;
	e->sport = bpf_ntohs(p->t.sport);
	e->dport = bpf_ntohs(p->t.dport);
	e->length = p->length;
	e->ip_id = p->ip_id;
	e->seq = p->seq;
	e->ack = p->ack;
	__builtin_memcpy(e->saddr, p->t.saddr, 16);
	__builtin_memcpy(e->daddr, p->t.daddr, 16);
}

static __always_inline __u32 dev_netns(struct net_device *dev)
{
	return dev ? BPF_CORE_READ(dev, nd_net.net, ns.inum) : 0;
}

static __always_inline __u32 sock_netns(const struct sock *sk)
{
	return sk ? BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum) : 0;
}

static __always_inline void event_device(struct event *e, struct net_device *dev)
{
	if (!dev)
		return;
	e->ifindex = BPF_CORE_READ(dev, ifindex);
	bpf_probe_read_kernel_str(e->device, sizeof(e->device), &dev->name);
}

/* addresses of a socket as 16 bytes */
static __always_inline void sock_addresses(const struct sock *sk, __u8 *local, __u8 *remote)
{
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == 2) {
		__u32 l = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr), r = BPF_CORE_READ(sk, __sk_common.skc_daddr);

		map_v4(local, (__u8 *)&l);
		map_v4(remote, (__u8 *)&r);
		return;
	}
	bpf_probe_read_kernel(local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
	bpf_probe_read_kernel(remote, 16, &sk->__sk_common.skc_v6_daddr);
}

/* A socket that is being closed has given up skc_num, but still knows its port. */
static __always_inline __u16 sock_port(const struct sock *sk)
{
	__u16 port = bpf_htons(BPF_CORE_READ(sk, __sk_common.skc_num));
	__u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);

	/* TIME_WAIT (6) and NEW_SYN_RECV (12) are no inet_sock */
	if (!port && state != 6 && state != 12)
		port = BPF_CORE_READ((struct inet_sock *)sk, inet_sport);
	return port;
}

static __always_inline void event_sock(struct event *e, const struct sock *sk)
{
	__u8 remote[16];

	if (!sk)
		return;
	e->flags |= EV_SOCKET;
	e->sock_state = BPF_CORE_READ(sk, __sk_common.skc_state);
	e->sock_port = bpf_ntohs(sock_port(sk));
	sock_addresses(sk, e->sock_addr, remote);
	/* the fields below exist in full sockets only: not in TIME_WAIT (6) or NEW_SYN_RECV (12) */
	if (e->sock_state == 6 || e->sock_state == 12)
		return;
	e->queue = BPF_CORE_READ(sk, sk_ack_backlog);
	e->backlog = BPF_CORE_READ(sk, sk_max_ack_backlog);
	if (BPF_CORE_READ(sk, sk_filter))
		e->flags |= EV_FILTER;
	if (BPF_CORE_READ(sk, __sk_common.skc_flags) & 1UL << bpf_core_enum_value(enum sock_flags, SOCK_LINGER) &&
	    !BPF_CORE_READ(sk, sk_lingertime))
		e->flags |= EV_ABORTS;
}

/*
 * The listening socket that a packet was handed to before the stack looks for
 * one, by TPROXY or by a program with bpf_sk_assign(). The stack itself puts
 * connected sockets there only.
 */
static __always_inline void event_steered(struct event *e, const struct sk_buff *skb)
{
	const struct sock *sk = BPF_CORE_READ(skb, sk);

	if (sk && BPF_CORE_READ(sk, __sk_common.skc_state) == 10 /* TCP_LISTEN, of no UDP socket */)
		event_sock(e, sk);
}

/* The packet of ours that this CPU is working on in softirq, on top of a task. */
struct current_skb {
	__u64 skb;
	__u64 task; /* another that runs meanwhile, or after a packet that no NAPI brought, works on its own */
	__u32 netns;
	__u32 ifindex;
	__u32 direction;
	__u32 pad;
	__u8 device[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct current_skb);
} current_skbs SEC(".maps");

static __always_inline struct current_skb *current_skb(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&current_skbs, &zero);
}

/* what the CPU works on, if that is a packet of ours */
static __always_inline struct current_skb *skb_in_hand(void)
{
	struct current_skb *cur = current_skb();

	return cur && cur->skb && cur->task == bpf_get_current_task() ? cur : 0;
}

/* whether another buffer holds the same headers; a sender's own, kept for sending again, does not count */
static __always_inline int has_copy(struct sk_buff *skb)
{
	struct skb_shared_info *info = (void *)BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, end);
	__u32 refs = BPF_CORE_READ(info, dataref.counter); /* all in the low half, those of the payload only in the high half */

	return (refs & 0xffff) - (refs >> 16) > 1;
}

#define PACKET_OTHERHOST 3

/* bridges and the like take frames by rx_handler, VLAN devices have link addresses of their own */
static __always_inline int for_other_host(struct sk_buff *skb)
{
	return BPF_CORE_READ_BITFIELD_PROBED(skb, pkt_type) == PACKET_OTHERHOST && !BPF_CORE_READ(skb, dev, rx_handler) &&
	       !BPF_CORE_READ(skb, vlan_proto);
}

/* a packet of ours: its buffer, device and namespace, remembered for when the device is gone */
static __always_inline struct event *event_skb(__u8 kind, __u8 direction, struct sk_buff *skb, const struct packet *p)
{
	struct event *e = event_open(kind, direction);
	__u64 key = (__u64)skb;
	struct skb_info *si;
	struct sock *sk;

	if (!e)
		return 0;
	event_packet(e, p);
	e->skb = key;
	e->mark = BPF_CORE_READ(skb, mark);
	sk = BPF_CORE_READ(skb, sk);
	event_device(e, BPF_CORE_READ(skb, dev));
	e->netns = dev_netns(BPF_CORE_READ(skb, dev));
	if (!e->netns)
		e->netns = sock_netns(sk);
	si = bpf_map_lookup_elem(&skbs, &key);
	if (si && !e->netns) {
		e->netns = si->netns;
		e->ifindex = si->ifindex;
	}
	if (!e->netns) { /* made in answer to the packet in hand: a firewall's RST */
		struct current_skb *cur = skb_in_hand();

		if (cur)
			e->netns = cur->netns;
	}
	if (si) {
		si->netns = e->netns;
		si->ifindex = e->ifindex;
		si->identity = p->identity;
	} else {
		struct skb_info new = {.netns = e->netns, .ifindex = e->ifindex, .direction = direction, .identity = p->identity};

		bpf_map_update_elem(&skbs, &key, &new, BPF_ANY);
	}
	return e;
}

static __always_inline void event_stack(void *ctx, struct event *e)
{
	bpf_get_stack(ctx, e->stack, sizeof(e->stack), 0);
}

#define event_send(e) bpf_ringbuf_submit(e, 0)

#endif
