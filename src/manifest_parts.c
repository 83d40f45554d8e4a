/* manifest_parts.c - files that an earlier try did not send to their end, as the target says; see manifest_work.h. */
#include <stdlib.h>
#include <string.h>

#include "manifest_work.h"

static bool
get_part(struct reader *r, struct manifest_part *p)
{
	p->unit = get_text(r);
	p->id = get_number(r);
	p->size = get_number(r);
	p->there = get_number(r);
	p->records = get_text(r);
	return !r->failed && p->there <= p->size && p->size > 0 && p->records.length == segment_count(p->size) * SEGMENT_RECORD;
}

static bool
next_part(struct reader *r, struct manifest_part *p)
{
	while (r->at < r->end) {
		const unsigned char *from = r->at;
		unsigned char type = get_byte(r);
		struct text payload = get_text(r);
		struct reader fields = reader_of(payload.bytes, payload.length);
		if (r->failed)
			return false;
		bool good = type == UNFINISHED && get_part(&fields, p);
		p->frame = (struct text){ from, (size_t)(r->at - from) };
		if (good)
			return true;
	}
	return false;
}

static int
by_id(const void *a, const void *b)
{
	uint64_t x = ((const struct manifest_part *)a)->id, y = ((const struct manifest_part *)b)->id;
	return (x > y) - (x < y);
}

bool
parts_take(struct manifest_parts *parts, const void *bytes, size_t length)
{
	struct manifest_part one;
	memset(parts, 0, sizeof *parts);
	put_bytes(&parts->bytes, bytes, length);
	struct reader r = reader_of(parts->bytes.bytes, parts->bytes.length);
	while (!parts->bytes.failed && next_part(&r, &one))
		parts->count++;
	parts->list = calloc(parts->count + 1, sizeof *parts->list);
	if (parts->bytes.failed || !parts->list)
		return false;
	r = reader_of(parts->bytes.bytes, parts->bytes.length);
	for (size_t i = 0; i < parts->count && next_part(&r, &parts->list[i]); i++)
		continue;
	qsort(parts->list, parts->count, sizeof *parts->list, by_id);
	return true;
}

void
parts_free(struct manifest_parts *parts)
{
	buffer_free(&parts->bytes);
	free(parts->list);
	parts->list = NULL;
}

const struct manifest_part *
part_of(const struct manifest_parts *parts, struct text unit, struct text path)
{
	struct manifest_part key = { 0 };
	struct buffer whole = { 0 };
	if (parts->count == 0)
		return NULL;
	if (unit.length != 1 || *unit.bytes != '.') {
		put_bytes(&whole, unit.bytes, unit.length);
		if (path.length)
			put_byte(&whole, '/');
	}
	put_bytes(&whole, path.bytes, path.length);
	key.id = unfinished_id(whole.bytes, whole.length);
	bool good = !whole.failed;
	buffer_free(&whole);
	return good ? bsearch(&key, parts->list, parts->count, sizeof *parts->list, by_id) : NULL;
}

bool
part_has(const struct manifest_part *p, uint64_t size, uint64_t index)
{
	return p && segment_size(p->size) == segment_size(size) && index < segment_count(p->size)
		&& segment_is_there(p->records.bytes + index * SEGMENT_RECORD);
}
