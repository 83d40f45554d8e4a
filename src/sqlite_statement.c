/* sqlite_statement.c - connections, statements, and what SQLite's answers mean.  See sqlite_thread.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "sqlite_thread.h"

#define PROGRESS_STEPS 4000	/* of SQLite's machine between two looks whether to go on */
#define CLOSING_BUSY_MS 1000	/* a closed handle waits no longer than this for a lock */

void
sqlite_fail(struct sqlite_request *r, const char *code, const char *format, ...)
{
	va_list ap;

	if (r->result.code != NULL)
		return;
	r->result.code = code;
	va_start(ap, format);
	vsnprintf(r->result.message, sizeof r->result.message, format, ap);
	va_end(ap);
}

const char *
sqlite_code_errno(int error)
{
	switch (error) {
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return "EFULL";
	case ENOENT:
	case ENOTDIR:
		return "ENOENT";
	case EACCES:
	case EPERM:
		return "EPERM";
	case EROFS:
		return "EREADONLY";
	case EISDIR:
		return "EISDIR";
	case EEXIST:
		return "EEXIST";
	case EMFILE:
	case ENFILE:
		return "EMFILE";
	case ENOMEM:
		return "ENOMEM";
	}
	return "EIO";
}

const char *
sqlite_code(const struct sqlite *db, sqlite3 *handle, int rc)
{
	if (rc == SQLITE_IOERR_SHMSIZE)
		return "EFULL";
	switch (rc & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return "EBUSY";
	case SQLITE_FULL:
		return "EFULL";
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return "ECORRUPT";
	case SQLITE_READONLY:
		return "EREADONLY";
	case SQLITE_PERM:
		return "EPERM";
	case SQLITE_CONSTRAINT:
		return "ECONSTRAINT";
	case SQLITE_INTERRUPT:
		return atomic_load(&db->closing) ? "ECLOSED" : "ECANCELED";
	case SQLITE_NOMEM:
		return "ENOMEM";
	case SQLITE_CANTOPEN:
	case SQLITE_IOERR:
		return sqlite_code_errno(handle != NULL ? sqlite3_system_errno(handle) : ENOMEM);
	}
	return "ESQL";
}

void
sqlite_fail_handle(struct sqlite_request *r, sqlite3 *handle, int rc, const char *doing)
{
	const char *code = sqlite_code(r->db, handle, rc);
	const char *why = handle != NULL ? sqlite3_errmsg(handle) : sqlite3_errstr(rc);

	if (rc == SQLITE_READONLY_ROLLBACK || rc == SQLITE_READONLY_RECOVERY)
		why = "its last writer died in the middle of a transaction; "
		      "it has to be opened for writing once";
	else if ((rc & 0xff) == SQLITE_AUTH)
		why = "transactions, other files and, in a query, pragmas that do something are refused";
	else if (handle != NULL && rc == sqlite3_extended_errcode(handle) &&
	         ((rc & 0xff) == SQLITE_CANTOPEN || (rc & 0xff) == SQLITE_IOERR) &&
	         sqlite3_system_errno(handle) != 0)
		why = strerror(sqlite3_system_errno(handle));
	if (strcmp(code, "ESQL") == 0 || strcmp(code, "ECONSTRAINT") == 0)
		sqlite_fail(r, code, "%s: %s: %.160s", r->db->path, why, doing);
	else
		sqlite_fail(r, code, "%s: %s", r->db->path, why);
}

bool
sqlite_unwanted(const struct sqlite *db)
{
	const struct sqlite_request *r = db->serving;

	return r != NULL && r->kind != SQLITE_WANT_RUN &&
	       (atomic_load(&r->abandoned) || atomic_load(&db->closing));
}

static int
on_progress(void *arg)
{
	return sqlite_unwanted(arg);
}

/* Waits 1, 2, 4 ... 64 ms, until the handle's patience is over or nobody wants the answer. */
static int
on_busy(void *arg, int tries)
{
	struct sqlite *db = arg;
	uint64_t now = uv_hrtime() / 1000000, patience = db->options.busy_ms;
	struct timespec pause = { .tv_nsec = 1000000L << (tries < 6 ? tries : 6) };

	if (tries == 0)
		db->busy_since = now;
	if (atomic_load(&db->closing) && patience > CLOSING_BUSY_MS)
		patience = CLOSING_BUSY_MS;
	if (sqlite_unwanted(db) || now - db->busy_since >= patience)
		return 0;
	nanosleep(&pause, NULL);
	return 1;
}

static int
compare_names(const void *a, const void *b)
{
	return strcasecmp(a, *(const char *const *)b);
}

