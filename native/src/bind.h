/* How a port is taken, the same for the shim and for who asks whether one is free. */
#ifndef ENGINE_BIND_H
#define ENGINE_BIND_H
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BIND_BACKLOG 512

/* The address in `s`, from 4 or 16 bytes. */
static inline socklen_t bind_address(struct sockaddr_storage *s, const uint8_t *address, uint32_t length, uint32_t port) {
	memset(s, 0, sizeof *s);
	if (length == 4) {
		struct sockaddr_in *in = (struct sockaddr_in *)s;
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		memcpy(&in->sin_addr, address, 4);
		return sizeof *in;
	}
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)s;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons((uint16_t)port);
	memcpy(&in6->sin6_addr, address, 16);
	return sizeof *in6;
}

/*
 * A socket that holds the port: nobody else can listen there, while connections of an earlier owner that have not quite ended do not count. A datagram socket
 * must do without SO_REUSEADDR for that, the others have to listen. fd, close-on-exec and not blocking, or -errno.
 */
static inline int bind_port(uint32_t protocol, const uint8_t *address, uint32_t length, uint32_t port) {
	if ((protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_SCTP) || (length != 4 && length != 16) || !port || port > 65535) return -EINVAL;
	int type = protocol == IPPROTO_UDP ? SOCK_DGRAM : SOCK_STREAM, one = 1;
	int fd = socket(length == 4 ? AF_INET : AF_INET6, type | SOCK_CLOEXEC | SOCK_NONBLOCK, (int)protocol);
	if (fd < 0) return -errno;
	struct sockaddr_storage s;
	socklen_t size = bind_address(&s, address, length, port);
	if ((type == SOCK_STREAM && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one)) ||
	    (length == 16 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one)) || bind(fd, (struct sockaddr *)&s, size) ||
	    (type == SOCK_STREAM && listen(fd, BIND_BACKLOG))) {
		int error = errno;
		close(fd);
		return -error;
	}
	return fd;
}

/* There are no such sockets in this kernel (SCTP or IPv6 is not there): nobody holds a port of that kind, nor could anybody reach it by one. */
static inline int bind_impossible(int error) { return error == EPROTONOSUPPORT || error == ESOCKTNOSUPPORT || error == EAFNOSUPPORT; }
#endif
