/* Finding the program and becoming it. */
#include "resolve.h"
#include <signal.h>
#include <sys/prctl.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

int do_ensure_workdir(struct machine *m, const struct op_ensure_workdir *o)
{
	static const struct folder_attributes folder = { 0755, 0, 0, 0 };
	int root = register_fd(m, o->root);
	if (root < 0)
		return root;
	int fd = resolve_mkdirs(root, o->path.p, &folder, NULL);
	if (fd < 0)
		return machine_fail(m, -fd, "working directory %.300s", o->path.p);
	close(fd);
	return 0;
}

int do_chdir(struct machine *m, const struct op_chdir *o)
{
	char cwd[8192];
	if (chdir(o->path.p))
		return machine_fail(m, errno, "working directory %.300s", o->path.p);
	/* CVE-2024-21626: the raw call gives "(unreachable)/..." for a folder outside the root, such as one by a leaked fd */
	long n = syscall(SYS_getcwd, cwd, sizeof cwd);
	if (n <= 0 || cwd[0] != '/') {
		int error = n <= 0 && errno != ENOENT ? errno : EXDEV;
		(void)!chdir("/");
		return machine_fail(m, error, "the working directory %.300s lies outside the root", o->path.p);
	}
	return 0;
}

static const char *variable(struct strs env, const char *name)
{
	size_t n = strlen(name);
	struct str s;
	while (!strs_next(&env, &s))
		if (!strncmp(s.p, name, n) && s.p[n] == '=')
			return s.p + n + 1;
	return NULL;
}

/* 0 executable, else -errno. */
static int check_program(const char *path)
{
	struct stat st;
	if (stat(path, &st))
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (!S_ISREG(st.st_mode))
		return -EACCES;
	/* by the effective ids; a filter may refuse the call, then execve itself has the last word */
	if (!syscall(SYS_faccessat2, AT_FDCWD, path, X_OK, AT_EACCESS))
		return 0;
	if (errno == ENOSYS || errno == EPERM)
		return st.st_mode & 0111 ? 0 : -EACCES;
	return -errno;
}

int do_resolve_exec(struct machine *m, const struct op_resolve_exec *o)
{
	char path[4097];
	int r = -ENOENT;
	if (!o->name.n)
		return machine_fail(m, ENOENT, "no command is given");
	if (strchr(o->name.p, '/')) {
		if (o->name.n >= sizeof path)
			return -ENAMETOOLONG;
		strcpy(path, o->name.p);
		r = check_program(path);
	} else {
		const char *list = variable(o->env, "PATH");
		if (!list)
			list = DEFAULT_PATH;
		for (const char *p = list; r; p++) {
			size_t n = strcspn(p, ":");
			int w = snprintf(path, sizeof path, "%.*s%s%s", (int)n, p, n ? "/" : "./", o->name.p);
			int e = w < 0 || (size_t)w >= sizeof path ? -ENAMETOOLONG : check_program(path);
			if (!e || (e == -EACCES && r == -ENOENT))
				r = e;
			p += n;
			if (!*p)
				break;
		}
	}
	if (r == -ENOTDIR)
		r = -ENOENT;
	if (r == -ENOENT)
		return machine_fail(m, ENOENT, strchr(o->name.p, '/') ? "no such file: %.200s" : "executable file not found in $PATH: %.200s", o->name.p);
	if (r)
		return machine_fail(m, -r, "%s: %.200s", r == -EISDIR ? "is a directory" : "not executable", o->name.p);
	char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	register_set_data(m, o->out, REGISTER_TEXT, (int64_t)strlen(copy), copy);
	return 0;
}

int do_close_fds(struct machine *m, const struct op_close_fds *o)
{
	uint32_t first = m->preserved && o->from < 3 + m->preserved ? 3 + m->preserved : o->from;
	return sys_close_range(first, ~0u, CLOSE_RANGE_CLOEXEC_);
}

void reset_signals(void)
{
	/* raw calls: libc hides the realtime signals it uses itself, and an ignored one would stay ignored over execve */
	struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; } none = { 0 };
	uint64_t empty = 0;
	for (int s = 1; s <= 64; s++)
		syscall(SYS_rt_sigaction, s, &none, NULL, 8);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &empty, NULL, 8);
}

int do_exec(struct machine *m, const struct op_exec *o)
{
	if (o->program >= MAX_REGISTERS || m->registers[o->program].kind != REGISTER_TEXT)
		return machine_fail(m, EBADF, "register %u holds no program", o->program);
	const char *program = m->registers[o->program].data;
	char **argv = strs_array(o->argv);
	char **env = calloc((size_t)o->env.count + 2, sizeof *env);
	char *home = NULL;
	if (!argv || !env)
		return -ENOMEM;
	struct strs list = o->env;
	struct str s;
	size_t n = 0;
	while (!strs_next(&list, &s))
		env[n++] = (char *)(uintptr_t)s.p;
	if (m->home && !variable(o->env, "HOME")) {
		size_t size = strlen(m->home) + 6;
		if (!(home = malloc(size)))
			return -ENOMEM;
		snprintf(home, size, "HOME=%s", m->home);
		env[n++] = home;
	}
	reset_signals();
	int error = m->host && m->host->before_exec ? -m->host->before_exec(m) : 0;
	if (!error)
		execve(program, argv, env);
	const int refused = error;
	if (!error)
		error = errno;
	free(argv);
	free(env);
	free(home);
	if (refused)
		return -refused;
	return machine_fail(m, error, "%s: %.300s", error == ENOEXEC ? "not a program of this machine, or a script without #!" :
			    error == ENOENT ? "its interpreter is missing" : "cannot be executed", program);
}
