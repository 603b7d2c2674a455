/* What tests of networks need at both ends: servers that say who asks, clients that say what became of it. Static, so that it runs in every image and namespace. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; } address;

static int timeout = 2000;

static void die(const char *what) {
  fprintf(stderr, "%s: %s\n", what, strerrorname_np(errno) ? strerrorname_np(errno) : "?");
  exit(1);
}
static socklen_t size_of(const address *a) { return a->any.sa_family == AF_INET ? sizeof a->v4 : sizeof a->v6; }
static address parse(const char *text, int port) {
  address a;
  memset(&a, 0, sizeof a);
  if (inet_pton(AF_INET, text, &a.v4.sin_addr) == 1) {
    a.v4.sin_family = AF_INET;
    a.v4.sin_port = htons(port);
  } else if (inet_pton(AF_INET6, text, &a.v6.sin6_addr) == 1) {
    a.v6.sin6_family = AF_INET6;
    a.v6.sin6_port = htons(port);
  } else {
    fprintf(stderr, "no address: %s\n", text);
    exit(2);
  }
  return a;
}
static int port_of(const address *a) { return ntohs(a->any.sa_family == AF_INET ? a->v4.sin_port : a->v6.sin6_port); }
static const char *show(const address *a) {
  static char text[2][INET6_ADDRSTRLEN];
  static int turn;
  char *to = text[turn ^= 1];
  if (a->any.sa_family == AF_INET) inet_ntop(AF_INET, &a->v4.sin_addr, to, INET6_ADDRSTRLEN);
  else if (IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr)) inet_ntop(AF_INET, (char *)&a->v6.sin6_addr + 12, to, INET6_ADDRSTRLEN);
  else inet_ntop(AF_INET6, &a->v6.sin6_addr, to, INET6_ADDRSTRLEN);
  return to;
}

/* "CLIENT PORT LOCAL LOCALPORT NAME" */
static int who(char *to, size_t size, const address *from, const address *local, int port) {
  char name[64] = "";
  const char *given = getenv("NAME");
  gethostname(name, sizeof name - 1);
  return snprintf(to, size, "%s %d %s %d %s\n", show(from), port_of(from), show(local), port, given ? given : name);
}

