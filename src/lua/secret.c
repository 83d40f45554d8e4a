/*
 * lua/secret.c - the "runbook.core.secret" module: values that print as their name.
 *
 * Their bytes come out in C alone, through bind_bytes.  Where they come from is
 * lib/runbook/secret.lua's.
 */
#include "secret.h"

#include <string.h>

#include "../digest.h"
#include "bind.h"
#include "redact.h"

#define SECRET_MT "runbook.secret"

struct secret *
secret_test(lua_State *L, int idx)
{
	struct secret **s = luaL_testudata(L, idx, SECRET_MT);

	return s != NULL ? *s : NULL;
}

const char *
secret_bytes_at(lua_State *L, int idx, size_t *length)
{
	struct secret *s = secret_test(L, idx);
	const char *bytes;

	if (s == NULL)
		return NULL;
	if ((bytes = secret_bytes(s, length)) == NULL)
		luaL_error(L, "the bytes of secret %s have not been read yet", secret_name(s));
	return bytes;
}

/* A secret without bytes.  [-0, +1, m] */
static struct secret *
push_empty(lua_State *L, const char *name)
{
	struct secret **s;

	luaL_requiref(L, "runbook.core.secret", luaopen_runbook_core_secret, 0);
	lua_pop(L, 1);
	s = lua_newuserdatauv(L, sizeof *s, 0);		/* secret */
	*s = NULL;
	luaL_setmetatable(L, SECRET_MT);
	if ((*s = secret_new(name)) == NULL)
		luaL_error(L, "out of memory");
	return *s;
}

static int
fill(lua_State *L, struct secret *s, const void *bytes, size_t length)
{
	enum redact_added added = redact_add(redact_push_host(L), secret_name(s), bytes, length);

	lua_pop(L, 1);
	if (added == REDACT_NO_MEMORY || !secret_fill(s, bytes, length))
		luaL_error(L, "out of memory");
	return added == REDACT_ADDED;
}

int
secret_push(lua_State *L, const char *name, const void *bytes, size_t length)
{
	return fill(L, push_empty(L, name), bytes, length);
}

/* new(name, bytes) -> secret, whether it is long enough to be redacted */
static int
l_new(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	size_t length;
	const char *bytes = bind_bytes(L, 2, &length);

	lua_pushboolean(L, secret_push(L, name, bytes, length));	/* name bytes secret redacted */
	return 2;
}

/* later(name) -> secret whose bytes are not known yet */
static int
l_later(lua_State *L)
{
	push_empty(L, luaL_checkstring(L, 1));
	return 1;
}

/*
 * A secret of `length` bytes that are still to be written; *room is where.  The redactor does not learn it: what
 * is put there is made of secrets that it knows.  [-0, +1, m]
 */
static void
push_room(lua_State *L, const char *name, size_t length, char **room)
{
	struct secret *s = push_empty(L, name);

	if ((*room = secret_room(s, length)) == NULL)
		luaL_error(L, "out of memory");
}

/* join(name, parts) -> secret of strings and secrets, one behind the other */
static int
l_join(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	size_t length, total = 0;
	lua_Integer n, i;
	char *room;

	luaL_checktype(L, 2, LUA_TTABLE);
	n = (lua_Integer)lua_rawlen(L, 2);
	for (i = 1; i <= n; i++) {
		lua_rawgeti(L, 2, i);
		bind_bytes(L, -1, &length);
		total += length;
		lua_pop(L, 1);
	}
	push_room(L, name, total, &room);		/* name parts secret */
	for (i = 1; i <= n; i++) {
		const char *bytes;

		lua_rawgeti(L, 2, i);
		bytes = bind_bytes(L, -1, &length);
		memcpy(room, bytes, length);
		room += length;
		lua_pop(L, 1);
	}
	return 1;
}

static struct secret *
check_secret(lua_State *L)
{
	struct secret **s = luaL_checkudata(L, 1, SECRET_MT);

	luaL_argcheck(L, *s != NULL, 1, "secret is gone");
	return *s;
}

/* base64(secret) -> secret, its text */
static int
l_base64(lua_State *L)
{
	struct secret *s = check_secret(L);
	size_t length;
	const char *bytes = bind_bytes(L, 1, &length);
	char *room;

	push_room(L, secret_name(s), digest_base64_length(length), &room);
	digest_base64(bytes, length, room);
	return 1;
}

/* fill(secret, bytes) -> whether it is long enough to be redacted */
static int
l_fill(lua_State *L)
{
	struct secret *s = check_secret(L);
	size_t length;
	const char *bytes = bind_bytes(L, 2, &length);

	luaL_argcheck(L, secret_bytes(s, &(size_t){ 0 }) == NULL, 1, "secret has its bytes already");
	lua_pushboolean(L, fill(L, s, bytes, length));
	return 1;
}

/* is(value) -> whether it is a secret */
static int
l_is(lua_State *L)
{
	lua_pushboolean(L, secret_test(L, 1) != NULL);
	return 1;
}

/* s:name() -> the name it prints as */
static int
l_name(lua_State *L)
{
	lua_pushstring(L, secret_name(check_secret(L)));
	return 1;
}

/* s:known() -> whether its bytes have been read */
static int
l_known(lua_State *L)
{
	size_t length;

	lua_pushboolean(L, secret_bytes(check_secret(L), &length) != NULL);
	return 1;
}

static int
l_tostring(lua_State *L)
{
	lua_pushfstring(L, "\xc2\xabsecret:%s\xc2\xbb", secret_name(check_secret(L)));
	return 1;
}

/* What is no secret joins, or refuses to, as it would with any string. */
static int
l_concat(lua_State *L)
{
	for (int i = 1; i <= 2; i++)
		if (secret_test(L, i) != NULL)
			luaL_tolstring(L, i, NULL);
		else
			lua_pushvalue(L, i);
	lua_concat(L, 2);
	return 1;
}

/* Length and order would tell something about the bytes. */
static int
l_refuse(lua_State *L)
{
	return luaL_error(L, "a secret has no length and no order; only programs and servers see its bytes");
}

static int
l_gc(lua_State *L)
{
	struct secret **s = luaL_checkudata(L, 1, SECRET_MT);

	secret_free(*s);
	*s = NULL;
	return 0;
}

static const luaL_Reg secret_methods[] = {
	{ "known", l_known },
	{ "name",  l_name },
	{ NULL, NULL }
};

static const luaL_Reg secret_meta[] = {
	{ "__concat",   l_concat },
	{ "__gc",       l_gc },
	{ "__le",       l_refuse },
	{ "__len",      l_refuse },
	{ "__lt",       l_refuse },
	{ "__tostring", l_tostring },
	{ NULL, NULL }
};

static const luaL_Reg functions[] = {
	{ "base64", l_base64 },
	{ "fill",   l_fill },
	{ "is",     l_is },
	{ "join",   l_join },
	{ "later",  l_later },
	{ "new",    l_new },
	{ NULL, NULL }
};

int
luaopen_runbook_core_secret(lua_State *L)
{
	bind_class(L, SECRET_MT, secret_methods, secret_meta);
	luaL_newlib(L, functions);
	return 1;
}
