/*
 * lua/http.c - the "runbook.core.http" module.
 *
 * Marshalling only: requests are in ../http.c, policy in lib/runbook/http.lua.
 */
#include "../http.h"

#include <string.h>

#include "../host.h"
#include "bind.h"
#include "http.h"

#define HTTP_MT    "runbook.http"
#define REQUEST_MT "runbook.http.request"

#define CONNECTIONS_PER_HOST 32

/*
 * Their addresses are the registry keys of this state's connections: those that many requests share,
 * and those of answers that may last for hours, which must not keep the others waiting.
 */
static const char shared_key, lasting_key;

struct request_op {
	struct task_op op;
	struct http_request *request;	/* NULL once released */
};

static int
http_gc(lua_State *L)
{
	struct http **h = luaL_checkudata(L, 1, HTTP_MT);

	http_free(*h);
	*h = NULL;
	return 0;
}

static const luaL_Reg http_meta[] = { { "__gc", http_gc }, { NULL, NULL } };

struct http *
http_connections(lua_State *L, const void *key, int per_host, const char **why)
{
	struct http **h;

	if (lua_rawgetp(L, LUA_REGISTRYINDEX, key) == LUA_TNIL) {
		h = lua_newuserdatauv(L, sizeof *h, 0);	/* nil h */
		*h = NULL;
		bind_class(L, HTTP_MT, NULL, http_meta);
		luaL_setmetatable(L, HTTP_MT);
		lua_pushvalue(L, -1);
		lua_rawsetp(L, LUA_REGISTRYINDEX, key);
		lua_remove(L, -2);			/* h */
	}
	h = lua_touserdata(L, -1);
	if (*h == NULL)
		*h = http_new(host_loop(host_of(L)), per_host, why);
	lua_pop(L, 1);
	return *h;
}

static void
request_release(struct task_op *op)
{
	struct request_op *x = (struct request_op *)op;

	http_request_free(x->request);
	x->request = NULL;
}

void
http_push_headers(lua_State *L, const char *text, size_t length)
{
	const char *end = text + length, *line, *next, *colon;
	lua_Integer n = 0;

	lua_newtable(L);
	for (line = text; line < end; line = next) {
		const char *stop = memchr(line, '\n', (size_t)(end - line));

		next = stop != NULL ? stop + 1 : end;
		if (stop == NULL)
			stop = end;
		while (stop > line && (stop[-1] == '\r' || stop[-1] == ' ' || stop[-1] == '\t'))
			stop--;
		if ((colon = memchr(line, ':', (size_t)(stop - line))) == NULL)
			continue;
		lua_pushlstring(L, line, (size_t)(colon - line));
		lua_rawseti(L, -2, ++n);
		for (colon++; colon < stop && (*colon == ' ' || *colon == '\t'); colon++)
			;
		lua_pushlstring(L, colon, (size_t)(stop - colon));
		lua_rawseti(L, -2, ++n);
	}
}

static int
request_finish(lua_State *L, struct task_op *op)
{
	const struct http_response *r = http_response(((struct request_op *)op)->request);

	if (r->code != NULL)
		return bind_fail(L, r->code, "%s", r->message);
	lua_createtable(L, 0, 5);			/* answer */
	lua_pushinteger(L, r->status);
	lua_setfield(L, -2, "status");
	http_push_headers(L, r->headers, r->headers_length);
	lua_setfield(L, -2, "headers");
	lua_pushinteger(L, (lua_Integer)r->body_length);
	lua_setfield(L, -2, "length");
	if (r->body != NULL) {
		lua_pushlstring(L, r->body, r->body_length);
		lua_setfield(L, -2, "body");
	}
	lua_pushstring(L, r->redirect);
	lua_setfield(L, -2, "redirect");
	request_release(op);
	return 1;
}

/* ---- options ---- */

static double
check_seconds(lua_State *L, const char *name)
{
	double seconds;

	lua_getfield(L, 1, name);
	seconds = luaL_optnumber(L, -1, 0);
	lua_pop(L, 1);
	if (!(seconds >= 0 && seconds < 1e9))
		luaL_error(L, "%s: seconds expected", name);
	return seconds;
}

