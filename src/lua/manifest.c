/*
 * lua/manifest.c - the "runbook.core.manifest" module.
 *
 * Marshalling only: what is kept, merged and worked out is in ../manifest*.c.  Tables of options are read here, what
 * comes of it is pushed by manifest_push.c.
 */
#include "manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORK_MT   "runbook.manifest.work"
#define SHARD_MT  "runbook.manifest.shard"
#define HANDLE_MT "runbook.manifest.shard_handle"
#define JOB_MT    "runbook.manifest.job"

#define MOST_ENTRIES 20000
#define MOST_BYTES   ((lua_Integer)1 << 30)

struct job_op {
	struct task_op op;
	struct manifest_job *job;	/* NULL once released */
	int (*push)(lua_State *L, struct manifest_job *job);
};

struct shard_handle {
	struct manifest_shard *shard;
	struct manifest_work *work;
};

/* Jobs. */

static void
job_release(struct task_op *op)
{
	struct job_op *x = (struct job_op *)op;
	manifest_job_free(x->job);
	x->job = NULL;
}

static int
job_finish(lua_State *L, struct task_op *op)
{
	struct job_op *x = (struct job_op *)op;
	const struct manifest_failure *f = &x->job->failure;
	int n = f->code ? bind_fail(L, f->code, "%s", f->message) : x->push(L, x->job);
	job_release(op);
	return n;
}

void *
manifest_push_job(lua_State *L, size_t size, const char *what, void (*run)(struct manifest_job *), void (*release)(struct manifest_job *),
                  int (*push)(lua_State *L, struct manifest_job *job))
{
	struct job_op *x = lua_newuserdatauv(L, sizeof *x, 0);	/* op */
	*x = (struct job_op){ .op = { .finish = job_finish, .cancel = job_release, .what = what }, .push = push };
	luaL_setmetatable(L, JOB_MT);
	x->job = calloc(1, size);
	if (!x->job)
		luaL_error(L, "out of memory");
	x->job->run = run;
	x->job->release = release;
	x->job->done = bind_wake;
	x->job->arg = &x->op;
	return x->job;
}

int
manifest_start_job(lua_State *L)
{
	struct job_op *x = lua_touserdata(L, -1);
	struct manifest_job *job = x->job;
	x->job = NULL;
	if (!manifest_job_start(host_loop(host_of(L)), job))
		return luaL_error(L, "out of memory");
	x->job = job;
	return task_await(L, &x->op);
}

/* What a scan is asked. */

static int
push_request(lua_State *L, struct manifest_job *job)
{
	struct manifest_request *q = (struct manifest_request *)job;
	lua_pushlstring(L, (const char *)q->out.bytes, q->out.length);
	return 1;
}

static void
put_words(lua_State *L, struct buffer *head, const char *name, unsigned char type)
{
	struct buffer p = { 0 };
	lua_Integer n = manifest_list(L, 1, name);	/* list */
	for (lua_Integer i = 1; i <= n; i++) {
		size_t length;
		lua_rawgeti(L, -1, i);
		const char *text = lua_tolstring(L, -1, &length);
		p.length = 0;
		put_text(&p, text, length);
		put_frame(head, type, &p);
		lua_pop(L, 1);
	}
	buffer_free(&p);
	lua_pop(L, 1);
}

static void
put_exclude(struct buffer *head, const char *regex, bool directories)
{
	struct buffer p = { 0 };
	put_number(&p, directories);
	put_text(&p, regex, strlen(regex));
	put_frame(head, SCAN_EXCLUDE, &p);
	buffer_free(&p);
}

