/*
 * ssh_wire.h - the socket under an ssh session, between libssh2 and the kernel.
 *
 * libssh2 gives up a connection when a packet that could not be sent whole is not tried again with
 * the very same bytes.  So the wire takes every packet at once and keeps what the kernel does not
 * take yet; who writes asks wire_pending first.  Reading is rationed, so that one session cannot
 * hold the loop.
 */
#ifndef RUNBOOK_SSH_WIRE_H
#define RUNBOOK_SSH_WIRE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libssh2.h>

#include "bytes.h"

#define WIRE_EAGER_READS 10

struct wire {
	void *owner;		/* for callbacks of libssh2, which are given the wire */
	atomic_bool unwanted;	/* a thread that waits gives up as soon as nothing comes any more */
	int fd;			/* -1: nothing comes and nothing goes any more */
	bool patient;		/* the end of input is kept in `ended`, libssh2 is told "later" */
	bool dry;		/* nothing more in this turn */
	bool ended;
	int error;		/* errno of what broke it, or 0 */
	size_t ration;		/* bytes that may still be read in this turn */
	int eager;		/* reads for which to ask the kernel for quick acknowledgements */
	uint64_t received;
	struct bytes out;
	char reason[256];	/* what the server said when it hung up */
};

/* The descriptor is the wire's.  NULL: out of memory, and it stays the caller's. */
struct wire *wire_new(int fd);
void wire_free(struct wire *w);
void wire_shut(struct wire *w);		/* closes the descriptor now */

/* A libssh2 session whose bytes take this wire. */
LIBSSH2_SESSION *wire_session(struct wire *w);

/* Sends what is kept; 0, or -1 when the wire is broken. */
int wire_flush(struct wire *w);
size_t wire_pending(const struct wire *w);

/* For threads: waits until libssh2 may get on.  0, ETIMEDOUT, ECANCELED, or what broke the wire. */
int wire_wait(struct wire *w, uint64_t deadline_ms);
uint64_t wire_now_ms(void);

#endif
