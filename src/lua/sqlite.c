/*
 * lua/sqlite.c - the "runbook.core.sqlite" module.
 *
 * Marshalling only: the thread, the queue and the commits are in ../sqlite.c, the policy in
 * lib/runbook/sqlite.lua.
 */
#include <limits.h>
#include <string.h>

#include "../sqlite.h"
#include "bind.h"

#define DATABASE_MT "runbook.sqlite.database"
#define REQUEST_MT  "runbook.sqlite.request"

#define DEFAULT_BUSY_SECONDS 5.0
#define DEFAULT_RESULT_LIMIT ((lua_Integer)64 << 20)

struct request_op {
	struct task_op op;
	struct sqlite_request *request;	/* NULL once released */
};

static struct sqlite *
check_database(lua_State *L)
{
	struct sqlite **db = luaL_checkudata(L, 1, DATABASE_MT);

	luaL_argcheck(L, *db != NULL, 1, "database is closed");
	return *db;
}

static void
request_release(struct task_op *op)
{
	struct request_op *x = (struct request_op *)op;

	sqlite_request_free(x->request);
	x->request = NULL;
}

static void
out_of_memory(lua_State *L, bool ok)
{
	if (!ok)
		luaL_error(L, "out of memory");
}

/* The database at idx is kept alive by the op.  [-0, +1, m] */
static struct request_op *
push_request(lua_State *L, int idx, enum sqlite_kind kind, const char *what,
             int (*finish)(lua_State *L, struct task_op *op))
{
	struct sqlite **db = lua_touserdata(L, idx);
	struct request_op *x = lua_newuserdatauv(L, sizeof *x, 1);	/* op */

	*x = (struct request_op){ .op = { .finish = finish, .cancel = request_release, .what = what } };
	luaL_setmetatable(L, REQUEST_MT);
	lua_pushvalue(L, idx);
	lua_setiuservalue(L, -2, 1);
	out_of_memory(L, (x->request = sqlite_request_new(*db, kind)) != NULL);
	return x;
}

static int
send_request(lua_State *L, struct request_op *x)
{
	sqlite_request_send(x->request, bind_wake, &x->op);
	return task_await(L, &x->op);
}

/* The value on top of the stack, which is popped. */
static void
add_value(lua_State *L, struct cells *cells)
{
	struct cell value = { .type = CELL_NULL };

	switch (lua_type(L, -1)) {
	case LUA_TNIL:
		break;
	case LUA_TBOOLEAN:
		value.type = CELL_INTEGER;
		value.integer = lua_toboolean(L, -1);
		break;
	case LUA_TNUMBER:
		value.type = lua_isinteger(L, -1) ? CELL_INTEGER : CELL_REAL;
		if (value.type == CELL_INTEGER)
			value.integer = lua_tointeger(L, -1);
		else
			value.real = lua_tonumber(L, -1);
		break;
	case LUA_TSTRING:
		value.type = CELL_TEXT;
		value.text.bytes = lua_tolstring(L, -1, &value.text.length);
		break;
	default:
		luaL_error(L, "a %s cannot be kept in a database", luaL_typename(L, -1));
	}
	out_of_memory(L, cells_add(cells, &value));
	lua_pop(L, 1);
}

/* Failures of any request.  0: there was none. */
static int
push_failure(lua_State *L, struct request_op *x)
{
	const struct sqlite_result *result = sqlite_request_result(x->request);

	return result->code == NULL ? 0 : bind_fail(L, result->code, "%s", result->message);
}

static void
push_cell(lua_State *L, const struct cell *value)
{
	switch (value->type) {
	case CELL_INTEGER:
		lua_pushinteger(L, value->integer);
		break;
	case CELL_REAL:
		lua_pushnumber(L, value->real);
		break;
	case CELL_TEXT:
		lua_pushlstring(L, value->text.bytes, value->text.length);
		break;
	case CELL_NULL:
		lua_pushnil(L);
		break;
	}
}

