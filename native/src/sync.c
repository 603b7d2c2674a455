/* The socket between the shim and a child that has not exec'd yet. */
#define _GNU_SOURCE
#include "process.h"
#include "rights.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int sync_send(int socket, enum sync_kind kind, uint32_t value, const struct failure *failure, int fd) {
	struct sync_message m = { .kind = kind, .value = value };
	if (failure) m.failure = *failure;
	size_t size = failure ? sizeof m : offsetof(struct sync_message, failure);
	if (fd >= 0) {
		ssize_t sent = rights_send(socket, &m, size, &fd, 1, 0);
		return sent < 0 ? (int)sent : 0;
	}
	for (;;) {
		/* write(2), which every seccomp filter lets pass; in a child whose shim is gone SIGPIPE is as good as any end */
		if (write(socket, &m, size) >= 0) return 0;
		if (errno != EINTR) return -errno;
	}
}

int sync_receive(int socket, struct sync_message *m, int *fd, int timeout) {
	*fd = -1;
	struct pollfd p = { .fd = socket, .events = POLLIN };
	int ready;
	while ((ready = poll(&p, 1, timeout)) < 0 && errno == EINTR) {}
	if (ready <= 0) return ready ? -errno : -EAGAIN;
	memset(m, 0, sizeof *m);
	struct iovec iov = { m, sizeof *m };
	union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes };
	ssize_t n;
	while ((n = recvmsg(socket, &h, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {}
	if (n < 0) return errno == ECONNRESET ? 0 : -errno;
	if (!n) return 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) memcpy(fd, CMSG_DATA(c), sizeof *fd);
	m->failure.detail[sizeof m->failure.detail - 1] = 0;
	return 1;
}

uint32_t failure_payload(const struct failure *f, uint8_t *out) {
	uint32_t length = (uint32_t)strnlen(f->detail, sizeof f->detail);
	memcpy(out, &f->part, 4);
	memcpy(out + 4, &f->index, 4);
	memcpy(out + 8, &f->error, 4);
	memcpy(out + 12, &length, 4);
	memcpy(out + 16, f->detail, length);
	return 16 + length;
}

void failure_json(struct text *t, const struct failure *f) {
	text_add(t, "{\"part\":\"%s\",\"index\":%u,\"errno\":%d,\"detail\":", f->part < PART_COUNT ? part_names[f->part] : "shim", f->index, f->error);
	text_json_string(t, f->detail);
	text_add(t, "}");
}

struct failure make_failure(enum part part, int error, const char *format, ...) {
	struct failure f = { .part = part, .error = error < 0 ? -error : error };
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(f.detail, sizeof f.detail, format, arguments);
	va_end(arguments);
	return f;
}
