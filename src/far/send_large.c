/*
 * send_large.c - files that go in segments, so that a cut costs one of them.
 *
 * A segment that was there already is not read again when the source is as it was then; else it is read, and sent only
 * when it differs.
 */
#define XXH_INLINE_ALL
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "content.h"
#include "pace.h"
#include "send.h"

static void
state_of(const struct entry *e, bool racy, unsigned char state[static SEGMENT_STATE])
{
	const uint64_t fields[] = {
		e->size, e->inode, e->device, (uint64_t)e->modified.seconds, e->modified.nanoseconds, (uint64_t)e->changed.seconds,
		e->changed.nanoseconds,
	};
	XXH64_canonical_t canonical;
	XXH64_canonicalFromHash(&canonical, XXH3_64bits(fields, sizeof fields));
	memcpy(state, canonical.digest, SEGMENT_STATE);
	state[0] |= 0x80;	/* never zeros */
	state[SEGMENT_STATE - 1] = (unsigned char)((state[SEGMENT_STATE - 1] & ~SEGMENT_RACY) | (racy ? SEGMENT_RACY : 0));
}

bool
part_get(struct reader *r, struct part *p)
{
	p->settles = get_number(r) != 0;
	p->size = get_number(r);
	p->from = get_number(r);
	p->to = get_number(r);
	struct text records = get_text(r);
	if (r->failed || p->to < p->from || p->to > segment_count(p->size) || records.length != (p->to - p->from) * SEGMENT_RECORD)
		return false;
	p->records = far_memory(records.length);
	memcpy(p->records, records.bytes, records.length);
	return true;
}

void
part_free(struct part *p)
{
	free(p->records);
}

/* All of it, of which nothing is there. */
static void
take_all(struct part *p, uint64_t size)
{
	free(p->records);
	*p = (struct part){ .settles = true, .size = size, .to = segment_count(size) };
	p->records = far_memory((size_t)p->to * SEGMENT_RECORD);
}

/* It is longer or shorter than it was: segments are where they were as long as they have the same length. */
static void
resize(struct part *p, uint64_t size)
{
	uint64_t count = segment_count(size), kept = count < p->to ? count : p->to;
	unsigned char *records = far_memory((size_t)count * SEGMENT_RECORD);
	if (segment_size(size) == segment_size(p->size))
		memcpy(records, p->records, (size_t)kept * SEGMENT_RECORD);
	free(p->records);
	p->records = records;
	p->size = size;
	p->to = count;
}

void
send_begin(struct file *f, uint64_t size)
{
	bool again = f->begun;
	if (!again)
		f->id = send_next_id();
	send_put_id(f->out, f->id);
	if (!again)
		send_put_head(f->out, f->op);
	put_number(f->out, size);
	out_frame(again ? DATA_AGAIN : DATA_UNFINISHED, f->out);
	f->begun = f->large = true;
}

static bool
send_bytes(void *arg, uint64_t offset, const unsigned char *bytes, size_t length)
{
	struct file *f = arg;
	pace_bytes(length);
	send_put_id(f->out, f->id);
	put_number(f->out, offset);
	put_text(f->out, bytes, length);
	out_frame(DATA_CHUNK, f->out);
	return true;
}

static void
say_segment(struct file *f, uint64_t index, bool as_it_was, const unsigned char *record)
{
	send_put_id(f->out, f->id);
	put_number(f->out, index);
	put_number(f->out, as_it_was);
	put_bytes(f->out, record, SEGMENT_RECORD);
	out_frame(DATA_SEGMENT, f->out);
}

static int
send_segment(struct file *f, int fd, const struct entry *e, uint64_t index, const unsigned char *state)
{
	unsigned char *record = f->op->part.records + (index - f->op->part.from) * SEGMENT_RECORD, hash[ENTRY_HASH];
	bool there = segment_is_there(record), same = false;
	int error = 0;
	if (there && !(record[SEGMENT_STATE - 1] & SEGMENT_RACY) && memcmp(record, state, SEGMENT_STATE - 1) == 0
	    && record[SEGMENT_STATE - 1] == (state[SEGMENT_STATE - 1] & ~SEGMENT_RACY))
		return 0;
	if (there) {
		error = content_segment(fd, e, index, NULL, NULL, hash);
		same = !error && memcmp(hash, record + SEGMENT_STATE, ENTRY_HASH) == 0;
	}
	if (!error && !same)
		error = content_segment(fd, e, index, send_bytes, f, hash);
	if (error)
		return error;
	memcpy(record, state, SEGMENT_STATE);
	memcpy(record + SEGMENT_STATE, hash, ENTRY_HASH);
	say_segment(f, index, same, record);
	return 0;
}

static int
end(struct file *f, int fd, const struct entry *e, const unsigned char *state)
{
	struct stat st;
	struct entry after;
	f->attributes->length = 0;
	int error = attributes_get(f->attributes, fd, -1, NULL);
	if (!error && fstat(fd, &st) != 0)
		error = errno;
	if (error)
		return error;
	entry_of_stat(&after, &st);
	if (!entry_is_untouched(e, &after))
		return EAGAIN;
	send_put_id(f->out, f->id);
	if (f->op->part.settles) {
		send_put_tail(f->out, e, f->attributes, f->racy, NULL);
		put_bytes(f->out, state, SEGMENT_STATE);
	}
	out_frame(f->op->part.settles ? DATA_DONE : DATA_SENT, f->out);
	return 0;
}

int
send_large(struct file *f, int fd, const struct entry *e)
{
	struct part *p = &f->op->part;
	unsigned char state[SEGMENT_STATE];
	int error = 0;
	if (!p->records)
		take_all(p, e->size);
	bool resized = e->size != p->size;
	if (resized && !(p->settles && p->from == 0 && p->to == segment_count(p->size)))
		return EAGAIN;	/* others have other segments of it */
	if (resized)
		resize(p, e->size);
	send_begin(f, e->size);
	state_of(e, f->racy, state);
	for (uint64_t i = p->from; i < p->to && !error; i++)
		error = send_segment(f, fd, e, i, state);
	return error ? error : end(f, fd, e, state);
}
