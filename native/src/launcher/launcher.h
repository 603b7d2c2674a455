/*
 * The launcher (`bin/engine`, and `bin/engine-oci` with the command line of an OCI runtime): hands a command to the resident engine and relays, or runs it with Node in its own process.
 * Every command pays for it: no stdio, no allocator, no locale; nothing is done before it is needed.
 */
#ifndef ENGINE_LAUNCHER_H
#define ENGINE_LAUNCHER_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "../gen/launch.h"

#define FRAME_HEAD 12
#define CHUNK (64u << 10)
/* exit code of the engine's own failures, as Docker's; as an OCI runtime, as runc's */
#define EXIT_ENGINE 125
#define EXIT_OCI 1

extern char **environ;

/* -- text.c -- */
/* Parts up to NULL, as one line on standard error. */
void say(const char *part, ...) __attribute__((sentinel));
/* The same, with "engine: " (or "engine-oci: ") before it, and exit code 125 (or 1). The terminal is put back first. */
void die(const char *part, ...) __attribute__((sentinel, noreturn));
/* Decimal; the result ends at the end of `to` (21 bytes) and begins at what is returned. */
char *decimal(uint64_t value, char to[21]);
const char *errno_text(int number);
int64_t now_ms(void);
/* Of the environment; NULL when unset or empty. */
const char *variable(const char *name);
/* `a` + `b` + `c` into `to` (PATH_MAX); false when it is too long. */
bool join(char *to, const char *a, const char *b, const char *c);
/* A file of `folder`, at most size - 1 bytes, as text. -1 or its length. */
ssize_t read_text(int folder, const char *path, char *to, size_t size);

/* -- paths.c -- */
/* The folder that bin/ lies in. */
const char *home_folder(void);
/* Where engined listens: an absolute folder and a name. False: nowhere (no XDG_RUNTIME_DIR). */
struct place { char folder[PATH_MAX]; const char *name; };
bool engined_place(struct place *place);
/* True when folder and socket are ours or root's and nobody else can exchange them; `why` says what not. `folder`: an O_PATH fd. */
bool trusted_folder(int folder, const char **why);
bool trusted_socket(int folder, const char *name, const char **why);
struct sockaddr_un;
/* Address of a name in a folder; longer ones than sun_path go through /proc/self/fd. Returns the length for bind and connect. */
unsigned socket_address(struct sockaddr_un *address, const char *path, int folder, const char *name);

/* -- oci.c -- */
/* Are we an OCI runtime? */
extern bool oci;
bool called_oci(const char *word);
bool oci_only_reads(int argc, char **argv);
/* Fork Node, which serves one connection: our end of it. */
int own_engine(void);

/* -- connect.c -- */
/* A connection with a unix socket of the caller's; -errno. */
int connect_path(const char *path);
/* A connection with an engined of our own uid or root; -1, and `why`. `folder`: the socket's, an O_PATH fd that stays open. */
int connect_engined(const struct place *place, int *folder, const char **why);

/* -- words.c -- */
/* Index of the verb behind the global flags, argc when there is none; `no_daemon`: is --no-daemon among them? */
int find_verb(int argc, char **argv, bool *no_daemon);
/* Does the verb only look? Then it can be done again. */
bool only_reads(int argc, char **argv);

/* -- request.c -- */
/* Send it. False when this process's namespaces can't be read, or engined doesn't take it. */
bool send_request(int fd, int argc, char **argv, uint32_t terminals);

/* -- terminal.c -- */
/* Bits of TERMINALS: which of fds 0 to 2 is one. */
uint32_t terminals_now(void);
bool terminal_raw(void);
void terminal_restore(void);
bool terminal_is_raw(void);
/* Of standard output; false when it is no terminal. */
bool window_size(uint16_t *rows, uint16_t *columns);

/* -- sink.c -- */
/* Standard output and standard error, written without ever waiting in write(2). */
struct sink {
	int fd, write_fd;
	uint8_t kind;
	bool known, gone, full;
	bool writable; /* the poll has just said so */
	int error; /* why it is gone, when it isn't that nobody reads */
	uint8_t *held; /* what could not be written yet: from start to end */
	size_t start, end, size;
};
extern struct sink sinks[2];
bool sink_holds(const struct sink *sink);
/* Write what is held, as far as that goes. */
void sink_flush(struct sink *sink);
/* Bytes taken; 0: it is full, wait until it is writable. What nobody reads any more is taken and dropped. */
size_t sink_write(struct sink *sink, const uint8_t *p, size_t n, bool may_hold);
/* As read(2) of standard input, but -1 with EAGAIN when somebody else was faster than us. */
ssize_t input_read(uint8_t *to, size_t size);

/* -- conn.c -- */
struct head { uint32_t length; uint16_t type, session; uint32_t argument; };
struct conn {
	int fd; /* -1: closed */
	uint8_t *in, *out; /* 2 * CHUNK each */
	uint32_t start, end;         /* of what was received */
	uint32_t out_start, out_end; /* of what is to be sent */
	uint32_t body;               /* bytes of a frame that go to `sink` */
	struct sink *sink;           /* NULL: dropped */
	bool impatient;              /* it doesn't wait until its output can be written: that is held here */
	bool mute;                   /* it can't be sent to any more */
	bool ended;                  /* it has ended */
	bool reset;                  /* it has ended without having read all that we sent */
	bool asked;                  /* something was sent by conn_send */
	bool spoke;                  /* it has sent something */
	bool broken;                 /* it doesn't keep to the protocol */
	int fds[64], fd_count;       /* that came along, in order */
	/* A complete frame. */
	void (*frame)(struct conn *c, const struct head *head, const uint8_t *payload);
	/* Is it output, and for which sink? Its payload is passed on as it comes. */
	bool (*streams)(struct conn *c, const struct head *head, struct sink **sink);
};
void conn_open(struct conn *c, int fd);
void conn_close(struct conn *c);
/* Receive once, and handle all there is. */
void conn_receive(struct conn *c);
/* Handle what was received; stops at a full sink. */
void conn_handle(struct conn *c);
bool conn_blocked(const struct conn *c);
void conn_send(struct conn *c, uint32_t type, uint32_t session, uint32_t argument, const void *payload, uint32_t length);
void conn_flush(struct conn *c);
bool conn_unsent(const struct conn *c);

