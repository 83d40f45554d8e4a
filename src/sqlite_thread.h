/* sqlite_thread.h - what the files of the sqlite engine share.  Nobody else includes it. */
#ifndef RUNBOOK_SQLITE_THREAD_H
#define RUNBOOK_SQLITE_THREAD_H

#include <stdatomic.h>

#include <sqlite3.h>

#include "sqlite.h"

#define SQLITE_CACHED 32

/* Whose words: the authorizer lets a query read, a run change, and only us commit. */
enum sqlite_speaker { SPEAKER_US, SPEAKER_QUERY, SPEAKER_RUN };

/* A prepared statement that is kept because the same text tends to come again. */
struct sqlite_prepared {
	sqlite3_stmt *statement;
	char *sql;
	size_t length;
	enum sqlite_speaker speaker;
	uint64_t used;
};

struct sqlite {
	char *path;
	struct sqlite_options options;

	/* The thread's own. */
	sqlite3 *handle;
	struct sqlite_prepared cache[SQLITE_CACHED];
	uint64_t uses;
	enum sqlite_speaker speaker;
	uint64_t busy_since;
	const struct sqlite_request *serving;	/* a group: its first */

	/* Under the lock. */
	uv_mutex_t lock;
	uv_cond_t wanted;
	struct sqlite_request *first, **last;		/* waiting */
	struct sqlite_request *finished, **finished_last;	/* done, not yet told */
	bool ended;					/* the thread has nothing left to do */

	atomic_bool closing;
	atomic_uint pages_done, pages_total;

	/* The loop's own. */
	uv_thread_t thread;
	uv_async_t async;
	unsigned outstanding;
};

struct sqlite_request {
	struct sqlite *db;
	enum sqlite_kind kind;
	struct cells cells;
	struct sqlite_result result;
	struct sqlite_request *next;
	atomic_bool abandoned;		/* nobody waits for the answer */
	bool sent, told;		/* the loop's own */
	void (*done)(void *arg);
	void *arg;
};

/* sqlite_statement.c: statements and what SQLite says.  All on the thread. */

/* Remembers why the request failed; the first failure stays. */
void sqlite_fail(struct sqlite_request *r, const char *code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The same from what SQLite said last on this handle. */
void sqlite_fail_handle(struct sqlite_request *r, sqlite3 *handle, int rc, const char *doing);

/* Our code for what SQLite, or the system, said. */
const char *sqlite_code(const struct sqlite *db, sqlite3 *handle, int rc);
const char *sqlite_code_errno(int error);

void sqlite_connect(struct sqlite_request *r);
void sqlite_disconnect(struct sqlite *db);

/* Nobody wants the answer any more: reads stop, runs go on. */
bool sqlite_unwanted(const struct sqlite *db);

/* Our own words ("COMMIT"); returns SQLite's code. */
int sqlite_say(struct sqlite *db, const char *sql);

/* Carries out the statement at *at of the request's cells; false when it failed. */
bool sqlite_statement(struct sqlite_request *r, size_t *at);

/* One statement of ours with its rows into the result; false when it failed. */
bool sqlite_read(struct sqlite_request *r, const char *sql);

/* sqlite_backup.c */
void sqlite_backup(struct sqlite_request *r);
void sqlite_integrity(struct sqlite_request *r);

#endif
