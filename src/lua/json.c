/*
 * lua/json.c - the "runbook.core.json" module.
 *
 * Marshalling only: how text is read and written is in ../json.c, how values look is in value.h.
 * Text that is wrong and values that have no text come back as nil, message, code.
 */
#include "bind.h"
#include "value.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../json.h"

#define DOC_MT    "runbook.json.doc"
#define ITEMS_MT  "runbook.json.items"
#define WRITER_MT "runbook.json.writer"

/* ---- decode ---- */

struct shape {
	int null, array, object;	/* stack indices: the sentinel, the two marks */
};

static int
doc_gc(lua_State *L)
{
	struct json_doc **d = luaL_checkudata(L, 1, DOC_MT);

	json_free(*d);
	*d = NULL;
	return 0;
}

static void push_value(lua_State *L, const struct shape *s, yyjson_val *v);

static void
push_array(lua_State *L, const struct shape *s, yyjson_val *v)
{
	yyjson_arr_iter it = yyjson_arr_iter_with(v);
	yyjson_val *child;
	lua_Integer i = 0;

	lua_createtable(L, (int)yyjson_arr_size(v), 0);
	while ((child = yyjson_arr_iter_next(&it)) != NULL) {
		push_value(L, s, child);
		lua_rawseti(L, -2, ++i);
	}
	lua_pushvalue(L, s->array);
	lua_setmetatable(L, -2);
}

/* but: a member that is left out, or NULL. */
static void
push_object_but(lua_State *L, const struct shape *s, yyjson_val *v, const yyjson_val *but)
{
	yyjson_obj_iter it = yyjson_obj_iter_with(v);
	yyjson_val *key;

	lua_createtable(L, 0, (int)yyjson_obj_size(v));
	while ((key = yyjson_obj_iter_next(&it)) != NULL) {
		if (yyjson_obj_iter_get_val(key) == but)
			continue;
		lua_pushlstring(L, yyjson_get_str(key), yyjson_get_len(key));
		push_value(L, s, yyjson_obj_iter_get_val(key));
		lua_rawset(L, -3);
	}
	lua_pushvalue(L, s->object);
	lua_setmetatable(L, -2);
}

/* The engine has bounded the depth, so the recursion is bounded too. */
static void
push_value(lua_State *L, const struct shape *s, yyjson_val *v)
{
	luaL_checkstack(L, 4, "JSON nested too deep");
	switch (yyjson_get_type(v)) {
	case YYJSON_TYPE_BOOL:
		lua_pushboolean(L, yyjson_get_bool(v));
		break;
	case YYJSON_TYPE_NUM:
		if (yyjson_is_real(v))
			lua_pushnumber(L, yyjson_get_real(v));
		else
			lua_pushinteger(L, yyjson_get_sint(v));
		break;
	case YYJSON_TYPE_STR:
		lua_pushlstring(L, yyjson_get_str(v), yyjson_get_len(v));
		break;
	case YYJSON_TYPE_ARR:
		push_array(L, s, v);
		break;
	case YYJSON_TYPE_OBJ:
		push_object_but(L, s, v, NULL);
		break;
	default:
		lua_pushvalue(L, s->null);
	}
}

/* The document of the text at 1, in a userdata; false with nil, message and code.  [-0, +1|3, m] */
static bool
push_doc(lua_State *L, struct json_doc ***d)
{
	size_t length;
	const char *text = luaL_checklstring(L, 1, &length);
	lua_Integer max = luaL_checkinteger(L, 2);
	struct json_error error;

	*d = lua_newuserdatauv(L, sizeof **d, 0);	/* doc */
	**d = NULL;
	luaL_setmetatable(L, DOC_MT);
	if ((**d = json_read(text, length, (size_t)max, &error)) != NULL)
		return true;
	bind_fail(L, error.code, "%s", error.message);
	return false;
}

/* decode(text, max_bytes) -> value | nil, message, code */
static int
l_decode(lua_State *L)
{
	struct shape shape = { .null = 3, .array = 4, .object = 5 };
	struct json_doc **d;

	lua_settop(L, 2);
	value_push_null(L);
	value_push_marks(L);				/* text max null array object */
	if (!push_doc(L, &d))
		return 3;
	push_value(L, &shape, json_root(*d));
	json_free(*d);
	*d = NULL;
	return 1;
}

