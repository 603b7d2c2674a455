/* What is handed over: native/ts/launch-request.ts says its form. */
#include "launcher.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static uint8_t *payload;
static size_t used, room;

static void put(const void *p, size_t n) {
	if (used + n > room) {
		size_t larger = (used + n) * 2 < CHUNK ? CHUNK : (used + n) * 2;
		uint8_t *fresh = mmap(NULL, larger, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (fresh == MAP_FAILED) die("out of memory", NULL);
		if (used) memcpy(fresh, payload, used);
		payload = fresh;
		room = larger;
	}
	memcpy(payload + used, p, n);
	used += n;
}
static void put_u32(uint32_t v) { put(&v, 4); }
static void put_u16(uint16_t v) { put(&v, 2); }
static void put_text(const char *p) {
	size_t n = strlen(p);
	put_u32((uint32_t)n);
	put(p, n);
}

/* The caller's world: what must be the same for engined to act in its place. */
static bool put_world(void) {
	static const char *const kinds[] = { "/proc/self/ns/mnt", "/proc/self/ns/net", "/proc/self/ns/user", "/proc/self/ns/pid", "/proc/self/ns/cgroup" };
	char text[7 * 21 + 1], number[21];
	size_t n = 0;
	uint64_t values[7];
	struct stat st;
	for (int i = 0; i < 5; i++) {
		if (stat(kinds[i], &st)) return false;
		values[i] = st.st_ino;
	}
	if (stat("/", &st)) return false;
	values[5] = st.st_dev;
	values[6] = st.st_ino;
	for (int i = 0; i < 7; i++) {
		const char *p = decimal(values[i], number);
		if (i) text[n++] = ' ';
		memcpy(text + n, p, strlen(p));
		n += strlen(p);
	}
	text[n] = 0;
	put_text(text);
	return true;
}

/* Does the command line name this variable: `-e NAME`, `-eNAME`, `--env=NAME`, `--build-arg NAME`? */
static bool named(const char *name, size_t n, int argc, char **argv) {
	for (int i = 1; i < argc; i++) {
		size_t word = strlen(argv[i]);
		if (word < n || memcmp(argv[i] + word - n, name, n)) continue;
		if (word == n || argv[i][word - n - 1] == '=' || (argv[i][0] == '-' && argv[i][1] != '-')) return true;
	}
	return false;
}

static bool always(const char *entry) {
	static const char *const names[] = { "HOME=", "PATH=", "TERM=", "NO_COLOR=", "TMPDIR=", NULL };
	for (const char *const *name = names; *name; name++)
		if (!strncmp(entry, *name, strlen(*name))) return true;
	return !strncmp(entry, "ENGINE_", 7) || !strncmp(entry, "XDG_", 4);
}

static void put_environment(int argc, char **argv) {
	bool all = oci; /* a hook without an environment of its own has that of the runtime */
	for (int i = 1; i < argc && !all; i++) all = strstr(argv[i], "env-file") != NULL;
	size_t count_at = used;
	uint32_t count = 0;
	put_u32(0);
	for (char **entry = environ; *entry; entry++) {
		const char *equals = strchr(*entry, '=');
		if (!equals || equals == *entry) continue;
		if (!all && !always(*entry) && !named(*entry, (size_t)(equals - *entry), argc, argv)) continue;
		put_text(*entry);
		count++;
	}
	memcpy(payload + count_at, &count, 4);
}

bool send_request(int fd, int argc, char **argv, uint32_t terminals) {
	char cwd[PATH_MAX], number[21];
	uint16_t rows = 0, columns = 0;
	if (terminals & TERMINALS_STDOUT) window_size(&rows, &columns);
	/* a folder that is gone has no name: Node says what it says of it */
	if (!getcwd(cwd, sizeof cwd) || *cwd != '/') {
		if (!oci || !join(cwd, "/proc/", decimal((uint64_t)getpid(), number), "/cwd")) return false;
	}
	used = 0;
	mode_t mask = umask(077);
	umask(mask);
	put_u32(0); /* the head comes here */
	put_u32(0);
	put_u32(LAUNCH_VERSION);
	put_u32(terminals);
	put_u16(rows);
	put_u16(columns);
	put_u32(mask);
	if (!put_world()) return false;
	put_text(cwd);
	put_u32((uint32_t)(argc - 1));
	for (int i = 1; i < argc; i++) put_text(argv[i]);
	put_environment(argc, argv);
	put_text(home_folder());
	put_u32(oci ? FRONTEND_OCI : FRONTEND_CLI);
	uint32_t length = (uint32_t)(used - FRAME_HEAD);
	uint16_t type = LAUNCH_REQUEST;
	memcpy(payload, &length, 4);
	memcpy(payload + 4, &type, 2);
	for (size_t sent = 0; sent < used;) {
		ssize_t n = send(fd, payload + sent, used - sent, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return false; /* it ended before it could have read all of it */
		sent += (size_t)n;
	}
	return true;
}
