/*
 * task.c - coroutines on the event loop: the only file that yields or resumes.
 *
 * A task is a userdata pinned in the registry while it lives; its first user value is the context
 * table (run, step, unit), which child tasks inherit together with the permit.
 */
#include "task.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "watchdog.h"

enum { SLOT_CONTEXT = 1, SLOT_RESULTS, SLOT_THREAD, SLOT_COUNT = SLOT_THREAD };

struct task {
	struct runbook_host *host;
	lua_State *co;
	struct task_op *parked;		/* what it waits for, NULL while it is runnable */
	struct task *next_ready;
	struct join_op *joiners;	/* those that wait for its end */
	struct task *previous, *next;	/* all living tasks of the host */
	unsigned long serial;
	enum permit permit;
	int pin;			/* registry reference while it lives */
	bool cancelled, done, failed, queued, started;
};

/* Waits for the end of several tasks; a cancelled joiner cancels them and waits all the same. */
struct join_op {
	struct task_op op;
	struct join_op *next;		/* other joiners of the same first unfinished task */
	struct task *on;		/* whose list we are in, or NULL */
	int count;
};

static int join_finish(lua_State *L, struct task_op *op);

static struct task **
task_slot(lua_State *L)
{
	return lua_getextraspace(L);
}

struct task *
task_running(lua_State *L)
{
	return *task_slot(L);
}

static void
enqueue(struct task *t)
{
	struct runbook_host *h = t->host;

	if (t->queued || t->done)
		return;
	t->queued = true;
	t->next_ready = NULL;
	if (h->ready_last != NULL)
		h->ready_last->next_ready = t;
	else
		h->ready_first = t;
	h->ready_last = t;
}

static int
raise_cancelled(lua_State *L)
{
	lua_getfield(L, LUA_REGISTRYINDEX, TASK_CANCELLED);
	return lua_error(L);
}

static int
await_k(lua_State *L, int status, lua_KContext context)
{
	struct task_op *op = (struct task_op *)context;

	(void)status;
	if (op->done)
		return op->finish(L, op);
	return raise_cancelled(L);
}

static int
park(lua_State *L, struct task *t, struct task_op *op)
{
	op->waiter = t;
	t->parked = op;
	return lua_yieldk(L, 0, (lua_KContext)op, await_k);
}

int
task_await(lua_State *L, struct task_op *op)
{
	struct task *t = *task_slot(L);

	if (op->done)
		return op->finish(L, op);
	if (t == NULL || !lua_isyieldable(L)) {
		op->cancel(op);
		return luaL_error(L, "this call waits and cannot be made here: not inside table.sort, string.gsub, "
		                     "require or a metamethod, and only in a task");
	}
	if (t->cancelled) {
		op->cancel(op);
		return raise_cancelled(L);
	}
	return park(L, t, op);
}

/* Never resumes from here: the caller may be deep inside libcurl or libssh2. */
void
task_wake(struct task_op *op)
{
	struct task *t = op->waiter;

	op->done = true;
	if (t != NULL) {
		op->waiter = NULL;
		t->parked = NULL;
		enqueue(t);
	}
}

struct task *
task_check(lua_State *L, int idx)
{
	return luaL_checkudata(L, idx, TASK_MT);
}

struct task *
task_spawn(lua_State *L, int nargs)
{
	struct task *parent = *task_slot(L);
	struct runbook_host *h = host_of(L);
	struct task *t = lua_newuserdatauv(L, sizeof *t, SLOT_COUNT);	/* f args… t */

	*t = (struct task){ .host = h, .pin = LUA_NOREF, .serial = ++h->serial };
	luaL_newmetatable(L, TASK_MT);			/* src/lua/task.c fills it, perhaps later */
	lua_setmetatable(L, -2);
	t->co = lua_newthread(L);			/* f args… t co */
	*task_slot(t->co) = t;
	lua_setiuservalue(L, -2, SLOT_THREAD);		/* f args… t */
	if (parent != NULL) {
		t->permit = parent->permit;
		lua_rawgeti(L, LUA_REGISTRYINDEX, parent->pin);
		lua_getiuservalue(L, -1, SLOT_CONTEXT);	/* f args… t parent context */
		lua_setiuservalue(L, -3, SLOT_CONTEXT);
		lua_pop(L, 1);				/* f args… t */
	} else {
		lua_newtable(L);
		lua_setiuservalue(L, -2, SLOT_CONTEXT);
	}
	lua_pushvalue(L, -1);
	t->pin = luaL_ref(L, LUA_REGISTRYINDEX);
	lua_insert(L, -(nargs + 2));			/* t f args… */
	lua_xmove(L, t->co, nargs + 1);			/* t */

	t->next = h->tasks;
	if (h->tasks != NULL)
		h->tasks->previous = t;
	h->tasks = t;
	enqueue(t);
	return t;
}

