/* Operations of a run that is handed over to its caller: hooks of the OCI spec, the wait for `start`, seccomp's listener. */
#define _GNU_SOURCE
#include "interpreter.h"
#include "ops.h"

#include <errno.h>

int do_hook(struct machine *m, const struct op_hook *o) { return machine_fail(m, ENOSYS, "hook %.300s", o->path.p); }
int do_await_start(struct machine *m, const struct op_await_start *o)
{
	(void)o;
	return m->host && m->host->await_start ? m->host->await_start(m) : machine_fail(m, ENOTSUP, "not possible in this part");
}

int do_seccomp_notify(struct machine *m, const struct op_seccomp_notify *o) { return machine_fail(m, ENOSYS, "listener %.300s", o->socket.p); }
