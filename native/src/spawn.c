/* The shim's callbacks for the interpreter: standard streams, the birth of init (through a stage where there is one), sync points, barriers. */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void shim_warning(struct machine *m, const struct failure *f) {
	(void)m;
	uint8_t payload[16 + MAX_DETAIL];
	uint32_t length = failure_payload(f, payload);
	clients_broadcast(FRAME_WARNING, 0, 0, payload, length);
}

static struct { uint32_t index; struct op_stdio o; } wanted_log;

int open_log(void) {
	const struct op_stdio *o = &wanted_log.o;
	int failed = o->log_dir.n ? log_open(o->log_dir.p, o->max_size, o->max_files, o->ring) : 0;
	if (!failed) return 0;
	run.failure = make_failure(PART_SHIM, failed, "cannot open the log in %.300s", o->log_dir.p);
	run.failure.index = wanted_log.index;
	run.has_failure = true;
	return -failed;
}

static int shim_stdio(struct machine *m, const struct op_stdio *o) {
	struct session *s = run.init;
	if (options.hand_over ? !(o->flags & (STDIO_TERMINAL | STDIO_INHERIT)) || !(o->flags & STDIO_TERMINAL) != !options.console : o->flags & STDIO_INHERIT)
		return machine_fail(m, EINVAL, options.hand_over ? "streams of a caller are inherited, or a terminal that it has a socket for" : "nobody has streams to inherit");
	s->flags = o->flags;
	s->rows = (uint16_t)o->rows;
	s->cols = (uint16_t)o->cols;
	struct client *control = clients_control();
	if (control && (client_streams(control) != control || o->flags & (STDIO_ATTACH_STDIN | STDIO_ATTACH_STDOUT | STDIO_ATTACH_STDERR))) session_attach(s, control, o->flags);
	wanted_log.index = m->index;
	wanted_log.o = *o;
	return 0;
}

/* A part of a part: the stage's operations up to and after the birth of init. */
static struct plan narrowed(const struct plan *plan, enum part part, uint16_t from, uint16_t to) {
	struct plan some = *plan;
	struct plan_cursor at = plan_start(plan, part), before = at;
	struct operation op;
	some.parts[part].count = 0;
	while (before = at, !plan_next(plan, &at, &op)) {
		if (op.slot < from || op.slot > to) continue;
		if (!some.parts[part].count++) some.parts[part].offset = before.offset;
	}
	return some;
}

static void __attribute__((noreturn)) stage_fail(int sync, const struct failure *f) {
	sync_send(sync, SYNC_FAILED, 0, f, -1);
	_exit(1);
}

/*
 * The stage: its own namespaces and mounts first, which init then inherits; init by CLONE_PARENT, so that it is the shim's child; then
 * the id maps, which need init's pid. Init waits for SYNC_GO until all of it is done.
 */
static void __attribute__((noreturn)) stage_run(struct machine *m, int sync, uint64_t flags, uint32_t pid_register) {
	struct failure f;
	struct plan first = narrowed(&run.plan, PART_STAGE, SLOT_STAGE_CGROUP, SLOT_STAGE_NAMESPACES);
	struct plan maps = narrowed(&run.plan, PART_STAGE, SLOT_STAGE_MAPS, SLOT_STAGE_MAPS);
	struct plan mounts = narrowed(&run.plan, PART_STAGE, SLOT_STAGE_MOUNTS, SLOT_STAGE_MOUNTS);
	if (run_part(m, &first, PART_STAGE, &f) || run_part(m, &mounts, PART_STAGE, &f)) stage_fail(sync, &f);
	pid_t pid = clone_process(flags | CLONE_PARENT, NULL, -1);
	if (pid < 0) {
		f = make_failure(PART_STAGE, errno, "cannot make the container's first process");
		stage_fail(sync, &f);
	}
	if (!pid) {
		die_with_shim(sync);
		child_await_go(sync);
		child_run(sync, m, &run.plan, PART_INIT);
	}
	sync_send(sync, SYNC_SPAWNED, (uint32_t)pid, NULL, -1);
	register_set_number(m, pid_register, REGISTER_PID, pid);
	if (run_part(m, &maps, PART_STAGE, &f)) stage_fail(sync, &f);
	own_streams(run.init, pid);
	sync_send(sync, SYNC_STAGE_DONE, 0, NULL, -1);
	_exit(0);
}

