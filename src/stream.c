/*
 * stream.c - streams over descriptors, and the pump that joins two streams.
 *
 * A pollable descriptor waits in uv_poll.  What the kernel cannot poll (regular files, /dev/null)
 * is always ready; its waiters are called from the next turn of the loop, so that no caller sees
 * its callback before stream_when has returned.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <uv.h>

#include "stream.h"

#define PUMP_BUFFER (256 * 1024)

struct waiter {
	void (*ready)(void *arg);
	void *arg;
};

struct fd_stream {
	struct stream base;
	union {
		uv_handle_t any;
		uv_poll_t poll;
		uv_idle_t idle;
	} handle;
	int fd;			/* -1 once given up */
	bool pollable, socket, closed;
	struct waiter waiting[2];	/* by enum stream_direction */
};

ssize_t
stream_fail(struct stream *s, const char *code, const char *format, ...)
{
	va_list ap;

	s->code = code;
	va_start(ap, format);
	vsnprintf(s->message, sizeof s->message, format, ap);
	va_end(ap);
	return STREAM_FAILED;
}

static ssize_t
fail_errno(struct stream *s, const char *doing)
{
	int error = uv_translate_sys_error(errno);

	return stream_fail(s, uv_err_name(error), "%s: %s: %s", s->ops->kind, doing, uv_strerror(error));
}

static void fd_polled(uv_poll_t *handle, int status, int events);
static void fd_idled(uv_idle_t *handle);

/* Asks the loop for exactly the directions somebody waits for. */
static void
fd_arm(struct fd_stream *f)
{
	int events = 0;

	if (f->waiting[STREAM_READ].ready != NULL)
		events |= UV_READABLE;
	if (f->waiting[STREAM_WRITE].ready != NULL)
		events |= UV_WRITABLE;
	if (f->pollable && events != 0 && f->fd >= 0)
		uv_poll_start(&f->handle.poll, events, fd_polled);
	else if (f->pollable)
		uv_poll_stop(&f->handle.poll);
	else if (events != 0)
		uv_idle_start(&f->handle.idle, fd_idled);
	else
		uv_idle_stop(&f->handle.idle);
}

/* A waiter may ask again, take the other's wish back, or close the stream. */
static void
fd_fire(struct fd_stream *f, int events)
{
	static const int event_of[] = { UV_READABLE, UV_WRITABLE };

	for (int d = STREAM_READ; d <= STREAM_WRITE && !f->closed; d++) {
		struct waiter w = f->waiting[d];

		if ((events & event_of[d]) == 0 || w.ready == NULL)
			continue;
		f->waiting[d] = (struct waiter){ NULL, NULL };
		w.ready(w.arg);
	}
	if (!f->closed)
		fd_arm(f);
}

/* On an error both directions are called: the read or write that follows says what it is. */
static void
fd_polled(uv_poll_t *handle, int status, int events)
{
	fd_fire(handle->data, status < 0 ? UV_READABLE | UV_WRITABLE : events);
}

static void
fd_idled(uv_idle_t *handle)
{
	fd_fire(handle->data, UV_READABLE | UV_WRITABLE);
}

static ssize_t
fd_read(struct stream *s, void *buffer, size_t length)
{
	struct fd_stream *f = (struct fd_stream *)s;
	ssize_t n;

	if (f->fd < 0)
		return STREAM_END;
	do
		n = read(f->fd, buffer, length);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return STREAM_AGAIN;
	return fail_errno(s, "read");
}

/* Pipes have no MSG_NOSIGNAL: the host ignores SIGPIPE. */
static ssize_t
fd_write(struct stream *s, const void *buffer, size_t length)
{
	struct fd_stream *f = (struct fd_stream *)s;
	ssize_t n;

	if (f->fd < 0)
		return stream_fail(s, "EPIPE", "%s: write after half-close", s->ops->kind);
	do
		n = f->socket ? send(f->fd, buffer, length, MSG_NOSIGNAL) : write(f->fd, buffer, length);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return STREAM_AGAIN;
	return fail_errno(s, "write");
}

static void
fd_give_up(struct fd_stream *f)
{
	if (f->fd < 0)
		return;
	if (f->pollable)
		uv_poll_stop(&f->handle.poll);
	close(f->fd);
	f->fd = -1;
}

/* What can only be written to (the stdin of a child) has no other half: half of it is all of it. */
static int
fd_half_close(struct stream *s)
{
	struct fd_stream *f = (struct fd_stream *)s;

	if (!f->socket)
		fd_give_up(f);
	else if (shutdown(f->fd, SHUT_WR) < 0 && errno != ENOTCONN)
		return (int)fail_errno(s, "half-close");
	return 0;
}

static void
fd_when(struct stream *s, enum stream_direction d, void (*ready)(void *arg), void *arg)
{
	struct fd_stream *f = (struct fd_stream *)s;

	f->waiting[d] = (struct waiter){ ready, arg };
	fd_arm(f);
}

static void
fd_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void
fd_close(struct stream *s)
{
	struct fd_stream *f = (struct fd_stream *)s;

	f->closed = true;
	fd_give_up(f);
	uv_close(&f->handle.any, fd_closed);
}

static int
fd_descriptor(struct stream *s)
{
	return ((struct fd_stream *)s)->fd;
}

/* One table per stream, because each has its own name and not every descriptor can half-close. */
struct fd_stream_with_ops {
	struct fd_stream f;	/* first: freed as the whole */
	struct stream_ops ops;
};

