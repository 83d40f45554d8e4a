/*
 * lua/sftp.c - the "runbook.core.sftp" module.
 *
 * Marshalling only: the protocol is in ../sftp*.c.
 */

#include <sys/stat.h>

#include "../sftp.h"
#include "bind.h"

#define CLIENT_MT "runbook.sftp.client"
#define OP_MT     "runbook.sftp.op"
#define OVER_MT   "runbook.sftp.over"

struct client_op {
	struct task_op op;
	struct sftp_op *work;		/* NULL once released */
	enum sftp_verb verb;
};

struct over_op {
	struct task_op op;
	struct sftp *c;			/* NULL once released or handed on */
};

static struct sftp *
check_client(lua_State *L)
{
	struct sftp **c = luaL_checkudata(L, 1, CLIENT_MT);

	luaL_argcheck(L, *c != NULL, 1, "client is closed");
	return *c;
}

static void
op_release(struct task_op *op)
{
	struct client_op *x = (struct client_op *)op;

	sftp_op_free(x->work);
	x->work = NULL;
}

static void
set_integer(lua_State *L, const char *key, lua_Integer n)
{
	lua_pushinteger(L, n);
	lua_setfield(L, -2, key);
}

static const char *
type_name(uint32_t mode)
{
	if (S_ISREG(mode))
		return "file";
	if (S_ISDIR(mode))
		return "directory";
	return S_ISLNK(mode) ? "link" : "special";
}

/* [-0, +1, m] */
static void
push_attributes(lua_State *L, const struct sftp_attributes *a)
{
	lua_createtable(L, 0, 8);			/* attributes */
	if (a->valid & SFTP_SIZE)
		set_integer(L, "size", (lua_Integer)a->size);
	if (a->valid & SFTP_OWNER) {
		set_integer(L, "uid", a->uid);
		set_integer(L, "gid", a->gid);
	}
	if (a->valid & SFTP_MODE) {
		set_integer(L, "mode", a->mode & 07777);
		lua_pushstring(L, type_name(a->mode));
		lua_setfield(L, -2, "type");
	}
	if (a->valid & SFTP_TIMES) {
		set_integer(L, "atime", a->atime);
		set_integer(L, "mtime", a->mtime);
	}
}

static bool
is_dots(const char *name, size_t length)
{
	return (length == 1 && name[0] == '.') || (length == 2 && name[0] == '.' && name[1] == '.');
}

/* [-0, +1, m] */
static void
push_list(lua_State *L, const struct sftp_op *work)
{
	struct sftp_attributes a;
	lua_Integer n = 0;
	const char *name;
	size_t at = 0, length;

	lua_newtable(L);				/* list */
	while ((name = sftp_op_entry(work, &at, &length, &a)) != NULL) {
		if (is_dots(name, length))
			continue;
		push_attributes(L, &a);			/* list entry */
		lua_pushlstring(L, name, length);
		lua_setfield(L, -2, "name");
		lua_rawseti(L, -2, ++n);
	}
}

static int
op_finish(lua_State *L, struct task_op *op)
{
	struct client_op *x = (struct client_op *)op;
	const char *code = sftp_op_code(x->work), *text;
	size_t length;

	if (code != NULL) {
		bind_fail(L, code, "%s: %s", lua_tostring(L, 2), sftp_op_message(x->work));
	} else if (x->verb == SFTP_DO_LIST) {
		push_list(L, x->work);
	} else if (x->verb == SFTP_DO_STAT || x->verb == SFTP_DO_LSTAT) {
		push_attributes(L, sftp_op_attributes(x->work));
	} else if (x->verb == SFTP_DO_READLINK || x->verb == SFTP_DO_REALPATH) {
		text = sftp_op_text(x->work, &length);
		lua_pushlstring(L, text, length);
	} else {
		lua_pushboolean(L, 1);
	}
	op_release(op);
	return code != NULL ? 3 : 1;
}

/* The client at 1 and the value at idx (a content) are kept by the op.  [-0, +1, m] */
static struct client_op *
push_op(lua_State *L, enum sftp_verb verb, int idx)
{
	struct client_op *x = lua_newuserdatauv(L, sizeof *x, 2);	/* op */

	*x = (struct client_op){ .op = { .finish = op_finish, .cancel = op_release, .what = "an sftp server" },
		.verb = verb };
	luaL_setmetatable(L, OP_MT);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	if (idx != 0) {
		lua_pushvalue(L, idx);
		lua_setiuservalue(L, -2, 2);
	}
	return x;
}

