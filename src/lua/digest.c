/*
 * lua/digest.c - the "runbook.core.digest" module.
 *
 * Marshalling only: the work is in ../digest.c.  Only hmac takes secrets: whatever else is made of
 * one would be as good as the secret.
 */
#include "../digest.h"

#include <string.h>

#include "bind.h"
#include "secret.h"

#define FILE_MT "runbook.digest.file"

struct file_op {
	struct task_op op;
	struct digest_file *file;	/* NULL once released */
};

/* Pushes the bytes as text, or as they are when the argument at `raw` is true. */
static int
push_digest(lua_State *L, const unsigned char *bytes, size_t length, int raw)
{
	char text[2 * DIGEST_LONGEST];

	if (length == 0)
		return luaL_error(L, "this digest is not available");
	if (lua_toboolean(L, raw)) {
		lua_pushlstring(L, (const char *)bytes, length);
	} else {
		digest_hex(bytes, length, text);
		lua_pushlstring(L, text, 2 * length);
	}
	return 1;
}

static int
push_digest_of(lua_State *L, const char *algorithm)
{
	unsigned char out[DIGEST_LONGEST];
	size_t length;
	const char *bytes = luaL_checklstring(L, 1, &length);

	return push_digest(L, out, digest_of(algorithm, bytes, length, out), 2);
}

/* sha1(bytes [, raw]) -> digest */
static int
l_sha1(lua_State *L)
{
	return push_digest_of(L, "sha1");
}

/* sha256(bytes [, raw]) -> digest */
static int
l_sha256(lua_State *L)
{
	return push_digest_of(L, "sha256");
}

/* hmac(algorithm, key, bytes [, raw]) -> digest; key and bytes may be secrets */
static int
l_hmac(lua_State *L)
{
	static const char *const algorithms[] = { "sha1", "sha256", "sha512", NULL };
	const char *algorithm = algorithms[luaL_checkoption(L, 1, NULL, algorithms)];
	unsigned char out[DIGEST_LONGEST];
	size_t key_length, length;
	const char *key = bind_bytes(L, 2, &key_length);
	const char *bytes = bind_bytes(L, 3, &length);

	return push_digest(L, out, digest_hmac(algorithm, key, key_length, bytes, length, out), 4);
}

/* hex(bytes) -> text */
static int
l_hex(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 1, &length);
	luaL_Buffer b;

	digest_hex((const unsigned char *)bytes, length, luaL_buffinitsize(L, &b, 2 * length));
	luaL_pushresultsize(&b, 2 * length);
	return 1;
}

/* unhex(text) -> bytes | nil, message, code */
static int
l_unhex(lua_State *L)
{
	size_t length;
	const char *text = luaL_checklstring(L, 1, &length);
	luaL_Buffer b;

	if (!digest_unhex(text, length, (unsigned char *)luaL_buffinitsize(L, &b, length / 2 + 1)))
		return bind_fail(L, "ESYNTAX", "this is no hex");
	luaL_pushresultsize(&b, length / 2);
	return 1;
}

/* base64(bytes) -> text */
static int
l_base64(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 1, &length);
	luaL_Buffer b;

	digest_base64(bytes, length, luaL_buffinitsize(L, &b, digest_base64_length(length)));
	luaL_pushresultsize(&b, digest_base64_length(length));
	return 1;
}

/* unbase64(text) -> bytes | nil, message, code */
static int
l_unbase64(lua_State *L)
{
	size_t length, n;
	const char *text = luaL_checklstring(L, 1, &length);
	luaL_Buffer b;

	n = digest_unbase64(text, length, (unsigned char *)luaL_buffinitsize(L, &b, length + 1));
	if (n == (size_t)-1)
		return bind_fail(L, "ESYNTAX", "this is no base64");
	luaL_pushresultsize(&b, n);
	return 1;
}

/* random(n) -> n bytes nobody can guess */
static int
l_random(lua_State *L)
{
	lua_Integer n = luaL_checkinteger(L, 1);
	luaL_Buffer b;

	luaL_argcheck(L, n >= 0 && n <= 1 << 20, 1, "0 to 1048576 bytes");
	if (!digest_random(luaL_buffinitsize(L, &b, (size_t)n), (size_t)n))
		return luaL_error(L, "the system has no random bytes");
	luaL_pushresultsize(&b, (size_t)n);
	return 1;
}

