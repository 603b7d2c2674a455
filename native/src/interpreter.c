#include "ops.h"
#include <signal.h>
#include <stdarg.h>
#include <time.h>

void machine_init(struct machine *m, const struct host *host)
{
	memset(m, 0, sizeof *m);
	m->host = host;
}

void machine_close(struct machine *m)
{
	for (uint32_t r = 8; r < MAX_REGISTERS; r++)
		register_clear(m, r);
	free(m->home);
	m->home = NULL;
}

int machine_fail(struct machine *m, int error, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(m->detail, sizeof m->detail, format, args);
	va_end(args);
	return error > 0 ? -error : error;
}

static void fill_failure(const struct machine *m, int error, struct failure *f)
{
	f->part = m->part;
	f->index = m->index;
	f->code = m->code;
	f->error = error < 0 ? -error : error;
	memcpy(f->detail, m->detail, sizeof f->detail);
}

void machine_warn(struct machine *m, int error, const char *format, ...)
{
	struct failure f;
	va_list args;
	fill_failure(m, error, &f);
	va_start(args, format);
	vsnprintf(f.detail, sizeof f.detail, format, args);
	va_end(args);
	if (m->host && m->host->warning)
		m->host->warning(m, &f);
}

/* -- registers -------------------------------------------------------------------------------------------------------------------- */

void register_clear(struct machine *m, uint32_t r)
{
	if (r >= MAX_REGISTERS)
		return;
	struct machine_register *g = &m->registers[r];
	if (g->kind == REGISTER_FD && g->value >= 0)
		close((int)g->value);
	free(g->data);
	*g = (struct machine_register){ 0 };
}

void register_set_fd(struct machine *m, uint32_t r, int fd)
{
	register_clear(m, r);
	if (r < MAX_REGISTERS)
		m->registers[r] = (struct machine_register){ REGISTER_FD, fd, NULL };
	else
		close(fd);
}

void register_set_number(struct machine *m, uint32_t r, enum register_kind kind, int64_t value)
{
	register_clear(m, r);
	if (r < MAX_REGISTERS)
		m->registers[r] = (struct machine_register){ kind, value, NULL };
}

void register_set_data(struct machine *m, uint32_t r, enum register_kind kind, int64_t value, void *data)
{
	register_clear(m, r);
	if (r < MAX_REGISTERS)
		m->registers[r] = (struct machine_register){ kind, value, data };
	else
		free(data);
}

int register_fd(struct machine *m, uint32_t r)
{
	if (r >= MAX_REGISTERS || m->registers[r].kind != REGISTER_FD)
		return machine_fail(m, EBADF, "register %u holds no file descriptor", r);
	return (int)m->registers[r].value;
}

int register_fd_or(struct machine *m, uint32_t r, int absent)
{
	return r == NO_REGISTER ? absent : register_fd(m, r);
}

int register_number(struct machine *m, uint32_t r, int64_t *out)
{
	if (r >= MAX_REGISTERS || (m->registers[r].kind != REGISTER_NUMBER && m->registers[r].kind != REGISTER_PID))
		return machine_fail(m, EBADF, "register %u holds no number", r);
	*out = m->registers[r].value;
	return 0;
}

/* -- helpers ---------------------------------------------------------------------------------------------------------------------- */

char **strs_array(struct strs list)
{
	char **array = calloc((size_t)list.count + 1, sizeof *array);
	struct str s;
	for (size_t i = 0; array && !strs_next(&list, &s); i++)
		array[i] = (char *)(uintptr_t)s.p;
	return array;
}

int64_t clock_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void sleep_ms(int ms)
{
	struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };
	nanosleep(&t, NULL);
}

/* -- dispatch --------------------------------------------------------------------------------------------------------------------- */

