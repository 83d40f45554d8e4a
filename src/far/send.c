/* send.c - reads what is asked for, with many threads, and only reads. */
#include "content.h"
#include "pace.h"
#include "send.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#define TRIES 3
#define QUEUED ((size_t)4 << 20)

uint64_t
send_next_id(void)
{
	static _Atomic uint64_t next = 1;
	return next++;
}

void
send_put_head(struct buffer *b, const struct op *op)
{
	put_number(b, op->index);
	put_text(b, op->path, strlen(op->path));
	put_expect(b, &op->expect);
}

void
send_put_tail(struct buffer *b, const struct entry *e, const struct buffer *attributes, bool racy, const unsigned char *hash)
{
	entry_put(b, e);
	put_text(b, attributes->bytes, attributes->length);
	put_number(b, racy ? RESULT_RACY : 0);
	if (hash)
		put_bytes(b, hash, ENTRY_HASH);
}

static void
say_failed(const struct op *op, enum result_status status, int error, const char *words)
{
	bool directory = op->type == WORK_DIRECTORY;
	struct buffer p = { 0 };
	put_number(&p, op->index);
	if (directory)
		put_text(&p, op->path, strlen(op->path));
	put_number(&p, status);
	put_number(&p, (uint64_t)error);
	put_text(&p, words, strlen(words));
	out_frame(directory ? DATA_UNSENT : DATA_FAILED, &p);
	buffer_free(&p);
}

static void
say_error(const struct op *op, int error)
{
	if (error == ENOENT || error == ENOTDIR)
		say_failed(op, RESULT_VANISHED, error, "gone");
	else if (error == EAGAIN || error == ESTALE)
		say_failed(op, RESULT_CHANGING, error, "written to while it was read");
	else
		say_failed(op, RESULT_SOURCE, error, strerror(error));
}

void
send_put_id(struct buffer *b, uint64_t id)
{
	b->length = 0;
	put_number(b, id);
}

/* A file too large for one frame goes in parts. */
static bool
send_part(void *arg, uint64_t offset, const unsigned char *bytes, size_t length)
{
	struct file *f = arg;
	pace_bytes(length);
	send_put_id(f->out, f->id);
	put_number(f->out, offset);
	put_text(f->out, bytes, length);
	out_frame(DATA_CHUNK, f->out);
	return true;
}

static bool
keep_part(void *arg, uint64_t offset, const unsigned char *bytes, size_t length)
{
	struct file *f = arg;
	pace_bytes(length);
	put_number(f->out, offset);
	put_text(f->out, bytes, length);
	f->extents++;
	return true;
}

static void
begin_large(struct file *f, uint64_t size)
{
	if (f->begun) {
		send_put_id(f->out, f->id);
		out_frame(DATA_AGAIN, f->out);
		return;
	}
	f->begun = true;
	f->id = send_next_id();
	send_put_id(f->out, f->id);
	send_put_head(f->out, f->op);
	put_number(f->out, size);
	out_frame(DATA_BEGIN, f->out);
}

/* One try.  EAGAIN: it was written to meanwhile. */
static int
send_open_file(struct file *f, int fd, const struct entry *e)
{
	struct buffer *whole = f->out;
	unsigned char hash[ENTRY_HASH];
	bool large = e->size > CONTENT_CHUNK || f->begun;
	if (large)
		begin_large(f, e->size);
	else
		f->out = f->parts;
	f->parts->length = f->extents = 0;
	int error = content_read(fd, e, large ? send_part : keep_part, f, f->attributes, hash);
	f->out = whole;
	bool same = !large && f->op->type == WORK_CHECK && memcmp(hash, f->op->hash, ENTRY_HASH) == 0;
	if (!error && large) {
		send_put_id(whole, f->id);
		send_put_tail(whole, e, f->attributes, f->racy, hash);
		out_frame(DATA_DONE, whole);
	} else if (!error) {
		whole->length = 0;
		send_put_head(whole, f->op);
		send_put_tail(whole, e, f->attributes, f->racy, hash);
		if (!same) {
			put_number(whole, f->extents);
			put_bytes(whole, f->parts->bytes, f->parts->length);
		}
		out_frame(same ? WORK_CHECK : DATA_WHOLE, whole);
	}
	return error;
}

/* A file whose bytes should be there is read without sending them; what differs is read again, and sent. */
static int
check_large(struct file *f, int fd, const struct entry *e, bool *same)
{
	unsigned char hash[ENTRY_HASH];
	int error = content_read(fd, e, NULL, NULL, f->attributes, hash);
	*same = !error && memcmp(hash, f->op->hash, ENTRY_HASH) == 0;
	if (*same) {
		f->out->length = 0;
		send_put_head(f->out, f->op);
		send_put_tail(f->out, e, f->attributes, f->racy, hash);
		out_frame(WORK_CHECK, f->out);
	}
	return error;
}

static int
send_file_once(struct cursor *c, struct file *f)
{
	struct entry e;
	int fd;
	struct pace_look look = pace_begin();
	int error = content_open(c, f->op->path, &fd, &e);
	pace_end(&look);
	if (error)
		return error;
	bool same = false;
	f->racy = content_is_racy(&e); /* before it is read: that may take long */
	if (f->op->type == WORK_CHECK && e.size > CONTENT_CHUNK && !f->begun)
		error = check_large(f, fd, &e, &same);
	if (!error && !same && (f->large || f->op->part.records || (e.size > SEGMENT_LEAST && !f->begun)))
		error = send_large(f, fd, &e);
	else if (!error && !same)
		error = send_open_file(f, fd, &e);
	close(fd);
	return error;
}

