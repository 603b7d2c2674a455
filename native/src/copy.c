/* copyTree and copyUp: trees copied by fd, nothing followed. */
#include "files.h"
#include "inodes.h"
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/xattr.h>

struct copy {
	struct machine *m;
	int to_root;
	uint32_t how;
	struct inodes links;
	char path[8192]; /* of the entry, relative to to_root */
	size_t length;
	int warned;
};

static int is_overlay_xattr(const char *key)
{
	return !strncmp(key, "trusted.overlay.", 16) || !strncmp(key, "user.overlay.", 13);
}

/* Both fds are real ones, or `name` is set and both are the parents (entries that cannot be opened). */
static int copy_xattrs(struct copy *c, int from, int to, const char *name)
{
	char small[1024], relative[260];
	char *keys = small;
	AUTO_FREE char *big = NULL;
	AUTO_FREE char *value = NULL;
	AUTO_CLOSE int back = -1;
	if (name) {
		back = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (back < 0 || fchdir(from))
			return -errno;
		snprintf(relative, sizeof relative, "./%s", name);
	}
	ssize_t n = name ? llistxattr(relative, small, sizeof small) : flistxattr(from, small, sizeof small);
	if (n < 0 && errno == ERANGE) {
		if (!(big = malloc(65536)))
			return -ENOMEM;
		keys = big;
		n = name ? llistxattr(relative, big, 65536) : flistxattr(from, big, 65536);
	}
	int r = n < 0 && errno != ENOTSUP ? -errno : 0;
	for (char *key = keys; n > 0 && !r && key < keys + n; key += strlen(key) + 1) {
		if (is_overlay_xattr(key) && !(c->how & COPY_OVERLAY_WHITEOUTS))
			continue;
		if (!value && !(value = malloc(65536)))
			r = -ENOMEM;
		else if (name && fchdir(from))
			r = -errno;
		if (r)
			break;
		ssize_t size = name ? lgetxattr(relative, key, value, 65536) : fgetxattr(from, key, value, 65536);
		if (size < 0)
			continue; /* gone meanwhile, or not ours to read */
		int e = name ? xattr_at(to, name, key, value, (size_t)size) : fsetxattr(to, key, value, (size_t)size, 0) ? -errno : 0;
		if (e == -ENOTSUP || (e == -EPERM && !strncmp(key, "security.selinux", 16))) {
			if (!c->warned++)
				machine_warn(c->m, -e, "extended attribute %s cannot be kept: %s", key, c->path);
		} else {
			r = e;
		}
	}
	if (name && fchdir(back) && !r)
		r = -errno;
	return r;
}

