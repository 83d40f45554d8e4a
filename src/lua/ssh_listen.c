/* lua/ssh_listen.c - the part of "runbook.core.ssh" that has a server listen for us. */
#include "bind.h"
#include "ssh_bind.h"

#define LISTEN_MT "runbook.ssh.listen"

struct listen_op {
	struct task_op op;
	struct ssh_listen *listen;	/* NULL once released or handed on */
};

static void
listen_release(struct task_op *op)
{
	struct listen_op *x = (struct listen_op *)op;

	ssh_listen_free(x->listen);
	x->listen = NULL;
}

static int
listen_finish(lua_State *L, struct task_op *op)
{
	struct listen_op *x = (struct listen_op *)op;
	struct listener **listener;

	if (ssh_listen_code(x->listen) != NULL) {
		bind_fail(L, ssh_listen_code(x->listen), "%s", ssh_listen_message(x->listen));
		listen_release(op);
		return 3;
	}
	listener = bind_push_listener(L);		/* listener */
	*listener = ssh_listen_listener(x->listen);
	x->listen = NULL;
	lua_pushvalue(L, 1);				/* the arguments are where they were: the session */
	lua_setiuservalue(L, -2, 1);
	return 1;
}

/* session:listen(host, port) -> listener | nil, message, code */
int
ssh_bind_listen(lua_State *L)
{
	struct ssh_session *s = ssh_bind_session(L);
	const char *host = luaL_checkstring(L, 2);
	lua_Integer port = luaL_checkinteger(L, 3);
	struct listen_op *x;

	luaL_argcheck(L, port >= 0 && port <= 65535, 3, "a port from 0 to 65535");
	bind_permit(L, PERMIT_CHANGE);
	x = lua_newuserdatauv(L, sizeof *x, 1);		/* op */
	*x = (struct listen_op){ .op = { .finish = listen_finish, .cancel = listen_release,
		.what = "an ssh server to listen" } };
	luaL_setmetatable(L, LISTEN_MT);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	if ((x->listen = ssh_listen_start(s, host, (int)port, bind_wake, &x->op)) == NULL)
		return luaL_error(L, "out of memory");
	return task_await(L, &x->op);
}

void
ssh_bind_listen_class(lua_State *L)
{
	bind_op_class(L, LISTEN_MT);
}
