/*
 * lua/process.c - the "runbook.core.process" module.
 *
 * Marshalling only: processes are in ../process.c, policy in lib/runbook/here.lua.
 */
#include <string.h>

#include "../host.h"
#include "../process.h"
#include "bind.h"

#define CHILD_MT "runbook.process.child"
#define EXEC_MT  "runbook.process.exec"
#define WAIT_MT  "runbook.process.wait"

extern char **environ;

struct wait_op;

struct child {
	struct process *process;	/* NULL once closed */
	struct wait_op *waiter;		/* of the task that waits for its end */
};

struct exec_op {
	struct task_op op;
	struct process_exec *exec;	/* NULL once released */
};

struct wait_op {
	struct task_op op;
	struct child *child;		/* kept alive by the user value */
};

static struct child *
check_child(lua_State *L, int idx)
{
	struct child *c = luaL_checkudata(L, idx, CHILD_MT);

	luaL_argcheck(L, c->process != NULL, idx, "process is closed");
	return c;
}

/* A string without zero bytes, which would be cut on its way to the system. */
static char *
check_plain(lua_State *L, int idx, const char *what)
{
	size_t length;
	const char *s = lua_type(L, idx) == LUA_TSTRING ? lua_tolstring(L, idx, &length) : NULL;

	if (s == NULL)
		luaL_error(L, "%s: string expected, got %s", what, luaL_typename(L, idx));
	else if (strlen(s) != length)
		luaL_error(L, "%s: holds a zero byte", what);
	return (char *)s;
}

/* argv of the options at idx; the array lives on the stack, its strings in the table.  [-0, +1, v] */
static char **
push_argv(lua_State *L, int idx)
{
	lua_Integer n;
	char **argv;
	int list;

	if (lua_getfield(L, idx, "argv") != LUA_TTABLE)	/* list */
		luaL_error(L, "argv: list of strings expected");
	list = lua_gettop(L);
	n = luaL_len(L, list);
	luaL_argcheck(L, n > 0, idx, "argv is empty");
	argv = lua_newuserdatauv(L, ((size_t)n + 1) * sizeof *argv, 1);	/* list argv */
	for (lua_Integer i = 0; i < n; i++) {
		lua_geti(L, list, i + 1);
		argv[i] = check_plain(L, -1, "argv");
		lua_pop(L, 1);
	}
	argv[n] = NULL;
	lua_pushvalue(L, list);
	lua_setiuservalue(L, -2, 1);
	lua_remove(L, list);				/* argv */
	return argv;
}

/* "NAME=" of entry is a key of the table at idx. */
static bool
is_replaced(lua_State *L, int idx, const char *entry)
{
	const char *equals = strchr(entry, '=');
	bool found;

	lua_pushlstring(L, entry, equals == NULL ? strlen(entry) : (size_t)(equals - entry));
	found = lua_rawget(L, idx) != LUA_TNIL;
	lua_pop(L, 1);
	return found;
}

/* Our environment with env of the options at idx put over it; NULL when there is none.  [-0, +1, v] */
static char **
push_env(lua_State *L, int idx)
{
	size_t ours = 0, count = 0;
	lua_Integer extra = 0;
	char **env;
	int given, anchors;

	if (lua_getfield(L, idx, "env") == LUA_TNIL)
		return NULL;
	given = lua_gettop(L);				/* given */
	luaL_checktype(L, given, LUA_TTABLE);
	lua_newtable(L);				/* given anchors */
	anchors = lua_gettop(L);
	for (lua_pushnil(L); lua_next(L, given) != 0; lua_pop(L, 1)) {
		const char *name = check_plain(L, -2, "env: name");
		const char *value = check_plain(L, -1, "env: value");

		lua_pushfstring(L, "%s=%s", name, value);
		lua_rawseti(L, anchors, ++extra);
	}
	while (environ[ours] != NULL)
		ours++;
	env = lua_newuserdatauv(L, (ours + (size_t)extra + 1) * sizeof *env, 1);
	for (size_t i = 0; i < ours; i++)
		if (!is_replaced(L, given, environ[i]))
			env[count++] = environ[i];
	for (lua_Integer i = 1; i <= extra; i++) {
		lua_rawgeti(L, anchors, i);
		env[count++] = (char *)lua_tostring(L, -1);
		lua_pop(L, 1);
	}
	env[count] = NULL;
	lua_pushvalue(L, anchors);
	lua_setiuservalue(L, -2, 1);
	lua_replace(L, given);
	lua_settop(L, given);				/* env */
	return env;
}

