/* The side of the child: from clone to exec, for init, stage and exec sessions. */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t clone_process(uint64_t flags, int *pidfd, int cgroup) {
	struct clone_args a;
	memset(&a, 0, sizeof a);
	a.flags = flags | (pidfd ? CLONE_PIDFD : 0);
	a.pidfd = (uint64_t)(uintptr_t)pidfd;
	if (cgroup >= 0) {
		a.flags |= CLONE_INTO_CGROUP;
		a.cgroup = (uint64_t)cgroup;
	}
	a.exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD; /* with CLONE_PARENT the kernel takes the parent's own */
	return (pid_t)syscall(SYS_clone3, &a, sizeof a);
}

void die_with_shim(int sync) {
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* it may have died before; its end of the socket is closed then */
	struct pollfd p = { .fd = sync, .events = 0 };
	if (poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR)) _exit(1);
}

static struct { int sync; const struct session *session; } self;

void child_begin(const struct session *s, int sync) {
	die_with_shim(sync);
	self.sync = sync;
	self.session = s;
	events_forget();
	watch_forget();
	clients_forget();
	sessions_forget(s);
	ports_forget();
	if (run.lock >= 0) close(run.lock);
	if (run.plan_fd >= 0) close(run.plan_fd);
	if (run.folder >= 0) close(run.folder);
	for (int i = 0; i < 3; i++)
		if (run.kept[i] >= 0) close(run.kept[i]);
	if (options.hand_over) handover_child();
	sigset_t none;
	sigemptyset(&none);
	ignore_signals(false);
	sigprocmask(SIG_SETMASK, &none, NULL);
	inherit_nothing_child();
}

uint32_t child_await_go(int sync) {
	struct sync_message m;
	int fd;
	if (sync_receive(sync, &m, &fd, -1) != 1 || m.kind != SYNC_GO) _exit(1);
	if (fd >= 0) close(fd);
	return m.value;
}

/* What a nested part (operations added by a barrier) failed with; it says more than `reach`. */
static struct failure nested;
static bool has_nested;

/* All that this sandbox has in common with others is done. Returns with the plan that makes a container of it. */
static int child_await_plan(int sync, struct plan *plan, const char **why) {
	struct sync_message m;
	int fd = -1;
	give_back_stack();
	sync_send(sync, SYNC_PREPARED, 0, NULL, -1);
	if (sync_receive(sync, &m, &fd, -1) != 1 || m.kind != SYNC_PLAN || fd < 0) _exit(1);
	int failed = plan_open(plan, fd, why);
	close(fd);
	return failed;
}

void child_run(int sync, struct machine *m, const struct plan *plan, enum part part) {
	struct failure f = { 0 };
	const bool pool = options.pool && part == PART_INIT;
	struct selection which = { .limit = pool ? options.common : UINT32_MAX };
	int result = run_some(m, plan, part, &which, &f);
	if (!result && pool) {
		static struct plan next;
		const char *why = "";
		which = (struct selection){ .skip = options.common, .limit = UINT32_MAX };
		result = child_await_plan(sync, &next, &why);
		if (result) f = make_failure(part, result, "the plan to go on with: %s", why);
		else result = run_some(m, &next, part, &which, &f);
	}
	if (!result) f = make_failure(part, ENOEXEC, "the plan has no exec operation");
	if (handover_failed(has_nested ? &nested : &f)) _exit(1);
	sync_send(sync, SYNC_FAILED, 0, has_nested ? &nested : &f, -1);
	_exit(1);
}

static void child_warning(struct machine *m, const struct failure *f) {
	(void)m;
	if (self.sync >= 0) sync_send(self.sync, SYNC_WARNING, 0, f, -1);
}

static int child_reach(struct machine *m, uint32_t point) {
	int sync = self.sync, fd;
	struct sync_message message;
	int failed = sync_send(sync, SYNC_REACHED, point, NULL, -1);
	if (failed) return failed;
	do {
		int got = sync_receive(sync, &message, &fd, -1);
		if (got <= 0) _exit(1);
	} while (message.kind != SYNC_RELEASE || message.value != point);
	if (fd < 0) return 0;
	struct plan added;
	const char *why = "";
	failed = plan_open(&added, fd, &why);
	close(fd);
	if (failed) return machine_fail(m, -failed, "operations added by a barrier: %s", why);
	failed = run_part(m, &added, PART_INIT, &nested);
	has_nested = failed != 0;
	plan_close(&added);
	return failed;
}

