/* The caller's terminal: raw while a session has it, as it was on every way out. */
#include "launcher.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios before, ours;
static bool saved, raw;

uint32_t terminals_now(void) {
	struct termios t;
	return (tcgetattr(0, &t) ? 0 : TERMINALS_STDIN) | (tcgetattr(1, &t) ? 0 : TERMINALS_STDOUT) | (tcgetattr(2, &t) ? 0 : TERMINALS_STDERR);
}

bool terminal_is_raw(void) { return raw; }

/* As Node's raw mode, and without output processing: the container's own terminal has turned "\n" into "\r\n" already. */
bool terminal_raw(void) {
	if (!saved) {
		if (tcgetattr(0, &before)) return false;
		saved = true;
		ours = before;
		ours.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | INPCK | ISTRIP | IXON);
		ours.c_oflag &= ~(tcflag_t)OPOST;
		ours.c_cflag |= CS8;
		ours.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
		ours.c_cc[VMIN] = 1;
		ours.c_cc[VTIME] = 0;
	}
	raw = true;
	tcsetattr(0, TCSANOW, &ours);
	return true;
}

void terminal_restore(void) {
	if (!raw) return;
	raw = false;
	/* in the background this would stop us, on our way out */
	sigset_t out, old;
	sigemptyset(&out);
	sigaddset(&out, SIGTTOU);
	sigprocmask(SIG_BLOCK, &out, &old);
	tcsetattr(0, TCSANOW, &before);
	sigprocmask(SIG_SETMASK, &old, NULL);
}

bool window_size(uint16_t *rows, uint16_t *columns) {
	struct winsize size;
	if (ioctl(1, TIOCGWINSZ, &size)) return false;
	*rows = size.ws_row;
	*columns = size.ws_col;
	return true;
}
