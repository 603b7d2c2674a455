/* The one loop: engined, the relay, signals and the caller's three files; nothing in it waits but the poll. */
#include "launcher.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define CHILDREN_MS 5000 /* for our children to end when all is said */
#define PATIENCE_MS 1000 /* for engined to end after a signal */

static uint8_t in[2 * CHUNK], out[2 * CHUNK];
struct conn engined = { .fd = -1, .in = in, .out = out };

static struct {
	int argc, folder;
	char **argv;
	int64_t asked_ns;
	uint32_t terminals;
	bool own; /* the other end is a process of ours */
	uint64_t wanted; /* bytes of standard input that engined takes */
	bool input_ended;
	bool done;
	uint32_t code;
	int dying; /* the signal that ends us when engined does not */
	int64_t deadline;
	int insisted; /* the last signal that was passed on */
	bool told_gone;
	int64_t parting; /* until then our children are waited for */
	bool afterwards; /* the awaited process has ended without engined, which had left words for that */
} state;

void finish(uint32_t code) {
	terminal_restore();
	for (int i = 0; i < 2; i++) {
		if (!sinks[i].error) continue;
		say("engine: cannot write to standard ", i ? "error" : "output", ": ", errno_text(sinks[i].error), NULL);
		if (!code) code = 1;
	}
	_exit((int)(code & 0xff));
}

static void end_by_signal(int number) {
	terminal_restore();
	signal_default(number);
	_exit(128 + number); /* only when it is no signal that ends anything */
}

/* -- what engined says -------------------------------------------------------------------------------------------------------- */

static bool streams(struct conn *c, const struct head *head, struct sink **sink) {
	(void)c;
	if (head->type != LAUNCH_OUTPUT && head->type != LAUNCH_ERROR) return false;
	*sink = &sinks[head->type == LAUNCH_ERROR];
	return true;
}

/* The rest of this command is with a process of our own. */
static void be_own(void) {
	conn_close(&engined);
	state.own = true;
	signals_children();
	conn_open(&engined, own_engine());
	if (!send_request(engined.fd, state.argc, state.argv, state.terminals)) die("its own process does not take the request", NULL);
}

static void become_local(const uint8_t *why, uint32_t length) {
	const char *level = variable("ENGINE_LOG_LEVEL");
	if (level && !strcmp(level, "debug")) {
		char text[512];
		uint32_t n = length < sizeof text ? length : sizeof text - 1;
		memcpy(text, why, n);
		text[n] = 0;
		say("engine: the resident engine does not do this one: ", text, NULL);
	}
	if (oci) {
		if (state.own) die("its own process does not take the request", NULL);
		be_own();
		return;
	}
	terminal_restore();
	signals_restore();
	run_local(state.argc, state.argv);
}

static void frame(struct conn *c, const struct head *head, const uint8_t *payload) {
	switch (head->type) {
	case LAUNCH_WANT: state.wanted += head->argument; break;
	case LAUNCH_RAW:
		if (!head->argument) terminal_restore();
		else if (terminal_raw()) signals_job_control();
		break;
	case LAUNCH_RELAY:
		if (!c->fd_count) die("the resident engine sent a relay without its connection", NULL);
		relay_begin(c->fds[0], head->argument, payload, head->length);
		memmove(c->fds, c->fds + 1, (size_t)--c->fd_count * sizeof *c->fds);
		break;
	case LAUNCH_BEGUN:
		relay_begun();
		await_begun();
		break;
	case LAUNCH_DONE:
		state.done = true;
		if (!state.afterwards) state.code = head->argument;
		break;
	case LAUNCH_SPAWN: spawn_child(c, head, payload); break;
	case LAUNCH_WAIT: await_begin(head->argument, payload, head->length); break;
	case LAUNCH_PIDFD: send_pidfd(head, payload); break;
	case LAUNCH_LOCAL: become_local(payload, head->length); break;
	default: break; /* of a later version, and nothing that must be understood */
	}
}

/* What is left of a process that has ended is seen to by another engine. */
static void begin_afterwards(char **words, uint32_t code) {
	int count = 0;
	while (words[count]) count++;
	char **argv = malloc(((size_t)count + 2) * sizeof *argv);
	if (!argv) die("out of memory", NULL);
	argv[0] = state.argv[0];
	memcpy(argv + 1, words, ((size_t)count + 1) * sizeof *words);
	state.argc = count + 1;
	state.argv = argv;
	state.code = code;
	state.afterwards = true;
	be_own();
}

/* -- signals ------------------------------------------------------------------------------------------------------------------ */

static void stop_and_continue(void) {
	bool was_raw = terminal_is_raw();
	terminal_restore();
	signal_default(SIGTSTP); /* here we stand until SIGCONT */
	if (was_raw) terminal_raw();
	relay_resize();
}

