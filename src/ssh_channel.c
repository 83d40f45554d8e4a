/* ssh_channel.c - the life of one channel: its command, its bytes, its end. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "point.h"
#include "ssh_session.h"

#define TAIL (64 * 1024)	/* of a stderr nobody reads */
#define CHUNK (32 * 1024)	/* as much as a packet holds */

void
ssh_channel_fail(struct ssh_channel *c, const char *code, const char *format, ...)
{
	va_list ap;

	if (c->code != NULL || c->closed)	/* what has ended well cannot fail any more */
		return;
	c->code = code;
	va_start(ap, format);
	vsnprintf(c->text, sizeof c->text, format, ap);
	va_end(ap);
	if (c->state == CHANNEL_QUEUED)
		c->state = CHANNEL_OVER;
}

static struct ssh_channel *
channel_new(struct ssh_session *s, const char *request, const char *message, size_t length, const char *host,
            void (*done)(void *arg), void *arg)
{
	struct ssh_channel *c = calloc(1, sizeof *c);

	if (c == NULL)
		return NULL;
	c->message = malloc(length + 1);
	c->host = host != NULL ? strdup(host) : NULL;
	if (c->message == NULL || (host != NULL && c->host == NULL)) {
		free(c->message);
		free(c->host);
		free(c);
		return NULL;
	}
	if (length > 0)
		memcpy(c->message, message, length);
	c->message_length = length;
	c->request = request;
	c->s = s;
	c->users = 1;
	c->keep_tail = true;
	c->on_open = done;
	c->open_arg = arg;
	c->link = s->channels_end;
	*s->channels_end = c;
	s->channels_end = &c->next;
	ssh_session_hold(s);
	if (!ssh_session_alive(s))
		ssh_channel_fail(c, s->code, "%s", s->text);
	else if (request != NULL && s->spare != NULL)
		ssh_channel_opened(c, s->spare);
	ssh_session_kick(s);
	return c;
}

struct ssh_channel *
ssh_channel_command(struct ssh_session *s, const char *command, size_t length, bool change,
                    void (*done)(void *arg), void *arg)
{
	struct ssh_channel *c = channel_new(s, "exec", command, length, NULL, done, arg);

	if (c != NULL)
		c->change = c->sent_due = change;
	return c;
}

struct ssh_channel *
ssh_channel_subsystem(struct ssh_session *s, const char *name, void (*done)(void *arg), void *arg)
{
	return channel_new(s, "subsystem", name, strlen(name), NULL, done, arg);
}

struct ssh_channel *
ssh_channel_dial(struct ssh_session *s, const char *host, int port, void (*done)(void *arg), void *arg)
{
	struct ssh_channel *c = channel_new(s, NULL, NULL, 0, host, done, arg);

	if (c != NULL)
		c->port = port;
	return c;
}

void
ssh_channel_opened(struct ssh_channel *c, LIBSSH2_CHANNEL *lib)
{
	if (c->s->spare == lib)
		c->s->spare = NULL;
	c->lib = lib;
	c->state = c->request != NULL ? CHANNEL_STARTING : CHANNEL_OPEN;
}

struct ssh_channel *
ssh_channel_adopt(struct ssh_session *s, LIBSSH2_CHANNEL *lib)
{
	struct ssh_channel *c = channel_new(s, NULL, NULL, 0, NULL, NULL, NULL);

	if (c == NULL)
		return NULL;
	ssh_channel_opened(c, lib);
	c->opened = true;
	return c;
}

/* The parent that counts points must see "sent" only when the kernel has it all. */
static void
pass_sent(struct ssh_channel *c)
{
	if (!c->sent_due || wire_flush(c->s->wire) != 0 || wire_pending(c->s->wire) > 0)
		return;
	c->sent_due = false;
	point_reach("sent");
}