static uint32_t spawn_register(const struct plan *plan) {
	struct plan_cursor at = plan_start(plan, PART_SHIM);
	struct operation op;
	struct op_spawn o;
	while (!plan_next(plan, &at, &op))
		if (op.code == OP_SPAWN && !decode_spawn(&op.fields, &o)) return o.pid;
	return NO_REGISTER;
}

/* The stage's next message; not 1 when there will be none. Init has the other end of the socket too, so that only its pidfd tells of a stage that was killed. */
static int stage_message(int sync, int stage, struct sync_message *message, int *passed) {
	struct pollfd p[] = { { .fd = sync, .events = POLLIN }, { .fd = stage, .events = POLLIN } };
	while (poll(p, 2, -1) < 0 && errno == EINTR) {}
	/* what it had said before counts */
	return sync_receive(sync, message, passed, p[1].revents ? 0 : -1);
}

static int shim_spawn(struct machine *m, uint64_t flags, pid_t *pid, int *pidfd) {
	struct session *s = run.init;
	if (run.spawned) return machine_fail(m, EEXIST, "init is there already");
	bool stage = run.plan.parts[PART_STAGE].count > 0;
	int sockets[2], failed;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets)) return machine_fail(m, errno, "no socket pair");
	failed = session_pipes(s);
	if (failed) return machine_fail(m, failed, "no pipes");
	uint32_t pid_register = spawn_register(&run.plan);
	int fd = -1;
	pid_t child = clone_process(stage ? 0 : flags, &fd, run.cgroup);
	if (!child) {
		close(sockets[0]);
		child_begin(s, sockets[1]);
		m->host = &child_host;
		if (stage) stage_run(m, sockets[1], flags, pid_register);
		child_run(sockets[1], m, &run.plan, PART_INIT);
	}
	failed = errno;
	const char *where = run.cgroup < 0 ? "" :
		failed == EBUSY ? " in its cgroup: groups below that have controllers" :
		failed == EOPNOTSUPP ? " in its cgroup: that is threaded, or below one that is" :
		failed == EACCES ? " in its cgroup: this part of the hierarchy belongs to somebody else" :
		failed == EAGAIN ? " in its cgroup: its pids.max, or that of a group above, is reached" : " in its cgroup";
	run.cgroup = -1;
	close(sockets[1]);
	session_close_child_fds(s);
	if (child < 0) {
		close(sockets[0]);
		return machine_fail(m, failed, "cannot make the container's first process%s", where);
	}
	s->sync.fd = sockets[0];
	s->pid = child;
	s->pidfd = fd;
	run.spawned = true;
	if (stage) {
		int stage_fd = s->pidfd;
		pid_t stage_pid = child;
		bool done = false;
		s->pid = 0;
		s->pidfd = -1;
		struct sync_message message;
		int passed, status = 0;
		while (!done && stage_message(s->sync.fd, stage_fd, &message, &passed) == 1) {
			if (passed >= 0) close(passed);
			if (message.kind == SYNC_SPAWNED) {
				/* our own child and not waited for yet: the pid can be nobody else's */
				s->pid = (pid_t)message.value;
				s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);
			} else if (message.kind == SYNC_WARNING) {
				shim_warning(m, &message.failure);
			} else if (message.kind == SYNC_FAILED) {
				run.failure = message.failure;
				run.has_failure = true;
				break;
			} else if (message.kind == SYNC_STAGE_DONE) {
				done = true;
			}
		}
		if (!done) syscall(SYS_pidfd_send_signal, stage_fd, SIGKILL, NULL, 0);
		waitpid(stage_pid, &status, __WALL);
		close(stage_fd);
		if (!done || s->pidfd < 0) return machine_fail(m, ECHILD, "the stage ended early%s", WIFSIGNALED(status) ? ": it was killed (a memory limit may be too small)" : "");
		sync_send(s->sync.fd, SYNC_GO, 0, NULL, -1);
	}
	s->start_time = start_time_of(s->pid);
	*pid = s->pid;
	*pidfd = fcntl(s->pidfd, F_DUPFD_CLOEXEC, 3);
	return 0;
}

