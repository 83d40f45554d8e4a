/* manifest_census.c - what of a source another file system may not hold; see manifest.h. */
#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

#include "manifest.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define EXAMPLES 3

/* Names of one inode in one unit, not all it has. */
struct outer {
	uint64_t inode, device, seen, links;
	size_t example;		/* in names */
};

struct census {
	struct manifest_census *job;
	struct text unit;
	struct links links;		/* of the unit */
	struct outer *outers;		/* of all units; those of this one from `first` on */
	size_t count, room, first;
	struct buffer names;		/* examples of outers, zero-terminated */
	uint64_t *folded;		/* hashes of a directory's path and a name without its case; 0: free */
	size_t folded_count, folded_room;
	struct buffer scratch;
	locale_t locale;
	bool failed;
};

/* "unit/path" at the end of b. */
static void
put_name(struct buffer *b, const struct census *c, struct text path)
{
	bool loose = c->unit.length == 1 && c->unit.bytes[0] == '.';
	if (!loose || path.length == 0)
		put_bytes(b, c->unit.bytes, c->unit.length);
	if (!loose && path.length)
		put_byte(b, '/');
	put_bytes(b, path.bytes, path.length);
}

static void
found(struct census *c, enum census_kind kind, struct text path)
{
	struct manifest_kind *k = &c->job->kinds[kind];
	if (k->count++ >= EXAMPLES)
		return;
	struct buffer name = { 0 };
	put_name(&name, c, path);
	manifest_names_add(&k->examples, name.bytes, name.length);
	buffer_free(&name);
}

/* Lengths of UTF-8 sequences by their first byte; what is none ends it. */
static bool
is_utf8(const unsigned char *at, size_t length)
{
	while (length) {
		size_t n = *at < 0x80 ? 1 : *at >= 0xc2 && *at < 0xe0 ? 2 : *at >= 0xe0 && *at < 0xf0 ? 3 : *at >= 0xf0 && *at < 0xf5 ? 4 : 0;
		if (!n || n > length)
			return false;
		for (size_t i = 1; i < n; i++)
			if ((at[i] & 0xc0) != 0x80)
				return false;
		bool odd = (*at == 0xe0 && at[1] < 0xa0) || (*at == 0xed && at[1] > 0x9f) || (*at == 0xf0 && at[1] < 0x90) || (*at == 0xf4 && at[1] > 0x8f);
		if (odd)
			return false;
		at += n;
		length -= n;
	}
	return true;
}

/* A name without its case, appended to scratch; bytes that are no text stay as they are. */
static void
put_folded(struct census *c, const char *name, size_t length)
{
	mbstate_t state = { 0 };
	locale_t before = uselocale(c->locale);
	while (length) {
		wchar_t w;
		char bytes[MB_LEN_MAX];
		size_t n = mbrtowc(&w, name, length, &state), m = 0;
		if (n == 0 || n > length) {
			memset(&state, 0, sizeof state);
			put_byte(&c->scratch, (unsigned char)*name);
			n = 1;
		} else {
			mbstate_t out = { 0 };
			m = wcrtomb(bytes, (wchar_t)towlower(towupper((wint_t)w)), &out);
			put_bytes(&c->scratch, bytes, m == (size_t)-1 ? 0 : m);
		}
		name += n;
		length -= n;
	}
	uselocale(before);
}

static bool
grow_folded(struct census *c)
{
	size_t room = c->folded_room ? 2 * c->folded_room : 1024;
	uint64_t *more = calloc(room, sizeof *more);
	if (!more)
		return false;
	for (size_t i = 0; i < c->folded_room; i++) {
		if (!c->folded[i])
			continue;
		size_t at = c->folded[i] & (room - 1);
		while (more[at])
			at = (at + 1) & (room - 1);
		more[at] = c->folded[i];
	}
	free(c->folded);
	c->folded = more;
	c->folded_room = room;
	return true;
}

/* Is there a name before it in the same directory that differs in its case only? */
static bool
is_folded_twice(struct census *c, const char *path, size_t length)
{
	const char *slash = memrchr(path, '/', length);
	size_t above = slash ? (size_t)(slash - path) + 1 : 0;
	if (2 * (c->folded_count + 1) > c->folded_room && !grow_folded(c)) {
		c->failed = true;
		return false;
	}
	c->scratch.length = 0;
	put_bytes(&c->scratch, path, above);
	put_folded(c, path + above, length - above);
	uint64_t hash = XXH3_64bits(c->scratch.bytes, c->scratch.length);
	hash += hash == 0;
	size_t at = hash & (c->folded_room - 1);
	while (c->folded[at] && c->folded[at] != hash)
		at = (at + 1) & (c->folded_room - 1);
	if (c->folded[at])
		return true;
	c->folded[at] = hash;
	c->folded_count++;
	return false;
}

static void
look_at_name(struct census *c, struct text path)
{
	const struct manifest_census *q = c->job;
	bool loose = c->unit.length == 1 && c->unit.bytes[0] == '.';
	struct buffer whole = { 0 };
	put_name(&whole, c, path);
	const char *at = (const char *)whole.bytes, *slash = memrchr(at, '/', whole.length);
	size_t above = slash ? (size_t)(slash - at) + 1 : 0, name = whole.length - above;
	if (loose && path.length == 0)
		name = 0;
	if (q->name_max && name > q->name_max)
		found(c, CENSUS_LONG_NAME, path);
	else if (q->path_max && q->base + 1 + whole.length + 1 > q->path_max)
		found(c, CENSUS_LONG_PATH, path);
	if (q->utf8 && !is_utf8((const unsigned char *)at + above, name))
		found(c, CENSUS_NOT_UTF8, path);
	if (q->folds && name && is_folded_twice(c, at, whole.length))
		found(c, CENSUS_CASE, path);
	c->failed |= whole.failed;
	buffer_free(&whole);
}