static int copy_data(int from, int to, const struct stat *st, uint32_t how)
{
	if (!st->st_size)
		return 0;
	if (!ioctl(to, FICLONE, from))
		return 0;
	if (how & COPY_REFLINK_ONLY)
		return -errno;
	for (off_t at = 0; at < st->st_size;) {
		off_t data = lseek(from, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			break; /* a hole up to the end */
		off_t end = data < 0 ? st->st_size : lseek(from, data, SEEK_HOLE);
		if (data < 0)
			data = at;
		if (end < 0)
			return -errno;
		if (lseek(from, data, SEEK_SET) < 0 || lseek(to, data, SEEK_SET) < 0)
			return -errno;
		int64_t n = copy_bytes(to, from, (uint64_t)(end - data));
		if (n < 0)
			return (int)n;
		if (n < end - data)
			break; /* shrunk meanwhile */
		at = end;
	}
	return ftruncate(to, st->st_size) ? -errno : 0;
}

static int finish_fd(struct copy *c, int from, int to, const struct stat *st)
{
	if (fchown(to, st->st_uid, st->st_gid))
		return -errno;
	int r = copy_xattrs(c, from, to, NULL); /* after chown, which clears security.capability */
	if (r)
		return r;
	struct timespec times[2] = { st->st_atim, st->st_mtim };
	return fchmod(to, st->st_mode & 07777) || futimens(to, times) ? -errno : 0;
}

static int copy_file(struct copy *c, int from, int to, const char *name)
{
	AUTO_CLOSE int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;
	if (in < 0 || fstat(in, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EAGAIN;
	AUTO_CLOSE int out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (out < 0)
		return -errno;
	int r = copy_data(in, out, &st, c->how);
	return r ? r : finish_fd(c, in, out, &st);
}

static int copy_special(struct copy *c, int from, int to, const char *name, const struct stat *st)
{
	if (S_ISLNK(st->st_mode)) {
		char target[4097];
		ssize_t n = readlinkat(from, name, target, sizeof target - 1);
		if (n < 0)
			return -errno;
		target[n] = 0;
		if (symlinkat(target, to, name))
			return -errno;
	} else if (mknodat(to, name, (st->st_mode & S_IFMT) | 0600, st->st_rdev)) {
		return -errno;
	}
	if (fchownat(to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW))
		return -errno;
	int r = copy_xattrs(c, from, to, name);
	if (!r && !S_ISLNK(st->st_mode))
		r = chmod_at(to, name, st->st_mode);
	struct timespec times[2] = { st->st_atim, st->st_mtim };
	if (!r && utimensat(to, name, times, AT_SYMLINK_NOFOLLOW))
		r = -errno;
	return r;
}

static int copy_children(struct copy *c, int from, int to);

static int copy_folder(struct copy *c, int from, int to, const char *name)
{
	AUTO_CLOSE int in = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (in < 0 || fstat(in, &st))
		return -errno;
	if (mkdirat(to, name, 0700) && errno != EEXIST)
		return -errno;
	AUTO_CLOSE int out = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (out < 0)
		return -errno;
	int r = copy_children(c, in, out);
	return r ? r : finish_fd(c, in, out, &st);
}

static int copy_entry(struct copy *c, int from, int to, const char *name)
{
	struct stat st;
	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (S_ISDIR(st.st_mode))
		return copy_folder(c, from, to, name);
	if (st.st_nlink > 1) {
		struct inode_entry *known = inodes_find(&c->links, st.st_dev, st.st_ino);
		if (known) {
			/* by the resolver: somebody else may be at work in the target */
			char target[256];
			AUTO_CLOSE int parent = resolve_parent(c->to_root, known->path, target);
			return parent < 0 ? parent : linkat(parent, target, to, name, 0) ? -errno : 0;
		}
		if (inodes_add(&c->links, st.st_dev, st.st_ino, c->path))
			return -ENOMEM;
	}
	return S_ISREG(st.st_mode) ? copy_file(c, from, to, name) : copy_special(c, from, to, name, &st);
}

static int copy_children(struct copy *c, int from, int to)
{
	DIR *d = open_entries(from);
	int r = 0;
	if (!d)
		return -errno;
	struct dirent *entry;
	const size_t length = c->length;
	while (!r && (errno = 0, entry = readdir(d))) {
		const char *name = entry->d_name;
		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		size_t n = strlen(name);
		if (length + n + 2 > sizeof c->path) {
			r = -ENAMETOOLONG;
			break;
		}
		if (length)
			c->path[length] = '/';
		memcpy(c->path + length + (length > 0), name, n + 1);
		c->length = length + (length > 0) + n;
		r = copy_entry(c, from, to, name);
		if (r && !c->m->detail[0])
			machine_fail(c->m, -r, "%.380s", c->path);
		c->length = length;
		c->path[length] = 0;
	}
	if (!r && errno)
		r = -errno;
	closedir(d);
	return r;
}

void raise_fd_limit(struct rlimit *old)
{
	getrlimit(RLIMIT_NOFILE, old);
	struct rlimit raised = { old->rlim_max < 65536 ? old->rlim_max : 65536, old->rlim_max };
	if (raised.rlim_cur > old->rlim_cur)
		setrlimit(RLIMIT_NOFILE, &raised);
}

int copy_tree(struct machine *m, int from, int to, uint32_t how)
{
	AUTO_FREE struct copy *c = calloc(1, sizeof *c);
	if (!c)
		return -ENOMEM;
	c->m = m;
	c->to_root = to;
	c->how = how;
	struct rlimit old;
	raise_fd_limit(&old);
	int r = copy_children(c, from, to);
	setrlimit(RLIMIT_NOFILE, &old);
	inodes_free(&c->links);
	return r;
}

int do_copy_tree(struct machine *m, const struct op_copy_tree *o)
{
	ROOT_OF(from_root, o->from_root, o->from.p);
	ROOT_OF(to_root, o->to_root, o->to.p);
	AUTO_CLOSE int from = resolve_open(from_root, o->from.p, O_RDONLY | O_DIRECTORY, 0);
	AUTO_CLOSE int to = resolve_open(to_root, o->to.p, O_RDONLY | O_DIRECTORY, 0);
	if (from < 0 || to < 0)
		return from < 0 ? from : to;
	return copy_tree(m, from, to, o->how);
}

/* 1 empty, 0 not, or -errno. */
static int is_empty(int dir)
{
	DIR *d = open_entries(dir);
	int empty = 1;
	if (!d)
		return -errno;
	for (struct dirent *entry; empty && (entry = readdir(d));)
		empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
	closedir(d);
	return empty;
}

int do_copy_up(struct machine *m, const struct op_copy_up *o)
{
	ROOT_OF(from_root, o->from_root, o->from.p);
	ROOT_OF(to_root, NO_REGISTER, o->to.p);
	AUTO_CLOSE int from = resolve_open(from_root, o->from.p, O_RDONLY | O_DIRECTORY, 0);
	if (from == -ENOENT || from == -ENOTDIR)
		return 0;
	AUTO_CLOSE int to = resolve_open(to_root, o->to.p, O_RDONLY | O_DIRECTORY, 0);
	if (from < 0 || to < 0)
		return from < 0 ? from : to;
	int empty = is_empty(to);
	if (empty <= 0)
		return empty;
	int r = copy_tree(m, from, to, 0);
	struct stat st;
	if (!r && (fstat(from, &st) || fchown(to, st.st_uid, st.st_gid) || fchmod(to, st.st_mode & 07777)))
		r = -errno;
	return r;
}
