/* sftp_op.c - what takes one request, and lists of directories. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sftp_request.h"

struct sftp_op *
sftp_op_new(struct sftp *c, void (*done)(void *arg), void *arg)
{
	struct sftp_op *op = calloc(1, sizeof *op);

	if (op == NULL)
		return NULL;
	op->c = c;
	op->done = done;
	op->arg = arg;
	sftp_hold(c);
	return op;
}

static void
op_dispose(struct sftp_op *op)
{
	sftp_writing_free(op->writing);
	bytes_free(&op->text);
	bytes_free(&op->handle);
	sftp_release(op->c);
	free(op);
}

void
sftp_op_fail(struct sftp_op *op, const char *code, const char *message)
{
	if (op->code != NULL)
		return;
	op->code = code;
	snprintf(op->message, sizeof op->message, "%s", message);
}

void
sftp_op_finish(struct sftp_op *op)
{
	if (op->freed)
		op_dispose(op);
	else
		op->done(op->arg);
}

static void
op_answered(struct sftp_request *r, void *arg)
{
	struct sftp_op *op = arg;

	op->in_flight--;
	r->answered(r, op);
	sftp_request_free(r);
}

struct sftp_request *
sftp_op_request(struct sftp_op *op, uint8_t type, void (*answered)(struct sftp_request *r, struct sftp_op *op))
{
	struct sftp_request *r = sftp_request_new(op->c, type, op_answered, op);

	if (r != NULL)
		r->answered = answered;
	return r;
}

void
sftp_op_send(struct sftp_op *op, struct sftp_request *r)
{
	op->in_flight++;
	sftp_request_send(r);
}

/* The one answer of a simple op. */
static void
simple_answered(struct sftp_request *r, struct sftp_op *op)
{
	struct packet_reader reader;
	char message[sizeof op->message] = "";
	const char *code = sftp_answer(r, op->expected, &reader, message, sizeof message), *text;
	size_t length;

	if (code != NULL) {
		sftp_op_fail(op, code, message);
	} else if (op->expected == SFTP_ATTRS) {
		sftp_read_attributes(&reader, &op->attributes);
	} else if (op->expected == SFTP_NAME) {
		if (packet_u32(&reader) != 1)
			reader.bad = true;
		text = packet_string(&reader, &length);
		if (!bytes_append(&op->text, text, length))
			sftp_op_fail(op, "ENOMEM", "out of memory");
	}
	if (code == NULL && reader.bad)
		sftp_op_fail(op, "EPROTO", "the sftp server's answer cannot be read");
	sftp_op_finish(op);
}

static void list_next(struct sftp_op *op);

static void
list_end(struct sftp_op *op)
{
	sftp_close_handle(op->c, &op->handle);
	sftp_op_finish(op);
}

/* Keeps each entry as it came: name, the long form that nobody needs, attributes. */
static void
list_entries(struct sftp_op *op, struct packet_reader *reader)
{
	uint32_t count = packet_u32(reader);
	const char *entries = (const char *)reader->at;
	struct sftp_attributes ignored;
	size_t length;

	for (; count > 0 && !reader->bad; count--) {
		packet_string(reader, &length);
		packet_string(reader, &length);
		sftp_read_attributes(reader, &ignored);
	}
	if (reader->bad)
		sftp_op_fail(op, "EPROTO", "the sftp server's list cannot be read");
	else if (!bytes_append(&op->text, entries, (size_t)((const char *)reader->at - entries)))
		sftp_op_fail(op, "ENOMEM", "out of memory");
}

static void
list_answered(struct sftp_request *r, struct sftp_op *op)
{
	struct packet_reader reader;
	char message[sizeof op->message] = "";
	const char *code = sftp_answer(r, SFTP_NAME, &reader, message, sizeof message);

	if (code == NULL)
		list_entries(op, &reader);
	else if (strcmp(code, "EOF") != 0)
		sftp_op_fail(op, code, message);
	if (code != NULL || op->code != NULL || op->freed)
		list_end(op);
	else
		list_next(op);
}

static void
list_next(struct sftp_op *op)
{
	struct sftp_request *r = sftp_op_request(op, SFTP_READDIR, list_answered);

	if (r == NULL) {
		sftp_op_fail(op, "ENOMEM", "out of memory");
		list_end(op);
		return;
	}
	sftp_request_text(r, bytes_first(&op->handle), bytes_length(&op->handle));
	sftp_op_send(op, r);
}

