/* lua/ssh_channel.c - the part of "runbook.core.ssh" that runs commands and opens ways. */
#include "../point.h"
#include "bind.h"
#include "ssh_bind.h"

#define CHANNEL_MT "runbook.ssh.channel"
#define EXEC_MT    "runbook.ssh.exec"
#define OPEN_MT    "runbook.ssh.open"
#define WAIT_MT    "runbook.ssh.wait"

#define STDOUT_LIMIT (8 * 1024 * 1024)

struct lua_channel {
	struct ssh_channel *c;		/* NULL once closed */
	struct task_op *waiter;		/* of the task that waits for its end */
	bool change;
};

struct exec_op {
	struct task_op op;
	struct ssh_exec *exec;		/* NULL once released */
};

struct open_op {
	struct task_op op;
	struct ssh_channel *c;		/* NULL once released or handed on */
	bool way;			/* wanted is one stream, not a command's three */
	bool change;
};

struct wait_op {
	struct task_op op;
	struct lua_channel *channel;	/* NULL once released */
};

static bool
may_change(lua_State *L)
{
	return task_permit(task_running(L)) >= PERMIT_CHANGE;
}

/* How a command ended, into the table on top.  [-0, +0, m] */
static void
set_how(lua_State *L, int status, const char *signal)
{
	if (signal != NULL)
		lua_pushstring(L, signal);
	else
		lua_pushinteger(L, status);
	lua_setfield(L, -2, signal != NULL ? "signal" : "status");
}

static void
exec_release(struct task_op *op)
{
	struct exec_op *x = (struct exec_op *)op;

	ssh_exec_free(x->exec);
	x->exec = NULL;
}

static int
exec_finish(lua_State *L, struct task_op *op)
{
	const struct ssh_result *r = ssh_exec_result(((struct exec_op *)op)->exec);
	int count = r->code != NULL ? 4 : 1;

	if (r->code != NULL)
		bind_fail(L, r->code, "%s", r->message);
	lua_createtable(L, 0, 4);			/* ... result */
	lua_pushlstring(L, r->out, r->out_length);
	lua_setfield(L, -2, "stdout");
	lua_pushlstring(L, r->err, r->err_length);
	lua_setfield(L, -2, "stderr");
	if (r->code == NULL)
		set_how(L, r->status, r->signal);
	exec_release(op);	/* 8 MiB need not wait for the collector */
	return count;
}

/* session:exec(command[, stdin[, limit]]) -> result | nil, message, code, partial */
int
ssh_bind_exec(lua_State *L)
{
	struct ssh_session *s = ssh_bind_session(L);
	bool from_stream = luaL_testudata(L, 3, "runbook.stream") != NULL;
	lua_Integer limit = luaL_optinteger(L, 4, STDOUT_LIMIT);
	size_t length, input_length = 0;
	const char *command = luaL_checklstring(L, 2, &length);
	const char *input = from_stream || lua_isnoneornil(L, 3) ? NULL : bind_bytes(L, 3, &input_length);
	struct stream *from = from_stream ? bind_check_stream(L, 3) : NULL;
	struct exec_op *x;
	bool fine = true;

	luaL_argcheck(L, limit >= 0, 4, "a number of bytes");
	bind_permit(L, PERMIT_READ);
	x = lua_newuserdatauv(L, sizeof *x, 2);		/* op */
	*x = (struct exec_op){ .op = { .finish = exec_finish, .cancel = exec_release, .what = "a command over ssh" } };
	luaL_setmetatable(L, EXEC_MT);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	if (from != NULL) {
		lua_pushvalue(L, 3);
		lua_setiuservalue(L, -2, 2);
	}
	x->exec = ssh_exec_start(s, command, length, may_change(L), (size_t)limit, bind_wake, &x->op);
	if (x->exec != NULL && input != NULL)
		fine = ssh_exec_input(x->exec, input, input_length);
	else if (x->exec != NULL && from != NULL)
		fine = ssh_exec_input_from(x->exec, from);
	if (x->exec == NULL || !fine)
		return luaL_error(L, "out of memory");
	return task_await(L, &x->op);
}

