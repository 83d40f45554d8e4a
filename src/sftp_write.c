/*
 * sftp_write.c - puts a whole file in place.
 *
 * Blocks go out without waiting for the answers to those before them.  Whatever goes wrong, and
 * whenever the owner loses interest, what was staged is removed before the op is over.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/rand.h>

#include "sftp_request.h"

#define WINDOW 64		/* blocks under way: 2 MiB */

#define OPEN_WRITE    0x02u
#define OPEN_CREATE   0x08u
#define OPEN_TRUNCATE 0x10u
#define OPEN_FRESH    0x20u

enum step { STEP_OPEN, STEP_BLOCKS, STEP_ATTRIBUTES, STEP_SYNC, STEP_CLOSE, STEP_RENAME, STEP_REMOVE };

struct sftp_writing {
	enum step step;
	char *path, *stage;
	const char *content;		/* what is left of it */
	size_t length;
	struct stream *from;
	struct sftp_waker ended_first;	/* the connection may, while the source is waited for */
	bool ended, waiting, staged;
	uint64_t offset;
};

static void proceed(struct sftp_op *op);

void
sftp_writing_free(struct sftp_writing *w)
{
	if (w == NULL)
		return;
	free(w->path);
	free(w->stage);
	free(w);
}

static void
stop_waiting(struct sftp_writing *w)
{
	if (!w->waiting)
		return;
	w->from->ops->when(w->from, STREAM_READ, NULL, NULL);
	w->waiting = false;
}

static void
connection_ended(void *arg)
{
	struct sftp_op *op = arg;

	sftp_op_fail(op, sftp_code(op->c), sftp_message(op->c));
	if (op->writing != NULL && op->in_flight == 0)
		proceed(op);
}

static void
answered(struct sftp_request *r, struct sftp_op *op)
{
	struct sftp_writing *w = op->writing;
	struct packet_reader reader;
	char message[sizeof op->message] = "";
	bool opening = w->step == STEP_OPEN;
	const char *code = sftp_answer(r, opening ? SFTP_HANDLE : SFTP_STATUS, &reader, message, sizeof message);
	const char *handle;
	size_t length;

	if (code != NULL && w->step != STEP_REMOVE) {
		sftp_op_fail(op, code, message);
	} else if (opening) {
		handle = packet_string(&reader, &length);
		w->staged = true;
		if (reader.bad || length == 0 || !bytes_append(&op->handle, handle, length))
			sftp_op_fail(op, "EPROTO", "the sftp server gave no handle");
	}
	proceed(op);
}

static struct sftp_request *
request(struct sftp_op *op, uint8_t type)
{
	struct sftp_request *r = sftp_op_request(op, type, answered);

	if (r == NULL)
		sftp_op_fail(op, "ENOMEM", "out of memory");
	return r;
}

static void
on_handle(struct sftp_op *op, struct sftp_request *r)
{
	if (r != NULL)
		sftp_request_text(r, bytes_first(&op->handle), bytes_length(&op->handle));
}

static void
send_block(struct sftp_op *op, const char *block, size_t length)
{
	struct sftp_writing *w = op->writing;
	struct sftp_request *r = request(op, SFTP_WRITE);

	on_handle(op, r);
	if (r == NULL)
		return;
	sftp_request_offset(r, w->offset);
	sftp_request_text(r, block, length);
	w->offset += length;
	sftp_op_send(op, r);
}

static void
from_readable(void *arg)
{
	struct sftp_op *op = arg;

	op->writing->waiting = false;
	proceed(op);
}

/* One block from the stream.  False when there is none now. */
static bool
block_from_stream(struct sftp_op *op)
{
	struct sftp_writing *w = op->writing;
	char block[SFTP_BLOCK];
	ssize_t n = w->waiting ? STREAM_AGAIN : w->from->ops->read(w->from, block, sizeof block);

	if (n > 0) {
		send_block(op, block, (size_t)n);
		return true;
	}
	if (n == STREAM_FAILED) {
		sftp_op_fail(op, w->from->code, w->from->message);
	} else if (n == STREAM_END) {
		w->ended = true;
	} else if (!w->waiting) {
		w->waiting = true;
		w->from->ops->when(w->from, STREAM_READ, from_readable, op);
	}
	return false;
}

static void
send_blocks(struct sftp_op *op)
{
	struct sftp_writing *w = op->writing;
	size_t n;

	while (op->in_flight < WINDOW && !w->ended && op->code == NULL) {
		if (w->from != NULL) {
			if (!block_from_stream(op))
				break;
			continue;
		}
		n = w->length < SFTP_BLOCK ? w->length : SFTP_BLOCK;
		if (n > 0)
			send_block(op, w->content, n);
		w->content += n;
		w->length -= n;
		w->ended = w->length == 0;
	}
}

static void
send_step(struct sftp_op *op, struct sftp_request *r, enum step step)
{
	op->writing->step = step;
	if (r != NULL)
		sftp_op_send(op, r);
}

static void
send_attributes(struct sftp_op *op)
{
	struct sftp_request *r = request(op, SFTP_FSETSTAT);

	on_handle(op, r);
	if (r != NULL)
		sftp_request_attributes(r, &op->attributes);
	send_step(op, r, STEP_ATTRIBUTES);
}

static void
send_sync(struct sftp_op *op)
{
	static const char name[] = "fsync@openssh.com";
	struct sftp_request *r = request(op, SFTP_EXTENDED);

	if (r != NULL)
		sftp_request_text(r, name, sizeof name - 1);
	on_handle(op, r);
	send_step(op, r, STEP_SYNC);
}

