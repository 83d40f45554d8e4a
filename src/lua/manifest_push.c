/* lua/manifest_push.c - what the manifest's engine found, as tables; options, as they are read. */
#include "manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool
manifest_flag(lua_State *L, int idx, const char *name)
{
	lua_getfield(L, idx, name);
	bool flag = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return flag;
}

lua_Integer
manifest_integer(lua_State *L, int idx, const char *name, lua_Integer otherwise)
{
	lua_Integer n = otherwise;
	int good = 1;
	if (lua_getfield(L, idx, name) != LUA_TNIL)
		n = lua_tointegerx(L, -1, &good);
	if (!good || n < 0)
		luaL_error(L, "option '%s' must be an integer from 0 on", name);
	lua_pop(L, 1);
	return n;
}

const char *
manifest_text(lua_State *L, int idx, const char *name, const char *otherwise)
{
	const char *text = otherwise;
	int type = lua_getfield(L, idx, name);
	if (type == LUA_TSTRING && strlen(lua_tostring(L, -1)) == lua_rawlen(L, -1))
		text = lua_tostring(L, -1);	/* the table keeps it */
	else if (type != LUA_TNIL || !otherwise)
		luaL_error(L, "option '%s' must be a string without zero bytes", name);
	lua_pop(L, 1);
	return text;
}

static enum manifest_side
side_of_text(lua_State *L, const char *text)
{
	if (strcmp(text, "source") != 0 && strcmp(text, "target") != 0)
		luaL_error(L, "a side is 'source' or 'target', not '%s'", text);
	return *text == 's' ? SIDE_SOURCE : SIDE_TARGET;
}

enum manifest_side
manifest_side_of(lua_State *L, int idx, const char *name)
{
	return side_of_text(L, name ? manifest_text(L, idx, name, NULL) : luaL_checkstring(L, idx));
}

struct owner_map
manifest_owner_of(lua_State *L, int idx)
{
	struct owner_map owner;
	const char *text = manifest_text(L, idx, "owner", "keep");
	if (!owner_map_of(&owner, text))
		luaL_error(L, "option 'owner' must be 'keep' or 'UID:GID', not '%s'", text);
	return owner;
}

lua_Integer
manifest_list(lua_State *L, int idx, const char *name)
{
	int type = lua_getfield(L, idx, name);
	if (type != LUA_TNIL && type != LUA_TTABLE)
		luaL_error(L, "option '%s' must be a list", name);
	lua_Integer n = type == LUA_TTABLE ? (lua_Integer)lua_rawlen(L, -1) : 0;
	for (lua_Integer i = 1; i <= n; i++) {
		if (lua_rawgeti(L, -1, i) != LUA_TSTRING || strlen(lua_tostring(L, -1)) != lua_rawlen(L, -1))
			luaL_error(L, "option '%s' must hold strings without zero bytes", name);
		lua_pop(L, 1);
	}
	return n;
}

char *
manifest_copy(lua_State *L, const char *text, size_t length)
{
	char *copy = malloc(length + 1);
	if (!copy)
		luaL_error(L, "out of memory");
	else
		memcpy(copy, text, length + 1);
	return copy;
}

static void
set_integer(lua_State *L, const char *name, uint64_t value)
{
	lua_pushinteger(L, (lua_Integer)value);
	lua_setfield(L, -2, name);
}

static void
set_number(lua_State *L, const char *name, double value)
{
	lua_pushnumber(L, value);
	lua_setfield(L, -2, name);
}

static void
set_flag(lua_State *L, const char *name, bool value)
{
	lua_pushboolean(L, value);
	lua_setfield(L, -2, name);
}

static void
set_text(lua_State *L, const char *name, const char *value)
{
	lua_pushstring(L, value ? value : "");
	lua_setfield(L, -2, name);
}

static double
seconds(struct moment m)
{
	return (double)m.seconds + m.nanoseconds / 1e9;
}

/* [-0, +0, m] into the table on top */
static void
set_names(lua_State *L, const char *name, const struct manifest_names *n)
{
	struct reader r = reader_of(n->bytes.bytes, n->bytes.length);
	lua_createtable(L, (int)n->count, 0);
	for (size_t i = 0; i < n->count; i++) {
		struct text t = get_text(&r);
		lua_pushlstring(L, (const char *)t.bytes, t.length);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, name);
}

static void
set_kind(lua_State *L, const struct manifest_kind *k)
{
	set_integer(L, "count", k->count);
	set_names(L, "examples", &k->examples);
}

static const char *
code_of(int error)
{
	if (error == EDQUOT || error == ESTALE) /* libuv knows neither */
		return error == EDQUOT ? "EDQUOT" : "ESTALE";
	return error ? uv_err_name(uv_translate_sys_error(error)) : "";
}

