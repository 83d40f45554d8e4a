/*
 * lua/listen.c - the "runbook.core.listen" module: what others connect to, on this machine or (from
 * ssh_listen.c) on an ssh server.
 */
#include "../listen.h"
#include "bind.h"

#define LISTENER_MT "runbook.listen.listener"
#define ACCEPT_MT   "runbook.listen.accept"

struct accept_op;

struct lua_listener {
	struct listener *listener;	/* NULL once closed */
	struct accept_op *waiting;
};

struct accept_op {
	struct task_op op;
	struct lua_listener *from;	/* anchored; NULL once it was given up or handed over */
	struct stream *stream;		/* until it is handed over */
};

int luaopen_runbook_core_listen(lua_State *L);

struct listener **
bind_push_listener(lua_State *L)
{
	struct lua_listener *l = lua_newuserdatauv(L, sizeof *l, 1);	/* listener */

	*l = (struct lua_listener){ NULL, NULL };
	if (luaL_getmetatable(L, LISTENER_MT) == LUA_TNIL) {	/* listener nil: who made it never required us */
		luaL_requiref(L, "runbook.core.listen", luaopen_runbook_core_listen, 0);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);						/* listener */
	luaL_setmetatable(L, LISTENER_MT);
	return &l->listener;
}

/* listen.open(host, port) -> listener | nil, message, code */
static int
l_open(lua_State *L)
{
	const char *host = luaL_checkstring(L, 1);
	lua_Integer port = luaL_checkinteger(L, 2);
	struct listener **l;
	int error;

	luaL_argcheck(L, port >= 0 && port <= 65535, 2, "a port from 0 to 65535");
	bind_permit(L, PERMIT_READ);
	l = bind_push_listener(L);			/* listener */
	*l = listener_open(host_loop(host_of(L)), host, (int)port, &error);
	if (*l == NULL)
		return bind_fail(L, uv_err_name(error), "listening on %s port %d: %s", host, (int)port, uv_strerror(error));
	return 1;
}

static struct lua_listener *
check_listener(lua_State *L)
{
	struct lua_listener *l = luaL_checkudata(L, 1, LISTENER_MT);

	luaL_argcheck(L, l->listener != NULL, 1, "listener is closed");
	return l;
}

/* Nobody waits any more, whatever came of it. */
static void
settle(struct accept_op *x)
{
	if (x->from->waiting == x)
		x->from->waiting = NULL;
}

static void
accepted(void *arg, struct stream *s)
{
	struct accept_op *x = arg;

	x->stream = s;
	settle(x);
	task_wake(&x->op);
}

static void
accept_release(struct task_op *op)
{
	struct accept_op *x = (struct accept_op *)op;

	if (x->from == NULL)
		return;
	if (x->from->waiting == x)
		x->from->listener->ops->accept(x->from->listener, NULL, NULL);
	settle(x);
	x->from = NULL;
	if (x->stream != NULL)
		x->stream->ops->close(x->stream);
	x->stream = NULL;
}

static int
accept_finish(lua_State *L, struct task_op *op)
{
	struct accept_op *x = (struct accept_op *)op;
	const struct listener *listener = x->from->listener;

	if (x->stream != NULL) {
		bind_push_stream(L, x->stream);
		x->stream = NULL;
		accept_release(op);
		return 1;
	}
	accept_release(op);
	if (listener == NULL || listener->code == NULL)
		return bind_fail(L, "ECLOSED", "the listener was closed");
	return bind_fail(L, listener->code, "%s", listener->message);
}

/* listener:accept() -> stream | nil, message, code */
static int
l_accept(lua_State *L)
{
	struct lua_listener *l = check_listener(L);
	struct accept_op *x;

	luaL_argcheck(L, l->waiting == NULL, 1, "another task waits for its connections");
	x = lua_newuserdatauv(L, sizeof *x, 1);		/* op */
	*x = (struct accept_op){ .op = { .finish = accept_finish, .cancel = accept_release, .what = "a connection" } };
	luaL_setmetatable(L, ACCEPT_MT);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	x->from = l;
	l->waiting = x;
	l->listener->ops->accept(l->listener, accepted, x);
	return task_await(L, &x->op);
}

/* listener:port() -> the one it listens on */
static int
l_port(lua_State *L)
{
	lua_pushinteger(L, check_listener(L)->listener->port);
	return 1;
}

static int
l_close(lua_State *L)
{
	struct lua_listener *l = luaL_checkudata(L, 1, LISTENER_MT);
	struct listener *listener = l->listener;
	struct accept_op *waiting = l->waiting;

	l->listener = NULL;
	l->waiting = NULL;
	if (listener != NULL)
		listener->ops->close(listener);
	if (waiting != NULL)
		task_wake(&waiting->op);
	return 0;
}

static const luaL_Reg functions[] = {
	{ "open", l_open },
	{ NULL, NULL }
};

static const luaL_Reg listener_methods[] = {
	{ "accept", l_accept },
	{ "close",  l_close },
	{ "port",   l_port },
	{ NULL, NULL }
};

static const luaL_Reg listener_meta[] = {
	{ "__close", l_close },
	{ "__gc",    l_close },
	{ NULL, NULL }
};

int
luaopen_runbook_core_listen(lua_State *L)
{
	bind_class(L, LISTENER_MT, listener_methods, listener_meta);
	bind_op_class(L, ACCEPT_MT);
	luaL_newlib(L, functions);
	return 1;
}