static void
put_excludes(lua_State *L, struct buffer *head)
{
	int type = lua_getfield(L, 1, "exclude");	/* list */
	if (type != LUA_TNIL && type != LUA_TTABLE)
		luaL_error(L, "option 'exclude' must be a list");
	lua_Integer n = type == LUA_TTABLE ? (lua_Integer)lua_rawlen(L, -1) : 0;
	for (lua_Integer i = 1; i <= n; i++) {
		if (lua_rawgeti(L, -1, i) != LUA_TTABLE)
			luaL_error(L, "option 'exclude' holds { regex =, directories = }");
		int one = lua_gettop(L);
		put_exclude(head, manifest_text(L, one, "regex", NULL), manifest_flag(L, one, "directories"));
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}

/* request{...} -> bytes */
static int
l_request(lua_State *L)
{
	struct buffer options = { 0 };
	luaL_checktype(L, 1, LUA_TTABLE);
	const char *directory = manifest_text(L, 1, "directory", NULL);
	enum manifest_side side = manifest_side_of(L, 1, "side");
	lua_Integer threads = manifest_integer(L, 1, "threads", 0);
	bind_permit(L, PERMIT_READ);
	struct manifest_request *q = manifest_push_job(L, sizeof *q, "request of a scan", manifest_request_run, manifest_request_release, push_request);
	q->directory = manifest_copy(L, directory, strlen(directory));
	q->side = side;
	q->fresh = manifest_flag(L, 1, "fresh");
	put_number(&options, ENTRY_VERSION);
	put_number(&options, (uint64_t)threads);
	put_number(&options, manifest_flag(L, 1, "gently"));
	put_frame(&q->head, SCAN_OPTIONS, &options);
	buffer_free(&options);
	put_excludes(L, &q->head);
	put_words(L, &q->head, "not_units", SCAN_NOT_UNIT);
	put_words(L, &q->head, "only", SCAN_ONLY);
	return manifest_start_job(L);
}

static int
push_comparison(lua_State *L, struct manifest_job *job)
{
	manifest_push_comparison(L, &((const struct manifest_compare *)job)->found);
	return 1;
}

/* compare(directory, unit[, options]) -> comparison */
static int
l_compare(lua_State *L)
{
	size_t length;
	const char *directory = bind_path(L, 1), *unit = luaL_checklstring(L, 2, &length);
	luaL_argcheck(L, manifest_unit_is_good((struct text){ (const unsigned char *)unit, length }), 2, "no unit can be called so");
	lua_settop(L, 3);
	if (lua_isnil(L, 3)) {
		lua_newtable(L);
		lua_replace(L, 3);
	}
	luaL_checktype(L, 3, LUA_TTABLE);
	struct owner_map owner = manifest_owner_of(L, 3);
	bind_permit(L, PERMIT_READ);
	struct manifest_compare *c = manifest_push_job(L, sizeof *c, "comparison of a unit", manifest_compare_run, manifest_compare_release, push_comparison);
	c->directory = manifest_copy(L, directory, strlen(directory));
	c->unit = manifest_copy(L, unit, length);
	c->unit_length = length;
	c->owner = owner;
	return manifest_start_job(L);
}

void
manifest_check_units(lua_State *L, lua_Integer n)
{
	for (lua_Integer i = 1; i <= n; i++) {
		size_t length;
		lua_rawgeti(L, -1, i);
		const char *name = lua_tolstring(L, -1, &length);
		if (!manifest_unit_is_good((struct text){ (const unsigned char *)name, length }))
			luaL_error(L, "no unit can be called '%s'", name);
		lua_pop(L, 1);
	}
}

static int
push_units(lua_State *L, struct manifest_job *job)
{
	manifest_push_units(L, (struct manifest_units *)job);
	return 1;
}

/* units(directory) -> list */
static int
l_units(lua_State *L)
{
	const char *directory = bind_path(L, 1);
	bind_permit(L, PERMIT_READ);
	struct manifest_units *u = manifest_push_job(L, sizeof *u, "list of manifests", manifest_units_run, manifest_units_release, push_units);
	u->directory = manifest_copy(L, directory, strlen(directory));
	return manifest_start_job(L);
}

static int
push_forgotten(lua_State *L, struct manifest_job *job)
{
	lua_pushinteger(L, (lua_Integer)((struct manifest_forget *)job)->units);
	return 1;
}

static int
forget(lua_State *L, const bool sides[SIDES], bool distrust)
{
	const char *directory = bind_path(L, 1);
	bind_permit(L, PERMIT_CHANGE);
	struct manifest_forget *q = manifest_push_job(L, sizeof *q, "dropping manifests", manifest_forget_run, manifest_forget_release, push_forgotten);
	q->directory = manifest_copy(L, directory, strlen(directory));
	memcpy(q->sides, sides, sizeof q->sides);
	q->distrust = distrust;
	return manifest_start_job(L);
}

/* forget(directory[, side]) -> units */
static int
l_forget(lua_State *L)
{
	bool all = lua_isnoneornil(L, 2);
	enum manifest_side side = all ? SIDE_SOURCE : manifest_side_of(L, 2, NULL);
	return forget(L, (bool[SIDES]){ all || side == SIDE_SOURCE, all || side == SIDE_TARGET }, false);
}

/* distrust(directory) -> units */
static int
l_distrust(lua_State *L)
{
	return forget(L, (bool[SIDES]){ false, false }, true);
}

static void
push_report(lua_State *L, struct manifest_sink *s)
{
	manifest_push_report(L, (struct manifest_scan *)s);
}

/* `ours_during`; [-0, +1, v]: it, or nil */
static size_t
check_periods(lua_State *L)
{
	if (lua_getfield(L, 1, "ours_during") == LUA_TNIL)
		return 0;
	luaL_argcheck(L, lua_istable(L, -1), 1, "ours_during must be a list");
	lua_Integer n = luaL_len(L, -1);
	for (lua_Integer i = 1; i <= n; i++) {
		bool good = lua_rawgeti(L, -1, i) == LUA_TTABLE && lua_rawgeti(L, -1, 1) == LUA_TNUMBER && lua_rawgeti(L, -2, 2) == LUA_TNUMBER;
		luaL_argcheck(L, good, 1, "ours_during must be pairs of numbers");
		lua_pop(L, 3);
	}
	return (size_t)n;
}

/* What check_periods has left below the sink. */
static void
take_periods(lua_State *L, struct manifest_scan *s, size_t n)
{
	s->period_count = n;
	for (size_t i = 0; i < n; i++) {
		lua_rawgeti(L, -2, (lua_Integer)i + 1);
		lua_rawgeti(L, -1, 1);
		lua_rawgeti(L, -2, 2);
		s->ours_during[i] = (struct manifest_period){ lua_tonumber(L, -2), lua_tonumber(L, -1) };
		lua_pop(L, 3);
	}
}

/* scan{...} -> sink */
static int
l_scan(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	const char *directory = manifest_text(L, 1, "directory", NULL);
	enum manifest_side side = manifest_side_of(L, 1, "side");
	struct owner_map owner = manifest_owner_of(L, 1);
	manifest_list(L, 1, "only");
	bool partial = !lua_isnil(L, -1);
	size_t periods = check_periods(L);
	bind_permit(L, PERMIT_CHANGE);
	manifest_push_sink(L, push_report);		/* ... sink */
	struct manifest_scan *s = calloc(1, sizeof *s);
	if (!s || !(s->directory = strdup(directory)) || !(s->ours_during = calloc(periods + 1, sizeof *s->ours_during))) {
		if (s)
			free(s->directory);
		free(s);
		return luaL_error(L, "out of memory");
	}
	s->sink.run = manifest_scan_run;
	s->sink.release = manifest_scan_release;
	s->side = side;
	s->owner = owner;
	s->partial = partial;
	take_periods(L, s, periods);
	return manifest_start_sink(L, &s->sink);
}

/* Work. */

static struct manifest_work *
check_work(lua_State *L)
{
	struct manifest_work **w = luaL_checkudata(L, 1, WORK_MT);
	luaL_argcheck(L, *w, 1, "work is closed");
	return *w;
}

/* The list of units on top of the stack. */
static bool
copy_units(lua_State *L, struct manifest_work *w, lua_Integer n)
{
	w->units = calloc((size_t)n + 1, sizeof *w->units);
	w->lengths = calloc((size_t)n + 1, sizeof *w->lengths);
	for (lua_Integer i = 1; w->units && w->lengths && i <= n; i++) {
		size_t length;
		lua_rawgeti(L, -1, i);
		const char *name = lua_tolstring(L, -1, &length);
		w->units[i - 1] = strdup(name);
		w->lengths[i - 1] = length;
		w->unit_count = (size_t)i;
		lua_pop(L, 1);
		if (!w->units[i - 1])
			return false;
	}
	return w->units && w->lengths;
}

/* The table keeps them. */
static const char *
bytes_option(lua_State *L, int idx, const char *name, size_t *length)
{
	int type = lua_getfield(L, idx, name);
	if (type != LUA_TNIL && type != LUA_TSTRING)
		luaL_error(L, "option '%s' must be a string", name);
	const char *bytes = lua_tolstring(L, -1, length);
	if (!bytes)
		*length = 0;
	lua_pop(L, 1);
	return bytes ? bytes : "";
}

static int
new_work(lua_State *L, bool proof)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	const char *directory = manifest_text(L, 1, "directory", NULL);
	struct manifest_work w = {
		.owner = manifest_owner_of(L, 1), .proof = proof,
		.deletions = manifest_flag(L, 1, "deletions"), .overwrite = manifest_flag(L, 1, "overwrite"),
		.most_entries = (uint64_t)manifest_integer(L, 1, "entries", MOST_ENTRIES),
		.most_bytes = (uint64_t)manifest_integer(L, 1, "bytes", MOST_BYTES),
		.spread = (size_t)manifest_integer(L, 1, "spread", 1),
	};
	if (w.most_entries == 0 || w.most_bytes == 0)
		return luaL_error(L, "a shard holds one entry at least");
	lua_Integer n = manifest_list(L, 1, "units");	/* ... units */
	manifest_check_units(L, n);
	size_t parts_length;
	const char *parts = bytes_option(L, 1, "parts", &parts_length);
	bind_permit(L, PERMIT_CHANGE);
	struct manifest_work **box = lua_newuserdatauv(L, sizeof *box, 0);	/* ... units work */
	*box = NULL;
	luaL_setmetatable(L, WORK_MT);
	lua_pushvalue(L, -2);				/* ... units work units */
	w.path = strdup(directory);
	bool ok = copy_units(L, &w, n) && w.path && parts_take(&w.parts, parts, parts_length);
	*box = manifest_work_new(&w);
	if (!ok || !*box)
		return luaL_error(L, "out of memory");
	lua_pop(L, 1);
	return 1;
}

