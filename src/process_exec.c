/*
 * process_exec.c - a program from start to end, its output in memory.  See process.h.
 *
 * It is over when the program has ended and both pipes are read out.  A grandchild that keeps a pipe
 * open (a daemon) gets a grace, so that it cannot hold us for ever.
 */
#include "process.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GRACE_MS   1000			/* after the exit, for what still holds our pipes */
#define CHUNK      ((size_t)64 << 10)
#define READS_TURN 8			/* chunks read in one turn of the loop */

struct capture {
	struct process_exec *exec;
	struct stream *stream;	/* NULL once it has ended */
	char *bytes;
	size_t length, room;
	size_t limit;
	bool keeps_end;		/* drop the beginning rather than fail */
};

struct process_exec {
	struct process *process;
	uv_timer_t grace;
	struct capture out, err;
	struct stream *in;
	char *input;
	size_t input_length, input_sent;
	struct stream_pump *pump;
	void (*done)(void *arg);
	void *arg;
	struct process_result result;
	char message[200];
	bool finished;
};

static void
finish(struct process_exec *x)
{
	size_t dropped;

	if (x->finished)
		return;
	x->finished = true;
	uv_timer_stop(&x->grace);
	x->result.how = *process_ended(x->process);
	x->result.out = x->out.bytes;
	x->result.out_length = x->out.length;
	dropped = x->err.length > x->err.limit ? x->err.length - x->err.limit : 0;
	x->result.err = dropped != 0 ? x->err.bytes + dropped : x->err.bytes;
	x->result.err_length = x->err.length - dropped;
	x->done(x->arg);
}

static void
end_stream(struct stream **s)
{
	if (*s != NULL)
		(*s)->ops->close(*s);
	*s = NULL;
}

static void
end_input(struct process_exec *x)
{
	stream_pump_free(x->pump);
	x->pump = NULL;
	end_stream(&x->in);
}

/* Remembers the first failure and asks the program to end; the rest goes its usual way. */
static void
fail(struct process_exec *x, const char *code, const char *message)
{
	if (x->result.code != NULL)
		return;
	x->result.code = code;
	snprintf(x->message, sizeof x->message, "%s", message);
	x->result.message = x->message;
	process_signal(x->process, SIGTERM);
}

static void
grace_over(uv_timer_t *timer)
{
	struct process_exec *x = timer->data;

	end_stream(&x->out.stream);
	end_stream(&x->err.stream);
	finish(x);
}

static void
look_whether_over(struct process_exec *x)
{
	if (process_ended(x->process) == NULL)
		return;
	end_input(x);	/* nobody reads it any more */
	if (x->out.stream == NULL && x->err.stream == NULL)
		finish(x);
	else if (!uv_is_active((uv_handle_t *)&x->grace))
		uv_timer_start(&x->grace, grace_over, GRACE_MS, 0);
}

static void
program_ended(void *arg)
{
	look_whether_over(arg);
}

static bool
make_room(struct capture *c, size_t more)
{
	size_t room = c->room != 0 ? c->room : CHUNK;
	char *bytes;

	while (room < c->length + more)
		room *= 2;
	if (room == c->room)
		return true;
	bytes = realloc(c->bytes, room);
	if (bytes == NULL)
		return false;
	c->bytes = bytes;
	c->room = room;
	return true;
}

static void
keep(struct capture *c, const char *chunk, size_t length)
{
	if (!c->keeps_end && c->length + length > c->limit) {
		fail(c->exec, "ELIMIT", "its output is longer than can be kept in memory; send it to a file or a stream");
		return;
	}
	if (!make_room(c, length)) {
		fail(c->exec, "ENOMEM", "out of memory for its output");
		return;
	}
	memcpy(c->bytes + c->length, chunk, length);
	c->length += length;
	/* Twice the limit before cutting: moving bytes at every chunk would cost more than it saves. */
	if (c->keeps_end && c->length > 2 * c->limit) {
		memmove(c->bytes, c->bytes + c->length - c->limit, c->limit);
		c->length = c->limit;
	}
}

