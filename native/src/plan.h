/*
 * Loading of an encoded plan (format: core/plan/encode.ts). Everything is checked once by plan_load: header, offsets, every
 * operation's code, length and fields. Bytes of a plan are data from the engine, but a plan on disk may be torn or newer.
 */
#ifndef ENGINE_PLAN_H
#define ENGINE_PLAN_H
#include <stddef.h>
#include <stdint.h>
#include "gen/operations.h"

/* Largest plan that is accepted, bytes. */
#define PLAN_MAX (64u << 20)

struct plan {
	const uint8_t *base;
	size_t size;
	uint32_t operations;
	uint32_t registers;
	struct { uint32_t offset, count; } parts[PART_COUNT];
	int mapped; /* plan_close must munmap */
};

/* The head of one operation, and a reader over its fields. */
struct operation {
	uint16_t code, flags, slot, origin;
	uint32_t length, index;
	struct reader fields;
};

/* Check a plan in memory; the memory must stay while the plan is used. 0, or -errno with a reason in `why`
 * (ENOEXEC no plan, EPROTONOSUPPORT newer format or operation, EBADMSG damaged). */
int plan_load(struct plan *plan, const void *bytes, size_t size, const char **why);

/* mmap a plan file and check it. The fd may be closed afterwards. */
int plan_open(struct plan *plan, int fd, const char **why);
void plan_close(struct plan *plan);

/* Iterate over a part of a loaded plan: plan_next gives 1 when there is none left. */
struct plan_cursor { uint32_t offset, left; };
struct plan_cursor plan_start(const struct plan *plan, enum part part);
int plan_next(const struct plan *plan, struct plan_cursor *at, struct operation *op);

/* Name of an operation as in the table ("write_file"), "?" when unknown. */
const char *operation_name(uint16_t code);

/* Size of the header in bytes. */
#define PLAN_HEAD (6u * 4 + PART_COUNT * 8)
#define OPERATION_HEAD 16u
#endif
