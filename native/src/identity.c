/* Who the program runs as, and what it may do. */
#include "resolve.h"
#include "users.h"
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define DATABASE_MAX (16u << 20)
#define KEYCTL_JOIN_SESSION_KEYRING_ 1

#ifndef PR_CAP_AMBIENT
#define PR_CAP_AMBIENT 47
#define PR_CAP_AMBIENT_RAISE 2
#define PR_CAP_AMBIENT_CLEAR_ALL 4
#endif

/* A whole regular file below `root`, malloc'ed; a missing one is empty. 0 or -errno. */
static int read_database(struct machine *m, int root, const char *path, char **out, size_t *n)
{
	/* O_NONBLOCK: a fifo in its place must not stop us */
	AUTO_CLOSE int fd = resolve_open(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	struct stat st;
	*out = NULL;
	*n = 0;
	if (fd == -ENOENT || fd == -ENOTDIR)
		return 0;
	if (fd < 0 || fstat(fd, &st))
		return machine_fail(m, fd < 0 ? -fd : errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return machine_fail(m, EINVAL, "%s is not a regular file", path);
	if (st.st_size > DATABASE_MAX)
		return machine_fail(m, EFBIG, "%s is larger than 16 MiB", path);
	size_t size = (size_t)st.st_size + 1;
	if (!(*out = malloc(size)))
		return -ENOMEM;
	while (*n < size) {
		ssize_t got = read(fd, *out + *n, size - *n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return machine_fail(m, errno, "%s", path);
		if (!got)
			break;
		*n += (size_t)got;
	}
	return 0;
}

int do_resolve_user(struct machine *m, const struct op_resolve_user *o)
{
	int root = register_fd(m, o->root);
	if (root < 0)
		return root;
	AUTO_FREE char *passwd = NULL;
	AUTO_FREE char *group = NULL;
	AUTO_FREE struct users *u = malloc(sizeof *u);
	AUTO_FREE char **extra = strs_array(o->extra);
	size_t passwd_n, group_n;
	const char *which;
	if (!u || !extra)
		return -ENOMEM;
	int r = read_database(m, root, "/etc/passwd", &passwd, &passwd_n);
	if (!r)
		r = read_database(m, root, "/etc/group", &group, &group_n);
	if (r)
		return r;
	r = users_resolve(u, passwd ? passwd : "", passwd_n, group ? group : "", group_n, o->user.p, (const char *const *)extra, o->extra.count, &which);
	if (r)
		return machine_fail(m, -r, "%s: %.200s", r == -ENOENT ? "no such user or group" : r == -ERANGE ? "out of range" : "malformed", which);
	uint32_t *groups = malloc(sizeof *groups * (u->count ? u->count : 1));
	char *home = strdup(u->home);
	if (!groups || !home) {
		free(groups);
		free(home);
		return -ENOMEM;
	}
	memcpy(groups, u->groups, sizeof *groups * u->count);
	free(m->home);
	m->home = home;
	register_set_number(m, o->uid, REGISTER_NUMBER, u->uid);
	register_set_number(m, o->gid, REGISTER_NUMBER, u->gid);
	register_set_data(m, o->groups, REGISTER_IDS, u->count, groups);
	return 0;
}

int do_id_list(struct machine *m, const struct op_id_list *o)
{
	uint32_t *ids = o->ids.n % sizeof *ids ? NULL : malloc(o->ids.n ? o->ids.n : 1);
	if (!ids)
		return o->ids.n % sizeof *ids ? -EINVAL : -ENOMEM;
	memcpy(ids, o->ids.p, o->ids.n);
	register_set_data(m, o->out, REGISTER_IDS, o->ids.n / sizeof *ids, ids);
	return 0;
}

int do_rlimit(struct machine *m, const struct op_rlimit *o)
{
	struct { uint64_t soft, hard; } limit = { o->soft, o->hard };
	if (!syscall(SYS_prlimit64, 0, o->resource, &limit, NULL))
		return 0;
	return machine_fail(m, errno, "resource %u, soft %llu, hard %llu", o->resource, (unsigned long long)o->soft, (unsigned long long)o->hard);
}

static int set_oom_score(struct machine *m, const struct op_process_attributes *o)
{
	char text[16];
	AUTO_CLOSE int own = o->proc == NO_REGISTER ? open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	int proc = o->proc == NO_REGISTER ? (own < 0 ? -errno : own) : register_fd(m, o->proc);
	if (proc < 0)
		return proc;
	int n = snprintf(text, sizeof text, "%d", o->oom_score_adj);
	AUTO_CLOSE int fd = proc_open(m, proc, "thread-self/oom_score_adj", O_WRONLY);
	if (fd == -EACCES) {
		/* In a user namespace, procfs gives the files of a process that is not dumpable to the host's root. In `init` nobody else is
		 * there yet who could look in; a session of a running container keeps what it has (CVE-2016-9962). */
		char now[16];
		AUTO_CLOSE int old = proc_open(m, proc, "thread-self/oom_score_adj", O_RDONLY);
		ssize_t got = old < 0 ? -1 : read(old, now, sizeof now - 1);
		if (got > 0 && strtol((now[got] = 0, now), NULL, 10) == o->oom_score_adj)
			return 0;
		if (m->part != PART_INIT)
			return fd;
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
		fd = proc_open(m, proc, "thread-self/oom_score_adj", O_WRONLY);
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	}
	return fd < 0 ? fd : write(fd, text, (size_t)n) < 0 ? -errno : 0;
}

int do_process_attributes(struct machine *m, const struct op_process_attributes *o)
{
	if (o->what & PROCESS_UMASK)
		umask(o->umask & 0777);
	if (o->what & PROCESS_OOM_SCORE_ADJ) {
		int r = set_oom_score(m, o);
		if (r)
			return machine_fail(m, -r, "oom_score_adj %d", o->oom_score_adj);
	}
	if (o->what & PROCESS_NICE && setpriority(PRIO_PROCESS, 0, o->nice))
		return machine_fail(m, errno, "nice %d", o->nice);
	if (o->what & PROCESS_IO_PRIORITY && syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, o->io_priority))
		return machine_fail(m, errno, "I/O priority %#x", o->io_priority);
	if (o->what & PROCESS_SCHEDULER) {
		int priority = (int)o->sched_priority;
		if (syscall(SYS_sched_setscheduler, 0, o->sched_policy, &priority))
			return machine_fail(m, errno, "scheduler %u", o->sched_policy);
	}
	if (o->what & PROCESS_PERSONALITY && syscall(SYS_personality, (unsigned long)o->personality) < 0)
		return machine_fail(m, errno, "personality %#x", o->personality);
	return 0;
}

int do_session_keyring(struct machine *m, const struct op_session_keyring *o)
{
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING_, o->name.p) >= 0)
		return 0;
	if (errno != ENOSYS && errno != EDQUOT)
		return -errno;
	machine_warn(m, errno, "no session keyring of its own");
	return 0;
}