static bool
is_among(const char *name, const char *const *names, size_t count)
{
	return bsearch(name, names, count, sizeof *names, compare_names) != NULL;
}

/* Most pragmas tell when they stand alone and set when they are given something. */
static bool
pragma_tells(const char *name, const char *given)
{
	static const char *const act_alone[] = {
		"incremental_vacuum", "optimize", "shrink_memory", "wal_checkpoint",
	};
	static const char *const ask_about[] = {
		"foreign_key_check", "foreign_key_list", "index_info", "index_list", "index_xinfo",
		"integrity_check", "quick_check", "table_info", "table_list", "table_xinfo",
	};

	if (given == NULL)
		return !is_among(name, act_alone, sizeof act_alone / sizeof *act_alone);
	return is_among(name, ask_about, sizeof ask_about / sizeof *ask_about);
}

/*
 * Transactions are ours, or one run could end the others'.  Other files would be opened unasked.
 * What a query must not change sqlite3_stmt_readonly knows, except for pragmas.
 */
static int
on_authorize(void *arg, int action, const char *first, const char *second, const char *third,
             const char *fourth)
{
	const struct sqlite *db = arg;

	(void)third;
	(void)fourth;
	if (db->speaker == SPEAKER_US)
		return SQLITE_OK;
	switch (action) {
	case SQLITE_TRANSACTION:
	case SQLITE_SAVEPOINT:
	case SQLITE_ATTACH:
	case SQLITE_DETACH:
		return SQLITE_DENY;
	case SQLITE_PRAGMA:
		if (db->speaker == SPEAKER_QUERY && !pragma_tells(first, second))
			return SQLITE_DENY;
	}
	return SQLITE_OK;
}

int
sqlite_say(struct sqlite *db, const char *sql)
{
	enum sqlite_speaker before = db->speaker;
	int rc;

	db->speaker = SPEAKER_US;
	rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
	db->speaker = before;
	return rc == SQLITE_OK ? rc : sqlite3_extended_errcode(db->handle);
}

/* Statements. */

static void
forget_prepared(struct sqlite_prepared *p)
{
	sqlite3_finalize(p->statement);
	free(p->sql);
	*p = (struct sqlite_prepared){ .statement = NULL };
}

/* Whether nothing is left but blanks, semicolons and comments.  Preparing it might act already. */
static bool
is_blank(const char *sql)
{
	for (;;) {
		sql += strspn(sql, " \t\r\n\f;");
		if (strncmp(sql, "--", 2) == 0)
			sql += strcspn(sql, "\n");
		else if (strncmp(sql, "/*", 2) == 0)
			sql = strstr(sql + 2, "*/") != NULL ? strstr(sql + 2, "*/") + 2 : "";
		else
			return *sql == '\0';
	}
}

/* One statement and nothing behind it. */
static sqlite3_stmt *
prepare(struct sqlite_request *r, const char *sql, size_t length)
{
	sqlite3 *handle = r->db->handle;
	sqlite3_stmt *statement = NULL;
	const char *tail = NULL;
	int rc;

	if (length > INT_MAX / 2 || memchr(sql, '\0', length) != NULL) {
		sqlite_fail(r, "ESQL", "%s: statement too long or with a NUL in it", r->db->path);
		return NULL;
	}
	rc = sqlite3_prepare_v3(handle, sql, (int)length + 1, SQLITE_PREPARE_PERSISTENT, &statement, &tail);
	if (rc != SQLITE_OK) {
		sqlite_fail_handle(r, handle, rc, sql);
		return NULL;
	}
	if (statement == NULL || !is_blank(tail)) {
		sqlite_fail(r, "ESQL", "%s: %s: %.160s", r->db->path,
		            statement == NULL ? "no statement" : "more than one statement", sql);
		sqlite3_finalize(statement);
		return NULL;
	}
	return statement;
}

/* The statement for this text, which stays in the cache's hands; NULL when it is wrong. */
static sqlite3_stmt *
prepared(struct sqlite_request *r, const char *sql, size_t length)
{
	struct sqlite *db = r->db;
	struct sqlite_prepared *oldest = db->cache;
	char *copy;

	for (struct sqlite_prepared *p = db->cache; p < db->cache + SQLITE_CACHED; p++) {
		if (p->statement != NULL && p->length == length && p->speaker == db->speaker &&
		    memcmp(p->sql, sql, length) == 0) {
			p->used = ++db->uses;
			return p->statement;
		}
		if (p->used < oldest->used)
			oldest = p;
	}
	forget_prepared(oldest);
	if ((oldest->statement = prepare(r, sql, length)) == NULL)
		return NULL;
	if ((copy = malloc(length + 1)) == NULL) {
		forget_prepared(oldest);
		sqlite_fail(r, "ENOMEM", "out of memory");
		return NULL;
	}
	oldest->sql = memcpy(copy, sql, length);
	oldest->length = length;
	oldest->speaker = db->speaker;
	oldest->used = ++db->uses;
	return oldest->statement;
}

