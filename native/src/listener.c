/* The listener of a seccomp filter: fetched from a process that cannot send it, and sent to the agent's socket. */
#define _GNU_SOURCE
#include "process.h"
#include "rights.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "sys.h"

#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#define MAX_TEXT (192u << 10) /* a message must fit into the buffer of a socket */

enum { SOCKET, HEAD, MIDDLE, TAIL, TEXTS };

int listener_announce(struct machine *m, int sync, int number, const struct op_seccomp_notify *o) {
	const struct str texts[TEXTS] = { o->socket, o->state_head, o->state_middle, o->state_tail };
	struct iovec iov[TEXTS];
	struct failure f = { .part = m->part, .index = m->index, .code = m->code };
	size_t size = 0;
	for (int i = 0; i < TEXTS; i++) {
		iov[i] = (struct iovec){ (void *)(uintptr_t)texts[i].p, texts[i].n + 1 };
		size += iov[i].iov_len;
	}
	if (size > MAX_TEXT) return machine_fail(m, EMSGSIZE, "the state for the agent takes more than %u bytes", MAX_TEXT);
	int failed = sync_send(sync, SYNC_LISTENER, (uint32_t)number, &f, -1);
	struct msghdr h = { .msg_iov = iov, .msg_iovlen = TEXTS };
	if (!failed && sendmsg(sync, &h, MSG_NOSIGNAL) < 0) failed = -errno;
	return failed;
}

int listener_await(struct machine *m, int sync) {
	struct sync_message message;
	ssize_t n;
	(void)m;
	while ((n = read(sync, &message, sizeof message)) < 0 && errno == EINTR) {}
	/* the shim says itself what has failed */
	if (n <= 0 || message.kind != SYNC_GO) _exit(1);
	return 0;
}

/* Four texts, one after the other; malloc'ed. */
static char *receive_texts(int sync, const char *texts[TEXTS]) {
	ssize_t size = recv(sync, NULL, 0, MSG_PEEK | MSG_TRUNC);
	char *buffer = size > 0 && size <= (ssize_t)MAX_TEXT ? malloc((size_t)size) : NULL;
	if (!buffer || recv(sync, buffer, (size_t)size, 0) != size || buffer[size - 1]) goto damaged;
	const char *at = buffer;
	for (int i = 0; i < TEXTS; i++, at += strlen(at) + 1) {
		if (at >= buffer + size) goto damaged;
		texts[i] = at;
	}
	return buffer;
damaged:
	free(buffer);
	return NULL;
}

/* fd or -errno; -ECANCELED: the process has said or met something else. */
static int fetch(const struct session *s, int number) {
	struct pollfd p[] = { { .fd = s->sync.fd, .events = POLLIN }, { .fd = s->pidfd, .events = POLLIN } };
	for (int wait = 0;; wait = wait < 4 ? wait + 1 : 4) {
		int fd = (int)syscall(SYS_pidfd_getfd, s->pidfd, number, 0);
		int failed = fd < 0 ? errno : 0;
		if (!failed) return fd;
		/* it says nothing before it has been answered, but that the filter was refused */
		if (poll(p, 2, failed == EBADF ? wait : 0) > 0) return -ECANCELED;
		if (failed != EBADF) return -failed;
	}
}

static int connect_to(const char *path) {
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	AUTO_CLOSE int folder = -1;
	if (fd < 0) return -errno;
	if (strlen(path) < sizeof address.sun_path) {
		strcpy(address.sun_path, path);
	} else {
		char parent[4096];
		const char *slash = strrchr(path, '/');
		if (!slash || (size_t)snprintf(parent, sizeof parent, "%.*s/", (int)(slash - path), path) >= sizeof parent) return -ENAMETOOLONG;
		folder = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (folder < 0) return -errno;
		if ((size_t)snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d%s", folder, slash) >= sizeof address.sun_path) return -ENAMETOOLONG;
	}
	if (connect(fd, (struct sockaddr *)&address, sizeof address)) return -errno;
	return take_fd(&fd);
}

static int tell_agent(const struct session *s, const char *const texts[TEXTS], int listener) {
	char pids[2][16], *text = NULL;
	snprintf(pids[0], sizeof pids[0], "%d", s->pid);
	snprintf(pids[1], sizeof pids[1], "%d", run.init->pid);
	int size = asprintf(&text, "%s%s%s%s%s", texts[HEAD], pids[0], texts[MIDDLE], texts[MIDDLE][0] ? pids[1] : "", texts[TAIL]);
	if (size < 0) return -ENOMEM;
	AUTO_FREE char *owned = text;
	AUTO_CLOSE int agent = connect_to(texts[SOCKET]);
	if (agent < 0) return agent;
	ssize_t done = rights_send(agent, text, (size_t)size, &listener, 1, 0);
	while (done >= 0 && done < size) {
		ssize_t n = send(agent, text + done, (size_t)(size - done), MSG_NOSIGNAL);
		if (n >= 0) done += n;
		else if (errno != EINTR) done = -errno;
	}
	return done < 0 ? (int)done : 0;
}

bool listener_pass_on(struct session *s, const struct sync_message *m) {
	const char *texts[TEXTS] = { "" };
	AUTO_FREE char *buffer = receive_texts(s->sync.fd, texts);
	AUTO_CLOSE int listener = buffer ? fetch(s, (int)m->value) : -EPROTO;
	if (listener == -ECANCELED) return true;
	int failed = listener < 0 ? listener : tell_agent(s, texts, listener);
	if (!failed) {
		/* one that is gone meanwhile is seen by its end */
		(void)sync_send(s->sync.fd, SYNC_GO, 0, NULL, -1);
		return true;
	}
	run.failure = m->failure;
	run.failure.error = -failed;
	if (listener < 0) snprintf(run.failure.detail, sizeof run.failure.detail, "the listener of the filter cannot be fetched");
	else snprintf(run.failure.detail, sizeof run.failure.detail, "the agent at %.300s does not take the listener", texts[SOCKET]);
	return false;
}
