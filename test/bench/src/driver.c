// Runs a command again and again and says how long each run took, in nanoseconds: until it had returned, and until everything of it was gone.
//   driver [-n RUNS] [-s SECONDS] [-w WORKERS] [-p PAUSE_MS] [-f FOLDER[:PREFIX]]... [-c COMM[:PATH]]... [-u POOL] -- PROGRAM [ARGUMENT]...
// %w and %i in an argument are the worker and the number of the run. Output: a line "ANSWERED GONE" per run (GONE is 0 when nobody asked, -1 when it
// took over 5 s), then "window NS" from the first start until all was gone. A run that fails ends everything, its standard error is printed.
#define _GNU_SOURCE
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { MAX_WORKERS = 64, MAX_RUNS = 200000, MAX_ARGS = 128, ARG_BYTES = 512 };

typedef struct {
	long long answered, gone;
} sample_t;

typedef struct {
	int runs, workers, pause_ms;
	double seconds;
	char **command;
} options_t;

static sample_t (*samples)[MAX_RUNS];
static int *counts;

long long now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

void sleep_us(long us)
{
	struct timespec t = { us / 1000000, us % 1000000 * 1000 };
	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

static void fill(char *out, const char *pattern, int worker, int run)
{
	size_t at = 0;
	for (; *pattern && at < ARG_BYTES - 16; pattern++) {
		if (pattern[0] == '%' && (pattern[1] == 'w' || pattern[1] == 'i'))
			at += (size_t)snprintf(out + at, 16, "%d", *++pattern == 'w' ? worker : run);
		else
			out[at++] = *pattern;
	}
	out[at] = 0;
}

static void print_errors(int fd)
{
	char text[4096];
	ssize_t n = pread(fd, text, sizeof text, 0);
	if (n > 0 && write(2, text, (size_t)n) < 0)
		exit(1);
}

// One run. Returns the time until it had returned, -1 when it failed.
static long long run_once(char **command, int worker, int run, int errors)
{
	static char text[MAX_ARGS][ARG_BYTES];
	char *argv[MAX_ARGS + 1];
	int n = 0;
	for (; command[n] && n < MAX_ARGS; n++) {
		if (strlen(command[n]) < ARG_BYTES - 16 && strchr(command[n], '%')) {
			fill(text[n], command[n], worker, run);
			argv[n] = text[n];
		} else {
			argv[n] = command[n];
		}
	}
	argv[n] = NULL;
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, errors, 2);
	pid_t pid;
	int status = 0;
	long long start = now_ns();
	int failed = posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
	while (!failed && waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			failed = errno;
	long long took = now_ns() - start;
	posix_spawn_file_actions_destroy(&actions);
	if (failed) {
		fprintf(stderr, "can't run %s: %s\n", argv[0], strerror(failed));
		return -1;
	}
	if (status != 0) {
		print_errors(errors);
		fprintf(stderr, "%s ended with status %#x\n", argv[0], (unsigned)status);
		return -1;
	}
	return took;
}

// What a run left as an orphan is ours to reap: nobody knows whether pid 1 does.
static void reap(void)
{
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

static int work(const options_t *options, int worker, long long end)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	int errors = memfd_create("errors", MFD_CLOEXEC);
	int watching = options->workers == 1 && options->seconds == 0 && watches() > 0;
	for (int run = 0; run < MAX_RUNS && (end ? now_ns() < end : run < options->runs); run++) {
		if (options->pause_ms)
			sleep_us(options->pause_ms * 1000L);
		if (ftruncate(errors, 0) < 0 || lseek(errors, 0, SEEK_SET) < 0)
			return 1;
		if (watching)
			watch_before();
		long long answered = run_once(options->command, worker, run, errors);
		if (answered < 0)
			return 1;
		long long from = now_ns();
		samples[worker][run].answered = answered;
		if (watching)
			samples[worker][run].gone = watch_gone(5000) ? answered + now_ns() - from : -1;
		counts[worker] = run + 1;
		reap();
	}
	return 0;
}

static int run_workers(const options_t *options)
{
	pid_t pids[MAX_WORKERS];
	int failed = 0;
	long long start = now_ns();
	long long end = options->seconds > 0 ? start + (long long)(options->seconds * 1e9) : 0;
	if (options->workers == 1)
		failed = work(options, 0, end);
	for (int i = 0; options->workers > 1 && i < options->workers; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGTERM);
			_exit(work(options, i, end));
		}
	}
	for (int i = 0; options->workers > 1 && i < options->workers; i++) {
		int status = 1;
		if (pids[i] < 0 || waitpid(pids[i], &status, 0) < 0 || status != 0)
			failed = 1;
	}
	if (failed)
		return 1;
	if (options->seconds > 0 && watches() > 0 && !watch_settled(60000)) {
		fprintf(stderr, "not everything is gone after a minute\n");
		return 1;
	}
	long long window = now_ns() - start;
	for (int i = 0; i < options->workers; i++)
		for (int k = 0; k < counts[i]; k++)
			printf("%lld %lld\n", samples[i][k].answered, samples[i][k].gone);
	printf("window %lld\n", window);
	return 0;
}

int main(int argc, char **argv)
{
	options_t options = { .runs = 1, .workers = 1 };
	for (int c; (c = getopt(argc, argv, "+n:s:w:p:f:c:u:")) != -1;) {
		if (c == 'n') options.runs = atoi(optarg);
		else if (c == 's') options.seconds = atof(optarg);
		else if (c == 'w') options.workers = atoi(optarg);
		else if (c == 'p') options.pause_ms = atoi(optarg);
		else if (c == 'f') watch_folder(optarg);
		else if (c == 'c') watch_processes(optarg);
		else if (c == 'u') watch_used(atoi(optarg));
		else return 2;
	}
	options.command = argv + optind;
	if (!*options.command || options.workers < 1 || options.workers > MAX_WORKERS || options.runs < 1 || options.runs > MAX_RUNS) {
		fprintf(stderr, "usage: driver [-n RUNS] [-s SECONDS] [-w WORKERS] [-p PAUSE_MS] [-f FOLDER[:PREFIX]]... [-c COMM[:PATH]]... [-u POOL] -- PROGRAM [ARGUMENT]...\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	// untouched pages cost nothing
	samples = mmap(NULL, sizeof *samples * (size_t)options.workers, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	counts = mmap(NULL, sizeof *counts * MAX_WORKERS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (samples == MAP_FAILED || counts == MAP_FAILED)
		return 1;
	if (options.seconds > 0)
		watch_before();
	return run_workers(&options);
}