static void
read_some(void *arg)
{
	struct capture *c = arg;
	char chunk[CHUNK];

	for (int i = 0; i < READS_TURN; i++) {
		ssize_t n = c->stream->ops->read(c->stream, chunk, sizeof chunk);

		if (n == STREAM_AGAIN)
			break;
		if (n <= 0) {	/* a failed pipe has nothing more for us either */
			end_stream(&c->stream);
			look_whether_over(c->exec);
			return;
		}
		keep(c, chunk, (size_t)n);
	}
	c->stream->ops->when(c->stream, STREAM_READ, read_some, c);
}

static void
write_some(void *arg)
{
	struct process_exec *x = arg;

	while (x->input_sent < x->input_length) {
		ssize_t n = x->in->ops->write(x->in, x->input + x->input_sent, x->input_length - x->input_sent);

		if (n == STREAM_AGAIN) {
			x->in->ops->when(x->in, STREAM_WRITE, write_some, x);
			return;
		}
		if (n < 0)	/* it does not read its stdin to the end: its own business */
			break;
		x->input_sent += (size_t)n;
	}
	end_input(x);
}

static void
pump_ended(void *arg)
{
	struct process_exec *x = arg;
	struct stream *failed = stream_pump_failed(x->pump);

	/* A source that broke off must not look like the end of it. */
	if (failed != NULL && failed != x->in)
		fail(x, failed->code, failed->message);
	end_input(x);
}

static bool
start_input(struct process_exec *x, uv_loop_t *loop, const struct process_input *input)
{
	if (input->stream != NULL) {
		x->pump = stream_pump_start(loop, input->stream, x->in, pump_ended, x);
		return x->pump != NULL;
	}
	if (input->length == 0) {
		end_input(x);
		return true;
	}
	x->input = malloc(input->length);
	if (x->input == NULL)
		return false;
	memcpy(x->input, input->bytes, input->length);
	x->input_length = input->length;
	x->in->ops->when(x->in, STREAM_WRITE, write_some, x);
	return true;
}

struct process_exec *
process_exec_start(uv_loop_t *loop, const struct process_spawn *spawn, const struct process_input *input,
                   size_t out_limit, void (*done)(void *arg), void *arg, int *error)
{
	struct process_exec *x = calloc(1, sizeof *x);

	if (x == NULL) {
		*error = UV_ENOMEM;
		return NULL;
	}
	x->process = process_start(loop, spawn, error);
	if (x->process == NULL) {
		free(x);
		return NULL;
	}
	x->done = done;
	x->arg = arg;
	uv_timer_init(loop, &x->grace);
	x->grace.data = x;
	x->in = process_take_stdin(x->process);
	x->out = (struct capture){ .exec = x, .stream = process_take_stdout(x->process), .limit = out_limit };
	x->err = (struct capture){ .exec = x, .stream = process_take_stderr(x->process),
	                           .limit = PROCESS_ERR_KEPT, .keeps_end = true };
	if (!start_input(x, loop, input)) {
		*error = UV_ENOMEM;
		process_exec_free(x);
		return NULL;
	}
	x->out.stream->ops->when(x->out.stream, STREAM_READ, read_some, &x->out);
	x->err.stream->ops->when(x->err.stream, STREAM_READ, read_some, &x->err);
	process_when_ended(x->process, program_ended, x);
	return x;
}

const struct process_result *
process_exec_result(const struct process_exec *x)
{
	return &x->result;
}

static void
free_exec(uv_handle_t *handle)
{
	free(handle->data);
}

void
process_exec_free(struct process_exec *x)
{
	if (x == NULL)
		return;
	end_input(x);
	end_stream(&x->out.stream);
	end_stream(&x->err.stream);
	process_free(x->process);
	if (x->input != NULL)
		explicit_bzero(x->input, x->input_length);	/* it may have been a secret */
	free(x->input);
	free(x->out.bytes);
	free(x->err.bytes);
	uv_close((uv_handle_t *)&x->grace, free_exec);
}
