/* A service that takes its socket as systemd passes it, says when it is ready, and ends on
 * SIGTERM: what sd_listen_fds(3) and sd_notify(3) do, without their library.
 *
 *	cc -o server server.c
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static volatile sig_atomic_t stopping;

static void stop(int sig) { stopping = sig; }

/* notify tells whoever started this process how it is. */
static void notify(const char *text) {
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (fd < 0)
		return;
	if (path && strlen(path) < sizeof to.sun_path) {
		memcpy(to.sun_path, path, strlen(path));
		if (*path == '@')
			to.sun_path[0] = 0; /* abstract */
		sendto(fd, text, strlen(text), 0, (struct sockaddr *)&to, offsetof(struct sockaddr_un, sun_path) + strlen(path));
	}
	close(fd);
}

/* answer answers one connection. */
static void answer(int c) {
	struct timeval patience = {.tv_sec = 5};
	char request[4096], body[64], text[256];
	setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (read(c, request, sizeof request) > 0) {
		int n = snprintf(body, sizeof body, "hello from pid %d\n", (int)getpid());
		n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", n, body);
		if (write(c, text, n) != n)
			perror("write");
	}
	close(c);
}

int main(void) {
	const char *pid = getenv("LISTEN_PID"); /* LISTEN_FDS tells how many sockets there are */
	sigset_t term, usual;
	if (!pid || atoi(pid) != (int)getpid()) {
		fputs("no socket: start it by cluster run, or as a systemd service with a socket\n", stderr);
		return 1;
	}
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, &usual); /* it is taken in ppoll: never within an answer */
	signal(SIGTERM, stop);
	signal(SIGPIPE, SIG_IGN);
	notify("READY=1");
	while (!stopping) {
		struct pollfd p = {.fd = 3, .events = POLLIN}; /* the first socket */
		int c;
		if (ppoll(&p, 1, NULL, &usual) == 1 && (c = accept(3, NULL, NULL)) >= 0)
			answer(c); /* else another worker was faster */
	}
	notify("STOPPING=1");
	return 0;
}