static void
set_problems(lua_State *L, const struct manifest_unit *u)
{
	lua_newtable(L);				/* unit list */
	for (size_t i = 0; u->problems && i < u->problem_count && i < MANIFEST_SHOWN; i++) {
		lua_createtable(L, 0, 4);		/* unit list problem */
		set_text(L, "path", u->problems[i].path);
		set_integer(L, "errno", (uint64_t)u->problems[i].error);
		set_text(L, "code", code_of(u->problems[i].error));
		set_text(L, "what", u->problems[i].what);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, "problems");
	set_integer(L, "problem_count", u->problem_count);
}

static void
set_examples(lua_State *L, const struct manifest_unit *u)
{
	lua_newtable(L);				/* unit list */
	for (size_t i = 0; i < u->example_count; i++) {
		lua_createtable(L, 0, 3);		/* unit list example */
		set_text(L, "path", u->examples[i].path);
		set_number(L, "at", seconds(u->examples[i].at));
		lua_pushlstring(L, &u->examples[i].type, 1);
		lua_setfield(L, -2, "type");
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, "examples");
}

static void
set_owners(lua_State *L, const struct manifest_unit *u)
{
	lua_createtable(L, 0, (int)u->owner_count);	/* unit owners */
	for (size_t i = 0; i < u->owner_count; i++) {
		lua_pushfstring(L, "%I:%I", (LUAI_UACINT)u->owners[i].uid, (LUAI_UACINT)u->owners[i].gid);
		lua_pushinteger(L, (lua_Integer)u->owners[i].names);
		lua_rawset(L, -3);
	}
	lua_setfield(L, -2, "owners");
}

static void
set_amount(lua_State *L, const char *name, uint64_t files, uint64_t bytes)
{
	lua_createtable(L, 0, 2);
	set_integer(L, "files", files);
	set_integer(L, "bytes", bytes);
	lua_setfield(L, -2, name);
}

void
manifest_push_comparison(lua_State *L, const struct manifest_comparison *c)
{
	static const char *const kinds[DIFFERS_KINDS] = {	/* by the bits of row_difference */
		"missing on the target", "only on the target", "type differs", "size differs", "mode differs", "owner differs",
		"time differs", "link target differs", "hardlinks differ", "contents differ", "attributes differ", "not proven",
	};
	lua_createtable(L, 0, 10);			/* comparison */
	set_integer(L, "entries", c->entries);
	set_integer(L, "equal", c->equal);
	set_integer(L, "proven", c->proven);
	set_integer(L, "missing", c->missing);
	set_integer(L, "different", c->different);
	set_integer(L, "extra", c->extra);
	set_integer(L, "extra_ours", c->extra_ours);
	set_amount(L, "unproven", c->unproven_files, c->unproven_bytes);
	set_amount(L, "to_send", c->send_files, c->send_bytes);
	lua_newtable(L);				/* comparison list */
	for (int i = 0; i < DIFFERS_KINDS; i++) {
		if (c->kinds[i].count == 0)
			continue;
		lua_createtable(L, 0, 3);		/* comparison list kind */
		set_text(L, "kind", kinds[i]);
		set_kind(L, &c->kinds[i]);
		lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
	}
	lua_setfield(L, -2, "kinds");
}

static void
push_unit(lua_State *L, const struct manifest_unit *u)
{
	char newest[48];
	lua_createtable(L, 0, 24);			/* unit */
	lua_pushlstring(L, u->name, u->length);
	lua_setfield(L, -2, "name");
	lua_pushlstring(L, (const char *)u->digest, u->digest_length);
	lua_setfield(L, -2, "digest");
	set_flag(L, "same", u->same);
	if (u->first)
		set_flag(L, "first", true);
	set_integer(L, "entries", u->counts.entries);
	set_integer(L, "files", u->counts.files);
	set_integer(L, "directories", u->counts.directories);
	set_integer(L, "bytes", u->counts.bytes);
	set_integer(L, "disk", u->counts.blocks * 512);
	set_integer(L, "special", u->counts.special);
	set_integer(L, "linked", u->counts.linked);
	set_integer(L, "linked_elsewhere", u->counts.linked_elsewhere);
	set_number(L, "newest", seconds(u->counts.newest));
	snprintf(newest, sizeof newest, "%lld.%09u", (long long)u->counts.newest.seconds, (unsigned)u->counts.newest.nanoseconds);
	set_text(L, "newest_ns", newest);
	set_integer(L, "added", u->added);
	set_integer(L, "removed", u->removed);
	set_integer(L, "changed", u->changed);
	set_owners(L, u);
	set_problems(L, u);
	set_examples(L, u);
	if (u->compared) {
		manifest_push_comparison(L, u->compared);
		lua_setfield(L, -2, "compared");
	}
}

