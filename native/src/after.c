/* The undo: at the end of a run, and in mode `undo` for a shim that died. */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static char text_buffer[8192];
static struct text undone = { text_buffer, sizeof text_buffer, 0 };
static uint32_t failures;

static void report(const struct failure *f) {
	uint8_t payload[16 + MAX_DETAIL];
	clients_broadcast(FRAME_WARNING, 0, 0, payload, failure_payload(f, payload));
}

static void undo_warning(struct machine *m, const struct failure *f) {
	(void)m;
	report(f);
}

static void undo_failed(struct machine *m, const struct failure *f) {
	(void)m;
	report(f);
	if (undone.size - undone.used > 1024) {
		text_add(&undone, "%s{\"index\":%u,\"errno\":%d,\"detail\":", failures ? "," : "", f->index, f->error);
		text_json_string(&undone, f->detail);
		text_add(&undone, "}");
	}
	failures++;
}

static struct memory_truth *truth;

static int undo_memory(struct machine *m, const struct memory_events *e) {
	(void)m;
	if (!truth || e->oom_kill <= 0) return 0;
	truth->killed = true;
	truth->limit_bytes = e->limit;
	truth->peak = e->peak;
	/* which of v1's limits was hit: the one that has failed, where only one has */
	if (e->version == 1 && e->failcnt <= 0 && e->kmem_failcnt > 0) truth->limit = "kernel memory";
	else if (e->version == 1 && e->failcnt <= 0 && e->memsw_failcnt > 0) truth->limit = "memory and swap";
	return 0;
}

static const struct host undo_host = { .warning = undo_warning, .undo_failed = undo_failed, .memory_events = undo_memory };
static const struct host quiet_host = { .memory_events = undo_memory };

/* The plan as it is now: it may have been amended since the start. */
static int open_plan(struct plan *plan, int folder, int fallback, const char **why) {
	int fd = folder >= 0 ? openat(folder, "plan", O_RDONLY | O_CLOEXEC) : -1;
	int result = fd < 0 ? -errno : plan_open(plan, fd, why);
	if (fd >= 0) close(fd);
	if (result && fallback >= 0) result = plan_open(plan, fallback, why);
	return result;
}

void memory_truth(int folder, int fallback, struct memory_truth *result) {
	struct plan plan;
	const char *why;
	if (open_plan(&plan, folder, fallback, &why)) return;
	static struct machine m;
	machine_init(&m, &quiet_host);
	truth = result;
	struct operation op;
	for (struct plan_cursor at = plan_start(&plan, PART_AFTER), here = at; !plan_next(&plan, &at, &op); here = at) {
		if (op.code != OP_MEMORY_EVENTS) continue;
		struct plan one = plan;
		one.parts[PART_AFTER].offset = here.offset;
		one.parts[PART_AFTER].count = 1;
		run_part(&m, &one, PART_AFTER, NULL);
	}
	truth = NULL;
	machine_close(&m);
	plan_close(&plan);
}

uint32_t run_after(int folder, int fallback) {
	struct plan plan;
	const char *why = "";
	static struct machine m;
	text_add(&undone, "{\"failures\":[");
	int failed = open_plan(&plan, folder, fallback, &why);
	if (failed) {
		struct failure f = make_failure(PART_AFTER, failed, "%s", why);
		undo_failed(NULL, &f);
	} else {
		machine_init(&m, &undo_host);
		run_part(&m, &plan, PART_AFTER, NULL);
		machine_close(&m);
		plan_close(&plan);
	}
	text_add(&undone, "]}");
	test_halt("record", "undone", "before");
	if (folder >= 0) run_file_write(folder, "undone", undone.p, undone.used);
	test_halt("record", "undone", "after");
	return failures;
}

/* Init of a shim that was killed (PDEATHSIG has seen to it, unless the program changed its credentials), or that was handed over. */
static void kill_left_over(int folder) {
	pid_t pid;
	uint64_t start_time;
	int pidfd = run_init(folder, &pid, &start_time);
	if (pidfd < 0) return;
	syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	poll(&p, 1, 5000);
	close(pidfd);
}

int mode_undo(void) {
	if (events_open()) return 1;
	if (options.trace) trace_open();
	client_add(SHIM_FD_CONTROL, true);
	kill_left_over(SHIM_FD_RUN_FOLDER);
	uint32_t failed = run_after(SHIM_FD_RUN_FOLDER, SHIM_FD_PLAN);
	trace_tell(clients_control());
	if (failed) clients_broadcast(FRAME_ERROR, 0, EREMOTEIO, "something could not be undone", 29);
	else clients_broadcast(FRAME_OK, 0, 0, NULL, 0);
	clients_drain();
	close(SHIM_FD_LOCK);
	clients_close_all();
	return 0;
}
