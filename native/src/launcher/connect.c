/* The way to engined: nothing is sent before it is clear whom we speak to. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int connect_engined(const struct place *place, int *folder, const char **why) {
	*why = "it does not run";
	*folder = open(*place->folder ? place->folder : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*folder < 0 || !trusted_folder(*folder, why) || !trusted_socket(*folder, place->name, why)) return -1;
	struct sockaddr_un address;
	socklen_t length = socket_address(&address, place->folder, *folder, place->name);
	if (!length) return -1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) return -1;
	*why = "its socket does not answer";
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t size = sizeof peer;
	if (!connect(fd, (struct sockaddr *)&address, length)) {
		*why = "its process belongs to somebody else";
		if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) && (peer.uid == 0 || peer.uid == geteuid())) return fd;
	}
	close(fd);
	return -1;
}

#define BACKLOG_MS 10000 /* for somebody who is slow to accept */

int connect_path(const char *path) {
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	size_t length = slash == path ? 1 : slash ? (size_t)(slash - path) : 1;
	if (!*name || length >= sizeof folder) return *name ? -ENAMETOOLONG : -ENOENT;
	memcpy(folder, slash ? path : ".", length);
	folder[length] = 0;
	int where = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (where < 0) return -errno;
	struct sockaddr_un address;
	socklen_t size = socket_address(&address, folder, where, name);
	int fd = size ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1, error = size ? fd < 0 ? errno : 0 : ENAMETOOLONG;
	/* a full backlog is EAGAIN, and nothing to poll for */
	for (int64_t until = now_ms() + BACKLOG_MS; !error && connect(fd, (struct sockaddr *)&address, size); poll(NULL, 0, 10))
		if (errno != EINTR && (errno != EAGAIN || now_ms() > until)) error = errno;
	if (!error && fcntl(fd, F_SETFL, 0)) error = errno;
	close(where);
	if (error && fd >= 0) close(fd);
	return error ? -error : fd;
}
