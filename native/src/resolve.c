#include "resolve.h"
#include <limits.h>

/* openat2 gives EAGAIN when a rename or mount raced with it: try again, bounded. */
#define RACES 2000

int root_of(struct machine *m, uint32_t reg, const char *path)
{
	if (reg != NO_REGISTER) {
		int fd = register_fd(m, reg);
		return fd == HOST ? -EBADF : fd;
	}
	if (path[0] != '/')
		return machine_fail(m, EINVAL, "not an absolute path: %s", path);
	return HOST;
}

int resolve_open(int root, const char *path, int flags, unsigned mode)
{
	flags |= O_CLOEXEC;
	if (root == HOST) {
		int fd = open(path, flags, mode);
		return fd < 0 ? -errno : fd;
	}
	if (!*path)
		path = ".";
	int fd = -EAGAIN;
	for (int i = 0; fd == -EAGAIN && i < RACES; i++)
		fd = sys_openat2(root, path, (uint64_t)(unsigned)flags, flags & (O_CREAT | O_TMPFILE) & ~O_DIRECTORY ? mode : 0,
				 RESOLVE_IN_ROOT_ | RESOLVE_NO_MAGICLINKS_);
	return fd;
}

int resolve_parent(int root, const char *path, char name[256])
{
	size_t end = strlen(path);
	while (end && path[end - 1] == '/')
		end--;
	size_t start = end;
	while (start && path[start - 1] != '/')
		start--;
	size_t n = end - start;
	if (n == 0 || n > NAME_MAX)
		return n ? -ENAMETOOLONG : -EINVAL;
	memcpy(name, path + start, n);
	name[n] = 0;
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return -EINVAL;
	if (start >= PATH_MAX)
		return -ENAMETOOLONG;
	char parent[PATH_MAX + 1];
	memcpy(parent, path, start);
	parent[start] = 0;
	return resolve_open(root, start ? parent : (root == HOST ? "/" : "."), O_PATH | O_DIRECTORY, 0);
}

/* fchown/fchmod of a folder just made, through a real fd (an O_PATH one takes neither). */
static int finish_folder(int parent, const char *name, const struct folder_attributes *a)
{
	AUTO_CLOSE int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (a->owner && fchown(fd, a->uid, a->gid))
		return -errno;
	return fchmod(fd, a->mode & 07777) ? -errno : 0;
}

/* The part of `path` that exists: its length up to a component boundary, and an O_PATH fd of it. */
static int longest_existing(int root, char *path, size_t *length)
{
	size_t n = strlen(path);
	for (;;) {
		char saved = path[n];
		path[n] = 0;
		int fd = resolve_open(root, n ? path : (root == HOST ? "/" : "."), O_PATH | O_DIRECTORY, 0);
		path[n] = saved;
		if (fd >= 0 || fd != -ENOENT || !n) {
			*length = n;
			return fd;
		}
		while (n && path[n - 1] == '/')
			n--;
		while (n && path[n - 1] != '/')
			n--;
	}
}

/* A dangling link `name` in the folder `path[0..length)`: rewrite `path` to where it points. */
static int follow_dangling(int folder, const char *name, char *path, size_t length, const char *rest)
{
	char target[PATH_MAX + 1], joined[PATH_MAX + 1];
	ssize_t n = readlinkat(folder, name, target, sizeof target - 1);
	if (n < 0)
		return errno == EINVAL ? -ENOTDIR : -errno;
	target[n] = 0;
	int w = target[0] == '/' ? snprintf(joined, sizeof joined, "%s/%s", target, rest)
				 : snprintf(joined, sizeof joined, "%.*s/%s/%s", (int)length, path, target, rest);
	if (w < 0 || (size_t)w >= sizeof joined)
		return -ENAMETOOLONG;
	memcpy(path, joined, (size_t)w + 1);
	return 0;
}

int resolve_mkdirs(int root, const char *given, const struct folder_attributes *last, int *made)
{
	static const struct folder_attributes parents = { 0755, 0, 0, 0 };
	char path[PATH_MAX + 1], name[256];
	if (made)
		*made = 0;
	if (strlen(given) >= sizeof path)
		return -ENAMETOOLONG;
	strcpy(path, given);
	for (int links = 0; links < 40; links++) {
		size_t length;
		AUTO_CLOSE int folder = longest_existing(root, path, &length);
		if (folder < 0)
			return folder;
		const char *p = path + length;
		for (;;) {
			while (*p == '/')
				p++;
			if (!*p)
				return take_fd(&folder);
			const char *start = p;
			while (*p && *p != '/')
				p++;
			size_t n = (size_t)(p - start);
			if (n > NAME_MAX)
				return -ENAMETOOLONG;
			memcpy(name, start, n);
			name[n] = 0;
			if (!strcmp(name, "."))
				continue;
			if (!strcmp(name, ".."))
				return -EINVAL; /* after a component that did not exist */
			const char *rest = p;
			while (*rest == '/')
				rest++;
			int is_last = !*rest, created = !mkdirat(folder, name, 0700);
			if (!created && errno != EEXIST)
				return -errno;
			if (created) {
				int r = finish_folder(folder, name, is_last ? last : &parents);
				if (r)
					return r;
				if (is_last && made)
					*made = 1;
			}
			int next = openat(folder, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (next < 0) {
				if (errno != ENOTDIR && errno != ELOOP)
					return -errno;
				int r = follow_dangling(folder, name, path, (size_t)(start - path), rest);
				if (r)
					return r;
				break;
			}
			close(folder);
			folder = next;
		}
	}
	return -ELOOP;
}

int resolve_mkfile(int root, const char *given)
{
	static const struct folder_attributes folders = { 0755, 0, 0, 0 };
	char path[PATH_MAX + 1], name[256];
	if (strlen(given) >= sizeof path)
		return -ENAMETOOLONG;
	strcpy(path, given);
	for (int links = 0; links < 40; links++) {
		size_t end = strlen(path);
		while (end && path[end - 1] == '/')
			path[--end] = 0;
		AUTO_CLOSE int parent = resolve_parent(root, path, name);
		if (parent < 0 && parent != -ENOENT)
			return parent;
		size_t start = end - strlen(name);
		if (parent == -ENOENT) {
			char saved = path[start];
			path[start] = 0;
			parent = resolve_mkdirs(root, path, &folders, NULL);
			path[start] = saved;
		}
		if (parent < 0)
			return parent;
		AUTO_CLOSE int file = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
		if (file >= 0) {
			int fd = fchmod(file, 0644) ? -1 : openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
			return fd < 0 ? -errno : fd;
		}
		if (errno != EEXIST)
			return -errno;
		int r = follow_dangling(parent, name, path, start, "");
		if (r == -ENOTDIR) { /* no link: somebody has just made it */
			int fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
			return fd < 0 ? -errno : fd;
		}
		if (r)
			return r;
	}
	return -ELOOP;
}
