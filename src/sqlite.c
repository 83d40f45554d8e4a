/* sqlite.c - see sqlite.h.  The queue, the thread that serves it, and the commits. */
#include <stdlib.h>
#include <string.h>

#include "point.h"
#include "sqlite_thread.h"

#define GROUP_LIMIT 512		/* runs in one commit; the others wait for the next */

static void
append(struct sqlite_request ***last, struct sqlite_request *r)
{
	r->next = NULL;
	**last = r;
	*last = &r->next;
}

static struct sqlite_request *
take(struct sqlite_request **first, struct sqlite_request ***last)
{
	struct sqlite_request *r = *first;

	if (r != NULL && (*first = r->next) == NULL)
		*last = first;
	return r;
}

/* The thread. */

/* The next request, or NULL when the handle is closed and the queue empty. */
static struct sqlite_request *
next_request(struct sqlite *db)
{
	struct sqlite_request *r;

	uv_mutex_lock(&db->lock);
	while ((r = take(&db->first, &db->last)) == NULL && !atomic_load(&db->closing))
		uv_cond_wait(&db->wanted, &db->lock);
	uv_mutex_unlock(&db->lock);
	db->serving = r;
	return r;
}

/* r and the runs right behind it, as a list. */
static struct sqlite_request *
gather(struct sqlite *db, struct sqlite_request *r)
{
	struct sqlite_request *list = NULL, **last = &list;
	unsigned count = 1;

	append(&last, r);
	uv_mutex_lock(&db->lock);
	while (db->first != NULL && db->first->kind == SQLITE_WANT_RUN && count++ < GROUP_LIMIT)
		append(&last, take(&db->first, &db->last));
	uv_mutex_unlock(&db->lock);
	return list;
}

static void
tell_loop(struct sqlite *db, struct sqlite_request *list)
{
	struct sqlite_request *r;

	db->serving = NULL;
	uv_mutex_lock(&db->lock);
	while ((r = list) != NULL) {
		list = r->next;
		append(&db->finished_last, r);
	}
	uv_mutex_unlock(&db->lock);
	uv_async_send(&db->async);
}

static bool
run_statements(struct sqlite_request *r)
{
	sqlite3_int64 before = sqlite3_total_changes64(r->db->handle);
	size_t at = 0;

	while (at < r->cells.used)
		if (!sqlite_statement(r, &at))
			return false;
	r->result.changes = sqlite3_total_changes64(r->db->handle) - before;
	return true;
}

static void
fail_all(struct sqlite_request *list, int rc, const char *doing)
{
	for (; list != NULL; list = list->next)
		sqlite_fail_handle(list, list->db->handle, rc, doing);
}

static int
commit(struct sqlite *db)
{
	int rc;

	if (db->options.journal)
		point_reach("commit");
	rc = sqlite_say(db, "COMMIT");
	if (rc == SQLITE_OK && db->options.journal)
		point_reach("committed");
	return rc;
}

/* Each of the list under its own savepoint; false when the transaction itself was lost with one. */
static bool
run_each(struct sqlite *db, struct sqlite_request *list)
{
	for (struct sqlite_request *r = list; r != NULL; r = r->next) {
		if (sqlite_say(db, "SAVEPOINT one") != SQLITE_OK)
			return false;
		if (!run_statements(r) && (sqlite3_get_autocommit(db->handle) ||
		                           sqlite_say(db, "ROLLBACK TO one") != SQLITE_OK))
			return false;
		if (sqlite_say(db, "RELEASE one") != SQLITE_OK)
			return false;
	}
	return true;
}

/*
 * The list as one transaction.  False: it could not be committed as a whole and nothing of it was;
 * whose fault that is comes out when each is tried alone.
 */
static bool
run_together(struct sqlite *db, struct sqlite_request *list)
{
	bool alone = list->next == NULL, whole;
	int rc = sqlite_say(db, "BEGIN IMMEDIATE");

	if (rc != SQLITE_OK) {
		fail_all(list, rc, "begin");
		return true;
	}
	whole = alone ? run_statements(list) : run_each(db, list);
	rc = SQLITE_OK;
	if (whole && (rc = commit(db)) == SQLITE_OK)
		return true;
	/* Somebody else's lock is nobody's fault here, and trying each alone would wait for each. */
	if (whole && (alone || (rc & 0xff) == SQLITE_BUSY)) {
		fail_all(list, rc, "commit");
		alone = true;
	}
	if (!sqlite3_get_autocommit(db->handle))
		sqlite_say(db, "ROLLBACK");
	return alone;
}

static void
forget_result(struct sqlite_request *r)
{
	cells_fini(&r->result.names);
	cells_fini(&r->result.rows);
	r->result = (struct sqlite_result){ .code = NULL };
}

static void
run_group(struct sqlite *db, struct sqlite_request *list)
{
	struct sqlite_request *r, *rest;

	if (run_together(db, list))
		return;
	for (r = list; r != NULL; r = rest) {
		rest = r->next;
		r->next = NULL;
		forget_result(r);
		run_together(db, r);
		r->next = rest;
	}
}

