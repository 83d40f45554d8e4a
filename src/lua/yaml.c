/*
 * lua/yaml.c - the "runbook.core.yaml" module.
 *
 * Marshalling only: how text is read is in ../yaml.c, how values look is in value.h, and the emitter is
 * lib/runbook/yaml.lua.
 */
#include "bind.h"
#include "value.h"

#include "../yaml.h"

#define DOC_MT "runbook.yaml.doc"

struct shape {			/* stack indices */
	int null, array, object;
	int lines, sources;	/* path -> line, path -> text as written; 0 when nobody asked */
};

static int
doc_gc(lua_State *L)
{
	struct yaml_doc **d = luaL_checkudata(L, 1, DOC_MT);

	yaml_doc_free(*d);
	*d = NULL;
	return 0;
}

static size_t push_node(lua_State *L, const struct shape *s, const struct yaml_doc *d, size_t i, int path);

/* Pushes the path of a child: "a.b" below "a", "b" below the root.  [-0, +1, m] */
static void
push_path(lua_State *L, int path, const char *key, lua_Integer index)
{
	size_t length;
	const char *above = lua_tolstring(L, path, &length);

	if (key != NULL)
		lua_pushfstring(L, length > 0 ? "%s.%s" : "%s%s", above, key);
	else
		lua_pushfstring(L, length > 0 ? "%s.%I" : "%s%I", above, (LUAI_UACINT)index);
}

/* Notes the line of `at` and, for a plain scalar, the words of `value`, under the path on top; leaves it. */
static void
mark_node(lua_State *L, const struct shape *s, const struct yaml_doc *d,
          const struct yaml_node *at, const struct yaml_node *value)
{
	lua_pushvalue(L, -1);
	if (lua_rawget(L, s->lines) != LUA_TNIL) {	/* a key with a dot in it was here first */
		lua_pop(L, 1);
		return;
	}
	lua_pop(L, 1);
	lua_pushvalue(L, -1);
	lua_pushinteger(L, at->line);
	lua_rawset(L, s->lines);
	while (value->type == YAML_ALIAS)
		value = &d->nodes[value->target];
	if (value->plain && value->type != YAML_STRING) {
		lua_pushvalue(L, -1);
		lua_pushlstring(L, yaml_doc_text(d, value), value->length);
		lua_rawset(L, s->sources);
	}
}

/* Pushes one child, under its own path when positions are asked for.  Returns the index after it. */
static size_t
push_child(lua_State *L, const struct shape *s, const struct yaml_doc *d, size_t at, size_t value,
           int path, lua_Integer index)
{
	size_t after;

	if (s->lines == 0)
		return push_node(L, s, d, value, 0);
	push_path(L, path, index ? NULL : yaml_doc_text(d, &d->nodes[at]), index);
	mark_node(L, s, d, &d->nodes[at], &d->nodes[value]);
	after = push_node(L, s, d, value, lua_gettop(L));
	lua_remove(L, -2);
	return after;
}

static void
push_list(lua_State *L, const struct shape *s, const struct yaml_doc *d, size_t i, int path)
{
	size_t end = d->nodes[i].after;
	lua_Integer n = 0;

	lua_newtable(L);
	for (i++; i < end; ) {
		i = push_child(L, s, d, i, i, path, n + 1);
		lua_rawseti(L, -2, ++n);
	}
	lua_pushvalue(L, s->array);
	lua_setmetatable(L, -2);
}

static void
push_map(lua_State *L, const struct shape *s, const struct yaml_doc *d, size_t i, int path)
{
	size_t end = d->nodes[i].after, key;

	lua_newtable(L);
	for (i++; i < end; ) {
		key = i;
		lua_pushlstring(L, yaml_doc_text(d, &d->nodes[key]), d->nodes[key].length);
		i = push_child(L, s, d, key, d->nodes[key].after, path, 0);
		lua_rawset(L, -3);
	}
	lua_pushvalue(L, s->object);
	lua_setmetatable(L, -2);
}

