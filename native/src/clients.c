/*
 * Connections: the control socket the shim is born with and whoever connects to shim.sock. Each has a bounded queue: a client that is slow
 * holds the output back, one that stands still is cut off, so that the log and the container never depend on it.
 */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CUT_OFF_PATIENCE_MS 10000 /* to hear that it was cut off */
#define QUEUE_SIZE (CLIENT_BUFFER + 4 * CHUNK)

struct client {
	struct source source; /* first: the source is the client */
	struct client *next;
	bool control, cut;
	bool relay, begun;      /* see client_adopt */
	bool handed;            /* its streams go to `streams`, NULL: to one that has gone */
	struct client *streams;
	int passed;             /* came along by SCM_RIGHTS, for the frame that is being read */
	bool stalled; /* its stdin waits for the container */
	/* output: a ring, there only while something waits */
	uint8_t *queue;
	uint32_t start, used;
	uint32_t frame_left; /* of the frame at the start of the queue */
	int64_t progress;
	/* input */
	uint8_t head_bytes[FRAME_HEAD];
	uint32_t head_got;
	struct frame_head head;
	uint8_t *payload;
	uint32_t got;
};

static struct client *clients;
uint8_t chunk[CHUNK];

bool client_alive(const struct client *c) { return c->source.fd >= 0 && !c->cut; }
bool client_full(const struct client *c) { return client_alive(c) && c->used >= CLIENT_BUFFER; }

bool client_is_relay(const struct client *c) { return c->relay; }
struct client *client_streams(struct client *c) { return c->handed ? c->streams : c; }

struct client *clients_control(void) {
	for (struct client *c = clients; c; c = c->next)
		if (c->control && client_alive(c)) return c;
	return NULL;
}

static void client_close(struct client *c) {
	if (c->source.fd < 0) return;
	request_client_gone(c);
	source_close(&c->source);
	if (c->passed >= 0) close(c->passed);
	c->passed = -1;
	for (struct client *owner = clients; c->relay && owner; owner = owner->next)
		if (owner->streams == c) owner->streams = NULL;
	client_drop_relay(c);
	free(c->queue);
	free(c->payload);
	c->queue = c->payload = NULL;
	c->used = 0;
}

static uint32_t peek_length(const struct client *c) {
	uint8_t b[4];
	for (uint32_t i = 0; i < 4; i++) b[i] = c->queue[(c->start + i) % QUEUE_SIZE];
	uint32_t n;
	memcpy(&n, b, 4);
	return n;
}

static void consume(struct client *c, uint32_t n) {
	c->progress = now_ms();
	while (n) {
		if (!c->frame_left) c->frame_left = FRAME_HEAD + peek_length(c);
		uint32_t step = n < c->frame_left ? n : c->frame_left;
		c->start = (c->start + step) % QUEUE_SIZE;
		c->used -= step;
		c->frame_left -= step;
		n -= step;
	}
	if (!c->used) {
		free(c->queue);
		c->queue = NULL;
		c->start = 0;
	}
}

static void client_flush(struct client *c) {
	while (c->used) {
		uint32_t n = QUEUE_SIZE - c->start < c->used ? QUEUE_SIZE - c->start : c->used;
		ssize_t sent = send(c->source.fd, c->queue + c->start, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0) {
			if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS) client_close(c);
			return;
		}
		consume(c, (uint32_t)sent);
	}
	if (c->cut) client_close(c);
}

static bool enqueue(struct client *c, const uint8_t *p, uint32_t n) {
	if (!c->queue) {
		c->queue = malloc(QUEUE_SIZE);
		if (!c->queue) return false;
		c->progress = now_ms();
	}
	if (QUEUE_SIZE - c->used < n) return false;
	uint32_t at = (c->start + c->used) % QUEUE_SIZE;
	uint32_t first = QUEUE_SIZE - at < n ? QUEUE_SIZE - at : n;
	memcpy(c->queue + at, p, first);
	memcpy(c->queue, p + first, n - first);
	c->used += n;
	return true;
}

static void make_head(uint8_t *b, uint32_t type, uint32_t session, uint32_t argument, uint32_t length) {
	uint16_t t = (uint16_t)type, s = (uint16_t)session;
	memcpy(b, &length, 4);
	memcpy(b + 4, &t, 2);
	memcpy(b + 6, &s, 2);
	memcpy(b + 8, &argument, 4);
}

/* Keep what is left of the frame that is half sent, say that this is the end, and let go of it. */
static void client_cut_off(struct client *c) {
	request_client_gone(c);
	c->cut = true;
	c->used = c->frame_left;
	c->progress = now_ms();
	uint8_t head[FRAME_HEAD];
	make_head(head, FRAME_CUT_OFF, 0, 0, 0);
	if (!enqueue(c, head, FRAME_HEAD)) client_close(c);
	else client_flush(c);
}