/* What process_start needs, from the options at 1; pushes what keeps it alive.  [-0, +4, v] */
static struct process_spawn
check_spawn(lua_State *L)
{
	struct process_spawn s = { .argv = NULL };

	luaL_checktype(L, 1, LUA_TTABLE);
	s.argv = push_argv(L, 1);
	s.env = push_env(L, 1);
	if (lua_getfield(L, 1, "cwd") != LUA_TNIL)
		s.cwd = check_plain(L, -1, "cwd");
	lua_getfield(L, 1, "duplex");
	s.duplex = lua_toboolean(L, -1);
	return s;
}

static void
exec_release(struct task_op *op)
{
	struct exec_op *x = (struct exec_op *)op;

	process_exec_free(x->exec);
	x->exec = NULL;
}

static void
push_status(lua_State *L, const struct process_status *how)
{
	const char *name = process_signal_name(how->signal);

	lua_createtable(L, 0, 4);			/* result */
	if (how->signal == 0)
		lua_pushinteger(L, how->status);
	else
		lua_pushnil(L);
	lua_setfield(L, -2, "status");
	if (how->signal == 0)
		lua_pushnil(L);
	else if (name != NULL)
		lua_pushstring(L, name);
	else
		lua_pushfstring(L, "%d", how->signal);
	lua_setfield(L, -2, "signal");
}

static int
exec_finish(lua_State *L, struct task_op *op)
{
	const struct process_result *r = process_exec_result(((struct exec_op *)op)->exec);

	if (r->code != NULL)
		return bind_fail(L, r->code, "%s", r->message);
	push_status(L, &r->how);			/* result */
	lua_pushlstring(L, r->out, r->out_length);
	lua_setfield(L, -2, "stdout");
	lua_pushlstring(L, r->err, r->err_length);
	lua_setfield(L, -2, "stderr");
	exec_release(op);				/* not at the next collection: it may be megabytes */
	return 1;
}

static int
l_exec(lua_State *L)
{
	struct process_spawn spawn = check_spawn(L);
	struct process_input input = { .bytes = NULL };
	struct exec_op *x;
	lua_Integer limit;
	int error, stdin_idx;

	if (lua_getfield(L, 1, "limit") == LUA_TNIL)
		limit = (lua_Integer)PROCESS_OUT_LIMIT;
	else
		limit = luaL_checkinteger(L, -1);
	lua_getfield(L, 1, "stdin");
	stdin_idx = lua_gettop(L);
	if (luaL_testudata(L, stdin_idx, "runbook.stream") != NULL)
		input.stream = bind_check_stream(L, stdin_idx);
	else if (!lua_isnil(L, stdin_idx))
		input.bytes = bind_bytes(L, stdin_idx, &input.length);
	bind_permit(L, PERMIT_READ);
	x = lua_newuserdatauv(L, sizeof *x, 1);		/* … op */
	*x = (struct exec_op){ .op = { .finish = exec_finish, .cancel = exec_release, .what = "local command" } };
	luaL_setmetatable(L, EXEC_MT);
	lua_pushvalue(L, stdin_idx);
	lua_setiuservalue(L, -2, 1);			/* a stream must outlive the pump */
	x->exec = process_exec_start(host_loop(host_of(L)), &spawn, &input, (size_t)limit, bind_wake, x, &error);
	if (x->exec == NULL)
		return bind_fail_errno(L, error, spawn.argv[0]);
	return task_await(L, &x->op);
}

static int
l_open(lua_State *L)
{
	struct process_spawn spawn = check_spawn(L);
	struct child *c;
	int error;

	bind_permit(L, PERMIT_READ);
	c = lua_newuserdatauv(L, sizeof *c, 1);		/* … child */
	*c = (struct child){ NULL, NULL };
	luaL_setmetatable(L, CHILD_MT);
	lua_newtable(L);				/* its streams, once somebody asked for them */
	lua_setiuservalue(L, -2, 1);
	c->process = process_start(host_loop(host_of(L)), &spawn, &error);
	if (c->process == NULL)
		return bind_fail_errno(L, error, spawn.argv[0]);
	return 1;
}

