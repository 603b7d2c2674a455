/*
 * `engine engined --start`: sees to it that a resident engine runs, says nothing, and ends when its socket listens.
 * `engine engined`: is the resident engine, in this process (a service manager's, whose socket it takes over: sd_listen_fds(3)).
 * `engine engined --keeper RUNROOT [--replace]`: sees to it that a keeper runs there, and ends at once; with --replace, the new one sends the old one home.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MS 5000
#define LOG_SIZE (1 << 20)
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

static struct place place;

/* Each missing folder on the way, ours alone. */
static int open_folder(void) {
	char path[PATH_MAX];
	const char *why;
	strcpy(path, *place.folder ? place.folder : "/");
	for (char *p = path + 1; *p; p++) {
		if (*p != '/') continue;
		*p = 0;
		mkdir(path, 0700);
		*p = '/';
	}
	mkdir(path, 0700);
	int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0) die("cannot open ", path, ": ", errno_text(errno), NULL);
	if (!trusted_folder(folder, &why)) die(path, ": ", why, NULL);
	return folder;
}

/* -1: somebody holds it. */
static int take_lock(int folder, const char *name) {
	for (;;) {
		int lock = openat(folder, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (lock < 0) die("cannot open ", place.folder, "/", name, ": ", errno_text(errno), NULL);
		if (flock(lock, LOCK_EX | LOCK_NB)) {
			close(lock);
			return -1;
		}
		struct stat held, there;
		/* a lock on a file that is no longer at its name protects nothing */
		if (!fstat(lock, &held) && !fstatat(folder, name, &there, AT_SYMLINK_NOFOLLOW) && held.st_ino == there.st_ino && held.st_dev == there.st_dev) return lock;
		close(lock);
	}
}

/* A socket that listens from the moment it has its name: bound beside, then renamed. */
static int listen_there(int folder) {
	char name[64], number[21];
	struct sockaddr_un address;
	if (!join(name, ".engined-", decimal((uint64_t)getpid(), number), ".sock")) return -1;
	socklen_t length = socket_address(&address, place.folder, folder, name);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unlinkat(folder, name, 0);
	mode_t mask = umask(0177);
	bool ready = fd >= 0 && length && !bind(fd, (struct sockaddr *)&address, length) && !listen(fd, 1024) && !renameat(folder, name, folder, place.name);
	int error = errno;
	umask(mask);
	if (ready) return fd;
	unlinkat(folder, name, 0);
	die("cannot listen at ", place.folder, "/", place.name, ": ", errno_text(error), NULL);
}

static bool answers(void) {
	struct timespec pause = { .tv_nsec = 2000000 };
	for (int64_t until = now_ms() + ANSWER_MS; now_ms() < until; nanosleep(&pause, NULL)) {
		const char *why;
		int folder, fd = connect_engined(&place, &folder, &why);
		if (folder >= 0) close(folder);
		if (fd >= 0) close(fd);
		if (fd >= 0) return true;
		if (pause.tv_nsec < 50000000) pause.tv_nsec *= 2;
	}
	return false;
}

/* Fds as engined is born with: 0 to 2, what it listens on (-1: nothing), its lock (-1: it takes it itself); no other. */
static void arrange_fds(int listen_fd, int lock, int error_fd, bool keep_output) {
	int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
	/* out of the way first: a source may stand where another one is to go */
	int high_listen = listen_fd < 0 ? -1 : fcntl(listen_fd, F_DUPFD_CLOEXEC, 64), high_lock = lock < 0 ? -1 : fcntl(lock, F_DUPFD_CLOEXEC, 64);
	if (error_fd >= 0) dup2(error_fd, 2);
	dup2(nothing, 0);
	if (!keep_output) dup2(nothing, 1);
	if (listen_fd < 0) close((int)ENGINED_FD_LISTEN);
	else if (high_listen < 0 || dup2(high_listen, (int)ENGINED_FD_LISTEN) < 0) _exit(EXIT_ENGINE);
	if (high_lock >= 0) dup2(high_lock, (int)ENGINED_FD_LOCK);
	else close((int)ENGINED_FD_LOCK);
	syscall(SYS_close_range, ENGINED_FD_LOCK + 1, ~0u, 0);
}

/* `LISTEN_PID=N` and the like, in place of what the caller had. */
static void exec_engined(const char *node, const char *script, bool service) {
	static char socket_entry[PATH_MAX + 16], pid_entry[40];
	char *env[16], number[21];
	int n = 0;
	env[n++] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	env[n++] = geteuid() == 0 ? "HOME=/root" : "HOME=/";
	env[n++] = "LISTEN_FDS=1";
	/* each thread's own heap would keep what it once needed; threads for files on a dead mount */
	env[n++] = "MALLOC_ARENA_MAX=2";
	/* given, it stays so: else it grows with the largest block that was ever freed, and so does what is kept (mallopt(3)) */
	env[n++] = "MALLOC_TRIM_THRESHOLD_=1048576";
	env[n++] = "UV_THREADPOOL_SIZE=16";
	strcpy(pid_entry, "LISTEN_PID=");
	strcat(pid_entry, decimal((uint64_t)getpid(), number));
	env[n++] = pid_entry;
	strcpy(socket_entry, "ENGINE_SOCKET=");
	strcat(socket_entry, place.folder);
	strcat(socket_entry, "/");
	strcat(socket_entry, place.name);
	env[n++] = socket_entry;
	/* how it tells the service manager that it is ready, and alive */
	static const char *const of_service[] = { "NOTIFY_SOCKET=", "WATCHDOG_USEC=", "WATCHDOG_PID=", "INVOCATION_ID=", NULL };
	for (char **entry = environ; service && *entry; entry++)
		for (const char *const *name = of_service; *name && n < 14; name++)
			if (!strncmp(*entry, *name, strlen(*name))) env[n++] = *entry;
	env[n] = NULL;
	/* by itself V8 lets a small heap double, and more, before it looks what of it is garbage */
	char *words[] = { (char *)node, "--disable-warning=ExperimentalWarning", "--max-semi-space-size=4", "--heap-growing-percent=30", "--", (char *)script, "engined", NULL };
	exec_node(words, env);
}

/* -- in the background ---------------------------------------------------------------------------------------------------------- */

static int open_log(int folder, const char *name) {
	struct stat st;
	int fd = openat(folder, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0 && !fstat(fd, &st) && st.st_size > LOG_SIZE && ftruncate(fd, 0)) return fd;
	return fd >= 0 ? fd : open("/dev/null", O_WRONLY | O_CLOEXEC);
}

/* What is forked twice is nobody's child, and its session is its own. Returns in the new process. */
static void go_to_background(void) {
	pid_t child = fork();
	if (child < 0) die("cannot start another process: ", errno_text(errno), NULL);
	if (child) {
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
		_exit(0);
	}
	setsid();
	child = fork();
	if (child) _exit(child < 0);
}

static void clean_all(void) {
	clean_identity();
	clean_resources();
	clean_limits();
	leave_cgroups();
}

static void start(void) {
	const char *node = node_program(), *script = start_script();
	int folder = open_folder(), lock = take_lock(folder, ENGINED_FILE_LOCK);
	if (lock < 0) {
		if (answers()) _exit(0);
		die("a resident engine holds ", place.folder, "/" ENGINED_FILE_LOCK ", but its socket does not answer", NULL);
	}
	int listen_fd = listen_there(folder), log = open_log(folder, ENGINED_FILE_LOG);
	go_to_background();
	arrange_fds(listen_fd, lock, log, false);
	clean_all();
	exec_engined(node, script, false);
}

/* -- the keeper -------------------------------------------------------------------------------------------------------------------- */

#define KEEPER_LOCK_MS 50

void keeper_command(int argc, char **argv) {
	static char script[PATH_MAX];
	bool replace = argc > 1 && !strcmp(argv[1], "--replace");
	if (argc < 1 || argv[0][0] != '/' || strlen(argv[0]) >= sizeof place.folder || argc > 1 + replace) die("engined --keeper needs the absolute path of a folder", NULL);
	strcpy(place.folder, argv[0]);
	const char *node = node_program();
	start_script(); /* made anew when it is stale, and the keeper's with it */
	if (!join(script, home_folder(), "/dist/keeper.js", "") || access(script, F_OK)) die("not built yet: there is no ", script, NULL);
	int folder = open_folder(), lock = take_lock(folder, KEEPER_FILE_LOCK);
	/* who only looks whether it is held holds it for an instant */
	struct timespec pause = { .tv_nsec = 1000000 };
	for (int64_t until = now_ms() + KEEPER_LOCK_MS; lock < 0 && now_ms() < until; lock = take_lock(folder, KEEPER_FILE_LOCK)) nanosleep(&pause, NULL);
	if (lock < 0 && !replace) _exit(0);
	int log = open_log(folder, KEEPER_FILE_LOG);
	go_to_background();
	arrange_fds(-1, lock, log, false);
	clean_all();
	/* by which it knows that its parent holds its sockets */
	static char guardian[40];
	char number[21];
	strcpy(guardian, "KEEPER_GUARDIAN=");
	strcat(guardian, decimal((uint64_t)getpid(), number));
	char *env[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", geteuid() == 0 ? "HOME=/root" : "HOME=/", "MALLOC_ARENA_MAX=1", "UV_THREADPOOL_SIZE=1", guardian, NULL };
	/* small: it waits for all but a moment of its life */
	char *words[] = { (char *)node, "--disable-warning=ExperimentalWarning", "--max-semi-space-size=1", "--max-old-space-size=64", "--optimize-for-size", "--v8-pool-size=1", "--", script, place.folder, NULL };
	guard_keeper(place.folder, words, env);
}

/* -- in this process ---------------------------------------------------------------------------------------------------------- */

/* Does fd 3 listen for us? */
static bool activated(void) {
	const char *count = variable("LISTEN_FDS"), *pid = variable("LISTEN_PID");
	char number[21];
	if (!count || !pid || strcmp(count, "1") || strcmp(pid, decimal((uint64_t)getpid(), number))) return false;
	struct sockaddr_un address;
	socklen_t size = sizeof address;
	if (getsockname((int)ENGINED_FD_LISTEN, (struct sockaddr *)&address, &size) || address.sun_family != AF_UNIX) die("fd 3 is no listening unix socket, but LISTEN_FDS says so", NULL);
	/* it is where it is, whatever our environment says */
	if (address.sun_path[0] == '/' && strncmp(address.sun_path, "/proc/", 6) && strlen(address.sun_path) < sizeof address.sun_path) {
		strcpy(place.folder, address.sun_path);
		char *slash = strrchr(place.folder, '/');
		*slash = 0;
		place.name = slash + 1;
	}
	return true;
}

static void be_engined(void) {
	const char *started = variable("SYSTEMD_EXEC_PID");
	char number[21];
	bool by_socket = activated(), service = by_socket || (started && !strcmp(started, decimal((uint64_t)getpid(), number)));
	int listen_fd = (int)ENGINED_FD_LISTEN, lock = -1;
	/* files that are opened from here on must not be lost among the ones that are closed */
	const char *node = node_program(), *script = start_script();
	if (!by_socket) {
		int folder = open_folder();
		lock = take_lock(folder, ENGINED_FILE_LOCK);
		if (lock < 0) die("a resident engine runs already: ", place.folder, "/" ENGINED_FILE_LOCK " is held", NULL);
		listen_fd = listen_there(folder);
	}
	setsid(); /* fails in a process group of its own, as a service is */
	arrange_fds(listen_fd, lock, -1, true);
	clean_identity();
	/* what the unit says of priorities, limits and its cgroup is meant so */
	if (!service) {
		clean_resources();
		clean_limits();
		leave_cgroups();
	}
	exec_engined(node, script, service);
}

void engined_command(bool background) {
	if (!engined_place(&place)) die("there is no place for the socket: set ENGINE_SOCKET or XDG_RUNTIME_DIR", NULL);
	if (background) start();
	be_engined();
	_exit(EXIT_ENGINE);
}