#define THUNK(op_code, snake) \
	static int run_##snake(struct machine *m, struct reader *r) \
	{ \
		struct op_##snake o; \
		if (decode_##snake(r, &o)) \
			return machine_fail(m, EBADMSG, "damaged operation"); \
		return do_##snake(m, &o); \
	}
EACH_OPERATION(THUNK)

#define ENTRY_OF(op_code, snake) [op_code] = run_##snake,
static int (*const table[])(struct machine *, struct reader *) = { EACH_OPERATION(ENTRY_OF) };

static int run_once(struct machine *m, const struct operation *op)
{
	if (op->code >= sizeof table / sizeof *table || !table[op->code])
		return machine_fail(m, EPROTONOSUPPORT, "unknown operation %u", op->code);
	m->detail[0] = 0;
	struct reader fields = op->fields;
	return table[op->code](m, &fields);
}

struct trace *trace;

uint64_t trace_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* NULL when the area is full. */
static struct trace_entry *trace_begin(const struct machine *m)
{
	uint32_t n = __atomic_fetch_add(&trace->used, 1, __ATOMIC_ACQ_REL);
	if (n >= TRACE_ENTRIES) {
		__atomic_store_n(&trace->used, TRACE_ENTRIES, __ATOMIC_RELEASE);
		return NULL;
	}
	trace->entries[n] = (struct trace_entry){ m->part, m->index, trace_now(), 0 };
	return &trace->entries[n];
}

static int run_operation(struct machine *m, const struct operation *op)
{
	m->index = op->index;
	m->code = op->code;
	m->flags = op->flags;
#ifdef ENGINE_TEST
	trace_operation(m);
	halt_point(m, 0);
#endif
	struct trace_entry *traced = __builtin_expect(trace != NULL, 0) ? trace_begin(m) : NULL;
	int r = run_once(m, op);
	if (op->flags & OP_FLAG_RETRY_BUSY) {
		int64_t until = clock_ms() + 1000;
		for (int pause = 1; (r == -EBUSY || r == -EINTR) && clock_ms() < until; pause = pause < 20 ? pause * 2 : 20) {
			sleep_ms(pause);
			r = run_once(m, op);
		}
	}
	if ((r == -ENOENT && op->flags & OP_FLAG_OK_MISSING) || (r == -EEXIST && op->flags & OP_FLAG_OK_EXISTS))
		r = 0;
	if (r < 0 && op->flags & OP_FLAG_OPTIONAL) {
		struct failure f;
		fill_failure(m, r, &f);
		if (m->host && m->host->warning)
			m->host->warning(m, &f);
		r = 0;
	}
	if (traced)
		traced->end = trace_now();
#ifdef ENGINE_TEST
	halt_point(m, 1);
#endif
	return r;
}

int run_part(struct machine *m, const struct plan *plan, enum part part, struct failure *failure)
{
	static const struct selection all = { .limit = UINT32_MAX };
	return run_some(m, plan, part, &all, failure);
}

int run_some(struct machine *m, const struct plan *plan, enum part part, const struct selection *which, struct failure *failure)
{
	const enum part outer_part = m->part;
	const uint32_t outer_index = m->index;
	const uint16_t outer_code = m->code, outer_flags = m->flags;
	const struct plan *const outer_plan = m->plan;
	const struct plan_cursor outer_next = m->next;
	int result = 0;
	struct operation op;
	uint32_t number = 0;
	m->part = part;
	m->plan = plan;
	m->done_ahead = 0;
	for (struct plan_cursor at = plan_start(plan, part); !plan_next(plan, &at, &op); number++) {
		if (number < which->skip || number - which->skip >= which->limit || (which->wanted && !which->wanted(&op)))
			continue;
		m->next = at;
		int r = run_operation(m, &op);
		if (r >= 0)
			continue;
		struct failure f;
		fill_failure(m, r, &f);
		if (!result && failure)
			*failure = f;
		if (!result)
			result = r;
		if (part != PART_AFTER)
			break;
		if (m->host && m->host->undo_failed)
			m->host->undo_failed(m, &f);
	}
	m->part = outer_part;
	m->index = outer_index;
	m->code = outer_code;
	m->flags = outer_flags;
	m->plan = outer_plan;
	m->next = outer_next;
	return result;
}

/* -- what the host does ----------------------------------------------------------------------------------------------------------- */

#define CALL(name, ...) (m->host && m->host->name ? m->host->name(m, ##__VA_ARGS__) : machine_fail(m, ENOTSUP, "not possible in this part"))

int do_stdio(struct machine *m, const struct op_stdio *o) { return CALL(stdio, o); }
int do_reach(struct machine *m, const struct op_reach *o) { return CALL(reach, o->point); }
int do_await_point(struct machine *m, const struct op_await_point *o) { return CALL(await_point, o->point); }
int do_release(struct machine *m, const struct op_release *o) { return CALL(release, o->point); }
int do_barrier(struct machine *m, const struct op_barrier *o) { return CALL(barrier, m->index, o); }
int do_hold_port(struct machine *m, const struct op_hold_port *o) { return CALL(hold_port, o); }
int do_join_container(struct machine *m, const struct op_join_container *o) { return CALL(join_container, (int)o->privileged); }

int do_spawn(struct machine *m, const struct op_spawn *o)
{
	pid_t pid = -1;
	int pidfd = -1;
	int r = CALL(spawn, o->flags, &pid, &pidfd);
	if (r < 0)
		return r;
	register_set_number(m, o->pid, REGISTER_PID, pid);
	register_set_fd(m, o->pidfd, pidfd);
	return 0;
}

int do_enter_group(struct machine *m, const struct op_enter_group *o) { return CALL(enter_group, o->path.p); }

int do_clone_into(struct machine *m, const struct op_clone_into *o)
{
	int cgroup = register_fd(m, o->cgroup);
	return cgroup < 0 ? cgroup : CALL(clone_into, cgroup);
}

int do_keep_namespaces(struct machine *m, const struct op_keep_namespaces *o)
{
	int64_t pid = -1;
	int r = register_number(m, o->pid, &pid);
	return r ? r : CALL(keep_namespaces, (pid_t)pid);
}

int do_close(struct machine *m, const struct op_close *o)
{
	register_clear(m, o->fd);
	return 0;
}

#ifdef ENGINE_TEST
/* Opened before the first operation and inherited by init, which cannot see the path any more. */
int test_folder(const char *variable, const char **name)
{
	static int folder = -1;
	static char path[512];
	const char *file = getenv(variable), *slash = file ? strrchr(file, '/') : NULL;
	if (!slash)
		return -1;
	*name = slash + 1;
	if (folder < 0) {
		snprintf(path, sizeof path, "%.*s", (int)(slash - file), file);
		int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		folder = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 200);
		if (fd >= 0)
			close(fd);
	}
	return folder;
}

