/*
 * /etc/passwd and /etc/group of an untrusted rootfs: bounded, strict. Numbers are decimal digits only, 0..2^32-2; a line with a
 * number outside is skipped, never wrapped (CVE-2024-40635, CVE-2026-30892).
 */
#ifndef ENGINE_USERS_H
#define ENGINE_USERS_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ID_NONE 0xffffffffu
#define USERS_MAX_GROUPS 1024

struct users {
	uint32_t uid, gid;
	uint32_t groups[USERS_MAX_GROUPS]; /* supplementary, with the primary one first (CVE-2022-36109) */
	uint32_t count;
	char home[4096];
	char name[256];                    /* of the passwd entry, "" without one */
};

/* A decimal number in 0..2^32-2: 0; -EINVAL not a number, -ERANGE too large. */
int users_number(const char *text, size_t n, uint32_t *out);

/* `text` of /etc/passwd and /etc/group (may be empty), `spec` = user[:group], `extra` = n more groups by name or number.
 * 0, -EINVAL malformed, -ENOENT no such user or group, -ERANGE. *which: the word at fault. */
int users_resolve(struct users *u, const char *passwd, size_t passwd_n, const char *group, size_t group_n, const char *spec,
		  const char *const *extra, size_t extra_n, const char **which);
#endif
