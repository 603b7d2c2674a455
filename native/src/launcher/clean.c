/* The state that a process inherits, but for limits and cgroups: engined's is the same whoever was the first to call. */
#include "launcher.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KEYCTL_JOIN_SESSION_KEYRING_ 1
#define IOPRIO_WHO_PROCESS_ 1
#define DEFAULT_SLACK_NS 50000ul

static bool put(const char *path, const char *text) {
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0) return false;
	bool done = write(fd, text, strlen(text)) > 0;
	close(fd);
	return done;
}

static void clean_signals(void) {
	struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; } standard = { 0 };
	/* libc's sigaction refuses its own two signals */
	for (int number = 1; number < 65; number++) syscall(SYS_rt_sigaction, number, &standard, NULL, 8);
	uint64_t none = 0;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
}

static void clean_capabilities(void) {
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capget, &head, data)) return;
	data[0].inheritable = data[1].inheritable = 0;
	syscall(SYS_capset, &head, data);
}

void clean_identity(void) {
	clean_signals();
	umask(022);
	if (chdir("/")) _exit(EXIT_ENGINE);
	if (geteuid() == 0) setgroups(0, NULL);
	clean_capabilities();
	prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
	syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING_, NULL, 0, 0, 0);
	personality(0);
	put("/proc/self/coredump_filter", "0x33");
}

void clean_resources(void) {
	unsigned long all[128]; /* 8192 CPUs; what is beyond the cpuset is left out by the kernel */
	memset(all, 0xff, sizeof all);
	struct sched_param zero = { 0 };
	syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &zero); /* musl's own refuses */
	setpriority(PRIO_PROCESS, 0, 0);
	syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS_, 0, 0);
	syscall(SYS_sched_setaffinity, 0, sizeof all, all);
	syscall(SYS_set_mempolicy, 0 /* MPOL_DEFAULT */, NULL, 0);
	prctl(PR_SET_TIMERSLACK, DEFAULT_SLACK_NS, 0, 0, 0);
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	/* many containers hang on it; the shims set their own */
	if (!put("/proc/self/oom_score_adj", "-500")) put("/proc/self/oom_score_adj", "0");
}
