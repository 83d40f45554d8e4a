/*
 * manifest_plan.c - what the rows of a unit ask for, one after the other; see manifest_work.h.
 *
 * Where the target has a directory and the source something else, what is in it follows in order: its removal is put
 * down as it comes and taken back when something turns up in it that is not ours.
 */
#include <stdlib.h>
#include <string.h>

#include "manifest_work.h"

#define EXAMPLES 3

/* A directory the present row is in. */
struct level {
	size_t length;		/* of its path */
	bool source;		/* it is there; else it is only on the target, and */
	bool removal;		/* goes when nothing is kept in it */
	bool in_way;		/* (part of) a directory that must give way to what is none */
	bool blocked;		/* it cannot be made: nor what is in it */
	bool replaced;		/* it comes in the place of what is no directory */
	bool wanted, mendable, touched, kept;
	struct row_side target;	/* inode and times, for its removal */
};

/* The first name of an inode at the source. */
struct leader {
	enum { LEADER_AS_IT_IS, LEADER_SENT, LEADER_REFUSED } state;
	size_t at, length;	/* its path */
};

struct manifest_plan {
	const struct manifest_work *work;
	const struct manifest_summary *source;
	struct pairing pairing;
	struct manifest_batch batch;
	struct manifest_kind refused[REFUSALS];
	struct buffer path, rest, leader_paths;
	struct level *levels;
	size_t depth, room;
	struct leader *leaders;
	size_t leader_count, leader_room;
	struct text unit;
	bool large;			/* it may be cut */
	bool failed;

	/* A file that is more than a shard is sent by several, each a part of it. */
	struct {
		bool under_way;
		struct buffer path, expect;
		const struct manifest_part *part;
		uint64_t size, at;	/* at: a segment */
	} huge;

	/* The directory that must give way, and what was put down before it. */
	bool clearing, foreign;
	struct manifest_batch before;	/* lengths and counts only */
	size_t cleared_leader;		/* plus one */
};

struct manifest_plan *
plan_new(const struct manifest_work *w, const struct manifest_reader *r, struct text unit)
{
	struct manifest_plan *p = calloc(1, sizeof *p);
	if (p) {
		p->work = w;
		p->unit = unit;
		p->source = &r->side[SIDE_SOURCE];
		p->large = 2 * r->rows >= w->most_entries || p->source->bytes >= w->most_bytes;	/* a row may be two operations */
		pairing_open(&p->pairing, w->owner);
	}
	return p;
}

void
plan_free(struct manifest_plan *p)
{
	if (!p)
		return;
	for (int i = 0; i < REFUSALS; i++)
		manifest_names_free(&p->refused[i].examples);
	pairing_close(&p->pairing);
	batch_free(&p->batch);
	buffer_free(&p->path);
	buffer_free(&p->rest);
	buffer_free(&p->leader_paths);
	buffer_free(&p->huge.path);
	buffer_free(&p->huge.expect);
	free(p->levels);
	free(p->leaders);
	free(p);
}

static void
refuse(struct manifest_plan *p, int why, struct text path)
{
	struct manifest_kind *k = &p->refused[why];
	if (k->count++ < EXAMPLES)
		manifest_names_add(&k->examples, path.bytes, path.length);
}

/*
 * What is done to other names of an inode, by another shard, gives this one another ctime.  Only what is replaced or removed
 * may have any: the bytes of a file that keeps them are the ones we know as long as its ctime is.
 */
static void
put_expect(const struct manifest_plan *p, struct buffer *b, const struct row_side *t, bool keeps)
{
	bool any = !keeps && p->large && t->entry.links > 1 && t->entry.type != 'd';
	put_number(b, t->known);
	if (!t->known)
		return;
	put_number(b, t->entry.inode);
	put_signed(b, any ? 0 : t->entry.changed.seconds);
	put_number(b, any ? 0 : t->entry.changed.nanoseconds);
}

