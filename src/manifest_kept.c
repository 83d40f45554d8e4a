/*
 * manifest_kept.c - a unit's manifest as it was at some moment, and what has happened to the target since; see manifest.h.
 *
 * Before files are brought to a place that is not ours, what is known of both ends is kept.  A pass that was cut there has
 * left some names as they were and some as it brings them; what is neither is of somebody else.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "manifest.h"

#define EXAMPLES 3

static bool
keep_unit(struct manifest_keep *k, int from, int into, struct text unit)
{
	char *file = manifest_name(unit.bytes, unit.length);
	if (!file) {
		errno = ENOMEM;
		return false;
	}
	/* it is replaced whole and never written to, so a second name of it is a copy */
	bool good = (unlinkat(into, file, 0) == 0 || errno == ENOENT) && (linkat(from, file, into, file, 0) == 0 || errno == ENOENT);
	int error = errno;
	k->kept += good;
	free(file);
	errno = error;
	return good;
}

void
manifest_keep_run(struct manifest_job *job)
{
	struct manifest_keep *k = (struct manifest_keep *)job;
	struct reader units = reader_of(k->units.bytes.bytes, k->units.bytes.length);
	int from = open(k->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), into = open(k->into, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool good = from >= 0 && into >= 0;
	for (size_t i = 0; good && i < k->units.count; i++)
		good = keep_unit(k, from, into, get_text(&units));
	if (!good)
		manifest_fail_errno(&job->failure, errno, k->into);
	if (from >= 0)
		close(from);
	if (into >= 0)
		close(into);
}

void
manifest_keep_release(struct manifest_job *job)
{
	struct manifest_keep *k = (struct manifest_keep *)job;
	manifest_names_free(&k->units);
	free(k->directory);
	free(k->into);
}

static bool
same_text(struct text a, struct text b)
{
	return a.length == b.length && memcmp(a.bytes, b.bytes, a.length) == 0;
}

static bool
is_brought(const struct entry *now, const struct entry *wanted)
{
	return now->type == wanted->type && (now->type != 'f' || now->size == wanted->size) && now->node == wanted->node
		&& (now->type == 'l' || now->mode == wanted->mode) && now->uid == wanted->uid && now->gid == wanted->gid
		&& moment_is(now->modified, wanted->modified) && same_text(now->target, wanted->target);
}

/* Contents and attributes, too, as far as somebody has read them. */
static bool
is_read_as(const struct row_side *now, const struct row_side *wanted)
{
	return !(now->hashed && wanted->hashed && memcmp(now->hash, wanted->hash, ENTRY_HASH) != 0)
		&& !(now->attributed && wanted->attributed && memcmp(now->attributes, wanted->attributes, ENTRY_ATTRIBUTES) != 0);
}

/*
 * The same file, with its bytes, and each of its time, mode and owner as it was or as it is brought: where a cut fell between
 * two of them they are mixed.  A chown takes setuid away.  Its ctime says nothing: another name of it may have been replaced.
 */
static bool
is_between(const struct entry *now, const struct entry *was, const struct entry *wanted)
{
	const uint32_t mask = 01777;
	return now->type == was->type && now->inode == was->inode && now->size == was->size && now->node == was->node
		&& same_text(now->target, was->target)
		&& (moment_is(now->modified, was->modified) || (wanted && moment_is(now->modified, wanted->modified)))
		&& ((now->mode & mask) == (was->mode & mask) || (wanted && (now->mode & mask) == (wanted->mode & mask)))
		&& (now->uid == was->uid || (wanted && now->uid == wanted->uid)) && (now->gid == was->gid || (wanted && now->gid == wanted->gid));
}

/* Its times are nobody's: they change with what comes into it.  We may open it for its owner, and end it last. */
static bool
is_our_directory(const struct entry *now, const struct entry *was, const struct entry *wanted)
{
	if (was && was->type == 'd') {
		bool mode = (now->mode & ~0700u) == (was->mode & ~0700u) || (wanted && (now->mode & ~0700u) == (wanted->mode & ~0700u));
		return mode && (now->uid == was->uid || (wanted && now->uid == wanted->uid))
			&& (now->gid == was->gid || (wanted && now->gid == wanted->gid));
	}
	return wanted && wanted->type == 'd';
}

/* `row` is of now, the target being the end that was written to; `kept`, of then, the other way round.  Either may be NULL. */
static bool
is_strange(const struct row *row, const struct row *kept)
{
	const struct row_side *now = row && row->side[SIDE_TARGET].known ? &row->side[SIDE_TARGET] : NULL;
	const struct row_side *wanted = row && row->side[SIDE_SOURCE].known ? &row->side[SIDE_SOURCE] : NULL;
	const struct row_side *was = kept && kept->side[SIDE_SOURCE].known ? &kept->side[SIDE_SOURCE] : NULL;
	const struct row_side *wanted_then = kept && kept->side[SIDE_TARGET].known ? &kept->side[SIDE_TARGET] : NULL;
	if (!now)
		return was;	/* nothing is removed on the way back */
	if (wanted && wanted_then && is_brought(&wanted_then->entry, &wanted->entry))
		wanted_then = NULL;	/* of what is still so, more may have been read since */
	for (int i = 0; i < 2; i++) {
		const struct row_side *one = i == 0 ? wanted : wanted_then;
		if (now->entry.type == 'd' ? is_our_directory(&now->entry, was ? &was->entry : NULL, one ? &one->entry : NULL)
		    : (one && is_brought(&now->entry, &one->entry) && is_read_as(now, one))
		      || (was && is_between(&now->entry, &was->entry, one ? &one->entry : NULL)))
			return false;
	}
	return true;
}

static void
look_at(struct manifest_strangers *s, const struct row *row, const struct row *kept)
{
	if (!is_strange(row, kept))
		return;
	const struct row *named = row ? row : kept;
	if (s->found.count++ < EXAMPLES)
		manifest_names_add(&s->found.examples, named->path.bytes, named->path.length);
}

static void
walk(struct manifest_strangers *s, struct manifest_reader *now, struct manifest_reader *then)
{
	struct row row, kept;
	bool have_row = now && manifest_next(now, &row), have_kept = then && manifest_next(then, &kept);
	while ((have_row || have_kept) && !atomic_load(&s->job.abandoned)) {
		int order = !have_row ? 1 : !have_kept ? -1
			: entry_order(row.path.bytes, row.path.length, kept.path.bytes, kept.path.length);
		look_at(s, order <= 0 ? &row : NULL, order >= 0 ? &kept : NULL);
		if (order <= 0)
			have_row = manifest_next(now, &row);
		if (order >= 0)
			have_kept = manifest_next(then, &kept);
	}
	if ((now && now->failed) || (then && then->failed))
		manifest_fail_errno(&s->job.failure, EIO, s->unit);
}

/* 1: open; 0: nothing is there; -1: the job has failed. */
static int
open_manifest(struct manifest_strangers *s, struct manifest_reader *r, const char *directory, const char *file)
{
	int at = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool corrupt = false;
	int there = at < 0 ? -1 : manifest_open(r, at, file, &corrupt);
	if (there < 0)
		manifest_fail_errno(&s->job.failure, errno, directory);
	else if (corrupt)
		manifest_fail(&s->job.failure, "ECORRUPT", "%.200s: what is known of it was torn", s->unit);
	if (at >= 0)
		close(at);
	return corrupt ? -1 : there;
}

void
manifest_strangers_run(struct manifest_job *job)
{
	struct manifest_strangers *s = (struct manifest_strangers *)job;
	struct manifest_reader now, then;
	char *file = manifest_name(s->unit, s->unit_length);
	if (!file) {
		manifest_fail_errno(&job->failure, ENOMEM, s->unit);
		return;
	}
	int there = open_manifest(s, &now, s->directory, file);
	int was_there = there < 0 ? -1 : open_manifest(s, &then, s->kept, file);
	if (there >= 0 && was_there >= 0)
		walk(s, there ? &now : NULL, was_there ? &then : NULL);
	if (there > 0)
		manifest_shut(&now);
	if (was_there > 0)
		manifest_shut(&then);
	free(file);
}

void
manifest_strangers_release(struct manifest_job *job)
{
	struct manifest_strangers *s = (struct manifest_strangers *)job;
	manifest_names_free(&s->found.examples);
	free(s->directory);
	free(s->kept);
	free(s->unit);
}
