/* lua/secret.h - secret values: userdata whose bytes only C can see. */
#ifndef RUNBOOK_LUA_SECRET_H
#define RUNBOOK_LUA_SECRET_H

#include <lua.h>

#include "../secret.h"

/* The secret at idx, or NULL when something else is there.  [-0, +0, m] */
struct secret *secret_test(lua_State *L, int idx);

/* Its bytes, valid as long as the value; NULL when something else is there; raises while they are not known.  [-0, +0, v] */
const char *secret_bytes_at(lua_State *L, int idx, size_t *length);

/*
 * A secret value made of bytes, which are copied; the host's redactor learns it.  [-0, +1, m]
 * Returns whether it was long enough to be redacted.
 */
int secret_push(lua_State *L, const char *name, const void *bytes, size_t length);

int luaopen_runbook_core_secret(lua_State *L);

#endif
