/* Killing and removing cgroups, v1 and v2. Paths are the engine's own folders below a cgroup mount. */
#include "ops.h"
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

/* The names of the groups in a group, each with its NUL, an empty one at the end; malloc'ed. */
static int groups_in(int dir, char **names)
{
	size_t used = 0, room = 0;
	DIR *d = open_entries(dir);
	int r = d || errno == ENOENT || errno == ENODEV ? 0 : -errno;
	*names = NULL;
	for (struct dirent *e = NULL; !r;) {
		while (d && (e = readdir(d)) && (e->d_type != DT_DIR || !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")))
			;
		size_t n = d && e ? strlen(e->d_name) + 1 : 1;
		if (used + n > room) {
			char *more = realloc(*names, room = 2 * (used + n));
			if (!more) {
				r = -ENOMEM;
				break;
			}
			*names = more;
		}
		memcpy(*names + used, n > 1 ? e->d_name : "", n);
		used += n;
		if (n == 1)
			break;
	}
	if (d)
		closedir(d);
	return r;
}

/*
 * Calls `visit` for the group and all below it, deepest first, and `leave` for each of those below, after all in it. A container may make
 * groups as deep as it likes: there is one fd, of the group that it is at, and `..` is always the group above, as none can be moved to another.
 */
static int walk(int top, int (*visit)(int dir, void *context), void (*leave)(int parent, const char *name), void *context)
{
	struct level { char *names, *at; } *levels = NULL;
	size_t depth = 0, room = 0;
	int dir = fcntl(top, F_DUPFD_CLOEXEC, 3), r = dir < 0 ? -errno : 0;
	for (bool entered = true; !r;) {
		if (entered) {
			if (depth == room) {
				struct level *more = realloc(levels, (room = 2 * room + 16) * sizeof *levels);
				if (!more) {
					r = -ENOMEM;
					break;
				}
				levels = more;
			}
			r = groups_in(dir, &levels[depth].names);
			levels[depth].at = levels[depth].names;
			depth++;
			entered = false;
			continue;
		}
		struct level *here = &levels[depth - 1];
		int next = *here->at ? openat(dir, here->at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
		if (next >= 0) {
			entered = true;
		} else if (!*here->at) {
			r = visit ? visit(dir, context) : 0;
			if (r || depth == 1)
				break;
			if ((next = openat(dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
				r = -errno;
				break;
			}
			free(here->names);
			depth--;
			here--;
		}
		if (next >= 0) {
			close(dir);
			dir = next;
		}
		if (entered)
			continue;
		if (leave)
			leave(dir, here->at);
		here->at += strlen(here->at) + 1;
	}
	while (depth)
		free(levels[--depth].names);
	free(levels);
	if (dir >= 0)
		close(dir);
	return r;
}

static int write_text(int dir, const char *file, const char *text)
{
	AUTO_CLOSE int fd = openat(dir, file, O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

struct count { int processes, killed; pid_t last; };

static int kill_here(int dir, void *context)
{
	struct count *count = context;
	int fd = openat(dir, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	if (!f) {
		if (fd >= 0)
			close(fd);
		return errno == ENOENT || errno == ENODEV ? 0 : -errno;
	}
	int pid;
	while (fscanf(f, "%d", &pid) == 1) {
		if (pid <= 0) /* of a pid namespace that is not below ours */
			continue;
		if (pid == getpid()) {
			fclose(f);
			return -EDEADLK;
		}
		count->processes++;
		count->last = pid;
		if (!kill(pid, SIGKILL))
			count->killed++;
	}
	fclose(f);
	return 0;
}

static int thaw_here(int dir, void *context)
{
	(void)context;
	write_text(dir, "freezer.state", "THAWED");
	return 0;
}

static int thaw2_here(int dir, void *context)
{
	(void)context;
	write_text(dir, "cgroup.freeze", "0");
	return 0;
}

int do_cgroup_kill(struct machine *m, const struct op_cgroup_kill *o)
{
	AUTO_CLOSE int dir = open(o->path.p, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return errno == ENOENT ? 0 : -errno;
	const int64_t until = clock_ms() + o->deadline;
	const int v1_freezer = !faccessat(dir, "freezer.state", W_OK, 0);
	int has_kill = !faccessat(dir, "cgroup.kill", W_OK, 0);
	for (int round = 0, pause = 1;; round++) {
		struct count count = { 0 };
		if (has_kill && write_text(dir, "cgroup.kill", "1"))
			has_kill = 0;
		/* frozen, nobody forks between the look and the signal */
		if (v1_freezer && round)
			write_text(dir, "freezer.state", "FROZEN");
		int r = walk(dir, kill_here, NULL, &count);
		if (v1_freezer)
			walk(dir, thaw_here, NULL, NULL); /* a frozen v1 task does not die */
		else if (!has_kill)
			walk(dir, thaw2_here, NULL, NULL);
		if (r)
			return r;
		if (!count.processes)
			return 0;
		if (clock_ms() >= until)
			return machine_fail(m, ETIMEDOUT, "%d processes do not end, among them %d", count.processes, count.last);
		sleep_ms(pause);
		pause = pause < 16 ? pause * 2 : 16;
	}
}

int do_cgroup_evacuate(struct machine *m, const struct op_cgroup_evacuate *o)
{
	AUTO_CLOSE int dir = open(o->path.p, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	if (mkdirat(dir, o->leaf.p, 0755) && errno != EEXIST)
		return -errno;
	AUTO_CLOSE int leaf = openat(dir, o->leaf.p, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (leaf < 0)
		return -errno;
	const int64_t until = clock_ms() + o->deadline;
	/* who forks meanwhile leaves a child behind: until there is none */
	for (int moved = 1; moved;) {
		moved = 0;
		int fd = openat(dir, "cgroup.procs", O_RDONLY | O_CLOEXEC), pid;
		FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
		if (!f) {
			int error = errno;
			if (fd >= 0)
				close(fd);
			return -error;
		}
		while (fscanf(f, "%d", &pid) == 1) {
			char text[16];
			/* 0: of a pid namespace that is not below ours */
			if (pid <= 0) {
				fclose(f);
				return machine_fail(m, EBUSY, "processes of another pid namespace are in %.300s", o->path.p);
			}
			snprintf(text, sizeof text, "%d", pid);
			int r = write_text(leaf, "cgroup.procs", text);
			if (r && r != -ESRCH) {
				fclose(f);
				return machine_fail(m, -r, "process %d cannot be moved from %.200s to %.100s", pid, o->path.p, o->leaf.p);
			}
			moved++;
		}
		fclose(f);
		if (clock_ms() >= until)
			return machine_fail(m, ETIMEDOUT, "%.300s is never empty", o->path.p);
	}
	return 0;
}

/* What is still in use, the rmdir of the group above will tell. */
static void remove_group(int parent, const char *name)
{
	unlinkat(parent, name, AT_REMOVEDIR);
}

int do_cgroup_remove(struct machine *m, const struct op_cgroup_remove *o)
{
	const int64_t until = clock_ms() + o->deadline;
	for (int pause = 1;;) {
		if (!rmdir(o->path.p) || errno == ENOENT)
			return 0;
		int error = errno;
		if (error != EBUSY && error != ENOTEMPTY)
			return -error;
		AUTO_CLOSE int dir = open(o->path.p, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (dir >= 0)
			walk(dir, NULL, remove_group, NULL);
		if (!rmdir(o->path.p) || errno == ENOENT)
			return 0;
		if (clock_ms() >= until)
			return machine_fail(m, errno, "still in use after %u ms", o->deadline);
		sleep_ms(pause);
		pause = pause < 16 ? pause * 2 : 16;
	}
}

static int64_t read_number(int dir, const char *file)
{
	char text[64];
	AUTO_CLOSE int fd = openat(dir, file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n <= 0)
		return -1;
	text[n] = 0;
	char *end;
	errno = 0;
	unsigned long long v = strtoull(text, &end, 10);
	/* "max" and v1's 2^63 rounded down to a page mean none */
	return end == text || v >= 0x7ffffffffffff000u ? -1 : (int64_t)v;
}

/* Value of `key` in a file of lines "key value", or -1. */
static int64_t read_key(int dir, const char *file, const char *key)
{
	char text[1024];
	AUTO_CLOSE int fd = openat(dir, file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	size_t length = strlen(key);
	if (n <= 0)
		return -1;
	text[n] = 0;
	for (char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (!strncmp(line, key, length) && line[length] == ' ')
			return strtoll(line + length + 1, NULL, 10);
	return -1;
}

static int64_t oom_kills_here(int dir)
{
	int64_t n = read_key(dir, "memory.events", "oom_kill");
	return n < 0 ? read_key(dir, "memory.oom_control", "oom_kill") : n;
}

static int add_oom_kills(int dir, void *context)
{
	int64_t n = oom_kills_here(dir);
	if (n > 0)
		*(int64_t *)context += n;
	return 0;
}

/* Kills in the group and in those that the container made below it. */
static int64_t oom_kills(int dir)
{
	struct stat st;
	int64_t n = oom_kills_here(dir), all = 0;
	/* v2 counts what happens below too, but for a hierarchy that is mounted with memory_localevents; v1 never does */
	if (n || fstat(dir, &st) || st.st_nlink <= 2)
		return n;
	walk(dir, add_oom_kills, NULL, &all);
	return all;
}

int do_memory_events(struct machine *m, const struct op_memory_events *o)
{
	struct memory_events e = { .version = o->version, .oom = -1, .failcnt = -1, .kmem_failcnt = -1, .memsw_failcnt = -1, .limit = -1, .peak = -1 };
	AUTO_CLOSE int dir = open(o->path.p, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	if (o->version == 2) {
		e.oom_kill = oom_kills(dir);
		e.limit = read_number(dir, "memory.max");
		if (e.oom_kill <= 0)
			goto told;
		e.oom = read_key(dir, "memory.events", "oom");
		e.peak = read_number(dir, "memory.peak");
	} else {
		e.oom_kill = oom_kills(dir);
		e.limit = read_number(dir, "memory.limit_in_bytes");
		if (e.oom_kill <= 0)
			goto told;
		e.failcnt = read_number(dir, "memory.failcnt");
		e.kmem_failcnt = read_number(dir, "memory.kmem.failcnt");
		e.memsw_failcnt = read_number(dir, "memory.memsw.failcnt");
		e.peak = read_number(dir, "memory.max_usage_in_bytes");
	}
told: /* the rest says something about a kill alone, and is read while somebody waits for the answer */
	return m->host && m->host->memory_events ? m->host->memory_events(m, &e) : 0;
}
