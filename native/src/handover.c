/*
 * A run or session that becomes its caller's: the shim is a child of the caller's own process, leaves the standard streams alone, and ends when init waits for
 * its start (mode `run`) or when the program runs (mode `exec`). Init goes on with nobody but the fifos of its run's folder to talk to.
 */
#define _GNU_SOURCE
#include "process.h"
#include "rights.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys.h"

#define CONSOLE_NAME "/dev/ptmx" /* what comes with a terminal's fd, as runc sends it; receivers show it at most */

static struct { int go, status, missing; bool ready, freed; } over = { .go = -1, .status = -1, .missing = -1 };

static uint32_t first_preserved(void) { return SHIM_FD_FIRST_EXTRA + options.console; }

static int fail(int error, const char *format, const char *what) {
	run.failure = make_failure(PART_SHIM, error, format, what);
	run.failure.index = UINT32_MAX; /* of no operation */
	run.has_failure = true;
	return -error;
}

void handover_fds(void) {
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), high = null < 0 ? -1 : fcntl(null, F_DUPFD_CLOEXEC, (int)(first_preserved() + options.preserve));
	if (high < 0) _exit(1);
	close(null);
	/* a caller may have closed one; and a hole among ours would be filled with what must not be lost */
	for (int fd = 0; fd < (int)SHIM_FD_FIRST_EXTRA; fd++)
		if (fcntl(fd, F_GETFD) < 0 && dup3(high, fd, fd < 3 ? 0 : O_CLOEXEC) < 0) _exit(1);
	close(high);
	/* what else the caller has is not for init, which waits without an exec */
	sys_close_range(first_preserved() + options.preserve, ~0u, 0);
	/* said later: there is nobody to tell it yet, and others will stand there */
	for (int fd = (int)(first_preserved() + options.preserve) - 1; fd >= (int)SHIM_FD_FIRST_EXTRA; fd--)
		if (fcntl(fd, F_GETFD) < 0) over.missing = fd;
}

int handover_check(void) {
	char number[16];
	if (over.missing < 0) return 0;
	if (options.console && over.missing == SHIM_FD_FIRST_EXTRA) return fail(EBADF, "%s", "there is no socket for the terminal");
	snprintf(number, sizeof number, "%u", 3 + (uint32_t)over.missing - first_preserved());
	return fail(EBADF, "file descriptor %s of the caller is not open", number);
}

static int open_fifo(const char *name) {
	struct stat st;
	if (mkfifoat(run.folder, name, 0600) && errno != EEXIST) return -errno;
	/* for both: such an open never waits */
	int fd = openat(run.folder, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) return -errno;
	if (!fstat(fd, &st) && S_ISFIFO(st.st_mode)) return fd;
	close(fd);
	return -EEXIST;
}

int handover_open(void) {
	struct plan_cursor at = plan_start(&run.plan, PART_INIT);
	struct operation op;
	bool waits = false;
	while (!plan_next(&run.plan, &at, &op)) waits |= op.code == OP_AWAIT_START;
	if (!waits) return fail(ENOEXEC, "%s", "a plan that is handed over needs awaitStart");
	over.go = open_fifo("go");
	if (over.go < 0) return fail(-over.go, "cannot make the fifo %s", "go");
	over.status = open_fifo("status");
	return over.status < 0 ? fail(-over.status, "cannot make the fifo %s", "status") : 0;
}

int handover_console(struct session *s, int master) {
	struct winsize size = { .ws_row = s->rows, .ws_col = s->cols };
	if (s->rows || s->cols) ioctl(master, TIOCSWINSZ, &size);
	ssize_t sent = rights_send(SHIM_FD_FIRST_EXTRA, CONSOLE_NAME, sizeof CONSOLE_NAME - 1, &master, 1, 0);
	int failed = sent < 0 ? (int)-sent : 0;
	close(master);
	shutdown(SHIM_FD_FIRST_EXTRA, SHUT_WR);
	return failed;
}

