/* pack: a tree becomes a stream of entries, names sorted, nothing followed. */
#include "entries.h"
#include "files.h"
#include "inodes.h"
#include <sys/resource.h>
#include <sys/xattr.h>

#define XATTR_LIST 65536

struct pack {
	struct machine *m;
	struct entry_writer out;
	struct inodes links;
	int whiteouts;
	char *keys, *value; /* XATTR_LIST bytes each */
	char path[MAX_ENTRY_PATH + 1];
	size_t length;
};

static int is_hidden_xattr(const char *key)
{
	return !strncmp(key, "trusted.overlay.", 16) || !strncmp(key, "user.overlay.", 13);
}

/* Names of the extended attributes of `name` in `dir`, which becomes the cwd; their total length in p->keys. */
static ssize_t list_xattrs(struct pack *p, int dir, const char *relative)
{
	if (fchdir(dir))
		return -errno;
	ssize_t n = llistxattr(relative, p->keys, XATTR_LIST);
	return n < 0 ? (errno == ENOTSUP ? 0 : -errno) : n;
}

static void put_head(struct pack *p, const struct stat *st, uint64_t size, const char *target, uint32_t xattrs)
{
	int node = S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode);
	entry_u32(&p->out, st->st_mode & 07777);
	entry_u32(&p->out, st->st_uid);
	entry_u32(&p->out, st->st_gid);
	entry_u32(&p->out, xattrs);
	entry_u64(&p->out, (uint64_t)((int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec));
	entry_u64(&p->out, size);
	entry_u32(&p->out, node ? major(st->st_rdev) : 0);
	entry_u32(&p->out, node ? minor(st->st_rdev) : 0);
	entry_bytes(&p->out, p->path, p->length);
	entry_bytes(&p->out, target, strlen(target));
}

/* One entry frame with its extended attributes. */
static int put_entry(struct pack *p, int dir, const char *name, uint32_t kind, const struct stat *st, uint64_t size, const char *target)
{
	char relative[260];
	snprintf(relative, sizeof relative, "./%s", name);
	ssize_t n = kind == ENTRY_HARDLINK || kind == ENTRY_WHITEOUT || kind == ENTRY_OPAQUE ? 0 : list_xattrs(p, dir, relative);
	if (n < 0)
		return (int)n;
	uint32_t count = 0;
	for (char *key = p->keys; key < p->keys + n; key += strlen(key) + 1)
		count += !is_hidden_xattr(key) && lgetxattr(relative, key, NULL, 0) >= 0;
	entry_begin(&p->out, kind);
	put_head(p, st, size, target, count);
	for (char *key = p->keys; key < p->keys + n && count; key += strlen(key) + 1) {
		if (is_hidden_xattr(key))
			continue;
		ssize_t got = lgetxattr(relative, key, p->value, XATTR_LIST);
		if (got < 0)
			continue;
		entry_bytes(&p->out, key, strlen(key));
		entry_bytes(&p->out, p->value, (size_t)got);
		count--;
	}
	entry_finish(&p->out);
	return count ? -EAGAIN : p->out.error; /* an attribute vanished between count and read */
}

static void put_hole(struct pack *p, uint64_t n)
{
	if (!n)
		return;
	entry_begin(&p->out, ENTRY_HOLE);
	entry_u64(&p->out, n);
	entry_finish(&p->out);
}

/* `n` bytes at the fd's position as data frames; what the file lacks meanwhile is sent as a hole, so that the sum is right. */
static int put_data(struct pack *p, int fd, uint64_t n)
{
	char chunk[32768];
	while (n && !p->out.error) {
		ssize_t got = read(fd, chunk, n < sizeof chunk ? (size_t)n : sizeof chunk);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (!got) {
			put_hole(p, n);
			break;
		}
		entry_begin(&p->out, ENTRY_DATA);
		entry_raw(&p->out, chunk, (size_t)got);
		entry_finish(&p->out);
		n -= (uint64_t)got;
	}
	return p->out.error;
}

static int put_file(struct pack *p, int dir, const char *name)
{
	struct stat st;
	AUTO_CLOSE int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EAGAIN;
	int r = put_entry(p, dir, name, ENTRY_FILE, &st, (uint64_t)st.st_size, "");
	for (off_t at = 0; !r && at < st.st_size;) {
		off_t data = lseek(fd, at, SEEK_DATA);
		off_t end = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
		if (data < 0 && errno != ENXIO) { /* cannot tell: all is data */
			data = at;
			end = st.st_size;
		}
		if (data < 0 || data >= st.st_size) {
			put_hole(p, (uint64_t)(st.st_size - at));
			break;
		}
		if (end < 0 || end > st.st_size)
			end = st.st_size;
		put_hole(p, (uint64_t)(data - at));
		r = lseek(fd, data, SEEK_SET) < 0 ? -errno : put_data(p, fd, (uint64_t)(end - data));
		at = end;
	}
	return r ? r : p->out.error;
}

static int pack_children(struct pack *p, int dir);

static int put_folder(struct pack *p, int dir, const char *name, const struct stat *st)
{
	char opaque = 0;
	AUTO_CLOSE int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int r = put_entry(p, dir, name, ENTRY_FOLDER, st, 0, "");
	if (!r && p->whiteouts && fgetxattr(fd, "trusted.overlay.opaque", &opaque, 1) == 1 && opaque == 'y')
		r = put_entry(p, dir, name, ENTRY_OPAQUE, st, 0, "");
	return r ? r : pack_children(p, fd);
}

