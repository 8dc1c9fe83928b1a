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

/* an event of the current process about our connection sk; of the strings all is written up to their end mark */
static __always_inline struct wrap_event *wrap_event(__u8 stage, __s32 result, const struct sock *sk)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct wrap_event *w;
	struct event *e;
	struct tuple t = {};

	sock_flow(sk, &t);
	w = bpf_ringbuf_reserve(&events, sizeof(*w), 0);
	if (!w) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	e = &w->event;
	__builtin_memset(e, 0, sizeof(*e));
	__builtin_memset(w->allow, 0, sizeof(w->allow));
	__builtin_memset(w->deny, 0, sizeof(w->deny));
	w->fd = -1;
	w->user[0] = w->daemon[0] = w->client[0] = w->address[0] = 0;
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
	return w;
}

static __always_inline void wrap_send(__u8 stage, __s32 result, __u64 request, const struct sock *sk, const struct wrap_call *call)
{
	struct wrap_event *w = wrap_event(stage, result, sk);

	if (!w)
		return;
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

/*
 * Where the library's functions cannot be watched: which files of rules a
 * process opens that holds a connection of ours. The end of the call is hooked,
 * for the kernel has read the name then, so that its page is there.
 */

/* open() and openat(): their numbers, and where struct pt_regs keeps the name */
const volatile __u32 reg_call = 0, call_open = 0, call_openat = 0, reg_open_name = 0, reg_openat_name = 0;

#define SOCK_STREAM   1
#define STATE_CLOSE   7
#define STATE_LISTEN 10

struct held {
	struct file **files;
	__u32 count;
	__u32 others; /* connections that are not ours */
	__u64 sock;   /* ours */
};

static long held_one(__u32 i, struct held *h)
{
	struct tuple t = {};
	struct file *f = 0;
	struct sock *sk;
	__u16 family;
	__u8 state;

	if (i >= h->count)
		return 1;
	bpf_probe_read_kernel(&f, sizeof(f), h->files + i);
	sk = file_sock(f);
	if (!sk || (__u64)sk == h->sock)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if ((family != 2 && family != 10) || BPF_CORE_READ(sk, sk_type) != SOCK_STREAM || state == STATE_CLOSE || state == STATE_LISTEN)
		return 0;
	if (sock_flow(sk, &t) == DIR_REPLY)
		h->sock = (__u64)sk;
	else
		h->others++;
	return 0;
}

static __always_inline int same_bytes(const char *a, const char *b, int n)
{
	int differ = 0;

#pragma unroll
	for (int i = 0; i < n; i++)
		differ |= a[i] ^ b[i];
	return !differ;
}

/* end is the last 12 bytes of a name, its end mark among them */
static __always_inline int names_rules(const char *end)
{
	return same_bytes(end, "hosts.allow", 12) || same_bytes(end + 1, "hosts.deny", 11);
}

/* of a name in the process's memory with its end mark, at most 256; negative when it cannot be read */
static __noinline long name_size(__u64 name)
{
	char whole[256];

	return bpf_probe_read_user_str(whole, sizeof(whole), (void *)name);
}

SEC("tp_btf/sys_exit")
int wrap_open(__u64 *ctx)
{
	struct task_struct *task;
	struct wrap_event *w;
	struct held h = {};
	char end[12];
	__u64 name;
	__u32 call = 0;
	long size;

	if (!probe.on)
		return 0;
	bpf_probe_read_kernel(&call, 4, (void *)ctx[0] + reg_call);
	if (call != call_openat && call != call_open)
		return 0;
	name = user_register((void *)ctx[0], call == call_openat ? reg_openat_name : reg_open_name);
	size = name_size(name);
	if (size >= 0 && (size < 12 || bpf_probe_read_user(end, 12, (void *)name + size - 12) || !names_rules(end)))
		return 0;
	task = (void *)bpf_get_current_task();
	h.files = BPF_CORE_READ(task, files, fdt, fd);
	h.count = BPF_CORE_READ(task, files, fdt, max_fds);
	bpf_loop(WRAP_SEARCH, held_one, &h, 0);
	if (!h.sock)
		return 0;
	w = wrap_event(WRAP_OPENED, ctx[1], (void *)h.sock);
	if (!w)
		return 0;
	w->fd = h.count > WRAP_SEARCH ? -1 : h.others;
	if (size >= 0)
		bpf_probe_read_user_str(w->allow, sizeof(w->allow), (void *)name);
	bpf_probe_read_user_str(w->daemon, sizeof(w->daemon), (void *)BPF_CORE_READ(task, mm, arg_start));
	bpf_ringbuf_submit(w, 0);
	return 0;
}

#endif
