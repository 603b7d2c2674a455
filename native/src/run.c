/* Mode `run`: one container, from the first operation of its plan to the last of its undo. */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define REAP_MS 5000 /* how long killed processes may take to die: they may hang in the kernel */

struct run run = { .folder = -1, .lock = -1, .plan_fd = -1, .cgroup = -1, .added = -1, .kept = { -1, -1, -1 } };

struct machine run_machine;

void reap(void) {
	int status;
	pid_t pid;
	/* what is handed over is for its next parent to wait for, also when it has ended before us */
	if (options.hand_over && run.init && run.init->started) {
		for (struct session *s = sessions; s; s = s->next)
			if (s->joiner > 0 && (pid = waitpid(s->joiner, &status, WNOHANG | __WALL)) > 0) exec_joiner_ended(pid, status);
		return;
	}
	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
		ports_reaped(pid);
		exec_joiner_ended(pid, status);
		for (struct session *s = sessions; s; s = s->next)
			if (s->pid == pid) session_exited(s, status);
	}
}

static void child_ended(struct source *source, uint32_t events) {
	(void)events;
	struct signalfd_siginfo info;
	while (read(source->fd, &info, sizeof info) > 0) {}
	reap();
}

static struct source child_signals = { .fd = -1, .ready = child_ended };

bool watch_children(void) {
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	child_signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	source_want(&child_signals, EPOLLIN);
	return child_signals.fd >= 0;
}

void watch_forget(void) {
	if (child_signals.fd >= 0) close(child_signals.fd);
}

static void reap_until(const struct session *s, int64_t deadline) {
	while (!s->exited && now_ms() < deadline) {
		reap();
		if (!s->exited) poll(NULL, 0, 2);
	}
}

void kill_init(void) {
	struct session *s = run.init;
	if (s->pid <= 0 || s->exited) return;
	session_signal(s, SIGKILL);
	reap_until(s, now_ms() + REAP_MS);
}

HOT void give_back_stack(void) {
	uint8_t here;
	uintptr_t page = ((uintptr_t)&here & ~(uintptr_t)4095) - 4096;
	syscall(SYS_madvise, page - 65536, 65536, MADV_DONTNEED);
}

#define SETTLED_MS 50 /* a program that has run for so long goes on for a while */

/* Give back the memory that only the start has needed. The plan is read again for its undo. */
HOT static void slim_down(void) {
	give_back_stack();
	/*
	 * The interpreter's code is not needed until the undo. A fault would bring 64 KiB of it back at once (fault-around), but never past
	 * the end of a mapping: a flag on every other page makes the mappings short. Where it fails the shim is larger, nothing else.
	 */
	extern const ElfW(Ehdr) __ehdr_start;
	const ElfW(Phdr) *segment = (const void *)((const char *)&__ehdr_start + __ehdr_start.e_phoff);
	for (int i = 0; i < __ehdr_start.e_phnum; i++, segment++) {
		if (__ehdr_start.e_type != ET_EXEC || segment->p_type != PT_LOAD || segment->p_flags & PF_W) continue;
		uintptr_t from = segment->p_vaddr & ~(uintptr_t)4095, end = (segment->p_vaddr + segment->p_memsz + 4095) & ~(uintptr_t)4095;
		for (uintptr_t at = from; at < end; at += 2 * 4096) syscall(SYS_madvise, at, 4096, MADV_DONTDUMP);
		syscall(SYS_madvise, from, end - from, MADV_DONTNEED);
	}
}

ONCE static void write_record(const char *name, int fd, const char *data, size_t length) {
	test_halt("record", name, "before");
	int failed = run_file_finish(run.folder, name, fd, data, length);
	if (failed) {
		struct failure f = make_failure(PART_SHIM, failed, "cannot write the run's file %s", name);
		uint8_t payload[16 + MAX_DETAIL];
		clients_broadcast(FRAME_WARNING, 0, 0, payload, failure_payload(&f, payload));
	}
	test_halt("record", name, "after");
}

/* Files that are needed at an end that somebody waits for are made before, while others work. */
static int started_file = -1, exit_file = -1;

