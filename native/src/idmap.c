/* Ids of a mount's files as a user namespace has them. */
#include "ops.h"
#include <linux/sched.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define MOUNT_ATTR_IDMAP_ 0x00100000
/* /proc/sys/kernel/overflowuid, as good as never changed */
#define OVERFLOW_ID 65534

int do_idmap_mount(struct machine *m, const struct op_idmap_mount *o)
{
	int mount = register_fd(m, o->mount), userns = register_fd(m, o->userns);
	if (mount < 0 || userns < 0)
		return -EBADF;
	struct mount_attr_ a = { .attr_set = MOUNT_ATTR_IDMAP_, .userns_fd = (uint64_t)userns };
	unsigned flags = AT_EMPTY_PATH_ | (o->recursive ? AT_RECURSIVE_ : 0);
	if (syscall(SYS_mount_setattr, mount, "", flags, &a, sizeof a))
		return machine_fail(m, errno, errno == EPERM ? "this mount shows its files with other owners already, or is not ours to change" : "this filesystem cannot show its files with other owners, or is in use");
	return 0;
}

static int write_map(pid_t pid, const char *name, struct str map)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n = write(fd, map.p, map.n); /* all or nothing; the kernel takes only one */
	return n < 0 ? -errno : (size_t)n == map.n ? 0 : -EIO;
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

/*
 * An overlay makes its work folder, whiteouts and copies in the name of whoever mounted it. On idmapped layers that must be somebody whom
 * their maps have: else its upper folder is read-only, or each write EOVERFLOW.
 */
int do_file_ids(struct machine *m, const struct op_file_ids *o)
{
	struct stat st = { 0 };
	if (o->like != NO_REGISTER) {
		int like = register_fd(m, o->like);
		if (like < 0)
			return like;
		if (fstat(like, &st))
			return -errno;
		if (st.st_uid == OVERFLOW_ID || st.st_gid == OVERFLOW_ID)
			return machine_fail(m, EOVERFLOW, "the maps of the user namespace have no root");
	}
	/* a change of these forgets both, see commit_creds() */
	int parent_death = 0, dumpable = prctl(PR_GET_DUMPABLE), bits = prctl(PR_GET_SECUREBITS);
	prctl(PR_GET_PDEATHSIG, &parent_death);
	if (bits < 0 || prctl(PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP))
		return -errno;
	setfsgid(st.st_gid);
	setfsuid(st.st_uid);
	bool done = (uid_t)setfsuid((uid_t)-1) == st.st_uid && (gid_t)setfsgid((gid_t)-1) == st.st_gid;
	if (o->like == NO_REGISTER)
		prctl(PR_SET_SECUREBITS, bits & ~SECBIT_NO_SETUID_FIXUP);
	/* the change of ids made it what fs.suid_dumpable says */
	prctl(PR_SET_DUMPABLE, dumpable == 1);
	prctl(PR_SET_PDEATHSIG, parent_death);
	return done ? 0 : -EPERM;
}