static void take_signal(int number) {
	if (number == SIGCHLD) {
		await_reap();
		return;
	}
	if (await_signal(number)) return;
	if (number == SIGWINCH) {
		uint16_t size[2];
		relay_resize();
		if (window_size(&size[0], &size[1])) conn_send(&engined, LAUNCH_RESIZE, 0, 0, size, sizeof size);
		return;
	}
	if (number == SIGTSTP) {
		stop_and_continue();
		return;
	}
	if (relay_passes_signals() && signal_forwardable(number)) {
		/* behind input that the session doesn't read it may wait for ever: who insists is let go */
		if (conn_unsent(&relay.conn) && state.insisted == number) end_by_signal(number);
		state.insisted = number;
		conn_send(&relay.conn, FRAME_SIGNAL, relay.session, (uint32_t)number, NULL, 0);
		return;
	}
	if (number == SIGCONT) {
		if (terminal_is_raw()) terminal_raw(); /* after a SIGSTOP, the shell has had it meanwhile */
		relay_resize();
		return;
	}
	if (!signal_ends(number)) { /* one that was forwarded, until the session ended */
		if (!signal_ignored(number)) end_by_signal(number);
		return;
	}
	if (signal_ignored(number)) return;
	/* as in its own process: nothing is to be undone that the session's shim would not do by itself */
	if ((relay.state == RELAY_ACTIVE && relay.begun) || engined.fd < 0 || engined.ended || state.dying == number) end_by_signal(number);
	conn_send(&engined, LAUNCH_SIGNAL, 0, (uint32_t)number, NULL, 0);
	if (!state.dying) {
		state.dying = number;
		state.deadline = now_ms() + PATIENCE_MS;
	}
}

/* -- input -------------------------------------------------------------------------------------------------------------------- */

static bool engined_takes_input(void) {
	return relay.state != RELAY_ACTIVE && state.wanted && !state.input_ended && !state.done && engined.fd >= 0 && !engined.ended && !conn_unsent(&engined);
}

static void take_input(void) {
	static uint8_t buffer[CHUNK / 2];
	bool to_relay = relay_takes_input();
	size_t size = sizeof buffer;
	if (!to_relay && state.wanted < size) size = state.wanted;
	ssize_t n = input_read(buffer, size);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
	if (n > 0 && to_relay) relay_input(buffer, (uint32_t)n);
	else if (n > 0) {
		state.wanted -= (uint64_t)n;
		conn_send(&engined, LAUNCH_INPUT, 0, 0, buffer, (uint32_t)n);
	} else if (to_relay) {
		relay_input_end();
	} else {
		state.input_ended = true;
		conn_send(&engined, LAUNCH_INPUT_END, 0, 0, NULL, 0);
	}
}

/* -- ends --------------------------------------------------------------------------------------------------------------------- */

/* Everything is said when the relay has ended: it brings the program's last output. */
static void end_when_ended(void) {
	/* nobody else will say that the session has begun: if it never does, its shim closes the relay */
	if (engined.ended) relay_begun();
	if (relay.state == RELAY_ACTIVE) return;
	if (conn_blocked(&engined) || sink_holds(&sinks[0]) || sink_holds(&sinks[1])) return;
	if (engined.ended && await_active()) {
		uint32_t code;
		int error;
		await_lost();
		if (!await_over(&code, &error)) return;
		terminal_restore();
		console_close();
		char **words = await_words();
		if (error) code = EXIT_OCI;
		say("engine-oci: the resident engine ended while the container ran", words ? "; another process deletes it" : ": what is left of it is undone by delete", NULL);
		if (!words) finish(code);
		begin_afterwards(words, code);
		return;
	}
	/* a shim ends a moment after its last word; our parent is not to find it as its own child */
	if (children_left() && (state.done || engined.ended)) {
		children_reap();
		if (!state.parting) state.parting = now_ms() + CHILDREN_MS;
		if (children_left() && now_ms() < state.parting) return;
	}
	/* ended by the signal: who waits for us is to see it as such, a shell leaves its loop by that */
	if (state.done && state.dying && state.code == 128u + (uint32_t)state.dying) end_by_signal(state.dying);
	if (state.done) finish(state.code);
	if (relay.exited && relay.bits & RELAY_FINAL && !relay.oom) {
		/* what engined has said before is to be seen, a warning for example */
		if (engined.fd >= 0 && !engined.ended) {
			conn_receive(&engined);
			if (conn_blocked(&engined) || sink_holds(&sinks[0]) || sink_holds(&sinks[1])) return;
		}
		finish(state.done ? state.code : relay.code);
	}
	if (engined.broken) die("the resident engine speaks another language: a frame is too long", NULL);
	if (!engined.ended) return;
	if (state.afterwards) {
		say("engine-oci: the process that was to delete the container ended: delete undoes what is left of it", NULL);
		finish(state.code);
	}
	if (state.dying) end_by_signal(state.dying);
	/* the container has outlived engined, and its answer is known */
	if (relay.exited) finish(relay.code);
	if (relay.detached) finish(0);
	/* a request that was not read has not begun: engined left just as we came */
	bool untouched = !engined.spoke && ((engined.reset && !engined.asked) || (oci ? oci_only_reads : only_reads)(state.argc, state.argv));
	if (oci && untouched && !state.own) {
		be_own();
		return;
	}
	if (untouched) signals_restore();
	engined_lost(state.own ? -1 : state.folder, state.argc, state.argv, untouched, state.asked_ns);
}

