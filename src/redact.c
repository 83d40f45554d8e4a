/*
 * redact.c - see redact.h.
 *
 * Most positions begin no secret.  They are passed by at the price of one multiplication: the first
 * four bytes of every pattern are hashed into a bitmap that stays in the first cache.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "redact.h"
#include "redact_spell.h"

#define FILTER_BITS 18
#define BUCKET_BITS 12
#define MARK_BEFORE "\xc2\xabsecret:"
#define MARK_AFTER  "\xc2\xbb"

struct pattern {
	unsigned char *bytes;
	size_t length;
	const char *name;
	size_t serial;
	struct pattern *next;	/* in its bucket, the longest first */
};

struct redact {
	struct pattern *patterns;	/* once `ready`: sorted by bytes, each once */
	size_t count, size;
	size_t longest;
	size_t serials;
	char **names;
	size_t name_count;
	bool ready;
	uint64_t filter[(1U << FILTER_BITS) / 64];
	struct pattern *buckets[1U << BUCKET_BITS];
};

struct bytes {
	unsigned char *data;
	size_t length, size;
};

/*
 * A region is open while later matches may still overlap it.  What it covers is dropped, and its
 * mark is written when it is closed.
 */
struct redact_stream {
	struct redact *redact;
	struct bytes kept, out;
	bool open;
	size_t end;			/* of the region, from the beginning of what is kept */
	size_t named_by;		/* length of the match that names it */
	const char *name;
};

static inline uint32_t
hash(const unsigned char *p)
{
	uint32_t first;

	memcpy(&first, p, sizeof first);
	return first * 0x9e3779b1U;
}

static inline bool
may_begin(const struct redact *r, const unsigned char *p)
{
	uint32_t h = hash(p) >> (32 - FILTER_BITS);

	return (r->filter[h / 64] >> (h % 64) & 1) != 0;
}

/* Patterns. */

static int
compare(const void *a, const void *b)
{
	const struct pattern *x = a, *y = b;
	int order = memcmp(x->bytes, y->bytes, x->length < y->length ? x->length : y->length);

	return order != 0 ? order : (x->length > y->length) - (x->length < y->length);
}

static int
compare_for_sort(const void *a, const void *b)
{
	const struct pattern *x = a, *y = b;
	int order = compare(a, b);

	return order != 0 ? order : (x->serial > y->serial) - (x->serial < y->serial);
}

static void
pattern_fini(struct pattern *p)
{
	explicit_bzero(p->bytes, p->length);
	free(p->bytes);
}

/* Of patterns that are the same the one added first stays. */
static void
drop_doubles(struct redact *r)
{
	size_t kept = 0;

	for (size_t i = 0; i < r->count; i++) {
		if (kept > 0 && compare(&r->patterns[kept - 1], &r->patterns[i]) == 0)
			pattern_fini(&r->patterns[i]);
		else
			r->patterns[kept++] = r->patterns[i];
	}
	r->count = kept;
}

static void
enter(struct redact *r, struct pattern *p)
{
	uint32_t h = hash(p->bytes);
	uint32_t bit = h >> (32 - FILTER_BITS);
	struct pattern **at = &r->buckets[h >> (32 - BUCKET_BITS)];

	r->filter[bit / 64] |= (uint64_t)1 << (bit % 64);
	while (*at != NULL && (*at)->length > p->length)
		at = &(*at)->next;
	p->next = *at;
	*at = p;
	if (p->length > r->longest)
		r->longest = p->length;
}

static void
make_ready(struct redact *r)
{
	if (r->ready)
		return;
	if (r->count > 0)
		qsort(r->patterns, r->count, sizeof *r->patterns, compare_for_sort);
	drop_doubles(r);
	memset(r->filter, 0, sizeof r->filter);
	memset(r->buckets, 0, sizeof r->buckets);
	for (size_t i = 0; i < r->count; i++)
		enter(r, &r->patterns[i]);
	r->ready = true;
}

struct redact *
redact_new(void)
{
	return calloc(1, sizeof(struct redact));
}

