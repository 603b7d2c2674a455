/* Processes that engined has us start: as our children, with our standard files and the fds that we were given. What we open is close-on-exec, what we were given is not: that tells them apart. */
#include "../rights.h"
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#define MAX_FDS 32
#define MAX_PRESERVED 1024
#define MAX_CHILDREN 64
#define STACK (32 << 10)

static pid_t alive[MAX_CHILDREN];
static int alive_count;

struct start {
	int program, count;
	int fds[MAX_FDS]; /* from 3 on; -1: closed */
	uint32_t preserve;
	char **argv, **envp;
	volatile int error;
};

/* In the child, on memory that it shares with us: its own are the fds, the limits, folder and mask. */
static int child(void *argument) {
	struct start *s = argument;
	int first = 3 + s->count + (int)s->preserve, high[MAX_FDS];
	struct rlimit files, more;
	/* places for all of them twice: what is open beyond the limit stays open */
	if (getrlimit(RLIMIT_NOFILE, &files)) goto failed;
	more = files;
	if (more.rlim_cur < (rlim_t)(first + MAX_FDS + 8)) more.rlim_cur = more.rlim_max;
	if (more.rlim_cur != files.rlim_cur && setrlimit(RLIMIT_NOFILE, &more)) goto failed;
	/* out of the way first: a source may stand where another one is to go */
	int program = fcntl(s->program, F_DUPFD_CLOEXEC, first + 1);
	if (program < 0) goto failed;
	for (int i = 0; i < s->count; i++) {
		high[i] = s->fds[i] < 0 ? -1 : fcntl(s->fds[i], F_DUPFD_CLOEXEC, first + 1);
		if (s->fds[i] >= 0 && high[i] < 0) goto failed;
	}
	/* the last one first: they move up */
	for (int i = (int)s->preserve - 1; i >= 0; i--) {
		int from = 3 + i, to = from + s->count, flags = fcntl(from, F_GETFD);
		if (flags < 0 || flags & FD_CLOEXEC) close(to);
		else if (to != from && dup2(from, to) < 0) goto failed;
	}
	for (int i = 0; i < s->count; i++) {
		if (high[i] < 0) close(3 + i);
		else if (dup2(high[i], 3 + i) < 0) goto failed;
	}
	if (dup3(program, first, O_CLOEXEC) < 0) goto failed;
	if (syscall(SYS_close_range, first + 1, ~0u, 0)) goto failed;
	if (more.rlim_cur != files.rlim_cur && setrlimit(RLIMIT_NOFILE, &files)) goto failed;
	/* as engined's own have them */
	umask(022);
	if (chdir("/")) goto failed;
	syscall(SYS_execveat, first, "", s->argv, s->envp, AT_EMPTY_PATH);
failed:
	s->error = errno;
	_exit(127);
}

static pid_t start(struct start *s) {
	static char stack[STACK] __attribute__((aligned(16)));
	uint64_t all = ~(uint64_t)0, before;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all);
	/* as vfork, but with a stack of its own */
	pid_t pid = clone(child, stack + STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, s);
	if (pid < 0) s->error = errno;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof before);
	if (pid > 0 && s->error) while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
	return s->error ? -s->error : pid;
}

/* -- the frame ---------------------------------------------------------------------------------------------------------------- */

static void malformed(void) { die("the resident engine wants something started that can't be understood", NULL); }

struct reader { const uint8_t *p; uint32_t left; };
static uint32_t number(struct reader *r) {
	uint32_t value;
	if (r->left < 4) malformed();
	memcpy(&value, r->p, 4);
	r->p += 4;
	r->left -= 4;
	return value;
}
static char *text(struct reader *r) {
	uint32_t n = number(r);
	if (n > r->left) malformed();
	char *copy = malloc((size_t)n + 1);
	if (!copy) die("out of memory", NULL);
	memcpy(copy, r->p, n);
	copy[n] = 0;
	r->p += n;
	r->left -= n;
	return copy;
}
static char **texts(struct reader *r) {
	uint32_t count = number(r);
	if (count > r->left / 4) malformed();
	char **list = malloc(((size_t)count + 1) * sizeof *list);
	if (!list) die("out of memory", NULL);
	for (uint32_t i = 0; i < count; i++) list[i] = text(r);
	list[count] = NULL;
	return list;
}
char **read_texts(const uint8_t *payload, uint32_t length) {
	struct reader r = { payload, length };
	return texts(&r);
}
static void free_texts(char **list) {
	for (char **entry = list; *entry; entry++) free(*entry);
	free(list);
}