int last_capability(void)
{
	static int last;
	if (!last) {
		int known = 0, unknown = 64; /* halving: a capability more is asked for with each call otherwise */
		while (unknown - known > 1) {
			int n = (known + unknown) / 2;
			*(prctl(PR_CAPBSET_READ, n, 0, 0, 0) >= 0 ? &known : &unknown) = n;
		}
		last = known;
	}
	return last;
}

int do_capability_bounds(struct machine *m, const struct op_capability_bounds *o)
{
	for (int cap = 0; cap <= last_capability(); cap++)
		if (!(o->bounding >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1)
			return machine_fail(m, EPERM, "cannot drop capability %d from the bounding set", cap);
	return 0;
}

int do_no_new_privileges(struct machine *m, const struct op_no_new_privileges *o)
{
	(void)m;
	(void)o;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -errno : 0;
}

int do_seccomp(struct machine *m, const struct op_seccomp *o)
{
	if (o->filter.n % sizeof(struct sock_filter) || o->filter.n / sizeof(struct sock_filter) > BPF_MAXINSNS)
		return machine_fail(m, EINVAL, "a filter of %u bytes", o->filter.n);
	int r = m->host && m->host->before_filter ? m->host->before_filter(m) : 0;
	if (r)
		return r;
	struct sock_fprog program = { (unsigned short)(o->filter.n / sizeof(struct sock_filter)), (struct sock_filter *)(uintptr_t)o->filter.p };
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, o->flags, &program) < 0 ? -errno : 0;
}

int set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ (uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable },
		{ (uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32) },
	};
	return syscall(SYS_capset, &head, data) ? -errno : 0;
}

static int set_ids(struct machine *m, const struct op_identity *o)
{
	int64_t uid, gid;
	if (register_number(m, o->uid, &uid) || register_number(m, o->gid, &gid))
		return -EBADF;
	if (uid < 0 || uid >= 0xffffffffLL || gid < 0 || gid >= 0xffffffffLL)
		return machine_fail(m, ERANGE, "uid or gid out of range");
	if (o->groups >= MAX_REGISTERS || m->registers[o->groups].kind != REGISTER_IDS)
		return machine_fail(m, EBADF, "register %u holds no group list", o->groups);
	const struct machine_register *groups = &m->registers[o->groups];
	/* raw calls: this process has one thread */
	/* EINVAL: one that the user namespace has no mapping for */
	if (syscall(SYS_setgroups, (size_t)groups->value, groups->data))
		return machine_fail(m, errno, errno == EINVAL ? "one of the user's groups is not mapped in this user namespace" : "setgroups");
	if (syscall(SYS_setresgid, (gid_t)gid, (gid_t)gid, (gid_t)gid))
		return machine_fail(m, errno, errno == EINVAL ? "group %lld is not mapped in this user namespace" : "setresgid %lld", (long long)gid);
	if (syscall(SYS_setresuid, (uid_t)uid, (uid_t)uid, (uid_t)uid))
		return machine_fail(m, errno, errno == EINVAL ? "user %lld is not mapped in this user namespace" : "setresuid %lld", (long long)uid);
	return 0;
}

