/*
 * lua/stream.c - the "runbook.core.stream" module: what Lua sees of every stream.
 *
 * The userdata is itself a stream, in front of the one it owns; C that uses it has it anchored.
 */
#include <unistd.h>

#include <sys/socket.h>

#include "../stream_ahead.h"
#include "bind.h"

#define STREAM_MT "runbook.stream"
#define READ_MT   "runbook.stream.read"
#define WRITE_MT  "runbook.stream.write"
#define PUMP_MT   "runbook.stream.pump"

#define READ_DEFAULT    (64 * 1024)
#define READ_MAX        (1024 * 1024)
#define CHUNK           (16 * 1024)
#define STREAK_MAX      32	/* calls that did not wait, before one must: others want the loop */

struct lua_stream {
	struct stream_ahead s;		/* first */
	bool busy[2];			/* a task reads, or writes */
	int streak;
};

struct stream_op {
	struct task_op op;
	struct lua_stream *s;		/* NULL once released */
	enum stream_direction direction;
	bool line, split, failed, at_end;
	size_t most;			/* read: bytes at most */
	const char *data;		/* write: what is left of a string that the op anchors */
	size_t length;
};

struct pump_op {
	struct task_op op;
	struct stream_pump *pump;
	struct lua_stream *from, *to;
};

int luaopen_runbook_core_stream(lua_State *L);

/* An empty one, already closed.  [-0, +1, m] */
static struct lua_stream *
push_stream(lua_State *L)
{
	struct lua_stream *s = lua_newuserdatauv(L, sizeof *s, 1);	/* stream */

	*s = (struct lua_stream){ .streak = 0 };
	stream_ahead_init(&s->s);
	if (luaL_getmetatable(L, STREAM_MT) == LUA_TNIL) {	/* stream nil: who made it never required us */
		luaL_requiref(L, "runbook.core.stream", luaopen_runbook_core_stream, 0);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);						/* stream */
	luaL_setmetatable(L, STREAM_MT);
	return s;
}

void
bind_push_stream(lua_State *L, struct stream *inner)
{
	stream_ahead_own(&push_stream(L)->s, inner);
}

static struct lua_stream *
check_stream(lua_State *L, int idx)
{
	struct lua_stream *s = luaL_checkudata(L, idx, STREAM_MT);

	luaL_argcheck(L, s->s.inner != NULL, idx, "stream is closed");
	return s;
}

struct stream *
bind_check_stream(lua_State *L, int idx)
{
	return &check_stream(L, idx)->s.base;
}

struct stream *
bind_take_stream(lua_State *L, int idx)
{
	struct lua_stream *s = check_stream(L, idx);
	struct stream *inner = s->s.inner;

	luaL_argcheck(L, bytes_length(&s->s.ahead) == 0, idx, "stream was read ahead by line()");
	luaL_argcheck(L, !s->busy[STREAM_READ] && !s->busy[STREAM_WRITE], idx, "stream is in use by another task");
	s->s.inner = NULL;
	return inner;
}

/* The failure of the stream, or of the one inside it.  [-0, +3, m] */
static int
push_failure(lua_State *L, struct lua_stream *s)
{
	const struct stream *failed = stream_ahead_failed(&s->s);

	if (failed->code == NULL)
		return bind_fail(L, "ECLOSED", "the stream was closed");
	return bind_fail(L, failed->code, "%s", failed->message);
}

static void
op_release(struct task_op *op)
{
	struct stream_op *x = (struct stream_op *)op;
	struct lua_stream *s = x->s;

	if (s == NULL)
		return;
	x->s = NULL;
	s->busy[x->direction] = false;
	s->s.base.ops->when(&s->s.base, x->direction, NULL, NULL);
}

static void read_step(void *arg);
static void write_step(void *arg);

static void
op_wait(struct stream_op *x)
{
	struct stream *s = &x->s->s.base;

	x->s->streak = 0;
	s->ops->when(s, x->direction, x->direction == STREAM_READ ? read_step : write_step, x);
}

/* True when what was asked for is there, be it the end. */
static bool
read_over(struct stream_op *x)
{
	struct stream_ahead *s = &x->s->s;
	enum stream_line line = STREAM_LINE_NONE;

	x->length = bytes_length(&s->ahead);
	if (x->line) {
		line = stream_ahead_line(s, &x->length);
		x->split = line == STREAM_LINE_SPLIT;
		return line != STREAM_LINE_NONE || x->at_end;
	}
	if (x->length > x->most)
		x->length = x->most;
	return x->length > 0 || x->at_end;
}

