/*
 * Paths inside an untrusted root. One resolver for the whole interpreter: openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS), so that no
 * link leads out and no link of procfs is followed. With root = HOST a path is an absolute path of the host.
 */
#ifndef ENGINE_RESOLVE_H
#define ENGINE_RESOLVE_H
#include "ops.h"

#define HOST AT_FDCWD

/* open flags as for openat2 (O_CLOEXEC is added); fd or -errno. */
int resolve_open(int root, const char *path, int flags, unsigned mode);

/* O_PATH fd of the folder that holds the last component, which is copied to `name` (NAME_MAX + 1) and never followed by the caller.
 * EINVAL when the path has no name of its own ("/", "..", "."). */
int resolve_parent(int root, const char *path, char name[256]);

/* mkdir -p by fd (CVE-2024-45310), returns an O_PATH fd of the folder. Missing parents are 0755; the last gets `mode` exactly and, when
 * `owner` is not 0, uid and gid. Dangling links are followed inside the root. `made` (may be NULL): whether the last was created. */
struct folder_attributes { unsigned mode; int owner; uid_t uid; gid_t gid; };
int resolve_mkdirs(int root, const char *path, const struct folder_attributes *last, int *made);

/* An empty file of mode 0644 and its missing folders, each 0755; returns an O_PATH fd of it. Dangling links are followed inside the root. */
int resolve_mkfile(int root, const char *path);

/* Common prefix of operations: the register `root` (optional) as an fd, HOST without one. <0 (other than HOST) = -errno. */
int root_of(struct machine *m, uint32_t reg, const char *path);
#define ROOT_OF(variable, reg, path) \
	int variable = root_of(m, reg, path); \
	if (variable < 0 && variable != HOST) \
		return variable
#endif
