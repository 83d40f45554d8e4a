/*
 * lua/manifest_sink.c - sinks, as Lua sees them: a task writes and waits until the bytes are taken.
 */
#include "manifest.h"

#include <errno.h>

#define SINK_MT "runbook.manifest.sink"
#define WAIT_MT "runbook.manifest.wait"

struct sink_box {
	struct manifest_sink *sink;	/* NULL: closed, or over */
	void (*push)(lua_State *L, struct manifest_sink *s);
	bool busy, over;
	uint64_t bytes, files, answered, stat_nanoseconds;
};

struct sink_op {
	struct task_op op;
	struct sink_box *box;		/* anchored */
	bool finishing;
};

void
manifest_push_sink(lua_State *L, void (*push)(lua_State *L, struct manifest_sink *s))
{
	struct sink_box *box = lua_newuserdatauv(L, sizeof *box, 0);
	*box = (struct sink_box){ .push = push };
	luaL_setmetatable(L, SINK_MT);
}

int
manifest_start_sink(lua_State *L, struct manifest_sink *s)
{
	struct sink_box *box = lua_touserdata(L, -1);
	if (!manifest_sink_start(host_loop(host_of(L)), s))
		return bind_fail_errno(L, errno, "sink");
	box->sink = s;
	return 1;
}

static void
read_status(struct sink_box *box)
{
	if (!box->sink)
		return;
	box->bytes = atomic_load(&box->sink->bytes);
	box->files = atomic_load(&box->sink->files);
	box->answered = atomic_load(&box->sink->answered);
	box->stat_nanoseconds = atomic_load(&box->sink->stat_nanoseconds);
}

static void
sink_drop(struct sink_box *box)
{
	read_status(box);
	manifest_sink_free(box->sink);
	box->sink = NULL;
}

/* Half of what was to be written may be there: nothing can come after it. */
static void
sink_cancel(struct task_op *op)
{
	struct sink_op *x = (struct sink_op *)op;
	if (x->box)
		sink_drop(x->box);
	x->box = NULL;
}

static int
sink_finish(lua_State *L, struct task_op *op)
{
	struct sink_op *x = (struct sink_op *)op;
	struct sink_box *box = x->box;
	const struct manifest_sink *s = box->sink;
	int n = 1;
	x->box = NULL;
	box->busy = false;
	if (!s)
		return bind_fail(L, "ECLOSED", "the sink was closed");
	if (s->ended && s->failure.code) {
		n = bind_fail(L, s->failure.code, "%s", s->failure.message);
	} else if (x->finishing) {
		box->push(L, box->sink);
	} else {
		lua_pushboolean(L, 1);
	}
	if (x->finishing) {
		sink_drop(box);
		box->over = true;
	}
	return n;
}

static struct sink_op *
push_wait(lua_State *L, bool finishing)
{
	struct sink_box *box = luaL_checkudata(L, 1, SINK_MT);
	luaL_argcheck(L, box->sink, 1, box->over ? "sink is finished" : "sink is closed");
	luaL_argcheck(L, !box->busy, 1, "another task writes to it");
	struct sink_op *x = lua_newuserdatauv(L, sizeof *x, 2);	/* op */
	*x = (struct sink_op){ .op = { .finish = sink_finish, .cancel = sink_cancel, .what = "a manifest to take bytes" }, .finishing = finishing };
	luaL_setmetatable(L, WAIT_MT);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	box->busy = true;
	x->box = box;
	return x;
}

/* sink:write(bytes) -> true */
static int
l_sink_write(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 2, &length);
	struct sink_op *x = push_wait(L, false);	/* ... op */
	lua_pushvalue(L, 2);
	lua_setiuservalue(L, -2, 2);
	manifest_sink_write(x->box->sink, bytes, length, bind_wake, &x->op);
	return task_await(L, &x->op);
}

/* sink:finish() -> report or outcome */
static int
l_sink_finish(lua_State *L)
{
	struct sink_op *x = push_wait(L, true);
	manifest_sink_finish(x->box->sink, bind_wake, &x->op);
	return task_await(L, &x->op);
}

/* sink:status() -> { bytes =, files =, answered =, stat_seconds = } */
static int
l_sink_status(lua_State *L)
{
	struct sink_box *box = luaL_checkudata(L, 1, SINK_MT);
	read_status(box);
	lua_createtable(L, 0, 4);
	lua_pushinteger(L, (lua_Integer)box->bytes);
	lua_setfield(L, -2, "bytes");
	lua_pushinteger(L, (lua_Integer)box->files);
	lua_setfield(L, -2, "files");
	lua_pushinteger(L, (lua_Integer)box->answered);
	lua_setfield(L, -2, "answered");
	if (box->stat_nanoseconds > 0) {
		lua_pushnumber(L, (lua_Number)box->stat_nanoseconds / 1e9);
		lua_setfield(L, -2, "stat_seconds");
	}
	return 1;
}

/* One that another task waits in ends that wait with ECLOSED. */
static int
l_sink_close(lua_State *L)
{
	struct sink_box *box = luaL_checkudata(L, 1, SINK_MT);
	struct manifest_sink *s = box->sink;
	void (*done)(void *arg) = s ? s->done : NULL;
	sink_drop(box);
	if (done)
		done(s->arg);
	return 0;
}

static const luaL_Reg sink_methods[] = {
	{ "close",  l_sink_close },
	{ "finish", l_sink_finish },
	{ "status", l_sink_status },
	{ "write",  l_sink_write },
	{ NULL, NULL }
};

static const luaL_Reg sink_meta[] = {
	{ "__close", l_sink_close },
	{ "__gc",    l_sink_close },
	{ NULL, NULL }
};

void
manifest_sink_classes(lua_State *L)
{
	bind_op_class(L, WAIT_MT);
	bind_class(L, SINK_MT, sink_methods, sink_meta);
}
