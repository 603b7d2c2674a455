/* What the files of held ports share: ports (the shim's side), relay and relay_datagrams (the processes that pass on what comes). */
#ifndef ENGINE_PORTS_H
#define ENGINE_PORTS_H
#include "bind.h"
#include "process.h"

struct port {
	int fd;
	uint8_t protocol;
	uint8_t to_length; /* 4 or 16; 0 = nobody is behind it */
	uint8_t to[16];
	uint16_t to_port;
	pid_t relay;       /* datagrams: the process that reads them, 0 = none */
};

/* Processes that pass on, per shim; beyond, a connection waits in the backlog. */
#define MAX_RELAYS 1024
/* Clients of one datagram port; beyond, the one that was silent longest is forgotten. */
#define MAX_FLOWS 1024
#define FLOW_IDLE_MS 90000

/* relay.c: move bytes both ways until both sides have ended; the process ends with it. */
void relay_connection(int client, const struct port *p) __attribute__((noreturn));
/* relay_datagrams.c: until nobody has said anything for a while. */
void relay_datagrams(int held, const struct port *p) __attribute__((noreturn));
/* What a connection that cannot be served sees: a reset. Closes it. */
void reset_connection(int fd);
#endif
