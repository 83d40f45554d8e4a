/*
 * lua/ssh.c - the "runbook.core.ssh" module.
 *
 * Marshalling only: the protocol is in ../ssh*.c, the policy in lib/runbook/ssh.lua.  Commands and
 * what else runs over a session are in ssh_channel.c, ports of the far side in ssh_listen.c.
 */
#include <stdlib.h>
#include <string.h>

#include "bind.h"
#include "ssh_bind.h"

#define HUB_MT     "runbook.ssh.hub"
#define LOGIN_MT   "runbook.ssh.login"

/* While the server asks something it is what Lua has for the login. */
struct connect_op {
	struct task_op op;
	int idx;			/* where its userdata is on the stack of the waiter */
	struct ssh_options *o;		/* until the connect has it */
	struct ssh_connect *connect;	/* NULL once released */
};

static void
connect_release(struct task_op *op)
{
	struct connect_op *x = (struct connect_op *)op;

	ssh_connect_free(x->connect);
	x->connect = NULL;
}

static int
l_login_close(lua_State *L)
{
	struct connect_op *x = luaL_checkudata(L, 1, LOGIN_MT);

	connect_release(&x->op);
	ssh_options_free(x->o);
	x->o = NULL;
	return 0;
}

static int
l_hub_gc(lua_State *L)
{
	struct ssh_hub **hub = lua_touserdata(L, 1);

	ssh_hub_free(*hub);
	*hub = NULL;
	return 0;
}

/* One per Lua state, from the first connection on.  [-0, +1, v] */
static struct ssh_hub *
push_hub(lua_State *L)
{
	struct ssh_hub **hub;

	if (lua_getfield(L, LUA_REGISTRYINDEX, HUB_MT ".only") != LUA_TNIL)	/* hub */
		return *(struct ssh_hub **)lua_touserdata(L, -1);
	lua_pop(L, 1);
	hub = lua_newuserdatauv(L, sizeof *hub, 0);	/* hub */
	*hub = NULL;
	luaL_setmetatable(L, HUB_MT);
	if ((*hub = ssh_hub_new(host_loop(host_of(L)))) == NULL)
		luaL_error(L, "out of memory");
	lua_pushvalue(L, -1);
	lua_setfield(L, LUA_REGISTRYINDEX, HUB_MT ".only");
	return *hub;
}

static void *
check_memory(lua_State *L, void *memory)
{
	if (memory == NULL)
		luaL_error(L, "out of memory");
	return memory;
}

/* The field of the table at idx; nil pushes nothing.  [-0, +1 or 0, v] */
static bool
push_field(lua_State *L, int idx, const char *key)
{
	if (lua_getfield(L, idx, key) != LUA_TNIL)
		return true;
	lua_pop(L, 1);
	return false;
}

/* A copy of the string on top, which may not be anything else and holds no NUL.  [-0, +0, v] */
static char *
copy_string(lua_State *L, const char *key)
{
	size_t length;
	const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;

	if (text == NULL || strlen(text) != length)
		luaL_error(L, "%s: a string without NUL expected", key);
	return check_memory(L, strdup(text));
}

/* A copy of the string or secret on top.  [-0, +0, v] */
static void
copy_text(lua_State *L, struct ssh_text *to)
{
	size_t length;
	const char *bytes = bind_bytes(L, -1, &length);

	to->bytes = check_memory(L, malloc(length + 1));
	memcpy(to->bytes, bytes, length);
	to->bytes[length] = '\0';
	to->length = length;
}

static void
take_string(lua_State *L, int idx, const char *key, char **to)
{
	if (!push_field(L, idx, key))
		return;
	*to = copy_string(L, key);
	lua_pop(L, 1);
}

static void
take_text(lua_State *L, int idx, const char *key, struct ssh_text *to)
{
	if (!push_field(L, idx, key))
		return;
	copy_text(L, to);
	lua_pop(L, 1);
}

static void
take_flag(lua_State *L, const char *key, bool *to)
{
	if (!push_field(L, 1, key))
		return;
	*to = lua_toboolean(L, -1);
	lua_pop(L, 1);
}

static double
take_seconds(lua_State *L, const char *key, double usual)
{
	double seconds = usual;

	if (!push_field(L, 1, key))
		return usual;
	seconds = lua_isnumber(L, -1) ? lua_tonumber(L, -1) : -1;
	if (!(seconds > 0 && seconds < 86400))
		luaL_error(L, "%s: a number of seconds expected", key);
	lua_pop(L, 1);
	return seconds;
}

