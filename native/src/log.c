/*
 * From output to log lines: one buffer for an unfinished line per stream; lines longer than 16 KiB become partial entries (`P`). With a
 * ring (mode=non-blocking) a thread of its own writes, and whole lines that do not fit are dropped, counted and marked.
 */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

void log_file_missed(uint64_t bytes);

static bool on;
static struct { uint8_t *p; uint32_t used; } partial[2];

/* The ring holds entries of: u32 length, u32 bytes dropped before it, head and text. */
static uint8_t *ring;
static uint32_t ring_size, ring_start, ring_used;
static uint64_t ring_missed; /* dropped since the last entry that fitted */
static bool ring_end, ring_done;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER, emptied = PTHREAD_COND_INITIALIZER;

static void ring_copy_in(const void *p, uint32_t n) {
	uint32_t at = (ring_start + ring_used) % ring_size, first = ring_size - at < n ? ring_size - at : n;
	memcpy(ring + at, p, first);
	memcpy(ring, (const uint8_t *)p + first, n - first);
	ring_used += n;
}

static void ring_copy_out(void *p, uint32_t n) {
	uint32_t first = ring_size - ring_start < n ? ring_size - ring_start : n;
	memcpy(p, ring + ring_start, first);
	memcpy((uint8_t *)p + first, ring, n - first);
	ring_start = (ring_start + n) % ring_size;
	ring_used -= n;
}

static void ring_line(const char *head, const uint8_t *p, uint32_t n, uint32_t content) {
	pthread_mutex_lock(&lock);
	if (ring_size - ring_used < 8 + LOG_HEAD + n) {
		ring_missed += content;
		log_count_dropped(content);
	} else {
		uint32_t entry[2] = { LOG_HEAD + n, ring_missed > UINT32_MAX ? UINT32_MAX : (uint32_t)ring_missed };
		ring_missed -= entry[1];
		ring_copy_in(entry, sizeof entry);
		ring_copy_in(head, LOG_HEAD);
		ring_copy_in(p, n);
		pthread_cond_signal(&filled);
	}
	pthread_mutex_unlock(&lock);
}

static void *writer(void *unused) {
	(void)unused;
	static char line[LOG_HEAD + CHUNK];
	pthread_mutex_lock(&lock);
	for (;;) {
		if (!ring_used) {
			pthread_mutex_unlock(&lock);
			log_file_flush();
			pthread_mutex_lock(&lock);
		}
		while (!ring_used && !ring_end) pthread_cond_wait(&filled, &lock);
		if (!ring_used) break;
		uint32_t entry[2];
		ring_copy_out(entry, sizeof entry);
		ring_copy_out(line, entry[0]);
		pthread_mutex_unlock(&lock);
		if (entry[1]) log_file_missed(entry[1]);
		log_file_line(line, (uint8_t *)line + LOG_HEAD, entry[0] - LOG_HEAD);
		pthread_mutex_lock(&lock);
	}
	uint64_t missed = ring_missed;
	pthread_mutex_unlock(&lock);
	if (missed) log_file_missed(missed);
	log_file_close();
	pthread_mutex_lock(&lock);
	ring_done = true;
	pthread_cond_signal(&emptied);
	pthread_mutex_unlock(&lock);
	return NULL;
}

int log_open(const char *folder, uint64_t max_size, uint32_t max_files, uint32_t ring_bytes) {
	int failed = log_file_open(folder, max_size, max_files);
	if (failed) return failed;
	on = true;
	if (!ring_bytes) return 0;
	ring_size = ring_bytes < 4 * CHUNK ? 4 * CHUNK : ring_bytes;
	ring = mmap(NULL, ring_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ring == MAP_FAILED) {
		ring = NULL;
		return ENOMEM;
	}
	pthread_attr_t attributes;
	pthread_t thread;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 32 * 1024);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	failed = pthread_create(&thread, &attributes, writer, NULL);
	pthread_attr_destroy(&attributes);
	return failed;
}

static void emit(uint32_t stream, char tag, const uint8_t *p, uint32_t n) {
	char head[LOG_HEAD];
	log_head(head, stream, tag);
	if (ring) ring_line(head, p, n, n + (tag == 'F'));
	else log_file_line(head, p, n);
}

void log_data(uint32_t stream, const uint8_t *p, size_t n) {
	if (!on) return;
	__typeof__(partial[0]) *rest = &partial[stream == 2];
	while (n) {
		const uint8_t *end = memchr(p, '\n', n);
		size_t length = end ? (size_t)(end - p) : n;
		size_t room = CHUNK - rest->used;
		bool whole = end && length <= room;
		if (length > room) length = room;
		if (!rest->used && (whole || length == CHUNK)) {
			emit(stream, whole ? 'F' : 'P', p, (uint32_t)length);
		} else {
			if (!rest->p) rest->p = malloc(CHUNK);
			if (!rest->p) {
				log_count_dropped(length);
			} else {
				memcpy(rest->p + rest->used, p, length);
				rest->used += (uint32_t)length;
				if (whole || rest->used == CHUNK) {
					emit(stream, whole ? 'F' : 'P', rest->p, rest->used);
					rest->used = 0;
				}
			}
		}
		length += whole;
		p += length;
		n -= length;
	}
	if (!ring) log_file_flush();
	if (!rest->used && rest->p) {
		free(rest->p);
		rest->p = NULL;
	}
}

void log_finish(void) {
	if (!on) return;
	for (uint32_t i = 0; i < 2; i++) {
		if (partial[i].used) emit(i + 1, 'P', partial[i].p, partial[i].used);
		partial[i].used = 0;
	}
	on = false;
	if (!ring) {
		log_file_close();
		return;
	}
	/* a disk that hangs must not keep the exit status back */
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 2;
	pthread_mutex_lock(&lock);
	ring_end = true;
	pthread_cond_signal(&filled);
	while (!ring_done && pthread_cond_timedwait(&emptied, &lock, &until) != ETIMEDOUT) {}
	pthread_mutex_unlock(&lock);
}
