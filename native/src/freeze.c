/* Freezing and thawing a cgroup, v1 and v2. */
#include "ops.h"
#include <poll.h>
#include <stdio.h>

static int write_state(int dir, int v2, int frozen)
{
	const char *text = v2 ? (frozen ? "1" : "0") : (frozen ? "FROZEN" : "THAWED");
	AUTO_CLOSE int fd = openat(dir, v2 ? "cgroup.freeze" : "freezer.state", O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

/* Is all of it as it is wanted? 1, 0 or -errno. */
static int is_so(int dir, int v2, int frozen)
{
	char text[256];
	AUTO_CLOSE int fd = openat(dir, v2 ? "cgroup.events" : "freezer.state", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n < 0)
		return -errno;
	text[n] = 0;
	return v2 ? strstr(text, frozen ? "frozen 1" : "frozen 0") != NULL : !strncmp(text, frozen ? "FROZEN" : "THAWED", 6);
}

int do_cgroup_freeze(struct machine *m, const struct op_cgroup_freeze *o)
{
	AUTO_CLOSE int dir = open(o->path.p, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	const int v2 = !faccessat(dir, "cgroup.freeze", F_OK, 0);
	const int64_t until = clock_ms() + o->deadline;
	for (int pause = 1;;) {
		/* v1: a task that was in the kernel when the state was written is found at the next write or read */
		int r = write_state(dir, v2, (int)o->frozen);
		if (!r)
			r = is_so(dir, v2, (int)o->frozen);
		if (r < 0)
			return r;
		if (r)
			return 0;
		if (clock_ms() >= until) {
			if (o->frozen)
				write_state(dir, v2, 0);
			return machine_fail(m, ETIMEDOUT, "not %s after %u ms", o->frozen ? "frozen" : "thawed", o->deadline);
		}
		sleep_ms(pause);
		pause = pause < 16 ? pause * 2 : 16;
	}
}
