/*
 * lua/dns.c - the "runbook.core.dns" module.
 *
 * Marshalling only: messages and servers are in ../dns.c, policy in lib/runbook/dns.lua.
 */
#include "../dns.h"

#include <string.h>

#include "bind.h"

#define EXCHANGE_MT "runbook.dns.exchange"
#define LOOKUP_MT   "runbook.dns.lookup"

#define TIMEOUT     5.0		/* seconds */
#define RECORDS_MAX 1000000

struct exchange_op {
	struct task_op op;
	struct dns_exchange *exchange;	/* NULL once released */
};

struct lookup_op {
	struct task_op op;
	struct dns_lookup *lookup;	/* NULL once released */
};

static void
exchange_release(struct task_op *op)
{
	struct exchange_op *x = (struct exchange_op *)op;

	dns_free(x->exchange);
	x->exchange = NULL;
}

/* { { name =, ttl =, type =, data = }... } as field `name` of the table on top.  [-0, +0, m] */
static void
set_records(lua_State *L, const char *name, const struct dns_record *records, size_t count)
{
	lua_createtable(L, (int)count, 0);		/* answer list */
	for (size_t i = 0; i < count; i++) {
		lua_createtable(L, 0, 4);		/* answer list record */
		lua_pushstring(L, records[i].name);
		lua_setfield(L, -2, "name");
		lua_pushinteger(L, records[i].ttl);
		lua_setfield(L, -2, "ttl");
		lua_pushstring(L, records[i].type);
		lua_setfield(L, -2, "type");
		lua_pushstring(L, records[i].data);
		lua_setfield(L, -2, "data");
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, name);			/* answer */
}

static void
set_flag(lua_State *L, const char *name, bool value)
{
	lua_pushboolean(L, value);
	lua_setfield(L, -2, name);
}

static int
exchange_finish(lua_State *L, struct task_op *op)
{
	const struct dns_result *r = dns_result(((struct exchange_op *)op)->exchange);
	const struct dns_answer *a = &r->answer;

	if (r->code != NULL)
		return bind_fail(L, r->code, "%s", r->message);
	lua_createtable(L, 0, 10);			/* answer */
	lua_pushstring(L, a->rcode);
	lua_setfield(L, -2, "rcode");
	set_flag(L, "authoritative", a->authoritative);
	set_flag(L, "recursion", a->recursion);
	set_flag(L, "authentic", a->authentic);
	set_flag(L, "tcp", r->tcp);
	set_records(L, "answer", a->records[DNS_ANSWER], a->counts[DNS_ANSWER]);
	set_records(L, "authority", a->records[DNS_AUTHORITY], a->counts[DNS_AUTHORITY]);
	set_records(L, "additional", a->records[DNS_ADDITIONAL], a->counts[DNS_ADDITIONAL]);
	if (r->key_error != 0) {
		lua_pushinteger(L, r->key_error);
		lua_setfield(L, -2, "key_error");
		lua_pushinteger(L, r->skew);
		lua_setfield(L, -2, "skew");
	}
	exchange_release(op);
	return 1;
}

/* ---- options ---- */

static bool
check_flag(lua_State *L, const char *name)
{
	bool set;

	lua_getfield(L, 1, name);
	set = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return set;
}

static const char *
check_needed(lua_State *L, int idx, const char *name)
{
	const char *text = bind_text(L, idx, name, NULL);

	if (text == NULL)
		luaL_error(L, "%s is missing", name);
	return text;
}

/* Whom to ask, with which key and how long.  Leaves what it reads on the stack.  [-0, +n, v] */
static void
check_common(lua_State *L, struct dns_options *o)
{
	lua_Integer port, records;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	luaL_checkstack(L, 32, NULL);
	o->address = check_needed(L, 1, "address");
	lua_getfield(L, 1, "port");
	port = luaL_optinteger(L, -1, 53);
	lua_getfield(L, 1, "timeout");
	o->timeout = luaL_optnumber(L, -1, TIMEOUT);
	lua_getfield(L, 1, "records");
	records = luaL_optinteger(L, -1, RECORDS_MAX);
	luaL_argcheck(L, port > 0 && port <= 65535, 1, "a port from 1 to 65535");
	luaL_argcheck(L, o->timeout > 0 && o->timeout < 1e6, 1, "timeout: seconds expected");
	luaL_argcheck(L, records > 0, 1, "records: a number above 0");
	o->port = (int)port;
	o->records = (size_t)records;
	if (lua_getfield(L, 1, "key") != LUA_TNIL) {
		int key = lua_gettop(L);

		luaL_checktype(L, key, LUA_TTABLE);
		o->key_name = check_needed(L, key, "name");
		o->key_algorithm = check_needed(L, key, "algorithm");
		o->key_secret = bind_text(L, key, "secret", &o->key_secret_length);
		luaL_argcheck(L, o->key_secret != NULL, 1, "key: its secret is missing");
	}
}

