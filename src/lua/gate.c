/*
 * lua/gate.c - the "runbook.core.gate" module: raising and lowering what a task may do to the world.
 *
 * lib/runbook/effect.lua is its only user; what is allowed when is decided there.
 */
#include "bind.h"

static const char *const permit_names[] = { "none", "read", "change", "destroy", NULL };

static int
permit_k(lua_State *L, int status, lua_KContext saved)
{
	task_set_permit(task_running(L), (enum permit)saved);
	if (status != LUA_OK && status != LUA_YIELD)
		return lua_error(L);
	return lua_gettop(L) - 1;	/* all but the message handler */
}

static int
l_call(lua_State *L)
{
	struct task *t = task_running(L);
	enum permit permit = (enum permit)luaL_checkoption(L, 1, NULL, permit_names);
	enum permit saved;
	int status;

	luaL_checktype(L, 2, LUA_TFUNCTION);
	if (t == NULL)
		return luaL_error(L, "there is no task here");
	saved = task_permit(t);
	lua_remove(L, 1);				/* fn args… */
	task_set_permit(t, permit);
	status = bind_pcallk(L, lua_gettop(L) - 1, (lua_KContext)saved, permit_k);
	return permit_k(L, status, (lua_KContext)saved);
}

static int
l_class(lua_State *L)
{
	struct task *t = task_running(L);

	lua_pushstring(L, permit_names[t != NULL ? task_permit(t) : PERMIT_NONE]);
	return 1;
}

static const luaL_Reg functions[] = {
	{ "call",  l_call },
	{ "class", l_class },
	{ NULL, NULL }
};

int luaopen_runbook_core_gate(lua_State *L);

int
luaopen_runbook_core_gate(lua_State *L)
{
	luaL_newlib(L, functions);
	return 1;
}
