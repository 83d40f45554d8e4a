/*
 * lua/terminal.c - the "runbook.core.terminal" module.
 *
 * Marshalling only: the terminal is in ../terminal.c, policy in lib/runbook/terminal.lua.
 */
#include "../terminal.h"

#include <string.h>

#include "../host.h"
#include "../terminal_edit.h"
#include "bind.h"
#include "secret.h"

#define QUESTION_MT "runbook.terminal.question"
#define EDITOR_MT   "runbook.terminal.editor"
#define EDIT_MT     "runbook.terminal.edit"

struct question_op {
	struct task_op op;
	struct terminal_question *question;	/* NULL once released */
};

static const char *const streams[] = { "stdin", "stdout", "stderr", NULL };

static void
question_release(struct task_op *op)
{
	struct question_op *x = (struct question_op *)op;

	terminal_question_free(x->question);
	x->question = NULL;
}

/* The name of the secret, if it is to be one, is the op's user value. */
static int
question_finish(lua_State *L, struct task_op *op)
{
	struct question_op *x = (struct question_op *)op;
	const struct terminal_answer *a = terminal_answer(x->question);
	int n = 1;

	if (a->code != NULL)
		n = bind_fail(L, a->code, "%s", a->message);
	else if (a->line == NULL)
		lua_pushnil(L);
	else if (lua_getiuservalue(L, 4, 1) == LUA_TSTRING)
		secret_push(L, lua_tostring(L, -1), a->line, a->length);
	else
		lua_pushlstring(L, a->line, a->length);
	question_release(op);
	return n;
}

/* ask(prompt, echo, secret_name?) -> line | nil at the end of input | nil, message, code */
static int
l_ask(lua_State *L)
{
	size_t length;
	const char *prompt = luaL_checklstring(L, 1, &length);
	bool echo = lua_toboolean(L, 2);
	struct question_op *x;

	luaL_optstring(L, 3, NULL);
	lua_settop(L, 3);
	x = lua_newuserdatauv(L, sizeof *x, 1);		/* prompt echo name op */
	*x = (struct question_op){
		.op = { .finish = question_finish, .cancel = question_release, .what = "an answer at the terminal" }
	};
	luaL_setmetatable(L, QUESTION_MT);
	lua_pushvalue(L, 3);
	lua_setiuservalue(L, -2, 1);
	x->question = terminal_ask(host_loop(host_of(L)), prompt, length, echo, bind_wake, x);
	if (x->question == NULL)
		return bind_fail(L, "ENOMEM", "out of memory");
	x->op.done = terminal_answer(x->question)->code != NULL;
	return task_await(L, &x->op);
}

/* available() -> whether somebody can be asked */
static int
l_available(lua_State *L)
{
	lua_pushboolean(L, terminal_available());
	return 1;
}

/* is(stream) -> whether it is a terminal */
static int
l_is(lua_State *L)
{
	lua_pushboolean(L, terminal_is(luaL_checkoption(L, 1, NULL, streams)));
	return 1;
}

/* restore() - the terminal as it was before the open question */
static int
l_restore(lua_State *L)
{
	(void)L;
	terminal_restore();
	return 0;
}

/* size(stream) -> columns, rows | nil */
static int
l_size(lua_State *L)
{
	int columns, rows;

	if (!terminal_size(luaL_checkoption(L, 1, NULL, streams), &columns, &rows)) {
		lua_pushnil(L);
		return 1;
	}
	lua_pushinteger(L, columns);
	lua_pushinteger(L, rows);
	return 2;
}

/* ---- lines that can be edited ---- */

struct edit_op;

struct editor {
	struct terminal_editor *e;	/* NULL once closed */
	struct edit_op *reading;	/* of the task that waits for a line */
};

struct edit_op {
	struct task_op op;
	struct editor *editor;		/* kept alive by the user value; NULL once released */
};

