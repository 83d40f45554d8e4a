/*
 * manifest_settle.c - what came of a unit's shards, merged into its manifest; see manifest_work.h.
 *
 * Names of one inode share what is known of it, and its ctime changes with each that comes or goes: where that happened,
 * all rows are gone through once before, to find how many names there are now and what the latest ctime is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "manifest_work.h"

/* An inode with several names. */
struct inode {
	struct row_side known;	/* what its names share */
	uint32_t names;
	struct moment changed;
	bool involved;		/* in what was done; else all stays as it was said */
};

struct inodes {
	struct links links;
	struct inode *list;
	size_t count, room;
};

struct settling {
	struct manifest_settle *job;
	struct manifest_reader old;
	struct manifest_writer new;
	struct patches *patches;
	const struct patch *patch;
	struct inodes inodes[SIDES];
	struct row row;
	bool have_row, counting, counted, placed, failed;
	struct pairing pairing;
	bool dirty[SIDES];	/* an entry of that side is not what its last scan said */
	struct buffer path, target[SIDES];	/* of a row, or an entry, that was not there */
	struct stale stale;
};

/* NULL: it has one name, or out of memory. */
static struct inode *
inode_of(struct settling *s, enum manifest_side side, const struct entry *e)
{
	struct inodes *all = &s->inodes[side];
	struct link *link = links_enter(&all->links, e, 1);	/* who leads does not matter here */
	if (!link) {
		s->failed |= all->links.failed;
		return NULL;
	}
	if (link->value)
		return &all->list[link->value - 1];
	if (all->count == all->room) {
		size_t room = all->room ? 2 * all->room : 64;
		struct inode *more = realloc(all->list, room * sizeof *more);
		if (!more) {
			s->failed = true;
			return NULL;
		}
		all->list = more;
		all->room = room;
	}
	struct inode *i = &all->list[all->count++];
	memset(i, 0, sizeof *i);
	link->value = (uint32_t)all->count;
	return i;
}

/* The same on the target; one that had a single name until now may have been given another. */
static struct inode *
target_inode_of(struct settling *s, const struct entry *e)
{
	struct inodes *all = &s->inodes[SIDE_TARGET];
	if (e->links > 1)
		return inode_of(s, SIDE_TARGET, e);
	struct link *link = e->type == 'd' ? NULL : links_find(&all->links, e->device, e->inode);
	return link && link->value ? &all->list[link->value - 1] : NULL;
}

static bool
is_later(struct moment a, struct moment b)
{
	return a.seconds > b.seconds || (a.seconds == b.seconds && a.nanoseconds > b.nanoseconds);
}

/* What is known of the first of its names holds for all that are in the same state. */
static void
share(struct inode *i, struct row_side *s)
{
	if (!i->known.known) {
		i->known = *s;
		i->known.raw = i->known.entry.target = (struct text){ NULL, 0 };
		return;
	}
	if (!moment_is(i->known.entry.changed, s->entry.changed) || i->known.entry.size != s->entry.size)
		return;
	if (!s->hashed && i->known.hashed) {
		memcpy(s->hash, i->known.hash, ENTRY_HASH);
		s->hashed = true;
		s->racy |= i->known.racy;
	}
	if (!s->attributed && i->known.attributed) {
		memcpy(s->attributes, i->known.attributes, ENTRY_ATTRIBUTES);
		s->attributed = true;
		s->racy |= i->known.racy;
	}
}

