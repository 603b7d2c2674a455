#include "entries.h"

#define READ_BUFFER (256u << 10)

static int rd_text(struct reader *r, char *out, size_t max, const char **why)
{
	uint32_t n;
	if (rd_u32(r, &n) || (size_t)(r->end - r->p) < n)
		return *why = "truncated entry", -EBADMSG;
	if (n > max) {
		size_t shown = max < 200 ? max : 200; /* for the message */
		memcpy(out, r->p, shown);
		out[shown] = 0;
		return *why = "path too long", -ENAMETOOLONG;
	}
	if (memchr(r->p, 0, n))
		return *why = "path with a NUL byte", -EINVAL;
	memcpy(out, r->p, n);
	out[n] = 0;
	r->p += n;
	return 0;
}

/* Relative, no empty part, no "." or "..", parts of at most 255 bytes, at most MAX_ENTRY_DEPTH deep. */
static int check_path(const char *path, const char **why)
{
	unsigned depth = 0;
	if (!*path || *path == '/')
		return *why = *path ? "absolute path" : "empty path", -EINVAL;
	for (const char *p = path; p; depth++) {
		size_t n = strcspn(p, "/");
		if (!n || (n == 1 && p[0] == '.'))
			return *why = "path is not clean", -EINVAL;
		if (n == 2 && p[0] == '.' && p[1] == '.')
			return *why = "path leads out with ..", -EINVAL;
		if (n > 255)
			return *why = "name too long", -ENAMETOOLONG;
		p = p[n] ? p + n + 1 : NULL;
	}
	return depth > MAX_ENTRY_DEPTH ? (*why = "path too deep", -ENAMETOOLONG) : 0;
}

int entry_parse(uint32_t kind, const uint8_t *body, size_t n, struct entry *e, const char **why)
{
	struct reader r = { body, body + n };
	*why = "truncated entry";
	e->kind = kind;
	e->path[0] = e->target[0] = 0;
	if (kind < ENTRY_FOLDER || kind > ENTRY_OPAQUE)
		return *why = "unknown kind of entry", -EBADMSG;
	if (rd_u32(&r, &e->mode) || rd_u32(&r, &e->uid) || rd_u32(&r, &e->gid) || rd_u32(&r, &e->xattrs) || rd_i64(&r, &e->mtime) ||
	    rd_u64(&r, &e->size) || rd_u32(&r, &e->major) || rd_u32(&r, &e->minor))
		return -EBADMSG;
	int x = rd_text(&r, e->path, MAX_ENTRY_PATH, why);
	if (!x)
		x = rd_text(&r, e->target, MAX_ENTRY_PATH, why);
	if (x)
		return x;
	if (!strcmp(e->path, ".") && (kind == ENTRY_FOLDER || kind == ENTRY_OPAQUE))
		x = 0; /* the root itself */
	else
		x = check_path(e->path, why);
	if (!x && kind == ENTRY_HARDLINK)
		x = check_path(e->target, why);
	if (!x && kind == ENTRY_SYMLINK && !e->target[0])
		x = (*why = "link without a target", -EINVAL);
	if (!x && (e->uid == 0xffffffffu || e->gid == 0xffffffffu))
		x = (*why = "owner out of range", -ERANGE);
	if (!x && e->size > INT64_MAX)
		x = (*why = "size out of range", -EFBIG);
	if (x)
		return x;
	e->xattr_bytes = r;
	for (uint32_t i = 0; i < e->xattrs; i++) {
		char name[256];
		uint32_t size;
		x = rd_text(&r, name, 255, why);
		if (x)
			return x;
		if (!name[0] || rd_u32(&r, &size) || (size_t)(r.end - r.p) < size || size > 65536)
			return *why = "damaged extended attribute", -EBADMSG;
		r.p += size;
	}
	return r.p == r.end ? 0 : (*why = "bytes left over in an entry", -EBADMSG);
}

int entry_xattr(struct entry *e, char name[256], const uint8_t **value, uint32_t *n)
{
	const char *why;
	if (!e->xattrs || rd_text(&e->xattr_bytes, name, 255, &why) || rd_u32(&e->xattr_bytes, n))
		return 1;
	e->xattrs--;
	*value = e->xattr_bytes.p;
	e->xattr_bytes.p += *n;
	return 0;
}