static struct editor *
check_editor(lua_State *L)
{
	struct editor *e = luaL_checkudata(L, 1, EDITOR_MT);

	luaL_argcheck(L, e->e != NULL, 1, "editor is closed");
	return e;
}

/* editor() -> editor | nil, message, code */
static int
l_editor(lua_State *L)
{
	const char *code, *message;
	struct editor *e = lua_newuserdatauv(L, sizeof *e, 0);

	*e = (struct editor){ NULL, NULL };
	luaL_setmetatable(L, EDITOR_MT);
	if ((e->e = terminal_editor_new(host_loop(host_of(L)), &code, &message)) == NULL)
		return bind_fail(L, code, "%s", message);
	return 1;
}

/* editor:close() - who reads gets ECLOSED */
static int
l_editor_close(lua_State *L)
{
	struct editor *e = luaL_checkudata(L, 1, EDITOR_MT);
	struct edit_op *x = e->reading;

	terminal_editor_free(e->e);
	*e = (struct editor){ NULL, NULL };
	if (x != NULL)
		task_wake(&x->op);
	return 0;
}

static void
edit_release(struct task_op *op)
{
	struct edit_op *x = (struct edit_op *)op;
	struct editor *e = x->editor;

	x->editor = NULL;
	if (e == NULL || e->reading != x)
		return;
	e->reading = NULL;
	terminal_editor_cancel(e->e);
}

static void
edit_done(void *arg)
{
	struct edit_op *x = arg;

	x->editor->reading = NULL;
	task_wake(&x->op);
}

static int
edit_finish(lua_State *L, struct task_op *op)
{
	struct editor *e = ((struct edit_op *)op)->editor;
	const char *line;
	size_t length;

	if (e->e == NULL)
		return bind_fail(L, "ECLOSED", "the editor was closed");
	if ((line = terminal_editor_line(e->e, &length)) == NULL)
		lua_pushnil(L);
	else
		lua_pushlstring(L, line, length);
	return 1;
}

/* editor:read(prompt) -> line | nil at the end of input | nil, message, code */
static int
l_editor_read(lua_State *L)
{
	struct editor *e = check_editor(L);
	const char *prompt = luaL_checkstring(L, 2), *code;
	struct edit_op *x = lua_newuserdatauv(L, sizeof *x, 1);

	*x = (struct edit_op){ .op = { .finish = edit_finish, .cancel = edit_release, .what = "a line at the terminal" } };
	luaL_setmetatable(L, EDIT_MT);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	if ((code = terminal_editor_read(e->e, prompt, edit_done, x)) != NULL)
		return bind_fail(L, code, strcmp(code, "EBUSY") == 0 ? "another question is open on this terminal"
		                                                     : "there is no terminal to ask at");
	x->editor = e;
	e->reading = x;
	return task_await(L, &x->op);
}

/* editor:remember(line) - the arrow keys bring it back */
static int
l_editor_remember(lua_State *L)
{
	terminal_editor_remember(check_editor(L)->e, luaL_checkstring(L, 2));
	return 0;
}

static const luaL_Reg functions[] = {
	{ "ask", l_ask },
	{ "available", l_available },
	{ "editor", l_editor },
	{ "is", l_is },
	{ "restore", l_restore },
	{ "size", l_size },
	{ NULL, NULL }
};

static const luaL_Reg editor_methods[] = {
	{ "close", l_editor_close },
	{ "read", l_editor_read },
	{ "remember", l_editor_remember },
	{ NULL, NULL }
};

static const luaL_Reg editor_meta[] = {
	{ "__close", l_editor_close },
	{ "__gc", l_editor_close },
	{ NULL, NULL }
};

int luaopen_runbook_core_terminal(lua_State *L);

int
luaopen_runbook_core_terminal(lua_State *L)
{
	bind_op_class(L, QUESTION_MT);
	bind_class(L, EDITOR_MT, editor_methods, editor_meta);
	bind_op_class(L, EDIT_MT);
	luaL_newlib(L, functions);
	return 1;
}
