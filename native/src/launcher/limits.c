/* Resource limits: those of init, not of the shell that happened to be the first. */
#include "launcher.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#define NAME_COLUMNS 26 /* of /proc/PID/limits */

static const struct { const char *name; int resource; rlim_t soft, hard; } limits[] = {
	/* the kernel's own, for when init's can't be read */
	{ "Max cpu time ", RLIMIT_CPU, RLIM_INFINITY, RLIM_INFINITY },
	{ "Max file size ", RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY },
	{ "Max data size ", RLIMIT_DATA, RLIM_INFINITY, RLIM_INFINITY },
	{ "Max stack size ", RLIMIT_STACK, 8 << 20, RLIM_INFINITY },
	{ "Max core file size ", RLIMIT_CORE, 0, RLIM_INFINITY },
	{ "Max resident set ", RLIMIT_RSS, RLIM_INFINITY, RLIM_INFINITY },
	{ "Max processes ", RLIMIT_NPROC, RLIM_INFINITY, RLIM_INFINITY },
	{ "Max open files ", RLIMIT_NOFILE, 1024, 1 << 20 },
	{ "Max locked memory ", RLIMIT_MEMLOCK, 8 << 20, 8 << 20 },
	{ "Max address space ", RLIMIT_AS, RLIM_INFINITY, RLIM_INFINITY },
	{ "Max file locks ", RLIMIT_LOCKS, RLIM_INFINITY, RLIM_INFINITY },
	{ "Max pending signals ", RLIMIT_SIGPENDING, RLIM_INFINITY, RLIM_INFINITY },
	{ "Max msgqueue size ", RLIMIT_MSGQUEUE, 819200, 819200 },
	{ "Max nice priority ", RLIMIT_NICE, 0, 0 },
	{ "Max realtime priority ", RLIMIT_RTPRIO, 0, 0 },
	{ "Max realtime timeout ", RLIMIT_RTTIME, RLIM_INFINITY, RLIM_INFINITY },
};

static const char *number(const char *p, rlim_t *value) {
	while (*p == ' ') p++;
	if (!strncmp(p, "unlimited", 9)) {
		*value = RLIM_INFINITY;
		return p + 9;
	}
	if (*p < '0' || *p > '9') return NULL;
	for (*value = 0; *p >= '0' && *p <= '9'; p++) *value = *value * 10 + (rlim_t)(*p - '0');
	return p;
}

static bool of_init(const char *text, const char *name, struct rlimit *limit) {
	const char *line = strstr(text, name);
	if (!line || strlen(line) < NAME_COLUMNS) return false;
	const char *p = number(line + NAME_COLUMNS, &limit->rlim_cur);
	return p && number(p, &limit->rlim_max);
}

void clean_limits(void) {
	char text[4096];
	if (read_text(AT_FDCWD, "/proc/1/limits", text, sizeof text) <= 0) *text = 0;
	for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
		struct rlimit wanted = { limits[i].soft, limits[i].hard }, now;
		if (*text && !of_init(text, limits[i].name, &wanted)) continue;
		if (getrlimit(limits[i].resource, &now)) continue;
		/* one fd per container and more */
		if (limits[i].resource == RLIMIT_NOFILE) wanted.rlim_cur = wanted.rlim_max;
		if (!setrlimit(limits[i].resource, &wanted)) continue;
		/* a hard limit can be raised with CAP_SYS_RESOURCE only */
		if (wanted.rlim_max > now.rlim_max) wanted.rlim_max = now.rlim_max;
		if (wanted.rlim_cur > wanted.rlim_max) wanted.rlim_cur = wanted.rlim_max;
		setrlimit(limits[i].resource, &wanted);
	}
}
