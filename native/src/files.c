#include "files.h"
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

DIR *open_entries(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d && fd >= 0) {
		int saved = errno;
		close(fd);
		errno = saved;
	}
	return d;
}

int chmod_at(int parent, const char *name, unsigned mode)
{
	if (!syscall(SYS_fchmodat2, parent, name, mode & 07777, AT_SYMLINK_NOFOLLOW))
		return 0;
	if (errno != ENOSYS)
		return -errno;
	/* before Linux 6.6: by the magic link of an O_PATH fd, which cannot be exchanged */
	AUTO_CLOSE int fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st))
		return -errno;
	if (S_ISLNK(st.st_mode))
		return -EOPNOTSUPP;
	char path[40];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return chmod(path, mode & 07777) ? -errno : 0;
}

/* There is no lsetxattrat before Linux 6.13: by a relative name, from the folder itself. */
int xattr_at(int parent, const char *name, const char *key, const void *value, size_t n)
{
	char relative[260];
	AUTO_CLOSE int back = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (back < 0 || fchdir(parent))
		return -errno;
	snprintf(relative, sizeof relative, "./%s", name);
	int r = lsetxattr(relative, key, value, n, 0) ? -errno : 0;
	if (fchdir(back) && !r)
		r = -errno;
	return r;
}

struct timespec time_of_ns(int64_t ns)
{
	struct timespec t = { ns / 1000000000, ns % 1000000000 };
	if (t.tv_nsec < 0) {
		t.tv_sec--;
		t.tv_nsec += 1000000000;
	}
	return t;
}

int mtime_at(int parent, const char *name, int64_t ns)
{
	struct timespec times[2] = { time_of_ns(ns), time_of_ns(ns) };
	return utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

void make_mutable(int parent, const char *name)
{
	AUTO_CLOSE int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	int flags;
	if (fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags) || !(flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)))
		return;
	flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
	(void)!ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

int do_mkdir(struct machine *m, const struct op_mkdir *o)
{
	ROOT_OF(root, o->root, o->path.p);
	struct folder_attributes a = { o->mode, o->uid || o->gid, o->uid, o->gid };
	if (o->parents) {
		int fd = resolve_mkdirs(root, o->path.p, &a, NULL);
		if (fd >= 0)
			close(fd);
		return fd < 0 ? fd : 0;
	}
	char name[256];
	AUTO_CLOSE int parent = resolve_parent(root, o->path.p, name);
	if (parent < 0)
		return parent;
	if (mkdirat(parent, name, 0700))
		return -errno;
	AUTO_CLOSE int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || (a.owner && fchown(fd, a.uid, a.gid)))
		return -errno;
	/* cgroupfs and the like refuse a chmod to what is there already; they make 0755 of their own */
	struct stat st;
	if (fstat(fd, &st))
		return -errno;
	return (st.st_mode & 07777) != (a.mode & 07777) && fchmod(fd, a.mode & 07777) ? -errno : 0;
}

int do_rmdir(struct machine *m, const struct op_rmdir *o)
{
	ROOT_OF(root, o->root, o->path.p);
	char name[256];
	AUTO_CLOSE int parent = resolve_parent(root, o->path.p, name);
	if (parent < 0)
		return parent;
	return unlinkat(parent, name, AT_REMOVEDIR) ? -errno : 0;
}

