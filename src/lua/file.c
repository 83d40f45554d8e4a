/*
 * lua/file.c - the "runbook.core.file" module.
 *
 * Marshalling only: the work is in ../file.c and ../file_stream.c.  Every function waits for a thread
 * of the pool and returns nil, message, code for what the file system says.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "../file.h"
#include "../host.h"
#include "bind.h"

#define REQUEST_MT "runbook.file.request"
#define LOCK_MT    "runbook.file.lock"

#define READ_LIMIT ((lua_Integer)64 << 20)

struct file_op {
	struct task_op op;
	struct file_request *request;	/* NULL once released */
	uv_loop_t *loop;
	int (*push)(lua_State *L, struct file_op *f);
};

struct lock {
	int fd;				/* -1 once closed */
};

static const char *
check_path(lua_State *L, int idx)
{
	size_t length;
	const char *path = luaL_checklstring(L, idx, &length);

	luaL_argcheck(L, length > 0, idx, "empty path");
	luaL_argcheck(L, strlen(path) == length, idx, "path holds a zero byte");
	return path;
}

static void
op_release(struct task_op *op)
{
	struct file_op *f = (struct file_op *)op;

	file_free(f->request);
	f->request = NULL;
}

static int
op_finish(lua_State *L, struct task_op *op)
{
	struct file_op *f = (struct file_op *)op;
	const struct file_answer *a = file_answer(f->request);
	int n;

	if (a->code != NULL)
		return bind_fail(L, a->code, "%s", a->message);
	n = f->push(L, f);
	op_release(op);
	return n;
}

static int
start(lua_State *L, const struct file_command *command, enum permit needed,
      int (*push)(lua_State *L, struct file_op *f))
{
	struct file_op *f;

	bind_permit(L, needed);
	f = lua_newuserdatauv(L, sizeof *f, 0);
	*f = (struct file_op){ .op = { .finish = op_finish, .cancel = op_release, .what = "file" }, .push = push };
	luaL_setmetatable(L, REQUEST_MT);
	f->loop = host_loop(host_of(L));
	f->request = file_start(f->loop, command, bind_wake, f);
	if (f->request == NULL)
		return luaL_error(L, "out of memory");
	return task_await(L, &f->op);
}

static int
push_true(lua_State *L, struct file_op *f)
{
	(void)f;
	lua_pushboolean(L, 1);
	return 1;
}

static int
push_bytes(lua_State *L, struct file_op *f)
{
	const struct file_answer *a = file_answer(f->request);

	lua_pushlstring(L, a->bytes, a->length);
	return 1;
}

static void
set_integer(lua_State *L, const char *name, lua_Integer value)
{
	lua_pushinteger(L, value);
	lua_setfield(L, -2, name);
}

static lua_Integer
nanoseconds(const struct timespec *t)
{
	return (lua_Integer)t->tv_sec * 1000000000 + t->tv_nsec;
}

static int
push_stat(lua_State *L, struct file_op *f)
{
	const struct stat *st = &file_answer(f->request)->st;

	lua_createtable(L, 0, 12);			/* stat */
	lua_pushstring(L, file_type(st->st_mode));
	lua_setfield(L, -2, "type");
	set_integer(L, "size", st->st_size);
	set_integer(L, "mode", st->st_mode & 07777);
	set_integer(L, "uid", st->st_uid);
	set_integer(L, "gid", st->st_gid);
	set_integer(L, "dev", (lua_Integer)st->st_dev);
	set_integer(L, "ino", (lua_Integer)st->st_ino);
	set_integer(L, "nlink", (lua_Integer)st->st_nlink);
	set_integer(L, "blocks", st->st_blocks);
	set_integer(L, "mtime_ns", nanoseconds(&st->st_mtim));
	set_integer(L, "ctime_ns", nanoseconds(&st->st_ctim));
	lua_pushnumber(L, (lua_Number)st->st_mtim.tv_sec + (lua_Number)st->st_mtim.tv_nsec / 1e9);
	lua_setfield(L, -2, "mtime");
	return 1;
}

