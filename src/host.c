/* host.c - see runbook.h and host.h. */
#include "host.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "embedded.h"
#include "modules.h"

#define HOST_FIELD "runbook.host"
#define ROOM_KB (4 << 10)
#define TURNS_OF_START 32	/* of the loop; about what an empty run takes */

struct runbook_host *
host_of(lua_State *L)
{
	struct runbook_host *h;

	lua_getfield(L, LUA_REGISTRYINDEX, HOST_FIELD);
	h = lua_touserdata(L, -1);
	lua_pop(L, 1);
	return h;
}

uv_loop_t *
host_loop(struct runbook_host *h)
{
	return &h->loop;
}

static const struct embedded *
find_embedded(const char *name)
{
	for (size_t i = 0; i < embedded_count; i++) {
		if (strcmp(embedded_files[i].name, name) == 0)
			return &embedded_files[i];
	}
	return NULL;
}

/* A searcher for package.searchers: the sources that are part of the binary. */
static int
search_embedded(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	const struct embedded *e = find_embedded(name);

	if (e == NULL) {
		lua_pushfstring(L, "\n\tno module '%s' in this binary", name);
		return 1;
	}
	if (luaL_loadbufferx(L, (const char *)e->bytes, e->length, e->chunk, "t") != LUA_OK)
		return lua_error(L);
	lua_pushstring(L, e->chunk);
	return 2;
}

/* Registers runbook.core.*, the searcher of embedded sources, and nothing else. */
static void
open_libraries(lua_State *L)
{
	lua_Integer count;

	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);	/* preload */
	for (const luaL_Reg *m = runbook_core_modules; m->name != NULL; m++) {
		lua_pushcfunction(L, m->func);
		lua_setfield(L, -2, m->name);
	}
	lua_pop(L, 1);
	lua_getglobal(L, "package");
	lua_getfield(L, -1, "searchers");		/* package searchers */
	count = luaL_len(L, -1);
	for (lua_Integer i = count; i >= 2; i--) {	/* behind preload, before the disk */
		lua_rawgeti(L, -1, i);
		lua_rawseti(L, -2, i + 1);
	}
	lua_pushcfunction(L, search_embedded);
	lua_rawseti(L, -2, 2);
	lua_pop(L, 2);
}

static int
open_state(lua_State *L)
{
	lua_gc(L, LUA_GCINC, 400, 400, 0);	/* a start allocates much and frees little; see settle */
	luaL_openlibs(L);
	lua_pushlightuserdata(L, lua_touserdata(L, 1));
	lua_setfield(L, LUA_REGISTRYINDEX, HOST_FIELD);
	luaL_newmetatable(L, "runbook.error");		/* lib/runbook/errors.lua fills it */
	lua_createtable(L, 0, 2);			/* mt cancelled */
	lua_pushliteral(L, "cancelled");
	lua_setfield(L, -2, "kind");
	lua_pushliteral(L, "cancelled");
	lua_setfield(L, -2, "message");
	lua_pushvalue(L, -2);
	lua_setmetatable(L, -2);
	lua_setfield(L, LUA_REGISTRYINDEX, TASK_CANCELLED);
	open_libraries(L);
	return 0;
}

/* Runs inside the slow task, at its next instruction: says where that is. */
static void
slow_hook(lua_State *L, lua_Debug *ar)
{
	struct runbook_host *h = host_of(L);

	lua_sethook(L, NULL, 0, 0);
	if (lua_getinfo(L, "Sl", ar) != 0)
		snprintf(h->slow_place, sizeof h->slow_place, "%s:%d", ar->short_src, ar->currentline);
}

/* On the watchdog's thread, which Lua allows for lua_sethook alone. */
static void
slow_turn(void *subject)
{
	lua_sethook(subject, slow_hook, LUA_MASKCOUNT, 1);
}

void
host_slow_turn(struct runbook_host *h, double seconds)
{
	struct task_op *op = h->slow_waiter;

	if (op == NULL)
		return;
	h->slow_seconds = seconds;
	h->slow_waiter = NULL;
	task_wake(op);
}