void client_send(struct client *c, uint32_t type, uint32_t session, uint32_t argument, const void *payload, uint32_t length) {
	if (!client_alive(c)) return;
	uint8_t head[FRAME_HEAD];
	make_head(head, type, session, argument, length);
	uint32_t total = FRAME_HEAD + length, sent = 0;
	if (!c->used) {
		struct iovec iov[2] = { { head, FRAME_HEAD }, { (void *)payload, length } };
		struct msghdr m = { .msg_iov = iov, .msg_iovlen = length ? 2 : 1 };
		ssize_t n = sendmsg(c->source.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
			client_close(c);
			return;
		}
		if (n > 0) sent = (uint32_t)n;
		if (sent == total) return;
		c->frame_left = sent ? total - sent : 0;
	} else if (QUEUE_SIZE - c->used < total) {
		client_cut_off(c);
		return;
	}
	bool ok = true;
	if (sent < FRAME_HEAD) {
		ok = enqueue(c, head + sent, FRAME_HEAD - sent);
		sent = FRAME_HEAD;
	}
	if (ok && sent < total) ok = enqueue(c, (const uint8_t *)payload + (sent - FRAME_HEAD), total - sent);
	if (!ok) client_close(c);
}

void clients_broadcast(uint32_t type, uint32_t session, uint32_t argument, const void *payload, uint32_t length) {
	for (struct client *c = clients; c; c = c->next) {
		const struct session *s = c->relay && type == FRAME_EXIT ? session_find((uint16_t)session) : NULL;
		if (!c->relay || (s && session_has(s, c))) client_send(c, type, session, argument, payload, length);
	}
}

/* -- input --------------------------------------------------------------------------------------------------------------------- */

/* 1 = go on, 0 = nothing more now, -1 = the client is gone. */
static int receive(struct client *c, uint8_t *to, uint32_t size, uint32_t *got) {
	ssize_t n = recv(c->source.fd, to, size, MSG_DONTWAIT);
	if (n > 0) {
		*got += (uint32_t)n;
		return 1;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
	client_close(c);
	return -1;
}

/* As `receive`, with an fd that may come along: it is read with the first byte of the message that carries it, the head of its frame. */
static int receive_head(struct client *c) {
	if (c->relay) return receive(c, c->head_bytes + c->head_got, FRAME_HEAD - c->head_got, &c->head_got);
	struct iovec iov = { c->head_bytes + c->head_got, FRAME_HEAD - c->head_got };
	union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	/* CMSG_LEN: CMSG_SPACE has room for two, and the second would stay open */
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CMSG_LEN(sizeof(int)) };
	ssize_t n = recvmsg(c->source.fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
	if (n <= 0) {
		client_close(c);
		return -1;
	}
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS || h->cmsg_len < CMSG_LEN(sizeof(int))) continue;
		if (c->passed >= 0) close(c->passed);
		memcpy(&c->passed, CMSG_DATA(h), sizeof c->passed);
	}
	c->head_got += (uint32_t)n;
	return 1;
}

int client_take_fd(struct client *c) {
	int fd = c->passed;
	c->passed = -1;
	return fd;
}

static void frame_done(struct client *c) {
	uint8_t *payload = c->payload;
	struct frame_head head = c->head;
	c->payload = NULL;
	c->head_got = c->got = 0;
	if (head.type != FRAME_STDIN) request(c, &head, &payload);
	free(payload);
	if (c->passed >= 0) close(client_take_fd(c));
}

static int head_done(struct client *c) {
	memcpy(&c->head.length, c->head_bytes, 4);
	memcpy(&c->head.type, c->head_bytes + 4, 2);
	memcpy(&c->head.session, c->head_bytes + 6, 2);
	memcpy(&c->head.argument, c->head_bytes + 8, 4);
	bool large = !c->relay && (c->head.type == FRAME_EXEC || c->head.type == FRAME_BARRIER_REPLY || c->head.type == FRAME_RESUME);
	if (c->head.type == FRAME_STDIN) return c->head.length <= MAX_PLAN ? 0 : -1;
	if (c->head.length > (large ? MAX_PLAN : MAX_PAYLOAD)) return -1;
	c->payload = malloc(c->head.length + 1); /* +1: a NUL for texts */
	if (!c->payload) return -1;
	c->payload[c->head.length] = 0;
	return 0;
}

