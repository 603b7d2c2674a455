/* execHost: a program of the host in the namespaces of this part, bounded in time. */
#include "ops.h"
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

/* The input as a file, so that nobody has to feed it. */
static int input_file(struct bytes data)
{
	int fd = memfd_create("stdin", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("stdin", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	int r = write_all(fd, data.p, data.n);
	if (!r && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	if (r)
		close(fd);
	return r ? r : fd;
}

static void become(char **argv, char **env, int in, int out, int report)
{
	reset_signals();
	setsid();
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (dup2(in, 0) >= 0 && dup2(out, 1) >= 0 && dup2(out, 2) >= 0 && !sys_close_range(3, ~0u, CLOSE_RANGE_CLOEXEC_))
		execve(argv[0], argv, env);
	int error = errno;
	(void)!write(report, &error, sizeof error);
	_exit(127);
}

/* Keeps the last words of the program; 0 exited with *status, or -ETIMEDOUT. */
static int attend(pid_t child, int out, int64_t until, char *words, size_t size, int *status)
{
	size_t n = 0;
	for (;;) {
		struct pollfd p = { out, POLLIN, 0 };
		int ready = poll(&p, 1, 5);
		if (ready > 0) {
			char chunk[256];
			ssize_t got = read(out, chunk, sizeof chunk);
			if (got > 0) {
				size_t keep = (size_t)got < size - 1 ? (size_t)got : size - 1;
				if (n + keep > size - 1) {
					size_t cut = n + keep - (size - 1);
					memmove(words, words + cut, n - cut);
					n -= cut;
				}
				memcpy(words + n, chunk + got - keep, keep);
				n += keep;
				words[n] = 0;
				if (clock_ms() < until)
					continue;
			} else if (got == 0) {
				sleep_ms(1);
			}
		}
		pid_t r = waitpid(child, status, WNOHANG);
		if (r == child)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (clock_ms() >= until) {
			kill(-child, SIGKILL);
			kill(child, SIGKILL);
			while (waitpid(child, status, 0) < 0 && errno == EINTR)
				;
			return -ETIMEDOUT;
		}
	}
}

int do_exec_host(struct machine *m, const struct op_exec_host *o)
{
	AUTO_FREE char **argv = strs_array(o->argv);
	AUTO_FREE char **env = strs_array(o->env);
	int out[2], report[2], status = 0, error = 0;
	char words[200] = "";
	if (!argv || !env)
		return -ENOMEM;
	if (!argv[0] || argv[0][0] != '/')
		return machine_fail(m, EINVAL, "not an absolute path");
	AUTO_CLOSE int in = input_file(o->stdin_);
	if (in < 0)
		return in;
	if (pipe2(out, O_CLOEXEC))
		return -errno;
	AUTO_CLOSE int out_read = out[0];
	AUTO_CLOSE int out_write = out[1];
	if (pipe2(report, O_CLOEXEC))
		return -errno;
	AUTO_CLOSE int report_read = report[0];
	AUTO_CLOSE int report_write = report[1];
	int64_t until = clock_ms() + o->deadline;
	pid_t child = fork();
	if (child < 0)
		return -errno;
	if (!child)
		become(argv, env, in, out_write, report_write);
	close(take_fd(&out_write));
	close(take_fd(&report_write));
	int r = attend(child, out_read, until, words, sizeof words, &status);
	if (r)
		return machine_fail(m, -r, "%.100s did not end within %u ms", argv[0], o->deadline);
	if (read(report_read, &error, sizeof error) == sizeof error)
		return machine_fail(m, error, "cannot execute %.200s", argv[0]);
	if (WIFSIGNALED(status))
		return machine_fail(m, EREMOTEIO, "%.100s was killed by signal %d: %s", argv[0], WTERMSIG(status), words);
	if (WEXITSTATUS(status))
		return machine_fail(m, EREMOTEIO, "%.100s exited with %d: %s", argv[0], WEXITSTATUS(status), words);
	return 0;
}