/* A list of all cells.  [-0, +1, m] */
static void
push_list(lua_State *L, const struct cells *cells)
{
	struct cell value;
	size_t at = 0;

	lua_createtable(L, cells->count > INT_MAX ? INT_MAX : (int)cells->count, 0);
	for (lua_Integer i = 1; cells_next(cells, &at, &value); i++) {
		push_cell(L, &value);
		lua_rawseti(L, -2, i);
	}
}

/* Rows as { n = columns, value... }.  [-0, +1, m] */
static void
push_rows(lua_State *L, const struct sqlite_result *result)
{
	lua_Integer columns = (lua_Integer)result->names.count;
	struct cell value;
	size_t at = 0;

	lua_createtable(L, columns > 0 ? (int)(result->rows.count / result->names.count) : 0, 0);
	for (lua_Integer row = 1; at < result->rows.used; row++) {
		lua_createtable(L, (int)columns, 1);		/* rows row */
		for (lua_Integer i = 1; i <= columns && cells_next(&result->rows, &at, &value); i++) {
			push_cell(L, &value);
			lua_rawseti(L, -2, i);
		}
		lua_pushinteger(L, columns);
		lua_setfield(L, -2, "n");
		lua_rawseti(L, -2, row);
	}
}

/* Rows as { name = value }, names in a list at `names`.  [-0, +1, m] */
static void
push_records(lua_State *L, const struct sqlite_result *result, int names)
{
	lua_Integer columns = (lua_Integer)result->names.count;
	struct cell value;
	size_t at = 0;

	lua_newtable(L);
	for (lua_Integer row = 1; at < result->rows.used; row++) {
		lua_createtable(L, 0, (int)columns);		/* rows row */
		for (lua_Integer i = 1; i <= columns && cells_next(&result->rows, &at, &value); i++) {
			lua_rawgeti(L, names, i);
			push_cell(L, &value);
			lua_rawset(L, -3);
		}
		lua_rawseti(L, -2, row);
	}
}

static int
open_finish(lua_State *L, struct task_op *op)
{
	struct request_op *x = (struct request_op *)op;
	int failed = push_failure(L, x);

	if (failed > 0)
		return failed;
	request_release(op);
	lua_pushvalue(L, 3);				/* path options db op … db */
	return 1;
}

static int
query_finish(lua_State *L, struct task_op *op)
{
	struct request_op *x = (struct request_op *)op;
	const struct sqlite_result *result = sqlite_request_result(x->request);
	int failed = push_failure(L, x);

	if (failed > 0)
		return failed;
	push_list(L, &result->names);			/* names */
	push_rows(L, result);				/* names rows */
	lua_insert(L, -2);				/* rows names */
	request_release(op);
	return 2;
}

static int
records_finish(lua_State *L, struct task_op *op)
{
	struct request_op *x = (struct request_op *)op;
	int failed = push_failure(L, x);

	if (failed > 0)
		return failed;
	push_list(L, &sqlite_request_result(x->request)->names);
	push_records(L, sqlite_request_result(x->request), lua_gettop(L));
	request_release(op);
	return 1;
}

static int
run_finish(lua_State *L, struct task_op *op)
{
	struct request_op *x = (struct request_op *)op;
	int failed = push_failure(L, x);

	if (failed > 0)
		return failed;
	lua_pushboolean(L, 1);
	lua_pushinteger(L, sqlite_request_result(x->request)->changes);
	request_release(op);
	return 2;
}

static int
backup_finish(lua_State *L, struct task_op *op)
{
	int failed = push_failure(L, (struct request_op *)op);

	if (failed > 0)
		return failed;
	lua_pushboolean(L, 1);
	return 1;
}

static int
integrity_finish(lua_State *L, struct task_op *op)
{
	struct request_op *x = (struct request_op *)op;
	int failed = push_failure(L, x);

	if (failed > 0)
		return failed;
	push_list(L, &sqlite_request_result(x->request)->rows);
	return 1;
}

static bool
option_flag(lua_State *L, const char *name)
{
	bool flag;

	lua_getfield(L, 2, name);
	flag = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return flag;
}

