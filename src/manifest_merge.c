/* manifest_merge.c - what a scan says of a unit, merged into what was known of it; see manifest.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "manifest.h"

#define SETTLED_SECONDS 2
#define SERVER_SECONDS  60	/* that its clock may be behind that of the machine which mounts it */

/* The entries as they came, each looked at before it is believed. */
struct entries {
	struct frame_input in;
	struct buffer path;
	size_t *above;		/* lengths of the paths of the directories this one is in */
	size_t depth, room;
	bool any, there;	/* one is at hand: */
	struct row_side side;
	const char *problem;
};

struct merge {
	struct manifest_scan *scan;
	struct manifest_unit *unit;
	struct manifest_reader old;
	struct manifest_writer new;
	struct pairing pairing;
	struct entries entries;
	struct row row;
	bool have_old;
};

static bool
is_directly_in(const struct entries *e, size_t above)
{
	const unsigned char *path = e->path.bytes;
	size_t length = e->path.length, from = above ? above + 1 : 0;
	return length > from && (above == 0 || path[above] == '/') && !memchr(path + from, '/', length - from);
}

/* Every name is in a directory that came before. */
static bool
is_in_place(struct entries *e, size_t shared)
{
	if (!e->any)
		return e->path.length == 0 && e->side.entry.type == 'd';
	/* what is above the shared bytes is above this path, too */
	while (e->depth > 0 && e->above[e->depth - 1] > shared)
		e->depth--;
	while (e->depth > 0 && e->above[e->depth - 1] > 0 && (e->path.length <= e->above[e->depth - 1] || e->path.bytes[e->above[e->depth - 1]] != '/'))
		e->depth--;
	return e->depth > 0 && is_directly_in(e, e->above[e->depth - 1]);
}

static bool
push_directory(struct entries *e)
{
	if (e->depth == e->room) {
		size_t room = e->room ? 2 * e->room : 32, *above = realloc(e->above, room * sizeof *above);
		if (!above)
			return false;
		e->above = above;
		e->room = room;
	}
	e->above[e->depth++] = e->path.length;
	return true;
}

static bool
comes_after(const struct entries *e, size_t shared, struct text rest)
{
	return entry_order(e->path.bytes + shared, e->path.length - shared, rest.bytes, rest.length) < 0;
}

/*
 * The next entry into e->side.  The order of two paths is that of what follows the bytes they share: a separator
 * among those is at the same place in both.
 */
static bool
entries_next(struct entries *e)
{
	struct frame f;
	e->there = false;
	int there = frame_next(&e->in, &f);
	if (there == 0)
		return true;
	if (there < 0 || f.type != SCAN_ENTRY) {
		e->problem = e->in.problem ? e->in.problem : "malformed";
		return false;
	}
	uint64_t shared = get_number(&f.payload);
	struct text rest = get_text(&f.payload);
	if (f.payload.failed || shared > e->path.length || (e->any && !comes_after(e, (size_t)shared, rest))) {
		e->problem = "out of order";
		return false;
	}
	size_t same = 0;	/* of the rest, which need not be as short as it could be */
	while (same < rest.length && shared + same < e->path.length && rest.bytes[same] == e->path.bytes[shared + same])
		same++;
	e->path.length = (size_t)shared;
	put_bytes(&e->path, rest.bytes, rest.length);
	memset(&e->side, 0, sizeof e->side);
	e->side.known = true;
	e->side.raw.bytes = f.payload.at;
	if (!entry_get(&f.payload, &e->side.entry) || e->path.failed || e->path.length > MANIFEST_PATH
	    || e->side.entry.target.length > MANIFEST_PATH || !entry_path_is_good((struct text){ e->path.bytes, e->path.length }) || !is_in_place(e, (size_t)shared + same)) {
		e->problem = "malformed";
		return false;
	}
	e->side.raw.length = (size_t)(f.payload.at - e->side.raw.bytes);
	e->any = e->there = true;
	if (e->side.entry.type == 'd' && !push_directory(e))
		e->problem = "too deep";
	return !e->problem;
}

static void
entries_free(struct entries *e)
{
	frame_input_free(&e->in);
	buffer_free(&e->path);
	free(e->above);
}

