/* The caller as a client of a shim: the session's streams, without engined in between. */
#include "launcher.h"

#include <sys/socket.h>
#include <unistd.h>

static uint8_t in[2 * CHUNK], out[2 * CHUNK];
struct relay relay = { .conn = { .fd = -1, .in = in, .out = out } };

/* It is over, for this reason: engined hears it, and says what is to be done. */
static void end(uint32_t why) {
	relay.state = RELAY_ENDED;
	conn_close(&relay.conn);
	terminal_restore();
	conn_send(&engined, LAUNCH_RELAYED, 0, why, NULL, 0);
}

static bool contains(const uint8_t *p, uint32_t n, const char *text) { return memmem(p, n, text, strlen(text)) != NULL; }

/* From now on it is the session's: the terminal, the input, the signals. */
static void session_begins(void) {
	relay.begun = true;
	if (relay.bits & RELAY_TERMINAL && relay.bits & RELAY_STDIN && terminal_raw()) signals_job_control();
	else if (relay.bits & RELAY_SIGNALS) signals_forward();
}

static bool streams(struct conn *c, const struct head *head, struct sink **sink) {
	(void)c;
	if (!relay.begun && (head->type == FRAME_OUTPUT || head->type == FRAME_STARTED)) session_begins();
	if (head->type != FRAME_OUTPUT) return false;
	*sink = head->session != relay.session ? NULL : head->argument == 2 ? &sinks[1] : &sinks[0];
	return true;
}

static void frame(struct conn *c, const struct head *head, const uint8_t *payload) {
	(void)c;
	if (head->type == FRAME_CUT_OFF) {
		end(4);
		return;
	}
	if (head->type != FRAME_EXIT || head->session != relay.session) return; /* engined has its own started, failed, warning */
	relay.exited = true;
	relay.code = head->argument;
	relay.oom = contains(payload, head->length, "\"oom\":{\"killed\":true");
	end(0);
}

void relay_begin(int fd, uint32_t bits, const uint8_t *payload, uint32_t length) {
	uint32_t session = 0, keys = 0;
	if (length >= 4) memcpy(&session, payload, 4);
	if (length >= 8) memcpy(&keys, payload + 4, 4);
	if (length < 8 || keys > length - 8 || keys > sizeof relay.keys || session > 0xffff) die("the resident engine sent a relay that can't be understood", NULL);
	conn_close(&relay.conn);
	conn_open(&relay.conn, fd);
	relay.conn.frame = frame;
	relay.conn.streams = streams;
	relay.conn.impatient = true;
	relay.state = RELAY_ACTIVE;
	relay.bits = bits;
	relay.session = (uint16_t)session;
	memcpy(relay.keys, payload + 8, keys);
	relay.key_count = bits & RELAY_TERMINAL ? keys : 0;
	relay.matched = 0;
	relay.begun = relay.input_ended = relay.exited = relay.oom = relay.detached = relay.lost = false;
	if (bits & RELAY_TERMINAL) relay_resize();
	if (!(bits & RELAY_EARLY)) session_begins();
}

void relay_begun(void) {
	if (relay.state == RELAY_ACTIVE && !relay.begun) session_begins();
}

/* In raw mode the keys are bytes; a signal is meant for us then. */
bool relay_passes_signals(void) { return relay.state == RELAY_ACTIVE && relay.begun && relay.bits & RELAY_SIGNALS && !terminal_is_raw(); }

bool relay_takes_input(void) { return relay.state == RELAY_ACTIVE && relay.begun && relay.bits & RELAY_STDIN && !relay.input_ended && !relay.conn.mute && !conn_unsent(&relay.conn); }

void relay_input(const uint8_t *p, uint32_t n) {
	static uint8_t pass[CHUNK / 2 + sizeof relay.keys];
	uint32_t length = 0;
	if (!relay.key_count) {
		conn_send(&relay.conn, FRAME_STDIN, relay.session, 0, p, n);
		return;
	}
	/* as DetachScanner: what may become the sequence is held back until that is decided */
	bool detach = false;
	for (uint32_t i = 0; i < n && !detach; i++) {
		if (p[i] == relay.keys[relay.matched]) {
			detach = ++relay.matched == relay.key_count;
			continue;
		}
		memcpy(pass + length, relay.keys, relay.matched);
		length += relay.matched;
		relay.matched = p[i] == relay.keys[0] ? 1 : 0;
		if (!relay.matched) pass[length++] = p[i];
	}
	if (length) conn_send(&relay.conn, FRAME_STDIN, relay.session, 0, pass, length);
	if (!detach) return;
	relay.detached = true;
	conn_send(&relay.conn, FRAME_DETACH, relay.session, 0, NULL, 0);
	end(1);
}

void relay_input_end(void) {
	relay.input_ended = true;
	if (relay.bits & RELAY_END_INPUT) conn_send(&relay.conn, FRAME_STDIN_EOF, relay.session, 0, NULL, 0);
}

void relay_resize(void) {
	uint16_t size[2];
	if (relay.state != RELAY_ACTIVE || !(relay.bits & RELAY_TERMINAL) || !window_size(&size[0], &size[1])) return;
	conn_send(&relay.conn, FRAME_RESIZE, relay.session, 0, size, sizeof size);
}

void relay_closed(void) {
	if (relay.state != RELAY_ACTIVE) return;
	relay.lost = true;
	end(2);
}
