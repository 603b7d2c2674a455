/* Mode `exec`: one session in a container whose shim is gone, by a process of its own that ends as soon as the program runs. */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static int fail(int error, const char *text) {
	run.failure = make_failure(PART_EXEC, error, "%s", text);
	run.failure.index = UINT32_MAX; /* of no operation */
	return error < 0 ? error : -error;
}

static int enter_stdio(struct machine *m, const struct op_stdio *o) {
	if (o->log_dir.n || !(o->flags & STDIO_TERMINAL) != !options.console || !(o->flags & STDIO_TERMINAL) == !(o->flags & STDIO_INHERIT))
		return machine_fail(m, EINVAL, "streams of a caller are inherited, or a terminal that it has a socket for");
	struct session *s = session_find(1);
	s->flags = o->flags;
	s->rows = (uint16_t)o->rows;
	s->cols = (uint16_t)o->cols;
	return 0;
}

static int enter_clone_into(struct machine *m, int cgroup) {
	(void)m;
	run.cgroup = cgroup;
	return 0;
}

/* Init, by what its shim has written. */
static int find_init(void) {
	struct session *init = run.init = session_new(0, 0, 0, 0);
	if (!init) return fail(ENOMEM, "no memory");
	init->pidfd = run_init(run.folder, &init->pid, &init->start_time);
	/* ended, and not waited for by its parent yet */
	struct pollfd p = { .fd = init->pidfd, .events = POLLIN };
	if (init->pidfd < 0 || poll(&p, 1, 0)) return fail(ESRCH, "the container is not running");
	init->started = true;
	if (!options.ignore_paused && cgroups_frozen(init->pid)) return fail(EBUSY, "the container is paused");
	return 0;
}

static int start(struct session **session) {
	static const struct host host = { .warning = NULL, .stdio = enter_stdio, .clone_into = enter_clone_into };
	const char *why = "";
	int failed = handover_check();
	if (!failed) failed = find_init();
	if (failed) return failed;
	failed = plan_open(&run.plan, run.plan_fd, &why);
	if (failed) return fail(failed, why);
	if (!exec_joins_first(&run.plan)) return fail(EINVAL, "the plan of a session must begin with joinContainer");
	struct session *s = *session = session_new(1, options.console ? STDIO_TERMINAL : STDIO_INHERIT, 0, 0);
	if (!s) return fail(ENOMEM, "no memory");
	machine_init(&run_machine, &host);
	failed = run_part(&run_machine, &run.plan, PART_SHIM, &run.failure);
	if (failed) return failed;
	failed = exec_spawn(s, &run.plan);
	return failed ? fail(failed, "cannot make a process") : 0;
}

int mode_exec(void) {
	struct session *s = NULL;
	run.folder = SHIM_FD_RUN_FOLDER;
	run.plan_fd = SHIM_FD_PLAN;
	if (events_open() || !watch_children()) return 1;
	struct client *control = client_add(SHIM_FD_CONTROL, true);
	if (!control) return 1;
	if (options.trace) trace_open();
	if (start(&s)) {
		uint8_t payload[16 + MAX_DETAIL];
		clients_broadcast(FRAME_FAILED, 0, 0, payload, failure_payload(&run.failure, payload));
		clients_drain();
		return 0;
	}
	session_want_exit(s, control);
	while (!s->started && !s->failed && clients_control()) {
		events_run(-1);
		clients_update();
	}
	/* a program that nobody has been told of; what has not become one dies with this process */
	if (!clients_control() || s->failed) session_signal(s, SIGKILL);
	clients_drain();
	return 0;
}
