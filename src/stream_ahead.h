/*
 * stream_ahead.h - a stream in front of another, which may read ahead to find lines.
 *
 * It lives in its owner's memory, so that it outlasts the stream it owns: when it is closed, whoever
 * waits is called and finds "ECLOSED", and no pump is left with a stream that is gone.
 */
#ifndef RUNBOOK_STREAM_AHEAD_H
#define RUNBOOK_STREAM_AHEAD_H

#include "bytes.h"
#include "stream.h"

#define STREAM_LINE_MAX (64 * 1024)

struct stream_waiter {
	void (*ready)(void *arg);
	void *arg;
};

struct stream_ahead {
	struct stream base;		/* first */
	struct stream *inner;		/* NULL once closed */
	struct bytes ahead;		/* read from inner, not yet asked for */
	size_t searched;		/* of ahead: there is no newline */
	struct stream_waiter waiting[2];
};

/* Without a stream it is closed. */
void stream_ahead_init(struct stream_ahead *s);
void stream_ahead_own(struct stream_ahead *s, struct stream *inner);

/* Reads up to `most` bytes more into ahead.  As a stream's read. */
ssize_t stream_ahead_more(struct stream_ahead *s, size_t most);
/* Takes what was read ahead. */
void stream_ahead_used(struct stream_ahead *s, size_t count);

enum stream_line { STREAM_LINE_NONE, STREAM_LINE_WHOLE, STREAM_LINE_SPLIT };

/* Whether a line (without its newline, *length bytes) or STREAM_LINE_MAX bytes of one stand ahead. */
enum stream_line stream_ahead_line(struct stream_ahead *s, size_t *length);

/* Which of the two has failed: the one in front, or the one inside. */
const struct stream *stream_ahead_failed(const struct stream_ahead *s);

#endif
