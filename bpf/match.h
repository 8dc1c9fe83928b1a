/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Is it our probe? A TCP probe is known by the initial sequence number that we
 * chose: SYN, SYN-ACK and RST carry it through any NAT and across namespaces.
 * Each packet known by content teaches its tuple; the tuple then tells the
 * packets that follow it. Other probes are known by their tuple from the start;
 * when a translation changes it under way, the buffer's address tells, and the
 * new tuple is learned. Addresses are forgotten with the buffer; some are freed
 * unseen, and the next packet in them has another identity. A tunnel's packet is
 * known by the one that it carries.
 */
#ifndef PATHTRACE_MATCH_H
#define PATHTRACE_MATCH_H

struct probe_key probe = {};

/* Bit sport ^ dport is set when a flow with these ports may be in the map: one load for everybody else. */
__u8 ports_seen[8192];

/*
 * No LRU, here and below: that evicts entries in use, a whole batch of them, as soon
 * as the free list of one CPU is empty. A probe teaches few tuples.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct tuple);
	__type(value, __u8); /* direction */
} flows SEC(".maps");

/* next hops that routes of ours led to: who asks for their link addresses asks for us */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(key_size, 16);
	__type(value, __u8); /* direction */
} next_hops SEC(".maps");

struct skb_info {
	__u32 netns;
	__u32 ifindex;
	__u8 direction;
	/* observers passed in the current hook */
	__u8 hook;
	__u8 pf;
	__u8 rank;
	__u32 hook_netns;
	__u32 counted_on; /* the CPU, plus one, where the counters of an x_tables table were read before it came to that; 0: none */
	__u32 identity; /* of the packet last seen in it */
	__u64 sock; /* that it is for, as far as it was seen */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096); /* a buffer that is freed unseen (a datagram that was read, since 6.18) stays until the trace ends */
	__type(key, __u64);
	__type(value, struct skb_info);
} skbs SEC(".maps");

static __always_inline int same16(const __u8 *a, const __u8 *b)
{
	const __u64 *x = (const void *)a, *y = (const void *)b;

	return x[0] == y[0] && x[1] == y[1];
}

/* the byte of ports_seen for two ports; old verifiers want the bound said, and clang knows better */
static __always_inline __u8 *seen_byte(__u16 x)
{
	__u32 i = x >> 3;

	asm volatile("%0 &= 0x1fff" : "+r"(i));
	return &ports_seen[i];
}

/*
 * Functions that are called from many places are global: the verifier goes over
 * those once for each program, over inlined ones each time (since Linux 5.6).
 * Keys are copied to the stack: kernels before 6.2 take them from there only.
 */
__noinline int learn(const struct tuple *in, __u32 direction)
{
	__u8 there = direction, back = direction == DIR_FORWARD ? DIR_REPLY : DIR_FORWARD;
	struct tuple t, r;
	__u16 x;

	if (!in)
		return 0;
	t = r = *in;
	x = t.sport ^ t.dport;
	*seen_byte(x) |= 1 << (x & 7);
	bpf_map_update_elem(&flows, &t, &there, BPF_ANY);
	__builtin_memcpy(r.saddr, t.daddr, 16);
	__builtin_memcpy(r.daddr, t.saddr, 16);
	r.sport = t.dport;
	r.dport = t.sport;
	bpf_map_update_elem(&flows, &r, &back, BPF_ANY);
	return 0;
}

/* An answer to a datagram may come from another address of the server: such a flow has none (see Follow in tracer). */
__noinline int known_flow(const struct tuple *in)
{
	struct tuple t;
	__u16 x;
	__u8 *d;

	if (!in)
		return DIR_NONE;
	x = in->sport ^ in->dport;
	if (!(*seen_byte(x) & 1 << (x & 7)))
		return DIR_NONE;
	t = *in;
	d = bpf_map_lookup_elem(&flows, &t);
	if (!d && t.proto == PROTO_UDP) {
		__builtin_memset(t.saddr, 0, 16);
		d = bpf_map_lookup_elem(&flows, &t);
	}
	return d ? *d : DIR_NONE;
}

