/* stream_ahead.c - a stream in front of another, which may read ahead to find lines. */
#include <stdlib.h>
#include <string.h>

#include "stream_ahead.h"

static ssize_t
closed(struct stream_ahead *s)
{
	return stream_fail(&s->base, "ECLOSED", "the stream was closed");
}

/* What the inner stream failed of, this one failed of: its users look only here. */
static ssize_t
pass_on(struct stream_ahead *s, ssize_t n)
{
	if (n == STREAM_FAILED)
		return stream_fail(&s->base, s->inner->code, "%s", s->inner->message);
	return n;
}

static ssize_t
inner_read(struct stream_ahead *s, void *buffer, size_t length)
{
	if (s->inner == NULL)
		return closed(s);
	if (s->inner->ops->read == NULL)
		return stream_fail(&s->base, "ENOTSUP", "%s: cannot be read", s->inner->ops->kind);
	return pass_on(s, s->inner->ops->read(s->inner, buffer, length));
}

static ssize_t
ahead_read(struct stream *base, void *buffer, size_t length)
{
	struct stream_ahead *s = (struct stream_ahead *)base;
	size_t n = bytes_length(&s->ahead);

	if (n == 0)
		return inner_read(s, buffer, length);
	if (n > length)
		n = length;
	memcpy(buffer, bytes_first(&s->ahead), n);
	stream_ahead_used(s, n);
	return (ssize_t)n;
}

static ssize_t
ahead_write(struct stream *base, const void *buffer, size_t length)
{
	struct stream_ahead *s = (struct stream_ahead *)base;

	if (s->inner == NULL)
		return closed(s);
	if (s->inner->ops->write == NULL)
		return stream_fail(base, "ENOTSUP", "%s: cannot be written to", s->inner->ops->kind);
	return pass_on(s, s->inner->ops->write(s->inner, buffer, length));
}

static int
ahead_half_close(struct stream *base)
{
	struct stream_ahead *s = (struct stream_ahead *)base;

	return s->inner == NULL ? (int)closed(s) : s->inner->ops->half_close(s->inner);
}

static void
fire(struct stream_ahead *s, enum stream_direction d)
{
	struct stream_waiter w = s->waiting[d];

	s->waiting[d] = (struct stream_waiter){ NULL, NULL };
	if (w.ready != NULL)
		w.ready(w.arg);
}

static void
inner_readable(void *arg)
{
	fire(arg, STREAM_READ);
}

static void
inner_writable(void *arg)
{
	fire(arg, STREAM_WRITE);
}

/* Who reads takes what is ahead before it has to wait, so only the inner stream is waited for. */
static void
ahead_when(struct stream *base, enum stream_direction d, void (*ready)(void *arg), void *arg)
{
	struct stream_ahead *s = (struct stream_ahead *)base;

	s->waiting[d] = (struct stream_waiter){ ready, arg };
	if (s->inner == NULL)
		return;
	if (ready == NULL)
		s->inner->ops->when(s->inner, d, NULL, NULL);
	else
		s->inner->ops->when(s->inner, d, d == STREAM_READ ? inner_readable : inner_writable, s);
}

static void
ahead_close(struct stream *base)
{
	struct stream_ahead *s = (struct stream_ahead *)base;
	struct stream *inner = s->inner;

	if (inner == NULL)
		return;
	s->inner = NULL;
	bytes_free(&s->ahead);
	inner->ops->close(inner);
	fire(s, STREAM_READ);
	fire(s, STREAM_WRITE);
}

static int
ahead_descriptor(struct stream *base)
{
	struct stream_ahead *s = (struct stream_ahead *)base;

	if (s->inner == NULL || s->inner->ops->descriptor == NULL || bytes_length(&s->ahead) > 0)
		return -1;
	return s->inner->ops->descriptor(s->inner);
}

static const struct stream_ops halved_ops = {
	.kind = "stream", .read = ahead_read, .write = ahead_write, .half_close = ahead_half_close, .when = ahead_when,
	.close = ahead_close, .descriptor = ahead_descriptor,
};

static const struct stream_ops whole_ops = {
	.kind = "stream", .read = ahead_read, .write = ahead_write, .when = ahead_when, .close = ahead_close,
	.descriptor = ahead_descriptor,
};

void
stream_ahead_init(struct stream_ahead *s)
{
	*s = (struct stream_ahead){ .base.ops = &whole_ops };
}

void
stream_ahead_own(struct stream_ahead *s, struct stream *inner)
{
	s->inner = inner;
	s->base.ops = inner->ops->half_close != NULL ? &halved_ops : &whole_ops;
}

ssize_t
stream_ahead_more(struct stream_ahead *s, size_t most)
{
	char *room;
	ssize_t n;

	if (s->inner == NULL)
		return closed(s);
	if ((room = bytes_room(&s->ahead, most)) == NULL)
		return stream_fail(&s->base, "ENOMEM", "out of memory");
	n = inner_read(s, room, most);
	if (n > 0)
		bytes_added(&s->ahead, (size_t)n);
	return n;
}

void
stream_ahead_used(struct stream_ahead *s, size_t count)
{
	bytes_used(&s->ahead, count);
	s->searched = 0;
}

enum stream_line
stream_ahead_line(struct stream_ahead *s, size_t *length)
{
	size_t all = bytes_length(&s->ahead);
	const char *newline = NULL;

	if (all > s->searched)
		newline = memchr(bytes_first(&s->ahead) + s->searched, '\n', all - s->searched);
	if (newline != NULL && newline - bytes_first(&s->ahead) <= STREAM_LINE_MAX) {
		*length = (size_t)(newline - bytes_first(&s->ahead));
		return STREAM_LINE_WHOLE;
	}
	if (all > STREAM_LINE_MAX) {
		*length = STREAM_LINE_MAX;
		return STREAM_LINE_SPLIT;
	}
	s->searched = all;
	return STREAM_LINE_NONE;
}

const struct stream *
stream_ahead_failed(const struct stream_ahead *s)
{
	return s->base.code != NULL || s->inner == NULL ? &s->base : s->inner;
}
