/* manifest_patches.c - the sections of a unit in the spill file, merged; see manifest_work.h. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "manifest_work.h"

#define CHUNK ((size_t)64 << 10)

/* One section: its bytes as they are read, and the patch that is next. */
struct source {
	uint64_t at, end, shard;	/* in the file */
	struct buffer bytes;
	size_t from;
	struct patch patch;
};

struct patches {
	int fd;
	struct source *sources, **heap;
	size_t count, living;
	struct source *given;		/* whose patch was returned last; it moves on at the next call */
};

/* More of the section; false when it ended or cannot be read. */
static bool
fill(int fd, struct source *s)
{
	size_t left = s->bytes.length - s->from, wanted = s->end - s->at < CHUNK ? (size_t)(s->end - s->at) : CHUNK;
	static const unsigned char nothing[4096];
	if (wanted == 0)
		return false;
	if (left)
		memmove(s->bytes.bytes, s->bytes.bytes + s->from, left);
	s->bytes.length = left;
	s->from = 0;
	while (s->bytes.length < left + wanted)
		put_bytes(&s->bytes, nothing, left + wanted - s->bytes.length < sizeof nothing ? left + wanted - s->bytes.length : sizeof nothing);
	if (s->bytes.failed)
		return false;
	for (size_t done = 0; done < wanted;) {
		ssize_t n = pread(fd, s->bytes.bytes + left + done, wanted - done, (off_t)(s->at + done));
		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	s->at += wanted;
	return true;
}

static bool
take(struct source *s, unsigned char type, struct text payload)
{
	struct reader r = reader_of(payload.bytes, payload.length);
	s->patch.type = type;
	s->patch.path = get_text(&r);
	s->patch.side = get_number(&r) == SIDE_TARGET ? SIDE_TARGET : SIDE_SOURCE;
	s->patch.made = get_number(&r) != 0;
	return type == PROVE_ENTRY ? proof_get(&r, &s->patch.answer) : answer_get(&r, &s->patch.answer);
}

/* 1: the next patch of the section is in s->patch; 0: the end; -1: it cannot be read. */
static int
advance(int fd, struct source *s)
{
	for (;;) {
		struct reader r = reader_of(s->bytes.bytes + s->from, s->bytes.length - s->from);
		unsigned char type = get_byte(&r);
		struct text payload = get_text(&r);
		if (!r.failed) {
			s->from = (size_t)(r.at - s->bytes.bytes);
			return take(s, type, payload) ? 1 : -1;
		}
		if (s->at == s->end)
			return s->from == s->bytes.length ? 0 : -1;
		if (!fill(fd, s))
			return -1;
	}
}

static bool
is_before(const struct source *a, const struct source *b)
{
	int order = entry_order(a->patch.path.bytes, a->patch.path.length, b->patch.path.bytes, b->patch.path.length);
	return order ? order < 0 : a->shard < b->shard;
}

static void
sink_down(struct patches *p, size_t at)
{
	for (;;) {
		size_t least = at;
		for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < p->living; child++)
			if (is_before(p->heap[child], p->heap[least]))
				least = child;
		if (least == at)
			return;
		struct source *s = p->heap[at];
		p->heap[at] = p->heap[least];
		p->heap[least] = s;
		at = least;
	}
}

/* The frames of a section of no unit. */
static bool
read_touched(int fd, struct source *s, void (*fn)(void *arg, const struct entry *e), void *arg)
{
	struct entry e;
	for (;;) {
		struct reader r = reader_of(s->bytes.bytes + s->from, s->bytes.length - s->from);
		get_byte(&r);
		struct text payload = get_text(&r);
		if (r.failed) {
			if (s->at == s->end)
				return s->from == s->bytes.length;
			if (!fill(fd, s))
				return false;
			continue;
		}
		struct reader fields = reader_of(payload.bytes, payload.length);
		if (!touched_get(&fields, &e))
			return false;
		fn(arg, &e);
		s->from = (size_t)(r.at - s->bytes.bytes);
	}
}

static bool
has_results(const struct manifest_work *w, uint32_t unit, uint64_t shard)
{
	for (size_t i = 0; i < w->section_count; i++)
		if (w->sections[i].unit == unit && w->sections[i].shard == shard)
			return true;
	return false;
}

bool
touched_of(struct manifest_work *w, uint32_t unit, void (*fn)(void *arg, const struct entry *e), void *arg)
{
	bool ok = true;
	uv_mutex_lock(&w->spilling);
	for (size_t i = 0; ok && i < w->section_count; i++) {
		const struct manifest_section *s = &w->sections[i];
		if (s->unit != NO_UNIT || !has_results(w, unit, s->shard))
			continue;
		struct source source = { .at = s->offset, .end = s->offset + s->length };
		ok = read_touched(w->spill, &source, fn, arg);
		buffer_free(&source.bytes);
	}
	uv_mutex_unlock(&w->spilling);
	return ok;
}

struct patches *
patches_of(struct manifest_work *w, uint32_t unit, bool *linked)
{
	struct patches *p = calloc(1, sizeof *p);
	*linked = false;
	if (!p)
		return NULL;
	uv_mutex_lock(&w->spilling);
	p->fd = w->spill;
	p->sources = calloc(w->section_count + 1, sizeof *p->sources);
	p->heap = calloc(w->section_count + 1, sizeof *p->heap);
	for (size_t i = 0; p->sources && i < w->section_count; i++) {
		const struct manifest_section *s = &w->sections[i];
		if (s->unit != unit)
			continue;
		p->sources[p->count++] = (struct source){ .at = s->offset, .end = s->offset + s->length, .shard = s->shard };
		*linked |= s->linked;
	}
	uv_mutex_unlock(&w->spilling);
	bool ok = p->sources && p->heap;
	for (size_t i = 0; ok && i < p->count; i++) {
		int there = advance(p->fd, &p->sources[i]);
		ok = there >= 0;
		if (there > 0)
			p->heap[p->living++] = &p->sources[i];
	}
	for (size_t i = p->living / 2; i-- > 0;)
		sink_down(p, i);
	if (ok)
		return p;
	patches_free(p);
	return NULL;
}

const struct patch *
patches_next(struct patches *p, bool *failed)
{
	if (p->given) {
		int there = advance(p->fd, p->given);
		p->given = NULL;
		*failed |= there < 0;
		if (there <= 0 && p->living > 0)
			p->heap[0] = p->heap[--p->living];
		sink_down(p, 0);
	}
	if (*failed || p->living == 0)
		return NULL;
	p->given = p->heap[0];
	return &p->given->patch;
}

void
patches_free(struct patches *p)
{
	if (!p)
		return;
	for (size_t i = 0; p->sources && i < p->count; i++)
		buffer_free(&p->sources[i].bytes);
	free(p->sources);
	free(p->heap);
	free(p);
}