/*
 * Tests only. ENGINE_HALT="part:index:before|after": make the file ENGINE_HALT_FILE with one line "halt operation pid" and wait until
 * it is removed (pid 1 of a pid namespace cannot be stopped). ENGINE_TRACE_FILE must lie in the same folder.
 */
void halt_point(struct machine *m, int after)
{
	const char *want = getenv("ENGINE_HALT"), *name;
	char here[64];
	int folder = test_folder("ENGINE_HALT_FILE", &name);
	if (!want || folder < 0)
		return;
	snprintf(here, sizeof here, "%s:%u:%s", part_names[m->part], m->index, after ? "after" : "before");
	if (strcmp(want, here))
		return;
	int fd = openat(folder, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	dprintf(fd, "%s %s %d\n", here, operation_name(m->code), getpid());
	close(fd);
	while (!faccessat(folder, name, F_OK, 0))
		sleep_ms(2);
}

/* ENGINE_TRACE_FILE: one line "part index name" per operation that is begun. */
void trace_operation(struct machine *m)
{
	const char *name;
	int folder = test_folder("ENGINE_TRACE_FILE", &name);
	int fd = folder < 0 ? -1 : openat(folder, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	dprintf(fd, "%s %u %s\n", part_names[m->part], m->index, operation_name(m->code));
	close(fd);
}
#endif
