/* Ids of a mount's files as a user namespace has them. */
#define _GNU_SOURCE
#include "ops.h"
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#define MOUNT_ATTR_IDMAP_ 0x00100000

int do_idmap_mount(struct machine *m, const struct op_idmap_mount *o)
{
	int mount = register_fd(m, o->mount), userns = register_fd(m, o->userns);
	if (mount < 0 || userns < 0)
		return -EBADF;
	struct mount_attr_ a = { .attr_set = MOUNT_ATTR_IDMAP_, .userns_fd = (uint64_t)userns };
	unsigned flags = AT_EMPTY_PATH_ | (o->recursive ? AT_RECURSIVE_ : 0);
	if (syscall(SYS_mount_setattr, mount, "", flags, &a, sizeof a))
		return machine_fail(m, errno, "this filesystem cannot show its files with other owners");
	return 0;
}

static int write_map(pid_t pid, const char *name, struct str map)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, map.p, map.n) != (ssize_t)map.n ? -errno : 0;
}

int do_make_user_namespace(struct machine *m, const struct op_make_user_namespace *o)
{
	/* it needs a process to be born with; that one waits in a read until it is killed */
	struct clone_args a = { .flags = CLONE_NEWUSER, .exit_signal = SIGCHLD };
	int hold[2];
	if (pipe2(hold, O_CLOEXEC))
		return -errno;
	pid_t pid = (pid_t)syscall(SYS_clone3, &a, sizeof a);
	if (!pid) {
		char c;
		close(hold[1]);
		ssize_t n = read(hold[0], &c, 1);
		_exit(n > 0);
	}
	int r = pid < 0 ? -errno : 0, fd = -1;
	close(hold[0]);
	if (!r) {
		char path[64];
		snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
		r = write_map(pid, "uid_map", o->uid_map);
		if (r)
			machine_fail(m, -r, "uid_map: %.200s", o->uid_map.p);
		else if ((r = write_map(pid, "gid_map", o->gid_map)))
			machine_fail(m, -r, "gid_map: %.200s", o->gid_map.p);
		else if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
			r = -errno;
	} else {
		machine_fail(m, -r, "cannot make a user namespace");
	}
	close(hold[1]);
	if (pid > 0) {
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
			;
	}
	if (!r)
		register_set_fd(m, o->out, fd);
	return r;
}

int do_shift_tree(struct machine *m, const struct op_shift_tree *o)
{
	return machine_fail(m, ENOTSUP, "%.200s", o->path.p);
}
