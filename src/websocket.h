/*
 * websocket.h - websockets on the event loop, over libcurl (the way there, TLS) and libwslay (frames).  Knows nothing of Lua.
 *
 * What a websocket carries are streams: one of plain bytes, or several, told apart by the first byte of each message.
 */
#ifndef RUNBOOK_WEBSOCKET_H
#define RUNBOOK_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

#include "http.h"
#include "stream.h"

struct websocket;

struct websocket_options {	/* all is copied */
	struct http_options http;	/* url (http or https), headers, connect_timeout (of all until the answer), and the way there */
	const char *const *protocols;	/* subprotocols we offer, best first, NULL at the end; NULL: none */
	bool channels;			/* the first byte of a message is its channel */
	double keepalive;		/* seconds between pings; 0: none */
};

struct websocket_answer {
	const char *code;		/* "ECONNREFUSED", "ETLS", "EREFUSED" (see status)...; NULL when it is open */
	char message[320];
	long status;			/* of HTTP; 0: there was no answer */
	const char *protocol;		/* the one that was taken; NULL: none */
	const char *headers;		/* "Name: value\r\n"... */
	size_t headers_length;
	const char *body;		/* of an answer that refuses, at most 64 KiB */
	size_t body_length;
};

/*
 * Calls done(arg) once, from the loop.  NULL: out of memory, or an option that cannot be.
 * h must have no limit of connections to one server: each lasts as long as its websocket.
 */
struct websocket *websocket_start(uv_loop_t *loop, struct http *h, const struct websocket_options *o,
                                  void (*done)(void *arg), void *arg);
const struct websocket_answer *websocket_answer(const struct websocket *ws);

/* Gives the websocket up; streams of it live on.  With the last of them it is closed, and what was written is sent first. */
void websocket_release(struct websocket *ws);

#define WEBSOCKET_NONE (-1)

struct websocket_stream_options {
	int read, write;		/* channels, any number without channels; WEBSOCKET_NONE: that way nothing goes */
	const char *mark;		/* bytes that end what is read; at most 64, none: the connection's end does */
	size_t mark_length;
	const char *end;		/* the message that says that no more will be written; NULL: there is none */
	size_t end_length;
	bool sized;			/* before what is written go pieces' lengths: "262144\n" */
	bool main;			/* when it is closed, all is over: the others read what has come, and its end */
};

/*
 * A stream of an open websocket.  All are to be made before the loop runs again: what comes for a channel that has no
 * reader is thrown away.  A second reader of a channel gets what follows the mark of the first.  NULL: out of memory.
 */
struct stream *websocket_stream(struct websocket *ws, const struct websocket_stream_options *o);

/* How the peer closed: its code (1005: it gave none) and reason; 0: it has not. */
unsigned websocket_closed(const struct websocket *ws, const char **reason);

#endif