/* The engine has bounded depth and size, aliases written out, so this ends. */
static size_t
push_node(lua_State *L, const struct shape *s, const struct yaml_doc *d, size_t i, int path)
{
	const struct yaml_node *n = &d->nodes[i];

	luaL_checkstack(L, 8, "YAML nested too deep");
	switch (n->type) {
	case YAML_NULL:
		lua_pushvalue(L, s->null);
		break;
	case YAML_BOOLEAN:
		lua_pushboolean(L, n->boolean);
		break;
	case YAML_INTEGER:
		lua_pushinteger(L, n->integer);
		break;
	case YAML_REAL:
		lua_pushnumber(L, n->real);
		break;
	case YAML_STRING:
		lua_pushlstring(L, yaml_doc_text(d, n), n->length);
		break;
	case YAML_LIST:
		push_list(L, s, d, i, path);
		break;
	case YAML_MAP:
		push_map(L, s, d, i, path);
		break;
	case YAML_ALIAS:
		push_node(L, s, d, n->target, path);
		break;
	}
	return n->after;
}

/* [-0, +1, m] */
static void
push_documents(lua_State *L, const struct shape *s, const struct yaml_doc *d, bool many)
{
	int path;
	size_t i;

	lua_pushliteral(L, "");
	path = lua_gettop(L);
	if (!many && d->documents == 0) {
		lua_pushvalue(L, s->null);
	} else if (!many) {
		push_node(L, s, d, d->roots[0], path);
	} else {
		lua_newtable(L);
		for (i = 0; i < d->documents; i++) {
			push_child(L, s, d, d->roots[i], d->roots[i], path, (lua_Integer)i + 1);
			lua_rawseti(L, -2, (lua_Integer)i + 1);
		}
		lua_pushvalue(L, s->array);
		lua_setmetatable(L, -2);
	}
	lua_remove(L, path);
}

/* decode(text, many, marks) -> value [, lines, sources] | nil, message, code */
static int
l_decode(lua_State *L)
{
	size_t length;
	const char *text = bind_bytes(L, 1, &length);
	bool many = lua_toboolean(L, 2), marks = lua_toboolean(L, 3);
	struct yaml_error error;
	struct shape shape;
	struct yaml_doc **d;

	lua_settop(L, 3);
	d = lua_newuserdatauv(L, sizeof *d, 0);		/* text many marks doc */
	*d = NULL;
	luaL_setmetatable(L, DOC_MT);
	value_push_null(L);
	value_push_marks(L);
	lua_newtable(L);
	lua_newtable(L);				/* ... null array object lines sources */
	shape = (struct shape){ 5, 6, 7, marks ? 8 : 0, marks ? 9 : 0 };
	if ((*d = yaml_doc_read(text, length, &error)) == NULL)
		return bind_fail(L, error.code, "%s", error.message);
	if (!many && (*d)->documents > 1)
		return bind_fail(L, "ESYNTAX", "line %d: a second document begins; one was expected",
		                 (int)(*d)->nodes[(*d)->roots[1]].line);
	push_documents(L, &shape, *d, many);
	yaml_doc_free(*d);
	*d = NULL;
	if (!marks)
		return 1;
	lua_pushvalue(L, shape.lines);
	lua_pushvalue(L, shape.sources);
	return 3;
}

/* resolves(text) -> true when the text, unquoted, would be no string in YAML 1.2 */
static int
l_resolves(lua_State *L)
{
	size_t length;
	const char *text = luaL_checklstring(L, 1, &length);
	struct yaml_node node;

	lua_pushboolean(L, !yaml_resolve(text, length, &node) || node.type != YAML_STRING);
	return 1;
}

static const luaL_Reg functions[] = {
	{ "decode", l_decode },
	{ "resolves", l_resolves },
	{ NULL, NULL },
};

static const luaL_Reg doc_meta[] = {
	{ "__gc", doc_gc },
	{ NULL, NULL },
};

int luaopen_runbook_core_yaml(lua_State *L);

int
luaopen_runbook_core_yaml(lua_State *L)
{
	bind_class(L, DOC_MT, NULL, doc_meta);
	luaL_newlib(L, functions);
	return 1;
}