/* work{...} -> work */
static int
l_work(lua_State *L)
{
	return new_work(L, false);
}

/* unproven{...} -> work */
static int
l_unproven(lua_State *L)
{
	return new_work(L, true);
}

static int
push_shard(lua_State *L, struct manifest_job *job)
{
	struct manifest_next *n = (struct manifest_next *)job;
	if (!n->shard) {
		lua_pushnil(L);
		return 1;
	}
	manifest_push_shard(L, n->work, n->shard);	/* shard */
	struct shard_handle *h = lua_newuserdatauv(L, sizeof *h, 0);	/* shard handle */
	*h = (struct shard_handle){ NULL, NULL };
	luaL_setmetatable(L, HANDLE_MT);
	lua_setfield(L, -2, "handle");			/* shard */
	luaL_setmetatable(L, SHARD_MT);
	*h = (struct shard_handle){ n->shard, n->work };
	atomic_fetch_add(&n->work->references, 1);
	n->shard = NULL;
	return 1;
}

/* work:next() -> shard, or nil at the end */
static int
l_next(lua_State *L)
{
	struct manifest_work *w = check_work(L);
	struct manifest_next *n = manifest_push_job(L, sizeof *n, "the next shard", manifest_next_run, manifest_next_release, push_shard);
	n->work = w;
	atomic_fetch_add(&w->references, 1);
	return manifest_start_job(L);
}