static __always_inline __u8 next_hop(const __u8 *address)
{
	__u8 key[16], *d;

	__builtin_memcpy(key, address, 16);
	d = bpf_map_lookup_elem(&next_hops, key);
	return d ? *d : DIR_NONE;
}

static __always_inline void fragment_key(const struct packet *p, struct tuple *t)
{
	*t = p->t;
	t->sport = p->frag_id;
	t->dport = p->frag_id >> 16;
	t->fragments = 1;
}

static __always_inline __u8 match_fragment(const struct packet *p)
{
	struct tuple t;

	fragment_key(p, &t);
	return known_flow(&t);
}

/* direction of a packet whose headers were read, DIR_NONE when it is not ours */
__noinline int match_headers(const struct packet *p)
{
	__u8 d = DIR_NONE;

	if (!p)
		return DIR_NONE;
	if (p->fragment)
		return match_fragment(p);
	if (p->t.proto == PROTO_TCP && probe.proto == PROTO_TCP) {
		if (p->quoted)
			d = p->seq - probe.isn < 65536 ? DIR_FORWARD : DIR_NONE;
		else if ((p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && p->seq == probe.isn)
			d = DIR_FORWARD;
		else if (p->tcp_flags & (TCP_SYN | TCP_RST) && p->tcp_flags & TCP_ACK && p->ack == probe.isn + 1)
			d = DIR_REPLY;
		if (d != DIR_NONE) {
			if (!p->quoted)
				learn(&p->t, d);
			return d;
		}
	}
	d = known_flow(&p->t);
	/* to an address of our own, there and back are one tuple */
	if (d && (p->t.proto == PROTO_ICMP || p->t.proto == PROTO_ICMPV6))
		d = p->icmp_type == 8 || p->icmp_type == 128 ? DIR_FORWARD : DIR_REPLY;
	return d;
}

/* Whether no flow of ours can have the ports at l4. */
static __always_inline int foreign_ports(const __u8 *l4)
{
	__u16 x = *(__u16 *)l4 ^ *(__u16 *)(l4 + 2);

	return !(*seen_byte(x) & 1 << (x & 7));
}

#define PLAIN_IP(h) ((h)[0] == 0x45 && !(be16((h) + 6) & 0x3fff)) /* fragments may have no ports, options move them */

/*
 * Whether the packet is at first sight none of ours: most of a busy host's are told so
 * by one read, of its headers as they mostly are. It must not be true of any that
 * match_packet() would know. What is read past the end of a short packet is still the
 * kernel's: skb_shared_info follows.
 */
static __always_inline int foreign(__u64 l3, __u32 protocol)
{
	__u8 h[56], *l4;
	__u8 proto;

	if (bpf_probe_read_kernel(h, sizeof(h), (void *)l3))
		return 0;
	if (protocol == bpf_htons(ETH_P_IP)) {
		if (!PLAIN_IP(h))
			return 0;
		proto = h[9];
		l4 = h + 20;
	} else {
		proto = h[6];
		l4 = h + 40;
		if (proto != PROTO_TCP && proto != PROTO_UDP)
			return 0; /* extension headers, neighbour discovery */
	}
	if (proto == PROTO_ICMP && probe.proto != PROTO_ICMP) { /* an error quotes the header and the first eight bytes behind it */
		if (!PLAIN_IP(h + 28))
			return l4[0] == 0 || l4[0] == 8; /* an echo quotes nothing */
		if (h[37] != probe.proto)
			return 1;
		return foreign_ports(h + 48) && (h[37] != PROTO_TCP || be32(h + 52) - probe.isn >= 65536);
	}
	if (proto != probe.proto)
		return 1;
	if (proto != PROTO_TCP)
		return 0;
	return foreign_ports(l4) && be32(l4 + 4) != probe.isn && be32(l4 + 8) != probe.isn + 1;
}

/*
 * Reads and judges the packet whose network header is at l3; returns its
 * direction. p holds its outer headers. A function of its own, verified once.
 */
__noinline int match_packet(struct packet *p, __u64 l3, __u32 protocol)
{
	struct skb_info *si;
	__u64 skb;
	struct packet q = {};
	__u64 l4;
	__u8 d;

	if (!p || foreign(l3, protocol))
		return DIR_NONE;
	l4 = read_headers(p, l3, protocol);
	if (!l4)
		return DIR_NONE;
	/* neighbour solicitation and advertisement (RFC 4861): the target address follows eight bytes */
	if (p->t.proto == PROTO_ICMPV6 && (p->icmp_type == 135 || p->icmp_type == 136)) {
		__u8 target[16];

		return bpf_probe_read_kernel(target, 16, (void *)l4 + 8) ? DIR_NONE : next_hop(target);
	}
	if (!is_icmp_error(p)) {
		if (p->t.proto != probe.proto)
			return DIR_NONE;
		d = match_headers(p);
		if (!d && probe.proto != PROTO_TCP && !p->fragment) {
			skb = p->skb;
			si = bpf_map_lookup_elem(&skbs, &skb);
			if (si && si->identity == p->identity) {
				d = si->direction;
				learn(&p->t, d);
			}
		}
		if (d && p->more && !p->fragment) {
			struct tuple t;

			fragment_key(p, &t);
			learn(&t, d);
		}
		return d;
	}
	/* the quoted packet went one way, the error about it goes the other */
	q.quoted = 1;
	if (!read_headers(&q, l4 + 8, protocol) || q.t.proto != probe.proto)
		return DIR_NONE;
	d = match_headers(&q);
	return d == DIR_FORWARD ? DIR_REPLY : d == DIR_REPLY ? DIR_FORWARD : DIR_NONE;
}

/* ARP for Ethernet and IPv4 (RFC 826): sender and target protocol address at 14 and 24 */
__noinline int match_arp(struct packet *p, __u64 l3)
{
	__u8 h[28];

	if (!p || bpf_probe_read_kernel(h, sizeof(h), (void *)l3) || h[4] != 6 || h[5] != 4)
		return DIR_NONE;
	p->family = 4;
	p->t.proto = PROTO_ARP;
	p->length = sizeof(h);
	p->icmp_type = h[7]; /* 1 request, 2 reply */
	map_v4(p->t.saddr, h + 14);
	map_v4(p->t.daddr, h + 24);
	return h[7] == 1 ? next_hop(p->t.daddr) : next_hop(p->t.saddr);
}

/* The same for a tunnel's packet, which carries the one whose network header is at inner. p holds the outer headers then. */
__noinline int match_carried(struct packet *p, __u64 l3, __u32 protocol, __u64 inner)
{
	__u8 version, d;

	if (!p || bpf_probe_read_kernel(&version, 1, (void *)inner))
		return DIR_NONE;
	d = match_packet(p, inner, version >> 4 == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6));
	if (!d)
		return DIR_NONE;
	p->carries = p->t.proto;
	p->fragment = p->more = 0;
	d = read_headers(p, l3, protocol) ? d : DIR_NONE;
	p->identity = 0; /* the tunnel's tuple is not to be learned */
	return d;
}

