/* A connection that carries frames: buffers on both sides, output passed on as it comes, never waiting. */
#include "launcher.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE (2 * CHUNK)

void conn_open(struct conn *c, int fd) {
	c->fd = fd;
	c->start = c->end = c->out_start = c->out_end = c->body = 0;
	c->mute = c->ended = c->reset = c->asked = c->spoke = c->broken = false;
}

void conn_close(struct conn *c) {
	if (c->fd >= 0) close(c->fd);
	c->fd = -1;
	c->out_start = c->out_end = 0;
}

bool conn_blocked(const struct conn *c) { return c->body && c->sink && c->sink->full && c->start < c->end; }
bool conn_unsent(const struct conn *c) { return c->out_start < c->out_end; }

static void read_head(const uint8_t *p, struct head *head) {
	memcpy(&head->length, p, 4);
	memcpy(&head->type, p + 4, 2);
	memcpy(&head->session, p + 6, 2);
	memcpy(&head->argument, p + 8, 4);
}

void conn_handle(struct conn *c) {
	struct head head;
	while (c->fd >= 0 && !c->broken) {
		uint32_t there = c->end - c->start;
		if (c->body) {
			uint32_t n = there < c->body ? there : c->body;
			if (!n) return;
			uint32_t taken = c->sink ? (uint32_t)sink_write(c->sink, c->in + c->start, n, c->impatient) : n;
			if (!taken) return;
			c->start += taken;
			c->body -= taken;
			continue;
		}
		if (there < FRAME_HEAD) return;
		read_head(c->in + c->start, &head);
		if (c->streams(c, &head, &c->sink)) {
			c->start += FRAME_HEAD;
			c->body = head.length;
			continue;
		}
		if (head.length > SIZE - FRAME_HEAD) {
			c->broken = true;
			return;
		}
		if (there < FRAME_HEAD + head.length) return;
		c->start += FRAME_HEAD + head.length;
		c->frame(c, &head, c->in + c->start - head.length);
	}
}

void conn_receive(struct conn *c) {
	if (c->start) {
		memmove(c->in, c->in + c->start, c->end - c->start);
		c->end -= c->start;
		c->start = 0;
	}
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof c->fds)]; } control;
	struct iovec part = { c->in + c->end, SIZE - c->end };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes };
	ssize_t n = recvmsg(c->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
	if (n <= 0) {
		c->reset = n < 0 && errno == ECONNRESET;
		c->ended = true;
		return;
	}
	c->spoke = true;
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
		size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
			if (c->fd_count < (int)(sizeof c->fds / sizeof *c->fds)) c->fds[c->fd_count++] = fd;
			else close(fd);
		}
	}
	c->end += (uint32_t)n;
	conn_handle(c);
}

void conn_flush(struct conn *c) {
	while (c->fd >= 0 && c->out_start < c->out_end) {
		ssize_t n = send(c->fd, c->out + c->out_start, c->out_end - c->out_start, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0 && (errno == EAGAIN || errno == ENOBUFS)) return;
		if (n < 0) { /* what it has sent before can still be read */
			c->mute = true;
			break;
		}
		c->out_start += (uint32_t)n;
	}
	c->out_start = c->out_end = 0;
}

void conn_send(struct conn *c, uint32_t type, uint32_t session, uint32_t argument, const void *payload, uint32_t length) {
	if (c->fd < 0 || c->mute) return;
	c->asked = true;
	if (c->out_start && c->out_end + FRAME_HEAD + length > SIZE) {
		memmove(c->out, c->out + c->out_start, c->out_end - c->out_start);
		c->out_end -= c->out_start;
		c->out_start = 0;
	}
	/* input is taken only when there is room: what doesn't fit is the thousandth signal to one who reads nothing */
	if (c->out_end + FRAME_HEAD + length > SIZE) return;
	uint16_t t = (uint16_t)type, s = (uint16_t)session;
	uint8_t *p = c->out + c->out_end;
	memcpy(p, &length, 4);
	memcpy(p + 4, &t, 2);
	memcpy(p + 6, &s, 2);
	memcpy(p + 8, &argument, 4);
	if (length) memcpy(p + FRAME_HEAD, payload, length);
	c->out_end += FRAME_HEAD + length;
	conn_flush(c);
}