static int
push_settled(lua_State *L, struct manifest_job *job)
{
	const struct manifest_settle *s = (const struct manifest_settle *)job;
	lua_createtable(L, 0, 3);			/* settled */
	lua_pushinteger(L, (lua_Integer)s->patched);
	lua_setfield(L, -2, "patched");
	lua_pushinteger(L, (lua_Integer)s->changed);
	lua_setfield(L, -2, "changed");
	if (s->compared) {
		manifest_push_comparison(L, s->compared);
		lua_setfield(L, -2, "compared");
	}
	return 1;
}

/* work:settle(unit) -> { patched =, changed =, compared = } */
static int
l_settle(lua_State *L)
{
	struct manifest_work *w = check_work(L);
	size_t length, unit = 0;
	const char *name = luaL_checklstring(L, 2, &length);
	while (unit < w->unit_count && (w->lengths[unit] != length || memcmp(w->units[unit], name, length) != 0))
		unit++;
	luaL_argcheck(L, unit < w->unit_count, 2, "not one of its units");
	bind_permit(L, PERMIT_CHANGE);
	struct manifest_settle *s = manifest_push_job(L, sizeof *s, "settling a unit", manifest_settle_run, manifest_settle_release, push_settled);
	s->work = w;
	s->unit = (uint32_t)unit;
	atomic_fetch_add(&w->references, 1);
	return manifest_start_job(L);
}