static __always_inline __u8 match_buffer(__u64 skb, __u32 protocol, __u64 head, __u16 l3, __u16 inner, struct packet *p)
{
	__u8 d;

	p->skb = skb;
	if (protocol == bpf_htons(ETH_P_ARP))
		return match_arp(p, head + l3);
	if (protocol != bpf_htons(ETH_P_IP) && protocol != bpf_htons(ETH_P_IPV6))
		return DIR_NONE;
	d = match_packet(p, head + l3, protocol);
	return d || inner <= l3 ? d : match_carried(p, head + l3, protocol, head + inner);
}

static __always_inline __u8 match_skb(struct sk_buff *skb, struct packet *p)
{
	if (!probe.on)
		return DIR_NONE;
	return match_buffer((__u64)skb, skb->protocol, (__u64)skb->head, skb->network_header, skb->inner_network_header, p);
}

/* the same for a buffer that the verifier does not know as one */
static __always_inline __u8 match_address(__u64 address, struct packet *p)
{
	struct sk_buff *skb = (void *)address;

	if (!probe.on)
		return DIR_NONE;
	return match_buffer(address, BPF_CORE_READ(skb, protocol), (__u64)BPF_CORE_READ(skb, head), BPF_CORE_READ(skb, network_header),
			    BPF_CORE_READ(skb, inner_network_header), p);
}

#endif
