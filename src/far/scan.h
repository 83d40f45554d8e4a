/* scan.h - a tree as it is read by many threads: scan.c reads it, scan_unit.c says it. */
#ifndef RUNBOOK_FAR_SCAN_H
#define RUNBOOK_FAR_SCAN_H

#include <regex.h>
#include <stdatomic.h>

#include "far.h"

#define DIGEST 16

struct item {
	char *name;
	size_t length;
	size_t from, to;	/* of its fields in the directory's bytes */
	struct directory *below;
};

/* What was read of one directory; items are sorted by the bytes of their names. */
struct directory {
	struct unit *unit;
	struct directory *parent;
	char *path;		/* in the unit */
	struct item *items;
	size_t count, room;
	struct buffer fields;
	size_t said;		/* items that scan_unit.c has gone through */
};

struct unit {
	char *name;
	struct directory *top;
	struct buffer own;	/* fields of the unit's own directory */
	_Atomic size_t pending;	/* directories that are not read yet */
	pthread_mutex_t lock;
	struct buffer problems;	/* frames */
	bool known;
	unsigned char digest[DIGEST];
};

struct pattern {
	regex_t expression;
	bool directories_only;
};

struct scan {
	const struct far_options *options;
	int root;
	bool clean;
	struct pattern *excludes;
	size_t exclude_count;
	char **not_units, **only;
	size_t not_unit_count, only_count;
	struct { char *name; unsigned char digest[DIGEST]; } *known;
	size_t known_count;
};

/* What is asked, from stdin. */
void scan_read_request(struct scan *s);
bool scan_is_excluded(const struct scan *s, const char *path, bool directory);

/* The frames of a unit that has been read whole, to stdout; frees all of it. */
void scan_say(struct unit *u);
void scan_problem(struct unit *u, const char *path, int error, const char *what);

#endif