struct items {
	struct json_doc *doc;
	yyjson_arr_iter at;
};

static int
items_gc(lua_State *L)
{
	struct items *items = luaL_checkudata(L, 1, ITEMS_MT);

	json_free(items->doc);
	items->doc = NULL;
	return 0;
}

/* The next one of the list in upvalue 1; the marks are upvalues 2 to 4. */
static int
l_next_item(lua_State *L)
{
	struct items *items = lua_touserdata(L, lua_upvalueindex(1));
	struct shape shape = { lua_upvalueindex(2), lua_upvalueindex(3), lua_upvalueindex(4) };
	yyjson_val *v = yyjson_arr_iter_next(&items->at);

	if (v == NULL) {
		json_free(items->doc);
		*items = (struct items){ 0 };
		return 0;
	}
	push_value(L, &shape, v);
	return 1;
}

/* decode_items(text, max_bytes, key) -> value without the list at that key, next | nil, message, code */
static int
l_decode_items(lua_State *L)
{
	struct shape shape = { .null = 4, .array = 5, .object = 6 };
	size_t length;
	const char *key = luaL_checklstring(L, 3, &length);
	struct items *items;
	struct json_doc **d;
	yyjson_val *root, *list;

	lua_settop(L, 3);
	value_push_null(L);
	value_push_marks(L);				/* text max key null array object */
	if (!push_doc(L, &d))
		return 3;
	root = json_root(*d);
	list = yyjson_obj_getn(root, key, length);
	if (!yyjson_is_arr(list)) {
		push_value(L, &shape, root);
		list = NULL;
	} else {
		push_object_but(L, &shape, root, list);
	}
	items = lua_newuserdatauv(L, sizeof *items, 0);	/* ... object doc value items */
	*items = (struct items){ .at = yyjson_arr_iter_with(list) };
	luaL_setmetatable(L, ITEMS_MT);
	items->doc = *d;
	*d = NULL;
	for (int i = 4; i <= 6; i++)
		lua_pushvalue(L, i);
	lua_pushcclosure(L, l_next_item, 4);
	return 2;
}

/* ---- encode ---- */

struct frame {			/* one container on the way to the value in hand */
	const void *table;
	const char *key;	/* NULL in an array; anchored on the Lua stack */
	lua_Integer index;
};

struct member {
	const char *key;
	size_t length;
};

struct writer {
	struct json_text text;
	struct member *members;	/* keys of the open objects, one stretch after the other */
	size_t used, capacity;
	bool sorted, lossy;
	int indent;
	unsigned depth;
	struct frame frames[JSON_MAX_DEPTH];
	const char *code;	/* set where writing failed */
	char message[400];
};

static int
writer_gc(lua_State *L)
{
	struct writer *w = luaL_checkudata(L, 1, WRITER_MT);

	json_text_fini(&w->text);
	free(w->members);
	w->members = NULL;
	return 0;
}

static bool
no_memory(struct writer *w)
{
	w->code = "ENOMEM";
	strcpy(w->message, "out of memory");
	return false;
}

/* Says what is wrong and where: "homes.from[2]: a function has no JSON". */
static bool
refuse(lua_State *L, struct writer *w, const char *code, const char *what)
{
	unsigned i;

	lua_pushliteral(L, "");
	for (i = 0; i < w->depth; i++) {
		if (w->frames[i].key == NULL)
			lua_pushfstring(L, "[%I]", (LUAI_UACINT)w->frames[i].index);
		else
			lua_pushfstring(L, i == 0 ? "%s" : ".%s", w->frames[i].key);
		lua_concat(L, 2);
	}
	w->code = code;
	lua_pushfstring(L, "%s: %s", w->depth == 0 ? "the value" : lua_tostring(L, -1), what);
	strncpy(w->message, lua_tostring(L, -1), sizeof w->message - 1);
	lua_pop(L, 2);
	return false;
}

static bool write_value(lua_State *L, struct writer *w);

static bool
write_break(struct writer *w, unsigned depth)
{
	static const char spaces[] = "\n                                ";
	size_t n = (size_t)w->indent * depth;

	if (w->indent == 0)
		return true;
	if (!json_put(&w->text, spaces, 1))
		return false;
	for (; n > 32; n -= 32)
		if (!json_put(&w->text, spaces + 1, 32))
			return false;
	return json_put(&w->text, spaces + 1, n);
}