static void tell_gone(void) {
	if (!sinks[0].gone || state.told_gone || relay.state == RELAY_ACTIVE) return;
	state.told_gone = true;
	conn_send(&engined, LAUNCH_RELAYED, 0, 3, NULL, 0);
}

static short wish(const struct conn *c) { return (short)((conn_blocked(c) || c->ended || c->broken ? 0 : POLLIN) | (conn_unsent(c) ? POLLOUT : 0)); }
/* An fd with no wish is left out: its hang-up would wake us again and again. */
static int watched(const struct conn *c) { return wish(c) ? c->fd : -1; }

static void attend(struct conn *c, short events) {
	if (events & POLLOUT) conn_flush(c);
	if (c->fd >= 0 && events & (POLLIN | POLLHUP | POLLERR) && !conn_blocked(c) && !c->ended) conn_receive(c);
}

void serve(int fd, int folder, int argc, char **argv, uint32_t terminals, int64_t asked_ns) {
	enum { SIGNALS, ENGINED, RELAY, INPUT, OUTPUT, ERROR, CONSOLE, COUNT };
	state.argc = argc;
	state.argv = argv;
	state.folder = folder;
	state.asked_ns = asked_ns;
	state.terminals = terminals;
	state.own = oci && folder < 0;
	conn_open(&engined, fd);
	engined.frame = frame;
	engined.streams = streams;
	struct pollfd polled[COUNT];
	polled[SIGNALS].fd = signals_open(terminals & TERMINALS_STDOUT);
	if (state.own) signals_children();
	for (;;) {
		if (!engined.ended) await_tell();
		end_when_ended();
		tell_gone();
		bool input = console_takes_input() || relay_takes_input() || engined_takes_input();
		polled[SIGNALS].events = POLLIN;
		polled[ENGINED] = (struct pollfd){ .fd = watched(&engined), .events = wish(&engined) };
		polled[RELAY] = (struct pollfd){ .fd = watched(&relay.conn), .events = wish(&relay.conn) };
		polled[INPUT] = (struct pollfd){ .fd = input ? 0 : -1, .events = POLLIN };
		for (int i = 0; i < 2; i++) polled[OUTPUT + i] = (struct pollfd){ .fd = sinks[i].full || sink_holds(&sinks[i]) ? sinks[i].write_fd : -1, .events = POLLOUT };
		polled[CONSOLE] = console_poll();
		int64_t left = state.dying ? state.deadline - now_ms() : -1;
		if (state.dying && left <= 0) end_by_signal(state.dying);
		if (state.parting && left < 0) left = 10;
		if (console_hung() && left < 0) left = 50;
		if (poll(polled, COUNT, (int)left) < 0) continue;
		for (int number; polled[SIGNALS].revents && (number = signals_next());) take_signal(number);
		for (int i = 0; i < 2; i++) {
			if (!polled[OUTPUT + i].revents) continue;
			sinks[i].writable = true;
			sink_flush(&sinks[i]);
			sinks[i].full = false; /* whoever still has something for it says so again */
			console_read();
			conn_handle(&relay.conn);
			conn_handle(&engined);
		}
		if (polled[RELAY].revents && relay.conn.fd >= 0) attend(&relay.conn, polled[RELAY].revents);
		if (relay.conn.ended || relay.conn.broken) relay_closed();
		/* engined has kept the signal for the session, which does with it what it likes */
		if (state.dying && relay_passes_signals()) state.dying = 0;
		if (polled[CONSOLE].revents) console_attend(polled[CONSOLE].revents);
		if (polled[ENGINED].revents) attend(&engined, polled[ENGINED].revents);
		if (polled[INPUT].revents && console_takes_input()) console_input();
		else if (polled[INPUT].revents && (relay_takes_input() || engined_takes_input())) take_input();
	}
}