static void
open_release(struct task_op *op)
{
	struct open_op *x = (struct open_op *)op;

	ssh_channel_free(x->c);
	x->c = NULL;
}

static int
open_finish(lua_State *L, struct task_op *op)
{
	struct open_op *x = (struct open_op *)op;
	struct lua_channel *channel;
	struct stream *way;

	if (ssh_channel_code(x->c) != NULL) {
		bind_fail(L, ssh_channel_code(x->c), "%s", ssh_channel_message(x->c));
		open_release(op);
		return 3;
	}
	if (x->way) {
		if ((way = ssh_channel_stream(x->c, SSH_DUPLEX)) == NULL)
			return luaL_error(L, "out of memory");
		open_release(op);		/* the stream keeps the channel */
		bind_push_stream(L, way);
		return 1;
	}
	channel = lua_newuserdatauv(L, sizeof *channel, 4);	/* channel; values: session, streams */
	*channel = (struct lua_channel){ .c = x->c, .change = x->change };
	luaL_setmetatable(L, CHANNEL_MT);
	x->c = NULL;
	lua_pushvalue(L, 1);				/* the arguments are where they were: the session */
	lua_setiuservalue(L, -2, 1);
	return 1;
}

static struct open_op *
push_open(lua_State *L, const char *what)
{
	struct open_op *x = lua_newuserdatauv(L, sizeof *x, 1);	/* op */

	*x = (struct open_op){ .op = { .finish = open_finish, .cancel = open_release, .what = what } };
	luaL_setmetatable(L, OPEN_MT);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	return x;
}

static int
await_open(lua_State *L, struct open_op *x)
{
	if (x->c == NULL)
		return luaL_error(L, "out of memory");
	return task_await(L, &x->op);
}

/* session:open(command) -> channel | nil, message, code */
int
ssh_bind_open(lua_State *L)
{
	struct ssh_session *s = ssh_bind_session(L);
	size_t length;
	const char *command = luaL_checklstring(L, 2, &length);
	struct open_op *x;

	bind_permit(L, PERMIT_READ);
	x = push_open(L, "a command over ssh to start");	/* op */
	x->change = may_change(L);
	x->c = ssh_channel_command(s, command, length, x->change, bind_wake, &x->op);
	return await_open(L, x);
}

/* session:subsystem(name) -> stream | nil, message, code */
int
ssh_bind_subsystem(lua_State *L)
{
	struct ssh_session *s = ssh_bind_session(L);
	const char *name = luaL_checkstring(L, 2);
	struct open_op *x;

	bind_permit(L, PERMIT_READ);
	x = push_open(L, "a subsystem of ssh to start");	/* op */
	x->way = true;
	x->c = ssh_channel_subsystem(s, name, bind_wake, &x->op);
	return await_open(L, x);
}

/* session:dial(host, port) -> stream | nil, message, code */
int
ssh_bind_dial(lua_State *L)
{
	struct ssh_session *s = ssh_bind_session(L);
	const char *host = luaL_checkstring(L, 2);
	lua_Integer port = luaL_checkinteger(L, 3);
	struct open_op *x;

	luaL_argcheck(L, port > 0 && port < 65536, 3, "no port");
	bind_permit(L, PERMIT_READ);
	x = push_open(L, "a connection through ssh");		/* op */
	x->way = true;
	x->c = ssh_channel_dial(s, host, (int)port, bind_wake, &x->op);
	return await_open(L, x);
}

static struct lua_channel *
check_channel(lua_State *L)
{
	struct lua_channel *channel = luaL_checkudata(L, 1, CHANNEL_MT);

	luaL_argcheck(L, channel->c != NULL, 1, "channel is closed");
	return channel;
}

