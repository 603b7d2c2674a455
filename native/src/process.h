/* Birth of init and of exec sessions: what shim and child say to each other, and the state of the run. */
#ifndef ENGINE_PROCESS_H
#define ENGINE_PROCESS_H
#include "interpreter.h"
#include "shim.h"

/* Messages over the socketpair (SOCK_SEQPACKET) between the shim and a child before its exec. */
enum sync_kind {
	SYNC_SPAWNED = 1, /* stage or joining child -> shim: `value` is the pid of the process that goes on */
	SYNC_STAGE_DONE,  /* stage -> shim */
	SYNC_GO,          /* shim -> the process that goes on: the shim knows you, or has your master */
	SYNC_REACHED,     /* init -> shim: `value` is the sync point */
	SYNC_RELEASE,     /* shim -> init: go on from point `value`; an fd comes along when a barrier added operations */
	SYNC_MASTER,      /* child -> shim: the pty's master as an fd */
	SYNC_WARNING,     /* child -> shim: `failure` */
	SYNC_FAILED,      /* child -> shim: `failure`; the child ends */
	SYNC_EXEC,        /* child -> shim: execve is next; end of file now means success */
	SYNC_PREPARED,    /* init of a pool -> shim: all that is common is done */
	SYNC_PLAN,        /* shim -> init of a pool: the plan to go on with, as an fd */
	SYNC_READY,       /* init -> shim: it waits in awaitStart */
	SYNC_LEAVE,       /* shim -> init: `started` is written; do not die with me any more */
	SYNC_FREE,        /* init -> shim: done; it says nothing more */
	SYNC_LISTENER,    /* child -> shim: seccomp's listener will be fd `value`; what fails is the operation in `failure`. The next message is text, see listener.c */
};
struct sync_message {
	uint32_t kind, value;
	struct failure failure;
};
/* 0 or -errno. `fd` -1 for none. */
int sync_send(int socket, enum sync_kind kind, uint32_t value, const struct failure *failure, int fd);
/* 1 = a message, 0 = end of file, -errno. `timeout` ms, -1 for ever; `*fd` is -1 or an fd that came along. */
int sync_receive(int socket, struct sync_message *m, int *fd, int timeout);

/* How the shim was called. */
struct options {
	bool client;     /* fd 7 gets the streams */
	bool pool;       /* wait for `resume` after `common` operations of part init */
	uint32_t common;
	bool trace;
	char **wake;     /* program and arguments, NULL-terminated */
	bool wake_always; /* also when an engine is there */
	bool hand_over;   /* what is started becomes the caller's */
	bool console;     /* fd 7 gets the terminal's master */
	bool ignore_paused;
	uint32_t preserve; /* so many fds after it are the program's from 3 on */
};
#define MAX_PRESERVED 1024u
extern struct options options;

/* The run in mode `run`. */
struct run {
	int folder, lock, plan_fd;
	struct plan plan;
	struct session *init;
	bool spawned;
	bool has_group;   /* the plan has said which v2 group the shim is in */
	int cgroup;       /* fd of the v2 group that the next spawn is born in, the register's; -1 */
	bool has_failure; /* init or stage said what failed; says more than the shim's own operation */
	struct failure failure;
	uint32_t reached;
	bool any_reached;
	int added;        /* memfd of a plan that a barrier added, for the next release */
	int kept[3];      /* init's mnt, net, ipc namespaces */
	bool prepared;    /* pool: init waits for its plan */
	bool resumed;     /* pool: it has become somebody's container */
	int oom_score;    /* oom_score_adj of the shim; children get 0 */
	int64_t ports_retry; /* ms of now_ms; 0: no port is left alone for now */
};
extern struct run run;
/* Apart from `run`: it is used at the start alone, and would make the data that is touched all the time larger than a page. */
extern struct machine run_machine;

extern const struct host shim_host; /* callbacks of part shim */

/* After clone in a child: what belongs to the shim alone is closed, signals are as a child needs them. */
void child_begin(const struct session *s, int sync);
/* Die with the shim; also when it is dead already. Call again after a change of credentials, which clears it. */
void die_with_shim(int sync);
/* Wait for SYNC_GO; its value. Ends the process when the shim is gone. */
uint32_t child_await_go(int sync);
/* Run a part to its exec; ends the process. */
void child_run(int sync, struct machine *m, const struct plan *plan, enum part part) __attribute__((noreturn));
extern const struct host child_host; /* callbacks of stage, init and exec */

/* fork with flags and a pidfd, into the cgroup v2 folder `cgroup` when it is not -1. */
pid_t clone_process(uint64_t flags, int *pidfd, int cgroup);
/* Handle one message of a session's child. 1 go on, 0 = end of file. */
int session_message(struct session *s, int timeout);
/* Has init ended without having become its program? */
bool init_is_lost(void);
/* Open the log that `stdio` has named. It is done while init works: nothing is written before its program runs. 0 or -errno with run.failure. */
int open_log(void);
/* Init has ended without becoming its program: fill run.failure. -ECHILD, or what it had said. */
int init_lost(struct machine *m, const char *what);
/* Wait until init is exec'd. 0 or -errno with run.failure. */
int await_exec(void);
/* Kill init and everything of ours that is left, and wait for it. */
void kill_init(void);
/* waitpid for all children. */
void reap(void);
/* Reap whenever one ends, in events_run. */
bool watch_children(void);
/* In a child: close the fd for that. */
void watch_forget(void);