struct stream *
stream_of_descriptor(uv_loop_t *loop, int fd, const char *kind)
{
	struct fd_stream_with_ops *whole = calloc(1, sizeof *whole);
	struct stat st;
	int flags, error;

	if (whole == NULL)
		return NULL;
	flags = fcntl(fd, F_GETFL);
	if (fstat(fd, &st) < 0)
		memset(&st, 0, sizeof st);
	whole->ops = (struct stream_ops){
		.kind = kind, .read = fd_read, .write = fd_write, .when = fd_when, .close = fd_close,
		.descriptor = fd_descriptor,
	};
	whole->f.base.ops = &whole->ops;
	whole->f.fd = fd;
	whole->f.socket = S_ISSOCK(st.st_mode);
	if (whole->f.socket || (flags & O_ACCMODE) == O_WRONLY)
		whole->ops.half_close = fd_half_close;
	error = uv_poll_init(loop, &whole->f.handle.poll, fd);
	whole->f.pollable = error == 0;
	if (error == UV_EPERM)
		error = uv_idle_init(loop, &whole->f.handle.idle);
	whole->f.handle.any.data = whole;
	if (error != 0) {
		free(whole);
		return NULL;
	}
	return &whole->f.base;
}

struct stream_pump {
	uv_idle_t kick;		/* the first step comes from the loop, as all others */
	struct stream *from, *to, *failed;
	char *buffer;
	size_t start, end;	/* what was read and not yet written */
	bool at_end, waiting_read, waiting_write;
	unsigned long long bytes;
	void (*done)(void *arg);
	void *arg;
};

static void pump_step(struct stream_pump *p);

static void
pump_readable(void *arg)
{
	struct stream_pump *p = arg;

	p->waiting_read = false;
	pump_step(p);
}

static void
pump_writable(void *arg)
{
	struct stream_pump *p = arg;

	p->waiting_write = false;
	pump_step(p);
}

static void
pump_kicked(uv_idle_t *kick)
{
	uv_idle_stop(kick);
	pump_step(kick->data);
}

static void
pump_stop(struct stream_pump *p)
{
	if (p->waiting_read)
		p->from->ops->when(p->from, STREAM_READ, NULL, NULL);
	if (p->waiting_write)
		p->to->ops->when(p->to, STREAM_WRITE, NULL, NULL);
	p->waiting_read = p->waiting_write = false;
}

static void
pump_end(struct stream_pump *p, struct stream *failed)
{
	p->failed = failed;
	pump_stop(p);
	p->done(p->arg);
}

/* What one call of read found, or 0 when there is no room. */
static ssize_t
pump_fill(struct stream_pump *p)
{
	ssize_t n;

	if (p->at_end || p->end == PUMP_BUFFER)
		return 0;
	n = p->from->ops->read(p->from, p->buffer + p->end, PUMP_BUFFER - p->end);
	if (n > 0)
		p->end += (size_t)n;
	else if (n == STREAM_END)
		p->at_end = true;
	return n;
}

static ssize_t
pump_drain(struct stream_pump *p)
{
	ssize_t n;

	if (p->start == p->end)
		return 0;
	n = p->to->ops->write(p->to, p->buffer + p->start, p->end - p->start);
	if (n > 0) {
		p->start += (size_t)n;
		p->bytes += (unsigned long long)n;
	}
	if (p->start == p->end)
		p->start = p->end = 0;
	return n;
}

static void
pump_wait(struct stream_pump *p)
{
	if (p->start < p->end && !p->waiting_write) {
		p->waiting_write = true;
		p->to->ops->when(p->to, STREAM_WRITE, pump_writable, p);
	}
	if (!p->at_end && p->end < PUMP_BUFFER && !p->waiting_read) {
		p->waiting_read = true;
		p->from->ops->when(p->from, STREAM_READ, pump_readable, p);
	}
}

/* At most a buffer's worth in one turn: others want the loop too. */
static void
pump_step(struct stream_pump *p)
{
	size_t moved = 0;
	ssize_t got, put;

	do {
		if ((got = pump_fill(p)) == STREAM_FAILED) {
			pump_end(p, p->from);
			return;
		}
		if ((put = pump_drain(p)) == STREAM_FAILED) {
			pump_end(p, p->to);
			return;
		}
		moved += put > 0 ? (size_t)put : 0;
	} while ((got > 0 || put > 0) && moved < PUMP_BUFFER);
	if (!p->at_end || p->start < p->end) {
		pump_wait(p);
		return;
	}
	if (p->to->ops->half_close != NULL && p->to->ops->half_close(p->to) != 0)
		pump_end(p, p->to);
	else
		pump_end(p, NULL);
}

struct stream_pump *
stream_pump_start(uv_loop_t *loop, struct stream *from, struct stream *to, void (*done)(void *arg), void *arg)
{
	struct stream_pump *p = calloc(1, sizeof *p);

	if (p == NULL || (p->buffer = malloc(PUMP_BUFFER)) == NULL) {
		free(p);
		return NULL;
	}
	p->from = from;
	p->to = to;
	p->done = done;
	p->arg = arg;
	uv_idle_init(loop, &p->kick);
	p->kick.data = p;
	uv_idle_start(&p->kick, pump_kicked);
	return p;
}

struct stream *
stream_pump_failed(const struct stream_pump *p)
{
	return p->failed;
}

unsigned long long
stream_pump_bytes(const struct stream_pump *p)
{
	return p->bytes;
}

static void
pump_closed(uv_handle_t *kick)
{
	struct stream_pump *p = kick->data;

	free(p->buffer);
	free(p);
}

void
stream_pump_free(struct stream_pump *p)
{
	if (p == NULL)
		return;
	pump_stop(p);
	uv_close((uv_handle_t *)&p->kick, pump_closed);
}
