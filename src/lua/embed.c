/*
 * lua/embed.c - the "runbook.core.embed" module: the files that are part of the binary, and the embedder's sink.
 */
#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "../embedded.h"
#include "../host.h"
#include "bind.h"

/* list(prefix): names, sorted */
static int
l_list(lua_State *L)
{
	size_t length;
	const char *prefix = luaL_optlstring(L, 1, "", &length);
	lua_Integer n = 0;

	lua_newtable(L);
	for (size_t i = 0; i < embedded_count; i++) {
		if (strncmp(embedded_files[i].name, prefix, length) != 0)
			continue;
		lua_pushstring(L, embedded_files[i].name);
		lua_rawseti(L, -2, ++n);
	}
	return 1;
}

/* source(name): text, chunk name; nil when there is none */
static int
l_source(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);

	for (size_t i = 0; i < embedded_count; i++) {
		const struct embedded *e = &embedded_files[i];

		if (strcmp(e->name, name) != 0)
			continue;
		lua_pushlstring(L, (const char *)e->bytes, e->length);
		lua_pushstring(L, e->chunk);
		return 2;
	}
	return 0;
}

/* send(json): true when the embedding program took it */
static int
l_send(lua_State *L)
{
	struct runbook_host *h = host_of(L);
	size_t length;
	const char *event = luaL_checklstring(L, 1, &length);

	if (h->sink != NULL)
		h->sink(h->sink_arg, event, length);
	lua_pushboolean(L, h->sink != NULL);
	return 1;
}

static int
l_has_sink(lua_State *L)
{
	lua_pushboolean(L, host_of(L)->sink != NULL);
	return 1;
}

static int
l_pid(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)getpid());
	return 1;
}

/* The login this process runs as; its number where it has no name. */
static int
l_user(lua_State *L)
{
	struct passwd *entry = getpwuid(geteuid());

	if (entry != NULL)
		lua_pushstring(L, entry->pw_name);
	else
		lua_pushfstring(L, "%d", (int)geteuid());
	return 1;
}

static int
l_version(lua_State *L)
{
	lua_pushliteral(L, RUNBOOK_VERSION);
	return 1;
}

static const luaL_Reg functions[] = {
	{ "has_sink", l_has_sink },
	{ "list",     l_list },
	{ "pid",      l_pid },
	{ "send",     l_send },
	{ "source",   l_source },
	{ "user",     l_user },
	{ "version",  l_version },
	{ NULL, NULL }
};

int luaopen_runbook_core_embed(lua_State *L);

int
luaopen_runbook_core_embed(lua_State *L)
{
	luaL_newlib(L, functions);
	return 1;
}
