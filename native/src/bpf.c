/* BPF programs for cgroups: written in TypeScript, loaded and attached here. */
#include "ops.h"
#include <linux/bpf.h>
#include <stdio.h>

static int bpf(int command, union bpf_attr *a)
{
	return (int)syscall(SYS_bpf, command, a, sizeof *a);
}

int do_bpf_program(struct machine *m, const struct op_bpf_program *o)
{
	if (!o->instructions.n || o->instructions.n % sizeof(struct bpf_insn))
		return machine_fail(m, EINVAL, "%u bytes are no BPF instructions", o->instructions.n);
	union bpf_attr a;
	memset(&a, 0, sizeof a);
	a.prog_type = o->type;
	a.expected_attach_type = o->attach_type;
	a.insns = (uint64_t)(uintptr_t)o->instructions.p;
	a.insn_cnt = o->instructions.n / (uint32_t)sizeof(struct bpf_insn);
	a.license = (uint64_t)(uintptr_t)(o->license.n ? o->license.p : "Apache-2.0");
	memcpy(a.prog_name, "engine", 6);
	int fd;
	/* the verifier gives way to signals (EAGAIN) */
	for (int tries = 0; (fd = bpf(BPF_PROG_LOAD, &a)) < 0 && errno == EAGAIN && tries < 5; tries++)
		;
	if (fd < 0) {
		int error = errno;
		/* once more, for its reasons: the last line says it */
		static char text[4096];
		a.log_buf = (uint64_t)(uintptr_t)text;
		a.log_size = sizeof text;
		a.log_level = 1;
		fd = bpf(BPF_PROG_LOAD, &a);
		if (fd < 0)
			return machine_fail(m, error, "BPF program of %u instructions: %.300s", a.insn_cnt, strlen(text) > 300 ? text + strlen(text) - 300 : text);
	}
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	register_set_fd(m, o->out, fd);
	return 0;
}

int do_bpf_attach(struct machine *m, const struct op_bpf_attach *o)
{
	int cgroup = register_fd(m, o->cgroup), program = register_fd(m, o->program);
	if (cgroup < 0 || program < 0)
		return -EBADF;
	union bpf_attr a;
	memset(&a, 0, sizeof a);
	a.target_fd = (uint32_t)cgroup;
	a.attach_bpf_fd = (uint32_t)program;
	a.attach_type = o->type;
	a.attach_flags = o->flags;
	return bpf(BPF_PROG_ATTACH, &a) ? -errno : 0;
}
