/*
 * Nothing that the caller happened to have reaches a container: here every attribute that survives fork and execve is set. Dispositions and the mask of
 * signals, the environment and fds were cleared by engine_spawn. What a plan asks for (limits, scheduler, umask …) comes later and wins.
 */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_SET_THP_DISABLE
#define PR_SET_THP_DISABLE 41
#endif
#define TIMER_SLACK 50000  /* ns, the kernel's own for a new thread */
#define MOST_FILES 1048576u
#define KEYCTL_JOIN_SESSION 1

static const char *warning;

const char *inherit_warning(void) { return warning; }

/* Those of pid 1: what a daemon would have that has just been started. */
static void default_limits(void) {
	struct rlimit of_init, now;
	for (int r = 0; r < RLIM_NLIMITS; r++) {
		if (syscall(SYS_prlimit64, 1, r, NULL, &of_init)) return; /* not root, or pid 1 is another user's */
		/* systemd's own is the kernel's maximum, which is not what it gives to others; programs that close all their fds would take minutes */
		if (r == RLIMIT_NOFILE && of_init.rlim_max > MOST_FILES) of_init.rlim_max = MOST_FILES;
		if (of_init.rlim_cur > of_init.rlim_max) of_init.rlim_cur = of_init.rlim_max;
		if (getrlimit(r, &now) || (now.rlim_cur == of_init.rlim_cur && now.rlim_max == of_init.rlim_max)) continue;
		if (!setrlimit(r, &of_init)) continue;
		/* without CAP_SYS_RESOURCE: as far as it goes */
		now.rlim_cur = of_init.rlim_cur < now.rlim_max ? of_init.rlim_cur : now.rlim_max;
		setrlimit(r, &now);
	}
}

static void default_scheduling(void) {
	unsigned char all[1024];
	int priority = 0;
	memset(all, 0xff, sizeof all);
	syscall(SYS_sched_setaffinity, 0, sizeof all, all);
	syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &priority);
	setpriority(PRIO_PROCESS, 0, 0);
	syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, 0);
	syscall(SYS_set_mempolicy, 0 /* MPOL_DEFAULT */, NULL, 0);
	/* 0 would be "what the parent had" */
	prctl(PR_SET_TIMERSLACK, TIMER_SLACK);
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	syscall(SYS_personality, 0);
}

static void default_credentials(void) {
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct caps[2];
	if (prctl(PR_GET_SECUREBITS) > 0 && prctl(PR_SET_SECUREBITS, 0)) warning = "the secure bits of the caller cannot be taken back";
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (!syscall(SYS_capget, &head, caps) && (caps[0].inheritable || caps[1].inheritable)) {
		caps[0].inheritable = caps[1].inheritable = 0;
		syscall(SYS_capset, &head, caps);
	}
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) warning = "started with no-new-privs, which cannot be taken back: setuid programs have no effect in the container";
	/* others have a quota of 200 keyrings in all, and the container gets one of its own by its plan */
	if (!options.hand_over && !geteuid()) syscall(SYS_keyctl, KEYCTL_JOIN_SESSION, NULL);
}

static bool write_file(const char *path, const char *text) {
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) > 0;
	if (fd >= 0) close(fd);
	return done;
}

int enter_cgroup(const char *folder) {
	char path[4096];
	if ((size_t)snprintf(path, sizeof path, "%s/cgroup.procs", folder) >= sizeof path) return ENAMETOOLONG;
	if (mkdir(folder, 0755) && errno != EEXIST) return errno;
	int fd = open(path, O_WRONLY | O_CLOEXEC), failed = 0;
	if (fd < 0 || write(fd, "0", 1) != 1) failed = errno;
	if (fd >= 0) close(fd);
	if (!failed) run.has_group = true;
	return failed;
}

/*
 * Out of the caller's cgroups, so that the end of its unit or session is not the container's: to the root of each hierarchy, at its usual place (a look
 * into mountinfo would cost more than all else here). `v2`: there, where a move waits for a grace period of milliseconds; else in all others.
 */
void leave_cgroups(bool v2) {
	char text[4096], path[160];
	if (run_file_read(AT_FDCWD, "/proc/self/cgroup", text, sizeof text) <= 0) return;
	for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = 0;
		char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!group || !strcmp(group, ":/")) continue;
		*group = 0;
		if (v2 != !controllers[1]) continue;
		if (v2) {
			if (!run.has_group && !write_file("/sys/fs/cgroup/unified/cgroup.procs", "0")) write_file("/sys/fs/cgroup/cgroup.procs", "0");
			continue;
		}
		/* `tasks`: moving oneself by it costs no grace period */
		const char *name = strncmp(controllers + 1, "name=", 5) ? controllers + 1 : controllers + 6;
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s/tasks", name);
		write_file(path, "0");
	}
}

static void oom_score(const char *value) {
	if (write_file("/proc/self/oom_score_adj", value)) run.oom_score = atoi(value);
}

void inherit_nothing(void) {
	/* a container below another engine has that one's limits, groups, keys and scheduling where its config says nothing else: callers count on it */
	if (options.hand_over) {
		default_credentials();
		return;
	}
	leave_cgroups(false);
	default_limits();
	default_scheduling();
	default_credentials();
	run.oom_score = -1; /* unknown */
	oom_score("-999"); /* needs CAP_SYS_RESOURCE */
	if (run.oom_score == -1) oom_score("0");
}

void inherit_nothing_child(void) {
	if (run.oom_score) oom_score("0");
}

/* What the shim lives through; SIGCHLD is read from an fd, the rest kills it as any program. */
void ignore_signals(bool ignore) {
	static const unsigned char ignored[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH, SIGXFSZ, SIGXCPU };
	struct { void (*handler)(int); unsigned long flags; void *restorer; uint64_t mask; } action = { .handler = ignore ? SIG_IGN : SIG_DFL };
	for (size_t i = 0; i < sizeof ignored; i++)
		if (ignore || ignored[i] != SIGPIPE) syscall(SYS_rt_sigaction, ignored[i], &action, NULL, 8);
}
