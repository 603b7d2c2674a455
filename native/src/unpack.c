/*
 * unpack: a stream of entries becomes a tree. Every entry is made relative to its parent's fd, which the resolver has opened inside
 * the target folder; last components are never followed (CVE-2025-47290 and the tar attacks of old).
 */
#include "entries.h"
#include "files.h"
#include "inodes.h"
#include <sys/xattr.h>

struct folder_time { char *path; int64_t mtime; };

struct unpack {
	struct machine *m;
	struct entry_reader in;
	struct entry entry;
	int root, whiteouts;
	uint64_t max_bytes, bytes;
	uint32_t max_entries, entries;
	/* the parent of the last entry */
	char parent_path[MAX_ENTRY_PATH + 1];
	int parent;
	/* applying onto a full tree: what this stream has made, which its own whiteouts leave alone */
	struct inodes made;
	struct folder_time *times;
	size_t time_count, time_size;
	int xattr_warned;
	uint8_t *xattr_copy; /* of the entry: reading its data moves the buffer */
};

static void forget_parent(struct unpack *u)
{
	if (u->parent >= 0)
		close(u->parent);
	u->parent = -1;
}

/* The parent's fd (kept by `u`) and the entry's own name. Missing parents are made when `make` is set. */
static int parent_of(struct unpack *u, const char *path, int make, const char **name)
{
	static const struct folder_attributes folder = { 0755, 0, 0, 0 };
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 0;
	*name = slash ? slash + 1 : path;
	if (u->parent >= 0 && strlen(u->parent_path) == n && !memcmp(u->parent_path, path, n))
		return u->parent;
	forget_parent(u);
	memcpy(u->parent_path, path, n);
	u->parent_path[n] = 0;
	int fd = resolve_open(u->root, n ? u->parent_path : ".", O_PATH | O_DIRECTORY, 0);
	if (fd == -ENOENT && make)
		fd = resolve_mkdirs(u->root, u->parent_path, &folder, NULL);
	if (fd >= 0)
		u->parent = fd;
	return fd;
}

static int note_made(struct unpack *u, int fd)
{
	struct stat st;
	if (u->whiteouts)
		return 0; /* a layer of its own: all that is there was made here */
	return fstat(fd, &st) ? -errno : inodes_add(&u->made, st.st_dev, st.st_ino, NULL);
}

static int note_made_at(struct unpack *u, int parent, const char *name)
{
	struct stat st;
	if (u->whiteouts)
		return 0;
	return fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) ? -errno : inodes_add(&u->made, st.st_dev, st.st_ino, NULL);
}

/* `fd` >= 0: on it; else on `name` in `parent`. */
static int put_xattrs(struct unpack *u, int fd, int parent, const char *name)
{
	char key[256];
	const uint8_t *value;
	uint32_t n;
	struct entry e = { 0 };
	if (!u->entry.xattrs)
		return 0;
	e.xattrs = u->entry.xattrs;
	e.xattr_bytes = u->entry.xattr_bytes;
	while (!entry_xattr(&e, key, &value, &n)) {
		/* overlay's own: an image must not steer the mount that it becomes part of */
		if (!strncmp(key, "trusted.overlay.", 16) || !strncmp(key, "user.overlay.", 13))
			continue;
		int r = fd >= 0 ? (fsetxattr(fd, key, value, n, 0) ? -errno : 0) : xattr_at(parent, name, key, value, n);
		if (r == -ENOTSUP || (r == -EPERM && strncmp(key, "security.capability", 19))) {
			if (!u->xattr_warned++)
				machine_warn(u->m, -r, "extended attribute %.60s cannot be kept: %.300s", key, u->entry.path);
		} else if (r) {
			return r;
		}
	}
	return 0;
}

/* Owner, extended attributes, mode, in this order: a chown clears set-id bits and security.capability. */
static int finish_fd(struct unpack *u, int fd, int with_time)
{
	const struct entry *e = &u->entry;
	if (fchown(fd, e->uid, e->gid))
		return -errno;
	int r = put_xattrs(u, fd, -1, NULL);
	if (r)
		return r;
	struct timespec times[2] = { time_of_ns(e->mtime), time_of_ns(e->mtime) };
	return fchmod(fd, e->mode & 07777) || (with_time && futimens(fd, times)) ? -errno : 0;
}

