/*
 * lua/stream.c - the "runbook.core.stream" module, and streams as values of Lua.
 *
 * C never calls Lua with bytes: Lua asks for the next, and not asking is the back-pressure.  A read
 * always goes through the loop once, so that a stream that never runs dry stops nobody else.
 */
#include <stdlib.h>
#include <string.h>

#include "../host.h"
#include "bind.h"

#define STREAM_MT "runbook.stream"
#define READ_MT   "runbook.stream.read"
#define WRITE_MT  "runbook.stream.write"
#define PUMP_MT   "runbook.stream.pump"

#define LINE_LIMIT ((size_t)64 << 10)	/* longer lines are split and marked */
#define BUFFER     ((size_t)256 << 10)

struct read_op;
struct write_op;
struct pump_op;

struct lua_stream {
	struct stream *stream;		/* NULL once closed */
	char *buffer;			/* what was read and not yet given to Lua */
	size_t start, end;
	bool at_end;
	struct read_op *reader;		/* of the tasks that wait for us, at most one each */
	struct write_op *writer;
	struct pump_op *pump;
};

struct read_op {
	struct task_op op;
	struct lua_stream *s;		/* kept alive by the user value; NULL once released */
	bool line;
	size_t max;
	const char *code;
};

struct write_op {
	struct task_op op;
	struct lua_stream *s;
	const char *bytes;		/* anchored by a user value */
	size_t length;
	const char *code;
};

struct pump_op {
	struct task_op op;
	struct lua_stream *from, *to;
	struct stream_pump *pump;
	uv_loop_t *loop;
	unsigned long long before;	/* bytes that lay in the buffer of `from` */
	const char *code;
	char message[160];
};

static struct lua_stream *
check_stream(lua_State *L, int idx)
{
	struct lua_stream *s = luaL_checkudata(L, idx, STREAM_MT);

	luaL_argcheck(L, s->stream != NULL, idx, "stream is closed");
	return s;
}

struct stream *
bind_check_stream(lua_State *L, int idx)
{
	return check_stream(L, idx)->stream;
}

void
bind_push_stream(lua_State *L, struct stream *stream)
{
	struct lua_stream *s = lua_newuserdatauv(L, sizeof *s, 0);	/* s */

	*s = (struct lua_stream){ .stream = stream };
	luaL_setmetatable(L, STREAM_MT);
}

static int
fail_stream(lua_State *L, const struct lua_stream *s, const char *code)
{
	if (s->stream == NULL)
		return bind_fail(L, "ECLOSED", "the stream was closed");
	return bind_fail(L, code, "%s", s->stream->message);
}

static void
read_release(struct task_op *op)
{
	struct read_op *r = (struct read_op *)op;

	if (r->s == NULL)
		return;
	if (r->s->stream != NULL)
		r->s->stream->ops->when(r->s->stream, STREAM_READ, NULL, NULL);
	r->s->reader = NULL;
	r->s = NULL;
}

/* How many buffered bytes answer the request; 0: more are needed. */
static size_t
readable(const struct read_op *r)
{
	const struct lua_stream *s = r->s;
	size_t have = s->end - s->start;
	const char *newline;

	if (have == 0)
		return 0;
	if (!r->line)
		return have < r->max ? have : r->max;
	newline = memchr(s->buffer + s->start, '\n', have < LINE_LIMIT ? have : LINE_LIMIT);
	if (newline != NULL)
		return (size_t)(newline - (s->buffer + s->start)) + 1;
	if (have >= LINE_LIMIT)
		return LINE_LIMIT;
	return s->at_end ? have : 0;
}

static int
read_finish(lua_State *L, struct task_op *op)
{
	struct read_op *r = (struct read_op *)op;
	struct lua_stream *s = r->s;
	const char *bytes;
	size_t n;
	bool split;

	n = r->code == NULL ? readable(r) : 0;
	read_release(op);
	if (r->code != NULL)
		return fail_stream(L, s, r->code);
	if (n == 0) {
		lua_pushnil(L);
		return 1;
	}
	bytes = s->buffer + s->start;
	split = r->line && bytes[n - 1] != '\n' && n == LINE_LIMIT;
	lua_pushlstring(L, bytes, r->line && bytes[n - 1] == '\n' ? n - 1 : n);
	s->start += n;
	if (!split)
		return 1;
	lua_pushboolean(L, 1);
	return 2;
}

/* One read: more only when the loop calls again. */
static void
read_ready(void *arg)
{
	struct read_op *r = arg;
	struct lua_stream *s = r->s;
	ssize_t n;

	if (s->start > 0) {
		memmove(s->buffer, s->buffer + s->start, s->end - s->start);
		s->end -= s->start;
		s->start = 0;
	}
	n = s->stream->ops->read(s->stream, s->buffer + s->end, BUFFER - s->end);
	if (n == STREAM_FAILED)
		r->code = s->stream->code;
	else if (n == STREAM_END)
		s->at_end = true;
	else if (n > 0)
		s->end += (size_t)n;
	if (r->code != NULL || s->at_end || readable(r) > 0)
		task_wake(&r->op);
	else
		s->stream->ops->when(s->stream, STREAM_READ, read_ready, r);
}

