/*
 * libengine.so: the few system calls that the engine makes by itself and that would be clumsy or unsafe one by one from JavaScript.
 * Every function returns a result or -errno, and touches no signal handler, no thread and no fd but its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bind.h"
#include "rights.h"

#define ABI 8
#define MAX_FDS 32
#define EXPORT __attribute__((visibility("default")))

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif
#ifndef SYS_open_tree
#define SYS_open_tree 428
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

/* Checked when the library is loaded. */
EXPORT int engine_abi(void) { return ABI; }

struct request {
	int program;
	char *const *argv, *const *envp;
	const int *fds;
	int count;
	volatile int error, pid;
	char *inner_stack;
};
#define OUTER_STACK 8192
#define INNER_STACK 16384

static int inner(void *argument) {
	struct request *r = argument;
	int high[MAX_FDS], first = 3 + r->count;
	/* out of the way first: a source may stand where another one is to go */
	int program = fcntl(r->program, F_DUPFD_CLOEXEC, first + 1);
	if (program < 0) goto failed;
	for (int i = 0; i < r->count; i++) {
		high[i] = r->fds[i] < 0 ? -1 : fcntl(r->fds[i], F_DUPFD_CLOEXEC, first + 1);
		if (r->fds[i] >= 0 && high[i] < 0) goto failed;
	}
	for (int i = 0; i < r->count; i++) {
		if (high[i] < 0) close(3 + i);
		else if (dup2(high[i], 3 + i) < 0) goto failed;
	}
	if (dup3(program, first, O_CLOEXEC) < 0) goto failed;
	if (syscall(SYS_close_range, first + 1, ~0u, 0)) goto failed;
	syscall(SYS_execveat, first, "", r->argv, r->envp, AT_EMPTY_PATH);
failed:
	r->error = errno;
	_exit(127);
}

static int outer(void *argument) {
	struct request *r = argument;
	int pid = clone(inner, r->inner_stack + INNER_STACK, CLONE_VM | CLONE_VFORK, r);
	if (pid < 0) r->error = errno;
	r->pid = pid;
	_exit(0);
}

/*
 * Start `program` (an executable fd) with fds[i] as fd 3 + i (-1: closed) and no other fd above 2, all signals blocked (which are ignored is the
 * program's to set right). The new process is nobody's child: the nearest subreaper or pid 1 collects it, the caller never sees a zombie or
 * a SIGCHLD. Returns its pid. On any thread, which waits until the exec.
 */
EXPORT int engine_spawn(int program, char *const argv[], char *const envp[], const int *fds, int count) {
	if (count < 0 || count > MAX_FDS) return -EINVAL;
	char *stacks = malloc(OUTER_STACK + INNER_STACK);
	if (!stacks) return -ENOMEM;
	struct request r = { .program = program, .argv = argv, .envp = envp, .fds = fds, .count = count, .inner_stack = stacks };
	uint64_t all = ~(uint64_t)0, before;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all);
	int cancelled = 0;
	/*
	 * as vfork: the memory is shared, this thread waits until the exec. exit_signal 0: no SIGCHLD for the caller's handler. The process in between does
	 * nothing that a table of fds of its own would be needed for
	 */
	int pid = clone(outer, stacks + INNER_STACK + OUTER_STACK, CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_FS, &r);
	int error = pid < 0 ? errno : 0;
	if (pid > 0) while (waitpid(pid, &cancelled, __WALL) < 0 && errno == EINTR) {}
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof before);
	free(stacks);
	if (error) return -error;
	return r.error ? -r.error : r.pid;
}

/*
 * The file at `path` as something to execute that nobody can write to, not even through /proc/PID/exe (CVE-2019-5736): a sealed memfd, or,
 * where memfds may not be executed (vm.memfd_noexec=2), a read-only mount of the file that is attached nowhere.
 */
EXPORT int engine_executable(const char *path) {
	int file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0) return -errno;
	int fd = memfd_create("engine-shim", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
	/* MFD_EXEC is Linux 6.3 */
	if (fd < 0 && errno == EINVAL) fd = memfd_create("engine-shim", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0) {
		int refused = errno;
		close(file);
		if (refused != EACCES && refused != EPERM) return -refused;
		fd = (int)syscall(SYS_open_tree, AT_FDCWD, path, 1u | O_CLOEXEC);
		if (fd < 0) return -errno;
		struct { uint64_t set, clear, propagation, userns; } readonly = { .set = 1 /* MOUNT_ATTR_RDONLY */ };
		if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &readonly, sizeof readonly)) {
			refused = errno;
			close(fd);
			return -refused;
		}
		return fd;
	}
	struct stat st;
	int error = fstat(file, &st) ? errno : 0;
	for (off_t done = 0; !error && done < st.st_size;) {
		ssize_t n = sendfile(fd, file, NULL, (size_t)(st.st_size - done));
		if (n < 0) error = errno;
		else if (!n) error = EIO;
		done += n;
	}
	close(file);
	if (!error && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)) error = errno;
	if (error) {
		close(fd);
		return -error;
	}
	return fd;
}

/*
 * flock `path` without waiting, or, with `byte` >= 0, lock that one byte of it (for as long as this open file description lives). -EWOULDBLOCK when it is
 * held; -ESTALE when the file was replaced or removed meanwhile.
 */