static void
begin(struct manifest_plan *p, struct text path)
{
	p->rest.length = 0;
	put_text(&p->rest, path.bytes, path.length);
}

static void
put_removal(struct manifest_plan *p, enum manifest_phase phase, struct text path, const struct row_side *t)
{
	begin(p, path);
	put_byte(&p->rest, (unsigned char)t->entry.type);
	put_expect(p, &p->rest, t, false);
	batch_put(&p->batch, phase, WORK_REMOVE, &p->rest);
}

static struct level *
above(struct manifest_plan *p)
{
	return p->depth ? &p->levels[p->depth - 1] : NULL;
}

static void
touch(struct manifest_plan *p)
{
	if (p->depth)
		above(p)->touched = true;
}

static void
remember(struct manifest_plan *p)
{
	for (int i = 0; i < PHASES; i++) {
		p->before.phase[i].length = p->batch.phase[i].length;
		p->before.count[i] = p->batch.count[i];
	}
	p->before.files = p->batch.files;
	p->before.size = p->batch.size;
	p->clearing = true;
	p->foreign = false;
	p->cleared_leader = 0;
}

static void
take_back(struct manifest_plan *p)
{
	for (int i = 0; i < PHASES; i++) {
		p->batch.phase[i].length = p->before.phase[i].length;
		p->batch.count[i] = p->before.count[i];
	}
	p->batch.files = p->before.files;
	p->batch.size = p->before.size;
	if (p->cleared_leader)
		p->leaders[p->cleared_leader - 1].state = LEADER_REFUSED;
}

/* All that was in the directory has come. */
static void
leave_directory(struct manifest_plan *p, struct level l, struct text path)
{
	if (l.in_way) {
		bool top = !p->depth || !above(p)->in_way;
		if (!p->foreign)
			put_removal(p, PHASE_WAY, path, &l.target);
		if (top && p->foreign) {
			take_back(p);
			refuse(p, REFUSED_WAY, path);
		} else if (top) {
			touch(p);
		}
		if (top)
			p->clearing = false;
	} else if (!l.source) {
		if (l.removal && !l.kept) {
			put_removal(p, PHASE_REMOVALS, path, &l.target);
			touch(p);
			return;
		}
		if (l.removal)
			refuse(p, REFUSED_KEPT, path);
		if (p->depth)
			above(p)->kept = true;
	} else if (!l.blocked && (l.wanted || (l.touched && l.mendable))) {
		begin(p, path);
		put_byte(&p->rest, !l.target.known);	/* is it made?  Not in the stream */
		batch_put(&p->batch, PHASE_DIRECTORIES, WORK_DIRECTORY, &p->rest);
	}
}

static bool
is_in(const struct level *l, struct text path, const unsigned char *before)
{
	return l->length == 0 ? path.length > 0
	     : path.length > l->length && path.bytes[l->length] == '/' && memcmp(path.bytes, before, l->length) == 0;
}

static void
leave_until(struct manifest_plan *p, const struct text *path)
{
	while (p->depth > 0 && !(path && is_in(above(p), *path, p->path.bytes))) {
		struct level l = p->levels[--p->depth];
		leave_directory(p, l, (struct text){ p->path.bytes, l.length });
	}
}

static struct level *
enter(struct manifest_plan *p, const struct row *row)
{
	if (p->depth == p->room) {
		size_t room = p->room ? 2 * p->room : 32;
		struct level *more = realloc(p->levels, room * sizeof *more);
		if (!more) {
			p->failed = true;
			return NULL;
		}
		p->levels = more;
		p->room = room;
	}
	struct level *l = &p->levels[p->depth++];
	memset(l, 0, sizeof *l);
	l->length = row->path.length;
	l->target = row->side[SIDE_TARGET];
	return l;
}

