#include "plan.h"
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define CHECK(op_code, snake) \
	case op_code: { struct op_##snake o; return decode_##snake(r, &o); }

/* Reads all fields once, so that later decoding cannot fail. */
static int check_fields(uint16_t code, struct reader *r)
{
	switch (code) {
	EACH_OPERATION(CHECK)
	default: return -2;
	}
}

const char *operation_name(uint16_t code)
{
	switch (code) {
#define NAME(op_code, snake) case op_code: return #snake;
	EACH_OPERATION(NAME)
	default: return "?";
	}
}

static uint32_t u32_at(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return v;
}

/* The operation at `at`; 0 or -1 when it does not fit below `end`. */
static int head_at(const uint8_t *base, uint32_t at, size_t end, struct operation *op)
{
	if (at % 4 || at > end || end - at < OPERATION_HEAD)
		return -1;
	const uint8_t *p = base + at;
	memcpy(&op->code, p, 2);
	memcpy(&op->flags, p + 2, 2);
	memcpy(&op->slot, p + 4, 2);
	memcpy(&op->origin, p + 6, 2);
	op->length = u32_at(p + 8);
	op->index = u32_at(p + 12);
	if (op->length < OPERATION_HEAD || op->length % 4 || op->length > end - at)
		return -1;
	op->fields = (struct reader){ p + OPERATION_HEAD, p + op->length };
	return 0;
}

static int refuse(const char **why, int error, const char *text)
{
	if (why)
		*why = text;
	return -error;
}

int plan_load(struct plan *plan, const void *bytes, size_t size, const char **why)
{
	memset(plan, 0, sizeof *plan);
	const uint8_t *base = bytes;
	if (size < PLAN_HEAD || u32_at(base) != PLAN_MAGIC)
		return refuse(why, ENOEXEC, "not a plan");
	if (u32_at(base + 4) > PLAN_VERSION)
		return refuse(why, EPROTONOSUPPORT, "plan of a newer format");
	if (u32_at(base + 4) == 0 || size > PLAN_MAX || u32_at(base + 8) != size)
		return refuse(why, EBADMSG, "plan of a wrong length");
	uint32_t tail = u32_at(base + 16);
	if (tail < PLAN_HEAD || tail > size || size - tail < 4 || u32_at(base + tail) > size - tail - 4)
		return refuse(why, EBADMSG, "plan with a wrong tail");
	plan->base = base;
	plan->size = tail; /* operations end here */
	plan->operations = u32_at(base + 12);
	plan->registers = u32_at(base + 20);
	if (plan->registers > MAX_REGISTERS)
		return refuse(why, EBADMSG, "plan with too many registers");
	uint64_t total = 0;
	for (int i = 0; i < PART_COUNT; i++) {
		plan->parts[i].offset = u32_at(base + 24 + 8 * i);
		plan->parts[i].count = u32_at(base + 28 + 8 * i);
		uint32_t at = plan->parts[i].offset, count = plan->parts[i].count;
		total += count;
		if (count && at < PLAN_HEAD)
			return refuse(why, EBADMSG, "part with a wrong offset");
		for (uint32_t n = 0; n < count; n++) {
			struct operation op;
			if (head_at(base, at, tail, &op))
				return refuse(why, EBADMSG, "operation out of bounds");
			if (op.slot / 32 != (uint16_t)i)
				return refuse(why, EBADMSG, "operation in a wrong part");
			int r = check_fields(op.code, &op.fields);
			if (r == -2)
				return refuse(why, EPROTONOSUPPORT, "unknown operation");
			if (r || op.fields.p != op.fields.end)
				return refuse(why, EBADMSG, "operation with damaged fields");
			at += op.length;
		}
	}
	if (total != plan->operations)
		return refuse(why, EBADMSG, "plan with a wrong operation count");
	return 0;
}

int plan_open(struct plan *plan, int fd, const char **why)
{
	struct stat st;
	if (fstat(fd, &st))
		return -errno;
	if (st.st_size < (off_t)PLAN_HEAD || st.st_size > (off_t)PLAN_MAX)
		return refuse(why, ENOEXEC, "not a plan");
	void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	int r = plan_load(plan, p, (size_t)st.st_size, why);
	if (r) {
		munmap(p, (size_t)st.st_size);
		memset(plan, 0, sizeof *plan);
	} else {
		plan->mapped = 1;
	}
	return r;
}

void plan_close(struct plan *plan)
{
	if (plan->mapped)
		munmap((void *)(uintptr_t)plan->base, u32_at(plan->base + 8));
	memset(plan, 0, sizeof *plan);
}

struct plan_cursor plan_start(const struct plan *plan, enum part part)
{
	return (struct plan_cursor){ plan->parts[part].offset, plan->parts[part].count };
}

int plan_next(const struct plan *plan, struct plan_cursor *at, struct operation *op)
{
	if (!at->left || head_at(plan->base, at->offset, plan->size, op))
		return 1;
	at->offset += op->length;
	at->left--;
	return 0;
}
