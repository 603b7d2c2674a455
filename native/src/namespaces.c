/* Namespaces: opened with a check of whose they are, joined, mapped. */
#include "ops.h"
#include <sched.h>
#include <stdio.h>
#include <sys/vfs.h>

#ifndef SYS_setns
#define SYS_setns 308
#endif

/* Field 22 of a process' stat; its name (field 2) may contain anything. 0 or -errno. */
static int start_time(int process, uint64_t *out)
{
	char text[1024];
	AUTO_CLOSE int fd = openat(process, "stat", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	text[n] = 0;
	char *p = strrchr(text, ')');
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (!p)
		return -ESRCH;
	*out = strtoull(p, NULL, 10);
	return 0;
}

int do_open_namespace(struct machine *m, const struct op_open_namespace *o)
{
	AUTO_CLOSE int fd = -1;
	if (o->path.n) {
		fd = open(o->path.p, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (fd < 0)
			return machine_fail(m, errno, "namespace %.300s", o->path.p);
		struct statfs fs;
		if (fstatfs(fd, &fs))
			return -errno;
		if (fs.f_type != NSFS_MAGIC)
			return machine_fail(m, EINVAL, "%.300s is not a namespace", o->path.p);
	} else {
		static const char *const types[] = { "net", "ipc", "mnt", "uts", "pid", "cgroup", "user", "time", "pid_for_children", "time_for_children" };
		char path[64];
		int known = 0;
		for (size_t i = 0; i < sizeof types / sizeof *types; i++)
			known |= !strcmp(types[i], o->type.p);
		if (!known || !o->pid)
			return machine_fail(m, EINVAL, "namespace type %.40s", o->type.p);
		snprintf(path, sizeof path, "/proc/%u", o->pid);
		/* the folder stays that of one process: a recycled pid cannot come between the check and the open */
		AUTO_CLOSE int process = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		uint64_t started = 0;
		int r = process < 0 ? (errno == ENOENT ? -ESRCH : -errno) : start_time(process, &started);
		if (r || started != o->start_time)
			return machine_fail(m, r ? -r : ESRCH, "process %u is gone", o->pid);
		snprintf(path, sizeof path, "ns/%s", o->type.p);
		fd = openat(process, path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return machine_fail(m, errno == ENOENT ? ESRCH : errno, "process %u, namespace %s", o->pid, o->type.p);
	}
	register_set_fd(m, o->out, take_fd(&fd));
	return 0;
}

int do_join_namespace(struct machine *m, const struct op_join_namespace *o)
{
	int fd = register_fd(m, o->fd);
	return fd < 0 ? fd : syscall(SYS_setns, fd, o->flags) ? -errno : 0;
}

int do_unshare(struct machine *m, const struct op_unshare *o)
{
	(void)m;
	return syscall(SYS_unshare, o->flags) ? -errno : 0;
}

static int write_once(const char *path, const char *data, size_t n)
{
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	ssize_t w = fd < 0 ? -1 : write(fd, data, n);
	return w < 0 ? -errno : (size_t)w == n ? 0 : -EIO;
}

int do_write_id_map(struct machine *m, const struct op_write_id_map *o)
{
	int64_t pid = -1;
	int r = register_number(m, o->pid, &pid);
	if (r)
		return r;
	char path[64];
	snprintf(path, sizeof path, "/proc/%lld/%s", (long long)pid, o->kind ? "gid_map" : "uid_map");
	r = write_once(path, o->map.p, o->map.n);
	return r ? machine_fail(m, -r, "%s: %.200s", o->kind ? "gid_map" : "uid_map", o->map.p) : 0;
}

int do_time_offsets(struct machine *m, const struct op_time_offsets *o)
{
	int r = write_once("/proc/self/timens_offsets", o->offsets.p, o->offsets.n);
	return r ? machine_fail(m, -r, "time offsets %.200s", o->offsets.p) : 0;
}

int do_set_hostname(struct machine *m, const struct op_set_hostname *o)
{
	(void)m;
	return sethostname(o->name.p, o->name.n) ? -errno : 0;
}

int do_set_domainname(struct machine *m, const struct op_set_domainname *o)
{
	(void)m;
	return syscall(SYS_setdomainname, o->name.p, (size_t)o->name.n) ? -errno : 0;
}