EXPORT int engine_lock(const char *path, int create, int shared, int64_t byte) {
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600);
	if (fd < 0) return -errno;
	struct flock one = { .l_type = shared ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
	int error = (byte >= 0 ? fcntl(fd, F_OFD_SETLK, &one) : flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB)) ? errno : 0;
	if (error == EACCES) error = EAGAIN; /* fcntl may say either */
	struct stat ours, there;
	/* a lock on a file that is no longer at its name protects nothing */
	if (!error && (fstat(fd, &ours) || stat(path, &there) || ours.st_ino != there.st_ino || ours.st_dev != there.st_dev)) error = ESTALE;
	if (!error) return fd;
	close(fd);
	return -error;
}

EXPORT int engine_socketpair(int *fds) { return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) ? -errno : 0; }

/* The same for messages that keep their borders. */
EXPORT int engine_packetpair(int *fds) { return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) ? -errno : 0; }

/* Could a shim hold this port of an address of 4 or 16 bytes now? 0 yes, or -errno. What this kernel has no sockets for, nobody else holds either. */
EXPORT int engine_try_bind(int protocol, const uint8_t *address, int length, int port) {
	int fd = bind_port((uint32_t)protocol, address, (uint32_t)length, (uint32_t)port);
	if (fd < 0) return bind_impossible(-fd) ? 0 : fd;
	close(fd);
	return 0;
}

/* Who connected a unix socket: pid, uid, gid. */
EXPORT int engine_peer(int socket, int32_t *ids) {
	struct ucred peer;
	socklen_t size = sizeof peer;
	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size)) return -errno;
	ids[0] = peer.pid;
	ids[1] = (int32_t)peer.uid;
	ids[2] = (int32_t)peer.gid;
	return 0;
}

/* Layers go through these: 1 MiB instead of 64 KiB saves a wake-up for every 64 KiB. Beyond the user's quota it stays as it is. */
EXPORT int engine_pipe(int *fds)
{
	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	fcntl(fds[1], F_SETPIPE_SZ, 1 << 20);
	return 0;
}

/* sendmsg of `length` bytes with `count` (1 or more) fds by SCM_RIGHTS. Never waits. How many bytes went (with the first of them all fds), or -errno (-EAGAIN: the socket is full, nothing has gone). */
EXPORT int engine_send_fds(int socket, const void *bytes, int length, const int *fds, int count) {
	if (count < 1) return -EINVAL;
	return (int)rights_send(socket, bytes, (size_t)length, fds, (size_t)count, MSG_DONTWAIT);
}

/*
 * The next message, of at most `length` bytes, and in `fd` the one that came with it (-1: none). Never waits. Its size; 0: the other side has closed;
 * or -errno (-EAGAIN: there is none yet; -EMSGSIZE: it was longer, or had more fds).
 */
EXPORT int engine_receive(int socket, void *bytes, int length, int *fd) {
	union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	struct iovec iov = { bytes, (size_t)length };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes };
	ssize_t n;
	*fd = -1;
	do n = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC); while (n < 0 && errno == EINTR);
	if (n < 0) return -errno;
	struct cmsghdr *head = CMSG_FIRSTHDR(&m);
	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS && head->cmsg_len == CMSG_LEN(sizeof(int))) memcpy(fd, CMSG_DATA(head), sizeof(int));
	if (!(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) return (int)n;
	if (*fd >= 0) close(*fd);
	*fd = -1;
	return -EMSGSIZE;
}

/* Whom it names is certain for as long as it is open. */
EXPORT int engine_pidfd(int pid) {
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	return fd < 0 ? -errno : fd;
}
/* A copy of file `fd` of process `pid` (Linux 5.6). */
EXPORT int engine_take_fd(int pid, int fd) {
	int process = (int)syscall(SYS_pidfd_open, pid, 0);
	if (process < 0) return -errno;
	int taken = (int)syscall(SYS_pidfd_getfd, process, fd, 0);
	int error = errno;
	close(process);
	return taken < 0 ? -error : taken;
}
EXPORT int engine_pidfd_signal(int fd, int number) { return syscall(SYS_pidfd_send_signal, fd, number, NULL, 0) ? -errno : 0; }

/*
 * The same library as an addon of Node's, for what cannot wait until koffi is loaded. process.exit() joins V8's threads, and one of them may wait for
 * a garbage collection by the thread that joins it (nodejs/node#54918): the process would stay for ever, with its locks.
 */
typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef napi_value (*napi_callback)(napi_env env, void *info);
extern int napi_create_function(napi_env env, const char *name, size_t length, napi_callback function, void *data, napi_value *result) __attribute__((weak));
extern int napi_set_named_property(napi_env env, napi_value object, const char *name, napi_value value) __attribute__((weak));
extern int napi_get_cb_info(napi_env env, void *info, size_t *count, napi_value *arguments, napi_value *self, void **data) __attribute__((weak));
extern int napi_get_value_int32(napi_env env, napi_value value, int32_t *result) __attribute__((weak));

static napi_value end_now(napi_env env, void *info) {
	size_t count = 1;
	napi_value code;
	int32_t status = 1;
	if (!napi_get_cb_info(env, info, &count, &code, NULL, NULL) && count) napi_get_value_int32(env, code, &status);
	_exit(status);
}

EXPORT napi_value napi_register_module_v1(napi_env env, napi_value exports) {
	napi_value function;
	if (!napi_create_function(env, "end", SIZE_MAX, end_now, NULL, &function)) napi_set_named_property(env, exports, "end", function);
	return exports;
}
EXPORT int32_t node_api_module_get_api_version_v1(void) { return 8; }
