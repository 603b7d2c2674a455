/* Modes `helper` and `host`: the helper part with no container, in a private mount namespace or in the caller's. */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static void helper_warning(struct machine *m, const struct failure *f) {
	(void)m;
	uint8_t payload[16 + MAX_DETAIL];
	clients_broadcast(FRAME_WARNING, 0, 0, payload, failure_payload(f, payload));
}

static const struct host helper_host = { .warning = helper_warning, .program_starts = inherit_nothing_child };

/* Whatever comes on the control socket, be it its end, ends the helper: the engine's journal undoes what it had done. */
static bool end_with_engine(void) {
	fcntl(SHIM_FD_CONTROL, F_SETOWN, getpid());
	fcntl(SHIM_FD_CONTROL, F_SETFL, O_RDWR | O_ASYNC);
	struct pollfd p = { .fd = SHIM_FD_CONTROL, .events = POLLIN };
	return poll(&p, 1, 0) == 0;
}

int mode_helper(bool own_mounts) {
	struct plan plan;
	const char *why = "";
	struct failure f;
	static struct machine m;
	/* in the caller's namespaces there is nothing to undo: a hook is not stopped half-way because nobody listens any more */
	if (events_open() || (own_mounts && !end_with_engine())) return 1;
	if (options.trace) trace_open();
	client_add(SHIM_FD_CONTROL, true);
	machine_init(&m, &helper_host);
	for (uint32_t i = 0; i < 8 && fcntl(SHIM_FD_FIRST_EXTRA + (int)i, F_GETFD) >= 0; i++) register_set_fd(&m, i, SHIM_FD_FIRST_EXTRA + (int)i);
	int failed = plan_open(&plan, SHIM_FD_PLAN, &why);
	if (failed) {
		f = make_failure(PART_HELPER, failed, "%s", why);
	} else if (own_mounts && (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))) {
		failed = -errno;
		f = make_failure(PART_HELPER, failed, "cannot make a private mount namespace");
	} else {
		failed = run_part(&m, &plan, PART_HELPER, &f);
	}
	trace_tell(clients_control());
	if (failed) {
		uint8_t payload[16 + MAX_DETAIL];
		clients_broadcast(FRAME_FAILED, 0, 0, payload, failure_payload(&f, payload));
		clients_broadcast(FRAME_ERROR, 0, (uint32_t)f.error, f.detail, (uint32_t)strlen(f.detail));
	} else {
		clients_broadcast(FRAME_OK, 0, 0, NULL, 0);
	}
	clients_drain();
	return 0;
}