static int
await_op(lua_State *L, struct client_op *x)
{
	if (x->work == NULL)
		return luaL_error(L, "out of memory");
	return task_await(L, &x->op);
}

static int
start(lua_State *L, enum sftp_verb verb, const char *other, const struct sftp_attributes *a, enum permit needed)
{
	struct sftp *c = check_client(L);
	const char *path = bind_path(L, 2);
	struct client_op *x;

	bind_permit(L, needed);
	x = push_op(L, verb, 0);			/* op */
	x->work = sftp_op_start(c, verb, path, other, a, bind_wake, &x->op);
	return await_op(L, x);
}

static int
l_list(lua_State *L)
{
	return start(L, SFTP_DO_LIST, NULL, NULL, PERMIT_READ);
}

static int
l_lstat(lua_State *L)
{
	return start(L, SFTP_DO_LSTAT, NULL, NULL, PERMIT_READ);
}

static int
l_mkdir(lua_State *L)
{
	struct sftp_attributes a = { .valid = 0 };

	if (!lua_isnoneornil(L, 3)) {
		a.valid = SFTP_MODE;
		a.mode = (uint32_t)luaL_checkinteger(L, 3) & 07777;
	}
	return start(L, SFTP_DO_MKDIR, NULL, &a, PERMIT_CHANGE);
}

static int
l_readlink(lua_State *L)
{
	return start(L, SFTP_DO_READLINK, NULL, NULL, PERMIT_READ);
}

static int
l_realpath(lua_State *L)
{
	return start(L, SFTP_DO_REALPATH, NULL, NULL, PERMIT_READ);
}

static int
l_remove(lua_State *L)
{
	return start(L, SFTP_DO_REMOVE, NULL, NULL, PERMIT_CHANGE);
}

static int
l_rename(lua_State *L)
{
	return start(L, SFTP_DO_RENAME, bind_path(L, 3), NULL, PERMIT_CHANGE);
}

static int
l_rmdir(lua_State *L)
{
	return start(L, SFTP_DO_RMDIR, NULL, NULL, PERMIT_CHANGE);
}

static int
l_stat(lua_State *L)
{
	return start(L, SFTP_DO_STAT, NULL, NULL, PERMIT_READ);
}

/* client:symlink(path, target) */
static int
l_symlink(lua_State *L)
{
	return start(L, SFTP_DO_SYMLINK, bind_path(L, 3), NULL, PERMIT_CHANGE);
}

/* Two fields of the table at idx that the protocol sets together; both or none. */
static bool
pair(lua_State *L, int idx, const char *one, const char *two, uint32_t *first, uint32_t *second)
{
	int one_is, two_is;
	bool given = lua_getfield(L, idx, one) != LUA_TNIL;

	if ((lua_getfield(L, idx, two) != LUA_TNIL) != given)
		luaL_error(L, "%s and %s go together", one, two);
	*first = (uint32_t)lua_tointegerx(L, -2, &one_is);
	*second = (uint32_t)lua_tointegerx(L, -1, &two_is);
	if (given && (!one_is || !two_is))
		luaL_error(L, "%s and %s: integers expected", one, two);
	lua_pop(L, 2);
	return given;
}

/* { mode =, uid =, gid =, atime =, mtime = } at idx, or nothing. */
static struct sftp_attributes
opt_attributes(lua_State *L, int idx)
{
	struct sftp_attributes a = { .valid = 0 };

	if (lua_isnoneornil(L, idx))
		return a;
	luaL_checktype(L, idx, LUA_TTABLE);
	if (lua_getfield(L, idx, "mode") != LUA_TNIL) {
		a.valid |= SFTP_MODE;
		a.mode = (uint32_t)luaL_checkinteger(L, -1) & 07777;
	}
	lua_pop(L, 1);
	if (pair(L, idx, "uid", "gid", &a.uid, &a.gid))
		a.valid |= SFTP_OWNER;
	if (pair(L, idx, "atime", "mtime", &a.atime, &a.mtime))
		a.valid |= SFTP_TIMES;
	return a;
}

