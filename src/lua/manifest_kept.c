/* manifest_kept.c - the part of "runbook.core.manifest" that only looks: see ../manifest_kept.c and ../manifest_census.c. */
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

static int
push_census(lua_State *L, struct manifest_job *job)
{
	static const char *const kinds[CENSUS_KINDS] = {
		"pipe", "socket", "device", "symlink", "long name", "long path", "not UTF-8", "case", "large", "linked", "linked out",
	};
	const struct manifest_census *c = (struct manifest_census *)job;
	lua_newtable(L);				/* census */
	for (int i = 0; i < CENSUS_KINDS; i++) {
		if (c->kinds[i].count == 0)
			continue;
		manifest_push_kind(L, &c->kinds[i]);	/* census kind */
		lua_setfield(L, -2, kinds[i]);
	}
	return 1;
}

/* census{...} -> kinds */
int
manifest_l_census(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	const char *directory = manifest_text(L, 1, "directory", NULL);
	lua_Integer name_max = manifest_integer(L, 1, "name_max", 0), path_max = manifest_integer(L, 1, "path_max", 0);
	lua_Integer base = manifest_integer(L, 1, "base", 0), size_max = manifest_integer(L, 1, "size_max", 0);
	bind_permit(L, PERMIT_READ);
	struct manifest_census *c = manifest_push_job(L, sizeof *c, "census of a source", manifest_census_run, manifest_census_release,
	                                              push_census);
	c->directory = manifest_copy(L, directory, strlen(directory));
	c->name_max = (size_t)name_max;
	c->path_max = (size_t)path_max;
	c->base = (size_t)base;
	c->size_max = (uint64_t)size_max;
	c->folds = manifest_flag(L, 1, "folds");
	c->utf8 = manifest_flag(L, 1, "utf8");
	return manifest_start_job(L);
}
