/*
 * Mode `pool`: a sandbox that was made before anybody asked for it. Part `shim` but for the streams, the stage and the first operations of init are run by a
 * plan that was guessed; then all wait for the real one, which must begin in the same way.
 */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys.h"

static struct { bool waiting, there; uint32_t length; uint8_t *plan; } next;

static bool is_late(const struct operation *op) { return op->slot == SLOT_SHIM_STARTED; }
static bool is_early(const struct operation *op) { return op->code != OP_STDIO && !is_late(op); }
static bool is_stdio(const struct operation *op) { return op->code == OP_STDIO; }
static bool is_any(const struct operation *op) { (void)op; return true; }
static bool is_late_but_stdio(const struct operation *op) { return is_late(op) && !is_stdio(op); }

/* Does init open its terminal before it waits? */
static bool terminal_is_common(void) {
	struct plan_cursor at = plan_start(&run.plan, PART_INIT);
	struct operation op;
	for (uint32_t n = 0; n < options.common && !plan_next(&run.plan, &at, &op); n++)
		if (op.code == OP_TERMINAL) return true;
	return false;
}

/* Are the wanted operations of a part, the first `count`, the same in both? Where they stand in their plans (index, origin) does not matter. */
static bool same(const struct plan *a, const struct plan *b, enum part part, bool (*wanted)(const struct operation *), uint32_t count) {
	struct plan_cursor at[2] = { plan_start(a, part), plan_start(b, part) };
	for (uint32_t n = 0; n < count; n++) {
		struct operation op[2];
		bool over[2];
		for (int i = 0; i < 2; i++)
			do over[i] = plan_next(i ? b : a, &at[i], &op[i]);
			while (!over[i] && !wanted(&op[i]));
		if (over[0] || over[1]) return over[0] == over[1] && count == UINT32_MAX;
		size_t size = (size_t)(op[0].fields.end - op[0].fields.p);
		if (op[0].code != op[1].code || op[0].flags != op[1].flags || op[0].slot != op[1].slot || op[0].length != op[1].length ||
		    memcmp(op[0].fields.p, op[1].fields.p, size))
			return false;
	}
	return true;
}

bool pool_resume(uint32_t length, uint8_t *plan) {
	if (!next.waiting || next.there) return false;
	next.there = true;
	next.length = length;
	next.plan = plan;
	return true;
}

bool pool_has_plan(void) { return next.there; }

static int fail(int error, const char *text) {
	run.failure = make_failure(PART_SHIM, error, "%s", text);
	run.has_failure = true;
	return -error;
}

static int prepare(struct failure *f) {
	/* of the streams only so much is known; the rest is settled when the plan comes */
	run.init->flags = STDIO_STDIN | (terminal_is_common() ? STDIO_TERMINAL : 0);
	const struct selection early = { .limit = UINT32_MAX, .wanted = is_early };
	int failed = run_some(&run_machine, &run.plan, PART_SHIM, &early, f);
	if (failed) return failed;
	if (!run.spawned) return fail(ENOEXEC, "the plan has no spawn operation");
	while (!run.prepared) {
		if (!session_message(run.init, -1)) return init_lost(NULL, "before it was prepared");
		if (run.has_failure) return -run.failure.error;
	}
	return 0;
}

static int wait_for_plan(void) {
	test_halt("record", "prepared", "before");
	clients_broadcast(FRAME_PREPARED, 0, (uint32_t)run.init->pid, NULL, 0);
	test_halt("record", "prepared", "after");
	give_back_stack();
	next.waiting = true;
	while (!next.there) {
		clients_update();
		if (!clients_control()) return fail(EPIPE, "the engine is gone");
		if (init_is_lost()) return init_lost(NULL, "while it waited for its plan");
		events_run(-1);
	}
	next.waiting = false;
	return 0;
}

/* The new plan as a memfd, which is at fd 6 from now on and goes to init as well. */
static int take_plan(void) {
	struct plan plan;
	const char *why = "no memory for a plan";
	int fd = (int)syscall(SYS_memfd_create, "engine-plan", MFD_CLOEXEC);
	int failed = fd < 0 || write(fd, next.plan, next.length) != (ssize_t)next.length ? -errno : plan_open(&plan, fd, &why);
	free(next.plan);
	next.there = false;
	if (failed) return fail(-failed, why);
	if (!same(&run.plan, &plan, PART_SHIM, is_early, UINT32_MAX) || !same(&run.plan, &plan, PART_STAGE, is_any, UINT32_MAX) ||
	    !same(&run.plan, &plan, PART_INIT, is_any, options.common))
		return fail(EINVAL, "the plan begins otherwise than what was prepared");
	plan_close(&run.plan);
	run.plan = plan;
	if (dup3(fd, run.plan_fd, O_CLOEXEC) < 0) return fail(errno, why);
	close(fd);
	return 0;
}

int pool_start(struct failure *f) {
	int failed = prepare(f);
	if (!failed) failed = wait_for_plan();
	if (failed) return failed;
	bool terminal = run.init->flags & STDIO_TERMINAL;
	test_halt("record", "resume", "before");
	failed = take_plan();
	if (failed) return failed;
	run.resumed = true;
	const struct selection streams = { .limit = UINT32_MAX, .wanted = is_stdio }, late = { .limit = UINT32_MAX, .wanted = is_late_but_stdio };
	failed = run_some(&run_machine, &run.plan, PART_SHIM, &streams, f);
	if (failed) return failed;
	failed = session_settle(run.init, terminal);
	if (failed) return fail(failed, "the streams do not fit what was prepared");
	failed = sync_send(run.init->sync.fd, SYNC_PLAN, 0, NULL, run.plan_fd);
	if (failed) return init_lost(NULL, "as its plan came");
	test_halt("record", "resume", "after");
	return run_some(&run_machine, &run.plan, PART_SHIM, &late, f);
}