static void
read_step(void *arg)
{
	struct stream_op *x = arg;
	ssize_t n;

	while (!read_over(x)) {
		n = stream_ahead_more(&x->s->s, x->line ? CHUNK : x->most);
		if (n == STREAM_AGAIN) {
			op_wait(x);
			return;
		}
		x->at_end = n == STREAM_END;
		if (n == STREAM_FAILED) {
			x->failed = true;
			break;
		}
	}
	task_wake(&x->op);
}

static int
read_finish(lua_State *L, struct task_op *op)
{
	struct stream_op *x = (struct stream_op *)op;
	struct lua_stream *s = x->s;
	struct stream_ahead *ahead = &s->s;
	bool newline;

	if (x->failed || (ahead->inner == NULL && !x->at_end)) {	/* it may have been closed since it was ready */
		op_release(op);
		return push_failure(L, s);
	}
	if (bytes_length(&ahead->ahead) == 0) {
		op_release(op);
		lua_pushnil(L);
		return 1;
	}
	newline = x->line && !x->split && x->length < bytes_length(&ahead->ahead);
	lua_pushlstring(L, bytes_first(&ahead->ahead), x->length);
	stream_ahead_used(ahead, x->length + newline);
	op_release(op);
	if (x->split)
		lua_pushboolean(L, 1);
	return x->split ? 2 : 1;
}

/* The stream at 1 is kept by the op.  [-0, +1, v] */
static struct stream_op *
push_op(lua_State *L, struct lua_stream *s, enum stream_direction d, const char *class)
{
	struct stream_op *x = lua_newuserdatauv(L, sizeof *x, 2);	/* op */

	luaL_argcheck(L, !s->busy[d], 1, d == STREAM_READ ? "another task reads from it" : "another task writes to it");
	*x = (struct stream_op){ .op = { .cancel = op_release }, .direction = d };
	luaL_setmetatable(L, class);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	s->busy[d] = true;
	x->s = s;
	return x;
}

static int
start(lua_State *L, struct stream_op *x, void (*step)(void *arg))
{
	/* what was read ahead makes no stream ready: who waited for it would wait for what comes after it */
	if (x->s->streak++ < STREAK_MAX || (x->direction == STREAM_READ && read_over(x)))
		step(x);
	else
		op_wait(x);
	return task_await(L, &x->op);
}

static int
start_read(lua_State *L, struct lua_stream *s, bool line, size_t most)
{
	struct stream_op *x = push_op(L, s, STREAM_READ, READ_MT);	/* op */

	x->op.finish = read_finish;
	x->op.what = line ? "a line of a stream" : "bytes of a stream";
	x->line = line;
	x->most = most;
	return start(L, x, read_step);
}

/* stream:read(max) -> bytes | nil at the end | nil, message, code */
static int
l_read(lua_State *L)
{
	struct lua_stream *s = check_stream(L, 1);
	lua_Integer most = luaL_optinteger(L, 2, READ_DEFAULT);

	luaL_argcheck(L, most > 0, 2, "at least one byte");
	return start_read(L, s, false, most < READ_MAX ? (size_t)most : READ_MAX);
}

/* stream:line() -> line[, true when it was split] | nil at the end | nil, message, code */
static int
l_line(lua_State *L)
{
	return start_read(L, check_stream(L, 1), true, 0);
}

static void
write_step(void *arg)
{
	struct stream_op *x = arg;
	struct stream *s = &x->s->s.base;
	ssize_t n;

	while (x->length > 0) {
		n = s->ops->write(s, x->data, x->length);
		if (n == STREAM_AGAIN) {
			op_wait(x);
			return;
		}
		if (n == STREAM_FAILED) {
			x->failed = true;
			break;
		}
		x->data += n;
		x->length -= (size_t)n;
	}
	task_wake(&x->op);
}

static int
write_finish(lua_State *L, struct task_op *op)
{
	struct stream_op *x = (struct stream_op *)op;
	struct lua_stream *s = x->s;

	op_release(op);
	if (x->failed)
		return push_failure(L, s);
	lua_pushboolean(L, 1);
	return 1;
}

/* stream:write(bytes) -> true | nil, message, code */
static int
l_write(lua_State *L)
{
	struct lua_stream *s = check_stream(L, 1);
	size_t length;
	const char *data = bind_bytes(L, 2, &length);
	struct stream_op *x = push_op(L, s, STREAM_WRITE, WRITE_MT);	/* op */

	x->op.finish = write_finish;
	x->op.what = "a stream to take bytes";
	x->data = data;
	x->length = length;
	lua_pushvalue(L, 2);
	lua_setiuservalue(L, -2, 2);
	return start(L, x, write_step);
}

