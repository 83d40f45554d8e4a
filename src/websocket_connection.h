/* websocket_connection.h - what a websocket and its streams share; nobody else includes it. */
#ifndef RUNBOOK_WEBSOCKET_CONNECTION_H
#define RUNBOOK_WEBSOCKET_CONNECTION_H

#include "bytes.h"
#include "http_multi.h"
#include "websocket.h"
#include "websocket_handshake.h"
#include "websocket_wire.h"

enum websocket_state {
	WEBSOCKET_CONNECTING,	/* libcurl is on its way to the server */
	WEBSOCKET_ASKING,	/* our request and its answer */
	WEBSOCKET_OPEN,
	WEBSOCKET_ENDED		/* nothing is read or written any more */
};

struct websocket_waiter {
	void (*ready)(void *arg);
	void *arg;
	unsigned long since;	/* called in a later turn than this */
};

struct websocket_end {
	struct stream base;
	struct websocket *ws;
	struct websocket_end *next;
	struct websocket_input input;
	bool reads, writes, sized, main, ended;
	unsigned char channel;		/* written to */
	size_t piece_left;		/* of a piece whose length was said */
	char end[64];
	size_t end_length;
	struct websocket_waiter waiting[2];
};

struct websocket {
	struct http_transfer transfer;	/* first */
	uv_loop_t *loop;
	struct http *http;
	const struct http_curl *curl;
	CURL *easy;
	struct curl_slist *connect_to;
	char error[CURL_ERROR_SIZE];
	bool entered;			/* the handle is on the connections of http */

	enum websocket_state state;
	struct handshake shake;
	struct bytes in;		/* came, and not yet looked at */
	struct bytes request;
	char out[64 * 1024];		/* libcurl must get the same bytes again when it could not take them */
	size_t out_start, out_end;
	struct websocket_wire *wire;
	bool channels, full;
	bool failed;			/* the connection did */

	uv_poll_t poll;
	uv_timer_t clock;
	uv_idle_t kick;
	int handles;			/* of the three, open */
	bool polled;			/* poll was initialised */

	struct websocket_end *ends;
	int users;			/* the owner and the streams */
	bool turning, leaving, lingering, said_goodbye;	/* leaving: nobody wants it; what was written is still sent */
	unsigned long turns;
	double connect_timeout, keepalive;
	unsigned long long heard;	/* bytes, at the last tick of the clock */
	int silent;			/* ticks without a byte */
	bool spoke;			/* messages were sent: a peer that has no room for them does not answer pings */

	struct websocket_answer answer;
	void (*done)(void *arg);	/* NULL once it was called */
	void *arg;
};

/* A turn soon, from the loop. */
void websocket_kick(struct websocket *ws);
/* A user less; over: the connection is to end, though there may be others. */
void websocket_drop(struct websocket *ws, bool over);

/* websocket_stream.c: calls those who wait and may get on. */
void websocket_fire(struct websocket *ws);

#endif
