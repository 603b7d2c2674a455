/*
 * Mutation fuzzer of the parsers that read what others wrote: plans, passwd and group, entries. fuzz SEED ROUNDS [PLAN]. Build with
 * -fsanitize=address,undefined. Prints one line; a crash is the failure.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../entries.h"
#include "../plan.h"
#include "../users.h"

static uint64_t state;
static uint32_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 32);
}

static void mutate(uint8_t *p, size_t n)
{
	for (uint32_t i = next_random() % 8; n && i; i--) {
		static const uint32_t odd[] = { 0, 1, 0x7fffffff, 0x80000000u, 0xffffffffu, 0xfffffffcu, 4, 255 };
		uint32_t at = next_random() % n;
		if (next_random() & 1)
			p[at] = (uint8_t)next_random();
		else
			memcpy(p + at, &odd[next_random() % 8], n - at < 4 ? n - at : 4);
	}
}

static unsigned fuzz_plan(const uint8_t *seed, size_t n)
{
	/* exactly sized, so that the sanitizer sees a read past the end */
	size_t size = next_random() % 4 ? n : next_random() % (n + 1);
	uint8_t *copy = malloc(size ? size : 1);
	memcpy(copy, seed, size);
	mutate(copy, size);
	if (size >= 12 && next_random() % 2)
		memcpy(copy + 8, &(uint32_t){ (uint32_t)size }, 4);
	struct plan plan;
	unsigned operations = 0;
	if (!plan_load(&plan, copy, size, NULL))
		for (int part = 0; part < PART_COUNT; part++) {
			struct operation op;
			for (struct plan_cursor at = plan_start(&plan, (enum part)part); !plan_next(&plan, &at, &op);)
				operations++;
		}
	free(copy);
	return operations;
}

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\nbad:x:4294967296:0::/:\nwww:x:33:33:w:/var/www:/x\nshort:x:1\n:x:5:5:::\nbig:x:4294967294:7::/big:\n";
static const char group[] = "root:x:0:\nwww-data:x:33:www,root\nadm:x:4:www,,x\nneg:x:-1:www\n";

static void fuzz_users(void)
{
	static const char *const specs[] = { "root", "www", "33", "0:adm", "www:33", ":4", "4294967295", "-1", "0x0", "big", "a:b:c", "" };
	char *p = malloc(sizeof passwd - 1), *g = malloc(sizeof group - 1);
	memcpy(p, passwd, sizeof passwd - 1);
	memcpy(g, group, sizeof group - 1);
	mutate((uint8_t *)p, sizeof passwd - 1);
	mutate((uint8_t *)g, sizeof group - 1);
	static struct users u;
	const char *which, *extra[] = { "adm", "44" };
	users_resolve(&u, p, sizeof passwd - 1, g, sizeof group - 1, specs[next_random() % 12], extra, 2, &which);
	free(p);
	free(g);
}

static void put32(uint8_t **p, uint32_t v) { memcpy(*p, &v, 4); *p += 4; }

static void fuzz_entry(void)
{
	uint8_t seed[256], *p = seed;
	put32(&p, 0644);
	put32(&p, 1);
	put32(&p, 2);
	put32(&p, 1);
	for (int i = 0; i < 6; i++)
		put32(&p, 0);
	put32(&p, 7); memcpy(p, "a/b/c.d", 7); p += 7;
	put32(&p, 3); memcpy(p, "x/y", 3); p += 3;
	put32(&p, 6); memcpy(p, "user.a", 6); p += 6;
	put32(&p, 2); memcpy(p, "hi", 2); p += 2;
	size_t n = (size_t)(p - seed), size = next_random() % 4 ? n : next_random() % (n + 1);
	uint8_t *copy = malloc(size ? size : 1);
	memcpy(copy, seed, size);
	mutate(copy, size);
	static struct entry e;
	const char *why;
	if (!entry_parse(1 + next_random() % 9, copy, size, &e, &why)) {
		char name[256];
		const uint8_t *value;
		uint32_t length;
		volatile uint8_t sink = 0;
		while (!entry_xattr(&e, name, &value, &length))
			for (uint32_t i = 0; i < length; i++)
				sink ^= value[i];
		if (strstr(e.path, "..") == e.path || e.path[0] == '/')
			abort();
	}
	free(copy);
}

int main(int argc, char **argv)
{
	static uint8_t plan[1 << 20];
	size_t n = 0;
	unsigned operations = 0;
	state = argc > 1 ? strtoull(argv[1], NULL, 10) * 2654435761u + 88172645463325252u : 1;
	long rounds = argc > 2 ? atol(argv[2]) : 100000;
	FILE *f = argc > 3 ? fopen(argv[3], "rb") : NULL;
	if (f) {
		n = fread(plan, 1, sizeof plan, f);
		fclose(f);
	}
	for (long i = 0; i < rounds; i++) {
		if (n)
			operations += fuzz_plan(plan, n);
		fuzz_users();
		fuzz_entry();
	}
	printf("%ld rounds, %u operations read\n", rounds, operations);
	return 0;
}
