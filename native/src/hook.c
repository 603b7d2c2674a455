/* Operations for who stands above a run that is handed over: hooks of the OCI spec, the wait for `start`, seccomp's listener. */
#include "ops.h"
#include <linux/filter.h>
#include <linux/seccomp.h>

#ifndef SECCOMP_FILTER_FLAG_NEW_LISTENER
#define SECCOMP_FILTER_FLAG_NEW_LISTENER (1UL << 3)
#endif

int do_hook(struct machine *m, const struct op_hook *o)
{
	AUTO_FREE char **argv = strs_array(o->argv);
	AUTO_FREE char **env = strs_array(o->env);
	char *alone[] = { (char *)(uintptr_t)o->path.p, NULL }, number[24] = "";
	int64_t pid = getpid();
	int r = o->pid == NO_REGISTER ? 0 : register_number(m, o->pid, &pid);
	if (!argv || !env)
		return -ENOMEM;
	if (r)
		return r;
	if (o->state_tail.n)
		snprintf(number, sizeof number, "%lld", (long long)pid);
	const struct program p = {
		.path = o->path.p, .cwd = o->cwd.n ? o->cwd.p : NULL, .argv = argv[0] ? argv : alone, .env = env, .deadline = o->timeout,
		.input = { { o->state_head.p, o->state_head.n }, { number, strlen(number) }, { o->state_tail.p, o->state_tail.n } },
	};
	return run_program(m, &p);
}

int do_await_start(struct machine *m, const struct op_await_start *o)
{
	(void)o;
	return m->host && m->host->await_start ? m->host->await_start(m) : machine_fail(m, ENOTSUP, "not possible in this part");
}

/*
 * The first call after the filter is loaded may be one that waits for the agent's answer. So the number of the listener is told before, the shim fetches it
 * and passes it on without our help, and only then do we go on: by read and close, which an agent can answer.
 */
int do_seccomp_notify(struct machine *m, const struct op_seccomp_notify *o)
{
	if (!m->host || !m->host->announce_listener)
		return machine_fail(m, ENOTSUP, "not possible in this part");
	if (o->filter.n % sizeof(struct sock_filter) || o->filter.n / sizeof(struct sock_filter) > BPF_MAXINSNS)
		return machine_fail(m, EINVAL, "a filter of %u bytes", o->filter.n);
	int r = m->host->before_filter ? m->host->before_filter(m) : 0;
	if (r)
		return r;
	struct sock_fprog program = { (unsigned short)(o->filter.n / sizeof(struct sock_filter)), (struct sock_filter *)(uintptr_t)o->filter.p };
	int number = open("/", O_PATH | O_CLOEXEC);
	if (number < 0)
		return -errno;
	close(number);
	r = m->host->announce_listener(m, number, o);
	if (r)
		return r;
	int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, o->flags | SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	if (listener < 0)
		return machine_fail(m, errno, errno == EBUSY ? "this process has a listener already" : "seccomp");
	r = m->host->await_listener(m);
	/* an agent that goes would not be missed otherwise */
	close(listener);
	return r;
}
