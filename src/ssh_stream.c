/* ssh_stream.c - the streams of a channel: they move bytes to and from its buffers, no further. */
#include <stdlib.h>
#include <string.h>

#include "ssh_session.h"

static int
output_of(const struct channel_end *e)
{
	return e->which == SSH_STDERR ? 1 : 0;
}

static bool
reads(const struct channel_end *e)
{
	return e->which != SSH_STDIN;
}

static bool
writes(const struct channel_end *e)
{
	return e->which == SSH_STDIN || e->which == SSH_DUPLEX;
}

bool
ssh_end_readable(const struct channel_end *e)
{
	const struct ssh_channel *c = e->c;

	return !reads(e) || bytes_length(&c->in[output_of(e)]) > 0 || c->in_ended || c->code != NULL;
}

bool
ssh_end_writable(const struct channel_end *e)
{
	const struct ssh_channel *c = e->c;

	return !writes(e) || bytes_length(&c->out) < CHANNEL_BUFFER || c->closed || c->code != NULL;
}

static ssize_t
end_read(struct stream *base, void *buffer, size_t length)
{
	struct channel_end *e = (struct channel_end *)base;
	struct ssh_channel *c = e->c;
	struct bytes *in = &c->in[output_of(e)];
	size_t n = bytes_length(in);

	if (!reads(e))
		return STREAM_END;
	if (n > 0) {
		if (n >= CHANNEL_BUFFER)	/* libssh2 may hold more, of which the socket will not tell */
			ssh_session_kick(c->s);
		if (n > length)
			n = length;
		memcpy(buffer, bytes_first(in), n);
		bytes_used(in, n);
		return (ssize_t)n;
	}
	if (c->in_ended)
		return STREAM_END;
	if (c->code != NULL)
		return stream_fail(base, c->code, "%s", c->text);
	return STREAM_AGAIN;
}

static ssize_t
end_write(struct stream *base, const void *buffer, size_t length)
{
	struct channel_end *e = (struct channel_end *)base;
	struct ssh_channel *c = e->c;
	size_t room;

	if (c->code != NULL)
		return stream_fail(base, c->code, "%s", c->text);
	if (!writes(e) || c->end_wanted)
		return stream_fail(base, "EPIPE", "ssh channel: write after half-close");
	if (c->closed)
		return stream_fail(base, "EPIPE", "ssh channel: the far side has ended");
	if (bytes_length(&c->out) >= CHANNEL_BUFFER)
		return STREAM_AGAIN;
	room = CHANNEL_BUFFER - bytes_length(&c->out);
	if (length > room)
		length = room;
	if (!bytes_append(&c->out, buffer, length))
		return stream_fail(base, "ENOMEM", "out of memory");
	ssh_session_kick(c->s);
	return (ssize_t)length;
}

static int
end_half_close(struct stream *base)
{
	struct channel_end *e = (struct channel_end *)base;

	if (writes(e)) {
		e->c->end_wanted = true;
		ssh_session_kick(e->c->s);
	}
	return 0;
}

static void
end_when(struct stream *base, enum stream_direction d, void (*ready)(void *arg), void *arg)
{
	struct channel_end *e = (struct channel_end *)base;

	e->waiting[d] = (struct channel_waiter){ ready, arg };
	if (ready != NULL && (d == STREAM_READ ? ssh_end_readable(e) : ssh_end_writable(e)))
		ssh_session_kick(e->c->s);
}

/* What is not read any more is thrown away, so that the command can go on; its stdin ends. */
static void
end_close(struct stream *base)
{
	struct channel_end *e = (struct channel_end *)base;
	struct ssh_channel *c = e->c;

	if (writes(e))
		c->end_wanted = true;
	if (reads(e)) {
		c->discard[output_of(e)] = true;
		bytes_used(&c->in[output_of(e)], bytes_length(&c->in[output_of(e)]));
	}
	c->ends[e->which] = NULL;
	c->users--;
	ssh_session_kick(c->s);
	free(e);
}

static const struct stream_ops ops = {
	.kind = "ssh channel", .read = end_read, .write = end_write, .half_close = end_half_close, .when = end_when,
	.close = end_close,
};

static const struct stream_ops output_ops = {
	.kind = "ssh channel", .read = end_read, .write = end_write, .when = end_when, .close = end_close,
};

struct stream *
ssh_channel_stream(struct ssh_channel *c, enum ssh_end end)
{
	struct channel_end *e = c->ends[end] == NULL ? calloc(1, sizeof *e) : NULL;

	if (e == NULL)
		return NULL;
	e->base.ops = end == SSH_STDOUT || end == SSH_STDERR ? &output_ops : &ops;
	e->c = c;
	e->which = end;
	c->ends[end] = e;
	c->users++;
	if (end == SSH_STDERR)
		c->keep_tail = false;
	return &e->base;
}
