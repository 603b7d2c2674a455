/* Standard streams of the container: a pty of its own devpts, or the shim's pipes. */
#include "resolve.h"
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif

static int owner_of(struct machine *m, uint32_t reg, int64_t *uid)
{
	*uid = -1;
	return reg == NO_REGISTER ? 0 : register_number(m, reg, uid);
}

/* CVE-2025-52565: by fd, so that neither a link at /dev/pts/N nor one at /dev/console can send it elsewhere. */
static int bind_console(struct machine *m, int root, int slave)
{
	char name[256];
	AUTO_CLOSE int dev = resolve_parent(root, "/dev/console", name);
	if (dev < 0)
		return dev;
	AUTO_CLOSE int file = openat(dev, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	AUTO_CLOSE int target = openat(dev, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (target < 0 || fstat(target, &st))
		return -errno;
	if (S_ISLNK(st.st_mode) || S_ISDIR(st.st_mode))
		return machine_fail(m, ELOOP, "/dev/console is no file");
	AUTO_CLOSE int mount = sys_open_tree(slave, "", OPEN_TREE_CLONE_ | OPEN_TREE_CLOEXEC_ | AT_EMPTY_PATH_);
	return mount < 0 ? mount : sys_move_mount(mount, target);
}

int do_terminal(struct machine *m, const struct op_terminal *o)
{
	int64_t uid;
	int devpts = register_fd(m, o->devpts), r = owner_of(m, o->uid, &uid);
	if (devpts < 0 || r)
		return devpts < 0 ? devpts : r;
	if (!m->host || !m->host->give_master)
		return machine_fail(m, ENOTSUP, "not possible in this part");
	AUTO_CLOSE int master = openat(devpts, "ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	struct statfs fs;
	if (master < 0 || fstat(master, &st) || fstatfs(master, &fs))
		return machine_fail(m, errno, "ptmx");
	if (fs.f_type != DEVPTS_MAGIC || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(5, 2))
		return machine_fail(m, ENODEV, "the register holds no devpts");
	int unlocked = 0;
	if (ioctl(master, TIOCSPTLCK, &unlocked))
		return -errno;
	AUTO_CLOSE int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return machine_fail(m, errno, "TIOCGPTPEER");
	if (uid >= 0 && fchown(slave, (uid_t)uid, (gid_t)-1))
		return machine_fail(m, errno, errno == EINVAL ? "user %lld is not mapped in this user namespace" : "owner of the terminal", (long long)uid);
	if (o->console && o->root != NO_REGISTER) {
		int root = register_fd(m, o->root);
		r = root < 0 ? root : bind_console(m, root, slave);
		if (r)
			return r;
	}
	r = m->host->give_master(m, master);
	if (r)
		return r;
	if (setsid() < 0 && getsid(0) != getpid())
		return machine_fail(m, errno, "setsid");
	if (ioctl(slave, TIOCSCTTY, 0))
		return machine_fail(m, errno, "TIOCSCTTY");
	for (int i = 0; i < 3; i++)
		if (dup2(slave, i) < 0)
			return -errno;
	if (slave < 3)
		take_fd(&slave);
	return 0;
}

static int is_null_device(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3);
}
static int is_null(int fd)
{
	struct stat st;
	return !fstat(fd, &st) && is_null_device(&st);
}

/* The null device at its name below /, -1 when something else is there. */
static int null_device(void)
{
	AUTO_CLOSE int null = open("/dev/null", O_RDWR | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	return null >= 0 && is_null(null) && !fcntl(null, F_SETFL, O_RDWR) ? take_fd(&null) : -1;
}

/*
 * Streams that are the host's null device become the container's own, below the root that was just entered: a file of a mount that it
 * does not have cannot be checkpointed. Where it has no null device they stay.
 */
void own_null(void)
{
	AUTO_CLOSE int null = -1;
	for (int fd = 0; fd < 3; fd++) {
		if (!is_null(fd))
			continue;
		if (null < 0)
			null = null_device();
		if (null < 0 || dup2(null, fd) < 0)
			return;
	}
}

/* The null device, or, where a container has none any more, a pipe whose other end is closed. */
static int open_null(struct machine *m)
{
	int null = null_device();
	if (null >= 0)
		return null;
	int fds[2];
	if (pipe2(fds, O_CLOEXEC))
		return machine_fail(m, errno, "no null device");
	close(fds[1]);
	return fds[0];
}

/* The caller's streams: its container's user is to be able to open /dev/stdout again. */
static int own_inherited(struct machine *m, int64_t uid)
{
	for (int fd = 0; fd < 3; fd++) {
		struct stat st;
		if (fstat(fd, &st))
			return machine_fail(m, errno, "stream %d", fd);
		if (uid < 0 || st.st_uid == (uid_t)uid || is_null_device(&st))
			continue;
		/* EINVAL, EPERM: not of this user namespace; EROFS: a read-only /dev. Then it stays whose it is */
		if (fchown(fd, (uid_t)uid, (gid_t)-1) && errno != EINVAL && errno != EPERM && errno != EROFS)
			return machine_fail(m, errno, "owner of stream %d", fd);
	}
	setsid();
	return 0;
}

int do_pipes(struct machine *m, const struct op_pipes *o)
{
	int64_t uid;
	int fds[3] = { -1, -1, -1 }, r = owner_of(m, o->uid, &uid);
	if (r)
		return r;
	if (!m->host || !m->host->take_pipes)
		return machine_fail(m, ENOTSUP, "not possible in this part");
	r = m->host->take_pipes(m, fds);
	if (r < 0)
		return r;
	if (r)
		return own_inherited(m, uid);
	AUTO_CLOSE int null = -1;
	for (int i = 0; i < 3; i++) {
		if (fds[i] < 0) {
			if (null < 0)
				null = open_null(m);
			if (null < 0)
				return null;
		} else if (uid >= 0 && fchown(fds[i], (uid_t)uid, (gid_t)-1)) {
			if (errno == EINVAL)
				return machine_fail(m, EINVAL, "user %lld is not mapped in this user namespace", (long long)uid);
			/* inside a user namespace the shim's pipes are nobody's: writing works, re-opening /dev/stdout does not */
			machine_warn(m, errno, "the standard streams stay owned by root");
		}
	}
	/* first out of the way of 0..2 */
	for (int i = 0; i < 3; i++) {
		int from = fds[i] < 0 ? null : fds[i];
		if ((fds[i] = fcntl(from, F_DUPFD_CLOEXEC, 10)) < 0)
			return -errno;
	}
	for (int i = 0; i < 3; i++) {
		if (dup2(fds[i], i) < 0)
			return -errno;
		close(fds[i]);
	}
	if (null >= 0 && null < 3)
		take_fd(&null);
	/* a session of its own; ptys make theirs in `terminal` */
	setsid();
	return 0;
}
