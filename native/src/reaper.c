/* --init: pid 1 forwards signals and reaps; the child goes on with the plan. */
#include "ops.h"
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* pid 1 keeps nothing but the right to signal its child, which may have another uid. */
static void drop_all(void)
{
	for (int cap = 0; cap <= last_capability(); cap++)
		prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	prctl(PR_SET_NAME, "init", 0, 0, 0);
	set_capabilities(1u << CAP_KILL, 1u << CAP_KILL, 0);
}

static void reap_for_ever(pid_t child)
{
	/* blocked signals are kept even for pid 1, whose unhandled ones the kernel would throw away */
	sigset_t all;
	sigfillset(&all);
	for (;;) {
		int status;
		pid_t pid;
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			if (pid == child)
				_exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
		if (pid < 0 && errno == ECHILD)
			_exit(255);
		int signal = sigwaitinfo(&all, NULL);
		if (signal > 0 && signal != SIGCHLD)
			kill(child, signal);
	}
}

/* For the one process that stays: it writes to its own file, opened while its procfs could still be reached. */
static int armor_file = -1;
static char armor_text[512];

int do_reaper_armor(struct machine *m, const struct op_reaper_armor *o)
{
	int proc = register_fd(m, o->proc);
	if (proc < 0)
		return proc;
	int fd = proc_open(m, proc, "thread-self/attr/apparmor/current", O_WRONLY);
	if (fd == -ENOENT) /* before Linux 5.8 */
		fd = proc_open(m, proc, "thread-self/attr/current", O_WRONLY);
	if (fd < 0)
		return machine_fail(m, -fd, "AppArmor label %.200s", o->label.p);
	int n = snprintf(armor_text, sizeof armor_text, "changeprofile %s", o->label.p);
	if (n < 0 || (size_t)n >= sizeof armor_text) {
		close(fd);
		return -ENAMETOOLONG;
	}
	armor_file = fd;
	return 0;
}

/* Its errno, for the child to tell: pid 1 has nobody to talk to. */
static int wear_armor(void)
{
	return armor_file < 0 || write(armor_file, armor_text, strlen(armor_text)) >= 0 ? 0 : errno;
}

int do_reaper(struct machine *m, const struct op_reaper *o)
{
	(void)o;
	sigset_t all, old;
	int worn[2], error = 0;
	if (pipe2(worn, O_CLOEXEC))
		return -errno;
	AUTO_CLOSE int worn_read = worn[0];
	AUTO_CLOSE int worn_write = worn[1];
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	struct sigaction chld = { .sa_handler = SIG_DFL };
	sigaction(SIGCHLD, &chld, NULL);
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* does something without a pid namespace only */
	pid_t child = fork();
	if (child < 0) {
		error = errno;
		sigprocmask(SIG_SETMASK, &old, NULL);
		return -error;
	}
	if (child > 0) {
		if (m->host && m->host->reaper_stays)
			m->host->reaper_stays(m, child);
		error = wear_armor();
		(void)!write(worn_write, &error, sizeof error);
		sys_close_range(0, ~0u, 0);
		(void)!chdir("/");
		drop_all();
		reap_for_ever(child);
	}
	if (armor_file >= 0)
		close(take_fd(&armor_file));
	close(take_fd(&worn_write));
	if (read(worn_read, &error, sizeof error) != sizeof error || error) {
		sigprocmask(SIG_SETMASK, &old, NULL);
		return machine_fail(m, error ? error : ESRCH, "pid 1: %.200s", armor_text);
	}
	/* a process group of its own in the foreground of the terminal, if there is one (SIGTTOU is blocked) */
	setpgid(0, 0);
	tcsetpgrp(0, getpgrp());
	sigprocmask(SIG_SETMASK, &old, NULL);
	return 0;
}
