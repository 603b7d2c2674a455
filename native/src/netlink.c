/* One batch of netlink messages, with extended acknowledgements. */
#include "netlink.h"
#include <sched.h>

#define BATCH_BUFFER (4 << 20)

/* Messages of the batch that want an answer; -EINVAL when one does not fit. */
static int count_acks(struct bytes batch, uint32_t protocol)
{
	int acks = 0;
	uint32_t at = 0;
	while (at < batch.n) {
		struct nlmsghdr h;
		if (batch.n - at < sizeof h)
			return -EINVAL;
		memcpy(&h, batch.p + at, sizeof h);
		if (h.nlmsg_len < sizeof h || h.nlmsg_len > batch.n - at)
			return -EINVAL;
		/* nftables' batch begin (0x10) and end (0x11) are acknowledged since Linux 6.10 only */
		if (protocol != NETLINK_NETFILTER || (h.nlmsg_type != 0x10 && h.nlmsg_type != 0x11))
			acks += !!(h.nlmsg_flags & NLM_F_ACK);
		uint32_t step = NLMSG_ALIGN(h.nlmsg_len);
		at = step > batch.n - at ? batch.n : at + step;
	}
	return acks;
}

/* The text of an extended acknowledgement, or "". */
static void extended_text(const uint8_t *message, uint32_t length, char out[256])
{
	struct nlmsghdr h;
	memcpy(&h, message, sizeof h);
	out[0] = 0;
	if (!(h.nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	uint32_t at = sizeof h + sizeof(struct nlmsgerr);
	if (!(h.nlmsg_flags & NLM_F_CAPPED) && length >= at) {
		struct nlmsghdr inner;
		memcpy(&inner, message + sizeof h + 4, sizeof inner);
		if (inner.nlmsg_len < sizeof inner || inner.nlmsg_len > length)
			return;
		at += NLMSG_ALIGN(inner.nlmsg_len) - (uint32_t)sizeof inner;
	}
	while (at + 4 <= length) {
		struct nlattr a;
		memcpy(&a, message + at, sizeof a);
		if (a.nla_len < 4 || a.nla_len > length - at)
			return;
		if ((a.nla_type & NLA_TYPE_MASK) == NLMSGERR_ATTR_MSG) {
			snprintf(out, 256, "%.*s", (int)(a.nla_len - 4), (const char *)message + at + 4);
			return;
		}
		at += NLMSG_ALIGN(a.nla_len);
	}
}

static int is_fine(const struct machine *m, int error)
{
	if (m->flags & OP_FLAG_OK_MISSING && (error == ENOENT || error == ENODEV || error == ESRCH || error == EADDRNOTAVAIL))
		return 1;
	return m->flags & OP_FLAG_OK_EXISTS && error == EEXIST;
}

/* Netlink answers in the sender's own context: when send returns, all answers are in the socket. */
static int collect(struct machine *m, int fd, int expected)
{
	uint8_t *buffer = malloc(65536);
	int first = 0, answers = 0;
	if (!buffer)
		return -ENOMEM;
	for (;;) {
		ssize_t n = recv(fd, buffer, 65536, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			if (n < 0 && errno != EAGAIN && !first)
				first = -errno;
			break;
		}
		for (uint32_t at = 0; (size_t)n - at >= sizeof(struct nlmsghdr);) {
			struct nlmsghdr h;
			memcpy(&h, buffer + at, sizeof h);
			if (h.nlmsg_len < sizeof h || h.nlmsg_len > (size_t)n - at)
				break;
			if (h.nlmsg_type == NLMSG_ERROR && h.nlmsg_len >= sizeof h + 4) {
				int32_t error;
				memcpy(&error, buffer + at + sizeof h, 4);
				answers++;
				if (error && !first && !is_fine(m, -error)) {
					char text[256];
					extended_text(buffer + at, h.nlmsg_len, text);
					first = machine_fail(m, -error, "netlink message %u%s%s", h.nlmsg_seq, text[0] ? ": " : "", text);
				}
			}
			uint32_t step = NLMSG_ALIGN(h.nlmsg_len);
			if (step > (size_t)n - at)
				break;
			at += step;
		}
	}
	free(buffer);
	if (!first && answers < expected)
		return machine_fail(m, EPROTO, "%d of %d netlink messages were acknowledged", answers, expected);
	return first;
}

int netlink_socket(struct machine *m, uint32_t protocol, uint32_t namespace)
{
	int target = register_fd_or(m, namespace, -1);
	if (namespace == NO_REGISTER) {
		int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, (int)protocol);
		return fd < 0 ? -errno : fd;
	}
	if (target < 0)
		return target;
	AUTO_CLOSE int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (own < 0 || syscall(SYS_setns, target, CLONE_NEWNET))
		return -errno;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, (int)protocol), error = errno;
	if (syscall(SYS_setns, own, CLONE_NEWNET)) {
		/* nothing more may run in a namespace that is not ours */
		machine_fail(m, errno, "cannot return to the own net namespace");
		abort();
	}
	return fd < 0 ? -error : fd;
}

static int send_batch(struct machine *m, uint32_t protocol, uint32_t namespace, struct bytes batch)
{
	int expected = count_acks(batch, protocol);
	if (expected < 0)
		return machine_fail(m, EINVAL, "damaged netlink batch");
	AUTO_CLOSE int fd = netlink_socket(m, protocol, namespace);
	if (fd < 0)
		return fd;
	int one = 1, size = BATCH_BUFFER;
	struct timeval patience = { 5, 0 };
	setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof one);
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	if (batch.n > 65536) {
		setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
		setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	}
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	ssize_t n = sendto(fd, batch.p, batch.n, 0, (struct sockaddr *)&kernel, sizeof kernel);
	if (n < 0)
		return machine_fail(m, errno, "cannot send %u bytes of netlink messages", batch.n);
	return collect(m, fd, expected);
}

int do_netlink(struct machine *m, const struct op_netlink *o)
{
	return send_batch(m, o->protocol, o->namespace, o->messages);
}

/* What a register is for a message: a pid, an index, or the number of an open fd. 0 or -errno. */
static int patch_value(struct machine *m, uint32_t r, uint32_t *out)
{
	int64_t value = 0;
	bool is_fd = r < MAX_REGISTERS && m->registers[r].kind == REGISTER_FD;
	int failed = is_fd ? 0 : register_number(m, r, &value);
	if (failed)
		return failed;
	if (is_fd)
		value = m->registers[r].value;
	if (value < 0 || value > UINT32_MAX)
		return machine_fail(m, ERANGE, "register %u does not fit a netlink attribute", r);
	*out = (uint32_t)value;
	return 0;
}

int do_netlink_with(struct machine *m, const struct op_netlink_with *o)
{
	uint32_t value = 0, at;
	int failed = patch_value(m, o->patch, &value);
	if (failed)
		return failed;
	if (o->patch_at.n % 4)
		return machine_fail(m, EINVAL, "damaged list of offsets");
	AUTO_FREE uint8_t *copy = malloc(o->messages.n ? o->messages.n : 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, o->messages.p, o->messages.n);
	for (uint32_t i = 0; i < o->patch_at.n; i += 4) {
		memcpy(&at, o->patch_at.p + i, 4);
		if (o->messages.n < 4 || at > o->messages.n - 4)
			return machine_fail(m, EINVAL, "offset %u lies outside the messages", at);
		memcpy(copy + at, &value, 4);
	}
	return send_batch(m, o->protocol, o->namespace, (struct bytes){ copy, o->messages.n });
}