static int
push_entries(lua_State *L, struct file_op *f)
{
	const struct file_answer *a = file_answer(f->request);

	lua_createtable(L, (int)a->length, 0);		/* list */
	for (size_t i = 0; i < a->length; i++) {
		lua_createtable(L, 0, 2);		/* list entry */
		lua_pushstring(L, a->entries[i].name);
		lua_setfield(L, -2, "name");
		lua_pushstring(L, a->entries[i].type);
		lua_setfield(L, -2, "type");
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	return 1;
}

static int
push_space(lua_State *L, struct file_op *f)
{
	const struct file_answer *a = file_answer(f->request);
	lua_Integer unit = (lua_Integer)a->space.f_frsize;

	lua_createtable(L, 0, 5);			/* space */
	set_integer(L, "bytes_total", (lua_Integer)a->space.f_blocks * unit);
	set_integer(L, "bytes_free", (lua_Integer)a->space.f_bavail * unit);
	set_integer(L, "inodes_total", (lua_Integer)a->space.f_files);
	set_integer(L, "inodes_free", (lua_Integer)a->space.f_favail);
	if (a->space_type[0] != '\0')
		lua_pushstring(L, a->space_type);
	else
		lua_pushfstring(L, "unknown (%I)", (LUAI_UACINT)a->space_magic);
	lua_setfield(L, -2, "type");
	return 1;
}

static int
push_lock(lua_State *L, struct file_op *f)
{
	struct lock *lock = lua_newuserdatauv(L, sizeof *lock, 0);

	lock->fd = -1;
	luaL_setmetatable(L, LOCK_MT);
	lock->fd = file_take_fd(f->request);
	return 1;
}

static int
push_stream(lua_State *L, struct file_op *f)
{
	int fd = file_take_fd(f->request);
	struct stream *s = file_stream(f->loop, fd);

	if (s == NULL) {
		close(fd);
		return luaL_error(L, "out of memory");
	}
	bind_push_stream(L, s);
	return 1;
}

static int
l_chmod(lua_State *L)
{
	struct file_command c = { .operation = FILE_CHMOD, .path = check_path(L, 1) };

	c.mode = (int)luaL_checkinteger(L, 2);
	return start(L, &c, PERMIT_CHANGE, push_true);
}

static int
l_list(lua_State *L)
{
	struct file_command c = { .operation = FILE_LIST, .path = check_path(L, 1) };

	return start(L, &c, PERMIT_READ, push_entries);
}

static int
l_lock(lua_State *L)
{
	struct file_command c = { .operation = FILE_LOCK, .path = check_path(L, 1), .mode = -1 };

	return start(L, &c, PERMIT_CHANGE, push_lock);
}

static int
l_lstat(lua_State *L)
{
	struct file_command c = { .operation = FILE_LSTAT, .path = check_path(L, 1) };

	return start(L, &c, PERMIT_READ, push_stat);
}

/* The field of the optional table at idx, on top of the stack; nil without a table.  [-0, +1, v] */
static int
option(lua_State *L, int idx, const char *name)
{
	if (lua_isnoneornil(L, idx)) {
		lua_pushnil(L);
		return LUA_TNIL;
	}
	luaL_checktype(L, idx, LUA_TTABLE);
	return lua_getfield(L, idx, name);
}

static int
option_mode(lua_State *L, int idx)
{
	return option(L, idx, "mode") == LUA_TNIL ? -1 : (int)luaL_checkinteger(L, -1) & 07777;
}

static bool
option_flag(lua_State *L, int idx, const char *name)
{
	option(L, idx, name);
	return lua_toboolean(L, -1);
}

static int
l_mkdir(lua_State *L)
{
	struct file_command c = { .operation = FILE_MKDIR, .path = check_path(L, 1) };

	c.mode = option_mode(L, 2);
	c.whole = option_flag(L, 2, "parents");
	return start(L, &c, PERMIT_CHANGE, push_true);
}

static int
l_open(lua_State *L)
{
	static const char *const names[] = { "r", "w", "a", NULL };
	static const int flags[] = { O_RDONLY, O_WRONLY | O_CREAT | O_TRUNC, O_WRONLY | O_CREAT | O_APPEND };
	struct file_command c = { .operation = FILE_OPEN, .path = check_path(L, 1) };
	int how = luaL_checkoption(L, 2, "r", names);

	c.flags = flags[how];
	c.mode = option_mode(L, 3);
	option(L, 3, "from");
	c.from = luaL_optinteger(L, -1, -1);
	return start(L, &c, how == 0 ? PERMIT_READ : PERMIT_CHANGE, push_stream);
}

static int
l_read(lua_State *L)
{
	struct file_command c = { .operation = FILE_READ, .path = check_path(L, 1) };

	c.limit = (size_t)luaL_optinteger(L, 2, READ_LIMIT);
	return start(L, &c, PERMIT_READ, push_bytes);
}

static int
l_readlink(lua_State *L)
{
	struct file_command c = { .operation = FILE_READLINK, .path = check_path(L, 1) };

	return start(L, &c, PERMIT_READ, push_bytes);
}

static int
l_realpath(lua_State *L)
{
	struct file_command c = { .operation = FILE_REALPATH, .path = check_path(L, 1) };

	return start(L, &c, PERMIT_READ, push_bytes);
}

static int
l_rename(lua_State *L)
{
	struct file_command c = { .operation = FILE_RENAME, .path = check_path(L, 1), .other = check_path(L, 2) };

	c.whole = option_flag(L, 3, "sync");
	return start(L, &c, PERMIT_CHANGE, push_true);
}

static int
l_rmdir(lua_State *L)
{
	struct file_command c = { .operation = FILE_RMDIR, .path = check_path(L, 1) };

	return start(L, &c, PERMIT_CHANGE, push_true);
}

static int
l_stat(lua_State *L)
{
	struct file_command c = { .operation = FILE_STAT, .path = check_path(L, 1) };

	return start(L, &c, PERMIT_READ, push_stat);
}

static int
l_statfs(lua_State *L)
{
	struct file_command c = { .operation = FILE_STATFS, .path = check_path(L, 1) };

	return start(L, &c, PERMIT_READ, push_space);
}

static int
l_symlink(lua_State *L)
{
	struct file_command c = { .operation = FILE_SYMLINK, .other = check_path(L, 1), .path = check_path(L, 2) };

	return start(L, &c, PERMIT_CHANGE, push_true);
}

static int
l_unlink(lua_State *L)
{
	struct file_command c = { .operation = FILE_UNLINK, .path = check_path(L, 1) };

	return start(L, &c, PERMIT_CHANGE, push_true);
}

static int
l_write(lua_State *L)
{
	struct file_command c = { .operation = FILE_WRITE, .path = check_path(L, 1) };

	c.bytes = bind_bytes(L, 2, &c.length);
	c.mode = option_mode(L, 3);
	c.whole = option_flag(L, 3, "sync");
	return start(L, &c, PERMIT_CHANGE, push_true);
}

static struct lock *
check_lock(lua_State *L, int idx)
{
	struct lock *lock = luaL_checkudata(L, idx, LOCK_MT);

	luaL_argcheck(L, lock->fd >= 0, idx, "lock is closed");
	return lock;
}

/* lock:write(text): who holds it, for those who are refused.  A line, so it does not wait for the pool. */
static int
l_lock_write(lua_State *L)
{
	struct lock *lock = check_lock(L, 1);
	size_t length;
	const char *text = luaL_checklstring(L, 2, &length);

	bind_permit(L, PERMIT_CHANGE);
	if (ftruncate(lock->fd, 0) < 0 || pwrite(lock->fd, text, length, 0) != (ssize_t)length)
		return bind_fail(L, "EIO", "the lock file cannot be written");
	lua_pushboolean(L, 1);
	return 1;
}

static int
l_lock_close(lua_State *L)
{
	struct lock *lock = luaL_checkudata(L, 1, LOCK_MT);

	if (lock->fd >= 0)
		close(lock->fd);
	lock->fd = -1;
	return 0;
}

static const luaL_Reg lock_methods[] = {
	{ "close", l_lock_close },
	{ "write", l_lock_write },
	{ NULL, NULL }
};

static const luaL_Reg lock_meta[] = {
	{ "__close", l_lock_close },
	{ "__gc",    l_lock_close },
	{ NULL, NULL }
};

static const luaL_Reg functions[] = {
	{ "chmod",    l_chmod },
	{ "list",     l_list },
	{ "lock",     l_lock },
	{ "lstat",    l_lstat },
	{ "mkdir",    l_mkdir },
	{ "open",     l_open },
	{ "read",     l_read },
	{ "readlink", l_readlink },
	{ "realpath", l_realpath },
	{ "rename",   l_rename },
	{ "rmdir",    l_rmdir },
	{ "stat",     l_stat },
	{ "statfs",   l_statfs },
	{ "symlink",  l_symlink },
	{ "unlink",   l_unlink },
	{ "write",    l_write },
	{ NULL, NULL }
};

int luaopen_runbook_core_file(lua_State *L);

int
luaopen_runbook_core_file(lua_State *L)
{
	bind_class(L, LOCK_MT, lock_methods, lock_meta);
	bind_op_class(L, REQUEST_MT);
	luaL_newlib(L, functions);
	return 1;
}