/* The stream is made once and kept as the user value 2 + end. */
static int
push_end(lua_State *L, enum ssh_end end)
{
	struct lua_channel *channel = check_channel(L);
	struct stream *s;

	if (lua_getiuservalue(L, 1, 2 + (int)end) != LUA_TNIL)	/* stream */
		return 1;
	lua_pop(L, 1);
	if ((s = ssh_channel_stream(channel->c, end)) == NULL)
		return luaL_error(L, "out of memory");
	bind_push_stream(L, s);				/* stream */
	lua_pushvalue(L, -1);
	lua_setiuservalue(L, 1, 2 + (int)end);
	return 1;
}

static int
l_stdin(lua_State *L)
{
	return push_end(L, SSH_STDIN);
}

static int
l_stdout(lua_State *L)
{
	return push_end(L, SSH_STDOUT);
}

static int
l_stderr(lua_State *L)
{
	return push_end(L, SSH_STDERR);
}

static void
wait_release(struct task_op *op)
{
	struct wait_op *x = (struct wait_op *)op;

	if (x->channel == NULL)
		return;
	x->channel->waiter = NULL;
	if (x->channel->c != NULL)
		ssh_channel_wait(x->channel->c, NULL, NULL);
	x->channel = NULL;
}

static int
wait_finish(lua_State *L, struct task_op *op)
{
	struct lua_channel *channel = ((struct wait_op *)op)->channel;
	struct ssh_channel *c = channel->c;

	wait_release(op);
	if (c == NULL)
		return bind_fail(L, "ECLOSED", "the channel was closed");
	if (channel->change)
		point_reach("answered");
	if (ssh_channel_code(c) != NULL)
		return bind_fail(L, ssh_channel_code(c), "%s", ssh_channel_message(c));
	lua_createtable(L, 0, 1);			/* how */
	set_how(L, ssh_channel_status(c), ssh_channel_signal(c));
	return 1;
}

/* channel:wait() -> { status = } or { signal = } | nil, message, code */
static int
l_wait(lua_State *L)
{
	struct lua_channel *channel = check_channel(L);
	struct wait_op *x;

	luaL_argcheck(L, channel->waiter == NULL, 1, "another task waits for it");
	x = lua_newuserdatauv(L, sizeof *x, 1);		/* op */
	*x = (struct wait_op){ .op = { .finish = wait_finish, .cancel = wait_release,
		.what = "the end of a command over ssh" } };
	luaL_setmetatable(L, WAIT_MT);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	x->channel = channel;
	channel->waiter = &x->op;
	ssh_channel_wait(channel->c, bind_wake, &x->op);
	return task_await(L, &x->op);
}

/* The handle only: its streams may live on in other hands. */
static int
l_channel_gc(lua_State *L)
{
	struct lua_channel *channel = luaL_checkudata(L, 1, CHANNEL_MT);

	ssh_channel_free(channel->c);
	channel->c = NULL;
	if (channel->waiter != NULL)
		task_wake(channel->waiter);
	return 0;
}

/* At once, and its streams with it. */
static int
l_channel_close(lua_State *L)
{
	luaL_checkudata(L, 1, CHANNEL_MT);
	for (int i = SSH_STDIN; i <= SSH_STDERR; i++) {
		if (lua_getiuservalue(L, 1, 2 + i) != LUA_TNIL) {	/* stream */
			struct stream *s = luaL_checkudata(L, -1, "runbook.stream");

			s->ops->close(s);
		}
		lua_pop(L, 1);
	}
	return l_channel_gc(L);
}

static const luaL_Reg channel_methods[] = {
	{ "close",  l_channel_close },
	{ "stderr", l_stderr },
	{ "stdin",  l_stdin },
	{ "stdout", l_stdout },
	{ "wait",   l_wait },
	{ NULL, NULL }
};

static const luaL_Reg channel_meta[] = {
	{ "__close", l_channel_close },
	{ "__gc",    l_channel_gc },
	{ NULL, NULL }
};

void
ssh_bind_channel_classes(lua_State *L)
{
	bind_class(L, CHANNEL_MT, channel_methods, channel_meta);
	bind_op_class(L, EXEC_MT);
	bind_op_class(L, OPEN_MT);
	bind_op_class(L, WAIT_MT);
}
