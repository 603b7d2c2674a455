/* Changing single directory entries by their parent's fd; shared by files, tree and unpack. All give 0 or -errno. */
#ifndef ENGINE_FILES_H
#define ENGINE_FILES_H
#include "resolve.h"
#include <sys/sysmacros.h>

/* chmod of an entry that is no symbolic link, without following. */
int chmod_at(int parent, const char *name, unsigned mode);
int xattr_at(int parent, const char *name, const char *key, const void *value, size_t n);
/* Nanoseconds since the epoch as the kernel takes them. */
struct timespec time_of_ns(int64_t ns);
int mtime_at(int parent, const char *name, int64_t ns);
/* Clear the immutable and append-only flags of an entry (a regular file or folder). */
void make_mutable(int parent, const char *name);
/* copy `length` bytes between regular files or from a pipe at the current positions; gives bytes copied or -errno. */
int64_t copy_bytes(int to, int from, uint64_t length);
/* Walking a tree takes two or three fds per level: raise the soft limit, to be put back from *old. */
struct rlimit;
void raise_fd_limit(struct rlimit *old);
#endif