/* Room for the items of a list field, which is pushed when there are any.  [-0, +1 or 0, v] */
static void *
push_list(lua_State *L, const char *key, size_t size, lua_Integer *count)
{
	void *items;

	*count = 0;
	if (!push_field(L, 1, key))			/* list */
		return NULL;
	if (lua_type(L, -1) != LUA_TTABLE)
		luaL_error(L, "%s: a list expected", key);
	*count = luaL_len(L, -1);
	if (*count <= 0 || *count > 1000) {
		luaL_argcheck(L, *count == 0, 1, "a list is too long");
		lua_pop(L, 1);
		return NULL;
	}
	items = check_memory(L, calloc((size_t)*count, size));
	return items;
}

static void
take_strings(lua_State *L, const char *key, char ***to, size_t *count)
{
	lua_Integer n;

	*to = push_list(L, key, sizeof **to, &n);	/* list */
	for (lua_Integer i = 1; i <= n; i++) {
		lua_geti(L, -1, i);			/* list item */
		(*to)[i - 1] = copy_string(L, key);
		*count = (size_t)i;
		lua_pop(L, 1);
	}
	if (n > 0)
		lua_pop(L, 1);
}

/* The items of the list on top, which hold room for n.  [-0, +0, v] */
static void
copy_texts(lua_State *L, lua_Integer n, struct ssh_text *to, size_t *count)
{
	for (lua_Integer i = 1; i <= n; i++) {
		lua_geti(L, -1, i);			/* list item */
		*count = (size_t)i;
		copy_text(L, &to[i - 1]);
		lua_pop(L, 1);
	}
}

static void
take_answers(lua_State *L, struct ssh_options *o)
{
	lua_Integer n;

	o->answers = push_list(L, "answers", sizeof *o->answers, &n);	/* list */
	copy_texts(L, n, o->answers, &o->answer_count);
	if (n > 0)
		lua_pop(L, 1);
}

/* "path", or { path =, key =, certificate =, certificate_text =, passphrase = } with path or key. */
static void
take_identities(lua_State *L, struct ssh_options *o)
{
	lua_Integer n;

	o->identities = push_list(L, "identities", sizeof *o->identities, &n);	/* list */
	for (lua_Integer i = 1; i <= n; i++) {
		struct ssh_identity *id = &o->identities[i - 1];
		int type = lua_geti(L, -1, i);		/* list item */
		int idx = lua_gettop(L);

		o->identity_count = (size_t)i;
		if (type == LUA_TSTRING) {
			id->path = copy_string(L, "identities");
		} else if (type == LUA_TTABLE) {
			take_string(L, idx, "path", &id->path);
			take_string(L, idx, "certificate", &id->certificate);
			take_text(L, idx, "certificate_text", &id->certificate_text);
			take_text(L, idx, "key", &id->key);
			take_text(L, idx, "passphrase", &id->passphrase);
		}
		if (id->path == NULL && id->key.bytes == NULL)
			luaL_error(L, "identities: a path, or a table with path or key expected");
		lua_pop(L, 1);
	}
	if (n > 0)
		lua_pop(L, 1);
}

