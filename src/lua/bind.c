/* bind.c - see bind.h. */
#include "bind.h"

#include <string.h>

#include <uv.h>

#include "secret.h"

void
bind_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta)
{
	luaL_newmetatable(L, name);		/* mt */
	luaL_setfuncs(L, meta, 0);
	lua_newtable(L);			/* mt index */
	if (methods != NULL)
		luaL_setfuncs(L, methods, 0);
	lua_setfield(L, -2, "__index");		/* mt */
	lua_pop(L, 1);				/* - */
}

static int
l_op_gc(lua_State *L)
{
	struct task_op *op = lua_touserdata(L, 1);

	op->cancel(op);
	return 0;
}

void
bind_op_class(lua_State *L, const char *name)
{
	static const luaL_Reg meta[] = { { "__gc", l_op_gc }, { NULL, NULL } };

	bind_class(L, name, NULL, meta);
}

void
bind_wake(void *op)
{
	task_wake(op);
}

int
bind_fail(lua_State *L, const char *code, const char *format, ...)
{
	va_list arguments;

	luaL_pushfail(L);
	va_start(arguments, format);
	lua_pushvfstring(L, format, arguments);
	va_end(arguments);
	lua_pushstring(L, code);
	return 3;
}

int
bind_fail_errno(lua_State *L, int error, const char *what)
{
	if (error > 0)
		error = -error;
	return bind_fail(L, uv_err_name(error), "%s: %s", what, uv_strerror(error));
}

/* Pushes nothing: the table on top becomes an error value. */
static void
make_error(lua_State *L, const char *kind)
{
	lua_pushstring(L, kind);
	lua_setfield(L, -2, "kind");
	luaL_getmetatable(L, "runbook.error");
	lua_setmetatable(L, -2);
}

static int
l_traced(lua_State *L)
{
	if (lua_type(L, 1) != LUA_TSTRING)
		return 1;
	lua_createtable(L, 0, 3);			/* message e */
	lua_pushvalue(L, 1);
	lua_setfield(L, -2, "message");
	luaL_traceback(L, L, NULL, 1);
	lua_setfield(L, -2, "trace");
	make_error(L, "internal");
	return 1;
}

int
bind_pcallk(lua_State *L, int nargs, lua_KContext context, lua_KFunction k)
{
	int handler = lua_gettop(L) - nargs;

	lua_pushcfunction(L, l_traced);			/* … fn args… handler */
	lua_insert(L, handler);				/* … handler fn args… */
	return lua_pcallk(L, nargs, LUA_MULTRET, handler, context, k);
}

void
bind_permit(lua_State *L, enum permit needed)
{
	static const char *const names[] = { "nothing", "a read", "a change", "a removal" };
	struct task *t = task_running(L);

	if (t != NULL && task_permit(t) >= needed)
		return;
	lua_createtable(L, 0, 2);			/* e */
	lua_pushliteral(L, "ungated");
	lua_setfield(L, -2, "code");
	lua_pushfstring(L, "%s outside of a verb: declare it with effect.verb", names[needed]);
	lua_setfield(L, -2, "message");
	make_error(L, "internal");
	lua_error(L);
}

const char *
bind_bytes(lua_State *L, int idx, size_t *length)
{
	const char *bytes = secret_bytes_at(L, idx, length);

	return bytes != NULL ? bytes : luaL_checklstring(L, idx, length);
}

const char *
bind_text(lua_State *L, int idx, const char *name, size_t *length)
{
	size_t n;
	const char *text;

	if (lua_getfield(L, idx, name) == LUA_TNIL)
		return NULL;
	text = bind_bytes(L, -1, &n);
	if (memchr(text, '\0', n) != NULL)
		luaL_error(L, "%s: holds a zero byte", name);
	if (length != NULL)
		*length = n;
	return text;
}

const char *
bind_path(lua_State *L, int idx)
{
	size_t length;
	const char *path = luaL_checklstring(L, idx, &length);

	luaL_argcheck(L, length > 0 && strlen(path) == length, idx, "path is empty or has a NUL in it");
	return path;
}
