/* lua/manifest.h - what the files of the manifest's binding share. */
#ifndef RUNBOOK_LUA_MANIFEST_H
#define RUNBOOK_LUA_MANIFEST_H

#include "../manifest_work.h"
#include "bind.h"

/* Options of the table at idx; what is of the wrong type raises.  All [-0, +0, v] */
bool manifest_flag(lua_State *L, int idx, const char *name);
lua_Integer manifest_integer(lua_State *L, int idx, const char *name, lua_Integer otherwise);
const char *manifest_text(lua_State *L, int idx, const char *name, const char *otherwise);
enum manifest_side manifest_side_of(lua_State *L, int idx, const char *name);
struct owner_map manifest_owner_of(lua_State *L, int idx);
/* The field is a list of texts, or nil: pushes it.  [-0, +1, v] */
lua_Integer manifest_list(lua_State *L, int idx, const char *name);

/* A copy; raises when memory ran out. */
char *manifest_copy(lua_State *L, const char *text, size_t length);

/* The list on top of the stack holds names of units, or it raises.  [-0, +0, v] */
void manifest_check_units(lua_State *L, lua_Integer n);

/* A job of that size, all zero, which the op on top of the stack owns.  [-0, +1, m] */
void *manifest_push_job(lua_State *L, size_t size, const char *what, void (*run)(struct manifest_job *),
                        void (*release)(struct manifest_job *), int (*push)(lua_State *L, struct manifest_job *job));
/* The op is on top of the stack; what the caller returns. */
int manifest_start_job(lua_State *L);

/* manifest_kept.c */
int manifest_l_census(lua_State *L);
int manifest_l_keep(lua_State *L);
int manifest_l_strangers(lua_State *L);

/*
 * A sink without an engine, and the engine for the one on top of the stack, which is then what the caller returns: the
 * sink, or nil, message, code.  push makes what `finish` returns.  [-0, +1, m]
 */
void manifest_push_sink(lua_State *L, void (*push)(lua_State *L, struct manifest_sink *s));
int manifest_start_sink(lua_State *L, struct manifest_sink *s);
void manifest_sink_classes(lua_State *L);

/* Results as tables.  All [-0, +1, m] */
void manifest_push_report(lua_State *L, const struct manifest_scan *s);
void manifest_push_outcome(lua_State *L, const struct manifest_results *r);
void manifest_push_comparison(lua_State *L, const struct manifest_comparison *c);
void manifest_push_kind(lua_State *L, const struct manifest_kind *k);	/* [+1]: count and examples */
void manifest_push_units(lua_State *L, const struct manifest_units *u);
void manifest_push_shard(lua_State *L, const struct manifest_work *w, const struct manifest_shard *s);

/* manifest_parts.c */
int manifest_l_parts(lua_State *L);
void manifest_parts_class(lua_State *L);

#endif