static lua_Number
option_number(lua_State *L, const char *name, lua_Number otherwise, lua_Number most)
{
	lua_Number number = otherwise;

	if (lua_getfield(L, 2, name) != LUA_TNIL) {
		if (lua_type(L, -1) != LUA_TNUMBER || !(lua_tonumber(L, -1) >= 0 && lua_tonumber(L, -1) <= most))
			luaL_error(L, "option '%s' must be a number from 0 to %f", name, most);
		number = lua_tonumber(L, -1);
	}
	lua_pop(L, 1);
	return number;
}

static bool
is_word(const char *text)
{
	size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789-");

	return length > 0 && length <= 50 && text[length] == '\0';
}

/* The table `pragmas` on top of the stack: name = value. */
static void
add_pragmas(lua_State *L, struct cells *cells)
{
	luaL_checktype(L, -1, LUA_TTABLE);
	lua_pushnil(L);
	while (lua_next(L, -2) != 0) {			/* pragmas name value */
		if (lua_type(L, -2) != LUA_TSTRING || !is_word(lua_tostring(L, -2)) ||
		    !is_word(luaL_tolstring(L, -1, NULL)))
			luaL_error(L, "option 'pragmas' takes names and plain values");
		lua_pushvalue(L, -3);			/* pragmas name value text name */
		add_value(L, cells);
		add_value(L, cells);
		lua_pop(L, 1);				/* pragmas name */
	}
}

static struct sqlite_options
check_options(lua_State *L)
{
	luaL_checktype(L, 2, LUA_TTABLE);
	return (struct sqlite_options){
		.create = option_flag(L, "create"),
		.readonly = option_flag(L, "readonly"),
		.journal = option_flag(L, "journal"),
		.busy_ms = (unsigned)(1000 * option_number(L, "busy_timeout", DEFAULT_BUSY_SECONDS, 1e6)),
		.result_limit = (size_t)option_number(L, "result_limit", DEFAULT_RESULT_LIMIT, 1e15),
	};
}

/* open(path [, options]) -> database */
static int
l_open(lua_State *L)
{
	const char *path = bind_path(L, 1);
	struct sqlite_options options;
	struct request_op *x;
	struct sqlite **db;

	lua_settop(L, 2);
	if (lua_isnil(L, 2)) {
		lua_newtable(L);
		lua_replace(L, 2);
	}
	options = check_options(L);
	bind_permit(L, options.readonly ? PERMIT_READ : PERMIT_CHANGE);
	db = lua_newuserdatauv(L, sizeof *db, 0);	/* path options db */
	*db = NULL;
	luaL_setmetatable(L, DATABASE_MT);
	*db = sqlite_new(host_loop(host_of(L)), path, &options);
	if (*db == NULL)
		return bind_fail(L, "ENOMEM", "%s: no memory or thread for a database", path);
	x = push_request(L, 3, SQLITE_WANT_OPEN, "sqlite open", open_finish);
	if (lua_getfield(L, 2, "pragmas") != LUA_TNIL)
		add_pragmas(L, sqlite_request_cells(x->request));
	lua_settop(L, 4);
	return send_request(L, x);
}

static int
start_query(lua_State *L, const char *what, int (*finish)(lua_State *L, struct task_op *op))
{
	int last = lua_gettop(L);
	struct request_op *x;
	const char *sql;
	size_t length;

	check_database(L);
	sql = luaL_checklstring(L, 2, &length);
	bind_permit(L, PERMIT_READ);
	x = push_request(L, 1, SQLITE_WANT_QUERY, what, finish);
	out_of_memory(L, sqlite_request_statement(x->request, sql, length, last - 2, true));
	for (int i = 3; i <= last; i++) {
		lua_pushvalue(L, i);
		add_value(L, sqlite_request_cells(x->request));
	}
	return send_request(L, x);
}

/* db:query(sql, value...) -> rows, names */
static int
l_query(lua_State *L)
{
	return start_query(L, "sqlite query", query_finish);
}