int do_become_root(struct machine *m, const struct op_become_root *o)
{
	(void)o;
	if (syscall(SYS_setgroups, (size_t)0, NULL))
		return machine_fail(m, errno, "setgroups");
	if (syscall(SYS_setresgid, (gid_t)0, (gid_t)0, (gid_t)0) || syscall(SYS_setresuid, (uid_t)0, (uid_t)0, (uid_t)0))
		return machine_fail(m, errno, "nobody is root in this user namespace");
	/* what fs.suid_dumpable says must not count: CVE-2016-9962 */
	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ? -errno : 0;
}

int do_identity(struct machine *m, const struct op_identity *o)
{
	const uint64_t known = last_capability() >= 63 ? ~0ull : (1ull << (last_capability() + 1)) - 1;
	/* CVE-2016-9962: nobody in the container may look into this process before its exec */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
		return -errno;
	int r = set_ids(m, o);
	if (r)
		return r;
	/* That made it what fs.suid_dumpable says. Until here all capabilities kept others of the same user away: not any more. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
	int64_t uid = 0;
	/* as the kernel has it without KEEPCAPS: only root's own capabilities survive */
	const int none = o->root_only && !register_number(m, o->uid, &uid) && uid != 0;
	const uint64_t given = none ? 0 : known;
	r = set_capabilities(o->effective & given, o->permitted & given, o->inheritable & known);
	if (r)
		return machine_fail(m, -r, "capset");
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) && errno != EINVAL)
		return machine_fail(m, errno, "ambient capabilities");
	/* The kernel's own rule is that only what is permitted and inheritable can be ambient. Specs name others too (runc's own template does), which mean nothing. */
	const uint64_t ambient = none ? 0 : o->ambient & o->permitted & o->inheritable;
	for (int cap = 0; cap <= last_capability(); cap++)
		if (ambient >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0))
			return machine_fail(m, errno, "ambient capability %d", cap);
	return 0;
}

int do_set_scheduler(struct machine *m, const struct op_set_scheduler *o)
{
	struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t runtime, deadline, period; } attributes = {
		sizeof attributes, o->policy, o->flags, o->nice, o->priority, o->runtime, o->deadline, o->period,
	};
	return syscall(SYS_sched_setattr, 0, &attributes, 0) ? machine_fail(m, errno, "scheduling policy %u", o->policy) : 0;
}

int do_set_affinity(struct machine *m, const struct op_set_affinity *o)
{
	unsigned char mask[8192] = { 0 };
	if (o->mask.n > sizeof mask)
		return machine_fail(m, EINVAL, "a CPU mask of %u bytes", o->mask.n);
	memcpy(mask, o->mask.p, o->mask.n);
	/* whole words */
	return syscall(SYS_sched_setaffinity, 0, ((size_t)o->mask.n + 7) & ~(size_t)7, mask) ? machine_fail(m, errno, "none of these CPUs may be used") : 0;
}

int do_exec_label(struct machine *m, const struct op_exec_label *o)
{
	int proc = register_fd(m, o->proc);
	if (proc < 0)
		return proc;
	AUTO_CLOSE int fd = proc_open(m, proc, "thread-self/attr/exec", O_WRONLY);
	if (fd < 0)
		return machine_fail(m, -fd, "SELinux label %.200s", o->label.p);
	return write(fd, o->label.p, o->label.n) < 0 ? machine_fail(m, errno, "SELinux label %.200s", o->label.p) : 0;
}

int do_exec_armor(struct machine *m, const struct op_exec_armor *o)
{
	int proc = register_fd(m, o->proc);
	if (proc < 0)
		return proc;
	AUTO_CLOSE int fd = proc_open(m, proc, "thread-self/attr/apparmor/exec", O_WRONLY);
	if (fd == -ENOENT) { /* before Linux 5.8 */
		fd = proc_open(m, proc, "thread-self/attr/exec", O_WRONLY);
	}
	if (fd < 0)
		return machine_fail(m, -fd, "AppArmor label %.200s", o->label.p);
	char text[512];
	int n = snprintf(text, sizeof text, "exec %s", o->label.p);
	if (n < 0 || (size_t)n >= sizeof text)
		return -ENAMETOOLONG;
	return write(fd, text, (size_t)n) < 0 ? machine_fail(m, errno, "AppArmor label %.200s", o->label.p) : 0;
}
