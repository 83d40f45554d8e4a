/* websocket_stream.c - the streams of a websocket: they move bytes to and from its buffers, no further. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "websocket_connection.h"

#define PIECE ((size_t)1 << 20)		/* whose length is said in front */

static bool
is_over(const struct websocket *ws)
{
	return ws->state == WEBSOCKET_ENDED;
}

static bool
readable(const struct websocket_end *e)
{
	return !e->reads || e->input.ended || is_over(e->ws) || websocket_input_length(&e->input, false) > 0;
}

static bool
writable(const struct websocket_end *e)
{
	return !e->writes || e->ended || is_over(e->ws) || websocket_wire_unsent(e->ws->wire) < WEBSOCKET_BUFFER;
}

/* Why the connection is over, for who wanted more of it. */
static ssize_t
fail_over(struct websocket_end *e, const char *otherwise)
{
	const struct websocket_failure *f = websocket_wire_failure(e->ws->wire);

	if (f->code != NULL)
		return stream_fail(&e->base, f->code, "websocket: %s", f->message);
	return stream_fail(&e->base, "ELOST", "websocket: %s", otherwise);
}

static ssize_t
end_read(struct stream *base, void *buffer, size_t length)
{
	struct websocket_end *e = (struct websocket_end *)base;
	size_t n;

	if (!e->reads)
		return STREAM_END;
	n = websocket_input_length(&e->input, is_over(e->ws));
	if (n > 0) {
		if (n > length)
			n = length;
		memcpy(buffer, bytes_first(&e->input.in), n);
		websocket_input_used(&e->input, n);
		if (e->ws->full)
			websocket_kick(e->ws);
		return (ssize_t)n;
	}
	if (e->input.ended)
		return STREAM_END;
	if (!is_over(e->ws))
		return STREAM_AGAIN;
	if (e->input.mark_length > 0 || websocket_wire_failure(e->ws->wire)->code != NULL)
		return fail_over(e, "it was closed before all had come");
	return STREAM_END;
}

/* One message's worth.  Returns how much of it was taken; 0: there is no memory for it. */
static size_t
put(struct websocket_end *e, const char *data, size_t length)
{
	char head[32];
	size_t n = 0, size = length < WEBSOCKET_MESSAGE ? length : WEBSOCKET_MESSAGE;

	if (e->ws->channels)
		head[n++] = (char)e->channel;
	if (e->sized && e->piece_left == 0) {
		e->piece_left = length < PIECE ? length : PIECE;
		n += (size_t)snprintf(head + n, sizeof head - n, "%zu\n", e->piece_left);
	}
	if (e->sized && size > e->piece_left)
		size = e->piece_left;
	if (!websocket_wire_put(e->ws->wire, head, n, data, size))
		return 0;
	if (e->sized)
		e->piece_left -= size;
	return size;
}

static ssize_t
end_write(struct stream *base, const void *buffer, size_t length)
{
	struct websocket_end *e = (struct websocket_end *)base;
	size_t taken = 0, n;

	if (!e->writes || e->ended)
		return stream_fail(base, "EPIPE", "websocket: write after half-close");
	if (is_over(e->ws))
		return fail_over(e, "it was closed");
	if (length == 0)
		return 0;
	if (websocket_wire_unsent(e->ws->wire) >= WEBSOCKET_BUFFER)
		return STREAM_AGAIN;
	while (taken < length && websocket_wire_unsent(e->ws->wire) < WEBSOCKET_BUFFER) {
		n = put(e, (const char *)buffer + taken, length - taken);
		if (n == 0)
			return stream_fail(base, "EPIPE", "websocket: it is being closed");
		taken += n;
	}
	e->ws->spoke = true;
	websocket_kick(e->ws);
	return (ssize_t)taken;
}

static int
end_half_close(struct stream *base)
{
	struct websocket_end *e = (struct websocket_end *)base;

	if (!e->writes || e->ended || is_over(e->ws))
		return 0;
	e->ended = true;
	if (!websocket_wire_put(e->ws->wire, e->end, e->end_length, NULL, 0))
		return (int)stream_fail(base, "EPIPE", "websocket: it is being closed");
	e->ws->spoke = true;
	websocket_kick(e->ws);
	return 0;
}

static void
end_when(struct stream *base, enum stream_direction d, void (*ready)(void *arg), void *arg)
{
	struct websocket_end *e = (struct websocket_end *)base;

	e->waiting[d] = (struct websocket_waiter){ ready, arg, e->ws->turns };
	if (ready != NULL && (d == STREAM_READ ? readable(e) : writable(e)))
		websocket_kick(e->ws);
}

/* A piece that was cut must not look whole: then nothing says that it is the end. */
static void
end_close(struct stream *base)
{
	struct websocket_end *e = (struct websocket_end *)base, **link = &e->ws->ends;
	struct websocket *ws = e->ws;
	bool over = e->main;

	if (e->writes && e->end_length > 0 && e->piece_left == 0)
		end_half_close(base);
	while (*link != e)
		link = &(*link)->next;
	*link = e->next;
	websocket_wire_unwant(ws->wire, &e->input);
	bytes_free(&e->input.in);
	free(e);
	websocket_kick(ws);		/* what is not read any more does not hold up the others */
	websocket_drop(ws, over);
}

static const struct stream_ops ops = {
	.kind = "websocket", .read = end_read, .write = end_write, .half_close = end_half_close, .when = end_when,
	.close = end_close,
};

static const struct stream_ops endless_ops = {
	.kind = "websocket", .read = end_read, .write = end_write, .when = end_when, .close = end_close,
};

struct stream *
websocket_stream(struct websocket *ws, const struct websocket_stream_options *o)
{
	struct websocket_end *e = ws->wire == NULL ? NULL : calloc(1, sizeof *e);

	if (e == NULL || o->mark_length > sizeof e->input.mark || o->end_length > sizeof e->end) {
		free(e);
		return NULL;
	}
	e->ws = ws;
	e->base.ops = o->end_length > 0 ? &ops : &endless_ops;
	e->reads = o->read != WEBSOCKET_NONE;
	e->writes = o->write != WEBSOCKET_NONE;
	e->channel = (unsigned char)o->write;
	e->sized = o->sized;
	e->main = o->main;
	e->end_length = o->end_length;
	if (o->end_length > 0)
		memcpy(e->end, o->end, o->end_length);
	e->input.channel = (unsigned char)o->read;
	e->input.mark_length = o->mark_length;
	if (o->mark_length > 0)
		memcpy(e->input.mark, o->mark, o->mark_length);
	if (e->reads)
		websocket_wire_want(ws->wire, &e->input);
	e->next = ws->ends;
	ws->ends = e;
	ws->users++;
	websocket_kick(ws);
	return &e->base;
}

/* Somebody who may get on and was not called in this turn. */
static bool
fire_one(struct websocket *ws)
{
	for (struct websocket_end *e = ws->ends; e != NULL; e = e->next)
		for (int d = STREAM_READ; d <= STREAM_WRITE; d++) {
			struct websocket_waiter w = e->waiting[d];

			if (w.ready == NULL || w.since == ws->turns || !(d == STREAM_READ ? readable(e) : writable(e)))
				continue;
			e->waiting[d] = (struct websocket_waiter){ NULL, NULL, 0 };
			w.ready(w.arg);		/* may close any of them */
			return true;
		}
	return false;
}

void
websocket_fire(struct websocket *ws)
{
	while (fire_one(ws))
		;
}
