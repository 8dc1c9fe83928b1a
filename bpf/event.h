/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What C and Go share. Every address is 16 bytes in network byte order, IPv4
 * as ::ffff:a.b.c.d; ports, sequence numbers and all else are in host order.
 */
#ifndef PATHTRACE_EVENT_H
#define PATHTRACE_EVENT_H

enum kind {
	KIND_NONE,
	KIND_RECEIVE,
	KIND_TRANSMIT,
	KIND_DROP,
	KIND_CONSUME,
	KIND_HOOK,	  /* an observer between netfilter hooks saw the packet; err is its rank */
	KIND_XTABLES,	  /* rules of an x_tables table that counted the packet */
	KIND_ROUTE,
	KIND_STATE,
	KIND_RESET_SENT,
	KIND_RESET_GOT,
	KIND_ICMP_SENT,
	KIND_NEIGHBOR,
	KIND_NF_HOOK = 15, /* inventory: one registered hook function */
	KIND_RETRANSMIT,  /* a TCP socket of ours sends a segment again */
	KIND_WRAP,	  /* a server asks tcp wrappers about a connection of ours: a struct wrap_event; err is the answer */
	KIND_NFT,	  /* struct nft_event: a rule or a policy of nftables decided */
	KIND_ACCEPT,	  /* a process takes a connection */
};

enum direction { DIR_NONE, DIR_FORWARD, DIR_REPLY };

#define STACK_DEPTH 12
#define MOVED_MAX   48

/* Flags of KIND_XTABLES. */
enum {
	XT_FOREIGN = 2,	    /* another packet ran on this CPU in between */
	XT_UNREADABLE = 4,  /* counters could not be read */
	XT_REPLACED = 8,    /* the table was replaced after it was looked at */
	XT_MORE = 16,	    /* one of several events of the same reading */
};

/* Flags of struct event. */
enum {
	EV_SOCKET = 1,	  /* sock_* hold */
	EV_FILTER = 2,	  /* the socket has a filter */
	EV_FRAGMENT = 4,  /* not a first fragment: no ports */
	EV_PACKET = 8,	  /* saddr … seq hold */
	EV_ABORTS = 16,	  /* SO_LINGER with no time: close() resets */
	EV_COPY = 32,	  /* another buffer still has the same packet: it was flooded, mirrored or captured */
	EV_OTHERHOST = 64, /* its link address is not the device's, and no bridge or other upper device takes such frames */
	EV_NESTED = 1,	  /* KIND_NF_HOOK: the NAT core calls it */
	EV_RESULT = 128,  /* KIND_XTABLES: err is what the table's function returned */
};

/* Flags of KIND_NFT, in xt_flags. */
enum {
	NFT_POLICY = 1, /* no rule ended the base chain's run, its policy did */
	NFT_UNTOLD = 2, /* which rule gave the verdict was not seen */
};

struct event {
	__u64 time;	/* CLOCK_MONOTONIC, ns */
	__u64 skb;
	__u64 function; /* return address of the caller of the event, or the hook function */
	__u32 netns;	/* inode number, 0: the kernel did not say */
	__u32 cpu;
	__u32 pid;	/* thread group on this CPU */
	__s32 err;
	__u32 reason;
	__u32 ifindex;

	__u8 kind;
	__u8 direction;
	__u8 flags;
	__u8 hook;	/* NF_INET_*, or the family's own number */
	__u8 pf;	/* NFPROTO_* */
	__u8 family;	/* 4 or 6 */
	__u8 proto;
	__u8 tcp_flags;
	__u8 ttl;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 old_state;
	__u8 new_state;
	union {
		__u8 nud_state;	/* KIND_NEIGHBOUR */
		__u8 carries;	/* of a tunnel's packet: the protocol of ours in it, whose are tcp_flags, seq and ack, or icmp_type and icmp_code */
	};
	__u8 count;	/* of moved[] */
	__u8 xt_flags;

	__u16 sport;
	__u16 dport;
	__u16 length;
	__u16 ip_id;
	__u32 seq;
	__u32 ack;
	__u32 mark;
	__u32 table;	/* routing table, or the slot of the x_tables table */
	__u32 queue;	/* accept queue of the socket */
	__u32 backlog;
	__u32 sock_port;
	__u32 sock_state;
	__u8 saddr[16];
	__u8 daddr[16];
	__u8 gateway[16];
	__u8 sock_addr[16];
	__u8 comm[16];
	__u8 device[16];
	__u8 input[16]; /* KIND_ROUTE: the device the packet came in on */
	union {
		__u64 stack[STACK_DEPTH];
		__u32 moved[MOVED_MAX];	/* index of the entry, | times << 24 */
		struct {
			char function[48];
			char table[64];
			char chain[80];
		} text;
		struct {	/* KIND_STATE */
			__u64 received;	/* by the socket, a FIN counted */
			__u64 sent;
			__u32 unread;	/* of received, a FIN counted */
			__u32 parent;	/* thread group of the task's parent */
			__u32 exiting;	/* the task is at its end, exit_code is as wait(2) has it */
			__u32 exit_code;
		} end;
	};
};

/* Stages of KIND_WRAP. */
enum { WRAP_ASKED, WRAP_ANSWERED, WRAP_REFUSED, WRAP_OPENED };

/*
 * hosts_access() or refuse() of libwrap, called about a connection of ours; or
 * (WRAP_OPENED) a process that holds one has opened a file of rules: allow is its
 * name, daemon the process's argv[0], err what the call returned.
 */
struct wrap_event {
	struct event event;
	__u32 stage;
	__s32 fd;	   /* of the request; -1: it names none. WRAP_OPENED: other connections of the process; -1: not all were looked at */
	__u32 parent;	   /* thread group of the parent process */
	__u32 mnt_ns;	   /* inode number */
	__u64 root_inode;  /* the process's root directory */
	__u64 root_device; /* as the kernel has it: minor in the low 20 bits */
	char daemon[128];
	char user[128];	   /* client's facts as far as libwrap has asked for them */
	char client[128];
	char address[128];
	char allow[64];	   /* paths of the tables */
	char deny[64];
};

/* What the programs look for. Written by user space, one probe at a time. */
struct probe_key {
	__u32 on;
	__u32 isn;	  /* TCP: sequence number of our SYN */
	__u32 tgid;	  /* ours */
	__u16 id;	  /* ICMP echo identifier, network byte order */
	__u16 port;	  /* of the target, network byte order */
	__u8 proto;	  /* IPPROTO_* */
	__u8 pad[7];
	__u8 target[16];
};

#endif