static bool
write_string(lua_State *L, struct writer *w, const char *s, size_t length)
{
	size_t good;
	char what[80];

	if (w->lossy)
		return json_put_string_lossy(&w->text, s, length) || no_memory(w);
	if ((good = json_utf8(s, length)) < length) {
		snprintf(what, sizeof what, "byte %zu is not UTF-8", good + 1);
		return refuse(L, w, "EUTF8", what);
	}
	return json_put_string(&w->text, s, length) || no_memory(w);
}

/* The table is on top; n is its length. */
static bool
write_array(lua_State *L, struct writer *w, size_t n)
{
	struct frame *f = &w->frames[w->depth++];
	size_t i;

	f->key = NULL;
	for (i = 1; i <= n; i++) {
		f->index = (lua_Integer)i;
		if ((i > 1 && !json_put(&w->text, ",", 1)) || !write_break(w, w->depth))
			return no_memory(w);
		lua_rawgeti(L, -1, (lua_Integer)i);
		if (lua_isnil(L, -1))
			return refuse(L, w, "EUNSUPPORTED", "a gap in a list");
		if (!write_value(L, w))
			return false;
		lua_pop(L, 1);
	}
	w->depth--;
	return true;
}

static int
by_key(const void *a, const void *b)
{
	const struct member *x = a, *y = b;
	size_t n = x->length < y->length ? x->length : y->length;
	int order = memcmp(x->key, y->key, n);

	if (order != 0)
		return order;
	return (x->length > y->length) - (x->length < y->length);
}

static bool
grow_members(struct writer *w)
{
	size_t capacity = w->capacity ? 2 * w->capacity : 64;
	struct member *m;

	if (w->used < w->capacity)
		return true;
	if ((m = realloc(w->members, capacity * sizeof *m)) == NULL)
		return no_memory(w);
	w->members = m;
	w->capacity = capacity;
	return true;
}

/* Keeps the keys of the table on top in members from w->used on; the table anchors them. */
static bool
collect_keys(lua_State *L, struct writer *w)
{
	lua_pushnil(L);
	while (lua_next(L, -2)) {
		lua_pop(L, 1);
		if (lua_type(L, -1) != LUA_TSTRING)
			return refuse(L, w, "EUNSUPPORTED", "neither a list nor a map: a key is no string");
		if (!grow_members(w))
			return false;
		w->members[w->used].key = lua_tolstring(L, -1, &w->members[w->used].length);
		w->used++;
	}
	return true;
}

static bool
write_object(lua_State *L, struct writer *w)
{
	size_t first = w->used, i, end;
	struct frame *f = &w->frames[w->depth];
	struct member m;

	if (!collect_keys(L, w))
		return false;
	end = w->used;
	if (w->sorted && end - first > 1)
		qsort(w->members + first, end - first, sizeof *w->members, by_key);
	w->depth++;
	for (i = first; i < end; i++) {
		m = w->members[i];		/* by value: deeper objects may move the array */
		f->key = m.key;
		if ((i > first && !json_put(&w->text, ",", 1)) || !write_break(w, w->depth))
			return no_memory(w);
		if (!write_string(L, w, m.key, m.length))
			return false;
		if (!json_put(&w->text, ": ", w->indent ? 2 : 1))
			return no_memory(w);
		lua_pushlstring(L, m.key, m.length);
		lua_rawget(L, -2);
		if (!write_value(L, w))
			return false;
		lua_pop(L, 1);
	}
	w->depth--;
	w->used = first;
	return true;
}

static size_t
count_entries(lua_State *L)
{
	size_t n = 0;

	for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
		n++;
	return n;
}