static int
bind_value(sqlite3_stmt *statement, int i, const struct cell *value)
{
	switch (value->type) {
	case CELL_INTEGER:
		return sqlite3_bind_int64(statement, i, value->integer);
	case CELL_REAL:
		return sqlite3_bind_double(statement, i, value->real);
	case CELL_TEXT:	/* the request's cells outlive the statement's run */
		return sqlite3_bind_text64(statement, i, value->text.bytes, value->text.length,
		                           SQLITE_STATIC, SQLITE_UTF8);
	case CELL_NULL:
		break;
	}
	return sqlite3_bind_null(statement, i);
}

static bool
bind_all(struct sqlite_request *r, sqlite3_stmt *statement, int values, bool exact, size_t *at)
{
	int wanted = sqlite3_bind_parameter_count(statement), rc = SQLITE_OK;
	struct cell value;

	if (values > wanted || (exact && values < wanted)) {
		sqlite_fail(r, "ESQL", "%s: %d values for %d parameters: %.160s", r->db->path, values,
		            wanted, sqlite3_sql(statement));
		return false;
	}
	for (int i = 1; i <= values && rc == SQLITE_OK; i++) {
		cells_next(&r->cells, at, &value);
		rc = bind_value(statement, i, &value);
	}
	if (rc != SQLITE_OK)
		sqlite_fail_handle(r, r->db->handle, rc, sqlite3_sql(statement));
	return rc == SQLITE_OK;
}

static bool
collect_value(struct cells *rows, sqlite3_stmt *statement, int column)
{
	struct cell value = { .type = CELL_NULL };

	switch (sqlite3_column_type(statement, column)) {
	case SQLITE_INTEGER:
		return cells_add_integer(rows, sqlite3_column_int64(statement, column));
	case SQLITE_FLOAT:
		value.type = CELL_REAL;
		value.real = sqlite3_column_double(statement, column);
		break;
	case SQLITE_TEXT:
	case SQLITE_BLOB:
		value.type = CELL_TEXT;
		value.text.bytes = sqlite3_column_blob(statement, column);
		value.text.length = (size_t)sqlite3_column_bytes(statement, column);
		break;
	}
	return cells_add(rows, &value);
}

static bool
collect_names(struct sqlite_request *r, sqlite3_stmt *statement)
{
	for (int i = 0; i < sqlite3_column_count(statement); i++) {
		const char *name = sqlite3_column_name(statement, i);

		if (name == NULL || !cells_add_text(&r->result.names, name, strlen(name))) {
			sqlite_fail(r, "ENOMEM", "out of memory");
			return false;
		}
	}
	return true;
}

static bool
collect_row(struct sqlite_request *r, sqlite3_stmt *statement)
{
	for (int i = 0; i < sqlite3_column_count(statement); i++)
		if (!collect_value(&r->result.rows, statement, i)) {
			sqlite_fail(r, "ENOMEM", "out of memory");
			return false;
		}
	if (r->result.rows.used <= r->db->options.result_limit)
		return true;
	sqlite_fail(r, "ELIMIT", "%s: the answer is over %zu bytes", r->db->path,
	            r->db->options.result_limit);
	return false;
}

/* A query's rows are kept, a run's are not. */
static bool
step_all(struct sqlite_request *r, sqlite3_stmt *statement)
{
	bool keep = r->kind != SQLITE_WANT_RUN;
	int rc;

	if (keep && !collect_names(r, statement))
		return false;
	while ((rc = sqlite3_step(statement)) == SQLITE_ROW)
		if (keep && !collect_row(r, statement))
			return false;
	if (rc != SQLITE_DONE)
		sqlite_fail_handle(r, r->db->handle, rc, sqlite3_sql(statement));
	return rc == SQLITE_DONE;
}

bool
sqlite_statement(struct sqlite_request *r, size_t *at)
{
	struct cell sql = { .type = CELL_NULL }, count = { .type = CELL_NULL };
	sqlite3_stmt *statement;
	int values;
	bool exact, ok;

	if (!cells_next(&r->cells, at, &sql) || !cells_next(&r->cells, at, &count))
		return true;
	exact = count.integer >= 0;
	values = (int)(exact ? count.integer : -1 - count.integer);
	r->db->speaker = r->kind == SQLITE_WANT_RUN ? SPEAKER_RUN : SPEAKER_QUERY;
	if ((statement = prepared(r, sql.text.bytes, sql.text.length)) == NULL)
		return false;
	if (r->kind == SQLITE_WANT_QUERY && !sqlite3_stmt_readonly(statement)) {
		sqlite_fail(r, "ESQL", "%s: a query changes nothing, run does: %.160s", r->db->path,
		            sql.text.bytes);
		return false;
	}
	ok = bind_all(r, statement, values, exact, at) && step_all(r, statement);
	sqlite3_reset(statement);
	sqlite3_clear_bindings(statement);
	return ok;
}