static void
turn_starting(struct ssh_channel *c)
{
	int rc = libssh2_channel_process_startup(c->lib, c->request, (unsigned)strlen(c->request), c->message,
	                                         (unsigned)c->message_length);

	c->sent = true;
	pass_sent(c);
	if (rc == LIBSSH2_ERROR_EAGAIN)
		return;
	c->state = CHANNEL_OPEN;
	if (rc == LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED)
		ssh_channel_fail(c, "EDENIED", "%s refuses to start %s", c->s->o->host,
		                 strcmp(c->request, "exec") == 0 ? "the command" : c->message);
	else if (rc != 0)
		ssh_session_broken(c->s, rc);
}

/* What may go out: as much as the far side's window and our own patience with the socket allow. */
static void
turn_write(struct ssh_channel *c)
{
	while (bytes_length(&c->out) > 0 && wire_pending(c->s->wire) < CHANNEL_BUFFER) {
		ssize_t n = libssh2_channel_write_ex(c->lib, 0, bytes_first(&c->out), bytes_length(&c->out));

		if (n <= 0) {
			if (n < 0 && n != LIBSSH2_ERROR_EAGAIN && n != LIBSSH2_ERROR_CHANNEL_CLOSED)
				ssh_session_broken(c->s, (int)n);
			return;
		}
		bytes_used(&c->out, (size_t)n);
	}
	if (bytes_length(&c->out) > 0)
		c->s->congested = true;
	else if (c->end_wanted && !c->end_sent)
		c->end_sent = libssh2_channel_send_eof(c->lib) != LIBSSH2_ERROR_EAGAIN;
}

static void
trim_tail(struct ssh_channel *c)
{
	size_t length = bytes_length(&c->in[1]);

	if (c->keep_tail && length > TAIL)
		bytes_used(&c->in[1], length - TAIL);
}

/* Takes what libssh2 has of one of the two outputs, up to `most` kept unread.  True when it had some. */
static bool
take(struct ssh_channel *c, int which, size_t most)
{
	struct bytes *in = &c->in[which];
	char chunk[CHUNK];
	bool some = false;
	ssize_t n;

	while (bytes_length(in) < most || c->discard[which] || (which == 1 && c->keep_tail)) {
		n = libssh2_channel_read_ex(c->lib, which, chunk, sizeof chunk);
		if (n < 0 && n != LIBSSH2_ERROR_EAGAIN)
			ssh_session_broken(c->s, (int)n);
		if (n <= 0)
			break;
		some = true;
		if (!c->discard[which] && !bytes_append(in, chunk, (size_t)n))
			ssh_channel_fail(c, "ENOMEM", "out of memory");
		if (which == 1)
			trim_tail(c);
	}
	return some;
}

static void
note_exit(struct ssh_channel *c)
{
	char *signal = NULL, *message = NULL, *language = NULL;

	c->closed = true;
	c->status = libssh2_channel_get_exit_status(c->lib);
	libssh2_channel_get_exit_signal(c->lib, &signal, NULL, &message, NULL, &language, NULL);
	if (signal != NULL)
		snprintf(c->signal, sizeof c->signal, "%s", signal);
	libssh2_free(c->s->lib, signal);
	libssh2_free(c->s->lib, message);
	libssh2_free(c->s->lib, language);
	bytes_free(&c->out);
}

/* The end of input counts only when everything before it has been taken. */
static void
turn_end(struct ssh_channel *c)
{
	if (!c->in_ended && libssh2_channel_eof(c->lib) == 1)
		c->in_ended = true;
	if (c->in_ended && !c->closed && libssh2_channel_wait_closed(c->lib) == 0)
		note_exit(c);
}

/* Nobody uses it any more.  A request must be answered first, or its answer would stay for ever. */
static void
turn_unused(struct ssh_channel *c)
{
	if (c->state == CHANNEL_STARTING)
		turn_starting(c);
	if (c->state == CHANNEL_OPEN && libssh2_channel_free(c->lib) != LIBSSH2_ERROR_EAGAIN) {
		c->lib = NULL;
		c->state = CHANNEL_OVER;
	}
}

