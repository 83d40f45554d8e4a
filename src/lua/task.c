/*
 * lua/task.c - the "runbook.core.task" module: start, join, cancel, sleep, and what a task carries along.
 */
#include <stdlib.h>

#include "../host.h"
#include "bind.h"

static int
l_spawn(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TFUNCTION);
	task_spawn(L, lua_gettop(L) - 1);
	return 1;
}

static int
l_cancel(lua_State *L)
{
	task_cancel(task_check(L, 1));
	return 0;
}

static int
l_done(lua_State *L)
{
	lua_pushboolean(L, task_is_done(task_check(L, 1)));
	return 1;
}

static struct task *
check_self(lua_State *L)
{
	struct task *t = task_running(L);

	if (t == NULL)
		luaL_error(L, "there is no task here");
	return t;
}

static int
l_context(lua_State *L)
{
	task_push_context(L, check_self(L));
	return 1;
}

/* The stack of a scoped call: the context to restore at 1, the message handler, then what the function left. */
static int
context_k(lua_State *L, int status, lua_KContext unused)
{
	(void)unused;
	task_set_context(L, task_running(L), 1);
	if (status != LUA_OK && status != LUA_YIELD)
		return lua_error(L);
	return lua_gettop(L) - 2;
}

static int
l_with_context(lua_State *L)
{
	struct task *t = check_self(L);
	int status;

	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_checktype(L, 2, LUA_TFUNCTION);
	task_push_context(L, t);			/* new fn args… old */
	task_set_context(L, t, 1);
	lua_replace(L, 1);				/* old fn args… */
	status = bind_pcallk(L, lua_gettop(L) - 2, 0, context_k);
	return context_k(L, status, 0);
}

/* The living tasks, newest first. */
static int
l_list(lua_State *L)
{
	int i = 0;

	lua_newtable(L);				/* list */
	for (struct task *t = task_first(host_of(L)); t != NULL; t = task_next(t)) {
		lua_createtable(L, 0, 5);		/* list row */
		lua_pushinteger(L, (lua_Integer)task_serial(t));
		lua_setfield(L, -2, "serial");
		lua_pushstring(L, task_waits_for(t));
		lua_setfield(L, -2, "waits");
		if (t != task_running(L)) {
			luaL_traceback(L, task_coroutine(t), NULL, 0);
			lua_setfield(L, -2, "trace");
		}
		task_push_context(L, t);
		lua_setfield(L, -2, "context");
		lua_pushboolean(L, t == task_running(L));
		lua_setfield(L, -2, "self");
		lua_rawseti(L, -2, ++i);
	}
	return 1;
}

/* A sleep is a timer of the loop and an op. */
struct sleep_op {
	struct task_op op;
	uv_timer_t *timer;	/* NULL once given up */
};

static void
timer_closed(uv_handle_t *handle)
{
	free(handle);
}

static void
sleep_release(struct task_op *op)
{
	struct sleep_op *s = (struct sleep_op *)op;

	if (s->timer == NULL)
		return;
	s->timer->data = NULL;
	uv_close((uv_handle_t *)s->timer, timer_closed);
	s->timer = NULL;
}

static void
sleep_over(uv_timer_t *timer)
{
	struct sleep_op *s = timer->data;

	sleep_release(&s->op);
	task_wake(&s->op);
}

static int
sleep_finish(lua_State *L, struct task_op *op)
{
	(void)L;
	(void)op;
	return 0;
}

static int
sleep_gc(lua_State *L)
{
	sleep_release(lua_touserdata(L, 1));
	return 0;
}

