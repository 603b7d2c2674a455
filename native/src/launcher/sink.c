/*
 * Standard output and error. A write that waits would keep signals and input waiting too, and O_NONBLOCK on a description that others
 * share would break them: so each kind of file has its own way not to wait.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

enum { PLAIN, PIPE, PIPE_BY_PAGES, SOCKET, TERMINAL };
#define RWF_NOWAIT_ 8
#define PAGE 4096
/*
 * A shim cuts off who reads nothing for seconds: somebody who looks at the first page in a pager must not lose the rest. As much as a session holds that
 * is read by an engine (HIGH_WATER in core/lifecycle/session.ts).
 */
#define MOST_HELD (64u << 20)

struct sink sinks[2] = { { .fd = 1 }, { .fd = 2 } };

static uint8_t kind_of(int fd) {
	struct stat st;
	struct termios t;
	if (fstat(fd, &st)) return PLAIN;
	if (S_ISFIFO(st.st_mode)) return PIPE;
	if (S_ISSOCK(st.st_mode)) return SOCKET;
	return S_ISCHR(st.st_mode) && !tcgetattr(fd, &t) ? TERMINAL : PLAIN;
}

static void look(struct sink *sink) {
	char path[PATH_MAX], number[21];
	sink->known = true;
	sink->write_fd = sink->fd;
	sink->kind = kind_of(sink->fd);
	if (sink->kind != TERMINAL) return;
	/* a description of our own. Not allowed (su): then the plain way */
	sink->kind = PLAIN;
	if (!join(path, "/proc/self/fd/", decimal((uint64_t)sink->fd, number), "")) return;
	int own = open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (own >= 0) sink->write_fd = own;
}

/* pwritev2 at "the current position" is write; musl has no wrapper that says so. */
static ssize_t vector_nowait(long call, int fd, void *p, size_t n) {
	struct iovec part = { p, n };
	return syscall(call, fd, &part, 1, -1L, -1L, RWF_NOWAIT_);
}

/* Bytes written; 0: it is full; what nobody reads any more counts as written. */
static size_t put(struct sink *sink, const uint8_t *p, size_t n) {
	if (!sink->known) look(sink);
	for (;;) {
		if (sink->gone) return n;
		ssize_t done;
		switch (sink->kind) {
		case SOCKET: done = send(sink->write_fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL); break;
		case PIPE: done = vector_nowait(SYS_pwritev2, sink->write_fd, (void *)p, n); break;
		case PIPE_BY_PAGES:
			/* after the poll a page fits */
			if (!sink->writable) return 0;
			sink->writable = false;
			done = write(sink->write_fd, p, n < PAGE ? n : PAGE);
			break;
		default: done = write(sink->write_fd, p, n);
		}
		if (done > 0) return (size_t)done;
		if (done < 0 && errno == EINTR) continue;
		if (done < 0 && errno == EAGAIN) return 0;
		if (done < 0 && sink->kind == PIPE && (errno == EOPNOTSUPP || errno == EINVAL || errno == ENOSYS)) {
			sink->kind = PIPE_BY_PAGES; /* before Linux 6.4 */
			continue;
		}
		sink->gone = true;
		if (done < 0 && errno != EPIPE && errno != EIO) sink->error = errno; /* EIO: the terminal has hung up */
	}
}

bool sink_holds(const struct sink *sink) { return sink->start < sink->end; }

void sink_flush(struct sink *sink) {
	while (sink_holds(sink)) {
		size_t done = put(sink, sink->held + sink->start, sink->end - sink->start);
		if (!done) return;
		sink->start += done;
	}
	free(sink->held);
	sink->held = NULL;
	sink->start = sink->end = sink->size = 0;
}

/* Keep it until it can be written; false when that is enough. */
static bool hold(struct sink *sink, const uint8_t *p, size_t n) {
	size_t used = sink->end - sink->start;
	if (used + n > MOST_HELD) return false;
	if (sink->end + n > sink->size && sink->start) {
		memmove(sink->held, sink->held + sink->start, used);
		sink->start = 0;
		sink->end = used;
	}
	if (used + n > sink->size) {
		size_t size = sink->size ? sink->size : 4 * CHUNK;
		while (size < used + n) size *= 2;
		uint8_t *larger = realloc(sink->held, size);
		if (!larger) return false;
		sink->held = larger;
		sink->size = size;
	}
	memcpy(sink->held + sink->end, p, n);
	sink->end += n;
	return true;
}

size_t sink_write(struct sink *sink, const uint8_t *p, size_t n, bool may_hold) {
	size_t done = sink_holds(sink) ? 0 : put(sink, p, n);
	if (!done && may_hold && hold(sink, p, n)) done = n;
	sink->full = !done;
	return done;
}

ssize_t input_read(uint8_t *to, size_t size) {
	static uint8_t kind = 255;
	if (kind == 255) kind = kind_of(0);
	if (kind == SOCKET) return recv(0, to, size, MSG_DONTWAIT);
	if (kind == PIPE) {
		ssize_t n = vector_nowait(SYS_preadv2, 0, to, size);
		if (n >= 0 || (errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS)) return n;
		kind = PLAIN;
	}
	return read(0, to, size);
}
