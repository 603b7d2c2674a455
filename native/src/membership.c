/* Where a process lives in the cgroup hierarchies, v1, v2 or both; joining it there, and whether it is frozen. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct hierarchy {
	bool v2;
	const char *controllers;
	const char *path; /* in the hierarchy, as /proc/PID/cgroup has it */
	char folder[4096];
};

static bool has_word(const char *list, const char *word, char separator) {
	size_t n = strlen(word);
	for (const char *p = list; p; p = strchr(p, separator), p = p ? p + 1 : NULL)
		if (!strncmp(p, word, n) && (!p[n] || p[n] == separator || p[n] == '\n')) return true;
	return false;
}

/* The mount of a hierarchy: `controllers` as in /proc/PID/cgroup ("memory", "name=systemd", "" for v2), with the mount's own root. */
static bool find_mount(const char *controllers, const char *path, char *folder, size_t size) {
	/* outside of our cgroup namespace: no mount shows it */
	if (!strncmp(path, "/..", 3) && (!path[3] || path[3] == '/')) return false;
	FILE *f = fopen("/proc/self/mountinfo", "re");
	if (!f) return false;
	char *line = NULL;
	size_t room = 0;
	bool found = false;
	char first[64];
	snprintf(first, sizeof first, "%.*s", (int)strcspn(controllers, ","), controllers);
	while (!found && getline(&line, &room, f) > 0) {
		char *save = NULL, *root = NULL, *point = NULL, *word = strtok_r(line, " \n", &save);
		for (int i = 0; word && strcmp(word, "-"); i++, word = strtok_r(NULL, " \n", &save)) {
			if (i == 3) root = word;
			if (i == 4) point = word;
		}
		char *type = strtok_r(NULL, " \n", &save), *source = strtok_r(NULL, " \n", &save), *options = strtok_r(NULL, " \n", &save);
		if (!root || !point || !type || !source) continue;
		bool match = *controllers ? !strcmp(type, "cgroup") && options && has_word(options, first, ',') : !strcmp(type, "cgroup2");
		if (!match) continue;
		size_t skip = strcmp(root, "/") ? strlen(root) : 0;
		if (skip && strncmp(path, root, skip)) continue;
		snprintf(folder, size, "%s%s", point, path + skip);
		found = true;
	}
	free(line);
	fclose(f);
	return found;
}

/* Calls `each` with every hierarchy of `pid` that is mounted; stops at the first result that is not 0. */
static int each_hierarchy(pid_t pid, int (*each)(const struct hierarchy *h, void *context), void *context) {
	char name[32];
	snprintf(name, sizeof name, "/proc/%d/cgroup", pid);
	FILE *f = fopen(name, "re");
	if (!f) return errno;
	char *line = NULL;
	size_t room = 0;
	int result = 0;
	while (!result && getline(&line, &room, f) > 0) {
		line[strcspn(line, "\n")] = 0;
		char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!path) continue;
		*controllers++ = *path++ = 0;
		struct hierarchy *h = malloc(sizeof *h);
		if (!h) {
			result = ENOMEM;
			break;
		}
		h->controllers = controllers;
		h->path = path;
		h->v2 = !*controllers;
		if (find_mount(controllers, path, h->folder, sizeof h->folder)) result = each(h, context);
		free(h);
	}
	free(line);
	fclose(f);
	return result;
}

struct joining { bool v1_only; char *detail; size_t size; };

/* Is this process in that group already? */
static bool is_member(const struct hierarchy *h) {
	FILE *f = fopen("/proc/self/cgroup", "re");
	if (!f) return false;
	char *line = NULL;
	size_t room = 0;
	bool found = false;
	while (!found && getline(&line, &room, f) > 0) {
		line[strcspn(line, "\n")] = 0;
		char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!path) continue;
		*path++ = 0;
		found = !strcmp(controllers + 1, h->controllers) && !strcmp(path, h->path);
	}
	free(line);
	fclose(f);
	return found;
}

