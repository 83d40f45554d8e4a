/* lua/manifest_parts.c - what the far side said of files that were not sent to their end, by unit. */
#include <string.h>

#include "bind.h"
#include "manifest.h"

#define PARTS_MT "runbook.manifest.parts"

/* Into the table on top, by unit. */
static void
push_part(lua_State *L, const struct manifest_part *p)
{
	uint64_t there = p->there;
	lua_pushlstring(L, (const char *)p->unit.bytes, p->unit.length);
	lua_pushvalue(L, -1);
	if (lua_rawget(L, -3) == LUA_TTABLE) {		/* found unit one */
		lua_getfield(L, -1, "bytes");
		there += (uint64_t)lua_tointeger(L, -1);
		lua_getfield(L, -2, "said");
		lua_remove(L, -2);			/* found unit one said */
	} else {
		lua_pop(L, 1);
		lua_newtable(L);
		lua_pushliteral(L, "");
	}
	lua_pushlstring(L, (const char *)p->frame.bytes, p->frame.length);
	lua_concat(L, 2);
	lua_setfield(L, -2, "said");
	lua_pushinteger(L, (lua_Integer)there);
	lua_setfield(L, -2, "bytes");
	lua_rawset(L, -3);
}

/* parts(bytes) -> { [unit] = { bytes =, said = } } */
int
manifest_l_parts(lua_State *L)
{
	struct manifest_parts *parts = lua_newuserdatauv(L, sizeof *parts, 0);	/* parts */
	size_t length;
	const char *bytes = luaL_checklstring(L, 1, &length);
	memset(parts, 0, sizeof *parts);
	luaL_setmetatable(L, PARTS_MT);
	if (!parts_take(parts, bytes, length))
		return luaL_error(L, "out of memory");
	lua_newtable(L);						/* parts found */
	for (size_t i = 0; i < parts->count; i++)
		push_part(L, &parts->list[i]);
	return 1;
}

static int
l_parts_gc(lua_State *L)
{
	parts_free(luaL_checkudata(L, 1, PARTS_MT));
	return 0;
}

static const luaL_Reg parts_meta[] = {
	{ "__gc", l_parts_gc },
	{ NULL, NULL }
};

void
manifest_parts_class(lua_State *L)
{
	bind_class(L, PARTS_MT, NULL, parts_meta);
}
