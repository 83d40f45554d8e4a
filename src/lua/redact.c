/*
 * lua/redact.c - the "runbook.core.redact" module.
 *
 * Marshalling only: the search is in ../redact.c.  host() is the redactor that knows every secret of
 * this host; whatever is shown, logged or reported goes through it.
 */
#include "redact.h"

#include "bind.h"

#define REDACTOR_MT "runbook.redact.redactor"
#define STREAM_MT   "runbook.redact.stream"
#define HOST_FIELD  "runbook.redact.host"

static struct redact *
check_redactor(lua_State *L, int idx)
{
	return *(struct redact **)luaL_checkudata(L, idx, REDACTOR_MT);
}

static struct redact_stream *
check_stream(lua_State *L)
{
	struct redact_stream **s = luaL_checkudata(L, 1, STREAM_MT);

	luaL_argcheck(L, *s != NULL, 1, "stream is closed");
	return *s;
}

static int
l_new(lua_State *L)
{
	struct redact **r = lua_newuserdatauv(L, sizeof *r, 0);

	*r = NULL;
	luaL_setmetatable(L, REDACTOR_MT);
	if ((*r = redact_new()) == NULL)
		return luaL_error(L, "out of memory");
	return 1;
}

static int
l_redactor_gc(lua_State *L)
{
	struct redact **r = luaL_checkudata(L, 1, REDACTOR_MT);

	redact_free(*r);
	*r = NULL;
	return 0;
}

struct redact *
redact_push_host(lua_State *L)
{
	if (lua_getfield(L, LUA_REGISTRYINDEX, HOST_FIELD) == LUA_TNIL) {
		lua_pop(L, 1);
		luaL_requiref(L, "runbook.core.redact", luaopen_runbook_core_redact, 0);
		lua_pop(L, 1);
		l_new(L);
		lua_pushvalue(L, -1);
		lua_setfield(L, LUA_REGISTRYINDEX, HOST_FIELD);
	}
	return *(struct redact **)lua_touserdata(L, -1);
}

static int
l_host(lua_State *L)
{
	redact_push_host(L);
	return 1;
}

/* r:add(name, bytes_or_secret) -> whether it is long enough to be looked for */
static int
l_add(lua_State *L)
{
	struct redact *r = check_redactor(L, 1);
	const char *name = luaL_checkstring(L, 2);
	size_t length;
	const char *bytes = bind_bytes(L, 3, &length);
	enum redact_added added = redact_add(r, name, bytes, length);

	if (added == REDACT_NO_MEMORY)
		return luaL_error(L, "out of memory");
	lua_pushboolean(L, added == REDACT_ADDED);
	return 1;
}

static int
push_safe(lua_State *L, const char *bytes, size_t length)
{
	if (bytes == NULL)
		return luaL_error(L, "out of memory");
	lua_pushlstring(L, bytes, length);
	return 1;
}

/* r:text(s) -> the same without secrets */
static int
l_text(lua_State *L)
{
	struct redact *r = check_redactor(L, 1);
	size_t length, safe;
	const char *text = luaL_checklstring(L, 2, &length);
	struct redact_stream **s;
	const char *part;

	if (redact_find(r, text, length) == length) {
		lua_settop(L, 2);
		return 1;
	}
	s = lua_newuserdatauv(L, sizeof *s, 0);
	*s = NULL;
	luaL_setmetatable(L, STREAM_MT);
	if ((*s = redact_stream_new(r)) == NULL)
		return luaL_error(L, "out of memory");
	part = redact_stream_feed(*s, text, length, &safe);
	push_safe(L, part, safe);
	part = redact_stream_flush(*s, &safe);
	push_safe(L, part, safe);
	lua_concat(L, 2);
	return 1;
}

/* r:stream() -> st */
static int
l_stream(lua_State *L)
{
	struct redact *r = check_redactor(L, 1);
	struct redact_stream **s = lua_newuserdatauv(L, sizeof *s, 1);

	*s = NULL;
	luaL_setmetatable(L, STREAM_MT);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);		/* the stream keeps its redactor alive */
	if ((*s = redact_stream_new(r)) == NULL)
		return luaL_error(L, "out of memory");
	return 1;
}

/* st:feed(bytes) -> bytes that are safe to show */
static int
l_feed(lua_State *L)
{
	struct redact_stream *s = check_stream(L);
	size_t length, safe;
	const char *bytes = luaL_checklstring(L, 2, &length);
	const char *shown = redact_stream_feed(s, bytes, length, &safe);

	return push_safe(L, shown, safe);
}

/* st:flush() -> what was kept back */
static int
l_flush(lua_State *L)
{
	size_t safe;
	const char *shown = redact_stream_flush(check_stream(L), &safe);

	return push_safe(L, shown, safe);
}

static int
l_stream_close(lua_State *L)
{
	struct redact_stream **s = luaL_checkudata(L, 1, STREAM_MT);

	redact_stream_free(*s);
	*s = NULL;
	return 0;
}

static const luaL_Reg redactor_methods[] = {
	{ "add",    l_add },
	{ "stream", l_stream },
	{ "text",   l_text },
	{ NULL, NULL }
};

static const luaL_Reg redactor_meta[] = {
	{ "__gc", l_redactor_gc },
	{ NULL, NULL }
};

static const luaL_Reg stream_methods[] = {
	{ "close", l_stream_close },
	{ "feed",  l_feed },
	{ "flush", l_flush },
	{ NULL, NULL }
};

static const luaL_Reg stream_meta[] = {
	{ "__close", l_stream_close },
	{ "__gc",    l_stream_close },
	{ NULL, NULL }
};

static const luaL_Reg functions[] = {
	{ "host", l_host },
	{ "new",  l_new },
	{ NULL, NULL }
};

int
luaopen_runbook_core_redact(lua_State *L)
{
	bind_class(L, REDACTOR_MT, redactor_methods, redactor_meta);
	bind_class(L, STREAM_MT, stream_methods, stream_meta);
	luaL_newlib(L, functions);
	return 1;
}
