/* shiftTree: the owners of a whole tree, as a user namespace would show them, written down. By fd, nothing followed, no mount crossed. */
#include "files.h"
#include "inodes.h"
#include <linux/capability.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/xattr.h>

struct extent { uint32_t from, to, count; };
/* Lines of uid_map; `apart`: no id is both a source and a result, so that what has been shifted already can be told. */
struct map { struct extent *extents; unsigned n; bool apart; };

struct shift {
	struct machine *m;
	struct map uids, gids;
	struct inodes links; /* names of a file with several, with what it was given: once shifted, it is left alone */
	unsigned depth;
	size_t length;
	char path[4097]; /* of the entry, for messages; a longer one is cut */
	uint8_t value[65536];
};

/* Each level takes two fds. */
#define MAX_DEPTH 4096
#define ACL_HEADER 4u
#define ACL_ENTRY 8u
#define ACL_USER_ 0x02
#define ACL_GROUP_ 0x08

static bool overlaps(uint32_t a, uint32_t b, uint32_t n, uint32_t m)
{
	return (uint64_t)a < (uint64_t)b + m && (uint64_t)b < (uint64_t)a + n;
}

static int read_map(struct machine *m, struct map *map, struct str text, bool back)
{
	unsigned lines = 0;
	for (const char *p = text.p; *p; p++)
		lines += *p == '\n';
	if (!(map->extents = calloc(lines + 1, sizeof *map->extents)))
		return -ENOMEM;
	for (const char *p = text.p; *p; p += strspn(p, "\n")) {
		unsigned long long v[3];
		for (int i = 0; i < 3; i++) {
			char *end;
			p += strspn(p, " ");
			errno = 0;
			v[i] = *p >= '0' && *p <= '9' ? strtoull(p, &end, 10) : UINT64_MAX;
			if (errno || v[i] >= UINT32_MAX || (*end && *end != ' ' && *end != '\n'))
				return machine_fail(m, EINVAL, "not a map of ids: %.200s", text.p);
			p = end;
		}
		p += strspn(p, " ");
		if ((*p && *p != '\n') || !v[2] || v[0] + v[2] > UINT32_MAX || v[1] + v[2] > UINT32_MAX)
			return machine_fail(m, EINVAL, "not a map of ids: %.200s", text.p);
		map->extents[map->n++] = back ? (struct extent){ (uint32_t)v[1], (uint32_t)v[0], (uint32_t)v[2] } : (struct extent){ (uint32_t)v[0], (uint32_t)v[1], (uint32_t)v[2] };
	}
	if (!map->n)
		return machine_fail(m, EINVAL, "an empty map of ids");
	map->apart = true;
	for (unsigned i = 0; i < map->n; i++)
		for (unsigned k = 0; k < map->n; k++)
			if (overlaps(map->extents[i].from, map->extents[k].to, map->extents[i].count, map->extents[k].count))
				map->apart = false;
	return 0;
}

static bool map_id(const struct map *map, uint32_t id, uint32_t *out)
{
	for (unsigned i = 0; i < map->n; i++)
		if (id - map->extents[i].from < map->extents[i].count && id >= map->extents[i].from)
			return *out = id - map->extents[i].from + map->extents[i].to, true;
	for (unsigned i = 0; map->apart && i < map->n; i++)
		if (id - map->extents[i].to < map->extents[i].count && id >= map->extents[i].to)
			return *out = id, true;
	return false;
}

/* What an O_PATH fd refers to, for calls that know only paths: it cannot be exchanged. */
struct fd_path { char text[40]; };
static const char *path_of(struct fd_path *p, int fd)
{
	snprintf(p->text, sizeof p->text, "/proc/self/fd/%d", fd);
	return p->text;
}

static uint32_t get32(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }
static void put32(uint8_t *p, uint32_t v) { for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> 8 * i); }

static int shift_acl(struct shift *s, const char *path, const char *key)
{
	ssize_t n = getxattr(path, key, s->value, sizeof s->value);
	if (n < 0)
		return errno == ENODATA || errno == ENOTSUP ? 0 : -errno;
	bool changed = false;
	for (uint8_t *e = s->value + ACL_HEADER; e + ACL_ENTRY <= s->value + n; e += ACL_ENTRY) {
		uint16_t tag = (uint16_t)(e[0] | e[1] << 8);
		uint32_t id = get32(e + 4), to;
		if (tag != ACL_USER_ && tag != ACL_GROUP_)
			continue;
		if (!map_id(tag == ACL_USER_ ? &s->uids : &s->gids, id, &to))
			return machine_fail(s->m, ERANGE, "the access list of %.250s names id %u, which the maps do not have", s->path, id);
		changed |= to != id;
		put32(e + 4, to);
	}
	return changed && setxattr(path, key, s->value, (size_t)n, 0) ? -errno : 0;
}

/* The file capabilities in s->value, rewritten: those of version 2 count for the root of the first user namespace, version 3 names the root. */
static ssize_t shift_capability(struct shift *s, ssize_t n)
{
	uint32_t magic = get32(s->value), root = 0, to;
	if ((magic & VFS_CAP_REVISION_MASK) == VFS_CAP_REVISION_3 && n == XATTR_CAPS_SZ_3)
		root = get32(s->value + XATTR_CAPS_SZ_2);
	else if ((magic & VFS_CAP_REVISION_MASK) != VFS_CAP_REVISION_2 || n != XATTR_CAPS_SZ_2)
		return n;
	if (!map_id(&s->uids, root, &to))
		return n;
	put32(s->value, (magic & ~(uint32_t)VFS_CAP_REVISION_MASK) | (to ? VFS_CAP_REVISION_3 : VFS_CAP_REVISION_2));
	put32(s->value + XATTR_CAPS_SZ_2, to);
	return to ? XATTR_CAPS_SZ_3 : XATTR_CAPS_SZ_2;
}

