/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server on port 8080 that has libwrap within itself and calls itself archive to it:
 *
 *   obeys    greets those whom libwrap lets in, and closes the others' connections
 *   heedless asks too, and closes all connections whatever the answer is
 *   about    asks about its first client whenever a later one comes, whose connection it closes
 */
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <tcpd.h>
#include <unistd.h>

int allow_severity, deny_severity;

int yp_get_default_domain(char **name) { *name = ""; return 1; } /* netgroups need no libnsl here */

static int granted(int fd)
{
	struct request_info r;

	request_init(&r, RQ_DAEMON, "archive", RQ_FILE, fd, 0);
	fromhost(&r);
	return hosts_access(&r);
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(8080)};
	int listener = socket(AF_INET6, SOCK_STREAM, 0), first = -1;
	const char *how = argc > 1 ? argv[1] : "";

	if (bind(listener, (struct sockaddr *)&any, sizeof(any)) || listen(listener, 9))
		return 1;
	for (;;) {
		int fd = accept(listener, 0, 0);

		if (fd < 0)
			continue;
		if (!strcmp(how, "about") && first < 0) {
			first = fd;
			continue;
		}
		if (granted(first < 0 ? fd : first) && !strcmp(how, "obeys") && write(fd, "welcome\n", 8) == 8)
			continue;
		close(fd);
	}
}
