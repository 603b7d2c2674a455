/* The way to engined: nothing is sent before it is clear whom we speak to. */
#include "launcher.h"

#include <fcntl.h>
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
