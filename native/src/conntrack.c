/* Connections that conntrack still sends to a port's last owner are forgotten. */
#include "netlink.h"
#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#define GET ((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET)
#define DELETE ((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE)
#define ENTRY ((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_NEW)
#define HEAD (sizeof(struct nlmsghdr) + sizeof(struct nfgenmsg))
#define ANSWER 32768     /* the kernel's own size for a piece of a dump */
#define PATIENCE_MS 5000 /* for a table that grows as fast as it is read */
#ifndef CTA_FILTER_MAX /* Linux 5.8 */
enum { CTA_FILTER_UNSPEC, CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS };
#define CTA_FILTER (CTA_LABELS_MASK + 2)
#endif
#define FILTER_PROTO_NUM (1u << 3)
#define FILTER_PROTO_DST_PORT (1u << 5)

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
	uint8_t protocol;
	uint16_t port; /* network order */
	struct bytes address;
	int deleting;  /* socket */
};

static bool wanted(const struct search *s, uint8_t family, struct bytes tuple)
{
	struct bytes ip, proto, v;
	if (!find(tuple, CTA_TUPLE_IP, &ip) || !find(tuple, CTA_TUPLE_PROTO, &proto))
		return false;
	if (!find(proto, CTA_PROTO_NUM, &v) || v.n < 1 || *v.p != s->protocol)
		return false;
	if (!find(proto, CTA_PROTO_DST_PORT, &v) || v.n != sizeof s->port || memcmp(v.p, &s->port, sizeof s->port))
		return false;
	if (!s->address.n)
		return true;
	return find(ip, family == AF_INET ? CTA_IP_V4_DST : CTA_IP_V6_DST, &v) && v.n == s->address.n && !memcmp(v.p, s->address.p, v.n);
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
static int read_piece(struct search *s, int fd, uint8_t *buffer, bool *again)
{
	ssize_t n = recv(fd, buffer, ANSWER, 0);
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

static int forget_family(struct search *s, int fd, uint8_t family, uint8_t *buffer)
{
	int64_t until = clock_ms() + PATIENCE_MS;
	bool again;
	do {
		struct writer w;
		uint32_t flags = FILTER_PROTO_NUM | FILTER_PROTO_DST_PORT, none = 0;
		begin(&w, GET, NLM_F_DUMP, family);
		/* the kernel need not write out the others */
		uint32_t tuple = nest(&w, CTA_TUPLE_ORIG), proto = nest(&w, CTA_TUPLE_PROTO);
		put_attribute(&w, CTA_PROTO_NUM, &s->protocol, 1);
		put_attribute(&w, CTA_PROTO_DST_PORT, &s->port, 2);
		nest_end(&w, proto);
		nest_end(&w, tuple);
		uint32_t filter = nest(&w, CTA_FILTER);
		put_attribute(&w, CTA_FILTER_ORIG_FLAGS, &flags, 4);
		put_attribute(&w, CTA_FILTER_REPLY_FLAGS, &none, 4);
		nest_end(&w, filter);
		int more = send_message(fd, &w);
		again = false;
		if (!more)
			do more = read_piece(s, fd, buffer, &again);
			while (more > 0 && clock_ms() < until);
		if (more)
			return more < 0 ? more : -ETIMEDOUT;
	} while (again && clock_ms() < until);
	return 0;
}

int do_forget_flows(struct machine *m, const struct op_forget_flows *o)
{
	struct search s = { .protocol = (uint8_t)o->protocol, .port = htons((uint16_t)o->port), .address = o->address };
	if (o->protocol > 255 || o->port > 65535 || (o->address.n && o->address.n != 4 && o->address.n != 16))
		return machine_fail(m, EINVAL, "not an address with a port and a protocol");
	AUTO_CLOSE int fd = netlink_socket(m, NETLINK_NETFILTER, NO_REGISTER);
	AUTO_CLOSE int deleting = fd < 0 ? -1 : netlink_socket(m, NETLINK_NETFILTER, NO_REGISTER);
	if (fd < 0 || deleting < 0) /* a kernel without netfilter */
		return fd == -EPROTONOSUPPORT ? 0 : fd < 0 ? fd : deleting;
	AUTO_FREE uint8_t *buffer = malloc(ANSWER);
	if (!buffer)
		return -ENOMEM;
	int one = 1;
	struct timeval patience = { PATIENCE_MS / 1000, 0 };
	setsockopt(deleting, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	s.deleting = deleting;
	int failed = 0;
	for (int i = 0; i < 2 && !failed; i++)
		if (!s.address.n || s.address.n == (i ? 16 : 4))
			failed = forget_family(&s, fd, i ? AF_INET6 : AF_INET, buffer);
	/* EINVAL: nfnetlink knows no conntrack */
	return failed == -EINVAL || failed == -EOPNOTSUPP ? 0 : failed;
}