static void answer(uint32_t type, uint32_t argument, int error, const char *what) {
	uint8_t payload[256 + 8];
	if (!error) {
		conn_send(&engined, type, 0, argument, NULL, 0);
		return;
	}
	uint32_t e = (uint32_t)error, n = (uint32_t)strlen(what);
	if (n > 256) n = 256;
	memcpy(payload, &e, 4);
	memcpy(payload + 4, &n, 4);
	memcpy(payload + 8, what, n);
	conn_send(&engined, type, 0, argument, payload, 8 + n);
}

static int take_fd(struct conn *c) {
	if (!c->fd_count) malformed();
	int fd = c->fds[0];
	memmove(c->fds, c->fds + 1, (size_t)--c->fd_count * sizeof *c->fds);
	return fd;
}

void spawn_child(struct conn *c, const struct head *head, const uint8_t *payload) {
	struct reader r = { payload, head->length };
	struct start s = { .preserve = number(&r) };
	char *console = text(&r);
	s.argv = texts(&r);
	s.envp = texts(&r);
	uint32_t count = number(&r);
	if (count > r.left || count >= MAX_FDS || s.preserve > MAX_PRESERVED) malformed();
	s.program = take_fd(c);
	for (; s.count < (int)count; s.count++) s.fds[s.count] = r.p[s.count] ? take_fd(c) : -1;
	const char *what = "start the shim";
	int ours = -1;
	if (head->argument & SPAWN_ADOPT && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) s.error = errno;
	if (!s.error && head->argument & SPAWN_CONSOLE) {
		int ends[2] = { -1, -1 };
		what = "connect to the console socket";
		if (*console) ends[1] = connect_path(console);
		else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) ends[1] = -errno;
		if (ends[1] < 0) s.error = -ends[1];
		else s.fds[s.count++] = ends[1];
		ours = ends[0];
	}
	if (!s.error && alive_count == MAX_CHILDREN) s.error = EAGAIN;
	pid_t pid = -s.error;
	if (!s.error) {
		what = "start the shim";
		signals_children();
		pid = start(&s);
	}
	close(s.program);
	for (int i = 0; i < s.count; i++) if (s.fds[i] >= 0) close(s.fds[i]);
	free(console);
	free_texts(s.argv);
	free_texts(s.envp);
	if (pid > 0) {
		alive[alive_count++] = pid;
		if (head->argument & SPAWN_ADOPT) await_expect();
		if (ours >= 0) console_open(ours);
	} else if (ours >= 0) {
		close(ours);
	}
	answer(LAUNCH_SPAWNED, pid > 0 ? (uint32_t)pid : 0, pid > 0 ? 0 : -pid, what);
}

void send_pidfd(const struct head *head, const uint8_t *payload) {
	char path[PATH_MAX];
	int error = 0;
	if (head->length >= sizeof path) error = ENAMETOOLONG;
	else {
		memcpy(path, payload, head->length);
		path[head->length] = 0;
	}
	int pidfd = error ? -1 : (int)syscall(SYS_pidfd_open, head->argument, 0);
	if (!error && pidfd < 0) error = errno;
	int to = error ? -1 : connect_path(path);
	if (!error && to < 0) error = -to;
	if (!error) {
		char name[] = "pidfd"; /* who receives it wants some text with it */
		ssize_t sent = rights_send(to, name, sizeof name - 1, &pidfd, 1, MSG_DONTWAIT);
		if (sent < 0) error = (int)-sent;
	}
	if (to >= 0) close(to);
	if (pidfd >= 0) close(pidfd);
	conn_send(&engined, LAUNCH_PIDFD_SENT, 0, (uint32_t)error, NULL, 0);
}

/* -- their end ---------------------------------------------------------------------------------------------------------------- */

void child_add(pid_t pid) {
	if (alive_count < MAX_CHILDREN) alive[alive_count++] = pid;
}

void child_ended(pid_t pid) {
	for (int i = 0; i < alive_count; i++)
		if (alive[i] == pid) {
			alive[i] = alive[--alive_count];
			return;
		}
}

/* Only those: what else is orphaned to us may be what we are to wait for. */
void children_reap(void) {
	for (int i = 0; i < alive_count;)
		if (waitpid(alive[i], NULL, WNOHANG) != 0) alive[i] = alive[--alive_count];
		else i++;
}

bool children_left(void) { return alive_count > 0; }
