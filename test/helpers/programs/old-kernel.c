/*
 * old-kernel [-r RELEASE] PROGRAM [ARGUMENT]...
 * Run a program, and all that it starts, as if the kernel were Linux 5.14: calls and flags that came later fail as they would there
 * (a seccomp filter), and what only the text of an argument tells (uname, mount options, idmapped mounts) is answered by a supervisor, which
 * ends with the last process under the filter. Files of cgroups, /proc and netlink are those of the real kernel. Needs root.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define NR_MOVE_MOUNT 429
#define NR_FSCONFIG 431
#define NR_PIDFD_SEND_SIGNAL 424
#define NR_PIDFD_OPEN 434
#define NR_MOUNT_SETATTR 442
#define FIRST_NEWER 448 /* process_mrelease, Linux 5.15 */

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "no numbers of system calls for this machine"
#endif

#define FIELD(name) ((uint32_t)offsetof(struct seccomp_data, name))
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, field)
#define ARGUMENT(n) LOAD(FIELD(args[0]) + 8 * (n))
#define ANSWER(action) BPF_STMT(BPF_RET | BPF_K, action)
#define FAIL(error) ANSWER(SECCOMP_RET_ERRNO | (error))
#define ALLOW ANSWER(SECCOMP_RET_ALLOW)
/* the accumulator holds the number of the call, and none of the blocks falls through */
#define CALL(nr, length) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(nr), 0, length)
/* flags outside `known` in argument n: `error` */
#define REFUSE_FLAGS(nr, n, known, error) CALL(nr, 4), ARGUMENT(n), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, ~(uint32_t)(known), 0, 1), FAIL(error), ALLOW
/* argument n is `value`: `error` */
#define REFUSE_VALUE(nr, n, value, error) CALL(nr, 4), ARGUMENT(n), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, 1), FAIL(error), ALLOW
#define ASK(nr) CALL(nr, 1), ANSWER(SECCOMP_RET_USER_NOTIF)

static struct sock_filter filter[] = {
	LOAD(FIELD(arch)),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0),
	ALLOW,
	LOAD(FIELD(nr)),
	BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, FIRST_NEWER, 0, 1),
	FAIL(ENOSYS),
	ASK(SYS_uname),
	ASK(NR_FSCONFIG),
	ASK(NR_MOUNT_SETATTR),
	/* MFD_NOEXEC_SEAL and MFD_EXEC: 6.3 */
	REFUSE_FLAGS(SYS_memfd_create, 1, 7 | 0x3fu << 26, EINVAL),
	/* MOVE_MOUNT_SET_GROUP: 5.15, MOVE_MOUNT_BENEATH: 6.5 */
	REFUSE_FLAGS(NR_MOVE_MOUNT, 4, 0x77, EINVAL),
	/* SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: 5.19 */
	REFUSE_FLAGS(SYS_seccomp, 1, 0x1f, EINVAL),
	/* PIDFD_THREAD: 6.9 */
	REFUSE_FLAGS(NR_PIDFD_OPEN, 1, O_NONBLOCK, EINVAL),
	REFUSE_FLAGS(NR_PIDFD_SEND_SIGNAL, 3, 0, EINVAL),
	/* pipes know RWF_NOWAIT since 6.5; here nothing does */
	REFUSE_FLAGS(SYS_preadv2, 5, 7, EOPNOTSUPP),
	REFUSE_FLAGS(SYS_pwritev2, 5, 7 | 0x10, EOPNOTSUPP),
	/* AT_EXECVE_CHECK: 6.14 */
	REFUSE_FLAGS(SYS_execveat, 4, 0x1100, EINVAL),
	/* F_DUPFD_QUERY: 6.10 */
	REFUSE_VALUE(SYS_fcntl, 1, 1027, EINVAL),
	/* PR_SET_VMA: 5.17 */
	REFUSE_VALUE(SYS_prctl, 0, 0x53564d41, EINVAL),
	ALLOW,
};

static const char *release = "5.14.0-old";

static int read_memory(pid_t pid, uint64_t at, void *to, size_t n)
{
	char path[40];
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : pread(fd, to, n, (off_t)at);
	if (fd >= 0) close(fd);
	return (int)got;
}

static int answer_uname(const struct seccomp_notif *asked)
{
	struct utsname name;
	char path[40];
	/* the names are those of the caller's namespace; this process needs none of its own */
	snprintf(path, sizeof path, "/proc/%d/ns/uts", asked->pid);
	int uts = open(path, O_RDONLY | O_CLOEXEC);
	if (uts >= 0) {
		if (setns(uts, CLONE_NEWUTS)) perror("setns");
		close(uts);
	}
	if (uname(&name)) return errno;
	snprintf(name.release, sizeof name.release, "%s", release);
	snprintf(path, sizeof path, "/proc/%d/mem", asked->pid);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t done = fd < 0 ? -1 : pwrite(fd, &name, sizeof name, (off_t)asked->data.args[0]);
	if (fd >= 0) close(fd);
	return done == sizeof name ? 0 : EFAULT;
}