void
task_cancel(struct task *t)
{
	struct task_op *op = t->parked;

	if (t->done || t->cancelled)
		return;
	t->cancelled = true;
	if (op == NULL)
		return;
	op->cancel(op);
	if (op->waiter == NULL || op->finish == join_finish)	/* a join goes on waiting for its children */
		return;
	op->waiter = NULL;
	t->parked = NULL;
	enqueue(t);
}

bool
task_is_done(const struct task *t)
{
	return t->done;
}

/* Results (or the error) move to the task's user value; joiners wake. */
static void
task_end(struct task *t, int status, int nres)
{
	struct runbook_host *h = t->host;
	lua_State *L = h->L;
	struct join_op *j;

	t->done = true;
	t->failed = status != LUA_OK;
	lua_rawgeti(L, LUA_REGISTRYINDEX, t->pin);	/* t */
	if (t->failed) {
		if (lua_type(t->co, -1) == LUA_TSTRING) {
			luaL_traceback(t->co, t->co, lua_tostring(t->co, -1), 0);
			lua_remove(t->co, -2);
		}
		lua_createtable(L, 1, 1);		/* t results */
		lua_xmove(t->co, L, 1);
		lua_rawseti(L, -2, 1);
		lua_pushinteger(L, 1);
	} else {
		lua_createtable(L, nres, 1);		/* t results */
		for (int i = nres; i >= 1; i--) {
			lua_xmove(t->co, L, 1);
			lua_rawseti(L, -2, i);
		}
		lua_pushinteger(L, nres);
	}
	lua_setfield(L, -2, "n");
	lua_setiuservalue(L, -2, SLOT_RESULTS);		/* t */
	if (t->failed)	/* lua_resume leaves a failed coroutine's <close> variables open */
		lua_resetthread(t->co);
	lua_pushnil(L);
	lua_setiuservalue(L, -2, SLOT_THREAD);
	lua_pop(L, 1);					/* - */
	t->co = NULL;

	if (t->previous != NULL)
		t->previous->next = t->next;
	else
		h->tasks = t->next;
	if (t->next != NULL)
		t->next->previous = t->previous;
	for (j = t->joiners; j != NULL;) {
		struct join_op *next = j->next;

		j->on = NULL;
		j->next = NULL;
		task_wake(&j->op);
		j = next;
	}
	t->joiners = NULL;
	luaL_unref(L, LUA_REGISTRYINDEX, t->pin);	/* t may be collected from here */
	t->pin = LUA_NOREF;
}

static void
run_one(struct task *t)
{
	struct runbook_host *h = t->host;
	int nargs = 0, nres = 0, status;
	double slow;

	if (!t->started) {
		t->started = true;
		nargs = lua_gettop(t->co) - 1;
	}
	watchdog_turn(&h->watchdog, t->co);
	status = lua_resume(t->co, h->L, nargs, &nres);
	if ((slow = watchdog_rest(&h->watchdog)) > 0)
		host_slow_turn(h, slow);
	if (status != LUA_YIELD)
		task_end(t, status, nres);
	else if (t->parked == NULL && !t->queued) {	/* a coroutine.yield that no coroutine.resume answers */
		lua_pop(t->co, nres);
		enqueue(t);
	}
}

bool
task_run_ready(struct runbook_host *h)
{
	/* Those woken meanwhile wait for the next call, so that sockets get their turn. */
	struct task *t = h->ready_first;
	bool any = t != NULL;

	h->ready_first = h->ready_last = NULL;
	while (t != NULL) {
		struct task *next = t->next_ready;

		t->queued = false;
		run_one(t);
		t = next;
	}
	return any;
}

