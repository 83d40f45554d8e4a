/* scan_sort.c - names are sorted by their first bytes as a number, which rarely needs a look at the others. */
#include "scan.h"

#include <stdlib.h>
#include <string.h>

struct key {
	uint64_t first;		/* eight bytes after those that all names share */
	uint32_t index;
};

struct sorting {
	const struct directory *directory;
	size_t shared;
};

static size_t
shared_by_all(const struct directory *d)
{
	const char *first = name_of(d, &d->items[0]);
	size_t shared = d->items[0].name;
	for (size_t i = 1; i < d->count; i++) {
		const char *name = name_of(d, &d->items[i]);
		size_t n = 0;
		while (n < shared && name[n] == first[n] && name[n])
			n++;
		shared = n;
	}
	return shared;
}

static uint64_t
number_of(const char *bytes)
{
	uint64_t n = 0;
	for (int i = 0; i < 8; i++) {
		n = n << 8 | (unsigned char)*bytes;
		bytes += *bytes != '\0';
	}
	return n;
}

static bool
is_before(const struct sorting *s, const struct key *a, const struct key *b)
{
	if (a->first != b->first)
		return a->first < b->first;
	const struct item *items = s->directory->items;
	return strcmp(name_of(s->directory, &items[a->index]) + s->shared, name_of(s->directory, &items[b->index]) + s->shared) < 0;
}

static void
insert(const struct sorting *s, struct key *keys, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		struct key k = keys[i];
		size_t at = i;
		for (; at > 0 && is_before(s, &k, &keys[at - 1]); at--)
			keys[at] = keys[at - 1];
		keys[at] = k;
	}
}

/* Runs of eight, then merged two by two, from one half of the room to the other and back. */
static struct key *
merge_all(const struct sorting *s, struct key *from, struct key *to, size_t n)
{
	const size_t run = 8;
	for (size_t at = 0; at < n; at += run)
		insert(s, from + at, n - at < run ? n - at : run);
	for (size_t width = run; width < n; width *= 2) {
		for (size_t at = 0; at < n; at += 2 * width) {
			size_t middle = at + width < n ? at + width : n, end = at + 2 * width < n ? at + 2 * width : n;
			size_t left = at, right = middle;
			for (size_t k = at; k < end; k++) {
				bool second = left == middle || (right < end && is_before(s, &from[right], &from[left]));
				to[k] = from[second ? right++ : left++];
			}
		}
		struct key *swap = from;
		from = to;
		to = swap;
	}
	return from;
}

void
scan_sort(struct directory *d)
{
	struct sorting s = { .directory = d };
	if (d->count < 2)
		return;
	s.shared = shared_by_all(d);
	struct key *keys = far_memory(2 * d->count * sizeof *keys);
	struct item *sorted = far_memory(d->count * sizeof *sorted);
	for (size_t i = 0; i < d->count; i++)
		keys[i] = (struct key){ number_of(name_of(d, &d->items[i]) + s.shared), (uint32_t)i };
	const struct key *order = merge_all(&s, keys, keys + d->count, d->count);
	for (size_t i = 0; i < d->count; i++)
		sorted[i] = d->items[order[i].index];
	free(keys);
	free(d->items);
	d->items = sorted;
	d->room = d->count;
}
