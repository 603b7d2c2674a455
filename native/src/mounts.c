/* Mounts that are made detached and attached by fd. */
#include "resolve.h"
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

/* The kernel's own words from a filesystem context ("e overlay: ..."), into the detail. */
static int context_fail(struct machine *m, int fs, int error, const char *key)
{
	char text[256], said[256] = "";
	ssize_t n;
	while ((n = read(fs, text, sizeof text - 1)) > 0) {
		text[n] = 0;
		if (text[0] == 'e' || !said[0])
			snprintf(said, sizeof said, "%.240s", n > 2 ? text + 2 : text);
	}
	said[strcspn(said, "\n")] = 0;
	return machine_fail(m, error, "%s%s%s", key ? key : "", key && said[0] ? ": " : "", said);
}

static int set_options(struct machine *m, int fs, struct strs options)
{
	struct str s;
	while (!strs_next(&options, &s)) {
		const char *equals = strchr(s.p, '=');
		char key[256];
		int r;
		if (!equals) {
			r = sys_fsconfig(fs, FSCONFIG_SET_FLAG_, s.p, NULL, 0);
		} else {
			if ((size_t)(equals - s.p) >= sizeof key)
				return machine_fail(m, EINVAL, "mount option too long");
			memcpy(key, s.p, (size_t)(equals - s.p));
			key[equals - s.p] = 0;
			r = sys_fsconfig(fs, FSCONFIG_SET_STRING_, key, equals + 1, 0);
		}
		if (r)
			return context_fail(m, fs, -r, s.p);
	}
	return 0;
}

static int create_mount(struct machine *m, int fs, uint32_t attributes, uint32_t out)
{
	int r = sys_fsconfig(fs, FSCONFIG_CMD_CREATE_, NULL, NULL, 0);
	if (r)
		return context_fail(m, fs, -r, NULL);
	int fd = sys_fsmount(fs, attributes);
	if (fd < 0)
		return fd;
	register_set_fd(m, out, fd);
	return 0;
}

int do_mount_fs(struct machine *m, const struct op_mount_fs *o)
{
	AUTO_CLOSE int fs = sys_fsopen(o->type.p);
	if (fs < 0)
		return machine_fail(m, -fs, "filesystem %s", o->type.p);
	int r = o->source.n ? sys_fsconfig(fs, FSCONFIG_SET_STRING_, "source", o->source.p, 0) : 0;
	if (r)
		return context_fail(m, fs, -r, "source");
	r = set_options(m, fs, o->options);
	return r ? r : create_mount(m, fs, o->attributes, o->out);
}

/* By fd (Linux 6.13), else by path (at most 255 bytes). */
static int set_folder(struct machine *m, int fs, const char *key, const char *path)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return machine_fail(m, errno, "%s: %.300s", key, path);
	int r = sys_fsconfig(fs, FSCONFIG_SET_FD_, key, NULL, fd);
	if (r)
		r = sys_fsconfig(fs, FSCONFIG_SET_STRING_, key, path, 0);
	return r ? context_fail(m, fs, -r, key) : 0;
}

int do_overlay_by_fd(struct machine *m, const struct op_overlay_by_fd *o)
{
	AUTO_CLOSE int fs = sys_fsopen("overlay");
	if (fs < 0)
		return machine_fail(m, -fs, "filesystem overlay");
	int r = sys_fsconfig(fs, FSCONFIG_SET_STRING_, "source", "overlay", 0);
	struct strs lowers = o->lowers;
	struct str s;
	while (!r && !strs_next(&lowers, &s))
		r = set_folder(m, fs, "lowerdir+", s.p);
	if (!r && o->upper.n)
		r = set_folder(m, fs, "upperdir", o->upper.p);
	if (!r && o->work.n)
		r = set_folder(m, fs, "workdir", o->work.p);
	if (!r)
		r = set_options(m, fs, o->options);
	return r ? r : create_mount(m, fs, o->attributes, o->out);
}

struct text { char *p; size_t n, size; };

/* Append with overlay's escapes: `\`, `,` and in lowerdir `:` are preceded by `\`. */
static int append(struct text *t, const char *s, const char *escaped)
{
	for (; *s; s++) {
		if (t->n + 3 > t->size)
			return -E2BIG;
		if (escaped && strchr(escaped, *s))
			t->p[t->n++] = '\\';
		t->p[t->n++] = *s;
	}
	t->p[t->n] = 0;
	return 0;
}

