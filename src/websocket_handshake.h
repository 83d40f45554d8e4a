/*
 * websocket_handshake.h - the HTTP request that asks for a websocket, and the answer to it.  Only bytes: no sockets, no loop.
 */
#ifndef RUNBOOK_WEBSOCKET_HANDSHAKE_H
#define RUNBOOK_WEBSOCKET_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>

#include "bytes.h"

#define HANDSHAKE_BODY_MAX ((size_t)64 << 10)	/* of an answer that refuses; the rest is not read */

enum handshake_answer {
	HANDSHAKE_MORE,		/* it is not all there yet */
	HANDSHAKE_AGREED,	/* the head is used up: what is left in the buffer are frames */
	HANDSHAKE_REFUSED,	/* another status than 101; its body is there, as far as it is kept */
	HANDSHAKE_WRONG		/* no answer to what we asked; `problem` says why */
};

struct handshake {
	char key[25], accept[29];	/* what we say, and what must come back */
	char *protocols;		/* offered, a comma and a space between; NULL: none */
	long status;
	char *protocol;			/* the one the server took; NULL: none */
	char *head;			/* "Name: value\r\n"... */
	size_t head_length;
	struct bytes body;
	const char *problem;
	bool head_read, chunked;
	long long body_expected;	/* -1: until the end */
};

/* url: "https://host:port/path?query"; headers: "Name: value", NULL at the end.  False: no such URL, or out of memory. */
bool handshake_init(struct handshake *h, const char *url, const char *const *headers, const char *const *protocols,
                    struct bytes *request);
void handshake_fini(struct handshake *h);

/* Takes from `in` what belongs to the answer.  ended: nothing more will come. */
enum handshake_answer handshake_read(struct handshake *h, struct bytes *in, bool ended);

#endif