static int
l_sleep(lua_State *L)
{
	lua_Number seconds = luaL_checknumber(L, 1);
	struct sleep_op *s = lua_newuserdatauv(L, sizeof *s, 0);

	luaL_argcheck(L, seconds >= 0, 1, "a time of 0 or more seconds");
	if (seconds > 1e9)
		seconds = 1e9;
	*s = (struct sleep_op){ .op = { .finish = sleep_finish, .cancel = sleep_release, .what = "a timer" } };
	luaL_setmetatable(L, "runbook.task.sleep");
	if ((s->timer = malloc(sizeof *s->timer)) == NULL)
		return luaL_error(L, "out of memory");
	uv_timer_init(host_loop(host_of(L)), s->timer);
	s->timer->data = s;
	uv_timer_start(s->timer, sleep_over, (uint64_t)(seconds * 1000 + 0.5), 0);
	return task_await(L, &s->op);
}

/* t:result(): not before the end; join_all waits for that. */
static int
l_result(lua_State *L)
{
	return task_push_results(L, 1);
}

static int
l_tostring(lua_State *L)
{
	lua_pushfstring(L, "task %d", (int)task_serial(task_check(L, 1)));
	return 1;
}

/* Waits for a turn of the loop that takes over a second: -> seconds, "file:line". */
struct slow_op {
	struct task_op op;
	struct runbook_host *host;
};

static void
slow_release(struct task_op *op)
{
	struct slow_op *s = (struct slow_op *)op;

	if (s->host != NULL && s->host->slow_waiter == op)
		s->host->slow_waiter = NULL;
	s->host = NULL;
}

static int
slow_finish(lua_State *L, struct task_op *op)
{
	struct runbook_host *h = host_of(L);

	(void)op;
	lua_pushnumber(L, h->slow_seconds);
	lua_pushstring(L, h->slow_place);
	return 2;
}

static int
slow_gc(lua_State *L)
{
	slow_release(lua_touserdata(L, 1));
	return 0;
}

static int
l_slow_turn(lua_State *L)
{
	struct runbook_host *h = host_of(L);
	struct slow_op *s = lua_newuserdatauv(L, sizeof *s, 0);

	*s = (struct slow_op){ .op = { .finish = slow_finish, .cancel = slow_release, .what = "a slow turn" } };
	luaL_setmetatable(L, "runbook.task.slow");
	if (h->slow_waiter != NULL)
		return luaL_error(L, "another task watches for slow turns");
	s->host = h;
	h->slow_waiter = &s->op;
	return task_await(L, &s->op);
}

static const luaL_Reg functions[] = {
	{ "context",      l_context },
	{ "join_all",     task_join_all },
	{ "list",         l_list },
	{ "sleep",        l_sleep },
	{ "slow_turn",    l_slow_turn },
	{ "spawn",        l_spawn },
	{ "with_context", l_with_context },
	{ NULL, NULL }
};

static const luaL_Reg methods[] = {
	{ "cancel", l_cancel },
	{ "done",   l_done },
	{ "result", l_result },
	{ NULL, NULL }
};

static const luaL_Reg task_meta[] = {
	{ "__tostring", l_tostring },
	{ NULL, NULL }
};

static const luaL_Reg no_methods[] = { { NULL, NULL } };
static const luaL_Reg join_meta[] = { { "__gc", task_join_gc }, { NULL, NULL } };
static const luaL_Reg sleep_meta[] = { { "__gc", sleep_gc }, { NULL, NULL } };
static const luaL_Reg slow_meta[] = { { "__gc", slow_gc }, { NULL, NULL } };

int luaopen_runbook_core_task(lua_State *L);

int
luaopen_runbook_core_task(lua_State *L)
{
	bind_class(L, TASK_MT, methods, task_meta);
	bind_class(L, TASK_JOIN_MT, no_methods, join_meta);
	bind_class(L, "runbook.task.sleep", no_methods, sleep_meta);
	bind_class(L, "runbook.task.slow", no_methods, slow_meta);
	luaL_newlib(L, functions);
	lua_getfield(L, LUA_REGISTRYINDEX, TASK_CANCELLED);
	lua_setfield(L, -2, "cancelled");
	return 1;
}
