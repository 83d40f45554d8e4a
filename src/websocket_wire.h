/*
 * websocket_wire.h - the frames of a websocket, over libwslay, and the inputs that their messages fill.
 * No sockets, no loop: bytes are read and written through two functions.
 *
 * A message is bytes of one input.  With channels the first byte of a message says which input; what comes for one that
 * nobody wants is thrown away.  An input may end at a mark: what follows is for the next input of that channel, and one
 * that ends before its mark came was cut.
 */
#ifndef RUNBOOK_WEBSOCKET_WIRE_H
#define RUNBOOK_WEBSOCKET_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "bytes.h"

#define WEBSOCKET_BUFFER   ((size_t)256 << 10)	/* kept unread in an input, and unsent */
#define WEBSOCKET_MESSAGE  ((size_t)32 << 10)	/* bytes of ours in one message: servers have limits */
#define WEBSOCKET_MARK_MAX 64

struct websocket_io {		/* as of a stream: STREAM_END, STREAM_AGAIN, STREAM_FAILED */
	ssize_t (*read)(void *arg, void *buffer, size_t length);
	ssize_t (*write)(void *arg, const void *buffer, size_t length);
};

struct websocket_input {
	struct websocket_input *next;
	unsigned char channel;
	struct bytes in;
	char mark[WEBSOCKET_MARK_MAX];
	size_t mark_length;	/* 0: it ends with the connection */
	size_t searched;	/* of in: no mark begins there */
	bool ended;		/* the mark came; it is in `in` no more */
};

struct websocket_wire;

/* NULL: out of memory. */
struct websocket_wire *websocket_wire_new(const struct websocket_io *io, void *arg, bool channels);
void websocket_wire_free(struct websocket_wire *w);

/* The input belongs to the caller, who takes it away before he frees it. */
void websocket_wire_want(struct websocket_wire *w, struct websocket_input *input);
void websocket_wire_unwant(struct websocket_wire *w, struct websocket_input *input);
/* Bytes that can be read now: what may be the beginning of the mark waits.  over: nothing more comes. */
size_t websocket_input_length(const struct websocket_input *input, bool over);
void websocket_input_used(struct websocket_input *input, size_t count);

enum websocket_in {
	WEBSOCKET_WAIT,		/* read all there is */
	WEBSOCKET_FULL,		/* an input, or what is to be sent: somebody must take bytes first */
	WEBSOCKET_BUSY,		/* enough for one turn */
	WEBSOCKET_OVER		/* nothing will come any more: websocket_wire_failure says why */
};

enum websocket_in websocket_wire_in(struct websocket_wire *w);
/* False: the connection has failed. */
bool websocket_wire_out(struct websocket_wire *w);

/* A message out of two parts.  False: out of memory, or the connection is closing. */
bool websocket_wire_put(struct websocket_wire *w, const void *head, size_t head_length, const void *body, size_t length);
void websocket_wire_ping(struct websocket_wire *w);
void websocket_wire_close(struct websocket_wire *w, unsigned code);

size_t websocket_wire_unsent(const struct websocket_wire *w);
bool websocket_wire_wants_out(const struct websocket_wire *w);
unsigned long long websocket_wire_received(const struct websocket_wire *w);	/* bytes of frames, pongs too */
/* Of the peer's close, 1005 when it gave none; 0: it has not closed. */
unsigned websocket_wire_closed(const struct websocket_wire *w, const char **reason);

struct websocket_failure {
	const char *code;	/* NULL: it was closed well, or still runs */
	char message[160];
};
const struct websocket_failure *websocket_wire_failure(const struct websocket_wire *w);
/* Nothing comes any more, for this reason unless there is an earlier one.  code must be static. */
void websocket_wire_fail(struct websocket_wire *w, const char *code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