static int
exchange(lua_State *L, const struct dns_options *o, const char *what)
{
	char why[512];
	struct exchange_op *x = lua_newuserdatauv(L, sizeof *x, 0);	/* ... op */

	*x = (struct exchange_op){ .op = { .finish = exchange_finish, .cancel = exchange_release, .what = what } };
	luaL_setmetatable(L, EXCHANGE_MT);
	x->exchange = dns_start(host_loop(host_of(L)), o, bind_wake, x, why, sizeof why);
	if (x->exchange == NULL)
		return bind_fail(L, "EINVAL", "%s", why);
	return task_await(L, &x->op);
}

/* query(options) -> answer | nil, message, code */
static int
l_query(lua_State *L)
{
	struct dns_options o = { .zone = NULL };

	check_common(L, &o);
	o.name = check_needed(L, 1, "name");
	o.type = check_needed(L, 1, "type");
	o.recurse = check_flag(L, "recurse");
	o.dnssec = check_flag(L, "dnssec");
	o.tcp = check_flag(L, "tcp");
	bind_permit(L, PERMIT_READ);
	return exchange(L, &o, "a DNS answer");
}

/* update(options) -> answer | nil, message, code */
static int
l_update(lua_State *L)
{
	struct dns_options o = { .name = NULL };

	check_common(L, &o);
	o.zone = check_needed(L, 1, "zone");
	o.lines = check_needed(L, 1, "lines");
	bind_permit(L, dns_lines_change(o.lines) ? PERMIT_CHANGE : PERMIT_READ);
	return exchange(L, &o, "a DNS update");
}

/* ---- addresses ---- */

static void
lookup_release(struct task_op *op)
{
	struct lookup_op *x = (struct lookup_op *)op;

	dns_lookup_free(x->lookup);
	x->lookup = NULL;
}

static int
lookup_finish(lua_State *L, struct task_op *op)
{
	const struct dns_lookup *l = ((struct lookup_op *)op)->lookup;
	char text[128];

	if (dns_lookup_error(l) != 0)
		return bind_fail(L, "ERESOLVE", "%s", uv_strerror(dns_lookup_error(l)));
	lua_newtable(L);				/* addresses */
	for (size_t i = 0; dns_lookup_address(l, i, text, sizeof text); i++) {
		lua_pushstring(L, text);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lookup_release(op);
	return 1;
}

/* addresses(host) -> list | nil, message, code */
static int
l_addresses(lua_State *L)
{
	const char *host = luaL_checkstring(L, 1);
	struct lookup_op *x;

	bind_permit(L, PERMIT_READ);
	x = lua_newuserdatauv(L, sizeof *x, 0);		/* host op */
	*x = (struct lookup_op){
		.op = { .finish = lookup_finish, .cancel = lookup_release, .what = "the addresses of a host" }
	};
	luaL_setmetatable(L, LOOKUP_MT);
	if ((x->lookup = dns_lookup_start(host_loop(host_of(L)), host, bind_wake, x)) == NULL)
		return bind_fail(L, "EINVAL", "%s: this is no host", host);
	return task_await(L, &x->op);
}

static const luaL_Reg functions[] = {
	{ "addresses", l_addresses },
	{ "query",     l_query },
	{ "update",    l_update },
	{ NULL, NULL }
};

int luaopen_runbook_core_dns(lua_State *L);

int
luaopen_runbook_core_dns(lua_State *L)
{
	bind_op_class(L, EXCHANGE_MT);
	bind_op_class(L, LOOKUP_MT);
	luaL_newlib(L, functions);
	return 1;
}
