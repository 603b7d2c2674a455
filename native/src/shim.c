/*
 * engine-shim: runs a plan for one container and stays with it, or runs an undo or a helper plan.
 *
 *     engine-shim run|exec|undo|helper|host     fds as SHIM_FD in core/plan/protocol.ts
 */
#define _GNU_SOURCE
#include "process.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef ENGINE_TEST
void test_halt(const char *kind, const char *name, const char *when) {
	const char *want = getenv("ENGINE_HALT"), *file;
	int folder = test_folder("ENGINE_HALT_FILE", &file);
	char here[128];
	snprintf(here, sizeof here, "%s:%s:%s", kind, name, when);
	if (!want || folder < 0 || strcmp(want, here)) return;
	int fd = openat(folder, file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) return;
	dprintf(fd, "%s %s %d\n", here, name, getpid());
	close(fd);
	while (!faccessat(folder, file, F_OK, 0)) usleep(2000);
}
#endif

struct options options;

/* Nothing that the caller happened to have is inherited: what the shim and its children are is said here or in the plan. */
static void clean_start(void) {
	setsid();
	umask(0);
	if (chdir("/")) _exit(1);
	if (options.hand_over) handover_fds();
	inherit_nothing(); /* before that its own files in /proc are root's */
	/* no ptrace and no /proc/PID/fd for the container's root while a child still has our memory (CVE-2016-9962) */
	prctl(PR_SET_DUMPABLE, 0);
	if (!options.hand_over) prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_NAME, "engine-shim");
	prctl(PR_SET_PDEATHSIG, 0);
	ignore_signals(true);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* as one call, Linux 5.11 */
	sys_close_range(SHIM_FD_CONTROL, ~0u, CLOSE_RANGE_CLOEXEC_);
	if (options.hand_over) return;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0) _exit(1);
	for (int fd = 0; fd < 3; fd++) dup2(null, fd);
	if (null > 2) close(null);
}

/* Options after the mode, as core/plan/protocol.ts has them. */
static bool read_options(char **arguments) {
	for (char **a = arguments; *a; a++) {
		if (!strcmp(*a, "client")) {
			options.client = true;
		} else if (!strcmp(*a, "trace")) {
			options.trace = true;
		} else if (!strcmp(*a, "hand-over")) {
			options.hand_over = true;
		} else if (!strcmp(*a, "console")) {
			options.console = true;
		} else if (!strcmp(*a, "ignore-paused")) {
			options.ignore_paused = true;
		} else if (!strncmp(*a, "preserve=", 9)) {
			options.preserve = (uint32_t)strtoul(*a + 9, NULL, 10);
		} else if (!strncmp(*a, "pool=", 5)) {
			options.pool = true;
			options.common = (uint32_t)strtoul(*a + 5, NULL, 10);
		} else if ((!strcmp(*a, "wake") || !strcmp(*a, "wake-always")) && a[1]) {
			options.wake_always = strcmp(*a, "wake");
			options.wake = a + 1;
			return true;
		} else {
			return false;
		}
	}
	return true;
}

int main(int argc, char **argv) {
	if (argc < 2 || !read_options(argv + 2) || fcntl(SHIM_FD_CONTROL, F_GETFD) < 0) {
		static const char text[] = "engine-shim is started by the engine\n";
		ssize_t n = write(2, text, sizeof text - 1);
		(void)n;
		return 2;
	}
	if (options.hand_over ? options.client || options.pool || options.preserve > MAX_PRESERVED : options.console || options.preserve) return 2;
	clean_start();
	if (!strcmp(argv[1], "run")) return mode_run();
	if (!strcmp(argv[1], "undo")) return mode_undo();
	if (!strcmp(argv[1], "helper")) return mode_helper(true);
	if (!strcmp(argv[1], "host")) return mode_helper(false);
	if (!strcmp(argv[1], "exec") && options.hand_over) return mode_exec();
	return 2;
}
