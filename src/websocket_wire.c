/* websocket_wire.c - see websocket_wire.h. */
#include "websocket_wire.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <wslay/wslay.h>

#include "digest.h"
#include "stream.h"

#define TURN    ((size_t)1 << 20)	/* bytes read in one turn: others want the loop too */
#define UNSENT  ((size_t)1 << 20)	/* a peer that pings and does not listen must wait: bytes of our pongs, */
#define UNHEARD 1000			/* and their number */

struct websocket_wire {
	struct websocket_io io;
	void *arg;
	wslay_event_context_ptr lib;
	struct websocket_input *inputs;
	bool channels;
	bool control;			/* the frame that comes is no part of a message */
	bool begun;			/* the message that comes has told its channel */
	struct websocket_input *current;	/* where it goes; NULL: nowhere */
	size_t budget;
	bool full, ended, over;
	unsigned closed;
	char reason[124];
	unsigned long long received;
	struct websocket_failure failure;
};

void
websocket_wire_fail(struct websocket_wire *w, const char *code, const char *format, ...)
{
	va_list ap;

	w->over = true;
	if (w->failure.code != NULL)	/* the first is the reason for what follows */
		return;
	w->failure.code = code;
	va_start(ap, format);
	vsnprintf(w->failure.message, sizeof w->failure.message, format, ap);
	va_end(ap);
}

/* ---- inputs ---- */

/* Of n bytes, how many at the end may be the beginning of the mark. */
static size_t
begun_mark(const struct websocket_input *i, size_t n)
{
	size_t most = i->mark_length > 0 ? i->mark_length - 1 : 0;
	const char *end = bytes_first(&i->in) + n;

	for (size_t k = n < most ? n : most; k > 0; k--)
		if (memcmp(end - k, i->mark, k) == 0)
			return k;
	return 0;
}

size_t
websocket_input_length(const struct websocket_input *i, bool over)
{
	size_t n = bytes_length(&i->in);

	return i->ended || over || n == 0 ? n : n - begun_mark(i, n);
}

void
websocket_input_used(struct websocket_input *i, size_t count)
{
	bytes_used(&i->in, count);
	i->searched = i->searched > count ? i->searched - count : 0;
}

/* The mark is searched for where it may have come to stand with the last bytes.  Returns how many of those follow it. */
static size_t
find_mark(struct websocket_input *i)
{
	size_t n = bytes_length(&i->in), rest;
	char *found;

	if (i->mark_length == 0 || n < i->mark_length)
		return 0;
	found = memmem(bytes_first(&i->in) + i->searched, n - i->searched, i->mark, i->mark_length);
	if (found == NULL) {
		i->searched = n - (i->mark_length - 1);
		return 0;
	}
	rest = n - (size_t)(found - bytes_first(&i->in)) - i->mark_length;
	i->ended = true;
	i->in.end = (size_t)(found - i->in.data);
	return rest;
}

/* What follows a mark is for the next who wanted this channel. */
static struct websocket_input *
input_of(struct websocket_wire *w, unsigned char channel)
{
	struct websocket_input *i = w->inputs;

	while (i != NULL && (i->ended || (w->channels && i->channel != channel)))
		i = i->next;
	return i;
}

static void
take(struct websocket_wire *w, const uint8_t *data, size_t length)
{
	while (w->current != NULL && length > 0) {
		struct websocket_input *i = w->current;
		size_t rest;

		if (!bytes_append(&i->in, data, length)) {
			websocket_wire_fail(w, "ENOMEM", "out of memory");
			return;
		}
		rest = find_mark(i);
		w->full = w->full || bytes_length(&i->in) >= WEBSOCKET_BUFFER;
		if (!i->ended)
			return;
		data += length - rest;
		length = rest;
		w->current = input_of(w, i->channel);
	}
}

void
websocket_wire_want(struct websocket_wire *w, struct websocket_input *input)
{
	struct websocket_input **link = &w->inputs;

	while (*link != NULL)
		link = &(*link)->next;
	input->next = NULL;
	*link = input;
}

