/*
 * The plan interpreter: runs the operations of one part of a plan on a `machine` (registers and surroundings).
 *
 * It is mechanism only. What needs the shim's event loop (spawn, sync points, stdio) is a callback of `struct host`; a callback that
 * is NULL makes its operation fail with ENOTSUP. The interpreter is single threaded and never calls exit(); only `exec` does not return.
 *
 * Life of init: the shim's `spawn` callback clones; the child, which has a copy of the machine with all registers, calls
 * run_part(m, plan, PART_STAGE or PART_INIT, &failure). That returns only on failure (or when the part has no `exec`).
 * Exec session: preset the registers (host.join_container is called for the first operation), then run_part(PART_EXEC).
 */
#ifndef ENGINE_INTERPRETER_H
#define ENGINE_INTERPRETER_H
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include "plan.h"

enum register_kind { REGISTER_NONE, REGISTER_FD, REGISTER_PID, REGISTER_NUMBER, REGISTER_IDS, REGISTER_TEXT };

struct machine_register {
	enum register_kind kind;
	int64_t value;  /* fd, pid, number; IDS: how many */
	void *data;     /* IDS: uint32_t[value], TEXT: char *; malloc'ed */
};

struct failure {
	uint32_t part;   /* enum part */
	uint32_t index;  /* of the operation, global in the plan */
	uint16_t code;   /* OP_* */
	int32_t error;   /* errno, positive */
	char detail[400];
};

struct machine;
struct memory_events;

/* What the surroundings do for the interpreter. All return 0 or -errno, and may say more with machine_fail(). */
struct host {
	void *context;
	/* A warning (an optional operation that failed, a fallback): reported, the plan goes on. */
	void (*warning)(struct machine *m, const struct failure *f);
	/* part `after`: every failure; the undo goes on. */
	void (*undo_failed)(struct machine *m, const struct failure *f);
	/* shim */
	int (*stdio)(struct machine *m, const struct op_stdio *o);
	int (*spawn)(struct machine *m, uint64_t flags, pid_t *pid, int *pidfd);
	/* The next spawn is born in this cgroup folder; the fd stays the register's. */
	int (*clone_into)(struct machine *m, int cgroup);
	int (*enter_group)(struct machine *m, const char *folder);
	int (*await_point)(struct machine *m, uint32_t point);
	int (*release)(struct machine *m, uint32_t point);
	int (*barrier)(struct machine *m, uint32_t index, const struct op_barrier *o);
	int (*keep_namespaces)(struct machine *m, pid_t pid);
	int (*hold_port)(struct machine *m, const struct op_hold_port *o);
	/* after: the counters read from the cgroup; -1 = not there. */
	int (*memory_events)(struct machine *m, const struct memory_events *e);
	/* init, exec */
	int (*reach)(struct machine *m, uint32_t point);
	int (*join_container)(struct machine *m, int privileged);
	/* Give the pty master to the shim; the interpreter closes its own copy afterwards. */
	int (*give_master)(struct machine *m, int master);
	/* The ends for stdin, stdout, stderr; -1 = /dev/null. The interpreter dup2s them to 0..2 and leaves closing to close-on-exec. 1: they stand at 0..2, and
	 * are somebody else's. */
	int (*take_pipes)(struct machine *m, int fds[3]);
	/* In the process that stays as pid 1 for `reaper`, before it closes all its fds. May be NULL. */
	void (*reaper_stays)(struct machine *m, pid_t child);
	/* Last call before execve, after all signals are reset. May be NULL. */
	int (*before_exec)(struct machine *m);
	/* A seccomp filter is next. May be NULL. */
	int (*before_filter)(struct machine *m);
	/* In a child that is about to become a program of the host: what this process has set for itself alone goes. May be NULL. */
	void (*program_starts)(void);
	/* init, exec: the listener of the filter that is loaded next will be fd `number`; somebody is to fetch it, and tell `socket` with the rest of the texts. */
	int (*announce_listener)(struct machine *m, int number, const struct op_seccomp_notify *o);
	/* Wait until it has been fetched. */
	int (*await_listener)(struct machine *m);
	/* init: wait to be started by somebody else than the shim. */
	int (*await_start)(struct machine *m);
};

struct memory_events {
	uint32_t version;      /* cgroup 1 or 2 */
	int64_t oom_kill;      /* processes killed by the OOM killer here */
	int64_t oom;           /* times the limit was hit without anything to reclaim (v2), -1 on v1 */
	int64_t failcnt;       /* v1: memory.failcnt */
	int64_t kmem_failcnt;  /* v1 */
	int64_t memsw_failcnt; /* v1 */
	int64_t limit;         /* bytes, -1 = none */
	int64_t peak;          /* bytes, -1 = unknown */
};

/* Zero it, set `host`, then machine_init. */
struct machine {
	struct machine_register registers[MAX_REGISTERS];
	const struct host *host;
	/* the operation that runs */
	enum part part;
	uint32_t index;
	uint16_t code;
	uint16_t flags;
	char detail[400];
	/* what comes after it, and how many of that it has done along */
	const struct plan *plan;
	struct plan_cursor next;
	uint32_t done_ahead;
	/* from resolveUser, for exec; malloc'ed */
	char *home;
	/* fds of the program from 3 on, which closeFds spares */
	uint32_t preserved;
};

void machine_init(struct machine *m, const struct host *host);
/* Close fds of registers 8.. and free what is held. */
void machine_close(struct machine *m);

/* Some of a part's operations: after the first `skip`, at most `limit`, of these the `wanted` (NULL: all). */
struct selection {
	uint32_t skip, limit;
	bool (*wanted)(const struct operation *op);
};
/* As run_part, with those alone. */
int run_some(struct machine *m, const struct plan *plan, enum part part, const struct selection *which, struct failure *failure);

/* When operations began and ended (CLOCK_MONOTONIC, ns), shared by all processes of a run; without it nothing is noted. */
#define TRACE_ENTRIES 2048u
struct trace_entry { uint32_t part, index; uint64_t begin, end; };
struct trace { uint32_t used; uint32_t unused; struct trace_entry entries[TRACE_ENTRIES]; };
extern struct trace *trace;
uint64_t trace_now(void);

/* Run all operations of `part`. 0, or -errno with *failure filled. In PART_AFTER every operation is run, each failure goes to
 * host.undo_failed, and the first one is returned. May be nested (operations added by a barrier). */
int run_part(struct machine *m, const struct plan *plan, enum part part, struct failure *failure);

/* Say why an operation fails: stores the text, returns -error. */
int machine_fail(struct machine *m, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Report a warning for the operation that runs. */
void machine_warn(struct machine *m, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Registers. Readers give -EBADF when the register is unset or of another kind; NO_REGISTER is unset. */
int register_fd(struct machine *m, uint32_t r);                   /* fd or -EBADF */
int register_fd_or(struct machine *m, uint32_t r, int absent);    /* `absent` for NO_REGISTER */
int register_number(struct machine *m, uint32_t r, int64_t *out); /* pid or number */
/* Writers replace (and close or free) what was there. */
void register_set_fd(struct machine *m, uint32_t r, int fd);
void register_set_number(struct machine *m, uint32_t r, enum register_kind kind, int64_t value);
void register_set_data(struct machine *m, uint32_t r, enum register_kind kind, int64_t value, void *data);
void register_clear(struct machine *m, uint32_t r);
#endif