/* One step of reading; false when there is nothing more to do now. */
static bool client_step(struct client *c) {
	if (c->head_got < FRAME_HEAD) {
		if (receive_head(c) <= 0) return false;
		if (c->head_got < FRAME_HEAD) return true;
		if (head_done(c)) {
			client_close(c);
			return false;
		}
	}
	uint32_t left = c->head.length - c->got;
	if (left && c->head.type == FRAME_STDIN) {
		struct session *s = session_find(c->head.session);
		if (s && c->relay && !session_has(s, c)) s = NULL;
		if (s && !session_takes_input(s)) {
			c->stalled = true;
			return false;
		}
		uint32_t n = 0;
		if (receive(c, chunk, left < CHUNK ? left : CHUNK, &n) <= 0) return false;
		c->got += n;
		if (s) session_input(s, chunk, n);
	} else if (left && receive(c, c->payload + c->got, left, &c->got) <= 0) {
		return false;
	}
	if (c->got == c->head.length) frame_done(c);
	return c->source.fd >= 0;
}

static void client_ready(struct source *source, uint32_t events) {
	struct client *c = (struct client *)source;
	if (events & EPOLLOUT) client_flush(c);
	if (source->fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
	if (c->cut) { /* nothing it says matters any more; see it go */
		uint32_t n = 0;
		receive(c, chunk, CHUNK, &n);
		return;
	}
	/* what follows a plan to go on with is for its streams, which are not there before it is taken */
	for (int i = 0; i < 32 && !pool_has_plan() && client_step(c); i++) {}
}

/* -- life ---------------------------------------------------------------------------------------------------------------------- */

HOT static uint32_t wanted(const struct client *c) {
	if (c->relay && !c->begun) return 0;
	return (c->stalled ? 0u : (uint32_t)EPOLLIN) | (c->used ? (uint32_t)EPOLLOUT : 0u);
}

static struct client *client_make(int fd, bool control, bool relay) {
	struct client *c = calloc(1, sizeof *c);
	if (!c) {
		close(fd);
		return NULL;
	}
	c->relay = relay;
	c->passed = -1;
	c->source.fd = fd;
	c->source.ready = client_ready;
	c->control = control;
	c->next = clients;
	clients = c;
	source_want(&c->source, wanted(c));
	return c;
}

struct client *client_add(int fd, bool control) { return client_make(fd, control, false); }

unsigned client_count(void) {
	unsigned count = 0;
	for (struct client *c = clients; c; c = c->next) count++;
	return count;
}

int client_adopt(struct client *owner, int fd) {
	int type = 0;
	socklen_t size = sizeof type;
	/* the last one may have had its sessions; without one nobody would see it go */
	client_drop_relay(owner);
	owner->handed = true;
	owner->streams = NULL;
	int failed = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) ? errno : type != SOCK_STREAM ? EPROTOTYPE : client_count() >= MAX_CLIENTS ? EMFILE : 0;
	if (failed) {
		close(fd);
		return failed;
	}
	owner->streams = client_make(fd, false, true);
	return owner->streams ? 0 : ENOMEM;
}

void client_begin(struct client *c) {
	c->begun = true;
	source_want(&c->source, wanted(c));
}

void client_drop_relay(struct client *c) {
	if (c->streams && !c->streams->begun) client_close(c->streams);
}

HOT int clients_update(void) {
	int64_t now = 0, wait = -1;
	for (struct client **at = &clients; *at;) {
		struct client *c = *at;
		int64_t patience = c->cut ? CUT_OFF_PATIENCE_MS : CLIENT_PATIENCE_MS;
		if (c->used && !now) now = now_ms();
		if (c->source.fd >= 0 && c->used && (c->cut || client_full(c)) && now - c->progress >= patience) {
			if (c->cut) client_close(c);
			else client_cut_off(c);
			wait = 0; /* who was held back by it can go on */
		}
		if (c->source.fd < 0) {
			*at = c->next;
			free(c);
			continue;
		}
		if (c->used && (c->cut || client_full(c))) {
			int64_t left = c->progress + patience - now + 1;
			if (wait < 0 || left < wait) wait = left < 0 ? 0 : left;
		}
		if (c->stalled) {
			struct session *s = session_find(c->head.session);
			if (!s || session_takes_input(s)) c->stalled = false;
		}
		source_want(&c->source, wanted(c));
		at = &c->next;
	}
	return (int)wait;
}

void clients_drain(void) {
	for (;;) {
		bool waiting = false;
		int64_t now = now_ms();
		for (struct client *c = clients; c; c = c->next) {
			if (c->source.fd < 0 || !c->used || c->cut) continue;
			if (now - c->progress >= CLIENT_PATIENCE_MS) client_close(c);
			else waiting = true;
		}
		clients_update();
		if (!waiting) return;
		events_run(100);
	}
}

void clients_close_all(void) {
	for (struct client *c = clients; c; c = c->next) client_close(c);
	clients_update();
}

void clients_forget(void) {
	for (struct client *c = clients; c; c = c->next)
		if (c->source.fd >= 0) close(c->source.fd);
	clients = NULL;
	listener_forget();
}
