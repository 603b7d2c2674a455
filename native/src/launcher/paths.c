/* Where things lie: our own folder, engined's socket. */
#include "launcher.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

const char *home_folder(void) {
	static char home[PATH_MAX];
	if (*home) return home;
	ssize_t n = readlink("/proc/self/exe", home, sizeof home - 1);
	if (n <= 0) die("/proc is not mounted: the engine can't find itself", NULL);
	home[n] = 0;
	for (int up = 0; up < 2; up++) { /* /bin/engine */
		char *slash = strrchr(home, '/');
		if (!slash) break;
		*slash = 0;
	}
	if (!*home) strcpy(home, "/");
	return home;
}

bool engined_place(struct place *place) {
	char path[PATH_MAX], cwd[PATH_MAX];
	const char *given;
	if ((given = variable("ENGINE_SOCKET"))) {
		if (!join(path, given, "", "")) return false;
	} else if ((given = variable("ENGINE_RUN_ROOT"))) {
		if (!join(path, given, "/", ENGINED_FILE_SOCKET)) return false;
	} else if (geteuid() == 0) {
		strcpy(path, "/run/engine/" ENGINED_FILE_SOCKET);
	} else {
		given = variable("XDG_RUNTIME_DIR");
		if (!given || *given != '/' || !join(path, given, "/engine/", ENGINED_FILE_SOCKET)) return false;
	}
	if (*path == '/') {
		if (!join(place->folder, path, "", "")) return false;
	} else if (!getcwd(cwd, sizeof cwd) || !join(place->folder, cwd, "/", path)) {
		return false;
	}
	char *slash = strrchr(place->folder, '/');
	if (!slash[1]) return false;
	*slash = 0;
	place->name = slash + 1;
	return true;
}

static bool ours(const struct stat *st) { return st->st_uid == 0 || st->st_uid == geteuid(); }

bool trusted_folder(int folder, const char **why) {
	struct stat st;
	*why = "the folder of its socket belongs to somebody else, or others can write to it";
	return !fstat(folder, &st) && ours(&st) && (!(st.st_mode & 022) || st.st_mode & S_ISVTX);
}

bool trusted_socket(int folder, const char *name, const char **why) {
	struct stat st;
	*why = "it does not run";
	if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW)) return false;
	*why = "its socket belongs to somebody else";
	return S_ISSOCK(st.st_mode) && ours(&st);
}

unsigned socket_address(struct sockaddr_un *address, const char *path, int folder, const char *name) {
	char number[21], whole[PATH_MAX];
	memset(address, 0, sizeof *address);
	address->sun_family = AF_UNIX;
	size_t there = strlen(path);
	if (there + 1 + strlen(name) < sizeof address->sun_path) {
		memcpy(address->sun_path, path, there);
		address->sun_path[there] = '/';
		strcpy(address->sun_path + there + 1, name);
	} else if (join(whole, "/proc/self/fd/", decimal((uint64_t)folder, number), "/") && strlen(whole) + strlen(name) < sizeof address->sun_path) {
		strcpy(address->sun_path, whole);
		strcat(address->sun_path, name);
	} else {
		return 0;
	}
	return (unsigned)(offsetof(struct sockaddr_un, sun_path) + strlen(address->sun_path) + 1);
}
