/* The index of a link, by its name. */
#include "netlink.h"
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#ifndef RTEXT_FILTER_SKIP_STATS
#define RTEXT_FILTER_SKIP_STATS (1 << 3)
#endif

struct request {
	struct nlmsghdr head;
	struct ifinfomsg link;
	struct { struct nlattr head; uint32_t value; } mask;
	struct { struct nlattr head; char value[IFNAMSIZ]; } name;
};

int do_link_index(struct machine *m, const struct op_link_index *o)
{
	struct request q = {
		.head = { .nlmsg_len = sizeof q, .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST },
		.mask = { { sizeof q.mask, IFLA_EXT_MASK }, RTEXT_FILTER_SKIP_STATS },
		.name = { .head = { .nla_type = IFLA_IFNAME } },
	};
	/* of a link's description only the beginning is of interest: what does not fit is cut off */
	struct { struct nlmsghdr head; union { struct ifinfomsg link; struct nlmsgerr error; }; } answer;
	if (!o->name.n || o->name.n >= IFNAMSIZ)
		return machine_fail(m, EINVAL, "not a link's name: %.40s", o->name.p);
	memcpy(q.name.value, o->name.p, o->name.n);
	q.name.head.nla_len = (uint16_t)(sizeof q.name.head + o->name.n + 1);
	AUTO_CLOSE int fd = netlink_socket(m, NETLINK_ROUTE, o->namespace);
	if (fd < 0)
		return fd;
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	if (sendto(fd, &q, sizeof q, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0)
		return -errno;
	ssize_t n;
	while ((n = recv(fd, &answer, sizeof answer, MSG_DONTWAIT)) < 0 && errno == EINTR)
		;
	if (n < 0)
		return -errno;
	if ((size_t)n >= sizeof answer.head + sizeof(int) && answer.head.nlmsg_type == NLMSG_ERROR && answer.error.error)
		return machine_fail(m, -answer.error.error, "link %.15s", o->name.p);
	if ((size_t)n < sizeof answer.head + sizeof answer.link || answer.head.nlmsg_type != RTM_NEWLINK || answer.link.ifi_index <= 0)
		return machine_fail(m, EPROTO, "link %.15s: no answer", o->name.p);
	register_set_number(m, o->out, REGISTER_NUMBER, answer.link.ifi_index);
	return 0;
}