static int
start_read(lua_State *L, bool line, size_t max)
{
	struct lua_stream *s = check_stream(L, 1);
	struct read_op *r;

	luaL_argcheck(L, s->reader == NULL && s->pump == NULL, 1, "another task reads from it");
	if (s->buffer == NULL && (s->buffer = malloc(BUFFER)) == NULL)
		return luaL_error(L, "out of memory");
	r = lua_newuserdatauv(L, sizeof *r, 1);		/* s … op */
	*r = (struct read_op){ .op = { .finish = read_finish, .cancel = read_release, .what = "bytes to read" },
	                       .line = line, .max = max };
	luaL_setmetatable(L, READ_MT);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	r->s = s;
	s->reader = r;
	r->op.done = s->at_end || readable(r) > 0;
	if (!r->op.done)
		s->stream->ops->when(s->stream, STREAM_READ, read_ready, r);
	return task_await(L, &r->op);
}

static int
l_line(lua_State *L)
{
	return start_read(L, true, 0);
}

static int
l_read(lua_State *L)
{
	lua_Integer max = luaL_optinteger(L, 2, (lua_Integer)BUFFER);

	luaL_argcheck(L, max > 0, 2, "positive number expected");
	return start_read(L, false, (size_t)max);
}

static void
write_release(struct task_op *op)
{
	struct write_op *w = (struct write_op *)op;

	if (w->s == NULL)
		return;
	if (w->s->stream != NULL)
		w->s->stream->ops->when(w->s->stream, STREAM_WRITE, NULL, NULL);
	w->s->writer = NULL;
	w->s = NULL;
}

static int
write_finish(lua_State *L, struct task_op *op)
{
	struct write_op *w = (struct write_op *)op;
	struct lua_stream *s = w->s;

	write_release(op);
	if (w->code != NULL)
		return fail_stream(L, s, w->code);
	lua_pushboolean(L, 1);
	return 1;
}

/* Writes what can be written now; true when that was all, or when it failed. */
static bool
write_some(struct write_op *w)
{
	struct stream *s = w->s->stream;

	while (w->length > 0) {
		ssize_t n = s->ops->write(s, w->bytes, w->length);

		if (n == STREAM_AGAIN)
			return false;
		if (n < 0) {
			w->code = s->code;
			return true;
		}
		w->bytes += n;
		w->length -= (size_t)n;
	}
	return true;
}

static void
write_ready(void *arg)
{
	struct write_op *w = arg;

	if (write_some(w))
		task_wake(&w->op);
	else
		w->s->stream->ops->when(w->s->stream, STREAM_WRITE, write_ready, w);
}

static int
l_write(lua_State *L)
{
	struct lua_stream *s = check_stream(L, 1);
	size_t length;
	const char *bytes = bind_bytes(L, 2, &length);
	struct write_op *w;

	luaL_argcheck(L, s->writer == NULL && s->pump == NULL, 1, "another task writes to it");
	w = lua_newuserdatauv(L, sizeof *w, 2);		/* s bytes op */
	*w = (struct write_op){ .op = { .finish = write_finish, .cancel = write_release, .what = "room to write" },
	                        .bytes = bytes, .length = length };
	luaL_setmetatable(L, WRITE_MT);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	lua_pushvalue(L, 2);
	lua_setiuservalue(L, -2, 2);
	w->s = s;
	s->writer = w;
	w->op.done = write_some(w);
	if (!w->op.done)
		s->stream->ops->when(s->stream, STREAM_WRITE, write_ready, w);
	return task_await(L, &w->op);
}

static int
l_half_close(lua_State *L)
{
	struct stream *s = check_stream(L, 1)->stream;

	if (s->ops->half_close == NULL)
		return bind_fail(L, "ENOTSUP", "a %s cannot be closed on one side", s->ops->kind);
	if (s->ops->half_close(s) != 0)
		return bind_fail(L, s->code, "%s", s->message);
	lua_pushboolean(L, 1);
	return 1;
}

static void
pump_release(struct task_op *op)
{
	struct pump_op *p = (struct pump_op *)op;

	stream_pump_free(p->pump);
	p->pump = NULL;
	if (p->from == NULL)
		return;
	if (p->to->stream != NULL && p->before > 0)
		p->to->stream->ops->when(p->to->stream, STREAM_WRITE, NULL, NULL);
	p->from->pump = p->to->pump = NULL;
	p->from = p->to = NULL;
}

static int
pump_finish(lua_State *L, struct task_op *op)
{
	struct pump_op *p = (struct pump_op *)op;
	unsigned long long bytes = p->before;

	if (p->pump != NULL)
		bytes += stream_pump_bytes(p->pump);
	pump_release(op);
	if (p->code != NULL)
		return bind_fail(L, p->code, "%s", p->message);
	lua_pushinteger(L, (lua_Integer)bytes);
	return 1;
}

