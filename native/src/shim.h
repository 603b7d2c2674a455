/* What the files of the shim share: the event loop, clients, sessions, the log, the files of a run. */
#ifndef ENGINE_SHIM_H
#define ENGINE_SHIM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "gen/operations.h"

#define FRAME_HEAD 12u
#define CHUNK 16384u            /* one read of output or stdin; also the longest line of the log (CRI) */
#define CLIENT_BUFFER (256u * 1024u)
#define CLIENT_PATIENCE_MS 2000 /* a client with a full buffer that makes no progress for so long is cut off */
#define MAX_PLAN (16u << 20)
#define MAX_PAYLOAD 4096u       /* of a frame that is neither stdin nor a plan */
#define MAX_CLIENTS 64
#define MAX_DETAIL 512

/* What runs while a container is idle lies together, on few pages; what runs once takes no room on the stack of what follows. */
#define HOT __attribute__((hot, noinline))
#define ONCE __attribute__((noinline))

/* One read of output or of stdin; nobody keeps anything in it. */
extern uint8_t chunk[CHUNK];

/* -- events.c ------------------------------------------------------------------------------------------------------------------ */

/* Something in the epoll set. `ready` may close and free things only through their own dispose functions, which defer the free. */
struct source {
	int fd;
	uint32_t events; /* what is registered now; 0 = not in the set */
	void (*ready)(struct source *source, uint32_t events);
};
int events_open(void);
/* Register exactly `events`; 0 takes it out, since EPOLLHUP would be reported for ever otherwise. */
void source_want(struct source *source, uint32_t events);
void source_close(struct source *source);
/* One epoll_wait and the callbacks. `timeout` in ms, -1 for ever. */
void events_run(int timeout);
/* Close the epoll fd in a child. */
void events_forget(void);
int64_t now_ms(void);  /* monotonic */
uint64_t now_ns(void); /* realtime */

/* -- clients.c ------------------------------------------------------------------------------------------------------------------ */

struct client;
/* NULL when there is no memory; the fd is closed then. */
struct client *client_add(int fd, bool control);
/*
 * `fd` becomes a client that gets the streams of what `owner` attaches, execs or resumes from now on, instead of it. Such a relay gets output and the exit
 * of its session, nothing else, may ask for little, and is read only from when it has a session, so that what it sends early waits. 0 or errno; takes the fd.
 */
int client_adopt(struct client *owner, int fd);
bool client_is_relay(const struct client *c);
/* It has a session now: read from it. */
void client_begin(struct client *c);
/* Who gets the streams of what `c` attaches: a relay, itself, or NULL when its relay has gone. */
struct client *client_streams(struct client *c);
/* What was asked for in its name came to nothing: a relay without a session is closed. */
void client_drop_relay(struct client *c);
/* An fd that came with the frame in hand; -1 when there is none. The callee's from now on. */
int client_take_fd(struct client *c);
unsigned client_count(void);
/* listen.c: listen on RUN/shim.sock. 0 or errno. */
int clients_listen(int run_folder);
void clients_stop_listening(int run_folder);
/* In a child: close the fd. */
void listener_forget(void);
/* Queue a frame. Never blocks, never fails: a client that is cut off or gone swallows it. */
void client_send(struct client *c, uint32_t type, uint32_t session, uint32_t argument, const void *payload, uint32_t length);
void clients_broadcast(uint32_t type, uint32_t session, uint32_t argument, const void *payload, uint32_t length);
bool client_full(const struct client *c);
bool client_alive(const struct client *c);
struct client *clients_control(void);
/* Register what each client is to be polled for, cut off those that do not read. Returns ms until the next look, -1 for never. */
int clients_update(void);
/* Run the loop until every queue is empty; a client that makes no progress is cut off. */
void clients_drain(void);
void clients_close_all(void);
/* In a child: close the fds. */
void clients_forget(void);
/* A plan to go on with has come and was not taken yet (pool.c). */
bool pool_has_plan(void);
/* -- requests.c ----------------------------------------------------------------------------------------------------------------- */

struct frame_head { uint32_t length; uint16_t type, session; uint32_t argument; };
/* A whole frame from a client; stdin comes in pieces by session_input. The callee takes `payload` by setting it to NULL. */
void request(struct client *c, const struct frame_head *head, uint8_t **payload);
/* The client is going: its attachments end. */
void request_client_gone(struct client *c);
/* Wait for the answer to a barrier (ms of now_ms). Other requests are served meanwhile. 0, EPIPE (the engine is gone), ECHILD (init is), ETIMEDOUT. */
int control_wait(int64_t deadline, uint32_t *argument, uint8_t **payload, uint32_t *length);

/* -- sessions.c ----------------------------------------------------------------------------------------------------------------- */