static void
put_row(struct settling *s)
{
	struct row *row = &s->row;
	if (!row->side[SIDE_SOURCE].known && !row->side[SIDE_TARGET].known)
		return;
	struct row_side *t = &row->side[SIDE_TARGET];
	struct inode *i = t->known ? target_inode_of(s, &t->entry) : NULL;
	if (s->counting) {
		if (i) {
			i->names++;
			i->involved |= s->placed;
			if (is_later(t->entry.changed, i->changed))
				i->changed = t->entry.changed;
		}
		return;
	}
	/* who else wrote to it before its other name was touched does not show in this ctime */
	if (i && s->counted && i->involved && !s->placed)
		t->hashed = t->attributed = false;
	if (i && s->counted && i->involved && (i->names != t->entry.links || !moment_is(i->changed, t->entry.changed))) {
		t->entry.changed = i->changed;
		t->entry.links = i->names;
		t->raw.length = 0;
	}
	if (i)
		share(i, t);
	if (row->side[SIDE_SOURCE].known && (i = inode_of(s, SIDE_SOURCE, &row->side[SIDE_SOURCE].entry)))
		share(i, &row->side[SIDE_SOURCE]);
	manifest_put(&s->new, row);
	pairing_next(&s->pairing, row);
	manifest_comparison_add(s->job->compared, &s->pairing, row, row_difference(&s->pairing, row));
}

/* How it stands on the target: as at the source, but for what is the target's own. */
static void
place(struct settling *s, const struct entry *as, const struct manifest_answer *a)
{
	const struct owner_map *owner = &s->job->work->owner;
	struct row_side *t = &s->row.side[SIDE_TARGET];
	t->known = true;
	t->raw.length = 0;
	t->entry = *as;
	if (owner->mapped) {
		t->entry.uid = owner->uid;
		t->entry.gid = owner->gid;
	}
	t->entry.inode = a->inode;
	t->entry.device = a->device;
	t->entry.changed = a->changed;
	t->entry.blocks = a->blocks;
	t->racy = t->hashed = t->attributed = false;
	s->row.ours = s->placed = true;
	s->dirty[SIDE_TARGET] = true;
}

static void
take_proof(struct row_side *side, const struct manifest_answer *a)
{
	side->hashed = a->flags & RESULT_HASHED;
	side->attributed = true;
	memcpy(side->hash, a->hash, ENTRY_HASH);
	memcpy(side->attributes, a->attributes, ENTRY_ATTRIBUTES);
}

static void
take_entry(struct settling *s, enum manifest_side i, const struct manifest_answer *a)
{
	struct row_side *side = &s->row.side[i];
	if (side->known && entry_is_unchanged(&side->entry, &a->entry))
		return;
	memset(side, 0, sizeof *side);
	side->known = true;
	s->target[i].length = 0;
	put_bytes(&s->target[i], a->entry.target.bytes, a->entry.target.length);
	side->entry = a->entry;
	side->entry.target = (struct text){ s->target[i].bytes, s->target[i].length };
	s->dirty[i] = true;
	s->job->changed++;
}

static void
apply_done(struct settling *s, const struct patch *p)
{
	const struct manifest_answer *a = &p->answer;
	struct row_side *source = &s->row.side[SIDE_SOURCE], *target = &s->row.side[SIDE_TARGET];
	if (a->flags & RESULT_REMOVED) {
		target->known = false;
		s->row.ours = false;
		s->dirty[SIDE_TARGET] = true;
	} else if (a->flags & RESULT_LINKED) {
		if (source->known)
			place(s, &source->entry, a);
	} else {
		take_entry(s, SIDE_SOURCE, a);
		take_proof(source, a);
		source->racy = a->flags & RESULT_RACY;
		place(s, &source->entry, a);
		take_proof(target, a);
	}
}

/* What is not as the manifest says has changed since; that it is so is known now, and nothing else. */
static void
apply_proof(struct settling *s, const struct patch *p)
{
	struct row_side *side = &s->row.side[p->side];
	if (side->known && entry_is_unchanged(&side->entry, &p->answer.entry)) {
		take_proof(side, &p->answer);
		side->racy = p->answer.flags & RESULT_RACY;
	} else {
		take_entry(s, p->side, &p->answer);
	}
}

/* All others are made beside and then put in their place. */
static bool
is_half_done(const struct patch *p)
{
	return p->answer.status == RESULT_TARGET && (p->type == WORK_CHECK || p->type == WORK_DIRECTORY);
}

