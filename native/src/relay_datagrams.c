/* Datagrams to a held port: for each client a socket of its own to who is behind the port, so that the answers find back. */
#define _GNU_SOURCE
#include "ports.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "sys.h"

#define BURST 64          /* datagrams before others get their turn */
#define DATAGRAM 65536
#define BUCKETS 256u

int set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable); /* identity.c */

/* Who speaks to whom: unused bytes are zero, so that two are equal when their bytes are. */
struct ends {
	struct sockaddr_in6 client; /* or a sockaddr_in */
	uint8_t host[16];           /* the address of the host that it came to */
};
struct flow {
	struct ends ends;
	int fd;
	int64_t used;
	struct flow *next;           /* in its bucket, or free */
	struct flow *older, *newer;  /* by last use */
};

static struct flow *buckets[BUCKETS], *flows, *unused, *oldest, *newest;
static unsigned known; /* of `flows`, so many have been in use */
static int held, set;
static const struct port *port;
static uint8_t data[DATAGRAM];

static struct flow **bucket_of(const struct ends *e) {
	const uint8_t *p = (const uint8_t *)e;
	uint32_t h = 2166136261u;
	for (size_t i = 0; i < sizeof *e; i++) h = (h ^ p[i]) * 16777619u;
	return &buckets[(h ^ h >> 16) % BUCKETS];
}

static void unlink_age(struct flow *f) {
	*(f->older ? &f->older->newer : &oldest) = f->newer;
	*(f->newer ? &f->newer->older : &newest) = f->older;
}

static void link_newest(struct flow *f, int64_t now) {
	f->used = now;
	f->newer = NULL;
	f->older = newest;
	*(newest ? &newest->newer : &oldest) = f;
	newest = f;
}

static void forget(struct flow *f) {
	struct flow **at = bucket_of(&f->ends);
	while (*at != f) at = &(*at)->next;
	*at = f->next;
	unlink_age(f);
	close(f->fd);
	f->next = unused;
	unused = f;
}

static int connect_to(void) {
	struct sockaddr_storage s;
	socklen_t size = bind_address(&s, port->to, port->to_length, port->to_port);
	int fd = socket(s.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&s, size)) return fd;
	if (fd >= 0) close(fd);
	return -1;
}

/* The flow of these two; NULL when there can be none. */
static struct flow *flow_of(const struct ends *e, int64_t now) {
	struct flow **bucket = bucket_of(e), *f = *bucket;
	while (f && memcmp(&f->ends, e, sizeof *e)) f = f->next;
	if (f) {
		unlink_age(f);
		link_newest(f, now);
		return f;
	}
	if (!unused && known == MAX_FLOWS) forget(oldest);
	int fd = connect_to();
	if (fd < 0 && (errno == EMFILE || errno == ENFILE) && oldest) {
		forget(oldest);
		fd = connect_to();
	}
	if (fd < 0) return NULL;
	f = unused;
	if (f) unused = f->next;
	else f = &flows[known++];
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = f };
	epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
	f->ends = *e;
	f->fd = fd;
	f->next = *bucket;
	*bucket = f;
	link_newest(f, now);
	return f;
}

union control { char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))]; struct cmsghdr align; };

static void read_destination(struct msghdr *m, struct ends *e) {
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo info;
			memcpy(&info, CMSG_DATA(c), sizeof info);
			memcpy(e->host, &info.ipi_spec_dst, 4);
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo info;
			memcpy(&info, CMSG_DATA(c), sizeof info);
			if (!IN6_IS_ADDR_MULTICAST(&info.ipi6_addr)) memcpy(e->host, &info.ipi6_addr, 16);
		}
	}
}