static bool
is_older(struct moment a, struct moment b)
{
	return a.seconds < b.seconds || (a.seconds == b.seconds && a.nanoseconds < b.nanoseconds);
}

static void
add_example(struct manifest_unit *u, struct text path, const struct entry *e)
{
	size_t at = u->example_count;
	if (at == MANIFEST_EXAMPLES && !is_older(u->examples[at - 1].at, e->changed))
		return;
	char *copy = malloc(path.length + 1);
	if (!copy)
		return;
	if (path.length)
		memcpy(copy, path.bytes, path.length);
	copy[path.length] = '\0';
	if (at == MANIFEST_EXAMPLES)
		free(u->examples[--at].path);
	else
		u->example_count++;
	for (; at > 0 && is_older(u->examples[at - 1].at, e->changed); at--)
		u->examples[at] = u->examples[at - 1];
	u->examples[at] = (struct manifest_example){ copy, e->changed, e->type };
}

/* But for its ctime, which other names of an inode change, and their number. */
static bool
is_as_put(const struct entry *a, const struct entry *b)
{
	return a->type == b->type && a->inode == b->inode && a->size == b->size && a->mode == b->mode && a->uid == b->uid && a->gid == b->gid
	       && moment_is(a->modified, b->modified);
}

/*
 * Nobody knows who changed what is on the target, but when; and a directory changes with all that comes into it.  What is as
 * it was known to be is whose it was known to be.
 */
static bool
is_ours(const struct merge *m, const struct row_side *known, const struct entry *found, bool unchanged)
{
	double at = (double)found->changed.seconds + found->changed.nanoseconds / 1e9;
	if (m->scan->side != SIDE_TARGET || unchanged)
		return m->row.ours;
	if (m->row.ours && (!known->known || found->type == 'd' || is_as_put(&known->entry, found)))
		return true;
	for (size_t i = 0; i < m->scan->period_count; i++)
		if (found->type == 'd' || (at >= m->scan->ours_during[i].since && at <= m->scan->ours_during[i].until))
			return true;
	return false;
}

/* What was proven of a name stays so as long as its entry does; not when an edit might not show in it. */
static void
take_entry(struct merge *m, struct row_side *known, const struct row_side *found)
{
	bool unchanged = known->known && entry_is_unchanged(&known->entry, &found->entry);
	m->row.ours = is_ours(m, known, &found->entry, unchanged);
	if (unchanged) {
		if (known->racy)
			known->hashed = known->attributed = known->racy = false;
		known->entry = found->entry;
		known->raw = found->raw;
		return;
	}
	if (known->known)
		m->unit->changed++;
	else
		m->unit->added++;
	add_example(m->unit, m->row.path, &found->entry);
	*known = *found;
}

static void
put_row(struct merge *m)
{
	struct row *row = &m->row;
	if (!row->side[SIDE_SOURCE].known && !row->side[SIDE_TARGET].known)
		return;
	pairing_next(&m->pairing, row);
	unsigned differs = row_difference(&m->pairing, row);
	if (!(differs & DIFFERS_METADATA))
		row->ours = true;
	manifest_comparison_add(m->unit->compared, &m->pairing, row, differs);
	manifest_put(&m->new, row);
}

static bool
step(struct merge *m)
{
	struct entries *e = &m->entries;
	struct row_side *side = &m->row.side[m->scan->side];
	int order = 0;
	if (!e->there)
		order = -1;
	else if (!m->have_old)
		order = 1;
	else
		order = entry_order(m->row.path.bytes, m->row.path.length, e->path.bytes, e->path.length);
	if (order > 0) {
		struct row kept = m->row;	/* it comes after this one */
		memset(&m->row, 0, sizeof m->row);
		m->row.path = (struct text){ e->path.bytes, e->path.length };
		take_entry(m, side, &e->side);
		put_row(m);
		m->row = kept;
	} else {
		if (order == 0) {
			take_entry(m, side, &e->side);
		} else if (side->known) {
			m->unit->removed++;
			side->known = false;
		}
		put_row(m);
		m->have_old = manifest_next(&m->old, &m->row);
	}
	return order < 0 || entries_next(e);
}