bool handover_message(const struct sync_message *m) {
	over.ready |= m->kind == SYNC_READY;
	over.freed |= m->kind == SYNC_FREE;
	return m->kind == SYNC_READY || m->kind == SYNC_FREE;
}

bool handover_ready(void) { return over.ready; }

int handover_leave(void) {
	/* nobody would know of it, or start it */
	clients_update();
	struct client *control = clients_control();
	char byte;
	if (!control || recv(SHIM_FD_CONTROL, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) return fail(EPIPE, "%s", "the engine is gone");
	test_halt("handover", "leave", "before");
	sync_send(run.init->sync.fd, SYNC_LEAVE, 0, NULL, -1);
	while (!over.freed)
		if (!session_message(run.init, -1) || run.has_failure) return init_lost(NULL, "as it was handed over");
	test_halt("handover", "leave", "after");
	return 0;
}

/* -- in the child ------------------------------------------------------------------------------------------------------------------ */

static bool let_go;

void handover_child(void) {
	if (options.console) close(SHIM_FD_FIRST_EXTRA);
	/* what stood at 3 to 6 was the shim's and is closed; from left to right, as each goes down */
	const int from = (int)first_preserved(), count = (int)options.preserve;
	for (int i = 0; i < count; i++)
		if (dup2(from + i, 3 + i) < 0) _exit(1);
	for (int fd = from > 3 + count ? from : 3 + count; fd < from + count; fd++) close(fd);
	run_machine.preserved = options.preserve;
}

static void end_by(int number) { _exit(128 + number); }
static void live_on(int number) { (void)number; }

/* Pid 1 of a namespace ends by none of its own accord; who waits for nothing but its start is to, by those that end runc's init then. */
static void end_by_signals(void) {
	static const unsigned char ending[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM }, others[] = { SIGUSR1, SIGUSR2, SIGALRM };
	struct sigaction end = { .sa_handler = end_by }, live = { .sa_handler = live_on };
	for (size_t i = 0; i < sizeof ending; i++) sigaction(ending[i], &end, NULL);
	for (size_t i = 0; i < sizeof others; i++) sigaction(others[i], &live, NULL);
}

int handover_let_go(int sync) {
	if (let_go) return 0;
	if (prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)) return -errno;
	let_go = true;
	if (over.go >= 0) end_by_signals();
	/* it may have died a moment before */
	char byte;
	if (recv(sync, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) _exit(1);
	return 0;
}

int handover_await_start(struct machine *m, int *sync) {
	struct sync_message message;
	char byte;
	ssize_t n;
	if (!options.hand_over || over.go < 0) return machine_fail(m, ENOTSUP, "this run is not handed over");
	/* It may wait for long. Whoever could look into it (a session with CAP_SYS_PTRACE) is to find nothing of the host's; hooks and exec need none of it. */
	for (uint32_t r = 0; r < MAX_REGISTERS; r++)
		if (m->registers[r].kind == REGISTER_FD) register_clear(m, r);
	/* write and read alone: a filter may be in force that knows nothing of us */
	if (sync_send(*sync, SYNC_READY, 0, NULL, -1)) _exit(1);
	while ((n = read(*sync, &message, sizeof message)) < 0 && errno == EINTR) {}
	if (n <= 0 || message.kind != SYNC_LEAVE) _exit(1);
	int failed = handover_let_go(*sync);
	if (failed) return machine_fail(m, -failed, "this process cannot be handed over");
	/* without a shim that hears it, it is as if it had died before */
	if (sync_send(*sync, SYNC_FREE, 0, NULL, -1)) _exit(1);
	close(*sync);
	*sync = -1;
	over.freed = true;
	while ((n = read(over.go, &byte, 1)) < 0 && errno == EINTR) {}
	return n == 1 ? 0 : machine_fail(m, n < 0 ? errno : EPIPE, "the fifo go");
}

bool handover_failed(const struct failure *f) {
	char buffer[4096]; /* PIPE_BUF: whole or not at all */
	struct text t = { buffer, sizeof buffer, 0 };
	if (!over.freed) return false;
	failure_json(&t, f);
	return write(over.status, t.p, t.used) >= 0;
}