static void
pump_fail(struct pump_op *p, const struct stream *s)
{
	p->code = s->code;
	memcpy(p->message, s->message, sizeof p->message);
}

static void
pump_ended(void *arg)
{
	struct pump_op *p = arg;
	const struct stream *failed = stream_pump_failed(p->pump);

	if (failed != NULL)
		pump_fail(p, failed);
	task_wake(&p->op);
}

/* First what Lua's reading left in the buffer, then the rest without Lua. */
static void
pump_ready(void *arg)
{
	struct pump_op *p = arg;
	struct lua_stream *from = p->from;
	struct stream *to = p->to->stream;

	while (from->start < from->end) {
		ssize_t n = to->ops->write(to, from->buffer + from->start, from->end - from->start);

		if (n == STREAM_AGAIN) {
			to->ops->when(to, STREAM_WRITE, pump_ready, p);
			return;
		}
		if (n < 0) {
			pump_fail(p, to);
			task_wake(&p->op);
			return;
		}
		from->start += (size_t)n;
		p->before += (unsigned long long)n;
	}
	p->pump = stream_pump_start(p->loop, from->stream, to, pump_ended, p);
	if (p->pump == NULL) {
		p->code = "ENOMEM";
		strcpy(p->message, "out of memory");
		task_wake(&p->op);
	}
}

/* stream.pump(from, to) -> bytes | nil, message, code */
static int
l_pump(lua_State *L)
{
	struct lua_stream *from = check_stream(L, 1), *to = check_stream(L, 2);
	struct pump_op *p;

	luaL_argcheck(L, from->reader == NULL && from->pump == NULL, 1, "another task reads from it");
	luaL_argcheck(L, to->writer == NULL && to->pump == NULL, 2, "another task writes to it");
	p = lua_newuserdatauv(L, sizeof *p, 2);		/* from to op */
	*p = (struct pump_op){ .op = { .finish = pump_finish, .cancel = pump_release, .what = "bytes to copy" } };
	luaL_setmetatable(L, PUMP_MT);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	lua_pushvalue(L, 2);
	lua_setiuservalue(L, -2, 2);
	p->loop = host_loop(host_of(L));
	p->from = from;
	p->to = to;
	from->pump = to->pump = p;
	to->stream->ops->when(to->stream, STREAM_WRITE, pump_ready, p);
	return task_await(L, &p->op);
}

/* Whoever waits for it learns that it was closed. */
static int
l_close(lua_State *L)
{
	struct lua_stream *s = luaL_checkudata(L, 1, STREAM_MT);
	struct pump_op *p = s->pump;

	if (s->stream == NULL)
		return 0;
	if (p != NULL && !p->op.done) {
		p->code = "ECLOSED";
		strcpy(p->message, "the stream was closed");
		task_wake(&p->op);
	}
	if (p != NULL)
		pump_release(&p->op);
	s->stream->ops->close(s->stream);
	s->stream = NULL;
	free(s->buffer);
	s->buffer = NULL;
	s->start = s->end = 0;
	if (s->reader != NULL) {	/* even an answer that lay ready: its bytes are gone */
		s->reader->code = "ECLOSED";
		if (!s->reader->op.done)
			task_wake(&s->reader->op);
	}
	if (s->writer != NULL && !s->writer->op.done) {
		s->writer->code = "ECLOSED";
		task_wake(&s->writer->op);
	}
	return 0;
}

static int
l_read_gc(lua_State *L)
{
	read_release(lua_touserdata(L, 1));
	return 0;
}

static int
l_write_gc(lua_State *L)
{
	write_release(lua_touserdata(L, 1));
	return 0;
}

static int
l_pump_gc(lua_State *L)
{
	pump_release(lua_touserdata(L, 1));
	return 0;
}

static const luaL_Reg stream_methods[] = {
	{ "close",      l_close },
	{ "half_close", l_half_close },
	{ "line",       l_line },
	{ "read",       l_read },
	{ "write",      l_write },
	{ NULL, NULL }
};

static const luaL_Reg stream_meta[] = {
	{ "__close", l_close },
	{ "__gc",    l_close },
	{ NULL, NULL }
};

static const luaL_Reg read_meta[] = {
	{ "__gc", l_read_gc },
	{ NULL, NULL }
};

static const luaL_Reg write_meta[] = {
	{ "__gc", l_write_gc },
	{ NULL, NULL }
};

static const luaL_Reg pump_meta[] = {
	{ "__gc", l_pump_gc },
	{ NULL, NULL }
};

static const luaL_Reg none[] = {
	{ NULL, NULL }
};

static const luaL_Reg functions[] = {
	{ "pump", l_pump },
	{ NULL, NULL }
};

int luaopen_runbook_core_stream(lua_State *L);

int
luaopen_runbook_core_stream(lua_State *L)
{
	bind_class(L, STREAM_MT, stream_methods, stream_meta);
	bind_class(L, READ_MT, none, read_meta);
	bind_class(L, WRITE_MT, none, write_meta);
	bind_class(L, PUMP_MT, none, pump_meta);
	luaL_newlib(L, functions);
	return 1;
}