/* db:records(sql, value...) -> list of { name = value } */
static int
l_records(lua_State *L)
{
	return start_query(L, "sqlite query", records_finish);
}

/* { sql, value..., n = } at idx; without n, values that are missing at the end are NULL. */
static void
add_statement(lua_State *L, int idx, struct sqlite_request *request)
{
	lua_Integer count;
	const char *sql;
	size_t length;
	bool exact;

	lua_rawgeti(L, idx, 1);
	if (lua_type(L, -1) != LUA_TSTRING)
		luaL_argerror(L, idx, "a statement is { sql, value... }");
	sql = lua_tolstring(L, -1, &length);
	lua_getfield(L, idx, "n");
	exact = lua_isinteger(L, -1);
	count = exact ? lua_tointeger(L, -1) : (lua_Integer)lua_rawlen(L, idx) - 1;
	if (count < 0 || count > 32766)
		luaL_argerror(L, idx, "too few or too many values");
	out_of_memory(L, sqlite_request_statement(request, sql, length, (int)count, exact));
	lua_pop(L, 2);
	for (lua_Integer i = 1; i <= count; i++) {
		lua_rawgeti(L, idx, i + 1);
		add_value(L, sqlite_request_cells(request));
	}
}

/* db:run({ sql, value... }...) -> true, changes */
static int
l_run(lua_State *L)
{
	int last = lua_gettop(L);
	struct request_op *x;

	check_database(L);
	for (int i = 2; i <= last; i++)
		luaL_checktype(L, i, LUA_TTABLE);
	luaL_argcheck(L, last >= 2, 2, "no statement");
	bind_permit(L, PERMIT_CHANGE);
	x = push_request(L, 1, SQLITE_WANT_RUN, "sqlite commit", run_finish);
	for (int i = 2; i <= last; i++)
		add_statement(L, i, x->request);
	return send_request(L, x);
}

/* db:backup(to_path) -> true */
static int
l_backup(lua_State *L)
{
	struct request_op *x;
	const char *to;

	check_database(L);
	to = bind_path(L, 2);
	bind_permit(L, PERMIT_CHANGE);
	x = push_request(L, 1, SQLITE_WANT_BACKUP, "sqlite backup", backup_finish);
	out_of_memory(L, cells_add_text(sqlite_request_cells(x->request), to, strlen(to)));
	return send_request(L, x);
}

/* db:progress() -> pages copied, pages of all; 0, 0 when no backup runs */
static int
l_progress(lua_State *L)
{
	unsigned done, total;

	sqlite_progress(check_database(L), &done, &total);
	lua_pushinteger(L, done);
	lua_pushinteger(L, total);
	return 2;
}

/* db:integrity() -> list of problems, empty when the database is whole */
static int
l_integrity(lua_State *L)
{
	check_database(L);
	bind_permit(L, PERMIT_READ);
	return send_request(L, push_request(L, 1, SQLITE_WANT_INTEGRITY, "sqlite integrity", integrity_finish));
}

static int
l_close(lua_State *L)
{
	struct sqlite **db = luaL_checkudata(L, 1, DATABASE_MT);

	sqlite_free(*db);
	*db = NULL;
	return 0;
}

static const luaL_Reg database_methods[] = {
	{ "backup",    l_backup },
	{ "close",     l_close },
	{ "integrity", l_integrity },
	{ "progress",  l_progress },
	{ "query",     l_query },
	{ "records",   l_records },
	{ "run",       l_run },
	{ NULL, NULL }
};

static const luaL_Reg database_meta[] = {
	{ "__close", l_close },
	{ "__gc",    l_close },
	{ NULL, NULL }
};

static const luaL_Reg functions[] = {
	{ "open", l_open },
	{ NULL, NULL }
};

int luaopen_runbook_core_sqlite(lua_State *L);

int
luaopen_runbook_core_sqlite(lua_State *L)
{
	bind_class(L, DATABASE_MT, database_methods, database_meta);
	bind_op_class(L, REQUEST_MT);
	luaL_newlib(L, functions);
	return 1;
}
