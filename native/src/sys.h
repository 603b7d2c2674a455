/* System calls and constants that musl 1.2.3 lacks, and small helpers. */
#ifndef ENGINE_SYS_H
#define ENGINE_SYS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#define SYS_faccessat2 439
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define RESOLVE_NO_XDEV_ 0x01
#define RESOLVE_NO_MAGICLINKS_ 0x02
#define RESOLVE_NO_SYMLINKS_ 0x04
#define RESOLVE_BENEATH_ 0x08
#define RESOLVE_IN_ROOT_ 0x10
struct open_how_ { uint64_t flags, mode, resolve; };

#define OPEN_TREE_CLONE_ 1
#define OPEN_TREE_CLOEXEC_ O_CLOEXEC
#define AT_RECURSIVE_ 0x8000
#define AT_EMPTY_PATH_ 0x1000
#define MOVE_MOUNT_F_EMPTY_PATH_ 0x04
#define MOVE_MOUNT_T_EMPTY_PATH_ 0x40
#define FSOPEN_CLOEXEC_ 1
#define FSMOUNT_CLOEXEC_ 1
#define FSCONFIG_SET_FLAG_ 0
#define FSCONFIG_SET_STRING_ 1
#define FSCONFIG_SET_FD_ 5
#define FSCONFIG_CMD_CREATE_ 6
#define MOUNT_ATTR_RDONLY_ 0x01
#define MOUNT_ATTR_NOSUID_ 0x02
#define MOUNT_ATTR_NODEV_ 0x04
#define MOUNT_ATTR_NOEXEC_ 0x08
struct mount_attr_ { uint64_t attr_set, attr_clr, propagation, userns_fd; };
#define CLOSE_RANGE_CLOEXEC_ 4

#define PROC_MAGIC 0x9fa0
#define DEVPTS_MAGIC 0x1cd1
#define NSFS_MAGIC 0x6e736673

static inline int sys_result(long r) { return r < 0 ? -errno : (int)r; }

static inline int sys_openat2(int dir, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
	struct open_how_ how = { flags, mode, resolve };
	return sys_result(syscall(SYS_openat2, dir, path, &how, sizeof how));
}
static inline int sys_open_tree(int dir, const char *path, unsigned flags) { return sys_result(syscall(SYS_open_tree, dir, path, flags)); }
static inline int sys_move_mount(int from, int to)
{
	return sys_result(syscall(SYS_move_mount, from, "", to, "", MOVE_MOUNT_F_EMPTY_PATH_ | MOVE_MOUNT_T_EMPTY_PATH_));
}
static inline int sys_fsopen(const char *type) { return sys_result(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC_)); }
static inline int sys_fsconfig(int fs, unsigned command, const char *key, const void *value, int aux)
{
	return sys_result(syscall(SYS_fsconfig, fs, command, key, value, aux));
}
static inline int sys_fsmount(int fs, unsigned attributes) { return sys_result(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC_, attributes)); }
static inline int sys_mount_setattr(int fd, unsigned flags, uint64_t set, uint64_t clear, uint64_t propagation)
{
	struct mount_attr_ a = { set, clear, propagation, 0 };
	return sys_result(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH_ | flags, &a, sizeof a));
}
static inline int sys_close_range(unsigned first, unsigned last, unsigned flags) { return sys_result(syscall(SYS_close_range, first, last, flags)); }

/* Cleanup attributes: `AUTO_CLOSE int fd = -1;`, `AUTO_FREE char *p = NULL;` */
static inline void auto_close_(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;
		close(*fd);
		errno = saved;
	}
}
static inline void auto_free_(void *p) { free(*(void **)p); }
#define AUTO_CLOSE __attribute__((cleanup(auto_close_)))
#define AUTO_FREE __attribute__((cleanup(auto_free_)))
static inline int take_fd(int *fd) { int r = *fd; *fd = -1; return r; }

/* write(2) until all is out; 0 or -errno. */
static inline int write_all(int fd, const void *data, size_t n)
{
	const char *p = data;
	while (n) {
		ssize_t w = write(fd, p, n);
		if (w < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		p += w;
		n -= (size_t)w;
	}
	return 0;
}
#endif