static int give(struct shift *s, int fd, const struct stat *st, uint32_t uid, uint32_t gid, bool again)
{
	struct fd_path p;
	const char *path = path_of(&p, fd);
	bool regular = S_ISREG(st->st_mode);
	uint8_t kept[XATTR_CAPS_SZ_3];
	ssize_t capability = regular ? getxattr(path, "security.capability", s->value, XATTR_CAPS_SZ_3) : -1;
	if (capability > 0 && !again)
		capability = shift_capability(s, capability);
	if (capability > 0)
		memcpy(kept, s->value, (size_t)capability);
	if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH))
		return -errno;
	int r = again || S_ISLNK(st->st_mode) ? 0 : shift_acl(s, path, "system.posix_acl_access");
	if (!r && !again && S_ISDIR(st->st_mode))
		r = shift_acl(s, path, "system.posix_acl_default");
	/* chown(2) clears these on what is no folder; whoever is killed in between must not trust the tree */
	if (!r && st->st_mode & 06000 && !S_ISLNK(st->st_mode) && chmod(path, st->st_mode & 07777))
		r = -errno;
	if (!r && capability > 0 && setxattr(path, "security.capability", kept, (size_t)capability, 0))
		r = -errno;
	return r;
}

static int shift_children(struct shift *s, int folder);

/* What is held by the O_PATH fd `fd`. */
static int shift_one(struct shift *s, int fd)
{
	struct stat st;
	uint32_t uid, gid;
	if (fstat(fd, &st))
		return -errno;
	bool many = st.st_nlink > 1 && !S_ISDIR(st.st_mode), again = false;
	struct inode_entry *known = many ? inodes_find(&s->links, st.st_dev, st.st_ino) : NULL;
	/* Below an overlay, another name of a file may still be the lower, unshifted one: what it has now decides. */
	if (known) {
		uint32_t given[2];
		again = sscanf(known->path, "%u:%u", &given[0], &given[1]) == 2 && given[0] == st.st_uid && given[1] == st.st_gid;
	}
	if (again) {
		uid = st.st_uid;
		gid = st.st_gid;
	} else {
		if (!map_id(&s->uids, st.st_uid, &uid))
			return machine_fail(s->m, ERANGE, "%.250s belongs to user %u, which the maps do not have", s->path, st.st_uid);
		if (!map_id(&s->gids, st.st_gid, &gid))
			return machine_fail(s->m, ERANGE, "%.250s belongs to group %u, which the maps do not have", s->path, st.st_gid);
	}
	int r = give(s, fd, &st, uid, gid, again);
	if (!r && many && !known) {
		char given[24];
		snprintf(given, sizeof given, "%u:%u", uid, gid);
		r = inodes_add(&s->links, st.st_dev, st.st_ino, given);
	}
	if (r || !S_ISDIR(st.st_mode))
		return r;
	if (s->depth >= MAX_DEPTH)
		return -ENAMETOOLONG;
	s->depth++;
	r = shift_children(s, fd);
	s->depth--;
	return r;
}

static int shift_children(struct shift *s, int folder)
{
	DIR *d = open_entries(folder);
	int r = 0;
	if (!d)
		return -errno;
	struct dirent *entry;
	const size_t length = s->length;
	while (!r && (errno = 0, entry = readdir(d))) {
		const char *name = entry->d_name;
		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		int n = snprintf(s->path + length, sizeof s->path - length, "/%s", name);
		s->length = length + (size_t)n < sizeof s->path ? length + (size_t)n : sizeof s->path - 1;
		int fd = sys_openat2(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, RESOLVE_BENEATH_ | RESOLVE_NO_SYMLINKS_ | RESOLVE_NO_XDEV_);
		if (fd == -ENOENT || fd == -EXDEV)
			continue; /* gone meanwhile; what is mounted there is somebody else's */
		r = fd < 0 ? fd : shift_one(s, fd);
		if (fd >= 0)
			close(fd);
		if (r && !s->m->detail[0])
			machine_fail(s->m, -r, "%.380s", s->path);
		s->length = length;
		s->path[length] = 0;
	}
	if (!r && errno)
		r = -errno;
	closedir(d);
	return r;
}

int do_shift_tree(struct machine *m, const struct op_shift_tree *o)
{
	ROOT_OF(root, o->root, o->path.p);
	AUTO_CLOSE int top = resolve_open(root, o->path.p, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
	if (top < 0)
		return top;
	AUTO_FREE struct shift *s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	s->m = m;
	int r = read_map(m, &s->uids, o->uid_map, o->back);
	if (!r)
		r = read_map(m, &s->gids, o->gid_map, o->back);
	if (!r) {
		struct rlimit old;
		raise_fd_limit(&old);
		s->length = (size_t)snprintf(s->path, sizeof s->path, "%.4000s", o->path.p);
		r = shift_one(s, top);
		setrlimit(RLIMIT_NOFILE, &old);
	}
	inodes_free(&s->links);
	free(s->uids.extents);
	free(s->gids.extents);
	return r;
}
