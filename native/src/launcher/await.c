/* A process that became our child when its shim had handed it over: we wait for it, pass signals on to it, and relay its terminal. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

static struct {
	pid_t pid;
	int pidfd;
	bool active, ended, told;
	bool begun;    /* whatever becomes of the engine */
	bool killed;   /* it never would have */
	char **words;  /* of a command for after its end, without the engine */
	uint32_t code;
	int error; /* it never was our child */
	bool expected; /* what is started is adopted, and will be waited for */
	uint64_t kept; /* signals for it that came before, by their numbers */
} awaited = { .pidfd = -1 };

static struct {
	int socket;  /* the master comes from there */
	int master;
	bool hung;   /* nobody has it open for the moment */
	bool input_ended;
	uint8_t in[16 << 10], out[16 << 10]; /* typed and not taken yet; said and not written yet */
	size_t in_start, in_end, out_start, out_end;
} console = { .socket = -1, .master = -1 };

/* -- the process -------------------------------------------------------------------------------------------------------------- */

void await_begin(uint32_t pid, const uint8_t *payload, uint32_t length) {
	awaited.pid = (pid_t)pid;
	awaited.active = true;
	awaited.ended = awaited.told = false;
	awaited.error = 0;
	awaited.begun = !length;
	awaited.killed = false;
	awaited.words = length ? read_texts(payload, length) : NULL;
	if (awaited.pidfd >= 0) close(awaited.pidfd);
	awaited.pidfd = (int)syscall(SYS_pidfd_open, awaited.pid, 0);
	signals_await();
	uint64_t kept = awaited.kept;
	awaited.kept = 0;
	for (int number = 1; number < 64; number++)
		if (kept >> number & 1) await_signal(number);
	await_reap();
}

void await_expect(void) { awaited.expected = true; }

void await_begun(void) { awaited.begun = true; }

void await_lost(void) {
	if (awaited.begun || awaited.killed || awaited.ended) return;
	awaited.killed = true;
	if (awaited.pidfd >= 0) syscall(SYS_pidfd_send_signal, awaited.pidfd, SIGKILL, NULL, 0);
}

char **await_words(void) {
	char **words = awaited.words;
	awaited.words = NULL;
	awaited.told = true;
	awaited.active = false;
	return words && *words ? words : NULL;
}

bool await_active(void) { return awaited.active; }

void await_reap(void) {
	if (!awaited.active || awaited.ended) {
		children_reap();
		return;
	}
	int status;
	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
		child_ended(pid);
		if (pid != awaited.pid) continue; /* an orphan */
		awaited.ended = true;
		awaited.code = WIFEXITED(status) ? (uint32_t)WEXITSTATUS(status) : 128u + (uint32_t)WTERMSIG(status);
	}
	siginfo_t info;
	/* it is ours as soon as its shim has ended, and not before */
	if (!awaited.ended && !children_left() && waitid(P_PID, (id_t)awaited.pid, &info, WEXITED | WNOHANG | WNOWAIT) && errno == ECHILD) {
		awaited.ended = true;
		awaited.error = ECHILD;
	}
}

bool await_signal(int number) {
	/* it is over, and its code is still to be told: no signal for it may take that away */
	if (awaited.ended || awaited.told) return true;
	if (!awaited.active) {
		/* the program gets it, once it is there; who insists means us */
		if (!awaited.expected || !signal_forwardable(number) || awaited.kept >> number & 1) return false;
		awaited.kept |= (uint64_t)1 << number;
		return true;
	}
	if (number == SIGWINCH) {
		console_resize();
		return true;
	}
	if (number == SIGCONT && terminal_is_raw()) terminal_raw(); /* the shell has had it meanwhile */
	if (awaited.pidfd >= 0) syscall(SYS_pidfd_send_signal, awaited.pidfd, number, NULL, 0);
	return true;
}

