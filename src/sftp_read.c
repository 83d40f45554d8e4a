/*
 * sftp_read.c - the content of a file as a stream.
 *
 * A ring of blocks is under way; they are handed on in their order.  A server may give less than was
 * asked for anywhere, not only at the end: then the rest of that block is asked for again.
 */
#include <stdlib.h>
#include <string.h>

#include "sftp_request.h"

#define WINDOW 32		/* blocks: 1 MiB */

#define OPEN_READ 1u

struct block {
	struct sftp_reader *reader;
	struct bytes data;
	uint64_t offset;
	size_t missing;		/* of SFTP_BLOCK */
	bool asked, at_end;
};

struct sftp_reader {
	struct stream base;	/* first */
	struct sftp *c;
	struct sftp_waker waker;
	struct bytes handle;
	struct block blocks[WINDOW];
	size_t head;		/* the block that is handed on next */
	uint64_t offset;	/* of the next block to be asked for */
	size_t in_flight;
	bool opening, at_end, closed;
	void (*ready)(void *arg);
	void *arg;
};

static void
reader_free(struct sftp_reader *f)
{
	sftp_close_handle(f->c, &f->handle);
	sftp_wake_cancel(f->c, &f->waker);
	for (size_t i = 0; i < WINDOW; i++)
		bytes_free(&f->blocks[i].data);
	bytes_free(&f->handle);
	sftp_release(f->c);
	free(f);
}

static bool
readable(const struct sftp_reader *f)
{
	const struct block *b = &f->blocks[f->head];

	if (f->base.code != NULL)
		return true;
	return !f->opening && !b->asked && (bytes_length(&b->data) > 0 || b->at_end);
}

static void
fire(void *arg)
{
	struct sftp_reader *f = arg;
	void (*ready)(void *) = f->ready;

	if (ready == NULL || !readable(f))
		return;
	f->ready = NULL;
	ready(f->arg);
}

static void block_answered(struct sftp_request *r, void *arg);

static void
ask(struct sftp_reader *f, struct block *b)
{
	struct sftp_request *r = sftp_request_new(f->c, SFTP_READ, block_answered, b);

	if (r == NULL) {
		stream_fail(&f->base, "ENOMEM", "out of memory");
		return;
	}
	sftp_request_text(r, bytes_first(&f->handle), bytes_length(&f->handle));
	sftp_request_offset(r, b->offset);
	sftp_request_number(r, (uint32_t)b->missing);
	b->asked = true;
	f->in_flight++;
	sftp_request_send(r);
}

/* Every empty block of the ring is asked for again, further on. */
static void
ask_more(struct sftp_reader *f)
{
	for (size_t i = 0; i < WINDOW && !f->at_end && f->base.code == NULL; i++) {
		struct block *b = &f->blocks[(f->head + i) % WINDOW];

		if (b->asked || b->at_end || bytes_length(&b->data) > 0)
			continue;
		b->offset = f->offset;
		b->missing = SFTP_BLOCK;
		f->offset += SFTP_BLOCK;
		ask(f, b);
	}
}

static void
take_data(struct sftp_reader *f, struct block *b, struct packet_reader *reader)
{
	size_t length;
	const char *data = packet_string(reader, &length);

	if (reader->bad || length == 0 || length > b->missing) {
		stream_fail(&f->base, "EPROTO", "the sftp server's block cannot be read");
	} else if (!bytes_append(&b->data, data, length)) {
		stream_fail(&f->base, "ENOMEM", "out of memory");
	} else {
		b->offset += length;
		b->missing -= length;
		if (b->missing > 0)
			ask(f, b);
	}
}

static void
block_answered(struct sftp_request *r, void *arg)
{
	struct block *b = arg;
	struct sftp_reader *f = b->reader;
	struct packet_reader reader;
	char message[sizeof f->base.message] = "";
	const char *code = sftp_answer(r, SFTP_DATA, &reader, message, sizeof message);

	f->in_flight--;
	b->asked = false;
	if (!f->closed && code == NULL)
		take_data(f, b, &reader);
	else if (code != NULL && strcmp(code, "EOF") == 0)
		b->at_end = f->at_end = true;
	else if (code != NULL)
		stream_fail(&f->base, code, "%s", message);
	sftp_request_free(r);
	if (f->closed && f->in_flight == 0)
		reader_free(f);
	else if (!f->closed)
		fire(f);
}

static void
opened(struct sftp_request *r, void *arg)
{
	struct sftp_reader *f = arg;
	struct packet_reader reader;
	char message[sizeof f->base.message] = "";
	const char *code = sftp_answer(r, SFTP_HANDLE, &reader, message, sizeof message), *handle;
	size_t length;

	f->opening = false;
	if (code != NULL) {
		stream_fail(&f->base, code, "%s", message);
	} else {
		handle = packet_string(&reader, &length);
		if (reader.bad || length == 0 || !bytes_append(&f->handle, handle, length))
			stream_fail(&f->base, "EPROTO", "the sftp server gave no handle");
	}
	sftp_request_free(r);
	if (f->closed) {
		reader_free(f);
		return;
	}
	if (f->base.code == NULL)
		ask_more(f);
	fire(f);
}

static ssize_t
reader_read(struct stream *s, void *buffer, size_t length)
{
	struct sftp_reader *f = (struct sftp_reader *)s;
	size_t total = 0;

	while (total < length && readable(f) && f->base.code == NULL) {
		struct block *b = &f->blocks[f->head];
		size_t n = bytes_length(&b->data);

		if (n == 0)		/* the end; the block stays what it is */
			return (ssize_t)total;
		if (n > length - total)
			n = length - total;
		memcpy((char *)buffer + total, bytes_first(&b->data), n);
		bytes_used(&b->data, n);
		total += n;
		if (bytes_length(&b->data) == 0 && !b->at_end)
			f->head = (f->head + 1) % WINDOW;
	}
	if (!f->opening)
		ask_more(f);
	if (total > 0)
		return (ssize_t)total;
	if (f->base.code != NULL)
		return STREAM_FAILED;
	return STREAM_AGAIN;
}

static void
reader_when(struct stream *s, enum stream_direction d, void (*ready)(void *arg), void *arg)
{
	struct sftp_reader *f = (struct sftp_reader *)s;

	if (d == STREAM_WRITE)
		return;
	f->ready = ready;
	f->arg = arg;
	if (ready != NULL && readable(f))
		sftp_wake_later(f->c, &f->waker);
}

static void
reader_close(struct stream *s)
{
	struct sftp_reader *f = (struct sftp_reader *)s;

	f->closed = true;
	f->ready = NULL;
	if (f->in_flight == 0 && !f->opening)
		reader_free(f);
}

static const struct stream_ops ops = {
	.kind = "sftp file", .read = reader_read, .when = reader_when, .close = reader_close,
};

struct stream *
sftp_read(struct sftp *c, const char *path)
{
	static const struct sftp_attributes none;
	struct sftp_reader *f = calloc(1, sizeof *f);
	struct sftp_request *r = f != NULL ? sftp_request_new(c, SFTP_OPEN, opened, f) : NULL;

	if (r == NULL) {
		free(f);
		return NULL;
	}
	f->base.ops = &ops;
	f->c = c;
	f->waker = (struct sftp_waker){ .wake = fire, .arg = f };
	f->opening = true;
	for (size_t i = 0; i < WINDOW; i++)
		f->blocks[i].reader = f;
	sftp_hold(c);
	sftp_request_text(r, path, strlen(path));
	sftp_request_number(r, OPEN_READ);
	sftp_request_attributes(r, &none);
	sftp_request_send(r);
	return &f->base;
}