/* tcp/80 udp/53 tcp/80@127.0.0.1: one socket each, both families unless an address is named. */
static int serve(int count, char **specs) {
  struct pollfd polls[256];
  int ports[256], tcp[256];
  signal(SIGCHLD, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  if (count > 256) return 2;
  for (int i = 0; i < count; i++) {
    char protocol[8] = "", at[64] = "";
    if (sscanf(specs[i], "%7[^/]/%d@%63s", protocol, &ports[i], at) < 2) return 2;
    tcp[i] = !strcmp(protocol, "tcp");
    address a = parse(*at ? at : "::", ports[i]);
    int fd = socket(a.any.sa_family, (tcp[i] ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0), one = 1, zero = 0;
    if (fd < 0 && !*at) {
      a = parse("0.0.0.0", ports[i]);
      fd = socket(AF_INET, (tcp[i] ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
    }
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (a.any.sa_family == AF_INET6 && !*at) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    if (bind(fd, &a.any, size_of(&a)) < 0) die("bind");
    if (tcp[i] && listen(fd, 128) < 0) die("listen");
    polls[i] = (struct pollfd){.fd = fd, .events = POLLIN};
  }
  if (write(1, "ready\n", 6) != 6) return 1;
  for (;;) {
    if (poll(polls, count, -1) < 0) continue;
    for (int i = 0; i < count; i++) {
      if (!(polls[i].revents & POLLIN)) continue;
      address from, local;
      socklen_t size = sizeof from, local_size = sizeof local;
      char line[4096];
      memset(&local, 0, sizeof local);
      if (tcp[i]) {
        int fd = accept(polls[i].fd, &from.any, &size);
        if (fd < 0) continue;
        if (fork()) {
          close(fd);
          continue;
        }
        getsockname(fd, &local.any, &local_size);
        int n = who(line, sizeof line, &from, &local, ports[i]);
        if (write(fd, line, n) != n) _exit(1);
        ssize_t got;
        while ((got = read(fd, line, sizeof line)) > 0 && write(fd, line, got) == got) {}
        _exit(0);
      }
      char data[2048];
      ssize_t got = recvfrom(polls[i].fd, data, sizeof data, 0, &from.any, &size);
      if (got < 0) continue;
      getsockname(polls[i].fd, &local.any, &local_size);
      int n = who(line, sizeof line, &from, &local, ports[i]);
      memcpy(line + n, data, got);
      sendto(polls[i].fd, line, n + got, 0, &from.any, size);
    }
  }
}

static int connected(int type, const char *source, address to) {
  int fd = socket(to.any.sa_family, type | SOCK_CLOEXEC, 0), one = 1;
  struct timeval limit = {timeout / 1000, timeout % 1000 * 1000};
  if (fd < 0) die("socket");
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (source) {
    char host[64];
    int port = 0;
    if (sscanf(source, "%63[^,],%d", host, &port) < 1) exit(2);
    address from = parse(host, port);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, &from.any, size_of(&from)) < 0) die("bind");
  }
  if (connect(fd, &to.any, size_of(&to)) < 0) {
    if (errno == EINPROGRESS || errno == EAGAIN) errno = ETIMEDOUT;
    die("connect");
  }
  if (type == SOCK_STREAM) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}
/* One line; 0 at the end. */
static ssize_t line_from(int fd, char *to, size_t size) {
  size_t n = 0;
  while (n < size - 1) {
    ssize_t got = read(fd, to + n, 1);
    if (got < 0) {
      if (errno == EAGAIN) errno = ETIMEDOUT;
      die("read");
    }
    if (got == 0) break;
    if (to[n++] == '\n') break;
  }
  to[n] = 0;
  return n;
}

static int call(int tcp, const char *source, address to, const char *text) {
  char line[4096];
  int fd = connected(tcp ? SOCK_STREAM : SOCK_DGRAM, source, to);
  if (!tcp) {
    if (!text) text = "";
    if (send(fd, text, strlen(text), 0) < 0) die("send");
    ssize_t got = recv(fd, line, sizeof line, 0);
    if (got < 0) {
      if (errno == EAGAIN) errno = ETIMEDOUT;
      die("recv");
    }
    return write(1, line, got) == got ? 0 : 1;
  }
  ssize_t got = line_from(fd, line, sizeof line);
  if (got == 0) {
    fprintf(stderr, "read: closed\n");
    return 1;
  }
  if (write(1, line, got) != got) return 1;
  if (text) {
    dprintf(fd, "%s\n", text);
    got = line_from(fd, line, sizeof line);
    if (write(1, line, got) != got) return 1;
  }
  return 0;
}
/* Each line of standard input goes there; what comes back is printed. */
static int hold(const char *source, address to) {
  char line[4096];
  int fd = connected(SOCK_STREAM, source, to);
  ssize_t got = line_from(fd, line, sizeof line);
  if (write(1, line, got) != got) return 1;
  while ((got = line_from(0, line, sizeof line)) > 0) {
    if (send(fd, line, got, MSG_NOSIGNAL) != got) die("send");
    got = line_from(fd, line, sizeof line);
    if (got == 0) {
      fprintf(stderr, "read: closed\n");
      return 1;
    }
    if (write(1, line, got) != got) return 1;
  }
  return 0;
}

/* SCTP by raw packets, for kernels that know how to translate it and have no sockets for it. */
static uint32_t crc32c(const uint8_t *data, size_t size) {
  uint32_t crc = ~0u;
  while (size--) {
    crc ^= *data++;
    for (int i = 0; i < 8; i++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
  }
  return ~crc;
}
struct sctp { uint16_t from, to; uint32_t tag, sum; uint8_t type, flags; uint16_t size; uint32_t initiate, window; uint16_t out, in; uint32_t tsn; } __attribute__((packed));
static void sctp_send(int fd, address to, int from_port, int to_port, uint32_t tag, int type) {
  struct sctp packet = {htons(from_port), htons(to_port), htonl(tag), 0, type, 0, htons(20), htonl(0x1234), htonl(65536), htons(1), htons(1), htonl(1)};
  packet.sum = crc32c((uint8_t *)&packet, sizeof packet); // as it is in memory, which is the order of the wire here
  if (to.any.sa_family == AF_INET) to.v4.sin_port = 0;
  else to.v6.sin6_port = 0;
  if (sendto(fd, &packet, sizeof packet, 0, &to.any, size_of(&to)) < 0) die("sendto");
}
/* The next packet for this port: its type; -1 when none comes in time. */
static int sctp_receive(int fd, int port, address *from, int *from_port, uint32_t *tag) {
  for (;;) {
    uint8_t data[2048];
    socklen_t size = sizeof *from;
    ssize_t got = recvfrom(fd, data, sizeof data, 0, &from->any, &size);
    if (got < 0) return -1;
    size_t skip = from->any.sa_family == AF_INET ? (data[0] & 15) * 4 : 0;
    if ((size_t)got < skip + 16) continue;
    struct sctp *packet = (struct sctp *)(data + skip);
    if (ntohs(packet->to) != port) continue;
    *from_port = ntohs(packet->from);
    *tag = ntohl(packet->initiate);
    return packet->type;
  }
}
static int sctp_call(address to, int port) {
  int fd = socket(to.any.sa_family, SOCK_RAW, 132), from_port, type;
  struct timeval limit = {timeout / 1000, timeout % 1000 * 1000};
  address from;
  uint32_t tag;
  if (fd < 0) die("socket");
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  sctp_send(fd, to, 40000, port, 0, 1);
  do type = sctp_receive(fd, 40000, &from, &from_port, &tag);
  while (type == 1); // our own, on lo
  if (type < 0) {
    errno = ETIMEDOUT;
    die("recv");
  }
  printf("%s %d chunk %d\n", show(&from), from_port, type);
  return 0;
}
static int sctp_serve(int port) {
  int fd = socket(AF_INET, SOCK_RAW, 132), from_port;
  address from;
  uint32_t tag;
  if (fd < 0) die("socket");
  if (write(1, "ready\n", 6) != 6) return 1;
  for (;;) {
    if (sctp_receive(fd, port, &from, &from_port, &tag) != 1) continue;
    printf("INIT from %s %d\n", show(&from), from_port);
    fflush(stdout);
    sctp_send(fd, from, port, from_port, tag, 2);
  }
}

static const char usage[] = "net serve tcp/PORT[@ADDRESS] udp/PORT... | net call [-t MS] [-s SOURCE[,PORT]] tcp|udp ADDRESS PORT [TEXT] | net hold [-s SOURCE] ADDRESS PORT | net sctp ADDRESS PORT | net sctp-serve PORT\n";

int main(int argc, char **argv) {
  const char *source = NULL, *verb = argc > 1 ? argv[1] : "";
  int at = 2;
  for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
    if (argv[at][1] == 's') source = argv[at + 1];
    else if (argv[at][1] == 't') timeout = atoi(argv[at + 1]);
  }
  int left = argc - at;
  if (!strcmp(verb, "serve") && left > 0) return serve(left, argv + at);
  if (!strcmp(verb, "call") && left >= 3) return call(!strcmp(argv[at], "tcp"), source, parse(argv[at + 1], atoi(argv[at + 2])), left > 3 ? argv[at + 3] : NULL);
  if (!strcmp(verb, "hold") && left == 2) return hold(source, parse(argv[at], atoi(argv[at + 1])));
  if (!strcmp(verb, "sctp") && left == 2) return sctp_call(parse(argv[at], atoi(argv[at + 1])), atoi(argv[at + 1]));
  if (!strcmp(verb, "sctp-serve") && left == 1) return sctp_serve(atoi(argv[at]));
  fputs(usage, stderr);
  return 2;
}
