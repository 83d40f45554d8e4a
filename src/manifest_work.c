/* manifest_work.c - shards out of the manifests of many units; see manifest_work.h. */
#include "manifest_work.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where it is: small units are gathered until they fill a shard. */
struct manifest_generator {
	uint32_t next;			/* unit */
	struct manifest_plan *plan;	/* of the unit before it, while its rows are read */
	struct manifest_reader reader;
	bool cut;			/* a part of this unit is in a shard already */
	bool ordered;			/* the next part must wait for those before it */
	struct manifest_batch pending;	/* whole units */
	struct manifest_kind refused[REFUSALS];
};

static void
destroy(struct manifest_work *w)
{
	struct manifest_generator *g = w->generator;
	if (g && g->plan) {
		plan_free(g->plan);
		manifest_shut(&g->reader);
	}
	if (g) {
		batch_free(&g->pending);
		for (int i = 0; i < REFUSALS; i++)
			manifest_names_free(&g->refused[i].examples);
	}
	while (w->ready) {
		struct manifest_shard *s = w->ready;
		w->ready = s->next;
		manifest_shard_release(s);
	}
	if (w->directory >= 0)
		close(w->directory);
	if (w->spill >= 0)
		close(w->spill);
	for (size_t i = 0; i < w->unit_count; i++)
		free(w->units[i]);
	free(w->units);
	free(w->lengths);
	free(w->sections);
	parts_free(&w->parts);
	free(w->path);
	free(g);
	uv_mutex_destroy(&w->making);
	uv_mutex_destroy(&w->spilling);
	free(w);
}

struct manifest_work *
manifest_work_new(const struct manifest_work *template)
{
	struct manifest_work *w = malloc(sizeof *w);
	if (!w)
		return NULL;
	*w = *template;
	w->references = 1;
	w->ready_last = &w->ready;
	w->directory = w->spill = -1;
	uv_mutex_init(&w->making);
	uv_mutex_init(&w->spilling);
	w->generator = calloc(1, sizeof *w->generator);
	if (w->generator)
		return w;
	destroy(w);
	return NULL;
}

bool
manifest_work_open(struct manifest_work *w)
{
	uv_mutex_lock(&w->making);
	if (w->directory < 0)
		w->directory = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w->directory >= 0 && w->spill < 0)
		w->spill = manifest_scratch(w->directory);
	int error = errno;
	bool ok = w->spill >= 0;
	uv_mutex_unlock(&w->making);
	errno = error;
	return ok;
}

void
manifest_work_release(struct manifest_work *w)
{
	if (w && atomic_fetch_sub(&w->references, 1) == 1)
		destroy(w);
}

static bool
ready(struct manifest_work *w, struct manifest_shard *s)
{
	struct manifest_generator *g = w->generator;
	if (!s)
		return false;
	for (int i = 0; i < REFUSALS; i++) {
		s->refused[i] = g->refused[i];
		memset(&g->refused[i], 0, sizeof g->refused[i]);
	}
	*w->ready_last = s;
	w->ready_last = &s->next;
	return true;
}

/* What was gathered of whole units. */
static bool
flush(struct manifest_work *w)
{
	struct manifest_generator *g = w->generator;
	bool any = batch_count(&g->pending) > 0;
	for (int i = 0; i < REFUSALS; i++)
		any |= g->refused[i].count > 0;
	return !any || ready(w, shard_of_batch(w, &g->pending, PHASE_WAY, PHASE_DIRECTORIES, SIZE_MAX, 0));
}

/* A part of a unit that is too large for one. */
static bool
cut(struct manifest_work *w, int first, int last, size_t most, bool after)
{
	struct manifest_generator *g = w->generator;
	uint32_t unit = g->next - 1;
	struct manifest_shard *s = shard_of_batch(w, plan_batch(g->plan), first, last, most, unit);
	if (s && after)
		s->after = unit + 1;
	g->cut = true;
	return ready(w, s);
}

static bool
is_full(const struct manifest_work *w, const struct manifest_batch *b)
{
	return b->count[PHASE_WAY] + b->count[PHASE_CONTENT] >= w->most_entries || b->size >= w->most_bytes;
}