static bool
is_token(const char *s, size_t length)
{
	static const char others[] = "!#$%&'*+-.^_`|~";

	for (size_t i = 0; i < length; i++) {
		char c = s[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		      (c != '\0' && strchr(others, c) != NULL)))
			return false;
	}
	return length > 0;
}

/* The parts of a header's value behind one another, at `to` if that is not NULL; returns their length.  [-0, +0, v] */
static size_t
join_value(lua_State *L, int idx, const char *name, char *to)
{
	size_t total = 0, length;
	lua_Integer parts = lua_type(L, idx) == LUA_TTABLE ? (lua_Integer)lua_rawlen(L, idx) : 1;

	for (lua_Integer i = 1; i <= parts; i++) {
		const char *bytes;

		if (lua_type(L, idx) == LUA_TTABLE)
			lua_rawgeti(L, idx, i);
		else
			lua_pushvalue(L, idx);
		bytes = bind_bytes(L, -1, &length);
		if (memchr(bytes, '\0', length) != NULL || memchr(bytes, '\r', length) != NULL ||
		    memchr(bytes, '\n', length) != NULL)
			luaL_error(L, "headers: the value of %s holds a line break or zero byte", name);
		if (to != NULL)
			memcpy(to + total, bytes, length);
		total += length;
		lua_pop(L, 1);
	}
	return total;
}

/*
 * The header { name, value } on top as libcurl wants it: "name: value", "name;" when it is empty.
 * value: a string, a secret, or a list of them.  [-1, +1, v]
 */
static const char *
make_header(lua_State *L)
{
	size_t name_length, length;
	const char *name;
	char *line;
	int value;

	luaL_checktype(L, -1, LUA_TTABLE);
	lua_rawgeti(L, -1, 1);
	lua_rawgeti(L, -2, 2);				/* pair name value */
	value = lua_gettop(L);
	name = luaL_checklstring(L, -2, &name_length);
	if (!is_token(name, name_length))
		luaL_error(L, "headers: `%s` is no name of a header", name);
	length = join_value(L, value, name, NULL);
	line = lua_newuserdatauv(L, name_length + length + 3, 0);	/* pair name value line */
	memcpy(line, name, name_length);
	memcpy(line + name_length, length > 0 ? ": " : ";", length > 0 ? 2 : 1);
	join_value(L, value, name, line + name_length + 2);
	line[name_length + (length > 0 ? length + 2 : 1)] = '\0';
	lua_replace(L, -4);
	lua_pop(L, 2);					/* line */
	return line;
}

const char **
http_check_headers(lua_State *L)
{
	lua_Integer n;
	const char **lines;

	if (lua_getfield(L, 1, "headers") == LUA_TNIL) {
		lua_pop(L, 1);
		lua_newtable(L);
	}
	luaL_checktype(L, -1, LUA_TTABLE);
	n = (lua_Integer)lua_rawlen(L, -1);
	lua_createtable(L, (int)n, 0);			/* given kept */
	lines = lua_newuserdatauv(L, ((size_t)n + 1) * sizeof *lines, 0);	/* given kept lines */
	for (lua_Integer i = 1; i <= n; i++) {
		lua_rawgeti(L, -3, i);
		lines[i - 1] = make_header(L);
		lua_rawseti(L, -3, i);
	}
	lines[n] = NULL;
	lua_remove(L, -3);				/* kept lines */
	return lines;
}

void
http_forget_headers(const char **lines)
{
	for (; *lines != NULL; lines++)
		explicit_bzero((char *)*lines, strlen(*lines));
}

static struct stream *
check_stream_field(lua_State *L, const char *name)
{
	if (lua_getfield(L, 1, name) == LUA_TNIL)
		return NULL;
	return bind_check_stream(L, -1);
}

static bool
is_set(lua_State *L, const char *name)
{
	bool set;

	lua_getfield(L, 1, name);
	set = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return set;
}

static bool
only_reads(lua_State *L, const char *method)
{
	return is_set(L, "reads") || strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 || strcmp(method, "OPTIONS") == 0;
}