void
ssh_channel_turn(struct ssh_channel *c)
{
	bool some;

	if (c->lib == NULL || c->s->over)
		return;
	if (c->users == 0) {
		turn_unused(c);
		return;
	}
	if (c->state == CHANNEL_STARTING)
		turn_starting(c);
	if (c->sent_due)
		pass_sent(c);
	if (!c->closed)
		turn_write(c);
	do {
		some = take(c, 0, CHANNEL_BUFFER);
		some |= take(c, 1, CHANNEL_BUFFER);
		if (some && c->progress != NULL)
			c->progress(c->progress_arg);
	} while (some && c->users > 0 && c->progress != NULL && !c->s->over);
	if (c->users > 0 && c->state == CHANNEL_OPEN && !c->s->over)
		turn_end(c);
}

void
ssh_channel_drain(struct ssh_channel *c)
{
	if (c->lib == NULL || c->users == 0 || c->state != CHANNEL_OPEN)
		return;
	take(c, 0, (size_t)-1);
	take(c, 1, (size_t)-1);
	turn_end(c);
}

static void
fire_open(struct ssh_channel *c)
{
	if (c->opened || (c->code == NULL && (c->state == CHANNEL_QUEUED || c->state == CHANNEL_STARTING)))
		return;
	c->opened = true;
	if (c->on_open != NULL)
		c->on_open(c->open_arg);
}

static void
call(struct channel_waiter *w)
{
	struct channel_waiter now = *w;

	*w = (struct channel_waiter){ NULL, NULL };
	now.ready(now.arg);
}

/* Any callback may close streams and let the channel go; it stays until the session reaps it. */
void
ssh_channel_fire(struct ssh_channel *c)
{
	if (c->users > 0)
		fire_open(c);
	for (int i = 0; i < 4; i++) {
		struct channel_end *e = c->ends[i];

		if (e != NULL && e->waiting[STREAM_READ].ready != NULL && ssh_end_readable(e))
			call(&e->waiting[STREAM_READ]);
		e = c->ends[i];
		if (e != NULL && e->waiting[STREAM_WRITE].ready != NULL && ssh_end_writable(e))
			call(&e->waiting[STREAM_WRITE]);
	}
	if (c->users > 0 && c->progress != NULL && (c->code != NULL || c->closed))
		c->progress(c->progress_arg);
	if (c->users > 0 && c->on_end.ready != NULL && ssh_channel_ended(c))
		call(&c->on_end);
}

void
ssh_channel_dispose(struct ssh_channel *c)
{
	if (c->next != NULL)
		c->next->link = c->link;
	else
		c->s->channels_end = c->link;
	*c->link = c->next;
	bytes_free(&c->in[0]);
	bytes_free(&c->in[1]);
	bytes_free(&c->out);
	free(c->message);
	free(c->host);
	ssh_session_release(c->s);
	free(c);
}

const char *
ssh_channel_code(const struct ssh_channel *c)
{
	return c->code;
}

const char *
ssh_channel_message(const struct ssh_channel *c)
{
	return c->text;
}

/* Whoever waits does not read stdout any more: left alone, a command that prints would never end. */
void
ssh_channel_wait(struct ssh_channel *c, void (*done)(void *arg), void *arg)
{
	c->on_end = (struct channel_waiter){ done, arg };
	if (done == NULL)
		return;
	if (c->ends[SSH_STDOUT] == NULL && c->ends[SSH_DUPLEX] == NULL && c->progress == NULL) {
		c->discard[0] = true;
		bytes_used(&c->in[0], bytes_length(&c->in[0]));
	}
	ssh_session_kick(c->s);
}

bool
ssh_channel_ended(const struct ssh_channel *c)
{
	return c->closed || c->code != NULL;
}

int
ssh_channel_status(const struct ssh_channel *c)
{
	return c->status;
}

const char *
ssh_channel_signal(const struct ssh_channel *c)
{
	return c->signal[0] != '\0' ? c->signal : NULL;
}

void
ssh_channel_free(struct ssh_channel *c)
{
	if (c == NULL)
		return;
	c->on_open = NULL;
	c->progress = NULL;
	c->on_end = (struct channel_waiter){ NULL, NULL };
	c->users--;
	ssh_session_kick(c->s);
}
