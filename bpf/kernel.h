/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The fields of kernel structures that we read, and no others. Offsets are
 * relocated against the running kernel's BTF when the programs are loaded.
 */
#ifndef PATHTRACE_KERNEL_H
#define PATHTRACE_KERNEL_H

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next;
};

struct proc_ns_operations;

struct ns_common {
	const struct proc_ns_operations *ops;
	unsigned int inum;
};

struct nf_hook_entries;

struct netns_nf {
	struct nf_hook_entries *hooks_ipv4[5];
	struct nf_hook_entries *hooks_ipv6[5];
	struct nf_hook_entries *hooks_arp[3];
	struct nf_hook_entries *hooks_bridge[5];
};

struct fib6_info;

struct netns_ipv6 {
	struct fib6_info *fib6_null_entry;
};

struct net {
	struct list_head list;
	struct ns_common ns;
	struct list_head dev_base_head;
	struct netns_ipv6 ipv6;
	struct netns_nf nf;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct net_device {
	void *rx_handler;
	char name[16];
	int ifindex;
	possible_net_t nd_net;
	struct list_head dev_list;
	struct nf_hook_entries *nf_hooks_ingress;
	struct nf_hook_entries *nf_hooks_egress;
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	unsigned long skc_flags;
};

enum sock_flags { SOCK_LINGER = 5 };

struct sk_filter;

struct sock {
	struct sock_common __sk_common;
	struct sk_filter *sk_filter;
	__u32 sk_ack_backlog;
	__u32 sk_max_ack_backlog;
	unsigned long sk_lingertime;
	__u16 sk_type;
};

struct inet_sock {
	__be16 inet_sport;
};

struct tcp_sock {
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u64 bytes_received;
	__u64 bytes_sent;
};

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	unsigned int len;
	__u32 mark;
	__be16 protocol;
	__u16 network_header;
	__u16 inner_network_header; /* of what a tunnel's packet carries, 0 elsewhere */
	__u8 pkt_type : 3;
	__be16 vlan_proto;
	unsigned char *head;
	unsigned int end; /* offset from head, where pointers have 64 bits */
};

typedef struct {
	int counter;
} atomic_t;

struct skb_shared_info {
	atomic_t dataref;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
	struct net *net_ns;
};

struct inode {
	unsigned short i_mode;
	unsigned long i_ino;
};

struct super_block {
	__u32 s_dev;
};

struct dentry {
	struct inode *d_inode;
	struct super_block *d_sb;
};

struct path {
	struct dentry *dentry;
};

struct fs_struct {
	struct path root;
};

struct socket {
	struct sock *sk;
};

struct file {
	struct inode *f_inode;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct mm_struct {
	unsigned long arg_start;
};

struct task_struct {
	unsigned int flags;
	int exit_code;
	struct nsproxy *nsproxy;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	int tgid;
	char comm[16];
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct files_struct *files;
};

struct flowi_common {
	int flowic_oif;
	int flowic_iif;
	__u32 flowic_mark;
};

union flowi_uli {
	struct {
		__be16 dport;
		__be16 sport;
	} ports;
};

struct flowi4 {
	struct flowi_common __fl_common;
	__be32 saddr;
	__be32 daddr;
	union flowi_uli uli;
};

struct flowi6 {
	struct flowi_common __fl_common;
	struct in6_addr daddr;
	struct in6_addr saddr;
	union flowi_uli uli;
};

struct fib_nh_common {
	struct net_device *nhc_dev;
	__u8 nhc_gw_family;
	union {
		__be32 ipv4;
		struct in6_addr ipv6;
	} nhc_gw;
};

struct fib6_nh {
	struct fib_nh_common nh_common;
};

struct fib6_info {
	__u8 fib6_type;
};

struct fib6_result {
	struct fib6_nh *nh;
	struct fib6_info *f6i;
	__u8 fib6_type;
};

struct fib6_table {
	__u32 tb6_id;
};

struct neigh_table {
	int family;
};

struct neighbour {
	struct neigh_table *tbl;
	__u8 nud_state;
	struct net_device *dev;
	__u8 primary_key[0];
};

struct request_sock;

struct nf_hook_state {
	__u8 hook;
	__u8 pf;
	struct net *net;
};

struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
};

struct nf_hook_entry {
	void *hook;
	void *priv;
};

struct nf_hook_entries {
	__u16 num_hook_entries;
	struct nf_hook_entry hooks[0];
};

struct nf_hook_ops {
	int priority;
};

struct nf_nat_lookup_hook_priv { /* nf_nat_core.c, since 4.18 */
	struct nf_hook_entries *entries;
};

struct nft_table {
	__u16 family : 6;
	char *name;
};

/* A chain's rules as the packets meet them, since 5.17: headers with their expressions behind them, in one piece. */
struct nft_rule_dp {
	__u64 is_last : 1, dlen : 1, handle : 1; /* of 12 and 42 bits: relocated by name, and clang 14 takes none that leave a byte */
	unsigned char data[];
};

struct nft_rule_blob {
	unsigned long size;
	unsigned char data[];
};

struct nft_chain {
	struct nft_rule_blob *blob_gen_0;
	struct nft_rule_blob *blob_gen_1;
	struct nft_table *table;
	char *name;
};

struct nft_base_chain {
	__u8 policy;
	struct nft_chain chain;
};

struct nft_verdict {
	__u32 code;
	struct nft_chain *chain;
};

struct nft_regs {
	struct nft_verdict verdict;
};

struct nft_pktinfo {
	struct sk_buff *skb;
	const struct nf_hook_state *state;
};

struct xt_table_info {
	unsigned int size;
	unsigned int number;
	unsigned char entries[0];
};

struct xt_table {
	unsigned int valid_hooks;
	struct xt_table_info *private;
	__u8 af;
	const char name[32];
};

struct bpf_array {
	void *pptrs[0];
};

/* Registers at a kprobe, by architecture; one object serves both. */
struct pt_regs___x86 {
	unsigned long di, si, dx, cx, ax, sp;
};

struct pt_regs___arm64 {
	unsigned long regs[31];
	unsigned long sp;
};

#pragma clang attribute pop

#endif
