/* scan.h - a tree as it is read by many threads: scan.c reads it, scan_unit.c says it. */
#ifndef RUNBOOK_FAR_SCAN_H
#define RUNBOOK_FAR_SCAN_H

#include <regex.h>
#include <stdatomic.h>

#include "far.h"

#define DIGEST 16

/* A name; its bytes lie in the directory's, ended by a zero, and its fields after them. */
struct item {
	struct directory *below;
	size_t at;
	uint32_t name, fields;	/* their lengths */
};

/* What was read of one directory; items are sorted by the bytes of their names. */
struct directory {
	struct unit *unit;
	struct directory *parent;
	size_t at, length;	/* of its name in the parent's bytes; of its path in the unit, which is kept nowhere: a tree may be deep */
	uint32_t name;
	struct item *items;
	size_t count, room;
	struct buffer bytes;
	size_t said;		/* items that scan_unit.c has gone through */
};

static inline const char *
name_of(const struct directory *d, const struct item *i)
{
	return (const char *)d->bytes.bytes + i->at;
}

struct unit {
	char *name;
	struct directory *top;
	struct buffer own;	/* fields of the unit's own directory; none: it could not be looked at */
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

struct known {
	char *name;		/* first: it is looked for by it */
	unsigned char digest[DIGEST];
};

struct scan {
	const struct far_options *options;
	int root;
	bool clean;
	bool quiet;		/* only unfinished files are said */
	struct pattern *excludes;
	size_t exclude_count;
	char **not_units, **only;
	size_t not_unit_count, only_count;
	struct known *known;	/* by name, as `only` */
	size_t known_count;
};

/* What is asked, from stdin. */
void scan_read_request(struct scan *s);
bool scan_is_asked_for(const struct scan *s, const char *unit);
/* What it had, or NULL. */
const unsigned char *scan_known_digest(const struct scan *s, const char *unit);
void scan_free_request(struct scan *s);
bool scan_is_excluded(const struct scan *s, const char *path, bool directory);

/* leftover.c */
bool leftover_is(const char *name);
/* 0 or errno. */
int leftover_remove(int at, const char *name);
/* As UNFINISHED; false: there is nothing in it to go on with. */
bool leftover_say(const struct unit *u, int at, const char *name);

/* scan_sort.c: by name. */
void scan_sort(struct directory *d);

/* The path in the unit, ended by a zero; there is room for it. */
void scan_path(const struct directory *d, char *to);

/* The frames of a unit that has been read whole, to stdout; frees all of it. */
void scan_say(struct unit *u);
void scan_free(struct unit *u);
void scan_problem(struct unit *u, const char *path, int error, const char *what);

#endif