bool
sqlite_read(struct sqlite_request *r, const char *sql)
{
	sqlite3_stmt *statement;
	bool ok;

	r->db->speaker = SPEAKER_US;
	if ((statement = prepare(r, sql, strlen(sql))) == NULL)
		return false;
	ok = step_all(r, statement);
	sqlite3_finalize(statement);
	return ok;
}

/* Connections. */

/*
 * By ourselves, for the mode, and only where nothing is: closing a descriptor of a database that
 * this process has open would drop SQLite's locks on it.
 */
static bool
create_file(struct sqlite_request *r)
{
	int fd = open(r->db->path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 && errno != EEXIST) {
		sqlite_fail(r, sqlite_code_errno(errno), "%s: %s", r->db->path, strerror(errno));
		return false;
	}
	if (fd >= 0)
		close(fd);
	return true;
}

/* "PRAGMA name=value"; where SQLite answers with what it did, that must be what was asked. */
static bool
set_pragma(struct sqlite_request *r, const char *name, const char *value)
{
	struct cells *rows = &r->result.rows;
	struct cell answer = { .type = CELL_NULL };
	char sql[128];
	size_t at = 0;
	bool ok;

	snprintf(sql, sizeof sql, "PRAGMA %.50s=%.50s", name, value);
	ok = sqlite_read(r, sql);
	if (ok && strcasecmp(name, "journal_mode") == 0 && cells_next(rows, &at, &answer) &&
	    answer.type == CELL_TEXT && strcasecmp(answer.text.bytes, value) != 0) {
		sqlite_fail(r, "ENOTSUP", "%s: journal_mode %s is not possible here, it stays %s",
		            r->db->path, value, answer.text.bytes);
		ok = false;
	}
	cells_fini(rows);
	cells_fini(&r->result.names);
	return ok;
}

static bool
set_pragmas(struct sqlite_request *r)
{
	struct cell name, value;
	size_t at = 0;

	while (cells_next(&r->cells, &at, &name) && cells_next(&r->cells, &at, &value))
		if (!set_pragma(r, name.text.bytes, value.text.bytes))
			return false;
	return true;
}

/* Limits, locks and rules of a new connection; then the first look into the file. */
static bool
prepare_connection(struct sqlite_request *r)
{
	struct sqlite *db = r->db;

	sqlite3_extended_result_codes(db->handle, 1);
	sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(db->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	sqlite3_busy_handler(db->handle, on_busy, db);
	sqlite3_progress_handler(db->handle, PROGRESS_STEPS, on_progress, db);
	sqlite3_set_authorizer(db->handle, on_authorize, db);
	if (!db->options.readonly && sqlite3_db_readonly(db->handle, "main") == 1) {
		sqlite_fail(r, "EPERM", "%s: may be read but not written", db->path);
		return false;
	}
	if (!sqlite_read(r, "PRAGMA schema_version"))
		return false;
	cells_fini(&r->result.rows);
	cells_fini(&r->result.names);
	return set_pragmas(r);
}

void
sqlite_connect(struct sqlite_request *r)
{
	struct sqlite *db = r->db;
	const struct sqlite_options *o = &db->options;
	int flags = (o->readonly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE) | SQLITE_OPEN_NOMUTEX;
	char *name;
	int rc;

	if (o->create && !o->readonly && !create_file(r))
		return;
	/* A path is a path: neither ":memory:" nor "file:..." mean anything but themselves. */
	name = sqlite3_mprintf("%s%s", db->path[0] == '/' ? "" : "./", db->path);
	if (name == NULL) {
		sqlite_fail(r, "ENOMEM", "out of memory");
		return;
	}
	rc = sqlite3_open_v2(name, &db->handle, flags, NULL);
	sqlite3_free(name);
	if (rc != SQLITE_OK)
		sqlite_fail_handle(r, db->handle, rc, "open");
	if (rc != SQLITE_OK || !prepare_connection(r))
		sqlite_disconnect(db);
}

void
sqlite_disconnect(struct sqlite *db)
{
	for (size_t i = 0; i < SQLITE_CACHED; i++)
		forget_prepared(&db->cache[i]);
	sqlite3_close(db->handle);
	db->handle = NULL;
}