static void
take_order(lua_State *L, struct ssh_options *o)
{
	static const char *const names[] = { "agent", "identities", "password", "keyboard-interactive", NULL };

	if (!push_field(L, 1, "order"))			/* order */
		return;
	luaL_checktype(L, -1, LUA_TTABLE);
	luaL_argcheck(L, luaL_len(L, -1) <= SSH_METHODS, 1, "order: too many methods");
	o->order_count = 0;
	for (lua_Integer i = 1; i <= luaL_len(L, -1); i++) {
		lua_geti(L, -1, i);			/* order name */
		o->order[o->order_count++] = (enum ssh_method)luaL_checkoption(L, -1, NULL, names);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}

static void
take_options(lua_State *L, struct ssh_options *o)
{
	take_string(L, 1, "host", &o->host);
	take_string(L, 1, "user", &o->user);
	if (o->host == NULL || o->user == NULL)
		luaL_error(L, "host and user expected");
	if (push_field(L, 1, "port")) {
		o->port = (int)luaL_checkinteger(L, -1);
		luaL_argcheck(L, o->port > 0 && o->port < 65536, 1, "port: a number up to 65535 expected");
		lua_pop(L, 1);
	}
	take_string(L, 1, "alias", &o->alias);
	take_string(L, 1, "agent", &o->agent);
	take_text(L, 1, "password", &o->password);
	take_answers(L, o);
	take_identities(L, o);
	take_flag(L, "identities_only", &o->identities_only);
	take_flag(L, "ask", &o->ask);
	take_order(L, o);
	take_strings(L, "known_hosts", &o->known_hosts, &o->known_hosts_count);
	take_strings(L, "pins", &o->pins, &o->pin_count);
	o->timeout = take_seconds(L, "timeout", o->timeout);
	o->keepalive = take_seconds(L, "keepalive", o->keepalive);
}

static void
set_text(lua_State *L, const char *key, const char *value)
{
	if (value == NULL || *value == '\0')
		return;
	lua_pushstring(L, value);
	lua_setfield(L, -2, key);
}

/* Into the table on top.  [-0, +0, m] */
static void
set_prompts(lua_State *L, const struct ssh_failure *f)
{
	lua_createtable(L, (int)f->prompt_count, 0);	/* details prompts */
	for (size_t i = 0; i < f->prompt_count; i++) {
		lua_createtable(L, 0, 2);
		lua_pushstring(L, f->prompts[i].text);
		lua_setfield(L, -2, "text");
		lua_pushboolean(L, f->prompts[i].echo);
		lua_setfield(L, -2, "echo");
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, "prompts");
	set_text(L, "said", f->said);
}

/* nil, message, code, what is asked, and the login that waits for it.  [-0, +5, m] */
static int
push_question(lua_State *L, const struct ssh_failure *f, int login)
{
	bind_fail(L, "EPROMPT", "it asks: %s", f->prompt_count > 0 ? f->prompts[0].text : "?");
	lua_createtable(L, 0, 3);			/* ... details */
	lua_pushinteger(L, f->attempt);
	lua_setfield(L, -2, "attempt");
	set_prompts(L, f);
	lua_pushvalue(L, login);			/* ... details login */
	return 5;
}

/* nil, message, code, and what policy needs to say more.  [-0, +4, m] */
static int
push_failure(lua_State *L, const struct ssh_failure *f)
{
	bind_fail(L, f->code, "%s", f->message);
	lua_newtable(L);				/* ... details */
	set_text(L, "key_type", f->key_type);
	set_text(L, "fingerprint", f->fingerprint);
	set_text(L, "key", f->key);
	set_text(L, "known_at", f->known_at);
	set_text(L, "tried", f->tried);
	set_text(L, "offered", f->offered);
	set_text(L, "locked", f->locked);
	if (f->prompt_count > 0)
		set_prompts(L, f);
	return 4;
}

static int
connect_finish(lua_State *L, struct task_op *op)
{
	struct connect_op *x = (struct connect_op *)op;
	const struct ssh_failure *f = ssh_connect_question(x->connect);
	struct ssh_session **s;

	if (f != NULL)
		return push_question(L, f, x->idx);
	f = ssh_connect_failure(x->connect);
	if (f->code != NULL) {
		push_failure(L, f);
		connect_release(op);
		return 4;
	}
	s = lua_newuserdatauv(L, sizeof *s, 0);		/* session */
	*s = NULL;
	luaL_setmetatable(L, SSH_SESSION_MT);
	*s = ssh_connect_session(x->connect);
	connect_release(op);
	return 1;
}

/* ssh.connect{ host =, user =, ... } -> session | nil, message, code, details [, login] */
static int
l_connect(lua_State *L)
{
	struct connect_op *x;
	struct ssh_options *o;
	struct ssh_hub *hub;
	struct stream *over = NULL;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	bind_permit(L, PERMIT_READ);
	hub = push_hub(L);				/* options hub */
	x = lua_newuserdatauv(L, sizeof *x, 1);		/* options hub op */
	*x = (struct connect_op){ .op = { .finish = connect_finish, .cancel = connect_release,
		.what = "an ssh connection" }, .idx = 3 };
	luaL_setmetatable(L, LOGIN_MT);
	lua_pushvalue(L, 2);
	lua_setiuservalue(L, -2, 1);
	o = x->o = check_memory(L, ssh_options_new());
	take_options(L, o);
	if (push_field(L, 1, "stream")) {		/* options hub op stream */
		over = bind_take_stream(L, -1);
		lua_pop(L, 1);
	}
	x->o = NULL;
	if ((x->connect = ssh_connect_start(hub, o, over, bind_wake, &x->op)) == NULL)
		return luaL_error(L, "out of memory");
	return task_await(L, &x->op);
}

static struct connect_op *
check_login(lua_State *L)
{
	struct connect_op *x = luaL_checkudata(L, 1, LOGIN_MT);

	luaL_argcheck(L, x->connect != NULL, 1, "login is closed");
	return x;
}

/* login:answer(answers) -> as connect */
static int
l_answer(lua_State *L)
{
	struct connect_op *x = check_login(L);
	struct ssh_text *texts;
	size_t count = 0;
	lua_Integer n;

	luaL_checktype(L, 2, LUA_TTABLE);
	luaL_argcheck(L, x->op.waiter == NULL, 1, "login was answered");
	lua_settop(L, 2);
	n = luaL_len(L, 2);
	luaL_argcheck(L, n >= 0 && n <= 1000, 2, "too many answers");
	for (lua_Integer i = 1; i <= n; i++) {		/* nothing may be raised below */
		size_t length;

		lua_geti(L, 2, i);
		bind_bytes(L, -1, &length);
		lua_pop(L, 1);
	}
	bind_permit(L, PERMIT_READ);
	texts = check_memory(L, calloc((size_t)n + 1, sizeof *texts));
	copy_texts(L, n, texts, &count);
	if (!ssh_connect_answer(x->connect, texts, count))
		ssh_texts_free(texts, count);
	x->idx = 1;
	x->op.done = ssh_connect_question(x->connect) == NULL;
	x->op.what = "an ssh login";
	lua_pushvalue(L, 1);				/* login answers login */
	return task_await(L, &x->op);
}

/* login:waiting() -> whether the server still waits for an answer */
static int
l_waiting(lua_State *L)
{
	struct connect_op *x = luaL_checkudata(L, 1, LOGIN_MT);

	lua_pushboolean(L, x->connect != NULL && ssh_connect_asks(x->connect));
	return 1;
}

struct ssh_session *
ssh_bind_session(lua_State *L)
{
	struct ssh_session **s = luaL_checkudata(L, 1, SSH_SESSION_MT);

	luaL_argcheck(L, *s != NULL, 1, "session is closed");
	return *s;
}

/* session:info() -> table */
static int
l_info(lua_State *L)
{
	const struct ssh_info *i = ssh_session_info(ssh_bind_session(L));

	lua_createtable(L, 0, 9);			/* info */
	set_text(L, "address", i->address);
	set_text(L, "banner", i->banner);
	set_text(L, "fingerprint", i->fingerprint);
	set_text(L, "host", i->host);
	set_text(L, "key", i->key);
	set_text(L, "key_type", i->key_type);
	set_text(L, "method", i->method);
	set_text(L, "user", i->user);
	lua_pushinteger(L, i->port);
	lua_setfield(L, -2, "port");
	return 1;
}

/* session:alive() -> true | false, message, code */
static int
l_alive(lua_State *L)
{
	struct ssh_session **s = luaL_checkudata(L, 1, SSH_SESSION_MT);
	bool alive = *s != NULL && ssh_session_alive(*s);

	lua_pushboolean(L, alive);
	if (alive)
		return 1;
	lua_pushstring(L, *s != NULL ? ssh_session_message(*s) : "the session was closed");
	lua_pushstring(L, *s != NULL ? ssh_session_code(*s) : "ECLOSED");
	return 3;
}

static int
l_close(lua_State *L)
{
	struct ssh_session **s = luaL_checkudata(L, 1, SSH_SESSION_MT);

	ssh_session_close(*s);
	*s = NULL;
	return 0;
}

static const luaL_Reg functions[] = {
	{ "connect", l_connect },
	{ NULL, NULL }
};

static const luaL_Reg session_methods[] = {
	{ "alive",     l_alive },
	{ "close",     l_close },
	{ "dial",      ssh_bind_dial },
	{ "exec",      ssh_bind_exec },
	{ "info",      l_info },
	{ "listen",    ssh_bind_listen },
	{ "open",      ssh_bind_open },
	{ "subsystem", ssh_bind_subsystem },
	{ NULL, NULL }
};

static const luaL_Reg session_meta[] = {
	{ "__close", l_close },
	{ "__gc",    l_close },
	{ NULL, NULL }
};

static const luaL_Reg login_methods[] = {
	{ "answer",  l_answer },
	{ "close",   l_login_close },
	{ "waiting", l_waiting },
	{ NULL, NULL }
};

static const luaL_Reg login_meta[] = {
	{ "__close", l_login_close },
	{ "__gc",    l_login_close },
	{ NULL, NULL }
};

static const luaL_Reg hub_meta[] = { { "__gc", l_hub_gc }, { NULL, NULL } };

int luaopen_runbook_core_ssh(lua_State *L);

int
luaopen_runbook_core_ssh(lua_State *L)
{
	bind_class(L, HUB_MT, NULL, hub_meta);
	bind_class(L, LOGIN_MT, login_methods, login_meta);
	bind_class(L, SSH_SESSION_MT, session_methods, session_meta);
	ssh_bind_channel_classes(L);
	ssh_bind_listen_class(L);
	luaL_newlib(L, functions);
	return 1;
}