/* It was not done, but it would not be there without us. */
static void
take_standing(struct settling *s, const struct patch *p)
{
	s->row.ours |= p->answer.status == RESULT_UNKEPT || !s->row.side[SIDE_TARGET].known;
	take_entry(s, SIDE_TARGET, &p->answer);
	s->placed = true;
}

static void
apply(struct settling *s, const struct patch *p)
{
	struct row_side *target = &s->row.side[SIDE_TARGET], *side = &s->row.side[p->type == PROVE_ENTRY ? p->side : SIDE_SOURCE];
	s->job->patched++;
	if (p->answer.status == RESULT_DONE && p->type == PROVE_ENTRY) {
		apply_proof(s, p);
	} else if (p->answer.status == RESULT_DONE) {
		apply_done(s, p);
	} else if (p->answer.status == RESULT_VANISHED) {
		/* what stands on the target is removed because of what a scan says, and of nothing else */
		s->dirty[p->type == PROVE_ENTRY ? p->side : SIDE_SOURCE] |= side->known;
		if (side != target && target->known)
			side->hashed = side->attributed = false;
		else
			side->known = false;
	} else if (p->answer.status == RESULT_UNKEPT || p->answer.status == RESULT_CONFLICT || is_half_done(p)) {
		/* what stands there now nobody has seen */
		target->hashed = target->attributed = false;
		s->dirty[SIDE_TARGET] = true;
	}
	if (p->answer.stands)
		take_standing(s, p);
}

/* Nobody knows its times: they differ until it is brought.  One that was made on the way and then not brought is ours, too. */
static void
make_stale(struct settling *s)
{
	struct row_side *t = &s->row.side[SIDE_TARGET];
	if (!t->known && stale_is_there(&s->stale, s->row.path)) {
		memset(t, 0, sizeof *t);
		t->known = s->row.ours = s->dirty[SIDE_TARGET] = true;
		t->entry.type = 'd';
		t->entry.target = (struct text){ (const unsigned char *)"", 0 };
		return;
	}
	if (!t->known || t->entry.type != 'd' || !stale_has(&s->stale, s->row.path))
		return;
	t->hashed = t->attributed = false;
	t->entry.modified = t->entry.changed = (struct moment){ 0, 0 };
	t->raw.length = 0;
	s->dirty[SIDE_TARGET] = true;
}

/* All patches of the path of the row, then the row. */
static void
patch_row(struct settling *s)
{
	s->placed = false;
	while (s->patch && entry_order(s->patch->path.bytes, s->patch->path.length, s->row.path.bytes, s->row.path.length) == 0) {
		apply(s, s->patch);
		s->patch = patches_next(s->patches, &s->failed);
	}
	make_stale(s);
	put_row(s);
}

static void
walk(struct settling *s)
{
	while ((s->have_row || s->patch) && !s->failed && !atomic_load(&s->job->job.abandoned)) {
		int order = !s->patch ? -1 : !s->have_row ? 1
			: entry_order(s->row.path.bytes, s->row.path.length, s->patch->path.bytes, s->patch->path.length);
		if (order <= 0) {
			patch_row(s);
			s->have_row = manifest_next(&s->old, &s->row);
			continue;
		}
		struct row kept = s->row;
		memset(&s->row, 0, sizeof s->row);
		s->path.length = 0;
		put_bytes(&s->path, s->patch->path.bytes, s->patch->path.length);
		s->row.path = (struct text){ s->path.bytes, s->path.length };
		patch_row(s);
		s->row = kept;
	}
	s->failed |= s->old.failed || s->pairing.failed || s->path.failed || s->target[SIDE_SOURCE].failed || s->target[SIDE_TARGET].failed;
}