static int
l_work_close(lua_State *L)
{
	struct manifest_work **w = luaL_checkudata(L, 1, WORK_MT);
	manifest_work_release(*w);
	*w = NULL;
	return 0;
}

static void
push_outcome(lua_State *L, struct manifest_sink *s)
{
	manifest_push_outcome(L, (struct manifest_results *)s);
}

/* shard:results([side]) -> sink */
static int
l_results(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 2);
	lua_getfield(L, 1, "handle");
	const struct shard_handle *h = luaL_checkudata(L, 3, HANDLE_MT);
	luaL_argcheck(L, lua_isnil(L, 2) == !h->work->proof, 2, "a side, of a proof and only of one");
	enum manifest_side side = lua_isnil(L, 2) ? SIDE_SOURCE : manifest_side_of(L, 2, NULL);
	manifest_push_sink(L, push_outcome);		/* ... sink */
	struct manifest_results *r = calloc(1, sizeof *r);
	if (!r)
		return luaL_error(L, "out of memory");
	r->sink.run = manifest_results_run;
	r->sink.release = manifest_results_release;
	r->work = h->work;
	r->shard = h->shard;
	r->side = side;
	atomic_fetch_add(&h->work->references, 1);
	atomic_fetch_add(&h->shard->references, 1);
	return manifest_start_sink(L, &r->sink);
}

static int
l_handle_gc(lua_State *L)
{
	struct shard_handle *h = luaL_checkudata(L, 1, HANDLE_MT);
	manifest_shard_release(h->shard);
	manifest_work_release(h->work);
	*h = (struct shard_handle){ NULL, NULL };
	return 0;
}

static const luaL_Reg handle_meta[] = {
	{ "__gc", l_handle_gc },
	{ NULL, NULL }
};

static const luaL_Reg work_methods[] = {
	{ "close",  l_work_close },
	{ "next",   l_next },
	{ "settle", l_settle },
	{ NULL, NULL }
};

static const luaL_Reg work_meta[] = {
	{ "__close", l_work_close },
	{ "__gc",    l_work_close },
	{ NULL, NULL }
};

static const luaL_Reg shard_methods[] = {
	{ "results", l_results },
	{ NULL, NULL }
};

static const luaL_Reg functions[] = {
	{ "census",    manifest_l_census },
	{ "compare",   l_compare },
	{ "distrust",  l_distrust },
	{ "forget",    l_forget },
	{ "keep",      manifest_l_keep },
	{ "parts",     manifest_l_parts },
	{ "request",   l_request },
	{ "scan",      l_scan },
	{ "strangers", manifest_l_strangers },
	{ "units",     l_units },
	{ "unproven",  l_unproven },
	{ "work",      l_work },
	{ NULL, NULL }
};

int luaopen_runbook_core_manifest(lua_State *L);

int
luaopen_runbook_core_manifest(lua_State *L)
{
	static const luaL_Reg none[] = { { NULL, NULL } };

	manifest_sink_classes(L);
	bind_op_class(L, JOB_MT);
	bind_class(L, HANDLE_MT, NULL, handle_meta);
	manifest_parts_class(L);
	bind_class(L, WORK_MT, work_methods, work_meta);
	bind_class(L, SHARD_MT, shard_methods, none);
	luaL_newlib(L, functions);
	return 1;
}
