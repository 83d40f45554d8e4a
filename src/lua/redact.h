/* lua/redact.h - the redactor of a host, which knows every secret made in it. */
#ifndef RUNBOOK_LUA_REDACT_H
#define RUNBOOK_LUA_REDACT_H

#include <lua.h>

#include "../redact.h"

/* Made at the first call; lives as long as the Lua state.  Pushes its userdata.  [-0, +1, m] */
struct redact *redact_push_host(lua_State *L);

int luaopen_runbook_core_redact(lua_State *L);

#endif
