/*
 * The caller's cgroups are left for the root of each hierarchy, as far as that is allowed, by writing this process alone: engined must neither be
 * killed with a session nor count against its limits. On v2, and in systemd's own hierarchy, what systemd keeps stays where it is: a service of its own (config/systemd) is
 * the way out there.
 */
#include "launcher.h"

#include <fcntl.h>
#include <unistd.h>

static char membership[8192], mounts[256 << 10];

static bool of_systemd(const char *path) { return strstr(path, ".service") || strstr(path, ".scope") || strstr(path, ".slice"); }

/* Is `word` one of a list with commas? */
static bool listed(const char *list, const char *word, size_t n) {
	for (const char *p = list; *p;) {
		size_t m = strcspn(p, ",");
		if (m == n && !memcmp(p, word, n)) return true;
		p += m + (p[m] == ',');
	}
	return false;
}

/* Where a hierarchy's root is mounted: controllers is "" for v2. A line: id parent major:minor root target options ... - type source super-options */
static bool find_mount(const char *controllers, char *to) {
	size_t first = strcspn(controllers, ",");
	for (char *line = mounts, *next; *line; line = next) {
		size_t length = strcspn(line, "\n");
		next = line + length + (line[length] == '\n');
		char whole[PATH_MAX];
		if (length >= sizeof whole) continue;
		memcpy(whole, line, length);
		whole[length] = 0;
		char *dash = strstr(whole, " - ");
		if (!dash) continue;
		*dash = 0;
		char *word = whole;
		for (int i = 0; i < 3 && word; i++) word = (word = strchr(word, ' ')) ? word + 1 : NULL;
		if (!word || strncmp(word, "/ ", 2)) continue; /* a part of it */
		char *target = word + 2, *type = dash + 3;
		target[strcspn(target, " ")] = 0;
		bool second = !strncmp(type, "cgroup2 ", 8);
		if (strchr(target, '\\') || second != !*controllers || strncmp(type, "cgroup", 6)) continue;
		char *options = strrchr(type, ' ');
		if (!second && (!options || !listed(options + 1, controllers, first))) continue;
		strcpy(to, target);
		return true;
	}
	return false;
}

static void leave(const char *controllers, const char *path) {
	char mount[PATH_MAX], file[PATH_MAX];
	bool second = !*controllers;
	if (!strcmp(path, "/") || ((second || !strcmp(controllers, "name=systemd")) && of_systemd(path)) || !find_mount(controllers, mount)) return;
	/* "tasks" moves a single thread without waiting for a grace period as "cgroup.procs" does */
	if (!join(file, mount, second ? "/cgroup.procs" : "/tasks", "")) return;
	int fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0) return;
	if (write(fd, "0", 1) < 0) {} /* best effort */
	close(fd);
}

void leave_cgroups(void) {
	if (read_text(AT_FDCWD, "/proc/self/cgroup", membership, sizeof membership) <= 0) return;
	if (read_text(AT_FDCWD, "/proc/self/mountinfo", mounts, sizeof mounts) <= 0) return;
	for (char *line = membership, *next; *line; line = next) {
		size_t length = strcspn(line, "\n");
		next = line + length + (line[length] == '\n');
		line[length] = 0;
		char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!path) continue;
		*path = 0;
		leave(controllers + 1, path + 1);
	}
}