static void
join_unlink(struct join_op *j)
{
	struct join_op **p;

	if (j->on == NULL)
		return;
	for (p = &j->on->joiners; *p != NULL; p = &(*p)->next) {
		if (*p == j) {
			*p = j->next;
			break;
		}
	}
	j->on = NULL;
}

static void
join_cancel(struct task_op *op)
{
	/* The tasks joined are the op's user value table, read by join_finish; here only their list matters. */
	struct join_op *j = (struct join_op *)op;
	struct task *t = j->on;

	if (t != NULL)
		task_cancel(t);
}

/* Waits again until every task of the list has ended; then pushes true. */
static int
join_next(lua_State *L, struct join_op *j)
{
	struct task *self = *task_slot(L);

	for (int i = 1; i <= j->count; i++) {
		struct task *t;

		lua_rawgeti(L, 1, i);			/* … t */
		t = lua_touserdata(L, -1);
		lua_pop(L, 1);
		if (self->cancelled)
			task_cancel(t);
		if (!t->done && j->on == NULL) {
			j->op.done = false;
			j->on = t;
			j->next = t->joiners;
			t->joiners = j;
		}
	}
	if (j->on == NULL)
		return 0;
	return park(L, self, &j->op);
}

static int
join_finish(lua_State *L, struct task_op *op)
{
	return join_next(L, (struct join_op *)op);
}

int
task_join_gc(lua_State *L)
{
	join_unlink(lua_touserdata(L, 1));
	return 0;
}

int
task_join_all(lua_State *L)
{
	struct task *self = *task_slot(L);
	struct join_op *j;
	int count;

	luaL_checktype(L, 1, LUA_TTABLE);
	count = (int)luaL_len(L, 1);
	for (int i = 1; i <= count; i++) {
		lua_rawgeti(L, 1, i);
		luaL_argcheck(L, task_check(L, -1) != self, 1, "a task cannot wait for itself");
		lua_pop(L, 1);
	}
	lua_settop(L, 1);
	j = lua_newuserdatauv(L, sizeof *j, 0);		/* tasks j */
	*j = (struct join_op){
		.op = { .finish = join_finish, .cancel = join_cancel, .what = "other tasks" },
		.count = count,
	};
	luaL_setmetatable(L, TASK_JOIN_MT);
	if (self == NULL || !lua_isyieldable(L))
		return luaL_error(L, "only a task can wait for tasks");
	return join_next(L, j);
}

int
task_push_results(lua_State *L, int idx)
{
	struct task *t = task_check(L, idx);
	lua_Integer n;

	if (!t->done)
		return 0;
	lua_getiuservalue(L, idx, SLOT_RESULTS);	/* results */
	lua_getfield(L, -1, "n");
	n = lua_tointeger(L, -1);
	lua_pop(L, 1);
	luaL_checkstack(L, (int)n + 1, "too many results");
	lua_pushboolean(L, !t->failed);			/* results ok */
	for (lua_Integer i = 1; i <= n; i++)
		lua_rawgeti(L, -1 - (int)i, i);
	lua_remove(L, -((int)n + 2));			/* ok result… */
	return (int)n + 1;
}

void
task_push_context(lua_State *L, const struct task *t)
{
	lua_rawgeti(L, LUA_REGISTRYINDEX, t->pin);	/* t */
	lua_getiuservalue(L, -1, SLOT_CONTEXT);		/* t context */
	lua_remove(L, -2);				/* context */
}

void
task_set_context(lua_State *L, struct task *t, int idx)
{
	idx = lua_absindex(L, idx);
	lua_rawgeti(L, LUA_REGISTRYINDEX, t->pin);	/* t */
	lua_pushvalue(L, idx);
	lua_setiuservalue(L, -2, SLOT_CONTEXT);
	lua_pop(L, 1);					/* - */
}

enum permit
task_permit(const struct task *t)
{
	return t->permit;
}

void
task_set_permit(struct task *t, enum permit p)
{
	t->permit = p;
}

unsigned long
task_serial(const struct task *t)
{
	return t->serial;
}

struct task *
task_first(const struct runbook_host *h)
{
	return h->tasks;
}

struct task *
task_next(const struct task *t)
{
	return t->next;
}

const char *
task_waits_for(const struct task *t)
{
	if (t->parked == NULL)
		return "its turn";
	return t->parked->what != NULL ? t->parked->what : "something";
}

lua_State *
task_coroutine(const struct task *t)
{
	return t->co;
}
