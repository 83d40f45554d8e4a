/* sqlite_backup.c - copies of live databases, and whether a database is whole.  See sqlite_thread.h. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sqlite_thread.h"

#define STEP_PAGES 256		/* between two looks whether to go on */
#define RESTARTS 3		/* then the rest is read under one lock, or a busy writer wins for ever */

struct copy {
	struct sqlite_request *r;
	const char *to;
	sqlite3 *handle;	/* of the copy */
	sqlite3_backup *backup;
	bool held;		/* we hold the source's snapshot (WAL), so nothing restarts */
};

static uint64_t
now_ms(void)
{
	return uv_hrtime() / 1000000;
}

static void
fail_copy(struct copy *c, int rc)
{
	const struct sqlite *db = c->r->db;

	sqlite_fail(c->r, sqlite_code(db, c->handle, rc), "%s: copy to %s: %s", db->path, c->to,
	            sqlite3_errstr(rc));
}

static bool
make_target(struct copy *c)
{
	int fd = open(c->to, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		sqlite_fail(c->r, sqlite_code_errno(errno), "%s: %s", c->to, strerror(errno));
	else
		close(fd);
	return fd >= 0;
}

/* No journal and no syncing on the way: until the copy is whole, nobody may use it. */
static bool
open_target(struct copy *c)
{
	char *name = sqlite3_mprintf("%s%s", c->to[0] == '/' ? "" : "./", c->to);
	int rc = SQLITE_NOMEM;

	if (name != NULL)
		rc = sqlite3_open_v2(name, &c->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	sqlite3_free(name);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(c->handle, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF", NULL,
		                  NULL, NULL);
	if (rc != SQLITE_OK)
		fail_copy(c, rc);
	return rc == SQLITE_OK;
}

static int
see_mode(void *wal, int columns, char **values, char **names)
{
	(void)columns;
	(void)names;
	*(bool *)wal = values[0] != NULL && strcmp(values[0], "wal") == 0;
	return 0;
}

/* In WAL a reader hinders no writer, so the whole copy can be of one moment. */
static bool
hold_snapshot(struct copy *c)
{
	struct sqlite *db = c->r->db;
	int rc;

	db->speaker = SPEAKER_US;
	rc = sqlite3_exec(db->handle, "PRAGMA journal_mode", see_mode, &c->held, NULL);
	if (rc == SQLITE_OK && c->held)
		rc = sqlite_say(db, "BEGIN; SELECT count(*) FROM sqlite_schema");
	if (rc != SQLITE_OK)
		sqlite_fail_handle(c->r, db->handle, rc, "read");
	return rc == SQLITE_OK;
}

/* Steps until the end, a failure, or nobody wants it.  Returns SQLite's code. */
static int
copy_pages(struct copy *c)
{
	struct sqlite *db = c->r->db;
	const struct timespec pause = { .tv_nsec = 20000000L };
	uint64_t advanced = now_ms();
	int restarts = 0, left = INT32_MAX, rc;

	for (;;) {
		if (sqlite_unwanted(db))
			return SQLITE_INTERRUPT;
		rc = sqlite3_backup_step(c->backup, restarts > RESTARTS ? -1 : STEP_PAGES);
		if (rc == SQLITE_BUSY || rc == SQLITE_LOCKED) {
			if (now_ms() - advanced > db->options.busy_ms)
				return rc;
			nanosleep(&pause, NULL);
			continue;
		}
		if (rc != SQLITE_OK)
			return rc;
		advanced = now_ms();
		if (sqlite3_backup_remaining(c->backup) > left)
			restarts++;
		left = sqlite3_backup_remaining(c->backup);
		atomic_store(&db->pages_total, (unsigned)sqlite3_backup_pagecount(c->backup));
		atomic_store(&db->pages_done, atomic_load(&db->pages_total) - (unsigned)left);
	}
}

static bool
copy_all(struct copy *c)
{
	int rc;

	if ((c->backup = sqlite3_backup_init(c->handle, "main", c->r->db->handle, "main")) == NULL) {
		fail_copy(c, sqlite3_extended_errcode(c->handle));
		return false;
	}
	rc = copy_pages(c);
	sqlite3_backup_finish(c->backup);	/* says in the copy's handle what the steps said */
	if (rc != SQLITE_DONE)
		fail_copy(c, rc);
	return rc == SQLITE_DONE;
}

static int
see_problem(void *arg, int columns, char **values, char **names)
{
	struct copy *c = arg;

	(void)columns;
	(void)names;
	if (values[0] != NULL && strcmp(values[0], "ok") != 0)
		sqlite_fail(c->r, "ECORRUPT", "%s: the copy is damaged: %.200s", c->r->db->path, values[0]);
	return 0;
}

/* Damage is copied as faithfully as the rest. */
static bool
check_copy(struct copy *c)
{
	int rc = sqlite3_exec(c->handle, "PRAGMA integrity_check(1)", see_problem, c, NULL);

	if (rc != SQLITE_OK)
		fail_copy(c, rc);
	return rc == SQLITE_OK && c->r->result.code == NULL;
}

static bool
sync_path(struct copy *c, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool ok = fd >= 0 && fsync(fd) == 0;

	if (!ok)
		sqlite_fail(c->r, sqlite_code_errno(errno), "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return ok;
}

static bool
sync_target(struct copy *c)
{
	char *copy = strdup(c->to);
	bool ok;

	if (copy == NULL) {
		sqlite_fail(c->r, "ENOMEM", "out of memory");
		return false;
	}
	ok = sync_path(c, c->to) && sync_path(c, dirname(copy));
	free(copy);
	return ok;
}

void
sqlite_backup(struct sqlite_request *r)
{
	struct copy c = { .r = r };
	struct sqlite *db = r->db;
	struct cell to;
	size_t at = 0;
	bool ok;

	if (!cells_next(&r->cells, &at, &to))
		return;
	c.to = to.text.bytes;
	if (!make_target(&c))
		return;
	ok = open_target(&c) && hold_snapshot(&c) && copy_all(&c) && check_copy(&c);
	if (!sqlite3_get_autocommit(db->handle))
		sqlite_say(db, "ROLLBACK");
	sqlite3_close(c.handle);
	if (!ok || !sync_target(&c))
		unlink(c.to);
	atomic_store(&db->pages_total, 0);
	atomic_store(&db->pages_done, 0);
}

/* Integrity. */

static bool
add_problem(struct sqlite_request *r, struct cells *problems, const char *text, size_t length)
{
	if (!cells_add_text(problems, text, length)) {
		sqlite_fail(r, "ENOMEM", "out of memory");
		return false;
	}
	return true;
}

static bool
read_pragma(struct sqlite_request *r, const char *sql)
{
	cells_fini(&r->result.names);
	cells_fini(&r->result.rows);
	return sqlite_read(r, sql);
}

static bool
check_pages(struct sqlite_request *r, struct cells *problems)
{
	struct cell line;
	size_t at = 0;

	if (!read_pragma(r, "PRAGMA integrity_check"))
		return false;
	while (cells_next(&r->result.rows, &at, &line))
		if (line.type == CELL_TEXT && strcmp(line.text.bytes, "ok") != 0 &&
		    !add_problem(r, problems, line.text.bytes, line.text.length))
			return false;
	return true;
}

/* Rows of foreign_key_check: table, rowid (NULL without one), the other table, number of the key. */
static bool
check_references(struct sqlite_request *r, struct cells *problems)
{
	struct cell table, row, other, key;
	char text[400];
	size_t at = 0;

	if (!read_pragma(r, "PRAGMA foreign_key_check"))
		return false;
	while (cells_next(&r->result.rows, &at, &table) && cells_next(&r->result.rows, &at, &row) &&
	       cells_next(&r->result.rows, &at, &other) && cells_next(&r->result.rows, &at, &key)) {
		int n = snprintf(text, sizeof text, "%.150s row %lld: no such row in %.150s",
		                 table.text.bytes,
		                 row.type == CELL_INTEGER ? (long long)row.integer : -1LL,
		                 other.type == CELL_TEXT ? other.text.bytes : "its table");

		if (!add_problem(r, problems, text, (size_t)n))
			return false;
	}
	return true;
}

void
sqlite_integrity(struct sqlite_request *r)
{
	struct cells problems = { .data = NULL };

	/* Too damaged to be checked is a finding, not a failure. */
	if (!(check_pages(r, &problems) && check_references(r, &problems)) &&
	    r->result.code != NULL && strcmp(r->result.code, "ECORRUPT") == 0) {
		r->result.code = NULL;
		add_problem(r, &problems, r->result.message, strlen(r->result.message));
	}
	cells_fini(&r->result.rows);
	cells_fini(&r->result.names);
	r->result.rows = problems;
	if (!cells_add_text(&r->result.names, "problem", 7))
		sqlite_fail(r, "ENOMEM", "out of memory");
}