static int write_zero(const char *path) {
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int failed = fd < 0 ? errno : write(fd, "0", 1) == 1 ? 0 : errno;
	if (fd >= 0) close(fd);
	return failed;
}

static int join_one(const struct hierarchy *h, void *context) {
	struct joining *j = context;
	char path[4200];
	/* joining a v2 group costs a grace period of milliseconds, even the one that one is in */
	if (h->v2 && (j->v1_only || is_member(h))) return 0;
	/* `tasks`, not cgroup.procs: moving oneself by it costs no grace period on v1 */
	snprintf(path, sizeof path, "%s/%s", h->folder, h->v2 ? "cgroup.procs" : "tasks");
	int failed = write_zero(path);
	/* a threaded group takes threads alone: its processes are those of the domain above */
	for (size_t room = strlen(h->folder); h->v2 && failed == EOPNOTSUPP && room; room--) {
		if (h->folder[room - 1] != '/') continue;
		snprintf(path, sizeof path, "%.*s/cgroup.procs", (int)room - 1, h->folder);
		failed = write_zero(path);
	}
	if (failed) snprintf(j->detail, j->size, failed == EBUSY ? "cannot join cgroup %s: it has groups with controllers below it" : "cannot join cgroup %s", path);
	return failed;
}

int cgroups_join(pid_t pid, bool v1_only, char *detail, size_t size) {
	struct joining j = { v1_only, detail, size };
	return each_hierarchy(pid, join_one, &j);
}

/* The path of a process in the v2 hierarchy, from its one line in /proc/PID/cgroup; malloc'ed. */
static char *unified_path(const char *name) {
	FILE *f = fopen(name, "re");
	char *line = NULL, *path = NULL;
	size_t room = 0;
	while (f && !path && getline(&line, &room, f) > 0) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "0::", 3)) path = strdup(line + 3);
	}
	free(line);
	if (f) fclose(f);
	return path;
}

int cgroup_to_be_born_in(pid_t pid) {
	char name[32], folder[4096];
	snprintf(name, sizeof name, "/proc/%d/cgroup", pid);
	char *theirs = unified_path(name), *ours = unified_path("/proc/self/cgroup");
	int fd = -1;
	if (theirs && ours && strcmp(theirs, ours) && find_mount("", theirs, folder, sizeof folder)) fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(theirs);
	free(ours);
	return fd;
}

static int frozen_one(const struct hierarchy *h, void *context) {
	(void)context;
	char path[4200], value[256];
	if (h->v2) {
		snprintf(path, sizeof path, "%s/cgroup.events", h->folder);
		if (run_file_read(AT_FDCWD, path, value, sizeof value) > 0 && strstr(value, "frozen 1")) return -1;
		snprintf(path, sizeof path, "%s/cgroup.freeze", h->folder);
		return run_file_read(AT_FDCWD, path, value, sizeof value) > 0 && value[0] == '1' ? -1 : 0;
	}
	if (!has_word(h->controllers, "freezer", ',')) return 0;
	snprintf(path, sizeof path, "%s/freezer.state", h->folder);
	return run_file_read(AT_FDCWD, path, value, sizeof value) > 0 && strncmp(value, "THAWED", 6) ? -1 : 0;
}

static int thaw_one(const struct hierarchy *h, void *context) {
	(void)context;
	char path[4200];
	if (!h->v2 && !has_word(h->controllers, "freezer", ',')) return 0;
	snprintf(path, sizeof path, "%s/%s", h->folder, h->v2 ? "cgroup.freeze" : "freezer.state");
	int fd = open(path, O_WRONLY | O_CLOEXEC); /* a root group has none */
	if (fd < 0) return 0;
	const char *value = h->v2 ? "0" : "THAWED";
	ssize_t written = write(fd, value, strlen(value));
	(void)written;
	close(fd);
	return 0;
}

void cgroups_thaw(pid_t pid) { each_hierarchy(pid, thaw_one, NULL); }

bool cgroups_frozen(pid_t pid) { return each_hierarchy(pid, frozen_one, NULL) == -1; }
