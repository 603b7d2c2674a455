/* Words on standard error, numbers, small files. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAX_PARTS 16

static void write_line(const char *first, const char *part, va_list more) {
	struct iovec parts[MAX_PARTS + 2];
	int n = 0;
	if (first) parts[n++] = (struct iovec){ (void *)first, strlen(first) };
	for (; part && n < MAX_PARTS; part = va_arg(more, const char *)) parts[n++] = (struct iovec){ (void *)part, strlen(part) };
	parts[n++] = (struct iovec){ "\n", 1 };
	if (writev(2, parts, n) < 0) return; /* nobody to tell */
}

void say(const char *part, ...) {
	va_list more;
	va_start(more, part);
	write_line(NULL, part, more);
	va_end(more);
}

void die(const char *part, ...) {
	va_list more;
	terminal_restore();
	va_start(more, part);
	write_line(oci ? "engine-oci: " : "engine: ", part, more);
	va_end(more);
	_exit(oci ? EXIT_OCI : EXIT_ENGINE);
}

char *decimal(uint64_t value, char to[21]) {
	char *p = to + 20;
	*p = 0;
	do *--p = (char)('0' + value % 10);
	while (value /= 10);
	return p;
}

const char *errno_text(int number) { return strerror(number); }

int64_t now_ms(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

const char *variable(const char *name) {
	const char *value = getenv(name);
	return value && *value ? value : NULL;
}

bool join(char *to, const char *a, const char *b, const char *c) {
	size_t la = strlen(a), lb = strlen(b), lc = strlen(c);
	if (la + lb + lc >= PATH_MAX) return false;
	memmove(to, a, la);
	memcpy(to + la, b, lb);
	memcpy(to + la + lb, c, lc + 1);
	return true;
}

ssize_t read_text(int folder, const char *path, char *to, size_t size) {
	int fd = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0) return -1;
	size_t got = 0;
	while (got < size - 1) {
		ssize_t n = read(fd, to + got, size - 1 - got);
		if (n < 0 && errno == EINTR) continue;
		if (n <= 0) break;
		got += (size_t)n;
	}
	close(fd);
	to[got] = 0;
	return (ssize_t)got;
}
