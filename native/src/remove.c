/* Removal of trees by fd. */
#include "files.h"
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

/* Deeper folders are first renamed up to the top, so that a tree of any depth needs a bounded number of fds and of stack. */
#define HOIST_DEPTH 48

struct removal { int top; unsigned hoisted; int error; };

static void remember(struct removal *r, int error)
{
	if (!r->error && error)
		r->error = error;
}

static void remove_below(struct removal *r, int dir, int depth);

/* A subvolume of btrfs goes as a whole, in the background. A read-only one could not be emptied by hand at all: any user may make one
 * (also inside a container), so this is not for the engine's own alone. False: not a subvolume, or it holds others; empty it first. */
static bool remove_subvolume(int parent, const char *name, int child)
{
	struct stat st;
	struct statfs fs;
	if (fstat(child, &st) || st.st_ino != BTRFS_FIRST_FREE_OBJECTID || fstatfs(child, &fs) || (uint32_t)fs.f_type != BTRFS_SUPER_MAGIC)
		return false;
	struct btrfs_ioctl_vol_args args = { 0 };
	strncpy(args.name, name, sizeof args.name - 1);
	if (!ioctl(parent, BTRFS_IOC_SNAP_DESTROY, &args))
		return true;
	uint64_t flags = 0;
	if (!ioctl(child, BTRFS_IOC_SUBVOL_GETFLAGS, &flags) && (flags & BTRFS_SUBVOL_RDONLY)) {
		flags &= ~(uint64_t)BTRFS_SUBVOL_RDONLY;
		ioctl(child, BTRFS_IOC_SUBVOL_SETFLAGS, &flags);
	}
	return false;
}

static int try_unlink(int dir, const char *name, int flags)
{
	if (!unlinkat(dir, name, flags))
		return 0;
	if (errno != EPERM && errno != EACCES)
		return -errno;
	make_mutable(dir, ".");
	make_mutable(dir, name);
	return unlinkat(dir, name, flags) ? -errno : 0;
}

static void remove_folder(struct removal *r, int dir, const char *name, int depth)
{
	int e = try_unlink(dir, name, AT_REMOVEDIR);
	if (!e || e == -ENOENT)
		return;
	if (e != -ENOTEMPTY && e != -EEXIST && e != -EPERM) {
		remember(r, e);
		return;
	}
	if (depth >= HOIST_DEPTH && r->top >= 0) {
		char up[64];
		snprintf(up, sizeof up, ".engine-deep-%d-%u", getpid(), r->hoisted++);
		if (!renameat(dir, name, r->top, up))
			return; /* the top is read again */
	}
	/* NO_XDEV: a mount, bind mounts of the same filesystem included, is never entered */
	AUTO_CLOSE int child = sys_openat2(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0,
					   RESOLVE_BENEATH_ | RESOLVE_NO_SYMLINKS_ | RESOLVE_NO_XDEV_);
	if (child < 0) {
		remember(r, child == -ENOENT ? 0 : child);
		return;
	}
	if (remove_subvolume(dir, name, child))
		return;
	int before = r->error;
	remove_below(r, child, depth + 1);
	e = try_unlink(dir, name, AT_REMOVEDIR);
	if (e == -ENOTEMPTY && r->error == before) { /* something was made meanwhile */
		remove_below(r, child, depth + 1);
		e = try_unlink(dir, name, AT_REMOVEDIR);
	}
	remember(r, e == -ENOENT ? 0 : e);
}

static void remove_below(struct removal *r, int dir, int depth)
{
	DIR *d = open_entries(dir);
	if (!d) {
		remember(r, -errno);
		return;
	}
	struct dirent *entry;
	while ((errno = 0, entry = readdir(d))) {
		const char *name = entry->d_name;
		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		unsigned char type = entry->d_type;
		if (type == DT_UNKNOWN) {
			struct stat st;
			if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
				continue;
			type = S_ISDIR(st.st_mode) ? DT_DIR : DT_REG;
		}
		if (type == DT_DIR) {
			remove_folder(r, dir, name, depth);
		} else {
			int e = try_unlink(dir, name, 0);
			if (e == -EISDIR)
				remove_folder(r, dir, name, depth);
			else
				remember(r, e == -ENOENT ? 0 : e);
		}
	}
	if (errno)
		remember(r, -errno);
	closedir(d);
}

/* Until nothing is left: hoisted folders appear in the top while it is read. */
int remove_children(struct machine *m, int dir)
{
	(void)m;
	struct removal r = { .top = dir };
	unsigned hoisted;
	do {
		hoisted = r.hoisted;
		remove_below(&r, dir, 0);
	} while (r.hoisted != hoisted);
	return r.error;
}

int remove_tree_at(struct machine *m, int parent, const char *name)
{
	struct stat st;
	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISDIR(st.st_mode))
		return try_unlink(parent, name, 0);
	AUTO_CLOSE int dir = sys_openat2(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0,
					 RESOLVE_BENEATH_ | RESOLVE_NO_SYMLINKS_ | RESOLVE_NO_XDEV_);
	if (dir < 0)
		return dir == -ENOENT ? 0 : dir == -EXDEV ? machine_fail(m, EBUSY, "something is mounted there: %s", name) : dir;
	if (remove_subvolume(parent, name, dir))
		return 0;
	int r = remove_children(m, dir);
	int e = try_unlink(parent, name, AT_REMOVEDIR);
	return r ? r : e == -ENOENT ? 0 : e;
}

int do_remove_tree(struct machine *m, const struct op_remove_tree *o)
{
	ROOT_OF(root, o->root, o->path.p);
	char name[256];
	AUTO_CLOSE int parent = resolve_parent(root, o->path.p, name);
	if (parent < 0)
		return parent == -ENOENT || parent == -ENOTDIR ? 0 : parent;
	return remove_tree_at(m, parent, name);
}
