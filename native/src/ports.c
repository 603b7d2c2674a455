/*
 * Ports of the host that the run holds: bound by the plan, held for the life of the run. What reaches such a socket itself, past the firewall's own way into the
 * container, is passed on by processes of its own, so that the shim does nothing but accept.
 */
#define _GNU_SOURCE
#include "ports.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "sys.h"

#define SPARE_FILES 128   /* fds that the shim needs beside its ports */
#define ENDING_MS 5000
#define RETRY_MS 100      /* after which a connection is accepted again for which there was no fd or no memory */

/* All ports lie in an epoll set of their own, so that all can be left alone or looked at by one call. */
static struct port *ports;
static unsigned count;
static void ports_ready(struct source *source, uint32_t events);
static struct source set = { .fd = -1, .ready = ports_ready };
static pid_t *relays;
static unsigned relay_count;
static struct rlimit files; /* as it was before it was raised; 0 = it was not */
static rlim_t limit;        /* as it is; 0 = not known yet */

static void raise_limit(void) {
	struct rlimit now;
	if (getrlimit(RLIMIT_NOFILE, &now) || now.rlim_cur == now.rlim_max) return;
	if (!files.rlim_max) files = now;
	now.rlim_cur = now.rlim_max - now.rlim_cur > now.rlim_cur + 4096 ? 2 * now.rlim_cur + 4096 : now.rlim_max;
	setrlimit(RLIMIT_NOFILE, &now);
	limit = now.rlim_cur;
}

/* To what it was, for others. */
static void lower_limit(void) {
	if (files.rlim_max) setrlimit(RLIMIT_NOFILE, &files);
	files.rlim_max = 0;
}

static bool near_limit(int fd) {
	struct rlimit now;
	if (!limit && !getrlimit(RLIMIT_NOFILE, &now)) limit = now.rlim_cur;
	return (rlim_t)fd + SPARE_FILES >= limit;
}

static const char *protocol_name(uint32_t protocol) { return protocol == IPPROTO_TCP ? "tcp" : protocol == IPPROTO_UDP ? "udp" : "sctp"; }

/* Which of the host's addresses a datagram came to is where the answer has to come from. */
static void want_destination(int fd, uint32_t length) {
	int one = 1;
	if (length == 4) setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
	else setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof one);
}

ONCE static int describe_failure(struct machine *m, const struct op_hold_port *o, int error) {
	char text[INET6_ADDRSTRLEN];
	const char *open = o->address.n == 16 ? "[" : "", *close = o->address.n == 16 ? "]" : "";
	if (!inet_ntop(o->address.n == 16 ? AF_INET6 : AF_INET, o->address.p, text, sizeof text)) text[0] = 0;
	if (!bind_impossible(error)) return machine_fail(m, error, "%s %s%s%s:%u", protocol_name(o->protocol), open, text, close, o->port);
	machine_warn(m, error, "%s %s%s%s:%u is not held: this kernel has no such sockets", protocol_name(o->protocol), open, text, close, o->port);
	return 0;
}

int hold_port(struct machine *m, const struct op_hold_port *o) {
	if ((o->address.n != 4 && o->address.n != 16) || !o->port || o->port > 65535 || (o->to.n && o->to.n != 4 && o->to.n != 16) || (o->to.n && (!o->to_port || o->to_port > 65535)))
		return machine_fail(m, EINVAL, "not an address and a port");
	int fd = bind_port(o->protocol, o->address.p, o->address.n, o->port);
	if (fd == -EMFILE) {
		raise_limit();
		fd = bind_port(o->protocol, o->address.p, o->address.n, o->port);
	}
	if (fd < 0) return describe_failure(m, o, -fd);
	/* in pieces: 500 ports need not be copied 500 times */
	struct port *grown = count & (count - 1) ? ports : realloc(ports, (count ? 2 * count : 1) * sizeof *ports);
	if (!grown) {
		close(fd);
		return -ENOMEM;
	}
	ports = grown;
	struct port *p = &ports[count++];
	*p = (struct port){ .fd = fd, .protocol = (uint8_t)o->protocol, .to_length = (uint8_t)o->to.n, .to_port = (uint16_t)o->to_port };
	if (o->to.n) memcpy(p->to, o->to.p, o->to.n);
	if (o->to.n && o->protocol == IPPROTO_UDP) want_destination(fd, o->address.n);
	if (near_limit(fd)) raise_limit();
	return 0;
}