static void
send_file(struct cursor *c, struct op *op)
{
	struct file f = { .op = op, .out = &c->scratch[0], .parts = &c->scratch[1], .attributes = &c->scratch[2] };
	int error = EAGAIN;
	for (int i = 0; i < TRIES && error == EAGAIN; i++)
		error = send_file_once(c, &f);
	if (error && op->part.records && !f.begun)
		send_begin(&f, op->part.size); /* what is there of it already is no use */
	if (error && f.begun) {
		send_put_id(f.out, f.id);
		out_frame(DATA_DROP, f.out);
	}
	if (error)
		say_error(op, error);
}

/* A directory, or what has no bytes. */
static void
send_name(struct cursor *c, const struct op *op)
{
	struct buffer p = { 0 }, attributes = { 0 }, target = { 0 };
	struct entry e = { 0 };
	struct stat st;
	const char *name;
	bool racy = false;
	int error = 0, fd = -1, at = cursor_parent(c, op->path, &name);
	if (at < 0 || fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		error = errno;
	if (!error) {
		entry_of_stat(&e, &st);
		racy = content_is_racy(&e);
		if (e.type == 'f' || (e.type == 'd') != (op->type == WORK_DIRECTORY))
			error = EAGAIN; /* it has become something else */
	}
	if (!error && e.type == 'l')
		error = entry_read_target(&e, at, name, &target);
	if (!error && e.type == 'd') {
		fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		error = fd < 0 ? errno : 0;
	}
	if (!error)
		error = attributes_get(&attributes, fd, at, name);
	if (fd >= 0)
		close(fd);
	if (error) {
		say_error(op, error);
	} else {
		put_number(&p, op->index);
		put_text(&p, op->path, strlen(op->path));
		if (op->type == WORK_NODE)
			put_expect(&p, &op->expect);
		send_put_tail(&p, &e, &attributes, racy, NULL);
		out_frame(op->type, &p);
	}
	buffer_free(&p);
	buffer_free(&attributes);
	buffer_free(&target);
}

static void
free_op(struct op *op)
{
	part_free(&op->part);
	free(op->path);
	free(op);
}

static void
work(struct cursor *c, void *arg)
{
	struct op *op = arg;
	pace_turn();
	if (op->type == WORK_FILE || op->type == WORK_CHECK || op->type == WORK_PART)
		send_file(c, op);
	else
		send_name(c, op);
	free_op(op);
}

/* What needs nothing of ours goes on as it is. */
static void
hand_on(const struct op *op, const char *unit, struct frame *f)
{
	struct buffer p = { 0 };
	if (op->type == WORK_LINK) {
		char *other = path_of(unit, get_text(&f->payload));
		if (!other || f->payload.failed)
			far_die(EX_PROTOCOL, "the work is malformed");
		send_put_head(&p, op);
		put_text(&p, other, strlen(other));
		free(other);
	} else {
		put_number(&p, op->index);
		put_text(&p, op->path, strlen(op->path));
		put_bytes(&p, f->payload.at, (size_t)(f->payload.end - f->payload.at));
	}
	out_frame(op->type, &p);
	buffer_free(&p);
}

static void
take(struct pool *pool, const char *unit, struct frame *f)
{
	struct op *op = far_memory(sizeof *op);
	struct reader *r = &f->payload;
	op->type = f->type;
	op->index = get_number(r);
	op->path = path_of(unit, get_text(r));
	if (!op->path || !op->type || !strchr("FPMNHDX", op->type))
		far_die(EX_PROTOCOL, "the work is malformed");
	if (op->type != WORK_DIRECTORY && op->type != WORK_REMOVE)
		op->expect = get_expect(r);
	if (op->type == WORK_CHECK) {
		const unsigned char *hash = get_bytes(r, ENTRY_HASH);
		if (hash)
			memcpy(op->hash, hash, ENTRY_HASH);
	}
	if (r->failed || (op->type == WORK_PART && !part_get(r, &op->part)))
		far_die(EX_PROTOCOL, "the work is malformed");
	if (op->type == WORK_LINK || op->type == WORK_REMOVE) {
		hand_on(op, unit, f);
		free_op(op);
	} else {
		pool_add(pool, work, op, sizeof *op + strlen(op->path));
	}
}

int
far_send(const struct far_options *o)
{
	int root = open(o->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		far_die(EX_NOINPUT, "%s: %s", o->root, strerror(errno));
	struct pool *pool = pool_open(far_threads(o, root), root, false, QUEUED);
	struct buffer nothing = { 0 };
	struct frame_input in;
	struct frame f;
	char *unit = NULL;
	bool ended = false;
	pace_open(o, true);
	far_widen(STDOUT_FILENO);
	frame_input_open(&in, STDIN_FILENO);
	while (!ended && frame_next(&in, &f) == 1) {
		if (f.type == WORK_UNIT) {
			free(unit);
			struct text t = get_text(&f.payload);
			unit = far_memory(t.length + 1);
			memcpy(unit, t.bytes, t.length);
		} else if (f.type == WORK_BARRIER || f.type == WORK_END) {
			pool_wait(pool);
			out_frame(f.type, &nothing);
			out_flush();
			ended = f.type == WORK_END;
		} else if (unit) {
			take(pool, unit, &f);
		} else {
			far_die(EX_PROTOCOL, "the work is malformed");
		}
	}
	if (!ended)
		far_die(EX_PROTOCOL, "the work is %s", in.problem ? in.problem : "cut");
	pool_close(pool);
	frame_input_free(&in);
	free(unit);
	close(root);
	return 0;
}
