// What a run leaves behind for a moment, polled from outside.
#define _GNU_SOURCE
#include "driver.h"

#include <ctype.h>
#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_WATCHES = 32, MAX_NAMES = 1024, NAME = 80 };

// Names in a folder, or pids as text.
typedef struct {
	int count;
	char name[MAX_NAMES][NAME];
} names_t;

typedef struct {
	const char *folder, *prefix, *comm; // comm: processes of that name; `prefix` says whose
	names_t before;
} watch_t;

static watch_t *all[MAX_WATCHES];
static int count_all, used, allowed;
static names_t current;

// "BEFORE:AFTER"
static void add(const char *spec, int processes)
{
	char *before = strdup(spec);
	char *colon = strrchr(before, ':');
	if (colon)
		*colon = 0;
	const char *after = colon ? colon + 1 : "";
	if (count_all == MAX_WATCHES || !(all[count_all] = calloc(1, sizeof(watch_t)))) {
		fprintf(stderr, "too many to watch\n");
		exit(2);
	}
	all[count_all]->comm = processes ? before : NULL;
	all[count_all]->folder = processes ? "/proc" : before;
	all[count_all++]->prefix = after;
}

void watch_folder(const char *spec) { add(spec, 0); }
void watch_processes(const char *spec) { add(spec, 1); }
void watch_used(int most)
{
	used = 1;
	allowed = most;
}
int watches(void) { return count_all; }

// Does its command line speak of `text`, or has it a file open whose path begins so?
static int belongs(const char *pid, const char *text)
{
	char path[64], found[4096];
	snprintf(path, sizeof path, "/proc/%.20s/cmdline", pid);
	FILE *file = fopen(path, "re");
	if (!file)
		return 0;
	size_t n = fread(found, 1, sizeof found, file);
	fclose(file);
	if (memmem(found, n, text, strlen(text)))
		return 1;
	for (int fd = 0; fd < 32; fd++) {
		snprintf(path, sizeof path, "/proc/%.20s/fd/%d", pid, fd);
		ssize_t length = readlink(path, found, sizeof found);
		if (length > 0 && (size_t)length >= strlen(text) && memcmp(found, text, strlen(text)) == 0)
			return 1;
	}
	return 0;
}

// A zombie is gone: it waits for a parent only.
static int is_process(const char *pid, const char *comm, const char *whose)
{
	char path[64], text[256];
	snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
	FILE *file = fopen(path, "re");
	if (!file)
		return 0;
	size_t n = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	text[n] = 0;
	char *open = strchr(text, '('), *close = strrchr(text, ')');
	if (!open || !close || close[1] == 0 || close[2] == 'Z' || close[2] == 'X')
		return 0;
	*close = 0;
	return strcmp(open + 1, comm) == 0 && belongs(pid, whose);
}

static void list(const watch_t *watch, names_t *names)
{
	names->count = 0;
	DIR *folder = opendir(watch->folder);
	if (!folder)
		return; // nobody has made it yet, or it is gone as a whole
	size_t prefix = strlen(watch->prefix);
	for (struct dirent *entry; names->count < MAX_NAMES && (entry = readdir(folder));) {
		const char *name = entry->d_name;
		if (watch->comm ? !isdigit((unsigned char)name[0]) || !is_process(name, watch->comm, watch->prefix) : name[0] == '.' || strncmp(name, watch->prefix, prefix) != 0)
			continue;
		size_t length = strnlen(name, NAME - 1);
		memcpy(names->name[names->count], name, length);
		names->name[names->count++][length] = 0;
	}
	closedir(folder);
}

static int contains(const names_t *names, const char *name)
{
	for (int i = 0; i < names->count; i++)
		if (strcmp(names->name[i], name) == 0)
			return 1;
	return 0;
}

// Names in `a` that aren't in `b`.
static int missing(const names_t *a, const names_t *b)
{
	int count = 0;
	for (int i = 0; i < a->count; i++)
		count += !contains(b, a->name[i]);
	return count;
}

void watch_before(void)
{
	for (int i = 0; i < count_all; i++)
		list(all[i], &all[i]->before);
}

// Reading /proc costs more than everything else: a pidfd says when a process has ended.
static int wait_process(const watch_t *watch, long long end)
{
	struct pollfd fds[MAX_NAMES];
	int count = 0, one = used && watch->before.count > 0;
	const names_t *names = &watch->before;
	if (!one) {
		list(watch, &current);
		names = &current;
	}
	for (int i = 0; i < names->count; i++) {
		if (!one && contains(&watch->before, names->name[i]))
			continue;
		int fd = (int)syscall(SYS_pidfd_open, atoi(names->name[i]), 0);
		if (fd >= 0)
			fds[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}
	int gone = one && count < names->count, left = count;
	while (!gone && left > 0) {
		long long ms = (end - now_ns()) / 1000000;
		if (ms <= 0 || poll(fds, (nfds_t)count, (int)ms) <= 0)
			break;
		for (int i = 0; i < count; i++)
			if (fds[i].fd >= 0 && fds[i].revents) {
				close(fds[i].fd);
				fds[i].fd = -1;
				left--;
				gone = one;
			}
	}
	for (int i = 0; i < count; i++)
		if (fds[i].fd >= 0)
			close(fds[i].fd);
	return gone || left == 0;
}

static int folder_gone(const watch_t *watch)
{
	list(watch, &current);
	if (used && watch->before.count > 0)
		return missing(&watch->before, &current) > 0;
	return missing(&current, &watch->before) == 0;
}

int watch_gone(int deadline_ms)
{
	long long end = now_ns() + deadline_ms * 1000000LL;
	for (int i = 0; i < count_all; i++) {
		if (all[i]->comm) {
			if (!wait_process(all[i], end))
				return 0;
			continue;
		}
		while (!folder_gone(all[i])) {
			if (now_ns() > end)
				return 0;
			sleep_us(100);
		}
	}
	return 1;
}

int watch_settled(int deadline_ms)
{
	long long end = now_ns() + deadline_ms * 1000000LL;
	for (int i = 0; i < count_all; i++) {
		for (;;) {
			list(all[i], &current);
			if (current.count <= all[i]->before.count || current.count <= allowed)
				break;
			if (now_ns() > end) {
				fprintf(stderr, "%d of %s %s are left, %d were there before\n", current.count, all[i]->comm ? all[i]->comm : all[i]->folder, all[i]->prefix, all[i]->before.count);
				return 0;
			}
			sleep_us(500);
		}
	}
	return 1;
}
