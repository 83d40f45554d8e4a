/*
 * manifest_rows.h - how the two sides of a row differ, which needs the rows before it: names of one inode belong to the
 * first of them, their leader.
 */
#ifndef RUNBOOK_MANIFEST_ROWS_H
#define RUNBOOK_MANIFEST_ROWS_H

#include "manifest_file.h"

/* Who the source's names belong to on the target. */
struct owner_map {
	bool mapped;
	uint32_t uid, gid;
};

/* NULL and "keep": as they are; "UID:GID".  False: neither. */
bool owner_map_of(struct owner_map *m, const char *text);

/* Names of inodes that have several. */
struct link {
	uint64_t inode, device;
	uint32_t leader;	/* a row, counted from 1; 0: the slot is free */
	uint32_t value;		/* the caller's; 0 at first */
};

struct links {
	struct link *slots;
	size_t count, room;
	bool failed;		/* out of memory */
};

/* NULL: it has one name only, or out of memory.  Lives until the next call. */
struct link *links_enter(struct links *l, const struct entry *e, uint32_t row);
/* The same where it is there already, else NULL. */
struct link *links_find(const struct links *l, uint64_t device, uint64_t inode);
void links_free(struct links *l);

/* Rows in order, each with the leaders of its sides. */
struct pairing {
	struct links links[SIDES];
	struct link *link[SIDES];	/* of this row; NULL: one name */
	uint32_t leader[SIDES];		/* a row, counted from 1; 0: that side is not known */
	uint32_t row;			/* this one, counted from 1 */
	struct owner_map owner;
	bool failed;			/* too many rows or out of memory */
};

void pairing_open(struct pairing *p, struct owner_map owner);
void pairing_next(struct pairing *p, const struct row *row);
void pairing_close(struct pairing *p);

enum {
	DIFFERS_MISSING = 1,		/* not on the target */
	DIFFERS_EXTRA = 2,		/* only on the target */
	DIFFERS_TYPE = 4,		/* none of the rest is looked at */
	DIFFERS_SIZE = 8,
	DIFFERS_MODE = 16,
	DIFFERS_OWNER = 32,
	DIFFERS_TIME = 64,
	DIFFERS_TARGET = 128,
	DIFFERS_LINKS = 256,
	DIFFERS_CONTENTS = 512,
	DIFFERS_ATTRIBUTES = 1024,
	DIFFERS_UNPROVEN = 2048,	/* equal by metadata, and not known whether in the rest */
	DIFFERS_KINDS = 12,
	DIFFERS_METADATA = DIFFERS_CONTENTS - 1,
};

/* After pairing_next. */
unsigned row_difference(const struct pairing *p, const struct row *row);

/* What makes the target's row like the source's; removals are not among it. */
enum row_action { ACTION_NONE, ACTION_FILE, ACTION_CHECK, ACTION_NODE, ACTION_LINK, ACTION_DIRECTORY };
enum row_action row_action(const struct pairing *p, const struct row *row, unsigned differs, bool leader_sent);

/* All that a scan tells of a change is equal.  How many a directory has below it shows in its times. */
bool entry_is_unchanged(const struct entry *a, const struct entry *b);

#endif