void
websocket_wire_unwant(struct websocket_wire *w, struct websocket_input *input)
{
	struct websocket_input **link = &w->inputs;

	while (*link != NULL && *link != input)
		link = &(*link)->next;
	if (*link != NULL)
		*link = input->next;
	if (w->current == input)
		w->current = NULL;
}

/* ---- what libwslay calls ---- */

static bool
has_too_much_unsent(const struct websocket_wire *w)
{
	return wslay_event_get_queued_msg_length(w->lib) >= UNSENT || wslay_event_get_queued_msg_count(w->lib) >= UNHEARD;
}

static ssize_t
on_read(wslay_event_context_ptr lib, uint8_t *buffer, size_t length, int flags, void *arg)
{
	struct websocket_wire *w = arg;
	ssize_t n = STREAM_AGAIN;

	(void)flags;
	w->full = w->full || has_too_much_unsent(w);
	if (!w->full && w->budget > 0 && !w->over)
		n = w->io.read(w->arg, buffer, length < w->budget ? length : w->budget);
	if (n > 0) {
		w->received += (unsigned long long)n;
		w->budget -= (size_t)n;
		return n;
	}
	w->ended = w->ended || n == STREAM_END;
	wslay_event_set_error(lib, n == STREAM_AGAIN ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
	return -1;
}

static ssize_t
on_write(wslay_event_context_ptr lib, const uint8_t *data, size_t length, int flags, void *arg)
{
	struct websocket_wire *w = arg;
	ssize_t n = w->io.write(w->arg, data, length);

	(void)flags;
	if (n > 0)
		return n;
	wslay_event_set_error(lib, n == STREAM_AGAIN ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
	return -1;
}

static int
on_mask(wslay_event_context_ptr lib, uint8_t *buffer, size_t length, void *arg)
{
	(void)lib;
	(void)arg;
	return digest_random(buffer, length) ? 0 : -1;
}

static void
on_frame(wslay_event_context_ptr lib, const struct wslay_event_on_frame_recv_start_arg *frame, void *arg)
{
	struct websocket_wire *w = arg;

	(void)lib;
	w->control = wslay_is_ctrl_frame(frame->opcode);
	if (w->control || frame->opcode == WSLAY_CONTINUATION_FRAME)
		return;
	w->begun = !w->channels;
	w->current = w->channels ? NULL : input_of(w, 0);
}

static void
on_bytes(wslay_event_context_ptr lib, const struct wslay_event_on_frame_recv_chunk_arg *chunk, void *arg)
{
	struct websocket_wire *w = arg;
	const uint8_t *data = chunk->data;
	size_t length = chunk->data_length;

	(void)lib;
	if (w->control || length == 0)
		return;
	if (!w->begun) {
		w->begun = true;
		w->current = input_of(w, *data);
		data++;
		length--;
	}
	if (length > 0)
		take(w, data, length);
}

static void
on_message(wslay_event_context_ptr lib, const struct wslay_event_on_msg_recv_arg *message, void *arg)
{
	struct websocket_wire *w = arg;

	(void)lib;
	if (message->opcode != WSLAY_CONNECTION_CLOSE)
		return;
	w->closed = message->status_code != 0 ? message->status_code : WSLAY_CODE_NO_STATUS_RCVD;
	if (message->msg_length > 2)
		snprintf(w->reason, sizeof w->reason, "%.*s", (int)(message->msg_length - 2), (const char *)message->msg + 2);
}

/* ---- life ---- */

struct websocket_wire *
websocket_wire_new(const struct websocket_io *io, void *arg, bool channels)
{
	static const struct wslay_event_callbacks callbacks = {
		.recv_callback = on_read, .send_callback = on_write, .genmask_callback = on_mask,
		.on_frame_recv_start_callback = on_frame, .on_frame_recv_chunk_callback = on_bytes,
		.on_msg_recv_callback = on_message,
	};
	struct websocket_wire *w = calloc(1, sizeof *w);

	if (w == NULL || wslay_event_context_client_init(&w->lib, &callbacks, w) != 0) {
		free(w);
		return NULL;
	}
	wslay_event_config_set_no_buffering(w->lib, 1);
	wslay_event_config_set_max_recv_msg_length(w->lib, UINT64_C(1) << 62);	/* none is kept as a whole */
	w->io = *io;
	w->arg = arg;
	w->channels = channels;
	return w;
}

void
websocket_wire_free(struct websocket_wire *w)
{
	if (w == NULL)
		return;
	wslay_event_context_free(w->lib);
	free(w);
}

static bool
is_full(const struct websocket_wire *w)
{
	for (const struct websocket_input *i = w->inputs; i != NULL; i = i->next)
		if (bytes_length(&i->in) >= WEBSOCKET_BUFFER)
			return true;
	return false;
}

/* Why nothing will come any more. */
static void
say_over(struct websocket_wire *w, int error)
{
	w->over = true;
	if (w->failure.code != NULL)
		return;
	if (w->closed == WSLAY_CODE_NORMAL_CLOSURE || w->closed == WSLAY_CODE_NO_STATUS_RCVD || w->closed == WSLAY_CODE_GOING_AWAY)
		return;
	if (w->closed != 0)
		websocket_wire_fail(w, "ELOST", "the server closed the connection with code %u%s%s", w->closed,
		                    w->reason[0] != '\0' ? ": " : "", w->reason);
	else if (error == WSLAY_ERR_NOMEM)
		websocket_wire_fail(w, "ENOMEM", "out of memory");
	else if (w->ended)
		websocket_wire_fail(w, "ELOST", "the connection ended without a word");
	else if (error == WSLAY_ERR_CALLBACK_FAILURE)
		websocket_wire_fail(w, "ELOST", "the connection broke");
	else
		websocket_wire_fail(w, "EPROTO", "what came is no frame of a websocket");
}

enum websocket_in
websocket_wire_in(struct websocket_wire *w)
{
	int error;

	if (w->over)
		return WEBSOCKET_OVER;
	w->full = is_full(w);
	w->budget = TURN;
	error = wslay_event_recv(w->lib);
	if (error != 0 || !wslay_event_get_read_enabled(w->lib))
		say_over(w, error);
	if (w->over)
		return WEBSOCKET_OVER;
	if (w->full)
		return WEBSOCKET_FULL;
	return w->budget == 0 ? WEBSOCKET_BUSY : WEBSOCKET_WAIT;
}

bool
websocket_wire_out(struct websocket_wire *w)
{
	if (wslay_event_want_write(w->lib) && wslay_event_send(w->lib) != 0)
		return false;
	return true;
}

bool
websocket_wire_put(struct websocket_wire *w, const void *head, size_t head_length, const void *body, size_t length)
{
	struct wslay_event_msg message = { .opcode = WSLAY_BINARY_FRAME, .msg_length = head_length + length };
	unsigned char *all = malloc(head_length + length + 1);
	bool ok;

	if (all == NULL)
		return false;
	memcpy(all, head, head_length);
	if (length > 0)
		memcpy(all + head_length, body, length);
	message.msg = all;
	ok = wslay_event_queue_msg(w->lib, &message) == 0;
	free(all);
	return ok;
}

void
websocket_wire_ping(struct websocket_wire *w)
{
	struct wslay_event_msg ping = { .opcode = WSLAY_PING };

	wslay_event_queue_msg(w->lib, &ping);
}

void
websocket_wire_close(struct websocket_wire *w, unsigned code)
{
	wslay_event_queue_close(w->lib, (uint16_t)code, NULL, 0);
}

size_t
websocket_wire_unsent(const struct websocket_wire *w)
{
	return wslay_event_get_queued_msg_length(w->lib);
}

bool
websocket_wire_wants_out(const struct websocket_wire *w)
{
	return wslay_event_want_write(w->lib);
}

unsigned long long
websocket_wire_received(const struct websocket_wire *w)
{
	return w->received;
}

unsigned
websocket_wire_closed(const struct websocket_wire *w, const char **reason)
{
	*reason = w->reason;
	return w->closed;
}

const struct websocket_failure *
websocket_wire_failure(const struct websocket_wire *w)
{
	return &w->failure;
}
