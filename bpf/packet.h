/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* From packet buffer to tuple: one read of the headers, whatever lies in between skipped. */
#ifndef PATHTRACE_PACKET_H
#define PATHTRACE_PACKET_H

#define ETH_P_ARP  0x0806
#define ETH_P_IP   0x0800
#define ETH_P_IPV6 0x86DD

#define PROTO_HOPOPTS  0
#define PROTO_ICMP     1
#define PROTO_TCP      6
#define PROTO_UDP      17
#define PROTO_ROUTING  43
#define PROTO_FRAGMENT 44
#define PROTO_AH       51
#define PROTO_ICMPV6   58
#define PROTO_DSTOPTS  60
#define PROTO_ARP      254 /* no IP protocol has it (RFC 3692): stands for ARP in our events */

#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct tuple {
	__u8 saddr[16];
	__u8 daddr[16];
	__u16 sport; /* network byte order here, as in the packet */
	__u16 dport;
	__u8 proto;
	__u8 fragments; /* the ports are the low and high half of the identification: later fragments carry no ports */
	__u8 pad[2];
};

struct packet {
	__u64 skb;
	struct tuple t;
	__u32 seq; /* host order */
	__u32 ack;
	__u16 length;
	__u16 ip_id;
	__u32 frag_id;
	__u32 identity; /* of the headers, what no translation of addresses changes */
	__u8 family;
	__u8 ttl;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 fragment; /* not the first of its datagram */
	__u8 more;     /* fragments follow */
	__u8 carries; /* a tunnel's packet: the protocol of ours that is in it, whose are seq, ack and tcp_flags */
	__u8 quoted; /* t … ack are those of the packet that an ICMP error quotes */
};

static __always_inline void map_v4(__u8 *to, const __u8 *from)
{
	__builtin_memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	__builtin_memcpy(to + 12, from, 4);
}

static __always_inline __u16 be16(const __u8 *p) { return (__u16)p[0] << 8 | p[1]; }
static __always_inline __u32 be32(const __u8 *p) { return (__u32)p[0] << 24 | (__u32)p[1] << 16 | (__u32)p[2] << 8 | p[3]; }

/* ports, sequence numbers, flags of the transport header at l4 */
static __always_inline int read_transport(struct packet *p, __u64 l4)
{
	__u8 h[16] = {};

	if (bpf_probe_read_kernel(h, 8, (void *)l4))
		return -1;
	if (p->t.proto == PROTO_ICMP || p->t.proto == PROTO_ICMPV6) {
		p->icmp_type = h[0];
		p->icmp_code = h[1];
		/* the echo identifier serves as both ports */
		p->t.sport = p->t.dport = *(__u16 *)(h + 4);
		return 0;
	}
	p->t.sport = *(__u16 *)h;
	p->t.dport = *(__u16 *)(h + 2);
	if (p->t.proto != PROTO_TCP)
		return 0;
	p->seq = be32(h + 4);
	if (p->quoted) /* RFC 792 promises eight bytes of it */
		return 0;
	if (bpf_probe_read_kernel(h + 8, 8, (void *)l4 + 8))
		return -1;
	p->ack = be32(h + 8);
	p->tcp_flags = h[13];
	return 0;
}

/* skips IPv6 extension headers; returns the offset of what follows. More than four: not ours. */
static __always_inline __u32 skip_extensions(struct packet *p, __u64 l3)
{
	__u32 off = 40;

#pragma unroll /* the verifier of 6.1 refuses the loop that clang makes of it */
	for (int i = 0; i < 4; i++) {
		__u8 proto = p->t.proto, e[4];

		if (proto != PROTO_HOPOPTS && proto != PROTO_ROUTING && proto != PROTO_FRAGMENT &&
		    proto != PROTO_DSTOPTS && proto != PROTO_AH)
			break;
		if (bpf_probe_read_kernel(e, 4, (void *)l3 + off))
			return 0;
		p->t.proto = e[0];
		if (proto == PROTO_FRAGMENT) {
			__u8 id[4];

			if (bpf_probe_read_kernel(id, 4, (void *)l3 + off + 4))
				return 0;
			p->fragment = (be16(e + 2) & 0xfff8) != 0;
			p->more = e[3] & 1;
			p->frag_id = be32(id);
			off += 8;
		} else {
			off += proto == PROTO_AH ? (e[1] + 2) << 2 : (e[1] + 1) << 3;
		}
	}
	return off;
}

/*
 * Reads the headers that begin at the address l3; returns where the transport
 * header is, 0 when they are not to be read. A function of its own, verified once.
 */
__noinline __u64 read_headers(struct packet *p, __u64 l3, __u32 protocol)
{
	__u32 off = 0;
	__u8 h[40];

	if (!p)
		return 0;
	if (protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_probe_read_kernel(h, 20, (void *)l3) || h[0] >> 4 != 4)
			return 0;
		p->family = 4;
		p->ttl = h[8];
		p->t.proto = h[9];
		p->length = be16(h + 2);
		p->ip_id = be16(h + 4);
		p->frag_id = p->ip_id;
		p->identity = (__u32)p->ip_id << 16 | p->length;
		p->fragment = (be16(h + 6) & 0x1fff) != 0;
		p->more = (h[6] & 0x20) != 0;
		map_v4(p->t.saddr, h + 12);
		map_v4(p->t.daddr, h + 16);
		off = (h[0] & 0xf) << 2;
	} else {
		if (protocol != bpf_htons(ETH_P_IPV6) || bpf_probe_read_kernel(h, 40, (void *)l3) || h[0] >> 4 != 6)
			return 0;
		p->family = 6;
		p->ttl = h[7];
		p->t.proto = h[6];
		p->length = be16(h + 4) + 40;
		p->identity = be32(h) << 12 ^ p->length; /* the flow label */
		__builtin_memcpy(p->t.saddr, h + 8, 16);
		__builtin_memcpy(p->t.daddr, h + 24, 16);
		off = skip_extensions(p, l3);
		if (!off)
			return 0;
	}
	if (!p->fragment && read_transport(p, l3 + off))
		return 0;
	return l3 + off;
}

/* An ICMP error quotes the packet it is about. */
static __always_inline int is_icmp_error(const struct packet *p)
{
	if (p->t.proto == PROTO_ICMP)
		return p->icmp_type == 3 || p->icmp_type == 11 || p->icmp_type == 12 || p->icmp_type == 5;
	return p->t.proto == PROTO_ICMPV6 && p->icmp_type >= 1 && p->icmp_type <= 4;
}

#endif