/* client:setstat(path, attributes) */
static int
l_setstat(lua_State *L)
{
	struct sftp_attributes a = opt_attributes(L, 3);

	luaL_argcheck(L, a.valid != 0, 3, "nothing to set");
	return start(L, SFTP_DO_SETSTAT, NULL, &a, PERMIT_CHANGE);
}

/* client:write(path, content[, attributes]) */
static int
l_write(lua_State *L)
{
	struct sftp *c = check_client(L);
	const char *path = bind_path(L, 2), *content = NULL;
	struct sftp_attributes a = opt_attributes(L, 4);
	struct stream *from = NULL;
	struct client_op *x;
	size_t length = 0;

	if (luaL_testudata(L, 3, "runbook.stream") != NULL)
		from = bind_check_stream(L, 3);
	else
		content = bind_bytes(L, 3, &length);
	bind_permit(L, PERMIT_CHANGE);
	x = push_op(L, SFTP_DO_SETSTAT, 3);		/* op */
	x->work = sftp_write_start(c, path, content, length, from, &a, bind_wake, &x->op);
	return await_op(L, x);
}

/* client:read(path) -> stream */
static int
l_read(lua_State *L)
{
	struct sftp *c = check_client(L);
	const char *path = bind_path(L, 2);
	struct stream *s;

	bind_permit(L, PERMIT_READ);
	if ((s = sftp_read(c, path)) == NULL)
		return luaL_error(L, "out of memory");
	bind_push_stream(L, s);
	return 1;
}

static int
l_close(lua_State *L)
{
	struct sftp **c = luaL_checkudata(L, 1, CLIENT_MT);

	sftp_free(*c);
	*c = NULL;
	return 0;
}

static void
over_release(struct task_op *op)
{
	struct over_op *x = (struct over_op *)op;

	sftp_free(x->c);
	x->c = NULL;
}

static int
over_finish(lua_State *L, struct task_op *op)
{
	struct over_op *x = (struct over_op *)op;
	struct sftp **c;

	if (sftp_code(x->c) != NULL) {
		bind_fail(L, sftp_code(x->c), "%s", sftp_message(x->c));
		over_release(op);
		return 3;
	}
	c = lua_newuserdatauv(L, sizeof *c, 0);		/* client */
	*c = x->c;
	x->c = NULL;
	luaL_setmetatable(L, CLIENT_MT);
	return 1;
}

/* sftp.over(stream) -> client | nil, message, code */
static int
l_over(lua_State *L)
{
	struct over_op *x;
	struct stream *s;

	bind_check_stream(L, 1);
	bind_permit(L, PERMIT_READ);
	x = lua_newuserdatauv(L, sizeof *x, 0);		/* op */
	*x = (struct over_op){ .op = { .finish = over_finish, .cancel = over_release, .what = "an sftp server to greet" } };
	luaL_setmetatable(L, OVER_MT);
	s = bind_take_stream(L, 1);
	if ((x->c = sftp_new(host_loop(host_of(L)), s, bind_wake, &x->op)) == NULL) {
		s->ops->close(s);
		return luaL_error(L, "out of memory");
	}
	return task_await(L, &x->op);
}

static const luaL_Reg functions[] = {
	{ "over", l_over },
	{ NULL, NULL }
};

static const luaL_Reg client_methods[] = {
	{ "close",    l_close },
	{ "list",     l_list },
	{ "lstat",    l_lstat },
	{ "mkdir",    l_mkdir },
	{ "read",     l_read },
	{ "readlink", l_readlink },
	{ "realpath", l_realpath },
	{ "remove",   l_remove },
	{ "rename",   l_rename },
	{ "rmdir",    l_rmdir },
	{ "setstat",  l_setstat },
	{ "stat",     l_stat },
	{ "symlink",  l_symlink },
	{ "write",    l_write },
	{ NULL, NULL }
};

static const luaL_Reg client_meta[] = {
	{ "__close", l_close },
	{ "__gc",    l_close },
	{ NULL, NULL }
};

int luaopen_runbook_core_sftp(lua_State *L);

int
luaopen_runbook_core_sftp(lua_State *L)
{
	bind_class(L, CLIENT_MT, client_methods, client_meta);
	bind_op_class(L, OP_MT);
	bind_op_class(L, OVER_MT);
	luaL_newlib(L, functions);
	return 1;
}
