/* modules.h - the bindings of src/lua/; the table is made by the Makefile from their file names. */
#ifndef RUNBOOK_MODULES_H
#define RUNBOOK_MODULES_H

#include <lauxlib.h>

/* { "runbook.core.task", luaopen_runbook_core_task }, ..., ended by NULL */
extern const luaL_Reg runbook_core_modules[];

#endif
