/* The files of a run's folder, and the bounded JSON text that is written into them. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int run_file_begin(int folder, const char *name) {
	char temporary[64];
	snprintf(temporary, sizeof temporary, ".%s.new", name);
	int fd = openat(folder, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? -errno : fd;
}

int run_file_finish(int folder, const char *name, int fd, const char *data, size_t length) {
	char temporary[64];
	int failed = fd < 0 ? -fd : 0;
	if (failed) return failed;
	snprintf(temporary, sizeof temporary, ".%s.new", name);
	for (size_t done = 0; done < length;) {
		ssize_t n = write(fd, data + done, length - done);
		if (n < 0 && errno == EINTR) continue;
		if (n <= 0) {
			failed = n ? errno : EIO;
			break;
		}
		done += (size_t)n;
	}
	close(fd);
	if (!failed && renameat(folder, temporary, folder, name)) failed = errno;
	if (failed) unlinkat(folder, temporary, 0);
	return failed;
}

int run_file_write(int folder, const char *name, const char *data, size_t length) {
	return run_file_finish(folder, name, run_file_begin(folder, name), data, length);
}

ssize_t run_file_read(int folder, const char *name, char *buffer, size_t size) {
	int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return -1;
	ssize_t total = 0, n = 0;
	while ((size_t)total < size - 1 && (n = read(fd, buffer + total, size - 1 - (size_t)total)) > 0) total += n;
	int failed = errno;
	close(fd);
	errno = failed;
	if (n < 0) return -1;
	buffer[total] = 0;
	return total;
}

uint64_t start_time_of(pid_t pid) {
	char path[32], line[1024];
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	if (run_file_read(AT_FDCWD, path, line, sizeof line) <= 0) return 0;
	char *p = strrchr(line, ')'); /* the name may hold anything */
	if (!p) return 0;
	for (int field = 2; field < 22; field++) {
		p = strchr(p + 1, ' ');
		if (!p) return 0;
	}
	return strtoull(p + 1, NULL, 10);
}

int run_init(int folder, pid_t *pid, uint64_t *start_time) {
	char buffer[256];
	if (run_file_read(folder, "started", buffer, sizeof buffer) <= 0) return -1;
	const char *pid_at = strstr(buffer, "\"pid\":"), *time_at = strstr(buffer, "\"startTime\":");
	if (!pid_at || !time_at) return -1;
	*pid = (pid_t)strtol(pid_at + 6, NULL, 10);
	*start_time = strtoull(time_at + 12, NULL, 10);
	int pidfd = *pid > 1 ? (int)syscall(SYS_pidfd_open, *pid, 0) : -1;
	/* the pidfd first, then the look: a pid that was given anew in between shows another start time */
	if (pidfd < 0 || start_time_of(*pid) == *start_time) return pidfd;
	close(pidfd);
	return -1;
}

void text_add(struct text *t, const char *format, ...) {
	va_list arguments;
	va_start(arguments, format);
	int n = vsnprintf(t->p + t->used, t->size - t->used, format, arguments);
	va_end(arguments);
	if (n > 0 && (size_t)n < t->size - t->used) t->used += (size_t)n;
	else t->p[t->used] = 0; /* all or nothing */
}

void text_json_string(struct text *t, const char *s) {
	text_add(t, "\"");
	for (; *s && t->size - t->used > 64; s++) {
		unsigned char c = (unsigned char)*s;
		if (c == '"' || c == '\\') text_add(t, "\\%c", c);
		else if (c < 0x20 || c == 0x7f) text_add(t, "\\u%04x", c);
		else text_add(t, "%c", c);
	}
	text_add(t, "\"");
}