/* Is it over, and all that its terminal said written? `code`: its exit code; `error`: it was never ours. */
bool await_over(uint32_t *code, int *error) {
	if (!awaited.active || !awaited.ended) return false;
	if (console.master >= 0) {
		console_read(); /* what it said last is there by now, whoever else still has the terminal */
		if (console.out_start < console.out_end) return false;
	}
	*code = awaited.killed ? EXIT_OCI : awaited.code;
	*error = awaited.error;
	return true;
}

/* Answer `wait`; once. */
void await_tell(void) {
	uint32_t code;
	int error;
	if (awaited.told || !await_over(&code, &error)) return;
	awaited.told = true;
	awaited.active = false;
	terminal_restore();
	console_close();
	uint32_t e = (uint32_t)error;
	conn_send(&engined, LAUNCH_EXITED, 0, code, &e, error ? sizeof e : 0);
}

/* -- its terminal ------------------------------------------------------------------------------------------------------------- */

void console_open(int socket) {
	console_close();
	console.socket = socket;
	console.hung = console.input_ended = false;
	console.in_start = console.in_end = console.out_start = console.out_end = 0;
}

void console_close(void) {
	if (console.socket >= 0) close(console.socket);
	if (console.master >= 0) close(console.master);
	console.socket = console.master = -1;
}

void console_resize(void) {
	struct winsize size;
	if (console.master < 0) return;
	for (int fd = 0; fd < 3; fd++)
		if (!ioctl(fd, TIOCGWINSZ, &size)) {
			ioctl(console.master, TIOCSWINSZ, &size);
			return;
		}
}

static void receive_master(void) {
	char bytes[64];
	union { char bytes[CMSG_SPACE(4 * sizeof(int))]; struct cmsghdr align; } control;
	struct iovec part = { bytes, sizeof bytes };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes };
	ssize_t n = recvmsg(console.socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
	for (struct cmsghdr *h = n < 0 ? NULL : CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
		for (size_t i = 0; i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
			if (console.master < 0) console.master = fd;
			else close(fd);
		}
	}
	close(console.socket);
	console.socket = -1;
	if (console.master < 0) return;
	fcntl(console.master, F_SETFL, fcntl(console.master, F_GETFL) | O_NONBLOCK);
	console_resize();
	signals_await();
	terminal_raw(); /* no terminal: then what comes is passed on as it is */
}

/* Take what it says, as far as it can be written. */
void console_read(void) {
	for (;;) {
		while (console.out_start < console.out_end) {
			size_t done = sink_write(&sinks[0], console.out + console.out_start, console.out_end - console.out_start, false);
			if (!done) return;
			console.out_start += done;
		}
		console.out_start = console.out_end = 0;
		if (console.master < 0) return;
		ssize_t n = read(console.master, console.out, sizeof console.out);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0 && errno == EAGAIN) return;
		console.hung = n <= 0; /* EIO */
		if (console.hung) return;
		console.out_end = (size_t)n;
	}
}

static void console_write(void) {
	while (console.in_start < console.in_end) {
		ssize_t n = write(console.master, console.in + console.in_start, console.in_end - console.in_start);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0 && errno == EAGAIN) return;
		if (n < 0) break;
		console.in_start += (size_t)n;
	}
	console.in_start = console.in_end = 0;
}

bool console_takes_input(void) { return console.master >= 0 && !console.input_ended && console.in_start == console.in_end && !awaited.ended; }

void console_input(void) {
	ssize_t n = input_read(console.in, sizeof console.in);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
	if (n <= 0) console.input_ended = true;
	else {
		console.in_end = (size_t)n;
		console_write();
	}
}

struct pollfd console_poll(void) {
	if (console.socket >= 0) return (struct pollfd){ .fd = console.socket, .events = POLLIN };
	short events = (short)((console.out_start == console.out_end && !console.hung ? POLLIN : 0) | (console.in_start < console.in_end ? POLLOUT : 0));
	return (struct pollfd){ .fd = events ? console.master : -1, .events = events };
}

bool console_hung(void) {
	bool hung = console.hung;
	console.hung = false;
	return hung;
}

void console_attend(short events) {
	if (console.socket >= 0) {
		receive_master();
		return;
	}
	if (console.master < 0) return;
	if (events & POLLOUT) console_write();
	console_read();
}
