/* RUN/shim.sock: who connects is a client when it is root or has the shim's own uid. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct source listener = { .fd = -1 };

static void listener_ready(struct source *source, uint32_t events) {
	(void)events;
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0) return;
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t size = sizeof peer;
	if (client_count() >= MAX_CLIENTS || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) || (peer.uid != 0 && peer.uid != geteuid())) {
		close(fd);
		return;
	}
	client_add(fd, false);
}

int clients_listen(int run_folder) {
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) return errno;
	/* the folder's own path may be longer than sun_path */
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/shim.sock", run_folder);
	unlinkat(run_folder, "shim.sock", 0);
	mode_t mask = umask(0177);
	int failed = bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1024) ? errno : 0;
	umask(mask);
	if (failed) {
		close(fd);
		return failed;
	}
	listener.fd = fd;
	listener.ready = listener_ready;
	source_want(&listener, EPOLLIN);
	return 0;
}

void clients_stop_listening(int run_folder) {
	if (listener.fd < 0) return;
	source_close(&listener);
	unlinkat(run_folder, "shim.sock", 0);
}

void listener_forget(void) {
	if (listener.fd >= 0) close(listener.fd);
	listener.fd = -1;
}
