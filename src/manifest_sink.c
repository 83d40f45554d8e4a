/* manifest_sink.c - jobs on the pool, and sinks with a thread of their own; see manifest.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "manifest.h"
#include "stream.h"

void
manifest_fail(struct manifest_failure *f, const char *code, const char *format, ...)
{
	va_list ap;
	if (f->code)
		return;
	f->code = code;
	va_start(ap, format);
	vsnprintf(f->message, sizeof f->message, format, ap);
	va_end(ap);
}

void
manifest_fail_errno(struct manifest_failure *f, int error, const char *what)
{
	int translated = uv_translate_sys_error(error ? error : EIO);
	manifest_fail(f, uv_err_name(translated), "%.200s: %s", what, uv_strerror(translated));
}

void
manifest_names_add(struct manifest_names *n, const void *bytes, size_t length)
{
	put_text(&n->bytes, bytes, length);
	n->count++;
}

void
manifest_names_free(struct manifest_names *n)
{
	buffer_free(&n->bytes);
	n->count = 0;
}

/* Jobs. */

static void
job_release(struct manifest_job *job)
{
	job->release(job);
	free(job);
}

static void
job_run(uv_work_t *work)
{
	struct manifest_job *job = work->data;
	job->run(job);
}

static void
job_after(uv_work_t *work, int status)
{
	struct manifest_job *job = work->data;
	(void)status;	/* UV_ECANCELED comes only after manifest_job_free, which asked for it */
	job->running = false;
	if (atomic_load(&job->abandoned))
		job_release(job);
	else
		job->done(job->arg);
}

bool
manifest_job_start(uv_loop_t *loop, struct manifest_job *job)
{
	job->work.data = job;
	if (uv_queue_work(loop, &job->work, job_run, job_after) != 0) {
		job_release(job);
		return false;
	}
	job->running = true;
	return true;
}

void
manifest_job_free(struct manifest_job *job)
{
	if (!job)
		return;
	if (!job->running) {
		job_release(job);
		return;
	}
	atomic_store(&job->abandoned, true);
	uv_cancel((uv_req_t *)&job->work);	/* job_after comes in any case */
}

/* Sinks. */

static void
sink_closed(uv_handle_t *handle)
{
	struct manifest_sink *s = handle->data;
	s->release(s);
	free(s);
}

static void
sink_thread(void *arg)
{
	struct manifest_sink *s = arg;
	s->run(s);
	close(s->fd);
	uv_async_send(&s->async);
}

static void
sink_tell(struct manifest_sink *s)
{
	void (*done)(void *arg) = s->done;
	s->done = NULL;
	if (!s->let_go)
		uv_unref((uv_handle_t *)&s->async);
	if (done)
		done(s->arg);
}

static void
sink_close_stream(struct manifest_sink *s)
{
	if (s->stream)
		s->stream->ops->close(s->stream);
	s->stream = NULL;
}

static void
sink_ended(uv_async_t *async)
{
	struct manifest_sink *s = async->data;
	if (s->ended)
		return;
	uv_thread_join(&s->thread);
	s->ended = true;
	sink_close_stream(s);
	if (s->let_go)
		uv_close((uv_handle_t *)async, sink_closed);
	else
		sink_tell(s);
}

bool
manifest_sink_start(uv_loop_t *loop, struct manifest_sink *s)
{
	int ends[2] = { -1, -1 }, error = 0;
	s->async.data = s;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0 || !(s->stream = stream_of_descriptor(loop, ends[0], "sink"))) {
		error = errno ? errno : ENOMEM;
		if (ends[0] >= 0)
			close(ends[0]);
	} else if (uv_async_init(loop, &s->async, sink_ended) != 0) {
		error = EMFILE;
		sink_close_stream(s);
	}
	if (error) {
		if (ends[1] >= 0)
			close(ends[1]);
		s->release(s);
		free(s);
		errno = error;
		return false;
	}
	uv_unref((uv_handle_t *)&s->async);
	s->fd = ends[1];
	if (uv_thread_create(&s->thread, sink_thread, s) == 0)
		return true;
	close(ends[1]);
	sink_close_stream(s);
	uv_close((uv_handle_t *)&s->async, sink_closed);
	errno = EAGAIN;
	return false;
}

/* Where the thread has closed its end, it has ended or will: then its failure is the answer. */
static void
sink_push(void *arg)
{
	struct manifest_sink *s = arg;
	while (s->length > 0) {
		ssize_t n = s->stream->ops->write(s->stream, s->data, s->length);
		if (n == STREAM_AGAIN) {
			s->stream->ops->when(s->stream, STREAM_WRITE, sink_push, s);
			return;
		}
		if (n < 0)
			return;
		s->data += n;
		s->length -= (size_t)n;
	}
	sink_tell(s);
}

void
manifest_sink_write(struct manifest_sink *s, const void *data, size_t length, void (*done)(void *arg), void *arg)
{
	s->done = done;
	s->arg = arg;
	s->data = data;
	s->length = length;
	uv_ref((uv_handle_t *)&s->async);
	if (s->ended || !s->stream)
		sink_tell(s);
	else
		sink_push(s);
}

void
manifest_sink_finish(struct manifest_sink *s, void (*done)(void *arg), void *arg)
{
	s->done = done;
	s->arg = arg;
	s->finishing = true;
	uv_ref((uv_handle_t *)&s->async);
	sink_close_stream(s);
	if (s->ended)
		sink_tell(s);
}

void
manifest_sink_free(struct manifest_sink *s)
{
	if (!s)
		return;
	atomic_store(&s->abandoned, true);
	s->done = NULL;
	s->let_go = true;
	sink_close_stream(s);
	uv_ref((uv_handle_t *)&s->async);
	if (s->ended)
		uv_close((uv_handle_t *)&s->async, sink_closed);
}
