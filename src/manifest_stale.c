/* manifest_stale.c - directories that were touched and not brought; see manifest_work.h. */
#define XXH_INLINE_ALL
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "manifest_work.h"

struct hashes {
	uint64_t *list;
	size_t count, room;
	bool failed;
};

static void
add(struct hashes *h, const unsigned char *path, size_t length)
{
	uint64_t hash = XXH3_64bits(path, length);
	if (h->count && h->list[h->count - 1] == hash)
		return;
	if (h->count == h->room) {
		size_t room = h->room ? 2 * h->room : 256;
		uint64_t *more = realloc(h->list, room * sizeof *more);
		if (!more) {
			h->failed = true;
			return;
		}
		h->list = more;
		h->room = room;
	}
	h->list[h->count++] = hash;
}

static int
by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static void
sort(struct hashes *h)
{
	if (h->count)
		qsort(h->list, h->count, sizeof *h->list, by_value);
}

static bool
has(const uint64_t *list, size_t count, uint64_t hash)
{
	return count && bsearch(&hash, list, count, sizeof *list, by_value);
}

static void
add_above(struct hashes *h, struct text path)
{
	const unsigned char *slash = path.length ? memrchr(path.bytes, '/', path.length) : NULL;
	if (path.length)
		add(h, path.bytes, slash ? (size_t)(slash - path.bytes) : 0);
}

/* All directories it is in are there.  One after the other has mostly the same. */
static void
add_all_above(struct hashes *h, struct text path, uint64_t *last)
{
	const unsigned char *slash = path.length ? memrchr(path.bytes, '/', path.length) : NULL;
	uint64_t above = slash ? XXH3_64bits(path.bytes, (size_t)(slash - path.bytes)) : 0;
	if (above == *last)
		return;
	*last = above;
	for (; slash; slash = memrchr(path.bytes, '/', path.length)) {
		path.length = (size_t)(slash - path.bytes);
		add(h, path.bytes, path.length);
	}
	add(h, path.bytes, 0);
}

/* What failed may have been begun in its directory, and taken away again. */
static bool
look(struct patches *p, struct hashes *touched, struct hashes *brought, struct hashes *there)
{
	const struct patch *one;
	bool failed = false;
	uint64_t last = 1;
	while ((one = patches_next(p, &failed))) {
		if (one->type == PROVE_ENTRY)
			continue;
		if (one->type != WORK_DIRECTORY || one->made)
			add_above(touched, one->path);
		if (one->type == WORK_DIRECTORY && one->answer.status == RESULT_DONE)
			add(brought, one->path.bytes, one->path.length);
		if (one->type != WORK_REMOVE && one->answer.status == RESULT_DONE)
			add_all_above(there, one->path, &last);
	}
	return !failed && !touched->failed && !brought->failed && !there->failed;
}

bool
stale_of(struct stale *s, struct manifest_work *w, uint32_t unit)
{
	struct hashes touched = { 0 }, brought = { 0 }, there = { 0 };
	bool linked;
	struct patches *p = patches_of(w, unit, &linked);
	bool ok = p && look(p, &touched, &brought, &there);
	patches_free(p);
	size_t left = 0;
	sort(&touched);
	sort(&brought);
	sort(&there);
	for (size_t i = 0; i < touched.count; i++)
		if (!has(brought.list, brought.count, touched.list[i]))
			touched.list[left++] = touched.list[i];
	free(brought.list);
	*s = (struct stale){ touched.list, there.list, left, there.count };
	errno = ENOMEM;
	return ok;
}

bool
stale_has(const struct stale *s, struct text path)
{
	return s->count && has(s->list, s->count, XXH3_64bits(path.bytes, path.length));
}

bool
stale_is_there(const struct stale *s, struct text path)
{
	return has(s->there, s->there_count, XXH3_64bits(path.bytes, path.length));
}

void
stale_free(struct stale *s)
{
	free(s->list);
	free(s->there);
	*s = (struct stale){ NULL, NULL, 0, 0 };
}
