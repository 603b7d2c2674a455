/* The standard streams of init (session 0) and of exec sessions: pipes or a pty, to the log and to attached clients. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif
#define STDIN_BUFFER (64u * 1024u) /* waits in the shim before a client's stdin is read no further */

struct session *sessions;

int exit_code(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

struct session *session_find(uint16_t id) {
	for (struct session *s = sessions; s; s = s->next)
		if (s->id == id) return s;
	return NULL;
}

HOT static bool stream_held_back(const struct stream *t) {
	uint32_t bit = t->number == 1 ? STDIO_ATTACH_STDOUT : STDIO_ATTACH_STDERR;
	for (struct attachment *a = t->session->attachments; a; a = a->next)
		if (a->bits & bit && client_full(a->client)) return true;
	return false;
}

/* Read what is there, as long as nobody holds it back. */
static void stream_pump(struct stream *t) {
	struct session *s = t->session;
	uint32_t bit = t->number == 1 ? STDIO_ATTACH_STDOUT : STDIO_ATTACH_STDERR;
	for (int i = 0; i < 8 && t->source.fd >= 0 && !stream_held_back(t); i++) {
		if (!t->left) {
			source_close(&t->source);
			return;
		}
		size_t want = t->left > 0 && t->left < (int64_t)CHUNK ? (size_t)t->left : CHUNK;
		ssize_t n = read(t->source.fd, chunk, want);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0 && errno == EAGAIN && t->left < 0) return;
		if (n <= 0) { /* end of file; EIO is a pty's; EAGAIN after the exit: somebody else holds it open, but all of init's is read */
			source_close(&t->source);
			return;
		}
		if (t->left > 0) t->left -= n;
		if (!s->id) log_data(t->number, chunk, (size_t)n);
		for (struct attachment *a = s->attachments, *next; a; a = next) {
			next = a->next; /* a client that turns out to be gone takes its attachment along */
			if (a->bits & bit) client_send(a->client, FRAME_OUTPUT, s->id, t->number, chunk, (uint32_t)n);
		}
		if ((size_t)n < want && t->left < 0) return;
	}
}

static void stream_ready(struct source *source, uint32_t events) {
	(void)events;
	stream_pump((struct stream *)source);
}

static void stdin_close(struct stdin_pipe *in) {
	source_close(&in->source);
	free(in->pending);
	in->pending = NULL;
	in->start = in->used = 0;
}

static void stdin_flush(struct stdin_pipe *in) {
	while (in->used && in->source.fd >= 0) {
		ssize_t n = write(in->source.fd, in->pending + in->start, in->used);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0 && errno == EAGAIN) return;
		if (n <= 0) {
			stdin_close(in);
			return;
		}
		in->start += (uint32_t)n;
		in->used -= (uint32_t)n;
	}
	if (in->used) return;
	free(in->pending);
	in->pending = NULL;
	in->start = 0;
	if (in->eof) stdin_close(in);
}

static void stdin_ready(struct source *source, uint32_t events) {
	struct stdin_pipe *in = (struct stdin_pipe *)source;
	if (events & EPOLLERR && !(events & EPOLLOUT)) stdin_close(in); /* nobody reads it any more */
	else stdin_flush(in);
}

void session_input(struct session *s, const uint8_t *p, uint32_t n) {
	struct stdin_pipe *in = &s->in;
	bool coming = in->source.fd < 0 && !s->started && !s->exited; /* the pty is not there yet */
	if ((in->source.fd < 0 && !coming) || in->eof || !(s->flags & STDIO_STDIN)) return;
	if (!in->used && !coming) {
		ssize_t sent = write(in->source.fd, p, n);
		if (sent < 0 && errno != EAGAIN && errno != EINTR) {
			stdin_close(in);
			return;
		}
		if (sent > 0) {
			p += sent;
			n -= (uint32_t)sent;
		}
	}
	if (!n) return;
	if (in->start) memmove(in->pending, in->pending + in->start, in->used);
	in->start = 0;
	uint8_t *grown = realloc(in->pending, in->used + n);
	if (!grown) return;
	in->pending = grown;
	memcpy(grown + in->used, p, n);
	in->used += n;
}

