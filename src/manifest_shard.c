/* manifest_shard.c - operations as they are gathered, and the streams that are made of them; see manifest_work.h. */
#include <stdlib.h>
#include <string.h>

#include "manifest_work.h"

void
batch_put(struct manifest_batch *b, enum manifest_phase phase, unsigned char type, const struct buffer *rest)
{
	put_frame(&b->phase[phase], type, rest);
	b->count[phase]++;
}

size_t
batch_count(const struct manifest_batch *b)
{
	size_t count = 0;
	for (int i = 0; i < PHASES; i++)
		count += b->count[i];
	return count;
}

static void
put_unit(struct buffer *b, uint32_t unit)
{
	struct buffer p = { 0 };
	put_number(&p, unit);
	put_frame(b, WORK_UNIT, &p);
	buffer_free(&p);
}

void
batch_append(struct manifest_batch *b, struct manifest_batch *from, uint32_t unit)
{
	for (int i = 0; i < PHASES; i++) {
		if (from->count[i] == 0)
			continue;
		put_unit(&b->phase[i], unit);
		put_bytes(&b->phase[i], from->phase[i].bytes + from->from[i], from->phase[i].length - from->from[i]);
		b->phase[i].failed |= from->phase[i].failed;
		b->count[i] += from->count[i];
		from->count[i] = from->from[i] = from->phase[i].length = 0;
	}
	b->files += from->files;
	b->size += from->size;
	from->files = from->size = 0;
}

void
batch_free(struct manifest_batch *b)
{
	for (int i = 0; i < PHASES; i++)
		buffer_free(&b->phase[i]);
	memset(b, 0, sizeof *b);
}

/* What is being made of a batch. */
struct making {
	struct manifest_work *work;
	struct manifest_shard *shard;
	struct buffer payload;
	size_t room;
	uint32_t unit, said, listed;	/* an index plus one; 0: none */
	bool barrier;		/* something came before this phase */
	bool failed;
};

static void
say_unit(struct making *m)
{
	const struct manifest_work *w = m->work;
	if (m->said == m->unit + 1)
		return;
	m->said = m->unit + 1;
	m->payload.length = 0;
	put_text(&m->payload, w->units[m->unit], w->lengths[m->unit]);
	put_frame(&m->shard->bytes, WORK_UNIT, &m->payload);
}

static bool
room_for_one(struct making *m)
{
	struct manifest_shard *s = m->shard;
	if (s->count < m->room)
		return true;
	size_t room = m->room ? 2 * m->room : 256;
	struct shard_op *more = realloc(s->ops, room * sizeof *more);
	if (!more)
		return false;
	s->ops = more;
	m->room = room;
	return true;
}

static void
say_operation(struct making *m, unsigned char type, const struct reader *rest)
{
	struct manifest_shard *s = m->shard;
	size_t length = (size_t)(rest->end - rest->at);
	struct buffer nothing = { 0 };
	bool made = type == WORK_DIRECTORY && rest->at[--length];
	if (m->barrier)
		put_frame(&s->bytes, WORK_BARRIER, &nothing);
	m->barrier = false;
	say_unit(m);
	if (!room_for_one(m)) {
		m->failed = true;
		return;
	}
	m->payload.length = 0;
	put_number(&m->payload, s->count);
	put_bytes(&m->payload, rest->at, length);
	put_frame(&s->bytes, type, &m->payload);
	s->ops[s->count++] = (struct shard_op){ (uint32_t)(s->bytes.length - length), m->unit, (uint32_t)length, type, made };
}

struct gathered {
	struct reader payload;
	uint32_t unit;
	unsigned char type;
};

/*
 * Operations of a phase in as many lanes as the work says, a step of each in turn: on a file server names of one
 * directory wait for each other, and those of several do not.
 */