void
redact_free(struct redact *r)
{
	if (r == NULL)
		return;
	for (size_t i = 0; i < r->count; i++)
		pattern_fini(&r->patterns[i]);
	for (size_t i = 0; i < r->name_count; i++)
		free(r->names[i]);
	free(r->patterns);
	free(r->names);
	free(r);
}

static const char *
keep_name(struct redact *r, const char *name)
{
	char **names = realloc(r->names, (r->name_count + 1) * sizeof *names);

	if (names == NULL)
		return NULL;
	r->names = names;
	if ((names[r->name_count] = strdup(name)) == NULL)
		return NULL;
	return names[r->name_count++];
}

struct taking {
	struct redact *redact;
	const char *name;
};

static bool
take_pattern(void *arg, const unsigned char *bytes, size_t length)
{
	struct taking *t = arg;
	struct redact *r = t->redact;
	struct pattern p = { .length = length, .name = t->name, .serial = r->serials++ };

	if (length < REDACT_SHORTEST)
		return true;
	if (r->count == r->size) {
		size_t size = r->size == 0 ? 64 : 2 * r->size;
		struct pattern *patterns = realloc(r->patterns, size * sizeof *patterns);

		if (patterns == NULL)
			return false;
		r->patterns = patterns;
		r->size = size;
	}
	if ((p.bytes = malloc(length)) == NULL)
		return false;
	memcpy(p.bytes, bytes, length);
	r->patterns[r->count++] = p;
	return true;
}

enum redact_added
redact_add(struct redact *r, const char *name, const void *bytes, size_t length)
{
	const unsigned char *p = bytes;
	struct taking t = { .redact = r };

	while (length > 0 && memchr(" \t\r\n", *p, 4) != NULL) {
		p++;
		length--;
	}
	while (length > 0 && memchr(" \t\r\n", p[length - 1], 4) != NULL)
		length--;
	if (length < REDACT_SHORTEST)
		return REDACT_TOO_SHORT;
	if ((t.name = keep_name(r, name)) == NULL)
		return REDACT_NO_MEMORY;
	r->ready = false;
	return redact_spell(p, length, take_pattern, &t) ? REDACT_ADDED : REDACT_NO_MEMORY;
}

/* Finding. */

/* The longest pattern that begins at p, of which `left` bytes are there. */
static const struct pattern *
longest_at(const struct redact *r, const unsigned char *p, size_t left)
{
	const struct pattern *one = r->buckets[hash(p) >> (32 - BUCKET_BITS)];

	while (one != NULL && (one->length > left || memcmp(one->bytes, p, one->length) != 0))
		one = one->next;
	return one;
}

/* The next match that begins in at..stop-1; its place, or stop. */
static size_t
next_match(const struct redact *r, const unsigned char *data, size_t at, size_t stop, size_t length,
           const struct pattern **found)
{
	size_t end = length < REDACT_SHORTEST ? 0 : length - REDACT_SHORTEST + 1;

	if (end > stop)
		end = stop;
	for (; at < end; at++)
		if (may_begin(r, data + at) && (*found = longest_at(r, data + at, length - at)) != NULL)
			return at;
	return stop;
}

/* Whether a pattern goes on after these bytes: the first one behind them in order would be it. */
static bool
is_beginning(const struct redact *r, const unsigned char *p, size_t length)
{
	struct pattern wanted = { .bytes = (unsigned char *)(uintptr_t)p, .length = length };
	size_t low = 0, high = r->count;

	if (length >= REDACT_SHORTEST && !may_begin(r, p))
		return false;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare(&r->patterns[middle], &wanted) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < r->count && r->patterns[low].length > length &&
	       memcmp(r->patterns[low].bytes, p, length) == 0;
}

/* From where on more bytes may decide. */
static size_t
undecided_from(const struct redact *r, const unsigned char *data, size_t length)
{
	size_t at = length >= r->longest && r->longest > 0 ? length - r->longest + 1 : 0;

	if (r->count == 0)
		return length;
	while (at < length && !is_beginning(r, data + at, length - at))
		at++;
	return at;
}

