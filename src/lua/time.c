/*
 * lua/time.c - the "runbook.core.time" module: deadlines are monotonic, records are UTC.
 */
#include <time.h>

#include "bind.h"

static int
push_clock(lua_State *L, clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	lua_pushnumber(L, (lua_Number)t.tv_sec + (lua_Number)t.tv_nsec / 1e9);
	return 1;
}

static int
l_boottime(lua_State *L)
{
	return push_clock(L, CLOCK_BOOTTIME);
}

static int
l_now(lua_State *L)
{
	return push_clock(L, CLOCK_MONOTONIC);
}

static int
l_utc(lua_State *L)
{
	return push_clock(L, CLOCK_REALTIME);
}

static const luaL_Reg functions[] = {
	{ "boottime", l_boottime },
	{ "now",      l_now },
	{ "utc",      l_utc },
	{ NULL, NULL }
};

int luaopen_runbook_core_time(lua_State *L);

int
luaopen_runbook_core_time(lua_State *L)
{
	luaL_newlib(L, functions);
	return 1;
}
