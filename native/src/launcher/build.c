/* In a checkout: is a source newer than the bundle? Every command without engined pays for it, so no other process looks. */
#include "launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static bool newer(int folder, const char *name, const struct timespec *stamp) {
	struct stat st;
	if (fstatat(folder, name, &st, 0)) return false;
	return st.st_mtim.tv_sec > stamp->tv_sec || (st.st_mtim.tv_sec == stamp->tv_sec && st.st_mtim.tv_nsec > stamp->tv_nsec);
}

static bool ends_with(const char *name, const char *end) {
	size_t n = strlen(name), m = strlen(end);
	return n > m && !strcmp(name + n - m, end);
}

/* Sources in a folder of `parent`, and in those below it: `least` to `most` levels down. */
static bool newer_sources(int parent, const char *name, int least, int most, bool packages, const struct timespec *stamp) {
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);
	if (!folder) {
		if (fd >= 0) close(fd);
		return false;
	}
	bool found = false;
	for (struct dirent *entry; !found && (entry = readdir(folder));) {
		const char *file = entry->d_name;
		if (*file == '.' || !strcmp(file, "node_modules")) continue;
		if (ends_with(file, ".ts")) found = least <= 0 && !ends_with(file, ".test.ts") && newer(fd, file, stamp);
		else if (packages && !strcmp(file, "package.json")) found = newer(fd, file, stamp);
		else if (most > 0 && (entry->d_type == DT_DIR || entry->d_type == DT_LNK || entry->d_type == DT_UNKNOWN)) found = newer_sources(fd, file, least - 1, most - 1, packages && most == 2, stamp);
	}
	closedir(folder);
	return found;
}

static bool stale(int home) {
	struct stat stamp;
	if (fstatat(home, "dist/.stamp", &stamp, 0)) return true;
	static const char *const packages[] = { "package.json", "core/package.json", "config/package.json", "native/package.json", NULL };
	for (const char *const *file = packages; *file; file++)
		if (newer(home, *file, &stamp.st_mtim)) return true;
	return newer_sources(home, "core", 1, 2, false, &stamp.st_mtim) || newer_sources(home, "config", 0, 1, false, &stamp.st_mtim) ||
		newer_sources(home, "native/ts", 0, 0, false, &stamp.st_mtim) || newer_sources(home, "plugins", 1, 2, true, &stamp.st_mtim);
}

static void build(const char *home, const char *node) {
	char script[PATH_MAX];
	if (!join(script, home, "/config/setup/build.ts", "")) return;
	pid_t child = fork();
	if (!child) {
		dup2(2, 1);
		char *words[] = { (char *)node, script, NULL };
		exec_node(words, environ);
	}
	int status = -1;
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {}
	if (child < 0 || !WIFEXITED(status) || WEXITSTATUS(status)) die("the build failed (see above)", NULL);
}

void build_when_stale(const char *home, const char *node) {
	struct stat st;
	if (variable("ENGINE_NO_BUILD")) return;
	int folder = open(home, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0) return;
	if (!fstatat(folder, "node_modules/rolldown", &st, 0) && S_ISDIR(st.st_mode) && !faccessat(folder, ".", W_OK, AT_EACCESS) && stale(folder)) {
		mkdirat(folder, "dist", 0777);
		/* of several that start at once one builds */
		int lock = openat(folder, "dist/.build.lock", O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
		while (lock >= 0 && flock(lock, LOCK_EX) && errno == EINTR) {}
		if (stale(folder)) build(home, node);
		if (lock >= 0) close(lock);
	}
	close(folder);
}