void session_input_eof(struct session *s) {
	if (s->flags & STDIO_TERMINAL) return; /* it ends by its own character, and the next client may type again */
	s->in.eof = true;
	if (s->in.source.fd >= 0) stdin_flush(&s->in);
}

bool session_takes_input(const struct session *s) { return s->in.used < STDIN_BUFFER; }

/* -- making ---------------------------------------------------------------------------------------------------------------------- */

struct session *session_new(uint16_t id, uint32_t flags, uint32_t rows, uint32_t cols) {
	struct session *s = calloc(1, sizeof *s);
	if (!s) return NULL;
	s->id = id;
	s->flags = flags;
	s->rows = (uint16_t)rows;
	s->cols = (uint16_t)cols;
	s->pidfd = s->slave = s->sync.fd = s->in.source.fd = -1;
	s->in.session = s;
	s->in.source.ready = stdin_ready;
	for (int i = 0; i < 2; i++) {
		s->out[i] = (struct stream){ .source = { .fd = -1, .ready = stream_ready }, .session = s, .number = (uint32_t)i + 1, .left = -1 };
	}
	for (int i = 0; i < 3; i++) s->child_fds[i] = -1;
	struct session **at = &sessions;
	while (*at) at = &(*at)->next;
	*at = s;
	return s;
}

static void nonblocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

int session_pipes(struct session *s) {
	if (s->flags & (STDIO_TERMINAL | STDIO_INHERIT)) return 0;
	for (int i = 0; i < 3; i++) {
		int ends[2];
		if (pipe2(ends, O_CLOEXEC)) return errno;
		int child = i == 0 ? ends[0] : ends[1], ours = i == 0 ? ends[1] : ends[0];
		s->child_fds[i] = child;
		nonblocking(ours);
		if (i) s->out[i - 1].source.fd = ours;
		else if (s->flags & STDIO_STDIN && !s->in.eof) s->in.source.fd = ours;
		else close(ours); /* no -i: end of file at once */
	}
	return 0;
}

int session_settle(struct session *s, bool terminal) {
	if (!(s->flags & STDIO_TERMINAL)) {
		if (terminal) return EINVAL;
		if (!(s->flags & STDIO_STDIN) || s->in.eof) stdin_close(&s->in);
		return 0;
	}
	if (!terminal) { /* the pty is still to come */
		for (int i = 0; i < 2; i++) source_close(&s->out[i].source);
		source_close(&s->in.source);
		return 0;
	}
	if (!(s->flags & STDIO_STDIN)) source_close(&s->in.source);
	return s->rows || s->cols ? session_resize(s, s->rows, s->cols) : 0;
}

void session_close_child_fds(struct session *s) {
	for (int i = 0; i < 3; i++) {
		if (s->child_fds[i] >= 0) close(s->child_fds[i]);
		s->child_fds[i] = -1;
	}
}

void session_take_terminal(struct session *s, int master) {
	if (s->out[0].source.fd >= 0) {
		close(master);
		return;
	}
	nonblocking(master);
	s->out[0].source.fd = master;
	s->in.source.fd = s->flags & STDIO_STDIN ? fcntl(master, F_DUPFD_CLOEXEC, 3) : -1;
	s->slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (s->rows || s->cols) session_resize(s, s->rows, s->cols);
	if (s->in.used && s->in.source.fd >= 0) stdin_flush(&s->in);
}

int session_resize(struct session *s, uint16_t rows, uint16_t cols) {
	s->rows = rows;
	s->cols = cols;
	if (!(s->flags & STDIO_TERMINAL) || s->out[0].source.fd < 0) return 0;
	struct winsize size = { .ws_row = rows, .ws_col = cols };
	return ioctl(s->out[0].source.fd, TIOCSWINSZ, &size) ? errno : 0;
}

int session_signal(struct session *s, int number) {
	if (s->exited || s->pidfd < 0) return ESRCH;
	return syscall(SYS_pidfd_send_signal, s->pidfd, number, NULL, 0) ? errno : 0;
}

/* -- attachments ------------------------------------------------------------------------------------------------------------------ */