/* The stream by that name: made at the first call, the same object at every later one. */
static int
push_stream(lua_State *L, const char *name, struct stream *(*take)(struct process *p))
{
	struct child *c = check_child(L, 1);

	lua_getiuservalue(L, 1, 1);			/* streams */
	if (lua_getfield(L, -1, name) == LUA_TNIL) {
		struct stream *s = take(c->process);

		lua_pop(L, 1);
		if (s == NULL)
			return luaL_error(L, "%s: this process has none", name);
		bind_push_stream(L, s);			/* streams stream */
		lua_pushvalue(L, -1);
		lua_setfield(L, -3, name);
	}
	return 1;
}

static int
l_stdin(lua_State *L)
{
	return push_stream(L, "stdin", process_take_stdin);
}

static int
l_stdout(lua_State *L)
{
	return push_stream(L, "stdout", process_take_stdout);
}

static int
l_stderr(lua_State *L)
{
	return push_stream(L, "stderr", process_take_stderr);
}

static int
l_pid(lua_State *L)
{
	lua_pushinteger(L, process_pid(check_child(L, 1)->process));
	return 1;
}

static int
l_signal(lua_State *L)
{
	struct child *c = check_child(L, 1);
	int number = process_signal_number(luaL_checkstring(L, 2));
	int error;

	luaL_argcheck(L, number != 0, 2, "no such signal");
	error = process_signal(c->process, number);
	if (error != 0)
		return bind_fail_errno(L, error, "signal");
	lua_pushboolean(L, 1);
	return 1;
}

static void
wait_release(struct task_op *op)
{
	struct wait_op *w = (struct wait_op *)op;

	if (w->child == NULL)
		return;
	if (w->child->process != NULL)
		process_when_ended(w->child->process, NULL, NULL);
	w->child->waiter = NULL;
	w->child = NULL;
}

static int
wait_finish(lua_State *L, struct task_op *op)
{
	struct child *c = ((struct wait_op *)op)->child;

	if (c->process == NULL)
		return bind_fail(L, "ECLOSED", "the process was closed");
	push_status(L, process_ended(c->process));
	wait_release(op);
	return 1;
}

static int
l_wait(lua_State *L)
{
	struct child *c = check_child(L, 1);
	struct wait_op *w;

	luaL_argcheck(L, c->waiter == NULL, 1, "another task waits for this process");
	w = lua_newuserdatauv(L, sizeof *w, 1);		/* child op */
	*w = (struct wait_op){ .op = { .finish = wait_finish, .cancel = wait_release, .what = "end of a process" } };
	luaL_setmetatable(L, WAIT_MT);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	w->child = c;
	c->waiter = w;
	w->op.done = process_ended(c->process) != NULL;
	if (!w->op.done)
		process_when_ended(c->process, bind_wake, w);
	return task_await(L, &w->op);
}

static int
l_close(lua_State *L)
{
	struct child *c = luaL_checkudata(L, 1, CHILD_MT);

	process_free(c->process);
	c->process = NULL;
	if (c->waiter != NULL)
		task_wake(&c->waiter->op);
	return 0;
}

static const luaL_Reg child_methods[] = {
	{ "close",  l_close },
	{ "pid",    l_pid },
	{ "signal", l_signal },
	{ "stderr", l_stderr },
	{ "stdin",  l_stdin },
	{ "stdout", l_stdout },
	{ "wait",   l_wait },
	{ NULL, NULL }
};

static const luaL_Reg child_meta[] = {
	{ "__close", l_close },
	{ "__gc",    l_close },
	{ NULL, NULL }
};

static const luaL_Reg functions[] = {
	{ "exec", l_exec },
	{ "open", l_open },
	{ NULL, NULL }
};

int luaopen_runbook_core_process(lua_State *L);

int
luaopen_runbook_core_process(lua_State *L)
{
	bind_class(L, CHILD_MT, child_methods, child_meta);
	bind_op_class(L, EXEC_MT);
	bind_op_class(L, WAIT_MT);
	luaL_newlib(L, functions);
	return 1;
}
