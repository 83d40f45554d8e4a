/*
 * listen.h - what others connect to, on the event loop.  Knows nothing of Lua.
 *
 * A socket of this machine (listen.c) or a port of an ssh server (ssh_listen.c); each connection is
 * a stream.
 */
#ifndef RUNBOOK_LISTEN_H
#define RUNBOOK_LISTEN_H

#include <uv.h>

#include "stream.h"

struct listener;

struct listener_ops {
	/*
	 * Calls accepted(arg, s) once, from the loop, with the next connection, which is the callee's
	 * from then on, or with NULL: see code.  One wish at a time; accepted NULL takes it back.
	 */
	void (*accept)(struct listener *l, void (*accepted)(void *arg, struct stream *s), void *arg);
	/* At once; frees l.  accepted is not called any more; what was accepted lives on. */
	void (*close)(struct listener *l);
};

struct listener {
	const struct listener_ops *ops;
	int port;
	const char *code;	/* "EMFILE", which may pass, or "ELOST", which will not; NULL while all is well */
	char message[512];
};

/* Listens on a numeric address of this machine; port 0: one that is free.  NULL: *error is of libuv. */
struct listener *listener_open(uv_loop_t *loop, const char *host, int port, int *error);

#endif
