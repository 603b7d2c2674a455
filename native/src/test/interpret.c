/*
 * Test driver of the interpreter: interpret [--private] [--fds 3,4] PART PLAN. Runs one part of a plan and prints
 * {"result":errno,"failures":[...],"warnings":[...],"exit":status,"terminal":"..."} to stderr's sibling, fd 1. `spawn` clones and runs the
 * init part in the child; its stdout and stderr are the driver's own (fd 2).
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../interpreter.h"

struct clone_args_ { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; };

static struct plan plan;
static struct machine machine;
static int report[2], masters[2];
static int status = -1;
static pid_t init_pid;
static char lists[2][65536], terminal[65536];

static void json_text(FILE *f, const char *s)
{
	fputc('"', f);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s);
		else if ((unsigned char)*s < ' ')
			fprintf(f, "\\u%04x", (unsigned char)*s);
		else
			fputc(*s, f);
	}
	fputc('"', f);
}

static void add(int list, const struct failure *f)
{
	char *text = NULL;
	size_t n, used = strlen(lists[list]);
	FILE *m = open_memstream(&text, &n);
	fprintf(m, "%s{\"part\":\"%s\",\"index\":%u,\"code\":%u,\"errno\":%d,\"detail\":", used ? "," : "", part_names[f->part], f->index, f->code, f->error);
	json_text(m, f->detail);
	fputc('}', m);
	fclose(m);
	if (used + n < sizeof lists[list])
		memcpy(lists[list] + used, text, n + 1);
	free(text);
}

static void warning(struct machine *m, const struct failure *f) { (void)m; add(1, f); }
/* In the child, whose memory the driver does not see. */
static void child_warning(struct machine *m, const struct failure *f)
{
	(void)m;
	dprintf(2, "warning %d %s\n", f->error, f->detail);
}
static void undo_failed(struct machine *m, const struct failure *f) { (void)m; add(0, f); }

static int give_master(struct machine *m, int master)
{
	(void)m;
	char control[CMSG_SPACE(sizeof(int))] = { 0 }, byte = 0;
	struct iovec v = { &byte, 1 };
	struct msghdr h = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &master, sizeof(int));
	return sendmsg(masters[1], &h, 0) < 0 ? -errno : 0;
}

static int take_pipes(struct machine *m, int fds[3])
{
	(void)m;
	fds[0] = -1;
	fds[1] = fcntl(2, F_DUPFD_CLOEXEC, 20);
	fds[2] = fcntl(2, F_DUPFD_CLOEXEC, 20);
	return 0;
}

static void drain_terminal(void)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec v = { &byte, 1 };
	struct msghdr h = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	size_t n = 0;
	int master;
	if (recvmsg(masters[0], &h, MSG_CMSG_CLOEXEC) <= 0 || !CMSG_FIRSTHDR(&h))
		return;
	memcpy(&master, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof(int));
	for (;;) {
		ssize_t got = read(master, terminal + n, sizeof terminal - 1 - n);
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	close(master);
}

static const struct host child_host = { .warning = child_warning, .give_master = give_master, .take_pipes = take_pipes };

static int spawn(struct machine *m, uint64_t flags, pid_t *pid, int *pidfd)
{
	int fd = -1;
	struct clone_args_ args = { .flags = flags | 0x1000 /* CLONE_PIDFD */, .pidfd = (uint64_t)(uintptr_t)&fd, .exit_signal = SIGCHLD };
	if (pipe2(report, O_CLOEXEC) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, masters))
		return -errno;
	pid_t child = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (child < 0)
		return -errno;
	if (!child) {
		struct failure f = { 0 };
		close(masters[0]);
		m->host = &child_host;
		int r = run_part(m, &plan, PART_INIT, &f);
		if (r && write(report[1], &f, sizeof f) < 0)
			_exit(126);
		_exit(r ? 125 : 0);
	}
	close(report[1]);
	close(masters[1]);
	*pid = init_pid = child;
	*pidfd = fd;
	return 0;
}

static int memory_events(struct machine *m, const struct memory_events *e)
{
	(void)m;
	fprintf(stderr, "oom_kill %lld limit %lld\n", (long long)e->oom_kill, (long long)e->limit);
	return 0;
}

static const struct host host = {
	.warning = warning, .undo_failed = undo_failed, .spawn = spawn, .memory_events = memory_events,
};

int main(int argc, char **argv)
{
	const char *why = "";
	struct failure f = { 0 };
	int at = 1;
	signal(SIGPIPE, SIG_IGN);
	machine_init(&machine, &host);
	if (at < argc && !strcmp(argv[at], "--private")) {
		at++;
		if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
			return perror("unshare"), 2;
	}
	if (at + 1 < argc && !strcmp(argv[at], "--fds")) {
		uint32_t r = 0;
		for (char *p = strtok(argv[at + 1], ","); p; p = strtok(NULL, ","))
			register_set_fd(&machine, r++, atoi(p));
		at += 2;
	}
	if (argc - at != 2)
		return fprintf(stderr, "usage: interpret [--private] [--fds N,...] PART PLAN\n"), 2;
	int part = 0;
	while (part < PART_COUNT && strcmp(part_names[part], argv[at]))
		part++;
	int fd = open(argv[at + 1], O_RDONLY | O_CLOEXEC);
	int r = fd < 0 ? -errno : part == PART_COUNT ? -EINVAL : plan_open(&plan, fd, &why);
	if (r) {
		printf("{\"refused\":%d,\"detail\":", -r);
		json_text(stdout, why);
		printf("}\n");
		return 0;
	}
	r = run_part(&machine, &plan, (enum part)part, &f);
	if (r && part != PART_AFTER)
		add(0, &f);
	if (init_pid) {
		if (machine.registers[0].kind == REGISTER_NONE)
			drain_terminal();
		if (read(report[0], &f, sizeof f) == sizeof f)
			add(0, &f);
		waitpid(init_pid, &status, 0);
	}
	printf("{\"result\":%d,\"failures\":[%s],\"warnings\":[%s],\"exit\":%d,\"terminal\":", -r, lists[0], lists[1],
	       status < 0 ? -1 : WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
	json_text(stdout, terminal);
	printf("}\n");
	return 0;
}