/* The leader of the row's inode at the source, which is this row when there was none; NULL: it has one name. */
static struct leader *
leader_of(struct manifest_plan *p, const struct row *row)
{
	struct link *link = p->pairing.link[SIDE_SOURCE];
	if (!link)
		return NULL;
	if (link->value)
		return &p->leaders[link->value - 1];
	if (p->leader_count == p->leader_room) {
		size_t room = p->leader_room ? 2 * p->leader_room : 32;
		struct leader *more = realloc(p->leaders, room * sizeof *more);
		if (!more) {
			p->failed = true;
			return NULL;
		}
		p->leaders = more;
		p->leader_room = room;
	}
	struct leader *l = &p->leaders[p->leader_count++];
	*l = (struct leader){ LEADER_AS_IT_IS, p->leader_paths.length, row->path.length };
	put_bytes(&p->leader_paths, row->path.bytes, row->path.length);
	link->value = (uint32_t)p->leader_count;
	return l;
}

static uint64_t
segment_length(uint64_t size, uint64_t index)
{
	uint64_t segment = segment_size(size);
	return size - index * segment < segment ? size - index * segment : segment;
}

/* How much of the segments from `from` on has to be sent, until that is `most`; *to becomes where that ends. */
static uint64_t
missing(const struct manifest_part *part, uint64_t size, uint64_t from, uint64_t most, uint64_t *to)
{
	uint64_t bytes = 0, count = segment_count(size);
	for (*to = from; *to < count && bytes < most; ++*to)
		if (!part_has(part, size, *to))
			bytes += segment_length(size, *to);
	return bytes;
}

/* Behind path and expectation, which are in p->rest. */
static void
put_segments(struct manifest_plan *p, enum manifest_phase phase, bool settles, const struct manifest_part *part, uint64_t size,
             uint64_t from, uint64_t to)
{
	static const unsigned char nothing[SEGMENT_RECORD];
	put_number(&p->rest, settles);
	put_number(&p->rest, size);
	put_number(&p->rest, from);
	put_number(&p->rest, to);
	put_number(&p->rest, (to - from) * SEGMENT_RECORD);
	for (uint64_t i = from; i < to; i++)
		put_bytes(&p->rest, part_has(part, size, i) ? part->records.bytes + i * SEGMENT_RECORD : nothing, SEGMENT_RECORD);
	batch_put(&p->batch, phase, WORK_PART, &p->rest);
	p->batch.files += settles;
}

bool
plan_more(struct manifest_plan *p)
{
	uint64_t from = p->huge.at, size = p->huge.size, to;
	if (!p->huge.under_way)
		return false;
	bool last = from == segment_count(size);
	p->batch.size += missing(p->huge.part, size, from, p->work->most_bytes, &to);
	p->rest.length = 0;
	put_text(&p->rest, p->huge.path.bytes, p->huge.path.length);
	put_bytes(&p->rest, p->huge.expect.bytes, p->huge.expect.length);
	put_segments(p, last ? PHASE_WHOLE : PHASE_CONTENT, last, p->huge.part, size, from, to);
	p->huge.at = to;
	p->huge.under_way = !last;
	p->failed |= p->huge.path.failed || p->huge.expect.failed;
	return true;
}

/* A file of which something is there already, or that several shards send.  False: it is sent in one go. */
static bool
put_parts(struct manifest_plan *p, const struct row *row, bool whole, const struct row_side *stands)
{
	uint64_t size = row->side[SIDE_SOURCE].entry.size, to;
	const struct manifest_part *part = size > SEGMENT_LEAST ? part_of(&p->work->parts, p->unit, row->path) : NULL;
	bool huge = (whole || part) && !p->clearing && missing(part, size, 0, UINT64_MAX, &to) > p->work->most_bytes;
	if (size <= SEGMENT_LEAST || (!part && !huge))
		return false;
	begin(p, row->path);
	size_t before = p->rest.length;
	put_expect(p, &p->rest, stands, false);
	if (!huge) {
		p->batch.size += missing(part, size, 0, UINT64_MAX, &to);
		put_segments(p, PHASE_CONTENT, true, part, size, 0, to);
		return true;
	}
	p->huge.path.length = p->huge.expect.length = 0;
	put_bytes(&p->huge.path, row->path.bytes, row->path.length);
	put_bytes(&p->huge.expect, p->rest.bytes + before, p->rest.length - before);
	p->huge.part = part;
	p->huge.size = size;
	p->huge.at = 0;
	p->huge.under_way = true;
	return true;
}

