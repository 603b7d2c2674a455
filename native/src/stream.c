/* writeStream, and copying of bytes for all others. */
#include "files.h"

#define COPY_BUFFER (256u << 10)

int64_t copy_bytes(int to, int from, uint64_t length)
{
	uint64_t done = 0;
	int way = 0; /* 0 copy_file_range, 1 splice, 2 read and write */
	AUTO_FREE char *buffer = NULL;
	while (done < length) {
		size_t want = length - done > (1u << 30) ? 1u << 30 : (size_t)(length - done);
		ssize_t n;
		if (way == 0) {
			n = copy_file_range(from, NULL, to, NULL, want, 0);
		} else if (way == 1) {
			n = splice(from, NULL, to, NULL, want > (1u << 20) ? 1u << 20 : want, SPLICE_F_MOVE);
		} else {
			if (!buffer && !(buffer = malloc(COPY_BUFFER)))
				return -ENOMEM;
			n = read(from, buffer, want < COPY_BUFFER ? want : COPY_BUFFER);
			int r = n > 0 ? write_all(to, buffer, (size_t)n) : 0;
			if (r)
				return r;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && way < 2 && errno != ENOSPC && errno != EDQUOT && errno != EFBIG && errno != EIO) {
			way++;
			continue;
		}
		if (n < 0)
			return -errno;
		if (n == 0 && way == 0 && !done) { /* copy_file_range gives 0 for files of procfs and the like */
			way = 2;
			continue;
		}
		if (n == 0)
			break;
		done += (uint64_t)n;
	}
	return (int64_t)done;
}

static int fill(struct machine *m, const struct op_write_stream *o, int to, int stream)
{
	struct stat st;
	if (fstat(stream, &st))
		return -errno;
	int regular = S_ISREG(st.st_mode);
	if (o->offset >= 0 && (regular || o->offset > 0) && lseek(stream, o->offset, SEEK_SET) < 0)
		return machine_fail(m, errno, "the stream cannot be read from an offset");
	uint64_t most = o->length ? o->length : o->limit ? o->limit : UINT64_MAX;
	int64_t n = copy_bytes(to, stream, most);
	if (n < 0)
		return (int)n;
	if (o->length && (uint64_t)n < o->length)
		return machine_fail(m, EPIPE, "the stream ended after %lld of %llu bytes", (long long)n, (unsigned long long)o->length);
	if (regular && o->length)
		return 0;
	char more;
	ssize_t left;
	do
		left = (uint64_t)n == most ? read(stream, &more, 1) : 0;
	while (left < 0 && errno == EINTR);
	if (left < 0)
		return -errno;
	return left ? machine_fail(m, EFBIG, "the stream is longer than %llu bytes", (unsigned long long)most) : 0;
}

int do_write_stream(struct machine *m, const struct op_write_stream *o)
{
	ROOT_OF(root, NO_REGISTER, o->path.p);
	int stream = register_fd(m, o->stream);
	if (stream < 0)
		return stream;
	char name[256];
	AUTO_CLOSE int parent = resolve_parent(root, o->path.p, name);
	if (parent < 0)
		return parent;
	AUTO_CLOSE int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int r = fill(m, o, fd, stream);
	if (!r && (fchmod(fd, o->mode & 07777) || fsync(fd)))
		r = -errno;
	if (r)
		unlinkat(parent, name, 0);
	return r;
}
