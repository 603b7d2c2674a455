/*
 * The keeper's parent: starts it again when it is killed, and holds its listening sockets meanwhile, so that who asks just then is not refused but asks again. It
 * takes them out of the keeper (pidfd_getfd, Linux 5.6) when that says, by SIGUSR2, that they are others.
 */
#include "launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#define MOST_HELD 256
/* pause before the next start: doubled while it ends early, ms */
#define FIRST_PAUSE 10
#define LAST_PAUSE 10000
#define SETTLED_MS 30000

static int held[MOST_HELD];
static int held_count;

static void let_go(void) {
	while (held_count) close(held[--held_count]);
}

/* Does it wait for anybody who comes: a listening stream, or datagrams from everywhere? */
static bool waits_for_all(int fd) {
	struct sockaddr_storage address;
	socklen_t size = sizeof address;
	if (getsockname(fd, (struct sockaddr *)&address, &size)) return false;
	in_port_t port = address.ss_family == AF_INET    ? ((struct sockaddr_in *)&address)->sin_port
	                 : address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
	                                                 : 0;
	if (!port) return false;
	int type = 0, listens = 0;
	size = sizeof type;
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size)) return false;
	size = sizeof listens;
	if (type == SOCK_STREAM) return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) && listens;
	size = sizeof address;
	return type == SOCK_DGRAM && getpeername(fd, (struct sockaddr *)&address, &size) && errno == ENOTCONN;
}

/* Hold what it listens on now. */
static void take_sockets(pid_t child) {
	char path[64], number[21], link[32];
	int before[MOST_HELD], count = held_count;
	memcpy(before, held, sizeof before);
	held_count = 0;
	int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	DIR *folder = join(path, "/proc/", decimal((uint64_t)child, number), "/fd") ? opendir(path) : NULL;
	for (struct dirent *entry; pidfd >= 0 && folder && (entry = readdir(folder)) && held_count < MOST_HELD;) {
		ssize_t n = readlinkat(dirfd(folder), entry->d_name, link, sizeof link);
		if (n < 7 || memcmp(link, "socket:", 7)) continue;
		int fd = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(entry->d_name), 0);
		if (fd < 0) continue;
		if (waits_for_all(fd)) held[held_count++] = fd;
		else close(fd);
	}
	if (folder) closedir(folder);
	if (pidfd >= 0) close(pidfd);
	/* only now: there is always one */
	while (count) close(before[--count]);
}

static pid_t start_keeper(char *const words[], char *const env[]) {
	pid_t child = fork();
	if (child) return child;
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	exec_node(words, env);
}

void guard_keeper(const char *folder, char *const words[], char *const env[]) {
	sigset_t all;
	sigemptyset(&all);
	static const int numbers[] = { SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR2, 0 };
	for (const int *number = numbers; *number; number++) sigaddset(&all, *number);
	sigprocmask(SIG_BLOCK, &all, NULL);
	/* what the caller's environment held is nobody's business */
	for (char **entry = environ; *entry; entry++) memset(*entry, 0, strlen(*entry));
	int64_t pause = FIRST_PAUSE;
	for (;;) {
		int64_t began = now_ms();
		pid_t child = start_keeper(words, env);
		int status = -1;
		while (child > 0) {
			siginfo_t info;
			int number = sigwaitinfo(&all, &info);
			if (number == SIGUSR2 && info.si_pid == child) take_sockets(child);
			else if (number == SIGTERM || number == SIGINT || number == SIGHUP) kill(child, number);
			else if (number == SIGCHLD && waitpid(child, &status, WNOHANG) == child) break;
		}
		/* it has ended by itself, because it was told to or nothing runs any more, or it can't be run at all */
		if (child > 0 && WIFEXITED(status) && (!WEXITSTATUS(status) || WEXITSTATUS(status) == EXIT_ENGINE)) _exit(WEXITSTATUS(status));
		if (access(folder, F_OK)) _exit(0);
		if (now_ms() - began > SETTLED_MS) pause = FIRST_PAUSE;
		struct timespec time = { .tv_sec = pause / 1000, .tv_nsec = pause % 1000 * 1000000 };
		sigset_t ending = all;
		sigdelset(&ending, SIGCHLD);
		sigdelset(&ending, SIGUSR2);
		sigdelset(&ending, SIGHUP);
		if (sigtimedwait(&ending, NULL, &time) > 0) _exit(0);
		/* nobody reads from what is held for long */
		if (pause > 1000) let_go();
		if ((pause *= 2) > LAST_PAUSE) pause = LAST_PAUSE;
	}
}
