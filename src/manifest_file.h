/*
 * manifest_file.h - the file that keeps what is known of both sides of a unit.
 *
 * Rows in entry_order, what holds for all of them, and a trailer with the number of rows and a hash of all that is
 * before it.  It is written beside and renamed, and not synced: one that is torn, or somebody else's, is not believed.
 */
#ifndef RUNBOOK_MANIFEST_FILE_H
#define RUNBOOK_MANIFEST_FILE_H

#include "entry.h"

enum manifest_side { SIDE_SOURCE, SIDE_TARGET, SIDES };

#define MANIFEST_DIGEST 32	/* a longer one of a scan is not kept */
#define MANIFEST_PATH   ((size_t)1 << 20)	/* a longer path, or target of a symlink, is malformed */
#define MANIFEST_PROBLEMS 1000	/* paths that are kept; more of them stand for the whole unit */

struct row_side {
	bool known;		/* else nothing of the rest holds */
	bool hashed, attributed;
	bool racy;		/* changed about when it was hashed: an edit since then may not show in its times */
	struct entry entry;
	struct text raw;	/* the entry as entry_put has it; empty: it was made here */
	unsigned char hash[ENTRY_HASH], attributes[ENTRY_ATTRIBUTES];
};

struct row {
	struct text path;
	bool ours;
	struct row_side side[SIDES];
};

/* What holds for a whole side. */
struct manifest_summary {
	bool known;
	unsigned char digest[MANIFEST_DIGEST];
	size_t digest_length;	/* 0: none */
	uint64_t entries, bytes, ours;
	uint64_t problems;
	struct buffer unreadable;	/* their paths, put_text; all of the unit when there are too many */
};

void manifest_summary_free(struct manifest_summary *s);
bool manifest_summary_copy(struct manifest_summary *to, const struct manifest_summary *from);
/* What is at or below a path that could not be looked at, or in a unit that nobody looked at, may be there all the same. */
bool manifest_is_unreadable(const struct manifest_summary *s, struct text path);

/* There is, or may be, something on that side.  One that is `known` and not there: a whole scan did not find it. */
bool manifest_is_there(const struct manifest_summary *s);

struct manifest_reader {
	struct frame_input in;
	struct buffer path;
	struct manifest_summary side[SIDES];
	struct text unit;
	uint64_t rows;
	bool failed;		/* manifest_next ended before the rows did */
};

/* 1: it is there and whole; 0: not there, or not to be believed (*corrupt, when that is wanted); -1: errno. */
int manifest_open(struct manifest_reader *r, int directory, const char *file, bool *corrupt);
/* The next row, which lies in the reader until the one after it; false at the end. */
bool manifest_next(struct manifest_reader *r, struct row *row);
void manifest_shut(struct manifest_reader *r);

struct manifest_writer {
	int directory, fd;
	char *file, *beside;
	struct buffer out, payload, before;
	uint64_t offset, rows;
	void *hash;
	struct manifest_summary side[SIDES];	/* the caller's but for entries, bytes and ours, which are counted */
	int error;		/* errno of the first failure; what is put after that is dropped */
};

/* False with errno; manifest_discard is due in any case but after manifest_commit. */
bool manifest_create(struct manifest_writer *w, int directory, const char *unit, size_t length);
void manifest_put(struct manifest_writer *w, const struct row *row);
/* Puts it in its place; when there are no rows, none is left there.  False with errno. */
bool manifest_commit(struct manifest_writer *w);
void manifest_discard(struct manifest_writer *w);

/* The file of a unit, to be freed; NULL: out of memory. */
char *manifest_name(const void *unit, size_t length);
bool manifest_is_name(const char *file);
/* A name at the top of a tree, or ".". */
bool manifest_unit_is_good(struct text unit);

/*
 * Keeps others from replacing the unit's file until the descriptor is closed; -1 with errno.  Held while it is read
 * and written anew, so that the scans of both sides may come at once.
 */
int manifest_lock(int directory, const char *file);

/* A file without a name in the directory; -1 with errno. */
int manifest_scratch(int directory);

#endif
