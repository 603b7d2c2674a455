/* Connections that conntrack still sends to a port's last owner are forgotten. */
#include "netlink.h"
#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/mman.h>

#define GET ((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET)
#define DELETE ((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE)
#define ENTRY ((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_NEW)
#define STATS ((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET_STATS)
#define HEAD (sizeof(struct nlmsghdr) + sizeof(struct nfgenmsg))
#define ANSWER 32768     /* the kernel's own size for a piece of a dump */
#define MAX_TARGETS 1024 /* per walk */
#define FEW 10000        /* entries that are read faster than the table is walked once more */
#define PATIENCE_MS 5000 /* for a table that grows as fast as it is read */
#ifndef CTA_FILTER_MAX /* Linux 5.8 */
enum { CTA_FILTER_UNSPEC, CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS };
#define CTA_FILTER (CTA_LABELS_MASK + 2)
#endif
#define FILTER_PROTO_NUM (1u << 3)
#define FILTER_PROTO_DST_PORT (1u << 5)

/* Connections to this port are to be forgotten, of all addresses when there is none. */
struct target {
	uint8_t protocol;
	uint16_t port;
	struct bytes address;
};

/* A message that is being written; the room was counted. */
struct writer { uint8_t bytes[512]; uint32_t n; };

static void put(struct writer *w, const void *p, uint32_t n)
{
	memcpy(w->bytes + w->n, p, n);
	memset(w->bytes + w->n + n, 0, NLMSG_ALIGN(n) - n);
	w->n += NLMSG_ALIGN(n);
}

static void put_attribute(struct writer *w, uint16_t type, const void *p, uint32_t n)
{
	put(w, &(struct nlattr){ (uint16_t)(sizeof(struct nlattr) + n), type }, sizeof(struct nlattr));
	put(w, p, n);
}

static uint32_t nest(struct writer *w, uint16_t type)
{
	uint32_t at = w->n;
	put(w, &(struct nlattr){ 0, type | NLA_F_NESTED }, sizeof(struct nlattr));
	return at;
}

static void nest_end(struct writer *w, uint32_t at)
{
	uint16_t length = (uint16_t)(w->n - at);
	memcpy(w->bytes + at, &length, sizeof length);
}

static void begin(struct writer *w, uint16_t type, uint16_t flags, uint8_t family)
{
	w->n = 0;
	put(w, &(struct nlmsghdr){ .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags }, sizeof(struct nlmsghdr));
	put(w, &(struct nfgenmsg){ family, NFNETLINK_V0, 0 }, sizeof(struct nfgenmsg));
}

static int send_message(int fd, struct writer *w)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	memcpy(w->bytes, &w->n, sizeof w->n);
	return sendto(fd, w->bytes, w->n, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0 ? -errno : 0;
}

/* The attribute `type` among those in [p, p + n), without its head. */
static bool find(struct bytes in, uint16_t type, struct bytes *out)
{
	struct nlattr a;
	while (in.n >= sizeof a) {
		memcpy(&a, in.p, sizeof a);
		if (a.nla_len < sizeof a || a.nla_len > in.n)
			return false;
		if ((a.nla_type & NLA_TYPE_MASK) == type) {
			*out = (struct bytes){ in.p + sizeof a, a.nla_len - (uint32_t)sizeof a };
			return true;
		}
		uint32_t step = NLMSG_ALIGN((uint32_t)a.nla_len);
		if (step >= in.n)
			return false;
		in.p += step;
		in.n -= step;
	}
	return false;
}

struct search {
	int reading, deleting;       /* sockets */
	uint32_t count;
	struct target targets[MAX_TARGETS];
	uint8_t ports[65536 / 8];    /* those of the targets: most connections are none of ours */
	uint8_t buffer[ANSWER];
};

static bool wanted(const struct search *s, uint8_t family, struct bytes tuple)
{
	struct bytes ip, proto, number, port, address;
	if (!find(tuple, CTA_TUPLE_IP, &ip) || !find(tuple, CTA_TUPLE_PROTO, &proto))
		return false;
	if (!find(proto, CTA_PROTO_NUM, &number) || number.n < 1 || !find(proto, CTA_PROTO_DST_PORT, &port) || port.n != 2)
		return false;
	uint16_t host_port = (uint16_t)(port.p[0] << 8 | port.p[1]);
	if (!(s->ports[host_port / 8] >> host_port % 8 & 1) || !find(ip, family == AF_INET ? CTA_IP_V4_DST : CTA_IP_V6_DST, &address))
		return false;
	for (const struct target *t = s->targets; t < s->targets + s->count; t++)
		if (t->protocol == *number.p && t->port == host_port && (!t->address.n || (t->address.n == address.n && !memcmp(t->address.p, address.p, address.n))))
			return true;
	return false;
}

