/*
 * What a container's process finds, one `name TAB value` per line: run under two runtimes, the lines must be the same.
 * Arguments: paths to look at (read, write, make something in).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void say(const char *name, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	printf("%s\t", name);
	vprintf(format, arguments);
	printf("\n");
	va_end(arguments);
}
static const char *word(long result) { return result < 0 ? strerrorname_np(errno) : "ok"; }

/* Every line of a file, under the name. */
static void lines(const char *name, const char *path)
{
	char *line = NULL;
	size_t size = 0;
	FILE *f = fopen(path, "r");
	if (!f) {
		say(name, "%s", strerrorname_np(errno));
		return;
	}
	for (ssize_t n; (n = getline(&line, &size, f)) > 0;) {
		if (line[n - 1] == '\n') line[n - 1] = 0;
		say(name, "%s", line);
	}
	if (ferror(f)) say(name, "%s", strerrorname_np(errno));
	fclose(f);
	free(line);
}

static void status(void)
{
	static const char *wanted[] = { "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Uid", "Gid", "Groups", "Umask", "Cpus_allowed_list" };
	char line[4096];
	FILE *f = fopen("/proc/self/status", "r");
	while (f && fgets(line, sizeof line, f)) {
		char *colon = strchr(line, ':');
		if (!colon) continue;
		*colon = 0;
		colon[strcspn(colon + 1, "\n") + 1] = 0;
		for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
			if (!strcmp(wanted[i], line)) say(line, "%s", colon + 1 + strspn(colon + 1, "\t "));
	}
	if (f) fclose(f);
}

static void namespaces(void)
{
	static const char *types[] = { "cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts" };
	for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
		char path[64], target[64] = "", name[32];
		snprintf(path, sizeof path, "/proc/self/ns/%s", types[i]);
		snprintf(name, sizeof name, "ns.%s", types[i]);
		say(name, "%s", readlink(path, target, sizeof target - 1) < 0 ? strerrorname_np(errno) : target);
	}
}

static void node(const char *path, const char *name)
{
	struct stat st;
	char target[256] = "";
	if (lstat(path, &st)) {
		say("dev", "%s %s", name, strerrorname_np(errno));
		return;
	}
	if (S_ISLNK(st.st_mode)) {
		if (readlink(path, target, sizeof target - 1) < 0) strcpy(target, "?");
		say("dev", "%s -> %s", name, target);
		return;
	}
	int fd = S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) ? open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) : -2;
	say("dev", "%s %o %u:%u %u:%u %s", name, st.st_mode, st.st_uid, st.st_gid, major(st.st_rdev), minor(st.st_rdev), fd == -2 ? "" : word(fd));
	if (fd >= 0) close(fd);
}
static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
static void each(const char *folder, void (*visit)(const char *path, const char *name))
{
	char *names[512];
	size_t count = 0;
	DIR *d = opendir(folder);
	for (struct dirent *e; d && (e = readdir(d)) && count < 512;)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) names[count++] = strdup(e->d_name);
	if (d) closedir(d);
	qsort(names, count, sizeof *names, by_name);
	for (size_t i = 0; i < count; i++) {
		char path[1024];
		snprintf(path, sizeof path, "%s/%s", folder, names[i]);
		visit(path, names[i]);
		free(names[i]);
	}
}
static void descriptor(const char *path, const char *name)
{
	struct stat st;
	/* of a pipe, socket or file only what it is: its number is another one each time */
	if (!stat(path, &st)) say("fd", "%s %o %o", name, st.st_mode & S_IFMT, fcntl(atoi(name), F_GETFL));
}

static void look(const char *path)
{
	struct stat st;
	char buffer[64], inside[1024];
	if (lstat(path, &st)) {
		say("path", "%s %s", path, strerrorname_np(errno));
		return;
	}
	if (S_ISDIR(st.st_mode)) {
		int count = 0;
		DIR *d = opendir(path);
		while (d && readdir(d)) count++;
		if (d) closedir(d);
		snprintf(inside, sizeof inside, "%s/.probe", path);
		int made = mkdir(inside, 0700);
		const char *why = word(made);
		if (!made) rmdir(inside);
		say("path", "%s %o %u:%u %s %s", path, st.st_mode, st.st_uid, st.st_gid, count > 2 ? "full" : d ? "empty" : "closed", why);
		return;
	}
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buffer, sizeof buffer);
	const char *how = n < 0 ? strerrorname_np(errno) : n ? "data" : "end";
	if (fd >= 0) close(fd);
	fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	say("path", "%s %o %u:%u %s %s", path, st.st_mode, st.st_uid, st.st_gid, how, word(fd));
	if (fd >= 0) close(fd);
}

