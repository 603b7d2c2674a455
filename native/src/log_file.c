/*
 * container.log in the CRI format, rotated by size, always cut at the end of a line. A write that fails (disk full, input/output error)
 * never stops the container: what could not be written is counted, and marked in the log when writing works again.
 */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NAME "container.log"

static int folder = -1, file = -1;
static uint64_t size, limit;
static uint32_t files;
static char batch[2 * CHUNK];
static uint32_t used;
static uint64_t unmarked;              /* dropped since the last mark */
static bool marking, mark_failed;
static _Atomic uint64_t dropped_total; /* read by `state` on another thread */

uint64_t log_dropped(void) { return atomic_load(&dropped_total); }

void log_count_dropped(uint64_t bytes) { atomic_fetch_add(&dropped_total, bytes); }

static void drop(uint64_t bytes) {
	unmarked += bytes;
	log_count_dropped(bytes);
}

/* "2016-10-06T00:17:09.669794202Z stdout F " without the NUL. The seconds' part is made once per second. */
void log_head(char *head, uint32_t stream, char tag) {
	static _Thread_local char seconds[20]; /* the ring's writer makes marks of its own */
	static _Thread_local time_t made;
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	if (t.tv_sec != made || !seconds[0]) {
		struct tm parts;
		time_t at = t.tv_sec;
		gmtime_r(&at, &parts);
		strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &parts);
		made = t.tv_sec;
	}
	memcpy(head, seconds, 19);
	head[19] = '.';
	long ns = t.tv_nsec;
	for (int i = 28; i > 19; i--, ns /= 10) head[i] = (char)('0' + ns % 10);
	memcpy(head + 29, stream == 2 ? "Z stderr F " : "Z stdout F ", 11);
	head[38] = tag;
}

static int open_file(bool fresh) {
	file = openat(folder, NAME, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | (fresh ? O_TRUNC : 0), 0640);
	if (file < 0) return errno;
	struct stat st;
	size = fstat(file, &st) ? 0 : (uint64_t)st.st_size;
	/* a shim that was killed may have left half a line */
	char last = '\n';
	int reader = size ? openat(folder, NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (reader >= 0) {
		if (pread(reader, &last, 1, (off_t)size - 1) == 1 && last != '\n' && write(file, "\n", 1) == 1) size++;
		close(reader);
	}
	return 0;
}

int log_file_open(const char *path, uint64_t max_size, uint32_t max_files) {
	folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0) return errno;
	limit = max_size;
	files = max_files ? max_files : 1;
	return open_file(false);
}

static void rotate(void) {
	char from[32], to[32];
	for (uint32_t i = files - 1; i > 0; i--) {
		snprintf(to, sizeof to, NAME ".%u", i);
		if (i > 1) snprintf(from, sizeof from, NAME ".%u", i - 1);
		else snprintf(from, sizeof from, NAME);
		renameat(folder, from, folder, to);
	}
	if (file >= 0) close(file);
	file = -1;
	size = 0;
	open_file(files == 1);
}

/* Bytes of output (without heads) in whole lines from `at`. */
static uint64_t content(uint32_t at) {
	uint64_t sum = 0;
	while (at < used) {
		const char *end = memchr(batch + at, '\n', used - at);
		uint32_t next = end ? (uint32_t)(end - batch) + 1 : used;
		if (next - at > LOG_HEAD) sum += next - at - LOG_HEAD - (batch[at + 38] == 'P');
		at = next;
	}
	return sum;
}

void log_file_flush(void) {
	uint32_t done = 0;
	if (file < 0 && used) open_file(false);
	while (done < used && file >= 0) {
		ssize_t n = write(file, batch + done, used - done);
		if (n < 0 && errno == EINTR) continue;
		if (n <= 0) break;
		done += (uint32_t)n;
		size += (uint64_t)n;
	}
	if (done < used) {
		/* take back the part of a line that was written, so that the file holds whole lines only */
		uint32_t line = done;
		while (line > 0 && batch[line - 1] != '\n') line--;
		if (line < done && !ftruncate(file, (off_t)(size - (done - line)))) size -= done - line;
		if (marking) mark_failed = true;
		else drop(content(line));
	}
	used = 0;
}

static void put(const char *head, const uint8_t *p, uint32_t n) {
	uint32_t length = LOG_HEAD + n + 1;
	if (used + length > sizeof batch) log_file_flush();
	if (limit && size + used && size + used + length > limit) {
		log_file_flush();
		if (size) rotate();
	}
	memcpy(batch + used, head, LOG_HEAD);
	memcpy(batch + used + LOG_HEAD, p, n);
	batch[used + length - 1] = '\n';
	used += length;
}

static void mark(void) {
	char head[LOG_HEAD], text[64];
	log_file_flush();
	log_head(head, 2, 'F');
	int n = snprintf(text, sizeof text, "engine: %llu bytes of output dropped", (unsigned long long)unmarked);
	marking = true;
	mark_failed = false;
	put(head, (const uint8_t *)text, (uint32_t)n);
	log_file_flush();
	marking = false;
	if (!mark_failed) unmarked = 0;
}

void log_file_line(const char *head, const uint8_t *p, uint32_t n) {
	if (unmarked) mark();
	put(head, p, n);
}

/* Bytes dropped elsewhere (the ring was full): to be marked before the next line. */
void log_file_missed(uint64_t bytes) { unmarked += bytes; }

void log_file_close(void) {
	log_file_flush();
	if (unmarked) mark();
	log_file_flush();
	if (file >= 0) close(file);
	if (folder >= 0) close(folder);
	file = folder = -1;
}
