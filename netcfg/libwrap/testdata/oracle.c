// SPDX-License-Identifier: Apache-2.0
/*
 * Puts questions to the real libwrap, over standard input:
 *
 *   clear                    forget all files
 *   file PATH SIZE           SIZE bytes follow; -1: it may not be opened
 *   ask DAEMON ADDR NAME SERVER-ADDR SERVER-NAME PORT USER NETGROUP
 *
 * with tabs between the words. The tables are called allow and deny; a file that
 * was not given does not exist. NETGROUP is 1 when every host is to be in every
 * netgroup. The answer is "VERDICT FILE LINE" of the rule that matched, or
 * "VERDICT - 0", then the logged complaints, a line with "." at the end.
 *
 * Everything that libwrap would do to the machine is defined here too, and the
 * dynamic linker prefers our definitions. Build it with gcc -rdynamic … -lwrap.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <syslog.h>
#include <tcpd.h>
#include <unistd.h>

int allow_severity = LOG_INFO, deny_severity = LOG_WARNING;

static struct file {
	char path[512];
	char *data;
	long size;
} files[16];
static int nfiles;
static int netgroups;
static char matched_file[512];
static int matched_line;
static char complaints[1 << 16];

FILE *fopen(const char *path, const char *mode)
{
	(void)mode;
	for (struct file *f = files; f < files + nfiles; f++) {
		if (strcmp(f->path, path) != 0)
			continue;
		if (f->size < 0) {
			errno = EACCES;
			return NULL;
		}
		int fd = memfd_create("table", 0);
		if (fd < 0 || write(fd, f->data, f->size) != f->size || lseek(fd, 0, SEEK_SET) != 0)
			abort();
		return fdopen(fd, "r");
	}
	errno = ENOENT;
	return NULL;
}

int innetgr(const char *group, const char *host, const char *user, const char *domain)
{
	(void)group, (void)host, (void)user, (void)domain;
	return netgroups;
}

int setuid(uid_t u) { (void)u; return 0; }
int setgid(gid_t g) { (void)g; return 0; }
int setgroups(size_t n, const gid_t *g) { (void)n, (void)g; return 0; }
int initgroups(const char *u, gid_t g) { (void)u, (void)g; return 0; }

static void take(const char *format, va_list args)
{
	char s[8192];
	vsnprintf(s, sizeof s, format, args);
	if (sscanf(s, "matched: %511s line %d", matched_file, &matched_line) == 2 || strncmp(s, "option:", 7) == 0)
		return;
	size_t used = strlen(complaints);
	snprintf(complaints + used, sizeof complaints - used, "%s\n", s);
}

void syslog(int priority, const char *format, ...)
{
	(void)priority;
	va_list args;
	va_start(args, format);
	take(format, args);
	va_end(args);
}

void vsyslog(int priority, const char *format, va_list args)
{
	(void)priority;
	take(format, args);
}

void __syslog_chk(int priority, int flag, const char *format, ...)
{
	(void)priority, (void)flag;
	va_list args;
	va_start(args, format);
	take(format, args);
	va_end(args);
}

void __vsyslog_chk(int priority, int flag, const char *format, va_list args)
{
	(void)priority, (void)flag;
	take(format, args);
}

static void ask(char **word)
{
	struct request_info request;
	struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(word[5]))};

	strcpy(matched_file, "-");
	matched_line = 0;
	complaints[0] = 0;
	tcpd_context.file = NULL;
	tcpd_context.line = 0;
	dry_run = 1;
	netgroups = atoi(word[7]);
	request_init(&request, RQ_DAEMON, word[0], RQ_CLIENT_ADDR, word[1], RQ_CLIENT_NAME, word[2],
		     RQ_SERVER_ADDR, word[3], RQ_SERVER_NAME, word[4], RQ_USER, word[6], 0);
	if (server.sin_port)
		request_set(&request, RQ_SERVER_SIN, (struct sockaddr *)&server, 0);
	int granted = hosts_access(&request);
	printf("%s %s %d\n%s.\n", dry_run == 0 ? "delegated" : granted ? "granted" : "denied",
	       matched_file, matched_line, complaints);
}

static void load(char *path, long size)
{
	if (nfiles == 16 || strlen(path) >= sizeof files[0].path)
		abort();
	struct file *f = &files[nfiles++];
	strcpy(f->path, path);
	f->size = size;
	f->data = NULL;
	if (size > 0 && ((f->data = malloc(size)) == NULL || fread(f->data, 1, size, stdin) != (size_t)size))
		abort();
}

int main(void)
{
	char *line = NULL;
	size_t room = 0;

	hosts_allow_table = "allow";
	hosts_deny_table = "deny";
	hosts_access_verbose = 2;
	while (getline(&line, &room, stdin) > 0) {
		char *word[9] = {0}, *rest = line;
		line[strcspn(line, "\n")] = 0;
		for (int i = 0; i < 9 && rest; i++)
			word[i] = strsep(&rest, "\t");
		if (strcmp(word[0], "clear") == 0) {
			while (nfiles > 0)
				free(files[--nfiles].data);
		} else if (strcmp(word[0], "file") == 0 && word[2]) {
			load(word[1], atol(word[2]));
		} else if (strcmp(word[0], "ask") == 0 && word[8]) {
			ask(word + 1);
		} else {
			abort();
		}
	}
	return 0;
}