/* Calls that do nothing when they are let through: what they answer shows filters and capabilities. */
static void calls(void)
{
	struct utsname u;
	say("call mount", "%s", word(mount("none", "/no/such", "no-such-fs", 0, NULL)));
	say("call umount", "%s", word(umount2("/no/such", 0)));
	say("call unshare", "%s", word(syscall(SYS_unshare, 1)));
	say("call setns", "%s", word(syscall(SYS_setns, -1, 0)));
	say("call chroot", "%s", word(chroot("/no/such")));
	say("call mkdir", "%s", word(mkdir("/no/such/x", 0700)));
	say("call mkdirat", "%s", word(mkdirat(AT_FDCWD, "/no/such/x", 0700)));
	say("call chmod", "%s", word(chmod("/no/such/x", 0700)));
	say("call rename", "%s", word(rename("/no/such/x", "/no/such/y")));
	say("call symlink", "%s", word(symlink("x", "/no/such/y")));
	say("call ptrace", "%s", word(syscall(SYS_ptrace, 0x4206, 0, 0, 0)));
	say("call keyctl", "%s", word(syscall(SYS_keyctl, 999)));
	say("call add_key", "%s", word(syscall(SYS_add_key, NULL, NULL, NULL, 0, 0)));
	say("call bpf", "%s", word(syscall(SYS_bpf, 999, NULL, 0)));
	say("call perf_event_open", "%s", word(syscall(SYS_perf_event_open, NULL, 0, 0, 0, 0)));
	say("call io_uring_setup", "%s", word(syscall(SYS_io_uring_setup, 0, NULL)));
	say("call userfaultfd", "%s", word(syscall(SYS_userfaultfd, 0xffff)));
	say("call clone3", "%s", word(syscall(SYS_clone3, NULL, 0)));
	say("call settimeofday", "%s", word(syscall(SYS_settimeofday, NULL, NULL)));
	say("call reboot", "%s", word(syscall(SYS_reboot, 1, 2, 3, NULL)));
	say("call uname", "%s", word(uname(&u)));
	say("call sethostname", "%s", word(syscall(SYS_sethostname, u.nodename, (size_t)1 << 20)));
	say("call unknown", "%s", word(syscall(999)));
	for (int family = 1; family <= 44; family++) {
		int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC, 0);
		char name[32];
		if (family != AF_UNIX && family != AF_INET && family != AF_INET6 && family != AF_NETLINK && family != AF_PACKET && family != AF_ALG && family != AF_VSOCK) {
			if (fd >= 0) close(fd);
			continue;
		}
		snprintf(name, sizeof name, "call socket %d", family);
		say(name, "%s", word(fd));
		if (fd >= 0) close(fd);
	}
}

int main(int argc, char **argv)
{
	char text[4096];
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	say("pid", "%d %d", getpid(), getsid(0) == getpid());
	/* before anything opens one of its own */
	each("/proc/self/fd", descriptor);
	status();
	namespaces();
	lines("mount", "/proc/self/mountinfo");
	lines("limit", "/proc/self/limits");
	lines("cgroup", "/proc/self/cgroup");
	lines("oom", "/proc/self/oom_score_adj");
	lines("uid_map", "/proc/self/uid_map");
	lines("gid_map", "/proc/self/gid_map");
	lines("timens", "/proc/self/timens_offsets");
	struct utsname u;
	if (!uname(&u)) {
		say("hostname", "%s", u.nodename);
		say("domainname", "%s", u.domainname);
		say("machine", "%s", u.machine);
	}
	for (char **e = environ; *e; e++) say("env", "%s", *e);
	say("argc", "%d", argc);
	say("cwd", "%s", getcwd(text, sizeof text) ? text : strerrorname_np(errno));
	say("scheduler", "%d", sched_getscheduler(0));
	errno = 0;
	int nice = getpriority(PRIO_PROCESS, 0);
	say("nice", "%d", nice);
	say("ioprio", "%ld", syscall(SYS_ioprio_get, 1, 0));
	say("personality", "%x", (unsigned)personality(0xffffffff));
	long n = syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, text, sizeof text);
	say("keyring", "%.*s", n > 0 ? (int)sizeof text : 8, n > 0 ? text : word(n));
	each("/dev", node);
	static const char *sysctls[] = { "net/ipv4/ip_forward", "net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range", "net/core/somaxconn", "kernel/msgmax", "kernel/shmmni", "kernel/sem", "kernel/domainname", "fs/mqueue/msg_max" };
	for (size_t i = 0; i < sizeof sysctls / sizeof *sysctls; i++) {
		char path[128], name[128];
		snprintf(path, sizeof path, "/proc/sys/%s", sysctls[i]);
		snprintf(name, sizeof name, "sysctl %s", sysctls[i]);
		lines(name, path);
	}
	static const char *limits[] = { "memory/memory.limit_in_bytes", "memory/memory.soft_limit_in_bytes", "memory/memory.swappiness", "pids/pids.max", "cpu/cpu.shares", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "cpuset/cpuset.cpus", "devices/devices.list", "memory.max", "memory.low", "pids.max", "cpu.max", "cpu.weight", "cpuset.cpus" };
	for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
		char path[128], name[128];
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s", limits[i]);
		snprintf(name, sizeof name, "group %s", limits[i]);
		if (!access(path, F_OK)) lines(name, path);
	}
	for (int i = 1; i < argc; i++) look(argv[i]);
	calls();
	fflush(stdout);
	return ferror(stdout) ? 1 : 0;
}
