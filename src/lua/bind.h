/* bind.h - what every binding shares: classes, failures, the gate's question. */
#ifndef RUNBOOK_BIND_H
#define RUNBOOK_BIND_H

#include <lua.h>
#include <lauxlib.h>

#include "../listen.h"
#include "../stream.h"
#include "../task.h"

/* A metatable `name` with `methods` (NULL: none) in a separate __index.  [-0, +0, m] */
void bind_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta);

/* The metatable of userdata that begin with a task_op: one that is collected is cancelled.  [-0, +0, m] */
void bind_op_class(lua_State *L, const char *name);

/* What engines call when the work of an op is done. */
void bind_wake(void *op);

/* The world failed, not the caller: pushes nil, message, code and returns 3.  [-0, +3, m] */
int bind_fail(lua_State *L, const char *code, const char *format, ...);

/* The same from a negative libuv or errno value: code is its name ("ENOENT").  [-0, +3, m] */
int bind_fail_errno(lua_State *L, int error, const char *what);

/*
 * lua_pcallk with the arguments above the function, for a call that restores something and hands the
 * error on: a mistake in Lua becomes an error value with its traceback while the stack still stands.
 * The message handler stays below the results, at the function's index.
 */
int bind_pcallk(lua_State *L, int nargs, lua_KContext context, lua_KFunction k);

/* Raises an error of kind `ungated` unless the running task's permit allows `needed`.  [-0, +0, v] */
void bind_permit(lua_State *L, enum permit needed);

/*
 * Bytes of a string or of a secret value at idx (secrets are unwrapped here and nowhere else).
 * Valid while the value stays on the stack or is anchored.  Raises on other types.  [-0, +0, v]
 */
const char *bind_bytes(lua_State *L, int idx, size_t *length);

/*
 * The field `name` of the table at idx as text without zero bytes; NULL when it is missing.  What is read stays on the stack,
 * which keeps it alive until whoever needs it has a copy.  [-0, +1, v]
 */
const char *bind_text(lua_State *L, int idx, const char *name, size_t *length);

/* The string at idx as the name of a file: not empty, and no zero byte that would cut it.  [-0, +0, v] */
const char *bind_path(lua_State *L, int idx);

/* Wraps a stream as userdata "runbook.stream", which owns it.  [-0, +1, m] (src/lua/stream.c) */
void bind_push_stream(lua_State *L, struct stream *s);
/*
 * The stream at idx; raises "stream is closed".  It is part of the userdata: anchor that as long as
 * C uses the stream.  [-0, +0, v]
 */
struct stream *bind_check_stream(lua_State *L, int idx);
/* Takes the stream out of its userdata, which is closed for Lua from here on.  [-0, +0, v] */
struct stream *bind_take_stream(lua_State *L, int idx);

/*
 * A userdata "runbook.listen.listener" with nothing in it; what is put there is its own.  User value 1
 * is the caller's, to keep what is listened through.  [-0, +1, m] (src/lua/listen.c)
 */
struct listener **bind_push_listener(lua_State *L);

#endif