/* What changed within a tick of being looked at may change once more without its digest, and some file systems keep seconds. */
/* A file server's times go by a clock of its own. */
static int64_t
settled_seconds(const struct manifest_scan *s)
{
	static const char *const own[] = { "ext4", "xfs", "btrfs", "tmpfs", "zfs", "overlay" };
	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		if (strcmp(s->file_system, own[i]) == 0)
			return SETTLED_SECONDS;
	return SERVER_SECONDS;
}

static bool
is_settled(const struct merge *m)
{
	return m->unit->counts.newest.seconds + settled_seconds(m->scan) < m->scan->clock.seconds;
}

static bool
fill_summary(struct merge *m, bool there)
{
	struct manifest_summary *s = &m->new.side[m->scan->side];
	int other = !m->scan->side;
	struct manifest_summary counted = m->new.side[other];	/* of its rows, as they were put */
	if (there && !manifest_summary_copy(&m->new.side[other], &m->old.side[other]))
		return false;
	m->new.side[other].entries = counted.entries;
	m->new.side[other].bytes = counted.bytes;
	m->new.side[other].ours = counted.ours;
	s->known = true;
	if (is_settled(m)) {
		memcpy(s->digest, m->unit->digest, m->unit->digest_length);
		s->digest_length = m->unit->digest_length;
	}
	s->problems = m->unit->problem_count;
	put_bytes(&s->unreadable, m->unit->unreadable.bytes, m->unit->unreadable.length);
	return !s->unreadable.failed && !m->unit->unreadable.failed;
}

static bool
could_not_be_looked_at(const struct manifest_unit *u)
{
	struct reader r = reader_of(u->unreadable.bytes, u->unreadable.length);
	while (r.at < r.end && !r.failed)
		if (get_text(&r).length == 0)
			return !r.failed;
	return false;
}

/* False: it could not be written, with errno, or is nonsense, with problem. */
static bool
merge_all(struct merge *m, int there)
{
	m->unit->first = !there || !manifest_is_there(&m->old.side[m->scan->side]);
	m->have_old = there && manifest_next(&m->old, &m->row);
	if (!entries_next(&m->entries))
		return false;
	if (!m->entries.there && !could_not_be_looked_at(m->unit))
		m->entries.problem = "without its own directory";
	while (!m->entries.problem && (m->have_old || m->entries.there)) {
		if (atomic_load(&m->scan->sink.abandoned))
			m->entries.problem = "abandoned";
		else if (!step(m))
			return false;
	}
	if (m->entries.problem)
		return false;
	errno = m->old.failed ? EIO : ENOMEM;
	if (m->old.failed || m->pairing.failed || !fill_summary(m, there > 0))
		return false;
	return manifest_commit(&m->new);
}

bool
manifest_merge(struct manifest_scan *s, struct manifest_unit *u)
{
	struct merge m = { .scan = s, .unit = u };
	char *file = manifest_name(u->name, u->length);
	int lock = -1, there = -1;
	bool ok = false;
	m.old.in.fd = m.new.fd = -1;
	frame_input_open(&m.entries.in, s->spool);
	pairing_open(&m.pairing, s->owner);
	errno = ENOMEM;
	if (file && (u->compared = calloc(1, sizeof *u->compared)) && lseek(s->spool, 0, SEEK_SET) == 0 && (lock = manifest_lock(s->at, file)) >= 0
	    && (there = manifest_open(&m.old, s->at, file, NULL)) >= 0 && manifest_create(&m.new, s->at, u->name, u->length))
		ok = merge_all(&m, there);
	if (m.entries.problem)
		manifest_fail(&s->sink.failure, "EFORMAT", "the scan of %.200s is %s", u->name, m.entries.problem);
	else if (!ok)
		manifest_fail_errno(&s->sink.failure, errno, u->name);
	manifest_discard(&m.new);
	if (there > 0)
		manifest_shut(&m.old);
	pairing_close(&m.pairing);
	entries_free(&m.entries);
	if (lock >= 0)
		close(lock);
	free(file);
	return ok;
}