/* All that can be done before init has become its program. */
ONCE static int get_ready(void) {
	int failed = open_log();
	if (failed) return failed;
	if (!options.hand_over) clients_listen(run.folder);
	started_file = run_file_begin(run.folder, "started");
	return 0;
}

ONCE static void write_started(void) {
	struct session *s = run.init;
	char buffer[128];
	int n = snprintf(buffer, sizeof buffer, "{\"pid\":%d,\"startTime\":%llu,\"startedAt\":\"%llu\"}", s->pid, (unsigned long long)s->start_time,
		(unsigned long long)now_ns());
	write_record("started", started_file, buffer, (size_t)n);
	started_file = -1;
}

ONCE static void report_started(void) {
	struct session *s = run.init;
	trace_tell(clients_control());
	clients_broadcast(FRAME_STARTED, 0, (uint32_t)s->pid, &s->start_time, 8);
}

HOT static void serve(void) {
	int64_t settled = now_ms() + SETTLED_MS;
	while (!session_drained(run.init)) {
		sessions_update();
		exec_update();
		int timeout = clients_update();
		if (session_drained(run.init)) break;
		if (run.ports_retry) {
			int left = ports_patience();
			if (left >= 0 && (timeout < 0 || timeout > left)) timeout = left;
		}
		if (settled) {
			int64_t left = settled - now_ms();
			if (left <= 0) {
				slim_down();
				settled = 0;
			} else if (timeout < 0 || timeout > left) {
				timeout = (int)left;
			}
		}
		events_run(timeout);
	}
}

/* Sessions outlive init only where it had no pid namespace of its own. */
ONCE static void end_sessions(void) {
	for (struct session *s = sessions; s; s = s->next)
		if (s->id && s->started && !s->exited) session_signal(s, SIGKILL);
	int64_t deadline = now_ms() + 1000;
	for (struct session *s = sessions; s; s = s->next)
		if (s->id && s->started) reap_until(s, deadline);
	for (deadline = now_ms() + 1000; sessions && sessions->next && now_ms() < deadline;) {
		sessions_update();
		exec_update();
		int timeout = clients_update();
		if (sessions->next) events_run(timeout < 0 || timeout > 20 ? 20 : timeout);
	}
}

ONCE static void report_exit(void) {
	struct session *s = run.init;
	struct memory_truth memory = { .limit = "memory", .limit_bytes = -1, .peak = -1 };
	char buffer[512];
	struct text t = { buffer, sizeof buffer, 0 };
	log_finish();
	memory_truth(run.folder, run.plan_fd, &memory);
	text_add(&t, "{\"code\":%d,\"signal\":%d,\"coreDumped\":%s,", exit_code(s->status), WIFSIGNALED(s->status) ? WTERMSIG(s->status) : 0,
		WIFSIGNALED(s->status) && WCOREDUMP(s->status) ? "true" : "false");
	if (memory.killed) {
		text_add(&t, "\"oom\":{\"killed\":true,\"limit\":\"%s\"", memory.limit);
		if (memory.limit_bytes >= 0) text_add(&t, ",\"limitBytes\":%lld", (long long)memory.limit_bytes);
		if (memory.peak >= 0) text_add(&t, ",\"peakBytes\":%lld", (long long)memory.peak);
		text_add(&t, "},");
	}
	else text_add(&t, "\"oom\":{\"killed\":false},");
	text_add(&t, "\"finishedAt\":\"%llu\",\"dropped\":%llu}", (unsigned long long)now_ns(), (unsigned long long)log_dropped());
	write_record("exit", exit_file, buffer, t.used);
	clients_broadcast(FRAME_EXIT, 0, (uint32_t)exit_code(s->status), buffer, (uint32_t)t.used);
}

ONCE static void report_failed(void) {
	char buffer[2048];
	struct text t = { buffer, sizeof buffer, 0 };
	uint8_t payload[16 + MAX_DETAIL];
	const struct failure *f = &run.failure;
	failure_json(&t, f);
	log_finish();
	if (started_file >= 0) {
		close(started_file);
		unlinkat(run.folder, ".started.new", 0);
	}
	if (options.hand_over) unlinkat(run.folder, "started", 0);
	write_record("failed", run_file_begin(run.folder, "failed"), buffer, t.used);
	trace_tell(clients_control());
	clients_broadcast(FRAME_FAILED, 0, 0, payload, failure_payload(f, payload));
}

