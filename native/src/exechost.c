/* Programs of the host, and hooks, in the namespaces of this part: with nothing of ours, bounded in time. */
#include "ops.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

/* The input as a file, so that nobody has to feed it and nobody waits for one who does not read; where a filter forbids that, a pipe that holds it all. */
static int input_file(const struct program *p)
{
	int fd = memfd_create("stdin", MFD_CLOEXEC | MFD_NOEXEC_SEAL), ends[2], r = 0;
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("stdin", MFD_CLOEXEC);
	const int error = errno, as_pipe = fd < 0;
	if (as_pipe) {
		size_t size = 4096;
		for (int i = 0; i < PROGRAM_INPUTS; i++)
			size += p->input[i].n;
		if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
			return -error;
		if (fcntl(ends[1], F_SETPIPE_SZ, (int)size) < 0 && size > 65536)
			r = -errno;
		fd = ends[1];
	}
	for (int i = 0; !r && i < PROGRAM_INPUTS; i++)
		r = write_all(fd, p->input[i].p, p->input[i].n);
	if (as_pipe) {
		close(fd);
		fd = ends[0];
		if (!r && fcntl(fd, F_SETFL, 0))
			r = -errno;
	} else if (!r && lseek(fd, 0, SEEK_SET) < 0) {
		r = -errno;
	}
	if (r)
		close(fd);
	return r ? r : fd;
}

static void become(struct machine *m, const struct program *p, int in, int out, int report)
{
	reset_signals();
	setsid();
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (m->host && m->host->program_starts)
		m->host->program_starts();
	if (dup2(in, 0) >= 0 && dup2(out, 1) >= 0 && dup2(out, 2) >= 0 && !sys_close_range(3, ~0u, CLOSE_RANGE_CLOEXEC_) && (!p->cwd || !chdir(p->cwd)))
		execve(p->path, p->argv, p->env);
	int error = errno;
	(void)!write(report, &error, sizeof error);
	_exit(127);
}

/* Appends to the last words of a program what there is of them; 0 at their end. */
static ssize_t hear(int out, char *words, size_t size)
{
	char chunk[512];
	ssize_t got = read(out, chunk, sizeof chunk);
	if (got <= 0)
		return got;
	size_t n = strlen(words), keep = (size_t)got < size - 1 ? (size_t)got : size - 1;
	if (n + keep > size - 1) {
		size_t cut = n + keep - (size - 1);
		memmove(words, words + cut, n - cut);
		n -= cut;
	}
	memcpy(words + n, chunk + got - keep, keep);
	words[n + keep] = 0;
	return got;
}

/* Keeps the last words of the program; 0 exited with *status, or -ETIMEDOUT. `until` 0: for ever. */
static int attend(pid_t child, int out, int64_t until, char *words, size_t size, int *status)
{
	/* a filter may forbid it: then we look again and again */
	AUTO_CLOSE int ended = (int)syscall(SYS_pidfd_open, child, 0);
	for (;;) {
		struct pollfd p[] = { { out, POLLIN, 0 }, { ended, POLLIN, 0 } };
		int64_t left = until ? until - clock_ms() : INT32_MAX;
		if (left > 0 && poll(p, 2, ended < 0 ? 5 : (int)left) > 0 && p[0].revents && hear(out, words, size) <= 0)
			out = -1; /* not polled any more */
		pid_t r = waitpid(child, status, WNOHANG);
		if (r == child) {
			/* what it wrote at its end; others may hold the pipe open */
			while (out >= 0 && poll(&(struct pollfd){ out, POLLIN, 0 }, 1, 0) > 0 && hear(out, words, size) > 0)
				;
			return 0;
		}
		if (r < 0 && errno != EINTR)
			return -errno;
		if (ended < 0 && out < 0)
			sleep_ms(1);
		if (until && clock_ms() >= until) {
			kill(-child, SIGKILL);
			kill(child, SIGKILL);
			while (waitpid(child, status, 0) < 0 && errno == EINTR)
				;
			return -ETIMEDOUT;
		}
	}
}

int run_program(struct machine *m, const struct program *p)
{
	int out[2], report[2], status = 0, error = 0;
	char words[200] = "";
	if (p->path[0] != '/')
		return machine_fail(m, EINVAL, "not an absolute path: %.200s", p->path);
	AUTO_CLOSE int in = input_file(p);
	if (in < 0)
		return machine_fail(m, -in, "input of %.200s", p->path);
	if (pipe2(out, O_CLOEXEC))
		return -errno;
	AUTO_CLOSE int out_read = out[0];
	AUTO_CLOSE int out_write = out[1];
	if (pipe2(report, O_CLOEXEC))
		return -errno;
	AUTO_CLOSE int report_read = report[0];
	AUTO_CLOSE int report_write = report[1];
	int64_t until = p->deadline ? clock_ms() + p->deadline : 0;
	pid_t child = fork();
	if (child < 0)
		return -errno;
	if (!child)
		become(m, p, in, out_write, report_write);
	close(take_fd(&out_write));
	close(take_fd(&report_write));
	int r = attend(child, out_read, until, words, sizeof words, &status);
	if (r == -ETIMEDOUT)
		return machine_fail(m, ETIMEDOUT, "%.100s did not end within %u ms", p->path, p->deadline);
	if (r)
		return machine_fail(m, -r, "waiting for %.100s", p->path);
	if (read(report_read, &error, sizeof error) == sizeof error)
		return machine_fail(m, error, "cannot execute %.200s", p->path);
	if (WIFSIGNALED(status))
		return machine_fail(m, EREMOTEIO, "%.100s was killed by signal %d%s%s", p->path, WTERMSIG(status), *words ? ": " : "", words);
	if (WEXITSTATUS(status))
		return machine_fail(m, EREMOTEIO, "%.100s exited with %d%s%s", p->path, WEXITSTATUS(status), *words ? ": " : "", words);
	return 0;
}

int do_exec_host(struct machine *m, const struct op_exec_host *o)
{
	AUTO_FREE char **argv = strs_array(o->argv);
	AUTO_FREE char **env = strs_array(o->env);
	if (!argv || !env)
		return -ENOMEM;
	if (!argv[0])
		return machine_fail(m, EINVAL, "not an absolute path");
	/* without a deadline it has none: it is not asked for ever */
	const struct program p = { .path = argv[0], .argv = argv, .env = env, .deadline = o->deadline ? o->deadline : 1, .input = { { (const char *)o->stdin_.p, o->stdin_.n } } };
	return run_program(m, &p);
}
