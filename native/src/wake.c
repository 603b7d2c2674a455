/* Start an engine when the container has ended and none was there to see it. */
#define _GNU_SOURCE
#include "process.h"
#include "sys.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

void reset_signals(void); /* exec.c */

void wake(void) {
	/* the lock too: whoever waits for it need not wait for what follows. With a small table of fds, fork is cheaper as well. */
	sys_close_range(3, ~0u, 0);
	/* the shim ends now: its child is nobody's, no second fork is needed for that */
	if (fork()) return;
	static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	static char *const environment[] = { path, NULL };
	setsid();
	if (run.has_group) {
		/* a container's group is not the engine's */
		run.has_group = false;
		leave_cgroups(true);
	}
	reset_signals();
	inherit_nothing_child();
	umask(022);
	prctl(PR_SET_DUMPABLE, 1);
	execve(options.wake[0], options.wake, environment);
	_exit(127);
}