/* 0, also when it has ended by itself, or -errno. */
static int forget(const struct search *s, uint8_t family, struct bytes entry, struct bytes tuple)
{
	struct writer w;
	struct bytes v;
	struct { struct nlmsghdr head; struct nlmsgerr error; } answer;
	if (tuple.n > 256)
		return -EPROTO;
	begin(&w, DELETE, NLM_F_ACK, family);
	put_attribute(&w, CTA_TUPLE_ORIG | NLA_F_NESTED, tuple.p, tuple.n);
	if (find(entry, CTA_ID, &v) && v.n == 4)
		put_attribute(&w, CTA_ID, v.p, v.n);
	if (find(entry, CTA_ZONE, &v) && v.n == 2)
		put_attribute(&w, CTA_ZONE, v.p, v.n);
	int failed = send_message(s->deleting, &w);
	if (failed)
		return failed;
	ssize_t n;
	while ((n = recv(s->deleting, &answer, sizeof answer, MSG_DONTWAIT)) < 0 && errno == EINTR)
		;
	if (n < (ssize_t)(sizeof answer.head + sizeof(int)) || answer.head.nlmsg_type != NLMSG_ERROR)
		return n < 0 ? -errno : -EPROTO;
	return answer.error.error == -ENOENT ? 0 : answer.error.error;
}

/* One piece of a dump. 1 = there is more, 0 = the end, or -errno; `*again`: it has missed something. */
static int read_piece(struct search *s, bool *again)
{
	const uint8_t *buffer = s->buffer;
	ssize_t n = recv(s->reading, s->buffer, ANSWER, 0);
	if (n < 0)
		return errno == EINTR ? 1 : -errno;
	for (uint32_t at = 0; (size_t)n - at >= sizeof(struct nlmsghdr);) {
		struct nlmsghdr h;
		struct nfgenmsg g;
		memcpy(&h, buffer + at, sizeof h);
		if (h.nlmsg_len < sizeof h || h.nlmsg_len > (size_t)n - at)
			return -EPROTO;
		*again |= !!(h.nlmsg_flags & NLM_F_DUMP_INTR);
		if (h.nlmsg_type == NLMSG_DONE)
			return 0;
		if (h.nlmsg_type == NLMSG_ERROR) {
			int error = -EPROTO;
			if (h.nlmsg_len >= sizeof h + sizeof error)
				memcpy(&error, buffer + at + sizeof h, sizeof error);
			return error;
		}
		if (h.nlmsg_type == ENTRY && h.nlmsg_len >= HEAD) {
			struct bytes entry = { buffer + at + HEAD, h.nlmsg_len - (uint32_t)HEAD }, tuple;
			memcpy(&g, buffer + at + sizeof h, sizeof g);
			if (find(entry, CTA_TUPLE_ORIG, &tuple) && wanted(s, g.nfgen_family, tuple)) {
				int failed = forget(s, g.nfgen_family, entry, tuple);
				if (failed)
					return failed;
			}
		}
		uint32_t step = NLMSG_ALIGN(h.nlmsg_len);
		if (step > (size_t)n - at)
			break;
		at += step;
	}
	return 1;
}

/* Ask for the whole table, without what the kernel can tell is not wanted: by protocol and port, only where one family is asked for. */
static int ask(const struct search *s, uint8_t family)
{
	struct writer w;
	const struct target *first = s->targets;
	uint32_t flags = FILTER_PROTO_NUM | FILTER_PROTO_DST_PORT, none = 0;
	uint16_t port = htons(first->port);
	for (const struct target *t = first; t < first + s->count; t++) {
		if (t->protocol != first->protocol)
			flags = 0; /* a port counts only with its protocol */
		if (t->port != first->port)
			flags &= ~FILTER_PROTO_DST_PORT;
	}
	begin(&w, GET, NLM_F_DUMP, family);
	if (flags && family != AF_UNSPEC) {
		uint32_t tuple = nest(&w, CTA_TUPLE_ORIG), proto = nest(&w, CTA_TUPLE_PROTO);
		put_attribute(&w, CTA_PROTO_NUM, &first->protocol, 1);
		if (flags & FILTER_PROTO_DST_PORT)
			put_attribute(&w, CTA_PROTO_DST_PORT, &port, 2);
		nest_end(&w, proto);
		nest_end(&w, tuple);
		uint32_t filter = nest(&w, CTA_FILTER);
		put_attribute(&w, CTA_FILTER_ORIG_FLAGS, &flags, 4);
		put_attribute(&w, CTA_FILTER_REPLY_FLAGS, &none, 4);
		nest_end(&w, filter);
	}
	return send_message(s->reading, &w);
}