/* -- messages ---------------------------------------------------------------------------------------------------------------------- */

int session_message(struct session *s, int timeout) {
	struct sync_message m;
	if (s->sync.fd < 0) return 0;
	int fd, got = sync_receive(s->sync.fd, &m, &fd, timeout);
	if (got == -EAGAIN) return 1;
	if (got <= 0) {
		source_close(&s->sync);
		return 0;
	}
	if (m.kind == SYNC_MASTER && fd >= 0) {
		int failed = options.console ? handover_console(s, fd) : 0;
		if (!options.console) session_take_terminal(s, fd);
		fd = -1;
		sync_send(s->sync.fd, SYNC_GO, (uint32_t)failed, NULL, -1);
	} else if (m.kind == SYNC_REACHED && !s->id) {
		run.reached = m.value;
		run.any_reached = true;
	} else if (m.kind == SYNC_WARNING) {
		shim_warning(NULL, &m.failure);
	} else if (m.kind == SYNC_FAILED) {
		s->failed = true;
		run.failure = m.failure;
		if (!s->id) run.has_failure = true;
	} else if (m.kind == SYNC_SPAWNED && s->id) {
		s->pid = (pid_t)m.value;
		s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);
		if (s->pidfd < 0) s->pid = 0; /* it was killed, and has been waited for already */
		s->start_time = start_time_of(s->pid);
		sync_send(s->sync.fd, SYNC_GO, 0, NULL, -1);
	} else if (m.kind == SYNC_EXEC) {
		s->about_to_exec = true;
	} else if (m.kind == SYNC_LISTENER) {
		if (!listener_pass_on(s, &m)) {
			s->failed = true;
			if (!s->id) run.has_failure = true;
		}
	} else if (m.kind == SYNC_PREPARED && !s->id) {
		run.prepared = true;
	} else if (!s->id) {
		handover_message(&m);
	}
	if (fd >= 0) close(fd);
	return 1;
}

int init_lost(struct machine *m, const char *what) {
	if (run.has_failure) return -run.failure.error;
	int status = 0;
	struct failure f = make_failure(PART_INIT, ECHILD, "init ended %s", what);
	bool ended = run.init->exited;
	if (ended) status = run.init->status;
	else if (run.init->pid > 0 && waitpid(run.init->pid, &status, __WALL) == run.init->pid) session_exited(run.init, status), ended = true;
	if (ended) {
		if (WIFSIGNALED(status))
			f = make_failure(PART_INIT, ECHILD, "init was killed by signal %d %s%s", WTERMSIG(status), what,
				WTERMSIG(status) == SIGKILL ? " (a memory limit may be too small)" : "");
	}
	run.failure = f;
	run.has_failure = true;
	if (m) machine_fail(m, ECHILD, "%s", f.detail);
	return -ECHILD;
}

bool init_is_lost(void) {
	struct session *s = run.init;
	if (!s->exited) return false;
	/* what it had said before; it may have run its program to the end already */
	for (int i = 0; i < 64 && session_message(s, 0); i++) {}
	return !s->about_to_exec;
}

static int shim_await_point(struct machine *m, uint32_t point) {
	while (!run.any_reached || run.reached != point) {
		if (run.init->sync.fd < 0 || !session_message(run.init, -1)) return init_lost(m, "before a sync point");
		if (run.has_failure) return machine_fail(m, run.failure.error, "%s", run.failure.detail);
		if (run.prepared && !run.resumed) return machine_fail(m, EDEADLK, "init comes to this point only with the plan that is waited for");
	}
	return 0;
}

