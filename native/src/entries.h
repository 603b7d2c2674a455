/* The entry stream of pack and unpack (core/plan/entries.ts): reading with bounds, and writing. */
#ifndef ENGINE_ENTRIES_H
#define ENGINE_ENTRIES_H
#include "ops.h"

/* Longest body of a frame other than `data`: head, path, link target and extended attributes. */
#define ENTRY_MAX_HEAD (192u << 10)

struct entry {
	uint32_t kind, mode, uid, gid, xattrs;
	int64_t mtime;
	uint64_t size;
	uint32_t major, minor;
	char path[MAX_ENTRY_PATH + 1];
	char target[MAX_ENTRY_PATH + 1];
	struct reader xattr_bytes; /* checked; read with entry_xattr */
};

/* Parse and check the body of an entry frame. 0, or -errno with a reason: EINVAL a path that is not clean, ENAMETOOLONG, EBADMSG. */
int entry_parse(uint32_t kind, const uint8_t *body, size_t n, struct entry *e, const char **why);
/* Next extended attribute: 0, or 1 at the end. `name` needs 256 bytes. */
int entry_xattr(struct entry *e, char name[256], const uint8_t **value, uint32_t *n);

struct entry_reader { int fd; uint8_t *buffer; size_t start, end; };
int entry_reader_open(struct entry_reader *r, int fd);
void entry_reader_close(struct entry_reader *r);
/* Head of the next frame; body not read yet. EPIPE when the stream ends. */
int entry_frame(struct entry_reader *r, uint32_t *kind, uint32_t *length);
/* `n` bytes (at most ENTRY_MAX_HEAD) in one piece, valid until the next call. */
int entry_body(struct entry_reader *r, uint32_t n, const uint8_t **body);
/* Write `n` bytes of the stream to `to`. */
int entry_copy(struct entry_reader *r, int to, uint32_t n);

struct entry_writer { int fd; uint8_t *buffer; size_t used; size_t frame; int error; };
int entry_writer_open(struct entry_writer *w, int fd);
int entry_writer_close(struct entry_writer *w); /* flushes; the first error */
void entry_begin(struct entry_writer *w, uint32_t kind);
void entry_u32(struct entry_writer *w, uint32_t v);
void entry_u64(struct entry_writer *w, uint64_t v);
void entry_bytes(struct entry_writer *w, const void *p, size_t n); /* with its length before it */
void entry_raw(struct entry_writer *w, const void *p, size_t n);
void entry_finish(struct entry_writer *w);
#endif
