/* lua/value.c - the "runbook.core.value" module: null, and tables that know whether they are lists. */
#include "value.h"

#include <lauxlib.h>

#define NULL_MT   "runbook.null"
#define ARRAY_MT  "runbook.array"
#define OBJECT_MT "runbook.object"

static const char null_key;	/* its address is the registry key of the one null */

static int
null_tostring(lua_State *L)
{
	lua_pushliteral(L, "null");
	return 1;
}

void
value_push_null(lua_State *L)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &null_key) != LUA_TNIL)
		return;
	lua_pop(L, 1);
	lua_newuserdatauv(L, 0, 0);
	luaL_newmetatable(L, NULL_MT);
	lua_pushcfunction(L, null_tostring);
	lua_setfield(L, -2, "__tostring");
	lua_setmetatable(L, -2);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &null_key);
}

bool
value_is_null(lua_State *L, int idx)
{
	bool same;

	if (lua_type(L, idx) != LUA_TUSERDATA)
		return false;
	idx = lua_absindex(L, idx);
	value_push_null(L);
	same = lua_rawequal(L, idx, -1);
	lua_pop(L, 1);
	return same;
}

/* Without the __name that classes have: a marked table is still plain data.  [-0, +1, m] */
static void
push_mark(lua_State *L, const char *name)
{
	if (luaL_newmetatable(L, name)) {
		lua_pushnil(L);
		lua_setfield(L, -2, "__name");
	}
}

void
value_push_marks(lua_State *L)
{
	push_mark(L, ARRAY_MT);
	push_mark(L, OBJECT_MT);
}

enum value_kind
value_kind(lua_State *L, int idx)
{
	enum value_kind kind = VALUE_PLAIN;

	if (!lua_getmetatable(L, idx))
		return VALUE_PLAIN;
	value_push_marks(L);				/* mt array object */
	if (lua_rawequal(L, -3, -2))
		kind = VALUE_ARRAY;
	else if (lua_rawequal(L, -3, -1))
		kind = VALUE_OBJECT;
	lua_pop(L, 3);
	return kind;
}

static int
mark(lua_State *L, const char *name)
{
	lua_settop(L, 1);
	if (lua_isnoneornil(L, 1)) {
		lua_settop(L, 0);
		lua_newtable(L);
	}
	luaL_checktype(L, 1, LUA_TTABLE);
	push_mark(L, name);
	lua_setmetatable(L, 1);
	return 1;
}

static int
l_array(lua_State *L)
{
	return mark(L, ARRAY_MT);
}

static int
l_object(lua_State *L)
{
	return mark(L, OBJECT_MT);
}

/* kind(value) -> "array" | "object" | "null" | nil when it carries no mark */
static int
l_kind(lua_State *L)
{
	enum value_kind kind = lua_type(L, 1) == LUA_TTABLE ? value_kind(L, 1) : VALUE_PLAIN;

	if (kind == VALUE_ARRAY)
		lua_pushliteral(L, "array");
	else if (kind == VALUE_OBJECT)
		lua_pushliteral(L, "object");
	else if (value_is_null(L, 1))
		lua_pushliteral(L, "null");
	else
		lua_pushnil(L);
	return 1;
}

static const luaL_Reg functions[] = {
	{ "array", l_array },
	{ "kind", l_kind },
	{ "object", l_object },
	{ NULL, NULL },
};

int luaopen_runbook_core_value(lua_State *L);

int
luaopen_runbook_core_value(lua_State *L)
{
	luaL_newlib(L, functions);
	value_push_null(L);
	lua_setfield(L, -2, "null");
	return 1;
}
