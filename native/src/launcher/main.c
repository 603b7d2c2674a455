/* bin/engine, bin/engine-oci */
#include "launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

/* A file that is opened later must not become one of the three: who started us may have closed them. */
static void standard_files(void) {
	struct pollfd three[3] = { { .fd = 0 }, { .fd = 1 }, { .fd = 2 } };
	if (poll(three, 3, 0) <= 0) return;
	for (int fd = 0; fd < 3; fd++)
		if (three[fd].revents & POLLNVAL && open("/dev/null", O_RDWR) < 0) _exit(EXIT_ENGINE);
}

/* As config/ambient.ts reads them; what is neither is left to it, to be refused. */
static bool told_off(void) {
	static const char *const yes[] = { "1", "true", "yes", "on", NULL };
	const char *resident = variable("ENGINE_RESIDENT"), *no_daemon = variable("ENGINE_NO_DAEMON");
	for (const char *const *word = yes; no_daemon && *word; word++)
		if (!strcasecmp(no_daemon, *word)) return true;
	return resident && !strcmp(resident, "off");
}

static int64_t realtime(void) {
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* No word of the command line is ours. */
static void oci_command(int argc, char **argv) {
	static struct place place;
	const char *why;
	int folder = -1, fd = told_off() || !engined_place(&place) ? -1 : connect_engined(&place, &folder, &why);
	int64_t asked = realtime();
	uint32_t terminals = terminals_now();
	if (fd >= 0 && !send_request(fd, argc, argv, terminals)) {
		close(fd);
		fd = -1;
	}
	bool own = fd < 0;
	if (own && !send_request(fd = own_engine(), argc, argv, terminals)) die("its own process does not take the request: is /proc mounted?", NULL);
	serve(fd, own ? -1 : folder, argc, argv, terminals, asked);
}

int main(int argc, char **argv) {
	standard_files();
	if ((oci = called_oci(argc < 1 ? NULL : argv[0]))) oci_command(argc, argv);
	if (argc < 1) return EXIT_ENGINE;
	/* its other words, --wake for example, are a command like any other */
	if (argc > 1 && !strcmp(argv[1], "engined") && (argc == 2 || !strcmp(argv[2], "--start"))) engined_command(argc > 2);
	if (argc > 2 && !strcmp(argv[1], "engined") && !strcmp(argv[2], "--keeper")) keeper_command(argc - 3, argv + 3);
	bool no_daemon;
	find_verb(argc, argv, &no_daemon);
	const char *why;
	static struct place place;
	if (no_daemon || told_off() || !engined_place(&place)) run_local(argc, argv);
	int folder, fd = connect_engined(&place, &folder, &why);
	if (fd < 0) {
		const char *level = variable("ENGINE_LOG_LEVEL");
		if (level && !strcmp(level, "debug")) say("engine: no resident engine: ", why, NULL);
		run_local(argc, argv);
	}
	int64_t asked = realtime();
	uint32_t terminals = terminals_now();
	if (!send_request(fd, argc, argv, terminals)) {
		close(fd);
		run_local(argc, argv);
	}
	serve(fd, folder, argc, argv, terminals, asked);
}
