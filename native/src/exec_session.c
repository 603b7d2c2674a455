/* exec: a child joins init's cgroups and namespaces and runs the exec part of a plan that a client has sent. */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define REMEMBERED 32
static struct { uint16_t id; int code; } ended[REMEMBERED];
static unsigned ended_at;

int exec_ended(uint16_t id) {
	for (unsigned i = 1; i <= REMEMBERED; i++) /* newest first: ids may be used again */
		if (id && ended[(ended_at + REMEMBERED - i) % REMEMBERED].id == id) return ended[(ended_at + REMEMBERED - i) % REMEMBERED].code;
	return -1;
}

static void refuse(struct client *c, uint16_t id, int error, const char *text) {
	struct failure f = make_failure(PART_EXEC, error, "%s", text);
	uint8_t payload[16 + MAX_DETAIL];
	uint32_t length = failure_payload(&f, payload);
	client_drop_relay(c);
	client_send(c, FRAME_FAILED, id, 0, payload, length);
}

bool exec_joins_first(const struct plan *plan) {
	struct plan_cursor at = plan_start(plan, PART_EXEC);
	struct operation op;
	return !plan_next(plan, &at, &op) && op.code == OP_JOIN_CONTAINER;
}

static void tell(struct session *s, uint32_t type, uint32_t argument, const void *payload, uint32_t length) {
	for (struct attachment *a = s->attachments, *next; a; a = next) {
		next = a->next;
		if (a->wants_exit && (type == FRAME_EXIT || !client_is_relay(a->client))) client_send(a->client, type, options.hand_over ? 0 : s->id, argument, payload, length);
	}
}

/* Its program will not run; what it has said itself of that counts. */
static void give_up(struct session *s, const char *why) {
	uint8_t payload[16 + MAX_DETAIL];
	struct failure lost = make_failure(PART_EXEC, ECHILD, "the session ended before its program was started%s", why);
	uint32_t length = failure_payload(s->failed ? &run.failure : &lost, payload);
	s->failed = true;
	tell(s, FRAME_FAILED, 0, payload, length);
	source_close(&s->sync);
}

/* Who was killed before it could name the process it has made leaves that waiting, with the other end of the socket: only its own end tells. */
void exec_joiner_ended(pid_t pid, int status) {
	struct session *s = sessions;
	while (s && s->joiner != pid) s = s->next;
	if (!s) return;
	s->joiner = 0;
	if (s->sync.fd < 0) return;
	/* what it had said before counts */
	for (int i = 0; i < 64 && s->pid <= 0 && !s->failed && session_message(s, 0); i++) {}
	if (s->pid <= 0) give_up(s, WIFSIGNALED(status) ? ": it was killed (a memory limit may be too small)" : "");
}

static void sync_ready(struct source *source, uint32_t events) {
	(void)events;
	struct session *s = sessions;
	while (s && &s->sync != source) s = s->next;
	if (!s) return;
	if (session_message(s, 0) && !s->failed) return;
	if (s->failed || !s->about_to_exec) return give_up(s, "");
	s->started = true;
	uint32_t length;
	const void *entries = trace_take(&length);
	if (entries) tell(s, FRAME_TRACE, 0, entries, length);
	tell(s, FRAME_STARTED, (uint32_t)s->pid, &s->start_time, 8);
}

int exec_spawn(struct session *s, const struct plan *plan) {
	int sockets[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets)) return errno;
	int failed = session_pipes(s);
	/* a write to cgroup.procs costs a grace period; where the group takes no child so (threaded, EBUSY), the child's own joining says why */
	int cgroup = failed || run.cgroup >= 0 ? -1 : cgroup_to_be_born_in(run.init->pid);
	pid_t pid = failed ? -1 : clone_process(0, NULL, run.cgroup >= 0 ? run.cgroup : cgroup);
	if (!failed && pid < 0 && cgroup >= 0) pid = clone_process(0, NULL, -1);
	if (!failed && pid < 0) failed = errno;
	if (cgroup >= 0) close(cgroup);
	if (!pid) {
		close(sockets[0]);
		child_begin(s, sockets[1]);
		/* what the shim has opened for a session of its own goes along */
		if (!options.hand_over) memset(&run_machine, 0, sizeof run_machine);
		if (!options.hand_over) machine_init(&run_machine, &child_host);
		run_machine.host = &child_host;
		child_run(sockets[1], &run_machine, plan, PART_EXEC);
	}
	close(sockets[1]);
	if (failed) {
		close(sockets[0]);
		return failed;
	}
	session_close_child_fds(s);
	s->joiner = pid;
	s->sync.fd = sockets[0];
	s->sync.ready = sync_ready;
	source_want(&s->sync, EPOLLIN);
	return 0;
}

void exec_start(struct client *c, uint16_t id, uint32_t flags, uint8_t *bytes, uint32_t size) {
	if (!run.init->started || run.init->exited) return refuse(c, id, ESRCH, "the container is not running");
	if (!id || session_find(id)) return refuse(c, id, EEXIST, "the session number is in use");
	if (cgroups_frozen(run.init->pid)) return refuse(c, id, EBUSY, "the container is paused");
	struct plan plan;
	const char *why = "";
	int failed = plan_load(&plan, bytes, size, &why);
	if (failed) return refuse(c, id, -failed, why);
	if (!exec_joins_first(&plan)) return refuse(c, id, EINVAL, "the plan of a session must begin with joinContainer");
	struct session *s = session_new(id, flags, 0, 0);
	failed = s ? exec_spawn(s, &plan) : ENOMEM;
	if (failed) {
		if (s) session_free(s);
		return refuse(c, id, failed, "cannot make a process");
	}
	session_attach(s, c, flags);
}

ONCE static void session_over(struct session *s) {
	int code = exit_code(s->status);
	char text[64];
	int n = snprintf(text, sizeof text, "{\"code\":%d,\"signal\":%d}", code, WIFSIGNALED(s->status) ? WTERMSIG(s->status) : 0);
	ended[ended_at % REMEMBERED].id = s->id;
	ended[ended_at % REMEMBERED].code = code;
	ended_at++;
	tell(s, FRAME_EXIT, (uint32_t)code, text, (uint32_t)n);
}

HOT void exec_update(void) {
	for (struct session *s = sessions, *next; s; s = next) {
		next = s->next;
		if (!s->id) continue;
		if (s->failed) {
			if (s->pidfd >= 0 && !s->exited) session_signal(s, SIGKILL);
			if (s->pid <= 0 || s->exited) session_free(s);
			continue;
		}
		if (!session_drained(s) || s->sync.fd >= 0) continue;
		session_over(s);
		session_free(s);
	}
}