int do_overlay_by_mount(struct machine *m, const struct op_overlay_by_mount *o)
{
	AUTO_FREE char *buffer = malloc(4096);
	struct text data = { buffer, 0, 4096 };
	struct strs list = o->lowers;
	struct str s;
	if (!buffer)
		return -ENOMEM;
	int r = append(&data, "lowerdir=", NULL);
	for (int first = 1; !r && !strs_next(&list, &s); first = 0)
		r = (first ? 0 : append(&data, ":", NULL)) ?: append(&data, s.p, "\\:,");
	if (!r && o->upper.n)
		r = append(&data, ",upperdir=", NULL) ?: append(&data, o->upper.p, "\\,");
	if (!r && o->work.n)
		r = append(&data, ",workdir=", NULL) ?: append(&data, o->work.p, "\\,");
	list = o->options;
	while (!r && !strs_next(&list, &s))
		r = append(&data, ",", NULL) ?: append(&data, s.p, NULL);
	if (r)
		return machine_fail(m, E2BIG, "the options of this overlay exceed a page");
	AUTO_CLOSE int back = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (back < 0 || chdir(o->base.p))
		return -errno;
	r = mount("overlay", o->scratch.p, "overlay", 0, data.p) ? -errno : 0;
	AUTO_CLOSE int fd = r ? -1 : sys_open_tree(HOST, o->scratch.p, OPEN_TREE_CLONE_ | OPEN_TREE_CLOEXEC_);
	if (!r) {
		if (fd < 0)
			r = fd;
		if (umount2(o->scratch.p, MNT_DETACH | UMOUNT_NOFOLLOW) && !r)
			r = -errno;
	}
	if (fchdir(back) && !r)
		r = -errno;
	if (!r && o->attributes)
		r = sys_mount_setattr(fd, 0, o->attributes, 0, 0);
	if (!r)
		register_set_fd(m, o->out, take_fd(&fd));
	return r;
}

int do_open_tree(struct machine *m, const struct op_open_tree *o)
{
	ROOT_OF(root, o->root, o->source.p);
	AUTO_CLOSE int source = resolve_open(root, o->source.p, O_PATH, 0);
	if (source < 0)
		return source;
	int fd = sys_open_tree(source, "", OPEN_TREE_CLONE_ | OPEN_TREE_CLOEXEC_ | AT_EMPTY_PATH_ | (o->recursive ? AT_RECURSIVE_ : 0));
	if (fd >= 0)
		register_set_fd(m, o->out, fd);
	return fd < 0 ? fd : 0;
}

int do_set_mount_attributes(struct machine *m, const struct op_set_mount_attributes *o)
{
	int fd = register_fd(m, o->mount);
	return fd < 0 ? fd : sys_mount_setattr(fd, o->recursive ? AT_RECURSIVE_ : 0, o->set, o->clear, o->propagation);
}

int do_set_propagation(struct machine *m, const struct op_set_propagation *o)
{
	ROOT_OF(root, o->root, o->path.p);
	AUTO_CLOSE int fd = resolve_open(root, o->path.p, O_PATH, 0);
	if (fd < 0)
		return fd;
	return sys_mount_setattr(fd, o->flags & MS_REC ? AT_RECURSIVE_ : 0, 0, 0, o->flags & ~(uint64_t)(MS_REC | MS_SILENT));
}

/* Make a target that fits the mount: a folder for a folder, else an empty file. */
static int make_target(int root, const char *path, int mount)
{
	static const struct folder_attributes folder = { 0755, 0, 0, 0 };
	struct stat st;
	if (fstat(mount, &st))
		return -errno;
	return S_ISDIR(st.st_mode) ? resolve_mkdirs(root, path, &folder, NULL) : resolve_mkfile(root, path);
}

int do_move_mount(struct machine *m, const struct op_move_mount *o)
{
	ROOT_OF(root, o->root, o->target.p);
	int mount = register_fd(m, o->mount);
	if (mount < 0)
		return mount;
	int nofollow = o->refuse & REFUSE_SYMLINK ? O_NOFOLLOW : 0;
	AUTO_CLOSE int target = resolve_open(root, o->target.p, O_PATH | nofollow, 0);
	if (target == -ENOENT && !(o->refuse & REFUSE_CREATE_MISSING))
		target = make_target(root, o->target.p, mount);
	if (target < 0)
		return machine_fail(m, -target, "mount point %.300s", o->target.p);
	struct stat st;
	if (fstat(target, &st))
		return -errno;
	if (S_ISLNK(st.st_mode)) /* CVE-2019-19921, CVE-2023-27561 */
		return machine_fail(m, ELOOP, "the mount point %.300s is a symbolic link", o->target.p);
	return sys_move_mount(mount, target);
}