static int clear_way(struct unpack *u, int parent, const char *name)
{
	/* the kept parent may lie below what is removed; `parent` itself cannot */
	return remove_tree_at(u->m, parent, name);
}

static int remember_time(struct unpack *u, const char *path, int64_t mtime)
{
	if (u->time_count == u->time_size) {
		size_t size = u->time_size ? u->time_size * 2 : 256;
		struct folder_time *bigger = realloc(u->times, size * sizeof *bigger);
		if (!bigger)
			return -ENOMEM;
		u->times = bigger;
		u->time_size = size;
	}
	char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	u->times[u->time_count++] = (struct folder_time){ copy, mtime };
	return 0;
}

static int put_folder(struct unpack *u, int parent, const char *name)
{
	struct stat st;
	int hid_lower = 0;
	if (strcmp(name, ".") && mkdirat(parent, name, 0700)) {
		if (errno != EEXIST || fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW))
			return -errno;
		if (!S_ISDIR(st.st_mode)) {
			hid_lower = u->whiteouts && S_ISCHR(st.st_mode) && !st.st_rdev;
			int r = clear_way(u, parent, name);
			if (r)
				return r;
			if (mkdirat(parent, name, 0700))
				return -errno;
		}
	}
	AUTO_CLOSE int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (hid_lower && fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0))
		return -errno;
	int r = finish_fd(u, fd, 0);
	if (!r)
		r = note_made(u, fd);
	return r ? r : remember_time(u, u->entry.path, u->entry.mtime);
}

static int read_data(struct unpack *u, int fd)
{
	uint64_t left = u->entry.size, end = 0;
	int hole = 0;
	while (left) {
		uint32_t kind, length;
		int r = entry_frame(&u->in, &kind, &length);
		if (r)
			return r;
		uint64_t n = length;
		hole = kind == ENTRY_HOLE;
		if (hole) {
			const uint8_t *body;
			r = length == 8 ? entry_body(&u->in, 8, &body) : -EBADMSG;
			if (!r)
				memcpy(&n, body, 8);
		} else if (kind != ENTRY_DATA) {
			r = -EBADMSG;
		}
		if (r)
			return r;
		if (n > left)
			return machine_fail(u->m, EBADMSG, "more data than its size: %.300s", u->entry.path);
		end += n;
		r = hole ? (lseek(fd, (off_t)end, SEEK_SET) < 0 ? -errno : 0) : entry_copy(&u->in, fd, length);
		if (r)
			return r;
		left -= n;
	}
	return hole && ftruncate(fd, (off_t)end) ? -errno : 0;
}

static int put_file(struct unpack *u, int parent, const char *name)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	AUTO_CLOSE int fd = openat(parent, name, flags, 0600);
	if (fd < 0 && errno == EEXIST) {
		int r = clear_way(u, parent, name);
		if (r)
			return r;
		fd = openat(parent, name, flags, 0600);
	}
	if (fd < 0)
		return -errno;
	int r = read_data(u, fd);
	if (!r)
		r = finish_fd(u, fd, 1);
	return r ? r : note_made(u, fd);
}

