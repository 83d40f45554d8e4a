/*
 * lua/websocket.c - the "runbook.core.websocket" module.
 *
 * Marshalling only: the protocol is in ../websocket.c, policy with those who use it (lib/runbook/kube/).
 */
#include "../websocket.h"

#include <string.h>

#include "../host.h"
#include "bind.h"
#include "http.h"

#define CONNECT_MT     "runbook.websocket.connect"
#define WEBSOCKET_MT   "runbook.websocket"

static const char connections_key;	/* its address is the registry key of this state's connections */

struct connect_op {
	struct task_op op;
	struct websocket *ws;		/* NULL once released or handed on */
};

static struct websocket *
check_websocket(lua_State *L, int idx)
{
	struct websocket **ws = luaL_checkudata(L, idx, WEBSOCKET_MT);

	luaL_argcheck(L, *ws != NULL, idx, "websocket is closed");
	return *ws;
}

/* ---- connect ---- */

static void
connect_release(struct task_op *op)
{
	struct connect_op *x = (struct connect_op *)op;

	websocket_release(x->ws);
	x->ws = NULL;
}

static int
connect_failed(lua_State *L, struct connect_op *x, const struct websocket_answer *a)
{
	bind_fail(L, a->code, "%s", a->message);	/* nil message code */
	lua_createtable(L, 0, 3);			/* nil message code details */
	if (a->status != 0) {
		lua_pushinteger(L, a->status);
		lua_setfield(L, -2, "status");
		http_push_headers(L, a->headers, a->headers_length);
		lua_setfield(L, -2, "headers");
		lua_pushlstring(L, a->body, a->body_length);
		lua_setfield(L, -2, "body");
	}
	connect_release(&x->op);
	return 4;
}

static int
connect_finish(lua_State *L, struct task_op *op)
{
	struct connect_op *x = (struct connect_op *)op;
	const struct websocket_answer *a = websocket_answer(x->ws);
	struct websocket **ws;

	if (a->code != NULL)
		return connect_failed(L, x, a);
	ws = lua_newuserdatauv(L, sizeof *ws, 0);
	*ws = NULL;
	luaL_setmetatable(L, WEBSOCKET_MT);
	*ws = x->ws;
	x->ws = NULL;
	return 1;
}

/* The subprotocols of the options at 1; pushes what holds them.  [-0, +2, v] */
static const char *const *
check_protocols(lua_State *L)
{
	const char **list;
	lua_Integer n = 0;

	if (lua_getfield(L, 1, "protocols") == LUA_TTABLE)	/* protocols */
		n = (lua_Integer)lua_rawlen(L, -1);
	else
		luaL_argcheck(L, lua_isnil(L, -1), 1, "protocols: a list expected");
	list = lua_newuserdatauv(L, ((size_t)n + 1) * sizeof *list, 0);	/* protocols list */
	for (lua_Integer i = 1; i <= n; i++) {
		lua_rawgeti(L, -2, i);
		list[i - 1] = luaL_checkstring(L, -1);		/* the table keeps it */
		if (strpbrk(list[i - 1], "\r\n, ") != NULL)
			luaL_error(L, "protocols: `%s` is no name of one", list[i - 1]);
		lua_pop(L, 1);
	}
	list[n] = NULL;
	return list;
}

static bool
is_set(lua_State *L, const char *name)
{
	bool set;

	lua_getfield(L, 1, name);
	set = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return set;
}

