/*
 * sqlite.h - SQLite databases, each on a thread of its own.  Knows nothing of Lua.
 *
 * Requests are carried out in the order they were sent.  `run` requests that wait together are
 * committed together, each under a savepoint of its own, so that one fsync serves all of them and
 * one that fails takes nothing else with it.
 */
#ifndef RUNBOOK_SQLITE_H
#define RUNBOOK_SQLITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "cells.h"

struct sqlite;
struct sqlite_request;

struct sqlite_options {
	bool create;		/* make the file (mode 0600) when there is none */
	bool readonly;
	bool journal;		/* point_reach("commit"), point_reach("committed") around each commit */
	unsigned busy_ms;	/* how long to wait for somebody else's lock */
	size_t result_limit;	/* bytes of one answer; more is ELIMIT */
};

/* What a request does, and the cells it takes (sqlite_request_cells). */
enum sqlite_kind {
	SQLITE_WANT_OPEN,	/* first request of a handle: texts "name", "value" of each pragma */
	SQLITE_WANT_QUERY,	/* one statement (sqlite_request_statement) that changes nothing */
	SQLITE_WANT_RUN,	/* statements, one transaction */
	SQLITE_WANT_BACKUP,	/* text: the file to make, which must not exist; checked, on disk */
	SQLITE_WANT_INTEGRITY	/* nothing; the rows are the problems found */
};

struct sqlite_result {
	const char *code;	/* NULL: it was done.  "EBUSY", "EFULL", "ECORRUPT", "ESQL", ... */
	char message[480];
	struct cells names;	/* of the columns */
	struct cells rows;	/* names.count cells each */
	int64_t changes;	/* rows that a run inserted, updated or deleted */
};

/*
 * A handle for the database at path, which is opened by the first request.  NULL: no memory, no
 * thread.  path and options are copied.
 */
struct sqlite *sqlite_new(uv_loop_t *loop, const char *path, const struct sqlite_options *options);

/*
 * At once.  Runs that were sent are still carried out, everything else ends with ECLOSED; requests
 * still say done.  The loop stays alive until the thread has ended.
 */
void sqlite_free(struct sqlite *db);

/* Pages copied and to be copied by the backup that runs, or 0 and 0. */
void sqlite_progress(struct sqlite *db, unsigned *done, unsigned *total);

/* NULL: out of memory. */
struct sqlite_request *sqlite_request_new(struct sqlite *db, enum sqlite_kind kind);

/*
 * The next statement and how many values follow it in the cells.  Not exact: parameters beyond them
 * are NULL; exact: their number must be the statement's.  False: out of memory.
 */
bool sqlite_request_statement(struct sqlite_request *r, const char *sql, size_t length,
                              int values, bool exact);

/* To be filled before the request is sent. */
struct cells *sqlite_request_cells(struct sqlite_request *r);

/* Calls done(arg) once, from the loop. */
void sqlite_request_send(struct sqlite_request *r, void (*done)(void *arg), void *arg);

/* After done; lives as long as the request. */
const struct sqlite_result *sqlite_request_result(const struct sqlite_request *r);

/* Also abandons it: done is not called after this.  A run that was sent is carried out all the same. */
void sqlite_request_free(struct sqlite_request *r);

#endif