/* Inodes of which another name may be in another unit. */
static void
look_at_links(struct census *c, const struct row *row)
{
	const struct entry *e = &row->side[SIDE_SOURCE].entry;
	struct link *link = links_enter(&c->links, e, 1);
	c->failed |= c->links.failed;
	if (!link)
		return;
	if (!link->value) {
		if (c->count == c->room) {
			size_t room = c->room ? 2 * c->room : 64;
			struct outer *more = realloc(c->outers, room * sizeof *more);
			if (!more) {
				c->failed = true;
				return;
			}
			c->outers = more;
			c->room = room;
		}
		c->outers[c->count++] = (struct outer){ e->inode, e->device, 0, e->links, c->names.length };
		link->value = (uint32_t)c->count;
		put_name(&c->names, c, row->path);
		put_byte(&c->names, 0);
	}
	c->outers[link->value - 1].seen++;
}

static void
leave_unit(struct census *c)
{
	size_t left = c->first;
	for (size_t i = c->first; i < c->count; i++)
		if (c->outers[i].seen < c->outers[i].links)
			c->outers[left++] = c->outers[i];
	c->first = c->count = left;
	links_free(&c->links);
	free(c->folded);
	c->folded = NULL;
	c->folded_count = c->folded_room = 0;
}

static void
look_at_row(struct census *c, const struct row *row)
{
	const struct entry *e = &row->side[SIDE_SOURCE].entry;
	if (!row->side[SIDE_SOURCE].known)
		return;
	if (e->type == 'p' || e->type == 's')
		found(c, e->type == 'p' ? CENSUS_PIPE : CENSUS_SOCKET, row->path);
	else if (e->type == 'b' || e->type == 'c')
		found(c, CENSUS_DEVICE, row->path);
	else if (e->type == 'l')
		found(c, CENSUS_SYMLINK, row->path);
	else if (e->type == 'f' && c->job->size_max && e->size > c->job->size_max)
		found(c, CENSUS_LARGE, row->path);
	look_at_name(c, row->path);
	look_at_links(c, row);
}

static bool
look_at_unit(int directory, const char *file, void *arg)
{
	struct census *c = ((struct manifest_census *)arg)->state;
	struct manifest_reader r;
	struct row row;
	int there = manifest_open(&r, directory, file, NULL);
	if (there < 0)
		manifest_fail_errno(&c->job->job.failure, errno, file);
	if (there <= 0)
		return there == 0;
	c->unit = r.unit;
	while (!c->failed && !atomic_load(&c->job->job.abandoned) && manifest_next(&r, &row))
		look_at_row(c, &row);
	if (r.failed || c->failed)
		manifest_fail_errno(&c->job->job.failure, r.failed ? EIO : ENOMEM, file);
	leave_unit(c);
	manifest_shut(&r);
	return !c->job->job.failure.code && !atomic_load(&c->job->job.abandoned);
}

static int
by_inode(const void *a, const void *b)
{
	const struct outer *x = a, *y = b;
	if (x->device != y->device)
		return x->device < y->device ? -1 : 1;
	return x->inode < y->inode ? -1 : x->inode > y->inode;
}

/* Both names are told where both are in the tree. */
static void
count_links(struct census *c)
{
	struct manifest_kind *across = &c->job->kinds[CENSUS_LINKED], *outside = &c->job->kinds[CENSUS_LINKED_OUT];
	const char *names = (const char *)c->names.bytes;
	if (c->count)
		qsort(c->outers, c->count, sizeof *c->outers, by_inode);
	for (size_t i = 0, n; i < c->count; i += n) {
		uint64_t seen = 0;
		for (n = 0; i + n < c->count && by_inode(&c->outers[i], &c->outers[i + n]) == 0; n++)
			seen += c->outers[i + n].seen;
		struct manifest_kind *k = n > 1 ? across : outside;
		size_t before = k->examples.count;
		k->count += seen;
		const char *one = names + c->outers[i].example, *other = n > 1 ? names + c->outers[i + 1].example : NULL;
		if (other && strcmp(other, one) < 0) {
			const char *later = one;
			one = other;
			other = later;
		}
		if (before < EXAMPLES)
			manifest_names_add(&k->examples, one, strlen(one));
		if (before < EXAMPLES && other)
			manifest_names_add(&k->examples, other, strlen(other));
	}
}

void
manifest_census_run(struct manifest_job *job)
{
	struct census c = { .job = (struct manifest_census *)job };
	c.locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	if (!c.locale) {
		manifest_fail(&job->failure, "ENOENT", "there is no locale C.UTF-8");
		return;
	}
	c.job->state = &c;
	manifest_each(job, c.job->directory, look_at_unit);
	c.job->state = NULL;
	if (!job->failure.code)
		count_links(&c);
	if (c.names.failed || c.scratch.failed)
		manifest_fail_errno(&job->failure, ENOMEM, c.job->directory);
	freelocale(c.locale);
	free(c.outers);
	free(c.folded);
	links_free(&c.links);
	buffer_free(&c.names);
	buffer_free(&c.scratch);
}

void
manifest_census_release(struct manifest_job *job)
{
	struct manifest_census *c = (struct manifest_census *)job;
	for (int i = 0; i < CENSUS_KINDS; i++)
		manifest_names_free(&c->kinds[i].examples);
	free(c->directory);
}
