/*
 * lua/signal.c - the "runbook.core.signal" module: the next signal, as a wait.
 */
#include <string.h>

#include "../host.h"
#include "bind.h"

struct next_op {
	struct task_op op;
	struct runbook_host *host;
};

static void
next_release(struct task_op *op)
{
	struct next_op *n = (struct next_op *)op;

	if (n->host != NULL && n->host->signal_waiter == op)
		n->host->signal_waiter = NULL;
	n->host = NULL;
}

static int
next_finish(lua_State *L, struct task_op *op)
{
	struct runbook_host *h = host_of(L);

	(void)op;
	lua_pushstring(L, h->signals[0]);
	h->signal_count--;
	memmove(h->signals[0], h->signals[1], sizeof h->signals - sizeof h->signals[0]);
	return 1;
}

static int
l_next(lua_State *L)
{
	struct runbook_host *h = host_of(L);
	struct next_op *n = lua_newuserdatauv(L, sizeof *n, 0);

	*n = (struct next_op){ .op = { .finish = next_finish, .cancel = next_release, .what = "a signal" } };
	luaL_setmetatable(L, "runbook.signal.next");
	if (h->signal_waiter != NULL)
		return luaL_error(L, "another task waits for signals");
	h->signals_wanted = true;
	n->host = h;
	if (h->signal_count > 0)
		n->op.done = true;
	else
		h->signal_waiter = &n->op;
	return task_await(L, &n->op);
}

static const luaL_Reg functions[] = {
	{ "next", l_next },
	{ NULL, NULL }
};

int luaopen_runbook_core_signal(lua_State *L);

int
luaopen_runbook_core_signal(lua_State *L)
{
	bind_op_class(L, "runbook.signal.next");
	luaL_newlib(L, functions);
	return 1;
}