/* fingerprint(line) -> "SHA256:..." of a public key as authorized_keys and known_hosts hold it */
static int
l_fingerprint(lua_State *L)
{
	const char *line = luaL_checkstring(L, 1);
	const char *blob = strstr(line, "AAAA");
	size_t length = blob != NULL ? strcspn(blob, " \t\r\n") : 0, n;
	char out[64];
	luaL_Buffer b;

	n = digest_unbase64(blob, length, (unsigned char *)luaL_buffinitsize(L, &b, length + 1));
	if (blob == NULL || n == (size_t)-1)
		return bind_fail(L, "EKEY", "this is no public key");
	digest_fingerprint(luaL_buffaddr(&b), n, out);
	luaL_pushresultsize(&b, n);
	lua_pushstring(L, out);
	return 1;
}

struct key_box {
	struct digest_key key;
};

static int
l_key_gc(lua_State *L)
{
	digest_key_fini(&((struct key_box *)luaL_checkudata(L, 1, "runbook.digest.key"))->key);
	return 0;
}

/* ed25519(comment [, name]) -> { private = secret, public =, fingerprint = } */
static int
l_ed25519(lua_State *L)
{
	const char *comment = luaL_checkstring(L, 1);
	const char *name = luaL_optstring(L, 2, comment);
	struct key_box *box;

	luaL_argcheck(L, strlen(comment) <= 1000 && strpbrk(comment, "\r\n") == NULL, 1, "one short line");
	box = lua_newuserdatauv(L, sizeof *box, 0);	/* whatever is raised, the key is wiped */
	box->key = (struct digest_key){ .private = NULL };
	luaL_setmetatable(L, "runbook.digest.key");
	if (!digest_key_make(&box->key, comment))
		return luaL_error(L, "no memory or no random bytes for a key");
	lua_createtable(L, 0, 3);			/* box result */
	secret_push(L, name, box->key.private, box->key.private_length);
	lua_setfield(L, -2, "private");
	lua_pushlstring(L, box->key.public, box->key.public_length);
	lua_setfield(L, -2, "public");
	lua_pushstring(L, box->key.fingerprint);
	lua_setfield(L, -2, "fingerprint");
	digest_key_fini(&box->key);
	return 1;
}

static void
file_release(struct task_op *op)
{
	struct file_op *x = (struct file_op *)op;

	digest_file_free(x->file);
	x->file = NULL;
}

static int
file_finish(lua_State *L, struct task_op *op)
{
	const struct digest_file_result *r = digest_file_result(((struct file_op *)op)->file);

	if (r->error != 0)
		return bind_fail_errno(L, r->error, lua_tostring(L, 1));
	push_digest(L, r->digest, sizeof r->digest, 2);
	lua_pushinteger(L, (lua_Integer)r->size);
	file_release(op);
	return 2;
}

/* sha256_file(path [, raw [, from [, length]]]) -> digest, size | nil, message, code */
static int
l_sha256_file(lua_State *L)
{
	const char *path = bind_path(L, 1);
	lua_Integer from = luaL_optinteger(L, 3, 0), length = luaL_optinteger(L, 4, LUA_MAXINTEGER);
	struct file_op *x;

	luaL_argcheck(L, from >= 0, 3, "is negative");
	luaL_argcheck(L, length >= 0, 4, "is negative");
	bind_permit(L, PERMIT_READ);
	lua_settop(L, 2);
	x = lua_newuserdatauv(L, sizeof *x, 0);		/* path raw op */
	*x = (struct file_op){ .op = { .finish = file_finish, .cancel = file_release, .what = "sha256 of a file" } };
	luaL_setmetatable(L, FILE_MT);
	x->file = digest_file_start(host_loop(host_of(L)), path, (unsigned long long)from, (unsigned long long)length, bind_wake,
	                            &x->op);
	if (x->file == NULL)
		return luaL_error(L, "out of memory");
	return task_await(L, &x->op);
}

static const luaL_Reg key_meta[] = {
	{ "__gc", l_key_gc },
	{ NULL, NULL }
};

static const luaL_Reg functions[] = {
	{ "base64",      l_base64 },
	{ "ed25519",     l_ed25519 },
	{ "fingerprint", l_fingerprint },
	{ "hex",         l_hex },
	{ "hmac",        l_hmac },
	{ "random",      l_random },
	{ "sha1",        l_sha1 },
	{ "sha256",      l_sha256 },
	{ "sha256_file", l_sha256_file },
	{ "unbase64",    l_unbase64 },
	{ "unhex",       l_unhex },
	{ NULL, NULL }
};

int luaopen_runbook_core_digest(lua_State *L);

int
luaopen_runbook_core_digest(lua_State *L)
{
	bind_class(L, "runbook.digest.key", NULL, key_meta);
	bind_op_class(L, FILE_MT);
	luaL_newlib(L, functions);
	return 1;
}