int do_unmount(struct machine *m, const struct op_unmount *o)
{
	ROOT_OF(root, o->root, o->path.p);
	if (root == HOST) {
		if (!umount2(o->path.p, (int)o->flags | UMOUNT_NOFOLLOW))
			return 0;
		return errno == EINVAL || errno == ENOENT ? 0 : -errno;
	}
	char name[256], relative[260];
	AUTO_CLOSE int parent = resolve_parent(root, o->path.p, name);
	if (parent < 0)
		return parent == -ENOENT ? 0 : parent;
	AUTO_CLOSE int back = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (back < 0 || fchdir(parent))
		return -errno;
	snprintf(relative, sizeof relative, "./%s", name);
	int r = umount2(relative, (int)o->flags | UMOUNT_NOFOLLOW) && errno != EINVAL && errno != ENOENT ? -errno : 0;
	return fchdir(back) && !r ? -errno : r;
}

int do_reopen_root(struct machine *m, const struct op_reopen_root *o)
{
	int mount = register_fd(m, o->mount);
	if (mount < 0)
		return mount;
	AUTO_CLOSE int at = open(o->at.p, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (at < 0)
		return -errno;
	int r = sys_move_mount(mount, at);
	if (r)
		return r;
	/* the fd of the mount is now one of an attached mount */
	int fd = openat(mount, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	register_set_fd(m, o->out, fd);
	return 0;
}

int do_pivot_root(struct machine *m, const struct op_pivot_root *o)
{
	int root = register_fd(m, o->root);
	if (root < 0)
		return root;
	AUTO_CLOSE int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (old < 0 || fchdir(root) || syscall(SYS_pivot_root, ".", "."))
		return -errno;
	/* the old root lies on the new one now; slave, so that the umount does not travel back */
	if (fchdir(old) || mount(NULL, ".", NULL, MS_SLAVE | MS_REC, NULL) || umount2(".", MNT_DETACH) || chdir("/"))
		return -errno;
	own_null();
	return 0;
}

int do_move_root(struct machine *m, const struct op_move_root *o)
{
	int root = register_fd(m, o->root);
	if (root < 0)
		return root;
	if (fchdir(root) || mount(".", "/", NULL, MS_MOVE, NULL))
		return machine_fail(m, errno, "moving the root");
	/* the cwd has gone along with the mount, `/` has not */
	if (chroot(".") || chdir("/"))
		return -errno;
	own_null();
	return 0;
}

int do_copy_mode(struct machine *m, const struct op_copy_mode *o)
{
	int root = register_fd(m, o->root), to = register_fd(m, o->to);
	if (root < 0 || to < 0)
		return root < 0 ? root : to;
	AUTO_CLOSE int from = resolve_open(root, o->path.p, O_PATH, 0);
	struct stat st;
	if (from < 0)
		return from == -ENOENT || from == -ENOTDIR ? 0 : from;
	if (fstat(from, &st))
		return -errno;
	return S_ISDIR(st.st_mode) && fchmodat(to, ".", st.st_mode & 07777, 0) ? -errno : 0;
}

int do_mask(struct machine *m, const struct op_mask *o)
{
	int root = register_fd(m, o->root), empty = register_fd(m, o->empty);
	if (root < 0 || empty < 0)
		return root < 0 ? root : empty;
	AUTO_CLOSE int target = resolve_open(root, o->path.p, O_PATH, 0);
	if (target == -ENOENT || target == -ENOTDIR)
		return 0;
	struct stat st;
	if (target < 0 || fstat(target, &st))
		return target < 0 ? target : -errno;
	if (!S_ISDIR(st.st_mode)) {
		/* CVE-2025-31133: what is bound must be the null device, whatever stands at its path */
		AUTO_CLOSE int null = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (null < 0 || fstat(null, &st))
			return machine_fail(m, errno, "/dev/null");
		if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
			return machine_fail(m, ENODEV, "/dev/null is not the null device");
		AUTO_CLOSE int cover = sys_open_tree(null, "", OPEN_TREE_CLONE_ | OPEN_TREE_CLOEXEC_ | AT_EMPTY_PATH_);
		return cover < 0 ? cover : sys_move_mount(cover, target);
	}
	AUTO_CLOSE int cover = sys_open_tree(empty, "", OPEN_TREE_CLONE_ | OPEN_TREE_CLOEXEC_ | AT_EMPTY_PATH_);
	if (cover == -EINVAL) {
		/* A detached mount cannot be cloned before Linux 6.15: attach it itself; the next one is cloned from there. */
		int r = sys_mount_setattr(empty, 0, MOUNT_ATTR_RDONLY_, 0, 0);
		return r ? r : sys_move_mount(empty, target);
	}
	if (cover < 0)
		return cover;
	int r = sys_mount_setattr(cover, 0, MOUNT_ATTR_RDONLY_, 0, 0);
	return r ? r : sys_move_mount(cover, target);
}

int do_readonly(struct machine *m, const struct op_readonly *o)
{
	int root = register_fd(m, o->root);
	if (root < 0)
		return root;
	AUTO_CLOSE int target = resolve_open(root, o->path.p, O_PATH, 0);
	if (target < 0)
		return target == -ENOENT || target == -ENOTDIR ? 0 : target;
	AUTO_CLOSE int bind = sys_open_tree(target, "", OPEN_TREE_CLONE_ | OPEN_TREE_CLOEXEC_ | AT_EMPTY_PATH_ | AT_RECURSIVE_);
	if (bind < 0)
		return bind;
	int r = sys_mount_setattr(bind, AT_RECURSIVE_, MOUNT_ATTR_RDONLY_, 0, 0);
	return r ? r : sys_move_mount(bind, target);
}

#define PROC_ROOT_INO_ 1 /* <linux/proc_ns.h>: PROC_ROOT_INO */

/*
 * The container's own: its root folder alone, in which `thread-self` is nobody else whatever pid namespace it shows. What its root may have put over
 * files of it, proc_open does not cross (CVE-2025-52881).
 */
static int mounted_proc(struct machine *m, uint32_t out)
{
	AUTO_CLOSE int fd = open("/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	struct statfs fs;
	m->detail[0] = 0;
	if (fd < 0 || fstat(fd, &st) || fstatfs(fd, &fs))
		return machine_fail(m, errno, "/proc of the container");
	if (fs.f_type != PROC_MAGIC || st.st_ino != PROC_ROOT_INO_)
		return machine_fail(m, EXDEV, "/proc of the container is no procfs");
	register_set_fd(m, out, take_fd(&fd));
	return 0;
}

int do_proc_handle(struct machine *m, const struct op_proc_handle *o)
{
	AUTO_CLOSE int fs = sys_fsopen("proc");
	if (fs < 0)
		return fs;
	int r = create_mount(m, fs, MOUNT_ATTR_NOSUID_ | MOUNT_ATTR_NODEV_ | MOUNT_ATTR_NOEXEC_, o->out);
	/* with ids of its own and the host's processes: nobody inside may mount one, and init has it from the stage */
	return r == -EPERM && m->part == PART_EXEC ? mounted_proc(m, o->out) : r;
}

int proc_open(struct machine *m, int proc, const char *path, int flags)
{
	struct statfs fs;
	/* CVE-2025-52881: the handle and the file must lie on the same real procfs */
	if (fstatfs(proc, &fs))
		return -errno;
	if (fs.f_type != PROC_MAGIC)
		return machine_fail(m, EXDEV, "the register holds no procfs");
	int fd = sys_openat2(proc, path, (uint64_t)(flags | O_CLOEXEC), 0, RESOLVE_BENEATH_ | RESOLVE_NO_MAGICLINKS_ | RESOLVE_NO_XDEV_);
	return fd;
}

int do_sysctl(struct machine *m, const struct op_sysctl *o)
{
	char path[512] = "sys/";
	int proc = register_fd(m, o->proc);
	if (proc < 0)
		return proc;
	if (!o->key.n || o->key.n > sizeof path - 8 || o->key.p[0] == '/')
		return machine_fail(m, EINVAL, "sysctl %.200s", o->key.p);
	/* as sysctl(8): when the first separator is a slash, dots are part of names */
	int dots = o->key.p[strcspn(o->key.p, "./")] != '/';
	char *to = path + 4;
	for (const char *p = o->key.p; *p; p++)
		*to++ = !dots ? *p : *p == '.' ? '/' : *p == '/' ? '.' : *p;
	*to = 0;
	if (strstr(path, "..") || strstr(path, "//"))
		return machine_fail(m, EINVAL, "sysctl %.200s", o->key.p);
	AUTO_CLOSE int fd = proc_open(m, proc, path, O_WRONLY | O_NOFOLLOW);
	if (fd < 0)
		return machine_fail(m, -fd, "sysctl %.200s", o->key.p);
	ssize_t n = write(fd, o->value.p, o->value.n);
	return n < 0 ? machine_fail(m, errno, "sysctl %.200s", o->key.p) : 0;
}
