/* One connection to a held port: moved by splice between the client and who is behind the port, half-closed as the sides half-close. */
#define _GNU_SOURCE
#include "ports.h"

#include <linux/capability.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>

#include "sys.h"

#define CONNECT_MS 30000
#define PIECE 65536u /* a pipe takes so much */

int set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable); /* identity.c */

void reset_connection(int fd) {
	struct linger now = { 1, 0 };
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(fd);
}

/* One direction. It reads only when it holds nothing. */
struct way {
	int from, to;
	int pipe[2];     /* -1: by `buffer` */
	uint8_t *buffer;
	uint32_t at, held;
	bool eof, done;
};

static bool retry(void) { return errno == EAGAIN || errno == EINTR; }

/* splice stops at urgent data as if nothing were there, or as if all had come when the sender has ended (tcp_read_sock, seen on Linux 6.18): a read takes it as any other. */
static ssize_t read_past_urgent(struct way *w) {
	uint8_t some[512];
	ssize_t n = recv(w->from, some, sizeof some, MSG_DONTWAIT);
	return n > 0 ? write(w->pipe[1], some, (size_t)n) : n;
}

/* These two: false when the connection is broken. */
static bool fill(struct way *w) {
	ssize_t n = w->buffer ? read(w->from, w->buffer, PIECE) : splice(w->from, NULL, w->pipe[1], NULL, PIECE, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (!w->buffer && (!n || (n < 0 && errno == EAGAIN))) n = read_past_urgent(w);
	if (n < 0) return retry();
	w->eof = !n;
	w->held = (uint32_t)n;
	w->at = 0;
	return true;
}

static bool drain(struct way *w) {
	while (w->held) {
		ssize_t n = w->buffer ? send(w->to, w->buffer + w->at, w->held, MSG_NOSIGNAL) : splice(w->pipe[0], NULL, w->to, NULL, w->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
		if (n < 0) return retry();
		w->at += (uint32_t)n;
		w->held -= (uint32_t)n;
	}
	if (w->eof) {
		shutdown(w->to, SHUT_WR);
		w->done = true;
	}
	return true;
}

static bool prepare(struct way *w, int from, int to, bool pipes) {
	*w = (struct way){ .from = from, .to = to, .pipe = { -1, -1 } };
	if (pipes && !pipe2(w->pipe, O_CLOEXEC | O_NONBLOCK)) return true;
	w->buffer = malloc(PIECE);
	return w->buffer;
}

/* fd or -1. The client may give up meanwhile. */
static int connect_to(int client, const struct port *p) {
	struct sockaddr_storage s;
	socklen_t size = bind_address(&s, p->to, p->to_length, p->to_port);
	int fd = socket(s.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, p->protocol);
	if (fd < 0) return -1;
	if (!connect(fd, (struct sockaddr *)&s, size)) return fd;
	if (errno != EINPROGRESS) return -1;
	struct pollfd both[2] = { { .fd = fd, .events = POLLOUT }, { .fd = client } };
	int error = 0, n;
	socklen_t length = sizeof error;
	while ((n = poll(both, 2, CONNECT_MS)) < 0 && errno == EINTR) {}
	if (n <= 0 || both[1].revents || getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) || error) return -1;
	return fd;
}

static bool move(struct way ways[2]) {
	/* side 0 is the client: ways[0] leads from it, ways[1] to it */
	while (!ways[0].done || !ways[1].done) {
		struct pollfd sides[2] = { { .fd = ways[0].from }, { .fd = ways[1].from } };
		for (int i = 0; i < 2; i++) {
			if (ways[i].done) continue;
			if (ways[i].held) sides[!i].events |= POLLOUT;
			else sides[i].events |= POLLIN;
		}
		/* a side that both have closed hangs up for ever; one that has only ended itself does so when it is broken */
		for (int i = 0; i < 2; i++)
			if (!sides[i].events && ways[!i].done) sides[i].fd = -1;
		if (poll(sides, 2, -1) < 0) {
			if (errno == EINTR) continue;
			return false;
		}
		for (int i = 0; i < 2; i++) {
			struct way *w = &ways[i];
			if (w->done) continue;
			if (!w->held && sides[i].revents & (POLLIN | POLLHUP | POLLERR) && !fill(w)) return false;
			if ((w->held || w->eof) && !drain(w)) return false;
		}
		for (int i = 0; i < 2; i++)
			if (sides[i].revents & (POLLERR | POLLNVAL) || (sides[i].revents & POLLHUP && !ways[!i].done)) return false;
	}
	return true;
}

void relay_connection(int client, const struct port *p) {
	int one = 1;
	struct way ways[2];
	int server = connect_to(client, p);
	bool pipes = p->protocol == IPPROTO_TCP;
#ifdef ENGINE_TEST
	if (getenv("ENGINE_RELAY_COPY")) pipes = false;
#endif
	if (server < 0 || !prepare(&ways[0], client, server, pipes) || !prepare(&ways[1], server, client, pipes)) {
		reset_connection(client);
		_exit(0);
	}
	/* the pipes first, which without it would be one page each when there are many; nothing needs a right from here on */
	set_capabilities(0, 0, 0);
	for (int i = 0; i < 2; i++) {
		if (p->protocol == IPPROTO_TCP) setsockopt(i ? server : client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		setsockopt(i ? server : client, SOL_SOCKET, SO_OOBINLINE, &one, sizeof one);
		setsockopt(i ? server : client, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
	}
	if (!move(ways)) {
		reset_connection(client);
		reset_connection(server);
	}
	_exit(0);
}