void
manifest_push_report(lua_State *L, const struct manifest_scan *s)
{
	lua_createtable(L, 0, 10);			/* report */
	set_integer(L, "version", s->version);
	set_text(L, "boot", s->boot);
	set_number(L, "clock", seconds(s->clock));
	set_integer(L, "device", s->device);
	set_integer(L, "inode", s->inode);
	set_text(L, "file_system", s->file_system);
	set_integer(L, "page", s->page);
	set_number(L, "stat_seconds", (double)s->stat_nanoseconds / 1e9);
	lua_createtable(L, (int)s->unit_count, 0);	/* report units */
	for (size_t i = 0; i < s->unit_count; i++) {
		push_unit(L, &s->units[i]);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, "units");
	set_names(L, "vanished", &s->vanished);
}

static void
push_fault(lua_State *L, const struct manifest_fault *f)
{
	static const char *const statuses[] = { "done", "vanished", "changing", "source", "target", "conflict", "unkept", "torn" };
	lua_createtable(L, 0, 5);			/* fault */
	set_text(L, "status", statuses[f->status]);
	set_text(L, "code", code_of(f->error));
	set_text(L, "words", f->words);
	set_kind(L, &f->kind);
}

static void
set_faults(lua_State *L, const struct manifest_results *r)
{
	lua_newtable(L);				/* outcome failures */
	for (size_t i = 0; i < r->fault_count; i++) {
		const struct manifest_fault *f = &r->faults[i];
		lua_pushlstring(L, r->work->units[f->unit], r->work->lengths[f->unit]);
		lua_pushvalue(L, -1);
		if (lua_rawget(L, -3) == LUA_TNIL) {	/* outcome failures unit nil */
			lua_pop(L, 1);
			lua_newtable(L);
			lua_pushvalue(L, -2);
			lua_pushvalue(L, -2);
			lua_rawset(L, -5);
		}					/* outcome failures unit list */
		push_fault(L, f);
		lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
		lua_pop(L, 2);
	}
	lua_setfield(L, -2, "failures");
}

void
manifest_push_outcome(lua_State *L, const struct manifest_results *r)
{
	lua_createtable(L, 0, 12);			/* outcome */
	set_flag(L, "complete", r->complete);
	set_integer(L, "done", r->done);
	set_integer(L, "bytes", r->sent);
	set_integer(L, "files", r->files);
	set_integer(L, "created", r->created);
	set_integer(L, "replaced", r->replaced);
	set_integer(L, "metadata", r->metadata);
	set_integer(L, "linked", r->linked);
	set_integer(L, "removed", r->removed);
	set_integer(L, "vanished", r->vanished);
	set_integer(L, "unanswered", r->unanswered);
	set_faults(L, r);
}

void
manifest_push_kind(lua_State *L, const struct manifest_kind *k)
{
	lua_createtable(L, 0, 2);			/* kind */
	set_kind(L, k);
}

void
manifest_push_units(lua_State *L, const struct manifest_units *u)
{
	static const char *const sides[SIDES] = { "source", "target" };
	lua_createtable(L, (int)u->count, 0);		/* list */
	for (size_t i = 0; i < u->count; i++) {
		const struct manifest_known *k = &u->list[i];
		lua_createtable(L, 0, 4);		/* list known */
		set_text(L, "name", k->name);
		set_integer(L, "rows", k->rows);
		if (k->corrupt)
			set_flag(L, "corrupt", true);
		for (int side = 0; side < SIDES; side++) {
			if (!manifest_is_there(&k->side[side]))
				continue;
			lua_createtable(L, 0, 4);	/* list known side */
			set_integer(L, "entries", k->side[side].entries);
			set_integer(L, "bytes", k->side[side].bytes);
			set_integer(L, "problems", k->side[side].problems);
			if (side == SIDE_TARGET)
				set_integer(L, "ours", k->side[side].ours);
			lua_setfield(L, -2, sides[side]);
		}
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
}

void
manifest_push_shard(lua_State *L, const struct manifest_work *w, const struct manifest_shard *s)
{
	static const char *const refusals[REFUSALS] = { "not ours", "not empty", "unreadable at the source", "in the way" };
	lua_createtable(L, 0, 9);			/* shard */
	set_integer(L, "id", s->id);
	lua_pushlstring(L, (const char *)s->bytes.bytes, s->bytes.length);
	lua_setfield(L, -2, "bytes");
	set_integer(L, "entries", s->count);
	set_integer(L, "files", s->files);
	set_integer(L, "size", s->size);
	set_names(L, "units", &s->units);
	if (s->after) {
		lua_pushlstring(L, w->units[s->after - 1], w->lengths[s->after - 1]);
		lua_setfield(L, -2, "after");
	}
	lua_newtable(L);				/* shard list */
	for (int i = 0; i < REFUSALS; i++) {
		if (s->refused[i].count == 0)
			continue;
		lua_createtable(L, 0, 3);		/* shard list refusal */
		set_text(L, "kind", refusals[i]);
		set_kind(L, &s->refused[i]);
		lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
	}
	lua_setfield(L, -2, "refused");
}
