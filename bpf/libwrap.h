/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * tcp wrappers: what a server asks libwrap about a connection of ours, and
 * what it is told. The library is user space: these run as uprobes on its
 * functions hosts_access and refuse, in every process that maps the file.
 */
#ifndef PATHTRACE_LIBWRAP_H
#define PATHTRACE_LIBWRAP_H

/* Where struct pt_regs keeps the first argument, the result and the address: by architecture. */
const volatile __u32 reg_argument = 0, reg_result = 0, reg_address = 0;

/* struct request_info of tcpd.h, 64 bit; STRING_LENGTH is 128 */
#define REQUEST_FD     0
#define REQUEST_USER   4
#define REQUEST_DAEMON 132
#define REQUEST_NAME   272 /* of the client */
#define REQUEST_ADDR   400

/* descriptors that are looked through for our connection where the request names none, as with hosts_ctl() */
#define WRAP_SEARCH 1024

struct wrap_call {
	__u64 request;
	__u64 sock;
	char allow[64];
	char deny[64];
};

/* by thread: calls of hosts_access() that have not returned */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct wrap_call);
} wrap_calls SEC(".maps");

static __always_inline __u64 user_register(void *ctx, __u32 offset)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, 8, (void *)((__u64)ctx + offset));
	return value;
}

/* the TCP socket behind an open file, or NULL */
static __always_inline struct sock *file_sock(struct file *f)
{
	struct socket *so;

	if (!f || (BPF_CORE_READ(f, f_inode, i_mode) & 0170000) != 0140000)
		return 0;
	so = BPF_CORE_READ(f, private_data);
	return BPF_CORE_READ(so, sk);
}

static __always_inline __u8 sock_flow(const struct sock *sk, struct tuple *t)
{
	t->proto = PROTO_TCP;
	t->dport = BPF_CORE_READ(sk, __sk_common.skc_dport);
	t->sport = sock_port(sk);
	sock_addresses(sk, t->saddr, t->daddr);
	return known_flow(t);
}

struct wrap_search {
	struct file **files;
	__u32 count;
	__u64 sock; /* found */
};

/* the socket at one place of the descriptor table; ours when packets that it sends are replies to the probe */
static __always_inline struct sock *our_sock(struct file **files, __u32 i)
{
	struct tuple t = {};
	struct file *f = 0;
	struct sock *sk;

	bpf_probe_read_kernel(&f, sizeof(f), files + i);
	sk = file_sock(f);
	return sk && sock_flow(sk, &t) == DIR_REPLY ? sk : 0;
}

static long search_one(__u32 i, struct wrap_search *s)
{
	struct sock *sk;

	if (i >= s->count)
		return 1;
	sk = our_sock(s->files, i);
	if (!sk)
		return 0;
	s->sock = (__u64)sk;
	return 1;
}

/* our connection, if it is what the request is about */
static __always_inline struct sock *request_sock(__u64 request)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct wrap_search s = {};
	__s32 fd = -1;

	if (bpf_probe_read_user(&fd, 4, (void *)request + REQUEST_FD))
		return 0;
	s.files = BPF_CORE_READ(task, files, fdt, fd);
	s.count = BPF_CORE_READ(task, files, fdt, max_fds);
	if (fd >= 0)
		return (__u32)fd < s.count ? our_sock(s.files, fd) : 0;
	bpf_loop(WRAP_SEARCH, search_one, &s, 0);
	return (struct sock *)s.sock;
}

static __always_inline void wrap_send(__u8 stage, __s32 result, __u64 request, const struct sock *sk, const struct wrap_call *call)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct wrap_event *w;
	struct event *e;
	struct tuple t = {};

	sock_flow(sk, &t);
	w = bpf_ringbuf_reserve(&events, sizeof(*w), 0);
	if (!w) {
		__sync_fetch_and_add(&lost, 1);
		return;
	}
	e = &w->event; /* of the strings all is written up to their end mark */
	__builtin_memset(e, 0, sizeof(*e));
	__builtin_memset(w->allow, 0, sizeof(w->allow));
	__builtin_memset(w->deny, 0, sizeof(w->deny));
	w->fd = -1;
	e->time = bpf_ktime_get_ns();
	e->kind = KIND_WRAP;
	e->direction = DIR_REPLY;
	e->cpu = bpf_get_smp_processor_id();
	e->pid = bpf_get_current_pid_tgid() >> 32;
	event_process(e, task);
	e->netns = sock_netns(sk);
	event_sock(e, sk);
	__builtin_memcpy(e->daddr, t.daddr, 16);
	e->dport = bpf_ntohs(t.dport);
	e->err = result;
	w->stage = stage;
	w->parent = BPF_CORE_READ(task, real_parent, tgid);
	w->mnt_ns = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
	w->root_inode = BPF_CORE_READ(task, fs, root.dentry, d_inode, i_ino);
	w->root_device = BPF_CORE_READ(task, fs, root.dentry, d_sb, s_dev);
	bpf_probe_read_user(&w->fd, 4, (void *)request + REQUEST_FD);
	bpf_probe_read_user_str(w->user, sizeof(w->user), (void *)request + REQUEST_USER);
	bpf_probe_read_user_str(w->daemon, sizeof(w->daemon), (void *)request + REQUEST_DAEMON);
	bpf_probe_read_user_str(w->client, sizeof(w->client), (void *)request + REQUEST_NAME);
	bpf_probe_read_user_str(w->address, sizeof(w->address), (void *)request + REQUEST_ADDR);
	if (call) {
		__builtin_memcpy(w->allow, call->allow, sizeof(w->allow));
		__builtin_memcpy(w->deny, call->deny, sizeof(w->deny));
	}
	bpf_ringbuf_submit(w, 0);
}

/* the file that a variable of the library names; where is its distance from hosts_access() */
static __always_inline void table_path(char *to, __u64 function, __s32 where)
{
	__u64 p = 0;

	if (where && !bpf_probe_read_user(&p, 8, (void *)(function + where)))
		bpf_probe_read_user_str(to, 64, (void *)p);
}

/* The cookie is WRAP_REFUSE in refuse(), else where the tables' names are: that of hosts.allow in the low half. */
#define WRAP_REFUSE (~0ULL)

SEC("uprobe")
int wrap_ask(void *ctx)
{
	struct wrap_call call = {};
	__u64 thread, cookie, function;
	struct sock *sk;

	if (!probe.on)
		return 0;
	call.request = user_register(ctx, reg_argument);
	sk = request_sock(call.request);
	if (!sk)
		return 0;
	cookie = bpf_get_attach_cookie(ctx);
	if (cookie == WRAP_REFUSE) {
		wrap_send(WRAP_REFUSED, 0, call.request, sk, 0);
		return 0;
	}
	call.sock = (__u64)sk;
	function = user_register(ctx, reg_address);
	table_path(call.allow, function, (__s32)cookie);
	table_path(call.deny, function, (__s32)(cookie >> 32));
	thread = bpf_get_current_pid_tgid();
	bpf_map_update_elem(&wrap_calls, &thread, &call, BPF_ANY);
	wrap_send(WRAP_ASKED, 0, call.request, sk, &call);
	return 0;
}

SEC("uretprobe")
int wrap_answer(void *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct wrap_call *found, call;

	found = bpf_map_lookup_elem(&wrap_calls, &thread);
	if (!found)
		return 0;
	call = *found;
	bpf_map_delete_elem(&wrap_calls, &thread);
	wrap_send(WRAP_ANSWERED, (__s32)user_register(ctx, reg_result), call.request, (struct sock *)call.sock, &call);
	return 0;
}

#endif