void ports_forget(void) {
	for (unsigned i = 0; i < count; i++) close(ports[i].fd);
	count = 0;
	if (set.fd >= 0) close(set.fd);
	set.fd = -1;
	lower_limit();
}

/* -- while init runs ------------------------------------------------------------------------------------------------------------- */

static void look_at(unsigned i) {
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = i };
	epoll_ctl(set.fd, EPOLL_CTL_ADD, ports[i].fd, &event);
}

void ports_serve(void) {
	if (!count) return;
	set.fd = epoll_create1(EPOLL_CLOEXEC);
	if (set.fd < 0) return;
	for (unsigned i = 0; i < count; i++)
		if (ports[i].to_length || ports[i].protocol != IPPROTO_UDP) look_at(i);
	source_want(&set, EPOLLIN);
}

static unsigned most_relays(void) {
#ifdef ENGINE_TEST
	const char *text = getenv("ENGINE_MAX_RELAYS");
	if (text) return (unsigned)atoi(text);
#endif
	return MAX_RELAYS;
}

/* A process that has `fd` and nothing else of the shim's. 0 in it; its pid; -1. */
static pid_t fork_relay(int fd) {
	if (!relays) relays = malloc(MAX_RELAYS * sizeof *relays);
	if (!relays) return -1;
	pid_t shim = getpid(), pid = clone_process(0, NULL, -1);
	if (pid < 0) return -1;
	if (pid > 0) {
		relays[relay_count++] = pid;
		if (relay_count >= most_relays()) source_want(&set, 0);
		return pid;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != shim) _exit(0);
	prctl(PR_SET_NAME, "engine-relay");
	/* the lock above all: the shim's death alone must free it */
	if (dup2(fd, 3) < 0 || sys_close_range(4, ~0u, 0)) _exit(1);
	return 0;
}

static void accept_connection(const struct port *p) {
	int fd = accept4(p->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		/* no fd for it: it waits, since it would be reported all the time */
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			source_want(&set, 0);
			run.ports_retry = now_ms() + RETRY_MS;
		}
		return;
	}
	pid_t pid = p->to_length ? fork_relay(fd) : -1;
	if (!pid) relay_connection(3, p);
	if (pid < 0) reset_connection(fd);
	else close(fd);
}

static void resume(void) {
	run.ports_retry = 0;
	if (relay_count < most_relays()) source_want(&set, EPOLLIN);
}

int ports_patience(void) {
	int64_t left = run.ports_retry - now_ms();
	if (left > 0) return (int)left;
	resume();
	return -1;
}

static void hand_over(struct port *p) {
	epoll_ctl(set.fd, EPOLL_CTL_DEL, p->fd, NULL);
	p->relay = fork_relay(p->fd);
	if (!p->relay) relay_datagrams(3, p);
	if (p->relay > 0) return;
	p->relay = 0;
	uint8_t lost;
	recv(p->fd, &lost, sizeof lost, MSG_DONTWAIT);
	look_at((unsigned)(p - ports));
}

static void ports_ready(struct source *source, uint32_t events) {
	struct epoll_event ready[8];
	(void)events;
	int n = epoll_wait(source->fd, ready, 8, 0);
	for (int i = 0; i < n && relay_count < most_relays(); i++) {
		struct port *p = &ports[ready[i].data.u32];
		if (p->protocol == IPPROTO_UDP) hand_over(p);
		else accept_connection(p);
	}
}

void ports_reaped(pid_t pid) {
	unsigned at = 0;
	while (at < relay_count && relays[at] != pid) at++;
	if (at == relay_count) return;
	relays[at] = relays[--relay_count];
	for (unsigned i = 0; i < count; i++) {
		if (ports[i].relay != pid) continue;
		ports[i].relay = 0;
		look_at(i);
	}
	resume();
}

void ports_close(void) {
	if (!count && !relay_count) return;
	source_close(&set);
	for (unsigned i = 0; i < count; i++) close(ports[i].fd);
	count = 0;
	for (unsigned i = 0; i < relay_count; i++) kill(relays[i], SIGKILL);
	/* one that reads datagrams has its port open until it has ended */
	int64_t deadline = now_ms() + ENDING_MS;
	while (reap(), relay_count && now_ms() < deadline) usleep(200);
	lower_limit();
}