/* connect(options) -> websocket | nil, message, code, details */
static int
l_connect(lua_State *L)
{
	struct websocket_options o = { .channels = false };
	const char **headers, *why;
	struct connect_op *x;
	struct http *h;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	luaL_checkstack(L, 32, NULL);
	http_check_way(L, &o.http);
	o.http.headers = headers = http_check_headers(L);
	o.protocols = check_protocols(L);
	o.channels = is_set(L, "channels");
	lua_getfield(L, 1, "keepalive");
	o.keepalive = luaL_optnumber(L, -1, 0);
	luaL_argcheck(L, o.keepalive >= 0 && o.keepalive < 1e6, 1, "keepalive: seconds expected");
	bind_permit(L, is_set(L, "reads") ? PERMIT_READ : PERMIT_CHANGE);
	if ((h = http_connections(L, &connections_key, 0, &why)) == NULL)
		return bind_fail(L, "EUNSUPPORTED", "%s", why);
	x = lua_newuserdatauv(L, sizeof *x, 0);
	*x = (struct connect_op){ .op = { .finish = connect_finish, .cancel = connect_release, .what = "a websocket" } };
	luaL_setmetatable(L, CONNECT_MT);
	x->ws = websocket_start(host_loop(host_of(L)), h, &o, bind_wake, x);
	http_forget_headers(headers);
	if (x->ws == NULL)
		return bind_fail(L, "EINVAL", "a websocket that libcurl does not take");
	return task_await(L, &x->op);
}

/* ---- an open one ---- */

/* A channel of the options at 2.  [-0, +0, v] */
static int
check_channel(lua_State *L, const char *name)
{
	lua_Integer channel = WEBSOCKET_NONE;

	if (lua_getfield(L, 2, name) != LUA_TNIL) {
		channel = luaL_checkinteger(L, -1);
		luaL_argcheck(L, channel >= 0 && channel <= 255, 2, "a channel is a number from 0 to 255");
	}
	lua_pop(L, 1);
	return (int)channel;
}

/* Bytes that stay on the stack.  [-0, +1, v] */
static const char *
check_short(lua_State *L, const char *name, size_t *length)
{
	const char *bytes = NULL;

	*length = 0;
	if (lua_getfield(L, 2, name) != LUA_TNIL)
		bytes = luaL_checklstring(L, -1, length);
	luaL_argcheck(L, bytes == NULL || (*length > 0 && *length <= 64), 2, "at most 64 bytes, and one at least");
	return bytes;
}

/* websocket:stream(options) -> stream */
static int
l_stream(lua_State *L)
{
	struct websocket *ws = check_websocket(L, 1);
	struct websocket_stream_options o = { .read = WEBSOCKET_NONE };
	struct stream *s;

	luaL_checktype(L, 2, LUA_TTABLE);
	o.read = check_channel(L, "read");
	o.write = check_channel(L, "write");
	o.mark = check_short(L, "mark", &o.mark_length);
	o.end = check_short(L, "finish", &o.end_length);
	lua_getfield(L, 2, "sized");
	o.sized = lua_toboolean(L, -1);
	lua_getfield(L, 2, "main");
	o.main = lua_toboolean(L, -1);
	if ((s = websocket_stream(ws, &o)) == NULL)
		return luaL_error(L, "out of memory");
	bind_push_stream(L, s);
	return 1;
}

/* websocket:closed() -> code, reason | nil */
static int
l_closed(lua_State *L)
{
	const char *reason;
	unsigned code = websocket_closed(check_websocket(L, 1), &reason);

	if (code == 0) {
		lua_pushnil(L);
		return 1;
	}
	lua_pushinteger(L, code);
	lua_pushstring(L, reason);
	return 2;
}

/* websocket:protocol() -> name | nil */
static int
l_protocol(lua_State *L)
{
	lua_pushstring(L, websocket_answer(check_websocket(L, 1))->protocol);
	return 1;
}

static int
l_close(lua_State *L)
{
	struct websocket **ws = luaL_checkudata(L, 1, WEBSOCKET_MT);

	websocket_release(*ws);
	*ws = NULL;
	return 0;
}

static const luaL_Reg functions[] = {
	{ "connect", l_connect },
	{ NULL, NULL }
};

static const luaL_Reg methods[] = {
	{ "close",    l_close },
	{ "closed",   l_closed },
	{ "protocol", l_protocol },
	{ "stream",   l_stream },
	{ NULL, NULL }
};

static const luaL_Reg meta[] = {
	{ "__close", l_close },
	{ "__gc",    l_close },
	{ NULL, NULL }
};

int luaopen_runbook_core_websocket(lua_State *L);

int
luaopen_runbook_core_websocket(lua_State *L)
{
	bind_class(L, WEBSOCKET_MT, methods, meta);
	bind_op_class(L, CONNECT_MT);
	luaL_newlib(L, functions);
	return 1;
}
