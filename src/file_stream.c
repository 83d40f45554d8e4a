/*
 * file_stream.c - an open file as a stream.  See file.h.
 *
 * One piece of work at a time: a read fills the buffer for the reads that follow, a write empties it
 * before the next is taken.  A stream is read or written, never both at once.
 */
#include "file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUFFER ((size_t)256 << 10)

struct file_stream {
	struct stream base;
	uv_loop_t *loop;
	uv_work_t work;
	uv_idle_t soon;		/* calls those who asked when there was nothing to wait for */
	int fd;
	char *buffer;
	size_t start, end;	/* read: not given out yet; write: end bytes are being written */
	ssize_t result;		/* of the last work; a negative errno */
	bool working, at_end, closed;
	bool asked;		/* a read was begun and its result not looked at yet */
	int open_handles;
	void (*ready)(void *arg);
	void *arg;
};

static void
destroy(struct file_stream *f)
{
	close(f->fd);
	free(f->buffer);
	free(f);
}

static void
idle_closed(uv_handle_t *handle)
{
	struct file_stream *f = handle->data;

	f->open_handles--;
	if (!f->working)
		destroy(f);
}

static void
call_ready(struct file_stream *f)
{
	void (*ready)(void *arg) = f->ready;

	f->ready = NULL;
	if (ready != NULL)
		ready(f->arg);
}

static void
on_soon(uv_idle_t *idle)
{
	uv_idle_stop(idle);
	call_ready(idle->data);
}

static void
read_on_worker(uv_work_t *work)
{
	struct file_stream *f = work->data;

	do
		f->result = read(f->fd, f->buffer, BUFFER);
	while (f->result < 0 && errno == EINTR);
	if (f->result < 0)
		f->result = -errno;
}

static void
write_on_worker(uv_work_t *work)
{
	struct file_stream *f = work->data;
	size_t sent = 0;

	while (sent < f->end) {
		ssize_t n = write(f->fd, f->buffer + sent, f->end - sent);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			f->result = -errno;
			return;
		}
		sent += (size_t)n;
	}
	f->result = (ssize_t)sent;
}

static void
after_work(uv_work_t *work, int status)
{
	struct file_stream *f = work->data;

	(void)status;
	f->working = false;
	if (f->closed) {
		if (f->open_handles == 0)
			destroy(f);
		return;
	}
	call_ready(f);
}

static ssize_t
start_work(struct file_stream *f, uv_work_cb work)
{
	f->work.data = f;
	if (uv_queue_work(f->loop, &f->work, work, after_work) != 0)
		return stream_fail(&f->base, "ENOMEM", "file: out of memory");
	f->working = true;
	return STREAM_AGAIN;
}

static ssize_t
fail_result(struct file_stream *f, const char *doing)
{
	int error = uv_translate_sys_error((int)-f->result);

	return stream_fail(&f->base, uv_err_name(error), "file: %s: %s", doing, uv_strerror(error));
}

static ssize_t
file_read(struct stream *s, void *buffer, size_t length)
{
	struct file_stream *f = (struct file_stream *)s;
	size_t n;

	if (f->working)
		return STREAM_AGAIN;
	if (f->asked) {
		f->asked = false;
		if (f->result < 0)
			return fail_result(f, "read");
		f->start = 0;
		f->end = (size_t)f->result;
		f->at_end = f->end == 0;
	}
	if (f->start == f->end) {
		if (f->at_end)
			return STREAM_END;
		f->asked = true;
		return start_work(f, read_on_worker);
	}
	n = f->end - f->start < length ? f->end - f->start : length;
	memcpy(buffer, f->buffer + f->start, n);
	f->start += n;
	return (ssize_t)n;
}

static ssize_t
file_write(struct stream *s, const void *buffer, size_t length)
{
	struct file_stream *f = (struct file_stream *)s;
	ssize_t n = f->result;

	if (f->working)
		return STREAM_AGAIN;
	if (n < 0)
		return fail_result(f, "write");
	if (n > 0) {	/* the bytes we are called with again */
		f->result = 0;
		return n;
	}
	f->end = length < BUFFER ? length : BUFFER;
	memcpy(f->buffer, buffer, f->end);
	return f->end == 0 ? 0 : start_work(f, write_on_worker);
}

static void
file_when(struct stream *s, enum stream_direction d, void (*ready)(void *arg), void *arg)
{
	struct file_stream *f = (struct file_stream *)s;

	(void)d;
	f->ready = ready;
	f->arg = arg;
	if (ready == NULL)
		uv_idle_stop(&f->soon);
	else if (!f->working)
		uv_idle_start(&f->soon, on_soon);
}

static void
file_close(struct stream *s)
{
	struct file_stream *f = (struct file_stream *)s;

	f->closed = true;
	f->ready = NULL;
	uv_close((uv_handle_t *)&f->soon, idle_closed);
}

static int
file_descriptor(struct stream *s)
{
	return ((struct file_stream *)s)->fd;
}

static const struct stream_ops file_ops = {
	.kind = "file", .read = file_read, .write = file_write, .when = file_when, .close = file_close,
	.descriptor = file_descriptor,
};

struct stream *
file_stream(uv_loop_t *loop, int fd)
{
	struct file_stream *f = calloc(1, sizeof *f);

	if (f == NULL || (f->buffer = malloc(BUFFER)) == NULL) {
		free(f);
		return NULL;
	}
	f->base.ops = &file_ops;
	f->loop = loop;
	f->fd = fd;
	f->soon.data = f;
	f->open_handles = 1;
	uv_idle_init(loop, &f->soon);
	return &f->base;
}