static struct attachment *attachment(struct session *s, struct client *c) {
	for (struct attachment *a = s->attachments; a; a = a->next)
		if (a->client == c) return a;
	struct attachment *a = calloc(1, sizeof *a);
	if (!a) return NULL;
	a->client = c;
	a->next = s->attachments;
	s->attachments = a;
	return a;
}

void session_attach(struct session *s, struct client *c, uint32_t bits) {
	struct client *to = client_streams(c);
	if (to != c) session_want_exit(s, c);
	struct attachment *a = to ? attachment(s, to) : NULL;
	if (a) {
		a->bits = bits & (STDIO_ATTACH_STDIN | STDIO_ATTACH_STDOUT | STDIO_ATTACH_STDERR);
		a->wants_exit = true;
	} else if (!to && bits & STDIO_ATTACH_STDIN && s->flags & STDIO_STDIN_ONCE) {
		session_input_eof(s); /* it came and went */
	}
	if (a && to != c) client_begin(to);
}

bool session_has(const struct session *s, const struct client *c) {
	for (const struct attachment *a = s->attachments; a; a = a->next)
		if (a->client == c) return true;
	return false;
}

void session_want_exit(struct session *s, struct client *c) {
	struct attachment *a = attachment(s, c);
	if (a) a->wants_exit = true;
}

void session_detach(struct session *s, struct client *c, bool gone) {
	for (struct attachment **at = &s->attachments; *at; at = &(*at)->next) {
		struct attachment *a = *at;
		if (a->client != c) continue;
		bool fed = a->bits & STDIO_ATTACH_STDIN && s->flags & STDIO_STDIN_ONCE;
		a->bits = 0;
		if (gone) {
			*at = a->next;
			free(a);
		}
		if (fed) session_input_eof(s);
		return;
	}
}

/* -- the end ---------------------------------------------------------------------------------------------------------------------- */

void session_exited(struct session *s, int status) {
	if (s->exited) return;
	s->exited = true;
	s->status = status;
	stdin_close(&s->in);
	for (int i = 0; i < 2; i++) {
		/* what is in the pipe now is all that it wrote; others who hold the pipe open do not count */
		int there = 0;
		if (s->flags & STDIO_TERMINAL) there = 1 << 20;
		else if (s->out[i].source.fd >= 0 && ioctl(s->out[i].source.fd, FIONREAD, &there)) there = 0;
		s->out[i].left = there;
	}
	if (s->slave >= 0) close(s->slave);
	s->slave = -1;
}

HOT bool session_drained(const struct session *s) { return s->exited && s->out[0].source.fd < 0 && s->out[1].source.fd < 0; }

void session_free(struct session *s) {
	for (struct session **at = &sessions; *at; at = &(*at)->next) {
		if (*at == s) {
			*at = s->next;
			break;
		}
	}
	source_close(&s->sync);
	for (int i = 0; i < 2; i++) source_close(&s->out[i].source);
	stdin_close(&s->in);
	session_close_child_fds(s);
	if (s->slave >= 0) close(s->slave);
	if (s->pidfd >= 0) close(s->pidfd);
	while (s->attachments) {
		struct attachment *a = s->attachments;
		s->attachments = a->next;
		free(a);
	}
	free(s);
}

HOT void sessions_update(void) {
	for (struct session *s = sessions; s; s = s->next) {
		if (s->started || s->exited) {
			for (int i = 0; i < 2; i++) {
				struct stream *t = &s->out[i];
				if (s->exited) stream_pump(t);
				source_want(&t->source, stream_held_back(t) ? 0 : EPOLLIN);
			}
		}
		/* without anything to write, EPOLLERR still tells when nobody can read it any more: not needed, a write will tell */
		source_want(&s->in.source, s->in.used ? EPOLLOUT : 0);
	}
}

void sessions_forget(const struct session *keep) {
	for (struct session *s = sessions; s; s = s->next) {
		if (s != keep) {
			if (s->sync.fd >= 0) close(s->sync.fd);
			for (int i = 0; i < 3; i++)
				if (s->child_fds[i] >= 0) close(s->child_fds[i]);
		}
		for (int i = 0; i < 2; i++)
			if (s->out[i].source.fd >= 0) close(s->out[i].source.fd);
		if (s->in.source.fd >= 0) close(s->in.source.fd);
		if (s->slave >= 0) close(s->slave);
	}
}