static int child_give_master(struct machine *m, int master) {
	int failed = sync_send(self.sync, SYNC_MASTER, 0, NULL, master);
	/* the shim gives it its size before the program can ask for it */
	if (!failed) failed = -(int)child_await_go(self.sync);
	return failed ? machine_fail(m, -failed, "nobody takes the terminal") : 0;
}

static int child_take_pipes(struct machine *m, int fds[3]) {
	(void)m;
	const struct session *s = self.session;
	if (s->flags & STDIO_INHERIT) return 1;
	for (int i = 0; i < 3; i++) fds[i] = s->child_fds[i];
	return 0;
}

/* pid 1 of --init: it neither execs nor talks to the shim any more. The interpreter closes its fds. */
static void child_reaper_stays(struct machine *m, pid_t child) {
	(void)m;
	(void)child;
}

static int child_before_exec(struct machine *m) {
	if (self.sync < 0) return 0; /* it was handed over before */
	if (options.hand_over) {
		int failed = handover_let_go(self.sync);
		if (failed) return machine_fail(m, -failed, "this process cannot be handed over");
	} else {
		/* setresuid has cleared it */
		die_with_shim(self.sync);
	}
	sync_send(self.sync, SYNC_EXEC, 0, NULL, -1);
	return 0;
}

/* A filter may forbid what handing over needs. */
static int child_before_filter(struct machine *m) {
	if (!options.hand_over || self.sync < 0) return 0;
	int failed = handover_let_go(self.sync);
	return failed ? machine_fail(m, -failed, "this process cannot be handed over") : 0;
}

static int child_announce_listener(struct machine *m, int number, const struct op_seccomp_notify *o) { return listener_announce(m, self.sync, number, o); }
static int child_await_listener(struct machine *m) { return listener_await(m, self.sync); }
static int child_await_start(struct machine *m) { return handover_await_start(m, &self.sync); }

/* -- joining a running container ------------------------------------------------------------------------------------------------ */

static bool same_namespace(pid_t pid, const char *type) {
	char path[64];
	struct stat ours, theirs;
	snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, type);
	if (stat(path, &theirs)) return true;
	snprintf(path, sizeof path, "/proc/self/ns/%s", type);
	return !stat(path, &ours) && ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev;
}

static int child_join_container(struct machine *m, int privileged) {
	(void)privileged; /* what a privileged session may do more is said by its other operations */
	static const struct { const char *type; int flag; } namespaces[] = {
		{ "user", CLONE_NEWUSER }, { "mnt", CLONE_NEWNS }, { "pid", CLONE_NEWPID }, { "net", CLONE_NEWNET },
		{ "ipc", CLONE_NEWIPC }, { "uts", CLONE_NEWUTS }, { "cgroup", CLONE_NEWCGROUP }, { "time", CLONE_NEWTIME },
	};
	char detail[MAX_DETAIL] = "";
	pid_t init = run.init->pid;
	int failed = cgroups_join(init, run.cgroup >= 0, detail, sizeof detail);
	if (failed) return machine_fail(m, failed, "%s", detail);
	int flags = 0;
	for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++)
		if (!same_namespace(init, namespaces[i].type)) flags |= namespaces[i].flag;
	if (flags & CLONE_NEWUSER) {
		own_streams(self.session, init);
		take_limits(init);
	}
	if (flags && syscall(SYS_setns, run.init->pidfd, flags)) return machine_fail(m, errno, "cannot enter the container's namespaces");
	if (chdir("/")) return machine_fail(m, errno, "cannot enter the container's root");
	/* a pid namespace is for children only; CLONE_PARENT makes the process the shim's own child */
	int sync = self.sync;
	pid_t pid = clone_process(CLONE_PARENT, NULL, -1);
	if (pid < 0) return machine_fail(m, errno, "cannot make a process in the container");
	if (pid) {
		test_halt("session", "spawned", "before");
		sync_send(sync, SYNC_SPAWNED, (uint32_t)pid, NULL, -1);
		_exit(0);
	}
	die_with_shim(sync);
	child_await_go(sync);
	return 0;
}

const struct host child_host = {
	.warning = child_warning,
	.reach = child_reach,
	.join_container = child_join_container,
	.give_master = child_give_master,
	.take_pipes = child_take_pipes,
	.reaper_stays = child_reaper_stays,
	.before_exec = child_before_exec,
	.before_filter = child_before_filter,
	.await_start = child_await_start,
	.announce_listener = child_announce_listener,
	.await_listener = child_await_listener,
};