struct runbook_host *
runbook_host_new(void)
{
	struct runbook_host *h = calloc(1, sizeof *h);

	if (h == NULL)
		return NULL;
	h->main_task = LUA_NOREF;
	if (uv_loop_init(&h->loop) != 0) {
		free(h);
		return NULL;
	}
	h->loop.data = h;
	if ((h->L = luaL_newstate()) == NULL)
		goto failed;
	*(void **)lua_getextraspace(h->L) = NULL;
	lua_pushcfunction(h->L, open_state);
	lua_pushlightuserdata(h->L, h);
	if (lua_pcall(h->L, 1, 0, 0) != LUA_OK || watchdog_start(&h->watchdog, slow_turn) != 0)
		goto failed;
	return h;
failed:
	runbook_host_free(h);
	return NULL;
}

void
runbook_host_on_event(struct runbook_host *h, void (*fn)(void *arg, const char *event, size_t length), void *arg)
{
	h->sink = fn;
	h->sink_arg = arg;
}

static int
add_module(lua_State *L)
{
	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
	lua_pushvalue(L, 2);
	lua_setfield(L, -2, lua_touserdata(L, 1));
	return 0;
}

int
runbook_host_add(struct runbook_host *h, const char *name, lua_CFunction open)
{
	lua_pushcfunction(h->L, add_module);
	lua_pushlightuserdata(h->L, (void *)name);
	lua_pushcfunction(h->L, open);
	if (lua_pcall(h->L, 2, 0, 0) != LUA_OK) {
		lua_pop(h->L, 1);
		return -1;
	}
	return 0;
}

struct arguments {
	int argc;
	const char *const *argv;
};

static int
start_main(lua_State *L)
{
	const struct arguments *a = lua_touserdata(L, 1);

	lua_getglobal(L, "require");
	lua_pushliteral(L, "runbook.cli");
	lua_call(L, 1, 1);				/* a cli */
	lua_getfield(L, -1, "main");			/* a cli main */
	lua_createtable(L, a->argc, 0);
	for (int i = 0; i < a->argc; i++) {
		lua_pushstring(L, a->argv[i]);
		lua_rawseti(L, -2, i + 1);
	}
	task_spawn(L, 1);				/* a cli task */
	return 1;
}

static int
keep_error(struct runbook_host *h)
{
	const char *message = luaL_tolstring(h->L, -1, NULL);

	snprintf(h->error, sizeof h->error, "%s", message);
	lua_pop(h->L, 2);
	return -1;
}

int
runbook_host_start(struct runbook_host *h, int argc, const char *const argv[])
{
	struct arguments a = { argc, argv };

	if (h->main_task != LUA_NOREF) {
		snprintf(h->error, sizeof h->error, "this host runs a command already");
		return -1;
	}
	h->error[0] = '\0';
	lua_pushcfunction(h->L, start_main);
	lua_pushlightuserdata(h->L, &a);
	if (lua_pcall(h->L, 1, 1, 0) != LUA_OK)
		return keep_error(h);
	h->main_task = luaL_ref(h->L, LUA_REGISTRYINDEX);
	return 0;
}

/* The main task has ended: its result is the exit code, its error an internal one (70). */
static int
collect_main(lua_State *L)
{
	struct runbook_host *h = host_of(L);
	int n;

	lua_rawgeti(L, LUA_REGISTRYINDEX, h->main_task);	/* task */
	n = task_push_results(L, 1);				/* task ok result… */
	if (n >= 1 && lua_toboolean(L, 2)) {
		h->exit_code = n >= 2 && lua_isinteger(L, 3) ? (int)lua_tointeger(L, 3) : 0;
	} else {
		h->exit_code = 70;
		snprintf(h->error, sizeof h->error, "%s", luaL_tolstring(L, 3, NULL));
	}
	luaL_unref(L, LUA_REGISTRYINDEX, h->main_task);
	h->main_task = LUA_NOREF;
	return 0;
}

