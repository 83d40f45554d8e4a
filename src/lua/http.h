/* lua/http.h - options that requests and websockets have in common. */
#ifndef RUNBOOK_LUA_HTTP_H
#define RUNBOOK_LUA_HTTP_H

#include <lua.h>

#include "../http.h"

/*
 * The connections that this state keeps under `key`, made for the first who asks; at most `per_host` to one host at a time,
 * 0 for no such limit.  NULL and *why without libcurl.  [-0, +0, m]
 */
struct http *http_connections(lua_State *L, const void *key, int per_host, const char **why);

/*
 * Of the table at 1: url, connect_timeout, proxy, ca, certificate, key, connect_to, insecure.  What is read stays on the
 * stack, which keeps it alive until the engine has its copies.  [-0, +n, v]
 */
void http_check_way(lua_State *L, struct http_options *o);

/* The headers of the table at 1, { name, value } each; pushes what holds them.  [-0, +2, v] */
const char **http_check_headers(lua_State *L);
/* Header values may be secrets: the engine has its own copy of them now. */
void http_forget_headers(const char **lines);

/* "Name: value\r\n"... as { "Name", "value", ... }.  [-0, +1, m] */
void http_push_headers(lua_State *L, const char *text, size_t length);

#endif