ONCE static void finish(void) {
	clients_drain();
	/* from here on a new client is refused and looks at the lock */
	clients_stop_listening(run.folder);
	for (int i = 0; i < 3; i++) {
		if (run.kept[i] >= 0) close(run.kept[i]);
		run.kept[i] = -1;
	}
	if (run.init->pidfd >= 0) close(run.init->pidfd);
	run.init->pidfd = -1;
	uint32_t failures = run_after(run.folder, run.plan_fd);
	reap();
	trace_tell(clients_control());
	clients_broadcast(FRAME_GONE, 0, failures, NULL, 0);
	clients_drain();
	bool alone = !clients_control();
	/* all is done: who sees the connection end finds the lock free, however long the memory takes to be given back */
	if (run.lock >= 0) close(run.lock);
	run.lock = -1;
	clients_close_all();
	/* a sandbox that nobody came for is nothing that an engine would have to see */
	if ((alone || options.wake_always) && options.wake && (!options.pool || run.resumed)) wake();
}

/* All up to init's exec. 0 or -errno with run.failure; 1: nothing could be begun. */
ONCE static int start(void) {
	const char *why = "";
	run.folder = SHIM_FD_RUN_FOLDER;
	run.lock = SHIM_FD_LOCK;
	run.plan_fd = SHIM_FD_PLAN;
	if (events_open() || !watch_children()) return 1;
	struct client *control = client_add(SHIM_FD_CONTROL, true);
	if (!control) return 1;
	if (options.client) client_adopt(control, SHIM_FD_FIRST_EXTRA);
	if (inherit_warning()) {
		struct failure f = make_failure(PART_SHIM, EPERM, "%s", inherit_warning());
		f.index = UINT32_MAX; /* of no operation */
		uint8_t payload[16 + MAX_DETAIL];
		client_send(control, FRAME_WARNING, 0, 0, payload, failure_payload(&f, payload));
	}
	run.init = session_new(0, 0, 0, 0);
	if (!run.init) return 1;
	int failed = plan_open(&run.plan, run.plan_fd, &why);
	if (failed) {
		run.failure = make_failure(PART_SHIM, failed, "%s", why);
	} else {
		machine_init(&run_machine, &shim_host);
		struct failure f;
		if (options.trace) trace_open();
		if (options.hand_over) failed = handover_check();
		if (!failed && options.hand_over) failed = handover_open();
		if (failed) f = run.failure;
		else failed = options.pool ? pool_start(&f) : run_part(&run_machine, &run.plan, PART_SHIM, &f);
		if (failed && !run.has_failure) run.failure = f;
		if (!failed && !run.spawned) {
			failed = -ENOEXEC;
			run.failure = make_failure(PART_SHIM, ENOEXEC, "the plan has no spawn operation");
		}
		if (!failed) failed = get_ready();
		if (!failed) failed = await_exec();
		trace_end();
		if (!failed && options.hand_over) {
			write_started();
			failed = handover_leave();
		}
	}
	return failed;
}

int mode_run(void) {
	int failed = start();
	if (failed > 0) return failed;
	if (failed) {
		kill_init();
		machine_close(&run_machine);
		ports_close();
		report_failed();
	} else if (options.hand_over) {
		/* no undo; who sees the connection end finds the lock free */
		report_started();
		clients_drain();
		close(run.lock);
		clients_close_all();
		return 0;
	} else {
		run.init->started = true;
		for (int n = 1; n < 64; n++)
			if (run.init->early_signals >> n & 1) session_signal(run.init, n);
		write_started();
		report_started();
		ports_serve();
		exit_file = run_file_begin(run.folder, "exit");
		leave_cgroups(true);
		machine_close(&run_machine);
		plan_close(&run.plan);
		serve();
		end_sessions();
		/* whoever hears of the exit may take them */
		ports_close();
		report_exit();
	}
	finish();
	return 0;
}
