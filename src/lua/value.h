/*
 * value.h - how the values of JSON and YAML look in Lua.
 *
 * null is one userdata; a list and a map carry a metatable each, so that an empty one keeps its kind.
 */
#ifndef RUNBOOK_LUA_VALUE_H
#define RUNBOOK_LUA_VALUE_H

#include <stdbool.h>

#include <lua.h>

enum value_kind { VALUE_PLAIN, VALUE_ARRAY, VALUE_OBJECT };

void value_push_null(lua_State *L);		/* [-0, +1, m] */
bool value_is_null(lua_State *L, int idx);
/* The metatables that mark an array and an object, in this order.  [-0, +2, m] */
void value_push_marks(lua_State *L);
/* What the table at idx was marked as.  [-0, +0, m] */
enum value_kind value_kind(lua_State *L, int idx);

#endif