/* An unmarked table with entries 1..n and nothing else is a list; an empty one is a map. */
static bool
write_table(lua_State *L, struct writer *w)
{
	enum value_kind kind = value_kind(L, -1);
	size_t n = lua_rawlen(L, -1), entries;
	const void *self = lua_topointer(L, -1);
	bool ok;
	unsigned i;

	for (i = 0; i < w->depth; i++)
		if (w->frames[i].table == self)
			return refuse(L, w, "EUNSUPPORTED", "a table that contains itself");
	if (w->depth == JSON_MAX_DEPTH)
		return refuse(L, w, "ELIMIT", "nested more than 200 deep");
	w->frames[w->depth].table = self;
	if (kind == VALUE_ARRAY || (kind == VALUE_PLAIN && n > 0)) {
		if ((entries = count_entries(L)) > n)
			return refuse(L, w, "EUNSUPPORTED", "a list with keys besides 1 to its length");
		ok = json_put(&w->text, "[", 1) || no_memory(w);
		ok = ok && write_array(L, w, n) && (n == 0 || write_break(w, w->depth));
		return ok && (json_put(&w->text, "]", 1) || no_memory(w));
	}
	lua_pushnil(L);
	entries = (size_t)lua_next(L, -2);
	if (entries)
		lua_pop(L, 2);
	ok = json_put(&w->text, "{", 1) || no_memory(w);
	ok = ok && write_object(L, w) && (!entries || write_break(w, w->depth));
	return ok && (json_put(&w->text, "}", 1) || no_memory(w));
}

/* Writes the value on top and leaves it there.  What it pushes it leaves on failure only. */
static bool
write_value(lua_State *L, struct writer *w)
{
	size_t length;
	const char *s;
	char what[80];

	luaL_checkstack(L, 12, "value nested too deep");
	switch (lua_type(L, -1)) {
	case LUA_TNIL:
		return json_put(&w->text, "null", 4) || no_memory(w);
	case LUA_TBOOLEAN:
		s = lua_toboolean(L, -1) ? "true" : "false";
		return json_put(&w->text, s, strlen(s)) || no_memory(w);
	case LUA_TNUMBER:
		if (lua_isinteger(L, -1))
			return json_put_integer(&w->text, lua_tointeger(L, -1)) || no_memory(w);
		if (!isfinite(lua_tonumber(L, -1)))
			return refuse(L, w, "EUNSUPPORTED", "a number that is infinite or not a number");
		return json_put_real(&w->text, lua_tonumber(L, -1)) || no_memory(w);
	case LUA_TSTRING:
		s = lua_tolstring(L, -1, &length);
		return write_string(L, w, s, length);
	case LUA_TTABLE:
		return write_table(L, w);
	default:
		if (value_is_null(L, -1))
			return json_put(&w->text, "null", 4) || no_memory(w);
		snprintf(what, sizeof what, "a %s has no JSON", luaL_typename(L, -1));
		return refuse(L, w, "EUNSUPPORTED", what);
	}
}

/* encode(value, sorted, lossy, indent) -> text | nil, message, code */
static int
l_encode(lua_State *L)
{
	struct writer *w;
	lua_Integer indent;

	luaL_checkany(L, 1);
	indent = luaL_checkinteger(L, 4);
	luaL_argcheck(L, indent >= 0 && indent <= 8, 4, "0 to 8");
	lua_settop(L, 4);
	w = lua_newuserdatauv(L, sizeof *w, 0);
	memset(w, 0, offsetof(struct writer, frames));
	w->code = NULL;
	w->message[0] = w->message[sizeof w->message - 1] = '\0';
	luaL_setmetatable(L, WRITER_MT);
	w->sorted = lua_toboolean(L, 2);
	w->lossy = lua_toboolean(L, 3);
	w->indent = (int)indent;
	lua_pushvalue(L, 1);
	if (!write_value(L, w))
		return bind_fail(L, w->code, "%s", w->message);
	lua_pushlstring(L, w->text.bytes, w->text.length);
	json_text_fini(&w->text);
	return 1;
}

static const luaL_Reg functions[] = {
	{ "decode", l_decode },
	{ "decode_items", l_decode_items },
	{ "encode", l_encode },
	{ NULL, NULL },
};

static const luaL_Reg doc_meta[] = {
	{ "__gc", doc_gc },
	{ NULL, NULL },
};

static const luaL_Reg items_meta[] = {
	{ "__gc", items_gc },
	{ NULL, NULL },
};

static const luaL_Reg writer_meta[] = {
	{ "__gc", writer_gc },
	{ NULL, NULL },
};

int luaopen_runbook_core_json(lua_State *L);

int
luaopen_runbook_core_json(lua_State *L)
{
	bind_class(L, DOC_MT, NULL, doc_meta);
	bind_class(L, ITEMS_MT, NULL, items_meta);
	bind_class(L, WRITER_MT, NULL, writer_meta);
	luaL_newlib(L, functions);
	return 1;
}