static lua_Integer
check_integer(lua_State *L, const char *name, lua_Integer otherwise)
{
	lua_Integer n;

	lua_getfield(L, 1, name);
	n = luaL_optinteger(L, -1, otherwise);
	lua_pop(L, 1);
	return n;
}

void
http_check_way(lua_State *L, struct http_options *o)
{
	o->url = bind_text(L, 1, "url", NULL);
	luaL_argcheck(L, o->url != NULL, 1, "url expected");
	o->connect_timeout = check_seconds(L, "connect_timeout");
	o->proxy = bind_text(L, 1, "proxy", NULL);
	o->ca = bind_text(L, 1, "ca", &o->ca_length);
	o->certificate = bind_text(L, 1, "certificate", &o->certificate_length);
	o->key = bind_text(L, 1, "key", &o->key_length);
	o->connect_to = bind_text(L, 1, "connect_to", NULL);
	o->insecure = is_set(L, "insecure");
}

/* Leaves what it reads on the stack.  [-0, +n, v] */
static struct http_options
check_options(lua_State *L)
{
	struct http_options o = { .method = bind_text(L, 1, "method", NULL) };
	lua_Integer max = check_integer(L, "max", 8 << 20);

	luaL_argcheck(L, o.method != NULL && is_token(o.method, strlen(o.method)), 1, "method expected");
	http_check_way(L, &o);
	luaL_argcheck(L, max >= 0, 1, "max is negative");
	o.max_body = (size_t)max;
	if (lua_getfield(L, 1, "body") != LUA_TNIL)
		o.body = bind_bytes(L, -1, &o.body_length);
	o.from = check_stream_field(L, "from");
	o.from_length = check_integer(L, "from_length", -1);
	o.to = check_stream_field(L, "to");
	o.timeout = check_seconds(L, "timeout");
	o.stall = check_seconds(L, "stall");
	o.user = bind_text(L, 1, "user", NULL);
	o.password = bind_text(L, 1, "password", NULL);
	if (o.user != NULL && o.password == NULL)
		o.password = "";
	return o;
}

/* request(options) -> answer | nil, message, code */
static int
l_request(lua_State *L)
{
	struct http_options o;
	const char **headers, *why;
	struct request_op *x;
	struct http *h;
	bool lasting;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	lasting = is_set(L, "lasting");
	luaL_checkstack(L, 40, NULL);
	o = check_options(L);
	o.headers = headers = http_check_headers(L);
	o.once = !only_reads(L, o.method);
	o.plain = lasting;	/* on a shared connection one that is not read would hold up the others */
	bind_permit(L, o.once ? PERMIT_CHANGE : PERMIT_READ);
	h = lasting ? http_connections(L, &lasting_key, 0, &why) : http_connections(L, &shared_key, CONNECTIONS_PER_HOST, &why);
	if (h == NULL)
		return bind_fail(L, "EUNSUPPORTED", "%s", why);
	x = lua_newuserdatauv(L, sizeof *x, 1);
	*x = (struct request_op){
		.op = { .finish = request_finish, .cancel = request_release, .what = "an HTTP answer" }
	};
	luaL_setmetatable(L, REQUEST_MT);
	lua_createtable(L, 3, 0);			/* body and streams live as long as the request */
	lua_getfield(L, 1, "body");
	lua_rawseti(L, -2, 1);
	lua_getfield(L, 1, "from");
	lua_rawseti(L, -2, 2);
	lua_getfield(L, 1, "to");
	lua_rawseti(L, -2, 3);
	lua_setiuservalue(L, -2, 1);
	x->request = http_start(h, &o, bind_wake, x);
	http_forget_headers(headers);
	if (x->request == NULL)
		return bind_fail(L, "EINVAL", "a request that libcurl does not take");
	return task_await(L, &x->op);
}

static const luaL_Reg functions[] = {
	{ "request", l_request },
	{ NULL, NULL }
};

int luaopen_runbook_core_http(lua_State *L);

int
luaopen_runbook_core_http(lua_State *L)
{
	bind_op_class(L, REQUEST_MT);
	luaL_newlib(L, functions);
	return 1;
}