struct attachment {
	struct client *client;
	uint32_t bits;   /* STDIO_ATTACH_* */
	bool wants_exit;
	struct attachment *next;
};
struct stream { /* an output of the container */
	struct source source;
	struct session *session;
	uint32_t number; /* 1 stdout, 2 stderr */
	int64_t left;    /* after the exit: bytes that were in the pipe then; -1 while alive */
};
struct stdin_pipe {
	struct source source;
	struct session *session;
	uint8_t *pending;
	uint32_t start, used;
	bool eof; /* close once `pending` is written */
};
struct session {
	uint16_t id;
	uint32_t flags; /* STDIO_* of its stdio */
	pid_t pid;
	pid_t joiner;         /* of an exec session: who joins the container and makes the process that goes on; 0 once it has ended */
	int pidfd;
	uint64_t start_time;
	struct source sync;   /* to init: -1 once the program is exec'd */
	bool about_to_exec, started, failed, exited, ended;
	uint64_t early_signals; /* that came before it was started: the first process of a pid namespace would not even notice */
	int status;           /* of waitpid, once exited */
	int64_t drain_until;
	struct stream out[2];
	struct stdin_pipe in;
	int slave;            /* the pty's other end, held so that the master never sees a hang-up while init lives */
	int child_fds[3];     /* the container's ends of the pipes, until the child has them */
	uint16_t rows, cols;
	struct attachment *attachments;
	struct session *next;
};
extern struct session *sessions; /* session 0 first */
struct session *session_new(uint16_t id, uint32_t flags, uint32_t rows, uint32_t cols);
struct session *session_find(uint16_t id);
/* Make the pipes (nothing for a terminal, whose pty comes from init). 0 or errno. */
int session_pipes(struct session *s);
/* What a pool has made before its flags were known is made to fit them; `terminal`: it has a pty. 0 or errno. */
int session_settle(struct session *s, bool terminal);
void session_close_child_fds(struct session *s);
/* Take the pty's master from init. */
void session_take_terminal(struct session *s, int master);
/* By client_streams(c); the exit is told to `c` as well. */
void session_attach(struct session *s, struct client *c, uint32_t bits);
bool session_has(const struct session *s, const struct client *c);
void session_detach(struct session *s, struct client *c, bool gone);
void session_want_exit(struct session *s, struct client *c);
/* Bytes for stdin. */
void session_input(struct session *s, const uint8_t *p, uint32_t n);
void session_input_eof(struct session *s);
/* May this client's stdin be read on? */
bool session_takes_input(const struct session *s);
int session_resize(struct session *s, uint16_t rows, uint16_t cols);
int session_signal(struct session *s, int number);
/* waitpid said that its process ended. */
void session_exited(struct session *s, int status);
/* All output was passed on after the exit? */
bool session_drained(const struct session *s);
void session_free(struct session *s);
/* Register what each stream is to be polled for. */
void sessions_update(void);
/* In a child: close every fd of every session but `keep`'s own child ends and sync socket. */
void sessions_forget(const struct session *keep);
int exit_code(int status);

/* -- log.c, log_file.c ----------------------------------------------------------------------------------------------------------- */

int log_open(const char *folder, uint64_t max_size, uint32_t max_files, uint32_t ring);
/* Output of stream 1 or 2. Blocks as the disk does, unless there is a ring; never fails. */
void log_data(uint32_t stream, const uint8_t *p, size_t n);
/* Write out lines without an end, marks, the ring; bounded for a ring. */
void log_finish(void);
uint64_t log_dropped(void);
#define LOG_HEAD 40u /* "2016-10-06T00:17:09.669794202Z stdout F " */
int log_file_open(const char *folder, uint64_t max_size, uint32_t max_files);
/* Append a line to the batch; `head` is LOG_HEAD bytes, the newline is added. */
void log_file_line(const char *head, const uint8_t *p, uint32_t n);
void log_file_flush(void);
void log_file_close(void);
void log_head(char *head, uint32_t stream, char tag);
void log_count_dropped(uint64_t bytes);

/* -- run_files.c ----------------------------------------------------------------------------------------------------------------- */

/* Write a file of the run's folder: temporary name, then rename. 0 or errno. */
int run_file_write(int folder, const char *name, const char *data, size_t length);
/* The same in two steps, for a file whose making is to be over when its content is known. fd or -errno; 0 or errno. */
int run_file_begin(int folder, const char *name);
int run_file_finish(int folder, const char *name, int fd, const char *data, size_t length);
/* Read a whole small file; NUL-terminated; -1 and errno on failure. */
ssize_t run_file_read(int folder, const char *name, char *buffer, size_t size);
uint64_t start_time_of(pid_t pid);
/* Init as `started` has it: its pidfd, with a look at the start time after it, or -1. */
int run_init(int folder, pid_t *pid, uint64_t *start_time);
/* Growing JSON text, bounded: what does not fit is cut in strings only. */
struct text { char *p; size_t size, used; };
void text_add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_json_string(struct text *t, const char *s);

/* -- membership.c ----------------------------------------------------------------------------------------------------------------- */

/* Put the calling process into every cgroup of `pid`. 0 or errno; what failed in `detail`. */
/* The v2 group of `pid` as a folder, for a child that is to be born in it; -1: this process is in it already, or there is none. */
int cgroup_to_be_born_in(pid_t pid);
/* `v1_only`: it was born where it belongs on v2. */
int cgroups_join(pid_t pid, bool v1_only, char *detail, size_t size);
bool cgroups_frozen(pid_t pid);
void cgroups_thaw(pid_t pid);

#endif
