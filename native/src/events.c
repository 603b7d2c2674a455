/* The event loop: a thin layer over epoll in which a source out of interest is out of the set. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int loop = -1;

int events_open(void) {
	loop = epoll_create1(EPOLL_CLOEXEC);
	return loop < 0 ? errno : 0;
}

HOT void source_want(struct source *source, uint32_t events) {
	if (source->fd < 0 || source->events == events) return;
	struct epoll_event event = { .events = events, .data.ptr = source };
	if (!events) epoll_ctl(loop, EPOLL_CTL_DEL, source->fd, NULL);
	else epoll_ctl(loop, source->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, source->fd, &event);
	source->events = events;
}

void source_close(struct source *source) {
	if (source->fd < 0) return;
	source_want(source, 0);
	close(source->fd);
	source->fd = -1;
}

HOT void events_run(int timeout) {
	struct epoll_event events[16];
	int n = (int)syscall(SYS_epoll_pwait, loop, events, 16, timeout, NULL, 8); /* libc's is a cancellation point, on pages of its own */
	for (int i = 0; i < n; i++) {
		struct source *source = events[i].data.ptr;
		/* an earlier callback of this batch may have closed it or lost interest */
		if (source->fd >= 0 && source->events) source->ready(source, events[i].events);
	}
}

void events_forget(void) {
	if (loop >= 0) close(loop);
	loop = -1;
}

int64_t now_ms(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

uint64_t now_ns(void) {
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