static void
say_spread(struct making *m, struct manifest_batch *b, int phase, uint32_t unit)
{
	struct reader r = reader_of(b->phase[phase].bytes, b->phase[phase].length);
	size_t n = 0, all = b->count[phase], lanes = m->work->spread;
	struct gathered *list = calloc(all + 1, sizeof *list);
	r.at += b->from[phase];
	while (list && n < all && !r.failed) {
		unsigned char type = get_byte(&r);
		struct text rest = get_text(&r);
		struct reader payload = reader_of(rest.bytes, rest.length);
		if (type == WORK_UNIT)
			unit = (uint32_t)get_number(&payload);
		else
			list[n++] = (struct gathered){ payload, unit, type };
	}
	m->failed |= !list || r.failed;
	m->barrier = m->shard->count > 0;
	size_t step = (n + lanes - 1) / lanes;
	for (size_t i = 0; i < step; i++)
		for (size_t at = i; at < n && !m->failed; at += step) {
			m->unit = list[at].unit;
			say_operation(m, list[at].type, &list[at].payload);
		}
	b->count[phase] = b->from[phase] = b->phase[phase].length = 0;
	free(list);
}

/* At most `most` operations of a phase, from where the last shard of this batch ended. */
static void
say_phase(struct making *m, struct manifest_batch *b, int phase, size_t most, uint32_t unit)
{
	struct reader r = reader_of(b->phase[phase].bytes, b->phase[phase].length);
	r.at += b->from[phase];
	m->barrier = m->shard->count > 0;
	m->unit = unit;
	while (b->count[phase] > 0 && m->shard->count < most && !m->failed) {
		unsigned char type = get_byte(&r);
		struct text rest = get_text(&r);
		struct reader payload = reader_of(rest.bytes, rest.length);
		if (r.failed)
			m->failed = true;
		else if (type == WORK_UNIT)
			m->unit = (uint32_t)get_number(&payload);
		else {
			say_operation(m, type, &payload);
			b->count[phase]--;
		}
	}
	b->from[phase] = (size_t)(r.at - b->phase[phase].bytes);
	if (b->count[phase] == 0)
		b->from[phase] = b->phase[phase].length = 0;
}

/* Each unit once. */
static bool
list_units(struct making *m)
{
	struct manifest_shard *s = m->shard;
	bool *seen = calloc(m->work->unit_count + 1, sizeof *seen);
	if (!seen)
		return false;
	for (size_t i = 0; i < s->count; i++) {
		uint32_t unit = s->ops[i].unit;
		if (!seen[unit])
			manifest_names_add(&s->units, m->work->units[unit], m->work->lengths[unit]);
		seen[unit] = true;
	}
	free(seen);
	return true;
}

struct manifest_shard *
shard_of_batch(struct manifest_work *w, struct manifest_batch *b, int first, int last, size_t most, uint32_t unit)
{
	struct buffer nothing = { 0 };
	struct making m = { .work = w, .shard = calloc(1, sizeof *m.shard) };
	if (!m.shard)
		return NULL;
	m.shard->references = 1;
	m.shard->id = ++w->made;
	for (int i = first; i <= last && m.shard->count < most; i++) {
		m.failed |= b->phase[i].failed;
		if (i == PHASE_CONTENT && w->spread > 1 && most == SIZE_MAX)
			say_spread(&m, b, i, unit);
		else
			say_phase(&m, b, i, most, unit);
	}
	if (first <= PHASE_CONTENT) {
		m.shard->files = b->files;
		m.shard->size = b->size;
		b->files = b->size = 0;
	}
	put_frame(&m.shard->bytes, WORK_END, &nothing);
	if (!m.failed && !list_units(&m))
		m.failed = true;
	if (m.failed || m.payload.failed || m.shard->bytes.failed || m.shard->units.bytes.failed || m.shard->bytes.length > UINT32_MAX) {
		manifest_shard_release(m.shard);
		m.shard = NULL;
	}
	buffer_free(&m.payload);
	return m.shard;
}

void
manifest_shard_release(struct manifest_shard *s)
{
	if (!s || atomic_fetch_sub(&s->references, 1) != 1)
		return;
	for (int i = 0; i < REFUSALS; i++)
		manifest_names_free(&s->refused[i].examples);
	manifest_names_free(&s->units);
	buffer_free(&s->bytes);
	free(s->ops);
	free(s);
}