/* -- pool.c: all up to init's exec. 0 or -errno, with *f or run.failure. */
int pool_start(struct failure *f);
/* Take the plan to go on with (malloc'ed); false when nobody waits for one. */
bool pool_resume(uint32_t length, uint8_t *plan);
/* What the calls so far have used of the stack goes back to the kernel. */
void give_back_stack(void);

/* -- userns.c: what the host's root does for a process that is about to be in a user namespace. */
/* The child's ends of the pipes belong to who is root in the user namespace of `pid`: only what has an owner there can be given to another. */
void own_streams(const struct session *s, pid_t pid);
/* The hard limits and the oom_score_adj of init, which nobody inside can raise, or write. */
void take_limits(pid_t init);

/* -- ports.c */
/* The callback of holdPort. */
int hold_port(struct machine *m, const struct op_hold_port *o);
/* Init runs: pass on what reaches the ports that have somebody behind them. */
void ports_serve(void);
/* With run.ports_retry: go on when it is time. ms until then, -1 for never. */
int ports_patience(void);
/* A child has ended that may be one of those that pass on. */
void ports_reaped(pid_t pid);
/* Free all ports; connections that were passed on end. */
void ports_close(void);
/* In a child: close the fds, and have no more of them than a process usually may. */
void ports_forget(void);

/* -- handover.c: what is started becomes the caller's. */
/* Fds 0 to 2 stay the caller's, and no fd that is opened later stands where a preserved one is to go. Before any other fd is opened. */
void handover_fds(void);
/* Is all there that the options speak of? 0 or -errno with run.failure. */
int handover_check(void);
/* The fifos in the run's folder. 0 or -errno with run.failure. */
int handover_open(void);
/* Send the terminal's master to its receiver; takes it. 0 or errno. */
int handover_console(struct session *s, int master);
/* A message of init for this; false: for somebody else. */
bool handover_message(const struct sync_message *m);
/* Init waits in awaitStart? */
bool handover_ready(void);
/* The last step: init lets go of the shim. 0 or -errno with run.failure. */
int handover_leave(void);
/* In a child: the caller's fds to their places. */
void handover_child(void);
/* In a child of a run or session that is handed over: it does not die with the shim any more. 0 or -errno. */
int handover_let_go(int sync);
/* In init: wait to be started. Afterwards nobody listens at `sync`. */
int handover_await_start(struct machine *m, int *sync);
/* In init: say why the program does not run; false while the shim is still there to be told. */
bool handover_failed(const struct failure *f);
/* {"part":"init","index":1,"errno":2,"detail":"..."} */
void failure_json(struct text *t, const struct failure *f);

/* -- listener.c: seccomp's listener goes to an agent. */
/* In the child. 0 or -errno. */
int listener_announce(struct machine *m, int sync, int number, const struct op_seccomp_notify *o);
int listener_await(struct machine *m, int sync);
/* Shim: what the child has announced; false with run.failure when it cannot be done. */
bool listener_pass_on(struct session *s, const struct sync_message *m);

/* -- trace.c */
void trace_open(void);
/* Operations that are still open end now. */
void trace_end(void);
/* The entries since the last call; NULL when there are none. */
const void *trace_take(uint32_t *length);
void trace_tell(struct client *c);

/* -- inherit.c: set every attribute that a process has from its parent. */
void inherit_nothing(void);
/* For the processes of the container, after the shim has taken its own measures. */
void inherit_nothing_child(void);
/* What could not be set so, for a warning; NULL when all could. */
const char *inherit_warning(void);
/* Into a v2 group, for good. Returns an errno. */
int enter_cgroup(const char *folder);
/* Out of the caller's cgroups: v1 or v2. */
void leave_cgroups(bool v2);
/* Signals that the shim ignores; its children ignore none but SIGPIPE. */
void ignore_signals(bool ignore);

/* -- wake.c: run options.wake, detached. The shim is to end right after. */
void wake(void);

/* exec sessions */
void exec_start(struct client *c, uint16_t id, uint32_t flags, uint8_t *plan, uint32_t length);
/* Does its exec part begin with joinContainer? */
bool exec_joins_first(const struct plan *plan);
/* Make the process that joins the container of run.init and runs the exec part; run.cgroup: the v2 group it is to be in, else init's. 0 or errno. */
int exec_spawn(struct session *s, const struct plan *plan);
/* Report sessions that have started, failed or ended. */
void exec_update(void);
/* waitpid said so of a child that may be the joiner of a session. */
void exec_joiner_ended(pid_t pid, int status);
/* Exit code of an exec session that is over; -1 when it isn't remembered. */
int exec_ended(uint16_t id);

/* Payload of failed and warning frames; returns its length. `out` has room for 16 + MAX_DETAIL. */
uint32_t failure_payload(const struct failure *f, uint8_t *out);
struct failure make_failure(enum part part, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* run.c, after.c, helper.c, exec_mode.c: the modes; exit codes */
int mode_run(void);
int mode_undo(void);
/* `own_mounts`: in a private mount namespace. */
int mode_helper(bool own_mounts);
int mode_exec(void);
/* Run the after part of the plan in `folder` (or of `fallback`), write `undone`; how many operations failed. */
uint32_t run_after(int folder, int fallback);
/* The memoryEvents operations of the after part, before the exit is reported. */
struct memory_truth { bool killed; const char *limit; int64_t limit_bytes, peak; };
void memory_truth(int folder, int fallback, struct memory_truth *truth);

/* Tests only: halt when ENGINE_HALT names this point. */
#ifdef ENGINE_TEST
void test_halt(const char *kind, const char *name, const char *when);
int test_folder(const char *variable, const char **name); /* interpreter.c */
#else
#define test_halt(kind, name, when) ((void)0)
#endif
#endif