static int walk(struct search *s, uint8_t family)
{
	int64_t until = clock_ms() + PATIENCE_MS;
	bool again;
	do {
		int more = ask(s, family);
		again = false;
		if (!more)
			do more = read_piece(s, &again);
			while (more > 0 && clock_ms() < until);
		if (more)
			return more < 0 ? more : -ETIMEDOUT;
	} while (again && clock_ms() < until);
	return 0;
}

static int add_target(struct search *s, const struct op_forget_flows *o)
{
	if (o->protocol > 255 || o->port > 65535 || (o->address.n && o->address.n != 4 && o->address.n != 16))
		return -EINVAL;
	s->targets[s->count++] = (struct target){ (uint8_t)o->protocol, (uint16_t)o->port, o->address };
	s->ports[o->port / 8] |= (uint8_t)(1u << o->port % 8);
	return 0;
}

/* The table is as large as the host is busy, and every walk goes through all of it: operations that follow each other are done by one. */
static uint32_t add_following(struct machine *m, struct search *s)
{
	struct plan_cursor at = m->next;
	struct operation op;
	struct op_forget_flows o;
	uint32_t added = 0;
	while (s->count < MAX_TARGETS && !plan_next(m->plan, &at, &op) && op.code == OP_FORGET_FLOWS && !decode_forget_flows(&op.fields, &o) && !add_target(s, &o))
		added++;
	return added;
}

/* Is there a target of the family whose addresses have so many bytes? */
static bool concerns(const struct search *s, uint32_t length)
{
	for (uint32_t i = 0; i < s->count; i++)
		if (!s->targets[i].address.n || s->targets[i].address.n == length)
			return true;
	return false;
}

/* How many connections this net namespace follows; UINT32_MAX when it does not say. */
static uint32_t count_all(struct search *s)
{
	struct writer w;
	struct nlmsghdr h;
	struct bytes entries;
	uint32_t count;
	begin(&w, STATS, 0, AF_UNSPEC);
	if (send_message(s->deleting, &w))
		return UINT32_MAX;
	ssize_t n = recv(s->deleting, s->buffer, ANSWER, MSG_DONTWAIT);
	if (n < (ssize_t)HEAD)
		return UINT32_MAX;
	memcpy(&h, s->buffer, sizeof h);
	if (h.nlmsg_type != STATS || h.nlmsg_len < HEAD || h.nlmsg_len > (size_t)n)
		return UINT32_MAX;
	if (!find((struct bytes){ s->buffer + HEAD, h.nlmsg_len - (uint32_t)HEAD }, CTA_STATS_GLOBAL_ENTRIES, &entries) || entries.n != sizeof count)
		return UINT32_MAX;
	memcpy(&count, entries.p, sizeof count);
	return ntohl(count);
}

static int forget_targets(struct machine *m, struct search *s)
{
	AUTO_CLOSE int reading = netlink_socket(m, NETLINK_NETFILTER, NO_REGISTER);
	AUTO_CLOSE int deleting = reading < 0 ? -1 : netlink_socket(m, NETLINK_NETFILTER, NO_REGISTER);
	if (reading < 0 || deleting < 0) /* a kernel without netfilter */
		return reading == -EPROTONOSUPPORT ? 0 : reading < 0 ? reading : deleting;
	int one = 1;
	struct timeval patience = { PATIENCE_MS / 1000, 0 };
	setsockopt(deleting, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
	setsockopt(reading, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	s->reading = reading;
	s->deleting = deleting;
	uint32_t following = add_following(m, s);
	bool v4 = concerns(s, 4), v6 = concerns(s, 16);
	int failed = 0;
	/* a walk goes through every bucket of the table that all namespaces share, however few entries there are: some ms */
	uint32_t count = count_all(s);
	if (count && v4 && v6 && count <= FEW) {
		failed = walk(s, AF_UNSPEC);
	} else if (count) {
		failed = v4 ? walk(s, AF_INET) : 0;
		if (!failed && v6)
			failed = walk(s, AF_INET6);
	}
	/* nfnetlink knows no conntrack */
	if (failed == -EINVAL)
		failed = 0;
	if (!failed)
		m->done_ahead = following;
	return failed;
}

int do_forget_flows(struct machine *m, const struct op_forget_flows *o)
{
	if (m->done_ahead) {
		m->done_ahead--;
		return 0;
	}
	/* given back as a whole: the shim lives on for long */
	struct search *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s == MAP_FAILED)
		return -ENOMEM;
	int failed = add_target(s, o) ? machine_fail(m, EINVAL, "not an address with a port and a protocol") : forget_targets(m, s);
	munmap(s, sizeof *s);
	return failed;
}