static void
carry_out(struct sqlite_request *r)
{
	size_t at = 0;

	if (atomic_load(&r->db->closing)) {
		sqlite_fail(r, "ECLOSED", "%s: closed before it was asked", r->db->path);
		return;
	}
	if (atomic_load(&r->abandoned) && r->kind != SQLITE_WANT_OPEN)
		return;
	switch (r->kind) {
	case SQLITE_WANT_OPEN:
		sqlite_connect(r);
		break;
	case SQLITE_WANT_QUERY:
		sqlite_statement(r, &at);
		break;
	case SQLITE_WANT_BACKUP:
		sqlite_backup(r);
		break;
	case SQLITE_WANT_INTEGRITY:
		sqlite_integrity(r);
		break;
	case SQLITE_WANT_RUN:
		break;
	}
}

static void
serve(void *arg)
{
	struct sqlite *db = arg;
	struct sqlite_request *r;

	while ((r = next_request(db)) != NULL) {
		r->next = NULL;
		if (r->kind != SQLITE_WANT_OPEN && db->handle == NULL)
			sqlite_fail(r, "ECLOSED", "%s: could not be opened", db->path);
		else if (r->kind == SQLITE_WANT_RUN)
			run_group(db, r = gather(db, r));
		else
			carry_out(r);
		tell_loop(db, r);
	}
	sqlite_disconnect(db);
	uv_mutex_lock(&db->lock);
	db->ended = true;
	uv_mutex_unlock(&db->lock);
	uv_async_send(&db->async);	/* the loop joins us before it lets the handle go */
}

/* The loop. */

static void
request_release(struct sqlite_request *r)
{
	cells_fini(&r->cells);
	forget_result(r);
	free(r);
}

static void
sqlite_release(struct sqlite *db)
{
	uv_cond_destroy(&db->wanted);
	uv_mutex_destroy(&db->lock);
	free(db->path);
	free(db);
}

static void
on_closed(uv_handle_t *async)
{
	sqlite_release(async->data);
}

static void
on_async(uv_async_t *async)
{
	struct sqlite *db = async->data;
	struct sqlite_request *r;
	bool ended;

	for (;;) {
		uv_mutex_lock(&db->lock);
		r = take(&db->finished, &db->finished_last);
		ended = db->ended;
		uv_mutex_unlock(&db->lock);
		if (r == NULL)
			break;
		db->outstanding--;
		r->told = true;
		if (atomic_load(&r->abandoned))
			request_release(r);
		else
			r->done(r->arg);
	}
	if (ended) {
		uv_thread_join(&db->thread);
		uv_close((uv_handle_t *)async, on_closed);
	} else if (db->outstanding == 0 && !atomic_load(&db->closing)) {
		uv_unref((uv_handle_t *)async);
	}
}

struct sqlite *
sqlite_new(uv_loop_t *loop, const char *path, const struct sqlite_options *options)
{
	struct sqlite *db = calloc(1, sizeof *db);

	if (db == NULL || (db->path = strdup(path)) == NULL) {
		free(db);
		return NULL;
	}
	db->options = *options;
	db->last = &db->first;
	db->finished_last = &db->finished;
	uv_mutex_init(&db->lock);
	uv_cond_init(&db->wanted);
	if (uv_async_init(loop, &db->async, on_async) != 0) {
		sqlite_release(db);
		return NULL;
	}
	db->async.data = db;
	uv_unref((uv_handle_t *)&db->async);
	if (uv_thread_create(&db->thread, serve, db) != 0) {
		uv_close((uv_handle_t *)&db->async, on_closed);
		return NULL;
	}
	return db;
}

void
sqlite_free(struct sqlite *db)
{
	if (db == NULL || atomic_load(&db->closing))
		return;
	uv_ref((uv_handle_t *)&db->async);
	uv_mutex_lock(&db->lock);
	atomic_store(&db->closing, true);
	uv_cond_signal(&db->wanted);
	uv_mutex_unlock(&db->lock);
}

void
sqlite_progress(struct sqlite *db, unsigned *done, unsigned *total)
{
	*total = atomic_load(&db->pages_total);
	*done = atomic_load(&db->pages_done);
}

struct sqlite_request *
sqlite_request_new(struct sqlite *db, enum sqlite_kind kind)
{
	struct sqlite_request *r = calloc(1, sizeof *r);

	if (r != NULL) {
		r->db = db;
		r->kind = kind;
	}
	return r;
}

bool
sqlite_request_statement(struct sqlite_request *r, const char *sql, size_t length, int values, bool exact)
{
	return cells_add_text(&r->cells, sql, length) &&
	       cells_add_integer(&r->cells, exact ? values : -1 - values);
}

struct cells *
sqlite_request_cells(struct sqlite_request *r)
{
	return &r->cells;
}

void
sqlite_request_send(struct sqlite_request *r, void (*done)(void *arg), void *arg)
{
	struct sqlite *db = r->db;

	r->done = done;
	r->arg = arg;
	r->sent = true;
	if (db->outstanding++ == 0)
		uv_ref((uv_handle_t *)&db->async);
	uv_mutex_lock(&db->lock);
	append(&db->last, r);
	uv_cond_signal(&db->wanted);
	uv_mutex_unlock(&db->lock);
}

const struct sqlite_result *
sqlite_request_result(const struct sqlite_request *r)
{
	return &r->result;
}

void
sqlite_request_free(struct sqlite_request *r)
{
	if (r == NULL)
		return;
	if (!r->sent || r->told)
		request_release(r);
	else
		atomic_store(&r->abandoned, true);	/* the thread notices, and the loop frees */
}
