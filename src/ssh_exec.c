/* ssh_exec.c - one command from its start to its captured result. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "point.h"
#include "ssh_session.h"

struct ssh_exec {
	struct ssh_channel *c;		/* NULL once the result stands */
	struct bytes out, err;
	size_t limit;
	struct stream *to;		/* the command's stdin, while a stream is pumped there */
	struct stream_pump *pump;
	struct ssh_result result;
	char message[640], signal[32];
	bool change;
	void (*done)(void *arg);
	void *arg;
};

static void
let_go(struct ssh_exec *x)
{
	stream_pump_free(x->pump);
	x->pump = NULL;
	if (x->to != NULL)
		x->to->ops->close(x->to);
	x->to = NULL;
	ssh_channel_free(x->c);
	x->c = NULL;
}

static void
finish(struct ssh_exec *x, const char *code, const char *message)
{
	x->result.code = code;
	snprintf(x->message, sizeof x->message, "%s", message);
	x->result.message = x->message;
	x->result.out = bytes_first(&x->out);
	x->result.out_length = bytes_length(&x->out);
	x->result.err = bytes_first(&x->err);
	x->result.err_length = bytes_length(&x->err);
	let_go(x);
	if (x->change)
		point_reach("answered");
	x->done(x->arg);
}

static void
finish_ended(struct ssh_exec *x)
{
	struct ssh_channel *c = x->c;
	char message[640];

	x->err = c->in[1];	/* its last 64 KiB, as the channel kept them */
	c->in[1] = (struct bytes){ NULL, 0, 0, 0 };
	if (c->code != NULL) {
		snprintf(message, sizeof message, "%s%s", c->text,
		         c->sent && strcmp(c->code, "ELOST") == 0 ? "; nobody knows what the command did" : "");
		finish(x, c->code, message);
		return;
	}
	x->result.status = c->status;
	snprintf(x->signal, sizeof x->signal, "%s", c->signal);
	x->result.signal = x->signal[0] != '\0' ? x->signal : NULL;
	finish(x, NULL, "");
}

static void
exec_progress(void *arg)
{
	struct ssh_exec *x = arg;
	struct bytes *in = &x->c->in[0];
	size_t n = bytes_length(in);
	char message[80];

	if (n > x->limit - bytes_length(&x->out)) {
		bytes_append(&x->out, bytes_first(in), x->limit - bytes_length(&x->out));
		snprintf(message, sizeof message, "the command printed more than %zu bytes", x->limit);
		finish(x, "ELIMIT", message);
	} else if (n > 0 && !bytes_append(&x->out, bytes_first(in), n)) {
		finish(x, "ENOMEM", "out of memory");
	} else {
		bytes_used(in, n);
		if (ssh_channel_ended(x->c))
			finish_ended(x);
	}
}

struct ssh_exec *
ssh_exec_start(struct ssh_session *s, const char *command, size_t length, bool change, size_t limit,
               void (*done)(void *arg), void *arg)
{
	struct ssh_exec *x = calloc(1, sizeof *x);

	if (x == NULL || (x->c = ssh_channel_command(s, command, length, change, NULL, NULL)) == NULL) {
		free(x);
		return NULL;
	}
	x->limit = limit;
	x->change = change;
	x->done = done;
	x->arg = arg;
	x->c->end_wanted = true;
	x->c->progress = exec_progress;
	x->c->progress_arg = x;
	return x;
}

bool
ssh_exec_input(struct ssh_exec *x, const char *input, size_t length)
{
	return bytes_append(&x->c->out, input, length);
}

/* Half of the input is not the input: if its source fails, so does the command. */
static void
pumped(void *arg)
{
	struct ssh_exec *x = arg;
	struct stream *failed = stream_pump_failed(x->pump);

	if (failed != NULL && failed != x->to)
		finish(x, failed->code, failed->message);
}

bool
ssh_exec_input_from(struct ssh_exec *x, struct stream *from)
{
	x->c->end_wanted = false;
	x->to = ssh_channel_stream(x->c, SSH_STDIN);
	if (x->to != NULL)
		x->pump = stream_pump_start(x->c->s->loop, from, x->to, pumped, x);
	return x->pump != NULL;
}

const struct ssh_result *
ssh_exec_result(const struct ssh_exec *x)
{
	return &x->result;
}

void
ssh_exec_free(struct ssh_exec *x)
{
	if (x == NULL)
		return;
	let_go(x);
	bytes_free(&x->out);
	bytes_free(&x->err);
	free(x);
}