static void
list_opened(struct sftp_request *r, struct sftp_op *op)
{
	struct packet_reader reader;
	char message[sizeof op->message] = "";
	const char *code = sftp_answer(r, SFTP_HANDLE, &reader, message, sizeof message), *handle;
	size_t length;

	if (code != NULL) {
		sftp_op_fail(op, code, message);
		sftp_op_finish(op);
		return;
	}
	handle = packet_string(&reader, &length);
	if (reader.bad || length == 0 || !bytes_append(&op->handle, handle, length)) {
		sftp_op_fail(op, "EPROTO", "the sftp server gave no handle");
		sftp_op_finish(op);
	} else if (op->freed) {
		list_end(op);
	} else {
		list_next(op);
	}
}

static const struct {
	uint8_t request, answer;
} shapes[] = {
	[SFTP_DO_LIST] = { SFTP_OPENDIR, SFTP_HANDLE },
	[SFTP_DO_LSTAT] = { SFTP_LSTAT, SFTP_ATTRS },
	[SFTP_DO_MKDIR] = { SFTP_MKDIR, SFTP_STATUS },
	[SFTP_DO_READLINK] = { SFTP_READLINK, SFTP_NAME },
	[SFTP_DO_REALPATH] = { SFTP_REALPATH, SFTP_NAME },
	[SFTP_DO_REMOVE] = { SFTP_REMOVE, SFTP_STATUS },
	[SFTP_DO_RENAME] = { SFTP_RENAME, SFTP_STATUS },
	[SFTP_DO_RMDIR] = { SFTP_RMDIR, SFTP_STATUS },
	[SFTP_DO_SETSTAT] = { SFTP_SETSTAT, SFTP_STATUS },
	[SFTP_DO_STAT] = { SFTP_STAT, SFTP_ATTRS },
	[SFTP_DO_SYMLINK] = { SFTP_SYMLINK, SFTP_STATUS },
};

struct sftp_op *
sftp_op_start(struct sftp *c, enum sftp_verb verb, const char *path, const char *other,
              const struct sftp_attributes *attributes, void (*done)(void *arg), void *arg)
{
	static const char rename_over[] = "posix-rename@openssh.com";
	static const struct sftp_attributes none;
	bool extended = verb == SFTP_DO_RENAME && sftp_can_rename_over(c);
	struct sftp_op *op = sftp_op_new(c, done, arg);
	struct sftp_request *r = NULL;

	if (op != NULL)
		r = sftp_op_request(op, extended ? SFTP_EXTENDED : shapes[verb].request,
		                    verb == SFTP_DO_LIST ? list_opened : simple_answered);
	if (r == NULL) {
		if (op != NULL)
			op_dispose(op);
		return NULL;
	}
	op->expected = shapes[verb].answer;
	if (extended)
		sftp_request_text(r, rename_over, sizeof rename_over - 1);
	if (verb == SFTP_DO_SYMLINK)	/* OpenSSH has them the other way round than the draft, and everybody follows */
		sftp_request_text(r, other, strlen(other));
	sftp_request_text(r, path, strlen(path));
	if (verb == SFTP_DO_RENAME)
		sftp_request_text(r, other, strlen(other));
	if (verb == SFTP_DO_SETSTAT || verb == SFTP_DO_MKDIR)
		sftp_request_attributes(r, attributes != NULL ? attributes : &none);
	sftp_op_send(op, r);
	return op;
}

const char *
sftp_op_code(const struct sftp_op *op)
{
	return op->code;
}

const char *
sftp_op_message(const struct sftp_op *op)
{
	return op->message;
}

const struct sftp_attributes *
sftp_op_attributes(const struct sftp_op *op)
{
	return &op->attributes;
}

const char *
sftp_op_text(const struct sftp_op *op, size_t *length)
{
	*length = bytes_length(&op->text);
	return *length > 0 ? bytes_first(&op->text) : "";
}

const char *
sftp_op_entry(const struct sftp_op *op, size_t *at, size_t *length, struct sftp_attributes *attributes)
{
	size_t all = bytes_length(&op->text), ignored;
	struct packet_reader r;
	const char *name;

	if (*at >= all)
		return NULL;
	r = (struct packet_reader){ (const unsigned char *)bytes_first(&op->text) + *at, all - *at, false };
	name = packet_string(&r, length);
	packet_string(&r, &ignored);
	sftp_read_attributes(&r, attributes);
	*at = all - r.left;
	return name;
}

void
sftp_op_free(struct sftp_op *op)
{
	if (op == NULL)
		return;
	op->freed = true;
	if (op->in_flight == 0 && op->writing == NULL)
		op_dispose(op);
	else if (op->writing != NULL)
		sftp_writing_abandon(op);
}
