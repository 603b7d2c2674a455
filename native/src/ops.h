/* Inside the interpreter only: one function per operation, found by the dispatch table under its name. */
#ifndef ENGINE_OPS_H
#define ENGINE_OPS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* before any system header: glibc */
#endif
#include "interpreter.h"
#include "sys.h"
#include <dirent.h>

/* 0 or -errno (with machine_fail for the detail). */
#define DECLARE(op_code, snake) int do_##snake(struct machine *m, const struct op_##snake *o);
EACH_OPERATION(DECLARE)
#undef DECLARE

/* NULL-terminated array of the texts; the array is malloc'ed, the texts lie in the plan. */
char **strs_array(struct strs list);

/* Monotonic milliseconds; sleep. */
int64_t clock_ms(void);
void sleep_ms(int ms);

/* Shared between families. */
int copy_tree(struct machine *m, int from, int to, uint32_t how);
int remove_tree_at(struct machine *m, int parent, const char *name);
int remove_children(struct machine *m, int dir);
/* The entries of a folder, read from their beginning by an fd of its own; NULL with errno. */
DIR *open_entries(int dir);
/* Open a file of the procfs held in `proc`, checked to be one; fd or -errno. */
int proc_open(struct machine *m, int proc, const char *path, int flags);

/* exechost.c: run a program to its end. 0 or -errno: EREMOTEIO when it fails, ETIMEDOUT after `deadline` ms (0: for ever), when it is killed with its group. */
#define PROGRAM_INPUTS 3
struct program {
	const char *path, *cwd; /* `cwd` NULL: as it is */
	char **argv, **env;
	uint32_t deadline;
	struct { const char *p; size_t n; } input[PROGRAM_INPUTS]; /* of its stdin, one after the other */
};
int run_program(struct machine *m, const struct program *p);

/* identity.c */
int last_capability(void);
int set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable);
/* All dispositions to the default, nothing blocked. */
void reset_signals(void);
/* Where streams are the null device: the one of the root that was just entered. */
void own_null(void);

#ifdef ENGINE_TEST
void halt_point(struct machine *m, int after);
void trace_operation(struct machine *m);
#endif
#endif