static bool
main_has_ended(struct runbook_host *h)
{
	bool ended;

	if (h->main_task == LUA_NOREF)
		return true;
	lua_rawgeti(h->L, LUA_REGISTRYINDEX, h->main_task);
	ended = task_is_done(lua_touserdata(h->L, -1));
	lua_pop(h->L, 1);
	return ended;
}

/*
 * After the start, memory goes round, and the collector begins when it is a fifth and some MB more than what was
 * alive.  Not by a factor alone: what waits has a finaliser and so is alive for two cycles, and with one of 2 and
 * more each cycle would find more of it (a run of 20,000 units grew to 220 MB for 1 MB in use).  Not by a fifth
 * alone: with 3 MB alive the collector would take longer than all that makes the garbage.
 */
static void
settle(struct runbook_host *h)
{
	int pause, used;

	if (h->turns < TURNS_OF_START) {
		h->turns++;
		return;
	}
	used = lua_gc(h->L, LUA_GCCOUNT) + 1;
	pause = 120 + 100 * ROOM_KB / used;
	lua_gc(h->L, LUA_GCINC, pause < 1000 ? pause : 1000, 400, 0);	/* 1000: the most it can keep */
}

bool
runbook_host_step(struct runbook_host *h, bool wait)
{
	bool ran = task_run_ready(h);

	if (main_has_ended(h)) {
		if (h->main_task != LUA_NOREF) {
			lua_pushcfunction(h->L, collect_main);
			if (lua_pcall(h->L, 0, 0, 0) != LUA_OK) {
				h->exit_code = 70;
				keep_error(h);
			}
		}
		return false;
	}
	settle(h);
	uv_run(&h->loop, ran || h->ready_first != NULL || !wait ? UV_RUN_NOWAIT : UV_RUN_ONCE);
	if (h->ready_first == NULL && !uv_loop_alive(&h->loop)) {
		snprintf(h->error, sizeof h->error, "every task waits, and nothing is left that could wake one");
		h->exit_code = 70;
		return false;
	}
	return true;
}

int
runbook_host_descriptor(const struct runbook_host *h)
{
	return uv_backend_fd(&h->loop);
}

int
runbook_host_timeout(const struct runbook_host *h)
{
	return h->ready_first != NULL ? 0 : uv_backend_timeout(&h->loop);
}

bool
host_signal(struct runbook_host *h, const char *name)
{
	if (!h->signals_wanted)
		return false;
	if (h->signal_count < (int)(sizeof h->signals / sizeof h->signals[0]))
		snprintf(h->signals[h->signal_count++], sizeof h->signals[0], "%s", name);
	if (h->signal_waiter != NULL) {
		struct task_op *op = h->signal_waiter;

		h->signal_waiter = NULL;
		task_wake(op);
	}
	return true;
}

void
runbook_host_cancel(struct runbook_host *h)
{
	if (host_signal(h, "INT"))
		return;
	for (struct task *t = task_first(h); t != NULL; t = task_next(t))
		task_cancel(t);
}

int
runbook_host_exit_code(const struct runbook_host *h)
{
	return h->exit_code;
}

const char *
runbook_host_error(const struct runbook_host *h)
{
	return h->error;
}

/* Ten thousand turns are more than any clean-up of cancelled tasks needs. */
static void
end_tasks(struct runbook_host *h)
{
	for (int turn = 0; turn < 10000 && h->tasks != NULL; turn++) {
		for (struct task *t = task_first(h); t != NULL; t = task_next(t))
			task_cancel(t);
		task_run_ready(h);
		uv_run(&h->loop, h->ready_first != NULL ? UV_RUN_NOWAIT : UV_RUN_ONCE);
	}
}

void
runbook_host_free(struct runbook_host *h)
{
	if (h == NULL)
		return;
	if (h->L != NULL) {
		end_tasks(h);
		lua_close(h->L);
	}
	watchdog_stop(&h->watchdog);
	uv_run(&h->loop, UV_RUN_DEFAULT);
	uv_loop_close(&h->loop);
	free(h);
}