static void
send_close(struct sftp_op *op)
{
	struct sftp_request *r = request(op, SFTP_CLOSE);

	on_handle(op, r);
	bytes_free(&op->handle);
	send_step(op, r, STEP_CLOSE);
}

static void
send_rename(struct sftp_op *op)
{
	static const char name[] = "posix-rename@openssh.com";
	struct sftp_writing *w = op->writing;
	struct sftp_request *r = request(op, sftp_can_rename_over(op->c) ? SFTP_EXTENDED : SFTP_RENAME);

	if (r != NULL && sftp_can_rename_over(op->c))
		sftp_request_text(r, name, sizeof name - 1);
	if (r != NULL) {
		sftp_request_text(r, w->stage, strlen(w->stage));
		sftp_request_text(r, w->path, strlen(w->path));
	}
	send_step(op, r, STEP_RENAME);
}

/* Without an answer to these the op is over all the same: nothing more can be done. */
static void
clean_up(struct sftp_op *op)
{
	struct sftp_writing *w = op->writing;
	struct sftp_request *r = NULL;

	sftp_close_handle(op->c, &op->handle);
	bytes_free(&op->handle);
	w->step = STEP_REMOVE;
	if (w->staged && sftp_code(op->c) == NULL && (r = sftp_op_request(op, SFTP_REMOVE, answered)) != NULL) {
		sftp_request_text(r, w->stage, strlen(w->stage));
		sftp_op_send(op, r);
	}
	if (r == NULL)
		proceed(op);
}

static void
next_step(struct sftp_op *op)
{
	switch (op->writing->step) {
	case STEP_BLOCKS:
		if (op->attributes.valid != 0) {
			send_attributes(op);
			return;
		}
		/* fall through */
	case STEP_ATTRIBUTES:
		if (sftp_can_sync(op->c)) {
			send_sync(op);
			return;
		}
		/* fall through */
	case STEP_SYNC:
		send_close(op);
		return;
	default:
		send_rename(op);
	}
}

/* Whatever happened last, this does what is next. */
static void
proceed(struct sftp_op *op)
{
	struct sftp_writing *w = op->writing;

	if (w->step == STEP_OPEN && op->in_flight == 0)
		w->step = STEP_BLOCKS;
	if (w->step == STEP_BLOCKS && op->code == NULL && !op->freed)
		send_blocks(op);
	if (op->code != NULL || op->freed)
		stop_waiting(w);
	if (op->in_flight > 0 || w->waiting)
		return;
	if (w->step == STEP_REMOVE || (w->step == STEP_RENAME && op->code == NULL)) {
		sftp_wake_cancel(op->c, &w->ended_first);
		op->writing = NULL;
		sftp_writing_free(w);
		sftp_op_finish(op);
	} else if (op->code != NULL || op->freed) {
		clean_up(op);
	} else {
		next_step(op);
		if (op->in_flight == 0)		/* memory ran out */
			clean_up(op);
	}
}

void
sftp_writing_abandon(struct sftp_op *op)
{
	stop_waiting(op->writing);
	op->writing->content = NULL;
	op->writing->ended = true;
	if (op->in_flight == 0)
		proceed(op);
}

static char *
stage_name(const char *path)
{
	size_t size = strlen(path) + sizeof ".rb~01234567";
	unsigned char random[4] = { 0 };
	char *stage = malloc(size);

	RAND_bytes(random, sizeof random);
	if (stage != NULL)
		snprintf(stage, size, "%s.rb~%02x%02x%02x%02x", path, random[0], random[1], random[2], random[3]);
	return stage;
}

static void
send_open(struct sftp_op *op)
{
	struct sftp_writing *w = op->writing;
	struct sftp_request *r = request(op, SFTP_OPEN);
	struct sftp_attributes first = { .valid = op->attributes.valid & SFTP_MODE, .mode = 0600 };

	if (r == NULL)
		return;
	sftp_request_text(r, w->stage, strlen(w->stage));
	sftp_request_number(r, OPEN_WRITE | OPEN_CREATE | OPEN_TRUNCATE | OPEN_FRESH);
	sftp_request_attributes(r, &first);	/* its mode comes at the end; until then it is nobody else's */
	sftp_op_send(op, r);
}

struct sftp_op *
sftp_write_start(struct sftp *c, const char *path, const char *content, size_t length, struct stream *from,
                 const struct sftp_attributes *attributes, void (*done)(void *arg), void *arg)
{
	struct sftp_op *op = sftp_op_new(c, done, arg);
	struct sftp_writing *w = calloc(1, sizeof *w);

	if (w != NULL) {
		w->path = strdup(path);
		w->stage = stage_name(path);
	}
	if (op == NULL || w == NULL || w->path == NULL || w->stage == NULL) {
		sftp_writing_free(w);
		sftp_op_free(op);
		return NULL;
	}
	w->content = content;
	w->length = length;
	w->from = content == NULL ? from : NULL;
	w->ended_first = (struct sftp_waker){ .wake = connection_ended, .arg = op };
	sftp_wake_at_end(c, &w->ended_first);
	op->writing = w;
	if (attributes != NULL)
		op->attributes = *attributes;
	send_open(op);
	if (op->in_flight > 0)
		return op;
	sftp_wake_cancel(c, &w->ended_first);
	op->writing = NULL;
	sftp_writing_free(w);
	sftp_op_free(op);
	return NULL;
}