static int put_link(struct unpack *u, int parent, const char *name)
{
	char target_name[256];
	AUTO_CLOSE int target = resolve_parent(u->root, u->entry.target, target_name);
	if (target < 0)
		return target;
	if (!linkat(target, target_name, parent, name, 0))
		return note_made_at(u, parent, name);
	if (errno != EEXIST)
		return -errno;
	struct stat a, b;
	if (fstatat(target, target_name, &a, AT_SYMLINK_NOFOLLOW) || fstatat(parent, name, &b, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (a.st_ino == b.st_ino && a.st_dev == b.st_dev)
		return note_made_at(u, parent, name);
	int r = clear_way(u, parent, name);
	if (!r && linkat(target, target_name, parent, name, 0))
		r = -errno;
	return r ? r : note_made_at(u, parent, name);
}

static int make_special(const struct entry *e, int parent, const char *name)
{
	switch (e->kind) {
	case ENTRY_SYMLINK: return symlinkat(e->target, parent, name) ? -errno : 0;
	case ENTRY_CHARACTER: return mknodat(parent, name, S_IFCHR | 0600, makedev(e->major, e->minor)) ? -errno : 0;
	case ENTRY_BLOCK: return mknodat(parent, name, S_IFBLK | 0600, makedev(e->major, e->minor)) ? -errno : 0;
	default: return mknodat(parent, name, S_IFIFO | 0600, 0) ? -errno : 0;
	}
}

static int put_special(struct unpack *u, int parent, const char *name)
{
	const struct entry *e = &u->entry;
	int r = make_special(e, parent, name);
	if (r == -EEXIST) {
		r = clear_way(u, parent, name);
		if (!r)
			r = make_special(e, parent, name);
	}
	if (r)
		return r;
	if (fchownat(parent, name, e->uid, e->gid, AT_SYMLINK_NOFOLLOW))
		return -errno;
	r = put_xattrs(u, -1, parent, name);
	if (!r && e->kind != ENTRY_SYMLINK)
		r = chmod_at(parent, name, e->mode);
	if (!r)
		r = mtime_at(parent, name, e->mtime);
	return r ? r : note_made_at(u, parent, name);
}

/* Remove all in `dir` that this stream has not made; folders in between stay when something of ours is below them. */
static int clear_others(struct unpack *u, int dir)
{
	DIR *d = open_entries(dir);
	int r = 0;
	if (!d)
		return -errno;
	for (struct dirent *e; !r && (e = readdir(d));) {
		struct stat st;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		int ours = !!inodes_find(&u->made, st.st_dev, st.st_ino);
		if (S_ISDIR(st.st_mode)) {
			AUTO_CLOSE int child = openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			r = child < 0 ? -errno : clear_others(u, child);
			if (!r && !ours && unlinkat(dir, e->d_name, AT_REMOVEDIR) && errno != ENOTEMPTY && errno != EEXIST)
				r = -errno;
		} else if (!ours && unlinkat(dir, e->d_name, 0)) {
			r = -errno;
		}
	}
	closedir(d);
	return r;
}

static int put_whiteout(struct unpack *u)
{
	const char *name;
	struct stat st;
	int parent = parent_of(u, u->entry.path, u->whiteouts, &name);
	if (parent < 0)
		return !u->whiteouts && (parent == -ENOENT || parent == -ENOTDIR) ? 0 : parent;
	if (u->whiteouts) {
		if (!mknodat(parent, name, S_IFCHR, makedev(0, 0)))
			return 0;
		if (errno != EEXIST || fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW))
			return -errno;
		/* of the same layer: it hides what is below by itself, a folder when opaque */
		return S_ISDIR(st.st_mode) ? xattr_at(parent, name, "trusted.overlay.opaque", "y", 1) : 0;
	}
	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : -errno;
	int ours = !!inodes_find(&u->made, st.st_dev, st.st_ino);
	if (!S_ISDIR(st.st_mode))
		return ours ? 0 : remove_tree_at(u->m, parent, name);
	AUTO_CLOSE int dir = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int r = dir < 0 ? -errno : clear_others(u, dir);
	forget_parent(u);
	if (r || ours)
		return r;
	AUTO_CLOSE int again = resolve_parent(u->root, u->entry.path, (char[256]){ 0 });
	return again < 0 ? again : unlinkat(again, name, AT_REMOVEDIR) && errno != ENOTEMPTY && errno != EEXIST ? -errno : 0;
}

static int put_opaque(struct unpack *u)
{
	static const struct folder_attributes folder = { 0755, 0, 0, 0 };
	AUTO_CLOSE int dir = resolve_open(u->root, u->entry.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (dir == -ENOENT && u->whiteouts) {
		AUTO_CLOSE int made = resolve_mkdirs(u->root, u->entry.path, &folder, NULL);
		dir = made < 0 ? made : resolve_open(u->root, u->entry.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	}
	if (dir < 0)
		return !u->whiteouts && dir == -ENOENT ? 0 : dir;
	if (u->whiteouts)
		return fsetxattr(dir, "trusted.overlay.opaque", "y", 1, 0) ? -errno : 0;
	forget_parent(u);
	return clear_others(u, dir);
}

static int put_entry(struct unpack *u)
{
	const char *name;
	if (u->entry.kind == ENTRY_WHITEOUT)
		return put_whiteout(u);
	if (u->entry.kind == ENTRY_OPAQUE)
		return put_opaque(u);
	if (!strcmp(u->entry.path, "."))
		return put_folder(u, u->root, ".");
	int parent = parent_of(u, u->entry.path, 1, &name);
	if (parent < 0)
		return parent;
	switch (u->entry.kind) {
	case ENTRY_FOLDER: return put_folder(u, parent, name);
	case ENTRY_FILE: return put_file(u, parent, name);
	case ENTRY_HARDLINK: return put_link(u, parent, name);
	default: return put_special(u, parent, name);
	}
}

static int next_entry(struct unpack *u, int *done)
{
	uint32_t kind, length;
	const uint8_t *body;
	const char *why = "";
	int r = entry_frame(&u->in, &kind, &length);
	if (r)
		return r == -EPIPE ? machine_fail(u->m, EPIPE, "the stream ended without its end mark") : r;
	if (kind == ENTRY_END) {
		*done = 1;
		return length ? -EBADMSG : 0;
	}
	if (kind == ENTRY_DATA)
		return machine_fail(u->m, EBADMSG, "data without a file");
	r = entry_body(&u->in, length, &body);
	if (r)
		return r;
	r = entry_parse(kind, body, length, &u->entry, &why);
	if (r)
		return machine_fail(u->m, -r, "%s: %.300s", why, u->entry.path);
	if (u->entry.xattrs) {
		size_t n = (size_t)(u->entry.xattr_bytes.end - u->entry.xattr_bytes.p);
		free(u->xattr_copy);
		if (!(u->xattr_copy = malloc(n)))
			return -ENOMEM;
		memcpy(u->xattr_copy, u->entry.xattr_bytes.p, n);
		u->entry.xattr_bytes = (struct reader){ u->xattr_copy, u->xattr_copy + n };
	}
	if (u->max_entries && ++u->entries > u->max_entries)
		return machine_fail(u->m, EFBIG, "more than %u entries", u->max_entries);
	if (kind == ENTRY_FILE) {
		u->bytes += u->entry.size;
		if (u->max_bytes && u->bytes > u->max_bytes)
			return machine_fail(u->m, EFBIG, "more than %llu bytes at %.300s", (unsigned long long)u->max_bytes, u->entry.path);
	} else if (u->entry.size && kind != ENTRY_HARDLINK) {
		return machine_fail(u->m, EBADMSG, "only a file has a size: %.300s", u->entry.path);
	}
	r = put_entry(u);
	return r && !u->m->detail[0] ? machine_fail(u->m, -r, "%.390s", u->entry.path) : r;
}

/* Contents change a folder's time, so this comes last. A folder that a later entry has replaced is none any more. */
static int restore_times(struct unpack *u)
{
	for (size_t i = u->time_count; i-- > 0;) {
		AUTO_CLOSE int fd = resolve_open(u->root, u->times[i].path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
		struct timespec times[2] = { time_of_ns(u->times[i].mtime), time_of_ns(u->times[i].mtime) };
		if (fd < 0 ? fd != -ENOENT && fd != -ENOTDIR && fd != -ELOOP : futimens(fd, times))
			return fd < 0 ? fd : -errno;
	}
	return 0;
}

int do_unpack(struct machine *m, const struct op_unpack *o)
{
	ROOT_OF(host, NO_REGISTER, o->path.p);
	int stream = register_fd(m, o->stream), done = 0;
	if (stream < 0)
		return stream;
	AUTO_FREE struct unpack *u = calloc(1, sizeof *u);
	if (!u)
		return -ENOMEM;
	u->m = m;
	u->parent = -1;
	u->whiteouts = o->whiteouts == 1;
	u->max_bytes = o->max_bytes;
	u->max_entries = o->max_entries;
	AUTO_CLOSE int root = resolve_open(host, o->path.p, O_RDONLY | O_DIRECTORY, 0);
	if (root < 0)
		return root;
	u->root = root;
	int r = entry_reader_open(&u->in, stream);
	while (!r && !done)
		r = next_entry(u, &done);
	if (!r)
		r = restore_times(u);
	entry_reader_close(&u->in);
	forget_parent(u);
	inodes_free(&u->made);
	free(u->xattr_copy);
	for (size_t i = 0; i < u->time_count; i++)
		free(u->times[i].path);
	free(u->times);
	return r;
}
