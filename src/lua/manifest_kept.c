/* manifest_kept.c - the part of "runbook.core.manifest" that is about manifests as they were; see ../manifest_kept.c. */
#include "manifest.h"

#include <string.h>

static int
push_strangers(lua_State *L, struct manifest_job *job)
{
	manifest_push_kind(L, &((struct manifest_strangers *)job)->found);
	return 1;
}

/* strangers(directory, unit, kept) -> { count, examples } */
int
manifest_l_strangers(lua_State *L)
{
	size_t length;
	const char *directory = bind_path(L, 1), *unit = luaL_checklstring(L, 2, &length), *kept = bind_path(L, 3);
	luaL_argcheck(L, manifest_unit_is_good((struct text){ (const unsigned char *)unit, length }), 2, "no unit can be called so");
	bind_permit(L, PERMIT_READ);
	struct manifest_strangers *s = manifest_push_job(L, sizeof *s, "strangers of a unit", manifest_strangers_run, manifest_strangers_release,
	                                        push_strangers);
	s->directory = manifest_copy(L, directory, strlen(directory));
	s->kept = manifest_copy(L, kept, strlen(kept));
	s->unit = manifest_copy(L, unit, length);
	s->unit_length = length;
	return manifest_start_job(L);
}

static int
push_kept(lua_State *L, struct manifest_job *job)
{
	lua_pushinteger(L, (lua_Integer)((struct manifest_keep *)job)->kept);
	return 1;
}

/* keep{...} -> units */
int
manifest_l_keep(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	const char *directory = manifest_text(L, 1, "directory", NULL), *into = manifest_text(L, 1, "into", NULL);
	lua_Integer n = manifest_list(L, 1, "units");	/* list */
	manifest_check_units(L, n);
	bind_permit(L, PERMIT_CHANGE);
	struct manifest_keep *k = manifest_push_job(L, sizeof *k, "keeping manifests", manifest_keep_run, manifest_keep_release, push_kept);
	k->directory = manifest_copy(L, directory, strlen(directory));
	k->into = manifest_copy(L, into, strlen(into));
	for (lua_Integer i = 1; i <= n; i++) {
		size_t length;
		lua_rawgeti(L, -2, i);
		const char *name = lua_tolstring(L, -1, &length);
		manifest_names_add(&k->units, name, length);
		lua_pop(L, 1);
	}
	return manifest_start_job(L);
}