static int write_atomic(int root, const struct op_write_file *o)
{
	char name[256], temporary[64];
	AUTO_CLOSE int parent = resolve_parent(root, o->path.p, name);
	if (parent < 0)
		return parent;
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	snprintf(temporary, sizeof temporary, ".engine-%d-%lx%lx", getpid(), (long)t.tv_sec, t.tv_nsec);
	AUTO_CLOSE int fd = openat(parent, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int r = write_all(fd, o->data.p, o->data.n);
	if (!r && (((o->uid || o->gid) && fchown(fd, o->uid, o->gid)) || fchmod(fd, o->mode ? o->mode & 07777 : 0644) || fsync(fd)))
		r = -errno;
	if (!r && syscall(SYS_renameat2, parent, temporary, parent, name, o->how & WRITE_EXCLUSIVE ? 1 /* RENAME_NOREPLACE */ : 0))
		r = -errno;
	if (r)
		unlinkat(parent, temporary, 0);
	return r;
}

int do_write_file(struct machine *m, const struct op_write_file *o)
{
	ROOT_OF(root, o->root, o->path.p);
	if (o->how & WRITE_ATOMIC)
		return write_atomic(root, o);
	/* O_NONBLOCK: a fifo or device in the place of the file must not stop us */
	int flags = O_WRONLY | O_NOCTTY | O_NONBLOCK | (o->how & WRITE_APPEND ? O_APPEND : 0), made = 0;
	AUTO_CLOSE int fd = -ENOENT;
	if (o->how & WRITE_CREATE) {
		fd = resolve_open(root, o->path.p, flags | O_CREAT | O_EXCL, 0600);
		made = fd >= 0;
		if (fd == -EEXIST && o->how & WRITE_EXCLUSIVE)
			return fd;
	}
	if (!(o->how & WRITE_CREATE) || fd == -EEXIST) {
		fd = resolve_open(root, o->path.p, flags, 0);
		if (fd == -ENOENT && o->how & WRITE_CREATE) /* a dangling link: made where it points, inside the root */
			fd = resolve_open(root, o->path.p, flags | O_CREAT, 0600);
	}
	if (fd < 0)
		return fd;
	struct stat st;
	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return machine_fail(m, ENXIO, "not a regular file: %s", o->path.p);
	if ((o->how & WRITE_TRUNCATE && ftruncate(fd, 0)) || (made && (o->uid || o->gid) && fchown(fd, o->uid, o->gid)) ||
	    (made && fchmod(fd, o->mode ? o->mode & 07777 : 0644)))
		return -errno;
	return write_all(fd, o->data.p, o->data.n);
}

int do_write_fd(struct machine *m, const struct op_write_fd *o)
{
	int fd = register_fd(m, o->fd);
	if (fd < 0)
		return fd;
	ssize_t n = write(fd, o->data.p, o->data.n);
	return n < 0 ? -errno : (size_t)n == o->data.n ? 0 : -EIO;
}

int do_unlink(struct machine *m, const struct op_unlink *o)
{
	ROOT_OF(root, o->root, o->path.p);
	char name[256];
	AUTO_CLOSE int parent = resolve_parent(root, o->path.p, name);
	if (parent < 0)
		return parent;
	return unlinkat(parent, name, 0) ? -errno : 0;
}

int do_rename(struct machine *m, const struct op_rename *o)
{
	ROOT_OF(from, NO_REGISTER, o->from.p);
	ROOT_OF(to, NO_REGISTER, o->to.p);
	return syscall(SYS_renameat2, from, o->from.p, to, o->to.p, o->flags) ? -errno : 0;
}

int do_symlink(struct machine *m, const struct op_symlink *o)
{
	ROOT_OF(root, o->root, o->path.p);
	char name[256];
	AUTO_CLOSE int parent = resolve_parent(root, o->path.p, name);
	if (parent < 0)
		return parent;
	if (symlinkat(o->target.p, parent, name))
		return -errno;
	return (o->uid || o->gid) && fchownat(parent, name, o->uid, o->gid, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

int do_link(struct machine *m, const struct op_link *o)
{
	ROOT_OF(root, o->root, o->path.p);
	char name[256], target_name[256];
	AUTO_CLOSE int parent = resolve_parent(root, o->path.p, name);
	AUTO_CLOSE int target = resolve_parent(root, o->target.p, target_name);
	if (parent < 0 || target < 0)
		return parent < 0 ? parent : target;
	return linkat(target, target_name, parent, name, 0) ? -errno : 0;
}

/* A user namespace may not make nodes: an empty file with the host's node bound over it. */
static int bind_node(struct machine *m, int parent, const char *name, const char *source, dev_t device)
{
	AUTO_CLOSE int node = open(source, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (node < 0 || fstat(node, &st))
		return machine_fail(m, errno, "cannot open the host's %s", source);
	if ((!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode)) || st.st_rdev != device)
		return machine_fail(m, ENODEV, "the host's %s is not that device", source);
	AUTO_CLOSE int file = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (file < 0)
		return -errno;
	AUTO_CLOSE int mount = sys_open_tree(node, "", OPEN_TREE_CLONE_ | OPEN_TREE_CLOEXEC_ | AT_EMPTY_PATH_);
	return mount < 0 ? mount : sys_move_mount(mount, file);
}

int do_mknod(struct machine *m, const struct op_mknod *o)
{
	ROOT_OF(root, o->root, o->path.p);
	char name[256];
	AUTO_CLOSE int parent = resolve_parent(root, o->path.p, name);
	if (parent < 0)
		return parent;
	mode_t saved = umask(0);
	int r = mknodat(parent, name, o->mode, makedev(o->major, o->minor)) ? -errno : 0;
	umask(saved);
	struct stat st;
	/* the very node is there already: of an earlier container with this rootfs */
	if (r == -EEXIST && !fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) && (st.st_mode & S_IFMT) == (o->mode & S_IFMT) && (S_ISFIFO(st.st_mode) || st.st_rdev == makedev(o->major, o->minor)))
		return fchownat(parent, name, o->uid, o->gid, AT_SYMLINK_NOFOLLOW) ? -errno : chmod_at(parent, name, o->mode);
	if (r == -EPERM && o->bind.n)
		return bind_node(m, parent, name, o->bind.p, makedev(o->major, o->minor));
	if (r || !(o->uid || o->gid))
		return r;
	if (fchownat(parent, name, o->uid, o->gid, AT_SYMLINK_NOFOLLOW))
		return -errno;
	return chmod_at(parent, name, o->mode);
}

int do_set_attributes(struct machine *m, const struct op_set_attributes *o)
{
	ROOT_OF(root, o->root, o->path.p);
	char name[256] = ".";
	AUTO_CLOSE int parent = resolve_parent(root, o->path.p, name);
	if (parent == -EINVAL) { /* the root itself */
		strcpy(name, ".");
		parent = resolve_open(root, o->path.p, O_PATH | O_DIRECTORY, 0);
	}
	if (parent < 0)
		return parent;
	if (o->what & ATTR_OWNER && fchownat(parent, name, o->uid, o->gid, AT_SYMLINK_NOFOLLOW))
		return -errno;
	int r = o->what & ATTR_MODE ? chmod_at(parent, name, o->mode) : 0;
	return !r && o->what & ATTR_MTIME ? mtime_at(parent, name, o->mtime) : r;
}

int do_set_xattr(struct machine *m, const struct op_set_xattr *o)
{
	ROOT_OF(root, o->root, o->path.p);
	char name[256];
	AUTO_CLOSE int parent = resolve_parent(root, o->path.p, name);
	if (parent == -EINVAL) {
		strcpy(name, ".");
		parent = resolve_open(root, o->path.p, O_PATH | O_DIRECTORY, 0);
	}
	return parent < 0 ? parent : xattr_at(parent, name, o->name.p, o->value.p, o->value.n);
}

int do_open(struct machine *m, const struct op_open *o)
{
	ROOT_OF(root, o->root, o->path.p);
	AUTO_CLOSE int fd = resolve_open(root, o->path.p, (int)o->flags, 0600);
	if (fd < 0)
		return fd;
	if (o->magic) {
		struct statfs fs;
		if (fstatfs(fd, &fs))
			return -errno;
		if ((uint32_t)fs.f_type != o->magic)
			return machine_fail(m, EXDEV, "%s is on a filesystem of type %#x, not %#x", o->path.p, (unsigned)fs.f_type, o->magic);
	}
	register_set_fd(m, o->out, take_fd(&fd));
	return 0;
}

int do_ioctl(struct machine *m, const struct op_ioctl *o)
{
	int fd = register_fd(m, o->fd);
	if (fd < 0)
		return fd;
	/* slack: old request numbers do not carry the size that the kernel may write */
	AUTO_FREE uint8_t *buffer = calloc(1, (size_t)o->arg.n + 16384);
	if (!buffer)
		return -ENOMEM;
	memcpy(buffer, o->arg.p, o->arg.n);
	if (o->patch != NO_REGISTER) {
		if (o->patch >= MAX_REGISTERS || m->registers[o->patch].kind == REGISTER_NONE)
			return machine_fail(m, EBADF, "register %u is not set", o->patch);
		if (o->patch_at > o->arg.n || o->arg.n - o->patch_at < 8)
			return machine_fail(m, EINVAL, "patch lies outside the argument");
		memcpy(buffer + o->patch_at, &m->registers[o->patch].value, 8);
	}
	return syscall(SYS_ioctl, fd, (unsigned long)o->request, o->arg.n ? buffer : NULL) < 0 ? -errno : 0;
}

int do_sync_fs(struct machine *m, const struct op_sync_fs *o)
{
	ROOT_OF(root, NO_REGISTER, o->path.p);
	AUTO_CLOSE int fd = resolve_open(root, o->path.p, O_RDONLY | O_NONBLOCK, 0);
	return fd < 0 ? fd : syncfs(fd) ? -errno : 0;
}

int do_set_file_flags(struct machine *m, const struct op_set_file_flags *o)
{
	ROOT_OF(root, o->root, o->path.p);
	AUTO_CLOSE int fd = resolve_open(root, o->path.p, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, 0);
	int flags;
	if (fd < 0)
		return fd;
	if (ioctl(fd, FS_IOC_GETFLAGS, &flags))
		return -errno;
	flags = (int)(((unsigned)flags & ~o->clear) | o->set);
	return ioctl(fd, FS_IOC_SETFLAGS, &flags) ? -errno : 0;
}