/* One way through rows and patches. */
static bool
pass(struct settling *s, const char *file, bool *linked)
{
	struct manifest_work *w = s->job->work;
	s->job->patched = s->job->changed = 0;
	int there = manifest_open(&s->old, w->directory, file, NULL);
	if (there < 0)
		return false;
	s->patches = patches_of(w, s->job->unit, linked);
	if (s->patches)
		s->patch = patches_next(s->patches, &s->failed);
	errno = ENOMEM;
	s->have_row = there && manifest_next(&s->old, &s->row);
	if (s->patches && !s->counting) {
		for (int i = 0; i < SIDES; i++) {
			s->failed |= there && !manifest_summary_copy(&s->new.side[i], &s->old.side[i]);
			s->new.side[i].entries = s->new.side[i].bytes = s->new.side[i].ours = 0;
		}
	}
	if (s->patches)
		walk(s);
	bool ok = s->patches && !s->failed && !atomic_load(&s->job->job.abandoned);
	int error = s->old.failed ? EIO : errno;
	patches_free(s->patches);
	if (there)
		manifest_shut(&s->old);
	s->patches = NULL;
	errno = error;
	return ok;
}

static void
note_touched(void *arg, const struct entry *e)
{
	struct inode *i = inode_of(arg, SIDE_TARGET, e);
	if (!i)
		return;
	i->involved = true;
	if (is_later(e->changed, i->changed))
		i->changed = e->changed;
}

static bool
settle(struct settling *s, const char *file)
{
	struct manifest_work *w = s->job->work;
	bool linked, any;
	struct patches *p = patches_of(w, s->job->unit, &linked);
	any = p && patches_next(p, &s->failed);
	errno = ENOMEM;
	bool ok = p && !s->failed;
	patches_free(p);
	if (!ok || !any)
		return ok;
	if (!stale_of(&s->stale, w, s->job->unit))
		return false;
	s->counting = linked;
	if (linked && (!touched_of(w, s->job->unit, note_touched, s) || !pass(s, file, &linked)))
		return false;
	s->counted = s->counting;
	s->counting = false;
	s->job->compared = calloc(1, sizeof *s->job->compared);
	errno = ENOMEM;
	if (!s->job->compared || !manifest_create(&s->new, w->directory, w->units[s->job->unit], w->lengths[s->job->unit]) || !pass(s, file, &linked))
		return false;
	for (int i = 0; i < SIDES; i++)
		if (s->dirty[i])
			s->new.side[i].digest_length = 0;
	return manifest_commit(&s->new);
}

/* They are in the manifest now. */
static void
forget_sections(struct manifest_work *w, uint32_t unit)
{
	uv_mutex_lock(&w->spilling);
	size_t kept = 0;
	for (size_t i = 0; i < w->section_count; i++)
		if (w->sections[i].unit != unit)
			w->sections[kept++] = w->sections[i];
	w->section_count = kept;
	uv_mutex_unlock(&w->spilling);
}

void
manifest_settle_run(struct manifest_job *job)
{
	struct manifest_settle *q = (struct manifest_settle *)job;
	struct manifest_work *w = q->work;
	struct settling s = { .job = q };
	s.new.fd = -1;
	pairing_open(&s.pairing, w->owner);
	char *file = manifest_name(w->units[q->unit], w->lengths[q->unit]);
	int lock = file && manifest_work_open(w) ? manifest_lock(w->directory, file) : -1;
	bool ok = lock >= 0 && settle(&s, file);
	if (ok)
		forget_sections(w, q->unit);
	else
		manifest_fail_errno(&job->failure, file ? errno : ENOMEM, w->units[q->unit]);
	manifest_discard(&s.new);
	for (int i = 0; i < SIDES; i++) {
		links_free(&s.inodes[i].links);
		free(s.inodes[i].list);
		buffer_free(&s.target[i]);
	}
	pairing_close(&s.pairing);
	buffer_free(&s.path);
	stale_free(&s.stale);
	if (lock >= 0)
		close(lock);
	free(file);
}

void
manifest_settle_release(struct manifest_job *job)
{
	struct manifest_settle *q = (struct manifest_settle *)job;
	if (q->compared)
		manifest_comparison_fini(q->compared);
	free(q->compared);
	manifest_work_release(q->work);
}