/* -- signals.c -- */
/* Of the signals that end a program: from now on they are read from the fd. */
int signals_open(bool window);
/* Also those that are passed on to a session. */
void signals_forward(void);
/* Also those that stop and continue: the terminal is to be in order meanwhile. */
void signals_job_control(void);
bool signal_forwardable(int number);
/* 0: there is none. */
int signals_next(void);
/* Also the end of children. */
void signals_children(void);
/* Also all that are passed on to a process that we wait for. */
void signals_await(void);
/* As they were when we started. */
void signals_restore(void);
/* End, or stop, as a program does that knows nothing of the signal. */
void signal_default(int number);
bool signal_ends(int number);
bool signal_ignored(int number);

/* -- relay.c -- */
enum { RELAY_NONE, RELAY_ACTIVE, RELAY_ENDED };
struct relay {
	struct conn conn;
	int state;
	uint32_t bits;
	uint16_t session;
	bool begun; /* the session has: what is typed is for it */
	uint8_t keys[64];
	uint32_t key_count, matched;
	bool input_ended;
	bool exited;    /* its exit code is known */
	uint32_t code;
	bool oom, detached, lost;
};
extern struct relay relay;
void relay_begin(int fd, uint32_t bits, const uint8_t *payload, uint32_t length);
/* engined says that its session has begun. */
void relay_begun(void);
bool relay_takes_input(void);
void relay_input(const uint8_t *p, uint32_t n);
void relay_input_end(void);
void relay_resize(void);
/* Its connection has ended by itself. */
void relay_closed(void);
bool relay_passes_signals(void);

/* -- children.c -- */
/* Frames `spawn` and `pidfd`: do it and answer. */
void spawn_child(struct conn *c, const struct head *head, const uint8_t *payload);
/* Texts that a payload ends with. */
char **read_texts(const uint8_t *payload, uint32_t length);
void send_pidfd(const struct head *head, const uint8_t *payload);
/* Children that end by themselves and that nobody asks after. */
void child_add(pid_t pid);
void child_ended(pid_t pid);
void children_reap(void);
bool children_left(void);

/* -- await.c -- */
struct pollfd;
/* Frame `wait`. */
/* From now on signals wait for await_begin. */
void await_expect(void);
void await_begin(uint32_t pid, const uint8_t *payload, uint32_t length);
/* What it waits for needs nobody any more. */
void await_begun(void);
/* The engine has gone: what has not begun never will. */
void await_lost(void);
/* A command for after its end, when the engine is lost meanwhile; NULL: none. Once. */
char **await_words(void);
bool await_active(void);
/* A child has ended. */
void await_reap(void);
/* True: it is the process's that we wait for. */
bool await_signal(int number);
bool await_over(uint32_t *code, int *error);
void await_tell(void);
/* The terminal of the process: its master comes by this socket. */
void console_open(int socket);
void console_close(void);
void console_resize(void);
void console_read(void);
bool console_takes_input(void);
void console_input(void);
struct pollfd console_poll(void);
void console_attend(short events);
/* Nobody has it open for the moment: to be looked at again soon. */
bool console_hung(void);

/* -- serve.c -- */
extern struct conn engined;
/* The one loop; never returns. */
void serve(int fd, int folder, int argc, char **argv, uint32_t terminals, int64_t asked_ns) __attribute__((noreturn));
/* End with this code; the terminal is put back, failed output is told. */
void finish(uint32_t code) __attribute__((noreturn));

/* -- lost.c -- */
/* engined went away without an answer. `untouched`: it can't have begun with this command. */
void engined_lost(int folder, int argc, char **argv, bool untouched, int64_t asked_ns) __attribute__((noreturn));

/* -- local.c -- */
/* Node's program; ends with the usual words when it isn't there. */
const char *node_program(void);
/* dist/start.cjs, made anew when it is stale. */
const char *start_script(void);
void run_local(int argc, char **argv) __attribute__((noreturn));
void exec_node(char *const words[], char *const env[]) __attribute__((noreturn));

/* -- build.c -- */
void build_when_stale(const char *home, const char *node);

/* -- start.c -- */
/* `engine engined [--start]` */
void engined_command(bool background) __attribute__((noreturn));
/* `engine engined --keeper RUNROOT [--replace]`; argv: what follows --keeper */
void keeper_command(int argc, char **argv) __attribute__((noreturn));

/* -- guardian.c -- */
/* Run the keeper of `folder`, again when it is killed, until it ends by itself. */
void guard_keeper(const char *folder, char *const words[], char *const env[]) __attribute__((noreturn));

/* -- clean.c, limits.c, cgroup.c: nothing of the caller's world goes along -- */
void clean_identity(void);
void clean_resources(void);
void clean_limits(void);
void leave_cgroups(void);

#endif