static int shim_release(struct machine *m, uint32_t point) {
	int failed = sync_send(run.init->sync.fd, SYNC_RELEASE, point, NULL, run.added);
	if (run.added >= 0) close(run.added);
	run.added = -1;
	return failed ? machine_fail(m, -failed, "init is gone") : 0;
}

int await_exec(void) {
	while (session_message(run.init, -1) && !run.has_failure && !handover_ready()) {}
	if (run.has_failure) return -run.failure.error;
	if (handover_ready()) return 0;
	return run.init->about_to_exec ? 0 : init_lost(NULL, "before its program was started");
}

static int shim_barrier(struct machine *m, uint32_t index, const struct op_barrier *o) {
	struct client *control = clients_control();
	if (!control) return machine_fail(m, EPIPE, "the engine is gone");
	uint32_t length = 16 + o->handler.n + o->input.n, pid = (uint32_t)(run.init->pid > 0 ? run.init->pid : getpid());
	uint8_t *payload = malloc(length);
	if (!payload) return machine_fail(m, ENOMEM, "no memory");
	memcpy(payload, &index, 4);
	memcpy(payload + 4, &pid, 4);
	memcpy(payload + 8, &o->handler.n, 4);
	memcpy(payload + 12, o->handler.p, o->handler.n);
	memcpy(payload + 12 + o->handler.n, &o->input.n, 4);
	memcpy(payload + 16 + o->handler.n, o->input.p, o->input.n);
	test_halt("barrier", o->handler.p, "before");
	client_send(control, FRAME_BARRIER, 0, 0, payload, length);
	free(payload);
	uint32_t answer = 0;
	uint8_t *plan = NULL;
	int failed = control_wait(now_ms() + o->deadline, &answer, &plan, &length);
	test_halt("barrier", o->handler.p, "after");
	if (failed == ECHILD) return init_lost(m, "at a barrier");
	if (failed) return machine_fail(m, failed, failed == ETIMEDOUT ? "handler %s took too long" : "the engine went away in handler %s", o->handler.p);
	if (answer) {
		failed = machine_fail(m, (int)answer, "%s", length ? (const char *)plan : "the handler failed");
	} else if (length) {
		if (run.added >= 0) close(run.added);
		run.added = (int)syscall(SYS_memfd_create, "engine-plan", MFD_CLOEXEC);
		if (run.added < 0 || write(run.added, plan, length) != (ssize_t)length) failed = machine_fail(m, errno, "cannot hand over operations");
	}
	free(plan);
	return failed;
}

static int shim_clone_into(struct machine *m, int cgroup) {
	if (run.spawned) return machine_fail(m, EEXIST, "init is there already");
	run.cgroup = cgroup;
	return 0;
}

static int shim_enter_group(struct machine *m, const char *folder) {
	int failed = enter_cgroup(folder);
	return failed ? machine_fail(m, failed, "cannot enter the cgroup %s", folder) : 0;
}

static int shim_keep_namespaces(struct machine *m, pid_t pid) {
	static const char *const types[] = { "mnt", "net", "ipc" };
	for (int i = 0; i < 3; i++) {
		char path[64];
		snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, types[i]);
		if (run.kept[i] < 0) run.kept[i] = open(path, O_RDONLY | O_CLOEXEC);
		/* init has ended already: what it says of that counts */
		if (run.kept[i] < 0 && (errno == ENOENT || errno == ESRCH)) return 0;
		if (run.kept[i] < 0) return machine_fail(m, errno, "cannot keep namespace %s", types[i]);
	}
	return 0;
}

const struct host shim_host = {
	.warning = shim_warning,
	.stdio = shim_stdio,
	.spawn = shim_spawn,
	.clone_into = shim_clone_into,
	.enter_group = shim_enter_group,
	.await_point = shim_await_point,
	.release = shim_release,
	.barrier = shim_barrier,
	.keep_namespaces = shim_keep_namespaces,
	.hold_port = hold_port,
	.program_starts = inherit_nothing_child,
};
