/* When each operation began and ended, in shim, stage, init and sessions: one shared area, made before the first child. */
#define _GNU_SOURCE
#include "process.h"

#include <sys/mman.h>

static uint32_t told;

void trace_open(void) {
	void *area = mmap(NULL, sizeof *trace, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (area != MAP_FAILED) trace = area;
}

/* `exec` does not return, and who was killed did not finish: now is when they were seen to have ended. */
void trace_end(void) {
	uint32_t used = trace ? __atomic_load_n(&trace->used, __ATOMIC_ACQUIRE) : 0;
	for (uint32_t i = told; i < used && i < TRACE_ENTRIES; i++)
		if (!trace->entries[i].end) trace->entries[i].end = trace_now();
}

const void *trace_take(uint32_t *length) {
	if (!trace) return NULL;
	uint32_t used = __atomic_load_n(&trace->used, __ATOMIC_ACQUIRE);
	if (used > TRACE_ENTRIES) used = TRACE_ENTRIES;
	trace_end();
	const void *entries = &trace->entries[told];
	*length = (used - told) * (uint32_t)sizeof(struct trace_entry);
	told = used;
	return *length ? entries : NULL;
}

void trace_tell(struct client *c) {
	uint32_t length;
	const void *entries = c ? trace_take(&length) : NULL;
	if (entries) client_send(c, FRAME_TRACE, 0, 0, entries, length);
}