/* Overlay takes layers one by one since 6.5, and folders by fd since 6.13. 0: the kernel may answer. */
static int answer_fsconfig(const struct seccomp_notif *asked)
{
	char key[64] = "";
	unsigned command = (unsigned)asked->data.args[1];
	if (command > 7) return EOPNOTSUPP; /* FSCONFIG_CMD_CREATE_EXCL: 6.6 */
	if (!asked->data.args[2] || read_memory(asked->pid, asked->data.args[2], key, sizeof key - 1) <= 0) return 0;
	if (!strcmp(key, "lowerdir+") || !strcmp(key, "datadir+")) return EINVAL;
	if (command == 5 && (!strcmp(key, "upperdir") || !strcmp(key, "workdir"))) return EINVAL;
	return 0;
}

/* Idmapped mounts: of ext4, xfs and fat only. */
static int answer_mount_setattr(const struct seccomp_notif *asked)
{
	uint64_t attributes[4] = { 0 };
	char path[64];
	struct statfs fs;
	if (read_memory(asked->pid, asked->data.args[3], attributes, sizeof attributes) != sizeof attributes || !(attributes[0] & 0x00100000)) return 0;
	snprintf(path, sizeof path, "/proc/%d/fd/%d", asked->pid, (int)asked->data.args[0]);
	if (statfs(path, &fs)) return 0;
	return fs.f_type == 0xef53 || fs.f_type == 0x58465342 || fs.f_type == 0x4d44 ? 0 : EINVAL;
}

static void supervise(int listener)
{
	struct seccomp_notif_sizes sizes;
	if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes)) exit(1);
	struct seccomp_notif *asked = calloc(1, sizes.seccomp_notif + 512);
	struct seccomp_notif_resp *answer = calloc(1, sizes.seccomp_notif_resp + 512);
	for (;;) {
		struct pollfd p = { .fd = listener, .events = POLLIN };
		if (poll(&p, 1, -1) < 0) continue;
		if (!(p.revents & POLLIN)) exit(0); /* nobody is left */
		memset(asked, 0, sizes.seccomp_notif);
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, asked)) continue;
		memset(answer, 0, sizes.seccomp_notif_resp);
		answer->id = asked->id;
		int number = asked->data.nr, error = 0;
		if (number == SYS_uname) error = answer_uname(asked);
		else if (number == NR_FSCONFIG) error = answer_fsconfig(asked);
		else if (number == NR_MOUNT_SETATTR) error = answer_mount_setattr(asked);
		if (error) answer->error = -error;
		else if (number != SYS_uname) answer->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, answer);
	}
}

static int receive(int socket)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&message)) return -1;
	int fd;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
	return fd;
}

static void hand_over(int socket, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(header), &fd, sizeof fd);
	if (sendmsg(socket, &message, 0) != 1) perror("old-kernel: sendmsg"), exit(125);
}

int main(int argc, char **argv)
{
	int first = 1, sockets[2];
	if (argc > 2 && !strcmp(argv[1], "-r")) release = argv[2], first = 3;
	if (argc <= first) return fprintf(stderr, "usage: old-kernel [-r RELEASE] PROGRAM [ARGUMENT]...\n"), 125;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets)) return perror("old-kernel: socketpair"), 125;
	/* nobody's child, with nothing of the caller open: the program is this process */
	pid_t between = fork();
	if (!between) {
		if (fork()) _exit(0);
		setsid();
		for (int s = 1; s < 32; s++) if (s != SIGKILL && s != SIGSTOP) signal(s, SIG_IGN);
		if (chdir("/")) _exit(1);
		int socket = dup2(sockets[0], 1000);
		for (int fd = 0; fd < 1000; fd++) close(fd);
		int listener = receive(socket);
		close(socket);
		if (listener >= 0) supervise(listener);
		_exit(1);
	}
	waitpid(between, NULL, 0);
	close(sockets[0]);
	struct sock_fprog program = { .len = sizeof filter / sizeof *filter, .filter = filter };
	/* as root without no_new_privs, so that setuid programs stay what they are */
	int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	if (listener < 0) return perror("old-kernel: seccomp"), 125;
	hand_over(sockets[1], listener);
	close(listener);
	close(sockets[1]);
	execvp(argv[first], argv + first);
	return perror(argv[first]), 127;
}
