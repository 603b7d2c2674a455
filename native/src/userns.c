/* What the host's root does for a process that is about to be in a user namespace, where it no longer can. */
#define _GNU_SOURCE
#include "process.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A small file of /proc/PID; what there is of it. */
static size_t read_of(pid_t pid, const char *name, char *text, size_t size) {
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);
	if (fd >= 0) close(fd);
	text[n < 0 ? 0 : n] = 0;
	return n < 0 ? 0 : (size_t)n;
}

/* The host's id of id 0 inside; -1 when nobody is that. */
static uint32_t root_of(pid_t pid, const char *name) {
	static char map[4096]; /* the kernel gives at most a page at a time */
	char *at = map;
	for (read_of(pid, name, map, sizeof map); *at;) {
		char *line = at;
		unsigned long inside = strtoul(line, &at, 10), outside = strtoul(at, &at, 10), count = strtoul(at, &at, 10);
		if (at == line) break;
		if (!inside && count) return (uint32_t)outside;
		while (*at == '\n') at++;
	}
	return UINT32_MAX;
}

void own_streams(const struct session *s, pid_t pid) {
	uint32_t uid = root_of(pid, "uid_map"), gid = root_of(pid, "gid_map");
	if (!uid || uid == UINT32_MAX || gid == UINT32_MAX) return; /* `pipes` says what does not work then */
	for (int i = 0; i < 3; i++) {
		struct stat st;
		int fd = s->flags & STDIO_INHERIT ? i : s->child_fds[i];
		if (fd < 0) continue;
		/* of the caller's only what is a pipe, as ours would be: a file or terminal stays whose it is */
		if (fd == i && (fstat(fd, &st) || !S_ISFIFO(st.st_mode) || st.st_uid)) continue;
		if (fchown(fd, uid, gid) && fd != i) return;
	}
}

void take_limits(pid_t init) {
	for (int resource = 0; resource < RLIM_NLIMITS; resource++) {
		struct { uint64_t soft, hard; } theirs, ours;
		if (syscall(SYS_prlimit64, init, resource, NULL, &theirs) || syscall(SYS_prlimit64, 0, resource, NULL, &ours)) continue;
		if (theirs.hard > ours.hard) syscall(SYS_prlimit64, 0, resource, &theirs, NULL);
	}
	char score[16];
	size_t n = read_of(init, "oom_score_adj", score, sizeof score);
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0) return;
	ssize_t done = write(fd, score, n);
	(void)done; /* the session says so when it asks for another one than it has */
	close(fd);
}