static int pack_entry(struct pack *p, int dir, const char *name)
{
	struct stat st;
	char target[MAX_ENTRY_PATH + 1] = "";
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : -errno;
	if (S_ISSOCK(st.st_mode))
		return 0; /* no archive knows them */
	if (S_ISDIR(st.st_mode))
		return put_folder(p, dir, name, &st);
	if (p->whiteouts && S_ISCHR(st.st_mode) && !st.st_rdev)
		return put_entry(p, dir, name, ENTRY_WHITEOUT, &st, 0, "");
	if (st.st_nlink > 1) {
		struct inode_entry *known = inodes_find(&p->links, st.st_dev, st.st_ino);
		if (known)
			return put_entry(p, dir, name, ENTRY_HARDLINK, &st, 0, known->path);
		if (inodes_add(&p->links, st.st_dev, st.st_ino, p->path))
			return -ENOMEM;
	}
	if (S_ISREG(st.st_mode))
		return put_file(p, dir, name);
	if (S_ISLNK(st.st_mode)) {
		ssize_t n = readlinkat(dir, name, target, sizeof target - 1);
		if (n < 0)
			return -errno;
		target[n] = 0;
	}
	return put_entry(p, dir, name, S_ISLNK(st.st_mode) ? ENTRY_SYMLINK : S_ISCHR(st.st_mode) ? ENTRY_CHARACTER : S_ISBLK(st.st_mode) ? ENTRY_BLOCK : ENTRY_FIFO,
			 &st, 0, target);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* All names of a folder, sorted; each and the array malloc'ed. */
static int sorted_names(int dir, char ***out, size_t *count)
{
	DIR *d = open_entries(dir);
	int r = 0;
	size_t size = 0;
	*out = NULL;
	*count = 0;
	if (!d)
		return -errno;
	for (struct dirent *e; !r && (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (*count == size) {
			size = size ? size * 2 : 32;
			char **bigger = realloc(*out, size * sizeof **out);
			if (!bigger) {
				r = -ENOMEM;
				break;
			}
			*out = bigger;
		}
		if (!((*out)[*count] = strdup(e->d_name)))
			r = -ENOMEM;
		else
			(*count)++;
	}
	closedir(d);
	if (*count)
		qsort(*out, *count, sizeof **out, by_name);
	return r;
}

static int pack_children(struct pack *p, int dir)
{
	char **names;
	size_t count;
	const size_t length = p->length;
	int r = sorted_names(dir, &names, &count);
	for (size_t i = 0; !r && i < count; i++) {
		size_t n = strlen(names[i]);
		if (length + n + 2 > sizeof p->path) {
			r = machine_fail(p->m, ENAMETOOLONG, "%.380s", p->path);
			break;
		}
		if (length)
			p->path[length] = '/';
		memcpy(p->path + length + (length > 0), names[i], n + 1);
		p->length = length + (length > 0) + n;
		r = pack_entry(p, dir, names[i]);
		if (r && !p->m->detail[0])
			machine_fail(p->m, -r, "%.390s", p->path);
		p->length = length;
		p->path[length] = 0;
	}
	for (size_t i = 0; i < count; i++)
		free(names[i]);
	free(names);
	return r;
}

/* A folder's contents, or a single file under its own name. */
static int pack_path(struct pack *p, const char *path)
{
	AUTO_CLOSE int dir = resolve_open(HOST, path, O_RDONLY | O_DIRECTORY, 0);
	if (dir >= 0)
		return pack_children(p, dir);
	if (dir != -ENOTDIR)
		return dir;
	char name[256];
	AUTO_CLOSE int parent = resolve_parent(HOST, path, name);
	if (parent < 0)
		return parent;
	p->length = strlen(name);
	memcpy(p->path, name, p->length + 1);
	return pack_entry(p, parent, name);
}

int do_pack(struct machine *m, const struct op_pack *o)
{
	ROOT_OF(host, NO_REGISTER, o->path.p);
	(void)host;
	int stream = register_fd(m, o->stream);
	if (stream < 0)
		return stream;
	AUTO_FREE struct pack *p = calloc(1, sizeof *p);
	AUTO_FREE char *keys = malloc(XATTR_LIST);
	AUTO_FREE char *value = malloc(XATTR_LIST);
	if (!p || !keys || !value)
		return -ENOMEM;
	p->m = m;
	p->keys = keys;
	p->value = value;
	p->whiteouts = o->whiteouts == 1;
	AUTO_CLOSE int back = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct rlimit old;
	if (back < 0)
		return -errno;
	raise_fd_limit(&old);
	int r = entry_writer_open(&p->out, stream);
	if (!r)
		r = pack_path(p, o->path.p);
	if (!r) {
		entry_begin(&p->out, ENTRY_END);
		entry_finish(&p->out);
	}
	int closed = entry_writer_close(&p->out);
	setrlimit(RLIMIT_NOFILE, &old);
	inodes_free(&p->links);
	if (fchdir(back) && !r)
		r = -errno;
	return r ? r : closed;
}