static void
put_content(struct manifest_plan *p, const struct row *row, enum row_action action, const struct row_side *stands)
{
	if (action != ACTION_NODE && put_parts(p, row, action == ACTION_FILE, stands))
		return;
	begin(p, row->path);
	put_expect(p, &p->rest, stands, action == ACTION_CHECK);
	if (action == ACTION_CHECK)
		put_bytes(&p->rest, row->side[SIDE_TARGET].hash, ENTRY_HASH);
	batch_put(&p->batch, PHASE_CONTENT, action == ACTION_FILE ? WORK_FILE : action == ACTION_CHECK ? WORK_CHECK : WORK_NODE, &p->rest);
	if (action != ACTION_NODE)
		p->batch.files++;
	if (action == ACTION_FILE)
		p->batch.size += row->side[SIDE_SOURCE].entry.size;
}

static void
put_link(struct manifest_plan *p, const struct row *row, const struct leader *l, const struct row_side *stands)
{
	begin(p, row->path);
	put_expect(p, &p->rest, stands, false);
	put_text(&p->rest, p->leader_paths.bytes + l->at, l->length);
	batch_put(&p->batch, PHASE_LINKS, WORK_LINK, &p->rest);
}

/* What is only on the target. */
static void
plan_extra(struct manifest_plan *p, const struct row *row)
{
	const struct row_side *t = &row->side[SIDE_TARGET];
	struct level *up = above(p);
	bool directory = t->entry.type == 'd', wanted = p->work->deletions && row->ours && row->path.length > 0;
	if (up && up->in_way) {
		p->foreign |= !row->ours;
		if (directory && (up = enter(p, row)))
			up->in_way = true;
		else if (!directory)
			put_removal(p, PHASE_WAY, row->path, t);
		return;
	}
	if (wanted && manifest_is_unreadable(p->source, row->path)) {
		refuse(p, REFUSED_UNREADABLE, row->path);
		wanted = false;
	}
	if (directory) {
		if ((up = enter(p, row)))
			up->removal = wanted;
		return;
	}
	if (wanted) {
		put_removal(p, PHASE_REMOVALS, row->path, t);
		touch(p);
	} else if (up) {
		up->kept = true;
	}
}

static void
plan_directory(struct manifest_plan *p, const struct row *row, bool blocked, unsigned differs)
{
	const struct row_side *t = &row->side[SIDE_TARGET];
	bool ours = !t->known || row->ours || p->work->overwrite, stands = t->known && t->entry.type != 'd';
	bool wanted = differs & ~(unsigned)DIFFERS_UNPROVEN;
	struct level *l;
	if (blocked)
		refuse(p, REFUSED_WAY, row->path);
	else if (wanted && !ours)
		refuse(p, REFUSED_FOREIGN, row->path);
	else if (stands)
		put_removal(p, PHASE_WAY, row->path, t);
	if (!blocked && ours && (stands || !t->known))
		touch(p);
	if (!(l = enter(p, row)))
		return;
	l->source = true;
	l->blocked = blocked || (stands && !ours);
	l->replaced = stands;
	l->wanted = wanted && ours;
	l->mendable = ours;
}

