/* Under the name engine-oci: an OCI runtime's command. Without a resident engine a Node process of our own serves it, by the same frames. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define SERVE_FD 3

bool oci;

static bool is_name(const char *path) {
	const char *slash = strrchr(path, '/');
	return !strcmp(slash ? slash + 1 : path, "engine-oci");
}

/* By any name that leads to bin/engine-oci, and by that name to whatever it leads. */
bool called_oci(const char *word) {
	char path[PATH_MAX];
	if (word && is_name(word)) return true;
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
	if (n <= 0) return false;
	path[n] = 0;
	return is_name(path);
}

/* Where the verb is: runc's global flags take their values as the next word, or after "=". */
bool oci_only_reads(int argc, char **argv) {
	static const char *const with_value[] = { "root", "log", "log-format", "criu", "rootless", "cgroup-manager", NULL };
	static const char *const verbs[] = { "state", "list", "ps", "events", "features", "help", "h", "spec", NULL };
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i];
		if (*word != '-') {
			for (const char *const *verb = verbs; *verb; verb++)
				if (!strcmp(word, *verb)) return strcmp(word, "spec") != 0;
			return false;
		}
		while (*word == '-') word++;
		if (!strcmp(word, "version") || !strcmp(word, "v") || !strcmp(word, "help") || !strcmp(word, "h")) return true;
		for (const char *const *flag = with_value; *flag; flag++)
			if (!strcmp(word, *flag)) {
				i++;
				break;
			}
	}
	return true;
}

int own_engine(void) {
	const char *node = node_program(), *script = start_script();
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) die("cannot make a socket: ", errno_text(errno), NULL);
	pid_t pid = fork();
	if (pid < 0) die("cannot fork: ", errno_text(errno), NULL);
	if (!pid) {
		/* a terminal's signals are for us, who say them; the caller's input and output too */
		setsid();
		int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (nothing < 0 || dup2(nothing, 0) < 0 || dup2(nothing, 1) < 0) _exit(EXIT_OCI);
		int high = fcntl(ends[1], F_DUPFD_CLOEXEC, SERVE_FD + 1);
		if (high < 0 || dup2(high, SERVE_FD) < 0) _exit(EXIT_OCI);
		syscall(SYS_close_range, SERVE_FD + 1, ~0u, 0);
		signals_restore();
		char *words[] = { (char *)node, "--disable-warning=ExperimentalWarning", "--", (char *)script, "--serve-one", NULL };
		exec_node(words, environ);
	}
	close(ends[1]);
	child_add(pid);
	return ends[0];
}