static bool
end_unit(struct manifest_work *w)
{
	struct manifest_generator *g = w->generator;
	struct manifest_batch *b = plan_batch(g->plan);
	plan_end(g->plan);
	bool ok = !plan_failed(g->plan);
	plan_take_refused(g->plan, g->refused);
	if (ok && (g->cut || batch_count(b) > w->most_entries)) {
		if (!g->cut)
			ok = flush(w);
		if (ok && b->count[PHASE_WAY] + b->count[PHASE_CONTENT] > 0)
			ok = cut(w, PHASE_WAY, PHASE_CONTENT, SIZE_MAX, g->ordered);
		while (ok && batch_count(b) > 0)
			ok = cut(w, PHASE_WHOLE, PHASE_DIRECTORIES, w->most_entries, true);
	} else if (ok && batch_count(b) > 0) {
		if (batch_count(&g->pending) + batch_count(b) > w->most_entries || g->pending.size + b->size > w->most_bytes)
			ok = flush(w);
		batch_append(&g->pending, b, g->next - 1);
	}
	plan_free(g->plan);
	manifest_shut(&g->reader);
	g->plan = NULL;
	g->cut = g->ordered = false;
	return ok;
}

static bool
begin_unit(struct manifest_work *w)
{
	struct manifest_generator *g = w->generator;
	uint32_t unit = g->next++;
	struct text name = { (const unsigned char *)w->units[unit], w->lengths[unit] };
	char *file = manifest_name(name.bytes, name.length);
	errno = ENOMEM;
	int there = file ? manifest_open(&g->reader, w->directory, file, NULL) : -1;
	free(file);
	if (there > 0 && !(g->plan = plan_new(w, &g->reader, name))) {
		manifest_shut(&g->reader);
		errno = ENOMEM;
		there = -1;
	}
	return there >= 0;
}

/* Rows until a shard is ready or the unit ends. */
static bool
read_rows(struct manifest_work *w, struct manifest_job *job)
{
	struct manifest_generator *g = w->generator;
	struct row row;
	while (!w->ready && !atomic_load(&job->abandoned)) {
		bool more = plan_more(g->plan);
		if (!more && !manifest_next(&g->reader, &row)) {
			errno = g->reader.failed ? EIO : ENOMEM;
			return !g->reader.failed && end_unit(w);
		}
		if (!more)
			plan_row(g->plan, &row);
		if (!is_full(w, plan_batch(g->plan)) || !plan_can_be_cut(g->plan))
			continue;
		errno = ENOMEM;
		plan_take_refused(g->plan, g->refused);
		if (plan_failed(g->plan) || (!g->cut && !flush(w)) || !cut(w, PHASE_WAY, PHASE_CONTENT, SIZE_MAX, g->ordered))
			return false;
		g->ordered = plan_is_ordered(g->plan);
	}
	return true;
}

void
manifest_next_run(struct manifest_job *job)
{
	struct manifest_next *n = (struct manifest_next *)job;
	struct manifest_work *w = n->work;
	struct manifest_generator *g = w->generator;
	bool ok = true;
	if (!manifest_work_open(w)) {
		manifest_fail_errno(&job->failure, errno, w->path);
		return;
	}
	uv_mutex_lock(&w->making);
	while (ok && !w->ready && !atomic_load(&job->abandoned)) {
		errno = ENOMEM;
		if (g->plan)
			ok = read_rows(w, job);
		else if (g->next < w->unit_count)
			ok = begin_unit(w);
		else if (!(ok = flush(w)) || !w->ready)
			break;
	}
	if (!ok)
		manifest_fail_errno(&job->failure, errno, g->next ? w->units[g->next - 1] : w->path);
	if (ok && w->ready) {
		n->shard = w->ready;
		if (!(w->ready = n->shard->next))
			w->ready_last = &w->ready;
		n->shard->next = NULL;
	}
	uv_mutex_unlock(&w->making);
}

/* A shard that nobody took is not lost: the next one who asks gets it. */
void
manifest_next_release(struct manifest_job *job)
{
	struct manifest_next *n = (struct manifest_next *)job;
	if (n->shard) {
		uv_mutex_lock(&n->work->making);
		n->shard->next = n->work->ready;
		if (!n->work->ready)
			n->work->ready_last = &n->shard->next;
		n->work->ready = n->shard;
		uv_mutex_unlock(&n->work->making);
	}
	manifest_work_release(n->work);
}