int entry_reader_open(struct entry_reader *r, int fd)
{
	*r = (struct entry_reader){ .fd = fd, .buffer = malloc(READ_BUFFER) };
	return r->buffer ? 0 : -ENOMEM;
}

void entry_reader_close(struct entry_reader *r)
{
	free(r->buffer);
	r->buffer = NULL;
}

/* At least `n` bytes in the buffer. */
static int need(struct entry_reader *r, size_t n)
{
	if (r->end - r->start >= n)
		return 0;
	if (READ_BUFFER - r->start < n || r->start == r->end) {
		memmove(r->buffer, r->buffer + r->start, r->end - r->start);
		r->end -= r->start;
		r->start = 0;
	}
	while (r->end - r->start < n) {
		ssize_t got = read(r->fd, r->buffer + r->end, READ_BUFFER - r->end);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -EPIPE;
		r->end += (size_t)got;
	}
	return 0;
}

int entry_frame(struct entry_reader *r, uint32_t *kind, uint32_t *length)
{
	int x = need(r, 8);
	if (x)
		return x;
	const uint8_t *p = r->buffer + r->start;
	*kind = p[0];
	if (p[1] || p[2] || p[3])
		return -EBADMSG;
	memcpy(length, p + 4, 4);
	r->start += 8;
	return *length > (*kind == ENTRY_DATA ? MAX_DATA : ENTRY_MAX_HEAD) ? -EMSGSIZE : 0;
}

int entry_body(struct entry_reader *r, uint32_t n, const uint8_t **body)
{
	int x = need(r, n);
	*body = r->buffer + r->start;
	if (!x)
		r->start += n;
	return x;
}

int entry_copy(struct entry_reader *r, int to, uint32_t n)
{
	while (n) {
		int x = need(r, 1);
		size_t have = r->end - r->start < n ? r->end - r->start : n;
		if (!x)
			x = write_all(to, r->buffer + r->start, have);
		if (x)
			return x;
		r->start += have;
		n -= (uint32_t)have;
	}
	return 0;
}

/* -- writing ---------------------------------------------------------------------------------------------------------------------- */

#define WRITE_BUFFER (256u << 10)

int entry_writer_open(struct entry_writer *w, int fd)
{
	*w = (struct entry_writer){ .fd = fd, .buffer = malloc(WRITE_BUFFER) };
	return w->buffer ? 0 : -ENOMEM;
}

static void flush(struct entry_writer *w)
{
	if (!w->error)
		w->error = write_all(w->fd, w->buffer, w->used);
	w->used = 0;
}

int entry_writer_close(struct entry_writer *w)
{
	if (w->buffer)
		flush(w);
	free(w->buffer);
	w->buffer = NULL;
	return w->error;
}

void entry_begin(struct entry_writer *w, uint32_t kind)
{
	if (w->used > WRITE_BUFFER - 16384)
		flush(w);
	w->frame = w->used;
	const uint8_t head[8] = { (uint8_t)kind };
	entry_raw(w, head, 8);
}

/* A frame stays in the buffer until it is finished, since its length is patched; it must fit. */
void entry_raw(struct entry_writer *w, const void *p, size_t n)
{
	if (w->used + n > WRITE_BUFFER) {
		if (w->frame) { /* room before the open frame */
			size_t open = w->used - w->frame;
			if (!w->error)
				w->error = write_all(w->fd, w->buffer, w->frame);
			memmove(w->buffer, w->buffer + w->frame, open);
			w->used = open;
			w->frame = 0;
		}
		if (w->used + n > WRITE_BUFFER) {
			if (!w->error)
				w->error = -EMSGSIZE;
			return;
		}
	}
	memcpy(w->buffer + w->used, p, n);
	w->used += n;
}

void entry_u32(struct entry_writer *w, uint32_t v) { entry_raw(w, &v, 4); }
void entry_u64(struct entry_writer *w, uint64_t v) { entry_raw(w, &v, 8); }

void entry_bytes(struct entry_writer *w, const void *p, size_t n)
{
	entry_u32(w, (uint32_t)n);
	entry_raw(w, p, n);
}

void entry_finish(struct entry_writer *w)
{
	if (w->error)
		return;
	uint32_t length = (uint32_t)(w->used - w->frame - 8);
	memcpy(w->buffer + w->frame + 4, &length, 4);
	w->frame = 0;
}