static void
plan_file(struct manifest_plan *p, const struct row *row, bool blocked, unsigned differs)
{
	const struct row_side nothing = { .known = false }, *t = &row->side[SIDE_TARGET];
	struct leader *l = leader_of(p, row);
	bool first = p->pairing.leader[SIDE_SOURCE] == p->pairing.row, in_way = t->known && t->entry.type == 'd';
	enum row_action action = row_action(&p->pairing, row, differs, l && !first && l->state == LEADER_SENT);
	bool refused = blocked || (action == ACTION_LINK && l && l->state == LEADER_REFUSED);
	bool foreign = t->known && !row->ours && (in_way || !p->work->overwrite);
	if (action != ACTION_NONE && (refused || foreign)) {
		refuse(p, foreign && !refused ? REFUSED_FOREIGN : REFUSED_WAY, row->path);
		if (l && first)
			l->state = LEADER_REFUSED;
	} else if (action != ACTION_NONE) {
		if (in_way)
			remember(p);
		if (in_way && l && first)
			p->cleared_leader = (size_t)(l - p->leaders) + 1;
		if (action == ACTION_LINK && l)
			put_link(p, row, l, in_way ? &nothing : t);
		else
			put_content(p, row, action, in_way ? &nothing : t);
		if (l && first)
			l->state = LEADER_SENT;
		touch(p);
	}
	if (in_way) {	/* what is in it comes next */
		struct level *level = enter(p, row);
		if (level)
			level->in_way = p->clearing;
	}
}

/* Names of one inode are proven by the first of them that is not. */
static void
plan_proof(struct manifest_plan *p, const struct row *row, unsigned differs)
{
	const struct entry *e = &row->side[SIDE_SOURCE].entry;
	struct link *link = p->pairing.link[SIDE_SOURCE];
	if (!(differs & DIFFERS_UNPROVEN) || (link && link->value))
		return;
	if (link)
		link->value = 1;
	begin(p, row->path);
	batch_put(&p->batch, PHASE_CONTENT, PROVE_ENTRY, &p->rest);
	if (e->type == 'f') {
		p->batch.files++;
		p->batch.size += e->size;
	}
}

void
plan_row(struct manifest_plan *p, const struct row *row)
{
	pairing_next(&p->pairing, row);
	unsigned differs = row_difference(&p->pairing, row);
	if (p->work->proof) {
		plan_proof(p, row, differs);
		return;
	}
	leave_until(p, &row->path);
	p->path.length = 0;
	put_bytes(&p->path, row->path.bytes, row->path.length);
	bool blocked = p->depth > 0 && above(p)->blocked;
	if (row->side[SIDE_SOURCE].known && p->depth > 0 && !above(p)->source)
		above(p)->kept = true;
	if (!row->side[SIDE_SOURCE].known)
		plan_extra(p, row);
	else if (row->side[SIDE_SOURCE].entry.type == 'd')
		plan_directory(p, row, blocked, differs);
	else
		plan_file(p, row, blocked, differs);
}

void
plan_end(struct manifest_plan *p)
{
	leave_until(p, NULL);
}

struct manifest_batch *
plan_batch(struct manifest_plan *p)
{
	return &p->batch;
}

bool
plan_can_be_cut(const struct manifest_plan *p)
{
	return !p->clearing;
}

bool
plan_is_ordered(const struct manifest_plan *p)
{
	for (size_t i = 0; i < p->depth; i++)
		if (p->levels[i].replaced)
			return true;
	return false;
}

void
plan_take_refused(struct manifest_plan *p, struct manifest_kind refused[REFUSALS])
{
	for (int i = 0; i < REFUSALS; i++) {
		struct reader r = reader_of(p->refused[i].examples.bytes.bytes, p->refused[i].examples.bytes.length);
		for (size_t n = p->refused[i].examples.count; n > 0; n--) {
			struct text path = get_text(&r);
			if (refused[i].examples.count < EXAMPLES)
				manifest_names_add(&refused[i].examples, path.bytes, path.length);
		}
		refused[i].count += p->refused[i].count;
		manifest_names_free(&p->refused[i].examples);
		p->refused[i].count = 0;
	}
}

bool
plan_failed(const struct manifest_plan *p)
{
	bool failed = p->failed || p->pairing.failed || p->path.failed || p->rest.failed || p->leader_paths.failed;
	for (int i = 0; i < PHASES; i++)
		failed |= p->batch.phase[i].failed;
	return failed;
}