static void from_clients(int64_t now) {
	for (int i = 0; i < BURST; i++) {
		struct ends e;
		union control control;
		memset(&e, 0, sizeof e);
		struct iovec v = { data, sizeof data };
		struct msghdr m = { .msg_name = &e.client, .msg_namelen = sizeof e.client, .msg_iov = &v, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control };
		ssize_t n = recvmsg(held, &m, MSG_DONTWAIT);
		if (n < 0) return;
		read_destination(&m, &e);
		struct flow *f = flow_of(&e, now);
		/* what cannot be sent is lost, as datagrams are; a first error may be one of an earlier datagram (nobody listens there) */
		if (f && send(f->fd, data, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == ECONNREFUSED) send(f->fd, data, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

static void write_source(struct msghdr *m, union control *control, const struct ends *e) {
	static const uint8_t none[16];
	if (!memcmp(e->host, none, sizeof none)) return;
	memset(control, 0, sizeof *control);
	m->msg_control = control->bytes;
	m->msg_controllen = sizeof control->bytes;
	struct cmsghdr *c = CMSG_FIRSTHDR(m);
	if (e->client.sin6_family == AF_INET) {
		struct in_pktinfo info = { 0 };
		memcpy(&info.ipi_spec_dst, e->host, 4);
		c->cmsg_level = IPPROTO_IP;
		c->cmsg_type = IP_PKTINFO;
		c->cmsg_len = CMSG_LEN(sizeof info);
		memcpy(CMSG_DATA(c), &info, sizeof info);
		m->msg_controllen = CMSG_SPACE(sizeof info);
	} else {
		struct in6_pktinfo info = { .ipi6_ifindex = e->client.sin6_scope_id };
		memcpy(&info.ipi6_addr, e->host, 16);
		c->cmsg_level = IPPROTO_IPV6;
		c->cmsg_type = IPV6_PKTINFO;
		c->cmsg_len = CMSG_LEN(sizeof info);
		memcpy(CMSG_DATA(c), &info, sizeof info);
		m->msg_controllen = CMSG_SPACE(sizeof info);
	}
}

static void from_container(struct flow *f, int64_t now) {
	for (int i = 0; i < BURST; i++) {
		ssize_t n = recv(f->fd, data, sizeof data, MSG_DONTWAIT);
		if (n < 0 && errno == ECONNREFUSED) continue;
		if (n < 0) return;
		union control control;
		struct iovec v = { data, (size_t)n };
		struct msghdr m = { .msg_name = &f->ends.client, .msg_namelen = f->ends.client.sin6_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof f->ends.client, .msg_iov = &v, .msg_iovlen = 1 };
		write_source(&m, &control, &f->ends);
		sendmsg(held, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
		unlink_age(f);
		link_newest(f, now);
	}
}

static int64_t idle_ms(void) {
#ifdef ENGINE_TEST
	const char *text = getenv("ENGINE_FLOW_IDLE");
	if (text) return atoi(text);
#endif
	return FLOW_IDLE_MS;
}

void relay_datagrams(int fd, const struct port *p) {
	struct epoll_event event = { .events = EPOLLIN }, ready[32]; /* no flow: the held socket */
	struct rlimit files = { 0, 0 };
	int64_t idle = idle_ms();
	held = fd;
	port = p;
	if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < MAX_FLOWS + 64) {
		files.rlim_cur = files.rlim_max < MAX_FLOWS + 64 ? files.rlim_max : MAX_FLOWS + 64;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	flows = calloc(MAX_FLOWS, sizeof *flows);
	set = epoll_create1(EPOLL_CLOEXEC);
	if (!flows || set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, held, &event)) _exit(1);
	set_capabilities(0, 0, 0);
	do {
		int64_t now = now_ms();
		int n = epoll_wait(set, ready, 32, oldest ? (int)(oldest->used + idle - now + 1 > 0 ? oldest->used + idle - now + 1 : 0) : 0);
		bool clients = false;
		now = now_ms();
		/* a flow may have to give way to a new one: those that have answers first */
		for (int i = 0; i < n; i++) {
			if (ready[i].data.ptr) from_container(ready[i].data.ptr, now);
			else clients = true;
		}
		if (clients) from_clients(now);
		while (oldest && now - oldest->used >= idle) forget(oldest);
	} while (oldest);
	_exit(0);
}
