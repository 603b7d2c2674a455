/* What clients ask for. */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static void refuse(struct client *c, uint16_t session, int error, const char *text) {
	client_send(c, FRAME_ERROR, session, (uint32_t)error, text, (uint32_t)strlen(text));
}

/* The answer to a barrier, until control_wait takes it. */
static struct { bool there; uint32_t argument, length; uint8_t *payload; } reply;

static void answer_exit(struct client *c, uint16_t id) {
	struct session *s = session_find(id);
	if (s) {
		session_want_exit(s, c);
		return;
	}
	int code = exec_ended(id);
	if (code < 0) refuse(c, id, ESRCH, "no such session");
	else client_send(c, FRAME_EXIT, id, (uint32_t)code, NULL, 0);
}

static void answer_state(struct client *c) {
	char buffer[4096];
	struct text t = { buffer, sizeof buffer, 0 };
	const struct session *init = run.init;
	text_add(&t, "{\"pid\":%d,\"startTime\":%llu,\"paused\":%s,\"sessions\":[", init->exited ? 0 : init->pid,
		(unsigned long long)init->start_time, init->pid && cgroups_frozen(init->pid) ? "true" : "false");
	bool first = true;
	for (const struct session *s = sessions; s; s = s->next) {
		if (!s->id || !s->started || t.size - t.used < 128) continue;
		text_add(&t, "%s{\"session\":%u,\"pid\":%d}", first ? "" : ",", s->id, s->pid);
		first = false;
	}
	text_add(&t, "],\"dropped\":%llu}", (unsigned long long)log_dropped());
	client_send(c, FRAME_STATE_REPLY, 0, 0, buffer, (uint32_t)t.used);
}

/* A relay speaks for its own session alone, and changes nothing but it. */
static bool relay_may(struct client *c, const struct session *s, uint16_t type) {
	if (type != FRAME_STDIN_EOF && type != FRAME_RESIZE && type != FRAME_SIGNAL && type != FRAME_DETACH && type != FRAME_WAIT) return false;
	return s ? session_has(s, c) : type == FRAME_WAIT;
}

static void adopt(struct client *c) {
	int fd = client_take_fd(c);
	int failed = fd < 0 ? EBADF : client_adopt(c, fd);
	if (failed) refuse(c, 0, failed, "cannot adopt this client");
}

void request(struct client *c, const struct frame_head *head, uint8_t **payload) {
	struct session *s = session_find(head->session);
	int failed = 0;
	if (client_is_relay(c) && !relay_may(c, s, head->type)) {
		refuse(c, head->session, s ? EPERM : ESRCH, "not for this client");
		return;
	}
	switch (head->type) {
	case FRAME_ADOPT:
		adopt(c);
		return;
	case FRAME_EXEC:
		exec_start(c, head->session, head->argument, *payload, head->length);
		return;
	case FRAME_WAIT:
		answer_exit(c, head->session);
		return;
	case FRAME_STATE:
		answer_state(c);
		return;
	case FRAME_AMEND:
		/* the plan is opened by its name when it is needed, so there is nothing to do but to say that we live */
		client_send(c, FRAME_OK, 0, 0, NULL, 0);
		return;
	case FRAME_BARRIER_REPLY:
		if (reply.there || c != clients_control()) return;
		reply.there = true;
		reply.argument = head->argument;
		reply.length = head->length;
		reply.payload = *payload;
		*payload = NULL;
		return;
	case FRAME_RESUME:
		if (c == clients_control() && pool_resume(head->length, *payload)) *payload = NULL;
		else refuse(c, 0, EINVAL, "nothing waits for a plan");
		return;
	case FRAME_STDIN: case FRAME_STDIN_EOF: case FRAME_DETACH: case FRAME_ATTACH: case FRAME_RESIZE: case FRAME_SIGNAL:
		break;
	default:
		refuse(c, head->session, EPROTO, "unknown frame");
		return;
	}
	if (!s) {
		if (head->type == FRAME_ATTACH) client_drop_relay(c);
		refuse(c, head->session, ESRCH, "no such session");
		return;
	}
	if (head->type == FRAME_ATTACH) {
		session_attach(s, c, head->argument);
	} else if (head->type == FRAME_DETACH) {
		session_detach(s, c, false);
	} else if (head->type == FRAME_STDIN_EOF) {
		session_input_eof(s);
	} else if (head->type == FRAME_SIGNAL) {
		if (s == run.init && !s->started && head->argument != SIGKILL && head->argument < 64) s->early_signals |= 1ull << head->argument;
		else failed = session_signal(s, (int)head->argument);
		/* a frozen v1 task does not die; the signal is pending, so no instruction of the user's runs any more */
		if (!failed && head->argument == SIGKILL && s == run.init) cgroups_thaw(s->pid);
	} else if (head->type == FRAME_RESIZE && head->length >= 4) {
		uint16_t size[2];
		memcpy(size, *payload, 4);
		failed = session_resize(s, size[0], size[1]);
	}
	if (failed) refuse(c, head->session, failed, strerror(failed));
}

void request_client_gone(struct client *c) {
	for (struct session *s = sessions; s; s = s->next) session_detach(s, c, true);
}

int control_wait(int64_t deadline, uint32_t *argument, uint8_t **payload, uint32_t *length) {
	while (!reply.there) {
		int64_t left = deadline - now_ms();
		clients_update();
		if (!clients_control()) return EPIPE;
		if (init_is_lost()) return ECHILD;
		if (left <= 0) return ETIMEDOUT;
		events_run(left > 1000 ? 1000 : (int)left);
	}
	*argument = reply.argument;
	*payload = reply.payload;
	*length = reply.length;
	reply.there = false;
	reply.payload = NULL;
	return 0;
}
