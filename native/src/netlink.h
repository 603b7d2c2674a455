/* Shared by the operations that speak netlink. */
#ifndef ENGINE_NETLINK_H
#define ENGINE_NETLINK_H
#include "ops.h"
#include <linux/netlink.h>
#include <sys/socket.h>

/* A socket in the own net namespace, or in that of register `namespace`. fd or -errno. */
int netlink_socket(struct machine *m, uint32_t protocol, uint32_t namespace);
#endif
