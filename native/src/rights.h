/* An fd on its way to another process, the same for the shim, the launcher and the library. */
#ifndef ENGINE_RIGHTS_H
#define ENGINE_RIGHTS_H
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

#define MAX_RIGHTS 32

/*
 * sendmsg of `size` bytes (1 or more) with `count` (1 to MAX_RIGHTS) fds by SCM_RIGHTS, which come along with the first byte. SIGPIPE never comes; `flags`: more of sendmsg's. How
 * many bytes went, or -errno.
 */
static inline ssize_t rights_send(int socket, const void *bytes, size_t size, const int *fds, size_t count, int flags) {
	union { char bytes[CMSG_SPACE(MAX_RIGHTS * sizeof(int))]; struct cmsghdr align; } control;
	struct iovec part = { (void *)(uintptr_t)bytes, size };
	if (count < 1 || count > MAX_RIGHTS) return -EINVAL;
	memset(&control, 0, sizeof control);
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
	struct cmsghdr *head = CMSG_FIRSTHDR(&m);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(head), fds, count * sizeof(int));
	for (;;) {
		ssize_t n = sendmsg(socket, &m, MSG_NOSIGNAL | flags);
		if (n >= 0) return n;
		if (errno != EINTR) return -errno;
	}
}
#endif