/* stream:half_close() -> true | nil, message, code */
static int
l_half_close(lua_State *L)
{
	struct lua_stream *s = check_stream(L, 1);
	struct stream *base = &s->s.base;

	if (base->ops->half_close == NULL)
		return bind_fail(L, "ENOTSUP", "%s: has no half to close", s->s.inner->ops->kind);
	if (base->ops->half_close(base) != 0)
		return push_failure(L, s);
	lua_pushboolean(L, 1);
	return 1;
}

static int
l_close(lua_State *L)
{
	struct lua_stream *s = luaL_checkudata(L, 1, STREAM_MT);

	s->s.base.ops->close(&s->s.base);
	return 0;
}

static int
l_tostring(lua_State *L)
{
	struct lua_stream *s = luaL_checkudata(L, 1, STREAM_MT);

	lua_pushfstring(L, "stream (%s)", s->s.inner != NULL ? s->s.inner->ops->kind : "closed");
	return 1;
}

static void
pump_release(struct task_op *op)
{
	struct pump_op *x = (struct pump_op *)op;

	if (x->pump == NULL)
		return;
	stream_pump_free(x->pump);
	x->pump = NULL;
	x->from->busy[STREAM_READ] = false;
	x->to->busy[STREAM_WRITE] = false;
}

static int
pump_finish(lua_State *L, struct task_op *op)
{
	struct pump_op *x = (struct pump_op *)op;
	struct stream *failed = stream_pump_failed(x->pump);
	unsigned long long bytes = stream_pump_bytes(x->pump);

	pump_release(op);
	if (failed != NULL)
		return push_failure(L, (struct lua_stream *)failed);
	lua_pushinteger(L, (lua_Integer)bytes);
	return 1;
}

/* stream.pump(from, to) -> bytes | nil, message, code */
static int
l_pump(lua_State *L)
{
	struct lua_stream *from = check_stream(L, 1), *to = check_stream(L, 2);
	struct pump_op *x;

	luaL_argcheck(L, from != to, 2, "a stream cannot be pumped into itself");
	luaL_argcheck(L, !from->busy[STREAM_READ], 1, "another task reads from it");
	luaL_argcheck(L, !to->busy[STREAM_WRITE], 2, "another task writes to it");
	x = lua_newuserdatauv(L, sizeof *x, 2);		/* op */
	*x = (struct pump_op){ .op = { .finish = pump_finish, .cancel = pump_release, .what = "a stream to end" },
		.from = from, .to = to };
	luaL_setmetatable(L, PUMP_MT);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	lua_pushvalue(L, 2);
	lua_setiuservalue(L, -2, 2);
	x->pump = stream_pump_start(host_loop(host_of(L)), &from->s.base, &to->s.base, bind_wake, &x->op);
	if (x->pump == NULL)
		return luaL_error(L, "out of memory");
	from->busy[STREAM_READ] = to->busy[STREAM_WRITE] = true;
	return task_await(L, &x->op);
}

/* stream.pair() -> two ends, each giving what is written to the other */
static int
l_pair(lua_State *L)
{
	uv_loop_t *loop = host_loop(host_of(L));
	struct lua_stream *ends[2] = { push_stream(L), push_stream(L) };	/* a b */
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
		return luaL_error(L, "no descriptor left for a pair of streams");
	for (int i = 0; i < 2; i++) {
		struct stream *inner = stream_of_descriptor(loop, fds[i], "pair");

		if (inner != NULL)
			stream_ahead_own(&ends[i]->s, inner);
		else
			close(fds[i]);
	}
	if (ends[0]->s.inner == NULL || ends[1]->s.inner == NULL)
		return luaL_error(L, "out of memory");
	return 2;
}

static const luaL_Reg functions[] = {
	{ "pair", l_pair },
	{ "pump", l_pump },
	{ NULL, NULL }
};

static const luaL_Reg stream_methods[] = {
	{ "close",      l_close },
	{ "half_close", l_half_close },
	{ "line",       l_line },
	{ "read",       l_read },
	{ "write",      l_write },
	{ NULL, NULL }
};

static const luaL_Reg stream_meta[] = {
	{ "__close",    l_close },
	{ "__gc",       l_close },
	{ "__tostring", l_tostring },
	{ NULL, NULL }
};

int
luaopen_runbook_core_stream(lua_State *L)
{
	bind_class(L, STREAM_MT, stream_methods, stream_meta);
	bind_op_class(L, READ_MT);
	bind_op_class(L, WRITE_MT);
	bind_op_class(L, PUMP_MT);
	luaL_newlib(L, functions);
	return 1;
}
