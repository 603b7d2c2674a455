/* Signals come by a signalfd, in the one loop; what nobody asks for keeps its usual effect. */
#include "launcher.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

static sigset_t before, taken;
static int fd = -1;

static void take(void) {
	sigprocmask(SIG_BLOCK, &taken, NULL);
	fd = signalfd(fd, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
}

int signals_open(bool window) {
	sigemptyset(&taken);
	sigaddset(&taken, SIGHUP);
	sigaddset(&taken, SIGINT);
	sigaddset(&taken, SIGQUIT);
	sigaddset(&taken, SIGTERM);
	if (window) sigaddset(&taken, SIGWINCH);
	sigset_t first = taken;
	sigaddset(&first, SIGPIPE); /* the error of the call is enough */
	sigprocmask(SIG_BLOCK, &first, &before);
	fd = signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd;
}

bool signal_ends(int number) { return number == SIGHUP || number == SIGINT || number == SIGQUIT || number == SIGTERM; }

/* The list of plugins/frontend-cli/attach.ts: not what ends or stops the client itself in ways nobody means for the container, or comes by itself. */
bool signal_forwardable(int number) {
	switch (number) {
	case SIGHUP: case SIGINT: case SIGQUIT: case SIGTERM: case SIGUSR1: case SIGUSR2: case SIGCONT: case SIGXCPU: case SIGXFSZ: case SIGPWR: return true;
	default: return false;
	}
}

void signals_forward(void) {
	for (int number = 1; number < 32; number++)
		if (signal_forwardable(number)) sigaddset(&taken, number);
	take();
}

void signals_children(void) {
	struct sigaction standard = { .sa_handler = SIG_DFL };
	sigaction(SIGCHLD, &standard, NULL); /* who started us may ignore it: then nobody could ask how they ended */
	sigaddset(&taken, SIGCHLD);
	take();
}

/* As runc: all but those that are about us, or that a fault of ours would raise. */
void signals_await(void) {
	for (int number = 1; number < _NSIG; number++) {
		switch (number) {
		case SIGKILL: case SIGSTOP: case SIGPIPE: case SIGURG: case SIGSEGV: case SIGBUS: case SIGILL: case SIGFPE: case SIGTRAP: case SIGSYS: continue;
		default: sigaddset(&taken, number); /* libc keeps its own */
		}
	}
	take();
}

void signals_job_control(void) {
	sigaddset(&taken, SIGTSTP);
	sigaddset(&taken, SIGCONT);
	take();
}

int signals_next(void) {
	struct signalfd_siginfo info;
	return read(fd, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
}

void signals_restore(void) { sigprocmask(SIG_SETMASK, &before, NULL); }

bool signal_ignored(int number) {
	struct sigaction action;
	return !sigaction(number, NULL, &action) && action.sa_handler == SIG_IGN;
}

void signal_default(int number) {
	sigset_t one, old;
	sigemptyset(&one);
	sigaddset(&one, number);
	if (number != SIGTSTP) { /* who ignores stopping is not stopped */
		struct sigaction standard = { .sa_handler = SIG_DFL };
		sigaction(number, &standard, NULL);
	}
	kill(getpid(), number);
	sigprocmask(SIG_UNBLOCK, &one, &old);
	sigprocmask(SIG_SETMASK, &old, NULL);
}