size_t
redact_find(struct redact *r, const void *bytes, size_t length)
{
	const struct pattern *found;

	make_ready(r);
	return next_match(r, bytes, 0, length, length, &found);
}

/* Streams. */

static bool
put(struct bytes *b, const void *data, size_t length)
{
	if (b->size - b->length < length) {
		size_t size = b->length + length + b->length / 2 + 256;
		unsigned char *bigger = realloc(b->data, size);

		if (bigger == NULL)
			return false;
		b->data = bigger;
		b->size = size;
	}
	if (length > 0)
		memcpy(b->data + b->length, data, length);
	b->length += length;
	return true;
}

static bool
close_region(struct redact_stream *s)
{
	s->open = false;
	return put(&s->out, MARK_BEFORE, sizeof MARK_BEFORE - 1) && put(&s->out, s->name, strlen(s->name)) &&
	       put(&s->out, MARK_AFTER, sizeof MARK_AFTER - 1);
}

static void
cover(struct redact_stream *s, size_t at, const struct pattern *found)
{
	if (!s->open || found->length > s->named_by) {
		s->named_by = found->length;
		s->name = found->name;
	}
	if (!s->open || at + found->length > s->end)
		s->end = at + found->length;
	s->open = true;
}

/* Writes what is decided of the data into out; the rest, from *rest on, has to come again. */
static bool
decide(struct redact_stream *s, const unsigned char *data, size_t length, bool all, size_t *rest)
{
	const struct redact *r = s->redact;
	const struct pattern *found = NULL;
	size_t stop = all ? length : undecided_from(r, data, length);
	size_t shown = 0;	/* up to here the data is written, or covered by a closed region */

	for (size_t at = 0; (at = next_match(r, data, at, stop, length, &found)) < stop; at++) {
		if (s->open && at >= s->end) {
			shown = s->end;
			if (!close_region(s))
				return false;
		}
		if (!s->open && !put(&s->out, data + shown, at - shown))
			return false;
		cover(s, at, found);
	}
	if (s->open && s->end <= stop) {
		shown = s->end;
		if (!close_region(s))
			return false;
	}
	if (s->open)
		s->end -= stop;
	else if (!put(&s->out, data + shown, stop - shown))
		return false;
	*rest = stop;
	return true;
}

struct redact_stream *
redact_stream_new(struct redact *r)
{
	struct redact_stream *s = calloc(1, sizeof *s);

	if (s != NULL)
		s->redact = r;
	return s;
}

void
redact_stream_free(struct redact_stream *s)
{
	if (s == NULL)
		return;
	if (s->kept.data != NULL)
		explicit_bzero(s->kept.data, s->kept.size);
	free(s->kept.data);
	free(s->out.data);
	free(s);
}

static const char *
result(const struct redact_stream *s, size_t *safe)
{
	*safe = s->out.length;
	return s->out.length > 0 ? (const char *)s->out.data : "";
}

const char *
redact_stream_feed(struct redact_stream *s, const void *bytes, size_t length, size_t *safe)
{
	struct bytes *kept = &s->kept;
	size_t rest;

	make_ready(s->redact);
	s->out.length = 0;
	if (kept->length == 0) {
		if (!decide(s, bytes, length, false, &rest) ||
		    !put(kept, (const unsigned char *)bytes + rest, length - rest))
			return NULL;
		return result(s, safe);
	}
	if (!put(kept, bytes, length) || !decide(s, kept->data, kept->length, false, &rest))
		return NULL;
	kept->length -= rest;
	memmove(kept->data, kept->data + rest, kept->length);
	return result(s, safe);
}

const char *
redact_stream_flush(struct redact_stream *s, size_t *safe)
{
	size_t rest;

	make_ready(s->redact);
	s->out.length = 0;
	if (!decide(s, s->kept.data, s->kept.length, true, &rest))
		return NULL;
	s->kept.length = 0;
	return result(s, safe);
}
