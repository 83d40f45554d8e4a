/*
 * manifest_results.c - what came of a shard: taken apart as it comes, counted, and put by for manifest_settle.c, sorted by
 * path; see manifest_work.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "manifest_work.h"

#define EXAMPLES 3
#define FAULTS   200	/* kinds of failures that are told apart */
#define TOUCHES  16	/* inodes that an operation can touch, counted generously */

static struct moment
get_changed(struct reader *r)
{
	struct moment m = { .seconds = get_signed(r) };
	uint64_t nanoseconds = get_number(r);
	r->failed |= nanoseconds > 999999999;
	m.nanoseconds = (uint32_t)nanoseconds;
	return m;
}

/* As at the source; one that no manifest could hold is malformed. */
static void
get_entry(struct reader *r, struct entry *e)
{
	if (entry_get(r, e) && e->target.length > MANIFEST_PATH)
		r->failed = true;
}

bool
answer_get(struct reader *r, struct manifest_answer *a)
{
	const unsigned char *bytes;
	memset(a, 0, sizeof *a);
	uint64_t status = get_number(r);
	if (status > RESULT_TORN)
		r->failed = true;
	a->status = (unsigned char)status;
	if (status != RESULT_DONE) {
		uint64_t error = get_number(r);
		a->error = error > 4095 ? EIO : (int)error;
		a->words = get_text(r);
		a->stands = !r->failed && r->at < r->end;
		if (a->stands)
			get_entry(r, &a->entry);
		return !r->failed;
	}
	a->flags = (unsigned)get_number(r);
	if (a->flags & RESULT_PART) {
		a->sent = get_number(r);
		return !r->failed;
	}
	if (!(a->flags & (RESULT_LINKED | RESULT_REMOVED))) {
		get_entry(r, &a->entry);
		if ((bytes = get_bytes(r, ENTRY_ATTRIBUTES)))
			memcpy(a->attributes, bytes, ENTRY_ATTRIBUTES);
		if (a->flags & RESULT_HASHED && (bytes = get_bytes(r, ENTRY_HASH)))
			memcpy(a->hash, bytes, ENTRY_HASH);
	}
	if (!(a->flags & RESULT_REMOVED)) {
		a->inode = get_number(r);
		a->device = get_number(r);
		a->changed = get_changed(r);
		a->blocks = get_number(r);
	}
	a->sent = get_number(r);
	return !r->failed;
}

bool
proof_get(struct reader *r, struct manifest_answer *a)
{
	const unsigned char *bytes;
	memset(a, 0, sizeof *a);
	uint64_t error = get_number(r);
	if (error > 4095)
		r->failed = true;
	if (error) {
		a->status = error == ENOENT ? RESULT_VANISHED : error == EAGAIN ? RESULT_CHANGING : RESULT_SOURCE;
		a->error = (int)error;
		a->words = (struct text){ (const unsigned char *)"", 0 };
		return !r->failed;
	}
	a->flags = (unsigned)get_number(r) | RESULT_HASHED;
	get_entry(r, &a->entry);
	if ((bytes = get_bytes(r, ENTRY_ATTRIBUTES)))
		memcpy(a->attributes, bytes, ENTRY_ATTRIBUTES);
	if ((bytes = get_bytes(r, ENTRY_HASH)))
		memcpy(a->hash, bytes, ENTRY_HASH);
	return !r->failed;
}

bool
touched_get(struct reader *r, struct entry *e)
{
	memset(e, 0, sizeof *e);
	e->type = 'f';
	e->links = 2;
	e->inode = get_number(r);
	e->device = get_number(r);
	e->changed = get_changed(r);
	return !r->failed;
}

static void
nonsense(struct manifest_results *s, const char *what)
{
	manifest_fail(&s->sink.failure, "EFORMAT", "the results are malformed: %s", what);
}

/* The path of an operation; r is left behind it. */
static struct text
path_of(const struct manifest_results *s, const struct shard_op *op, struct reader *r)
{
	*r = reader_of(s->shard->bytes.bytes + op->at, op->length);
	return get_text(r);
}

static bool
is_of_kind(const struct shard_op *op, const struct manifest_answer *a)
{
	unsigned kind = a->flags & (RESULT_LINKED | RESULT_REMOVED);
	if (a->flags & RESULT_PART)
		return op->type == WORK_PART;
	if (op->type == WORK_LINK)
		return kind == RESULT_LINKED;
	if (op->type == WORK_REMOVE)
		return kind == RESULT_REMOVED;
	if (kind)
		return false;
	if (op->type == WORK_FILE || op->type == WORK_PART || op->type == WORK_CHECK)
		return a->entry.type == 'f';
	if (op->type == WORK_DIRECTORY)
		return a->entry.type == 'd';
	return op->type == PROVE_ENTRY || (a->entry.type != 'f' && a->entry.type != 'd');
}

static void
count_done(struct manifest_results *s, const struct shard_op *op, const struct manifest_answer *a)
{
	struct reader r;
	path_of(s, op, &r);
	bool stood = op->type != WORK_DIRECTORY && op->type != PROVE_ENTRY && op->type != WORK_REMOVE && get_number(&r) != 0;
	s->done++;
	s->sent += a->sent;
	if (op->type == WORK_LINK)
		s->linked++;
	else if (op->type == WORK_REMOVE)
		s->removed++;
	else if (op->type == WORK_DIRECTORY || (op->type == WORK_CHECK && a->sent == 0))
		s->metadata++;
	else if (op->type != PROVE_ENTRY && stood)
		s->replaced++;
	else if (op->type != PROVE_ENTRY)
		s->created++;
	if (a->entry.type == 'f') {
		s->files++;
		atomic_fetch_add(&s->sink.files, 1);
	}
}

static bool
is_fault(const struct manifest_fault *f, const struct shard_op *op, const struct manifest_answer *a)
{
	return f->unit == op->unit && f->status == a->status && f->error == a->error && strlen(f->words) == a->words.length
		&& memcmp(f->words, a->words.bytes, a->words.length) == 0;
}

static struct manifest_fault *
fault_of(struct manifest_results *s, const struct shard_op *op, struct manifest_answer *a)
{
	if (memchr(a->words.bytes, 0, a->words.length) || a->words.length > 200 || s->fault_count >= FAULTS)
		a->words.length = 0;
	for (size_t i = 0; i < s->fault_count; i++)
		if (is_fault(&s->faults[i], op, a))
			return &s->faults[i];
	struct manifest_fault *more = realloc(s->faults, (s->fault_count + 1) * sizeof *more);
	if (!more)
		return NULL;
	s->faults = more;
	struct manifest_fault *f = &more[s->fault_count];
	memset(f, 0, sizeof *f);
	f->unit = op->unit;
	f->status = a->status;
	f->error = a->error;
	f->words = malloc(a->words.length + 1);
	if (!f->words)
		return NULL;
	memcpy(f->words, a->words.bytes, a->words.length);
	f->words[a->words.length] = '\0';
	s->fault_count++;
	return f;
}

static void
count_failure(struct manifest_results *s, const struct shard_op *op, struct manifest_answer *a)
{
	struct reader r;
	struct text path = path_of(s, op, &r);
	if (a->status == RESULT_VANISHED) {
		s->vanished++;
		return;
	}
	struct manifest_fault *f = fault_of(s, op, a);
	if (!f)
		manifest_fail_errno(&s->sink.failure, ENOMEM, "results");
	else if (f->kind.count++ < EXAMPLES)
		manifest_names_add(&f->kind.examples, path.bytes, path.length);
}

static void
take_answer(struct manifest_results *s, struct reader *r, bool proof)
{
	struct manifest_answer a;
	uint64_t index = get_number(r);
	size_t length = (size_t)(r->end - r->at);
	const unsigned char *bytes = r->at;
	if (r->failed || proof != s->work->proof || index >= s->shard->count || s->answers[index].there) {
		nonsense(s, "an answer to nothing");
		return;
	}
	const struct shard_op *op = &s->shard->ops[index];
	if (!(proof ? proof_get(r, &a) : answer_get(r, &a)) || (a.status == RESULT_DONE && !is_of_kind(op, &a))) {
		nonsense(s, "an answer");
		return;
	}
	if (proof && a.status == RESULT_SOURCE && s->side == SIDE_TARGET)
		a.status = RESULT_TARGET;
	s->answers[index] = (struct answer){ s->kept.length, length, true, false };
	atomic_fetch_add(&s->sink.answered, 1);
	if (a.status == RESULT_DONE && a.flags & RESULT_PART) {	/* nothing stands in its place yet */
		s->answers[index].length = 0;
		s->sent += a.sent;
		return;
	}
	put_bytes(&s->kept, bytes, length);
	s->answers[index].linked = op->type == WORK_LINK || op->type == WORK_REMOVE
		|| (a.status == RESULT_DONE && op->type != PROVE_ENTRY && a.entry.type != 'd' && a.entry.links > 1);
	if (a.status == RESULT_DONE)
		count_done(s, op, &a);
	else
		count_failure(s, op, &a);
}

static void
take_touched(struct manifest_results *s, const struct frame *f)
{
	struct entry e;
	struct reader r = f->payload;
	struct buffer payload = { .bytes = (unsigned char *)f->payload.at, .length = (size_t)(f->payload.end - f->payload.at) };
	if (s->work->proof || s->touches++ > TOUCHES * (s->shard->count + 1) || !touched_get(&r, &e))
		nonsense(s, "a touched inode");
	else
		put_frame(&s->touched, RESULT_TOUCHED, &payload);
}

/* Putting it by. */

struct sorted {
	struct text path;
	uint32_t unit, index;
};

static int
by_path(const void *a, const void *b)
{
	const struct sorted *x = a, *y = b;
	if (x->unit != y->unit)
		return x->unit < y->unit ? -1 : 1;
	int order = entry_order(x->path.bytes, x->path.length, y->path.bytes, y->path.length);
	return order ? order : (x->index > y->index) - (x->index < y->index);
}

static struct manifest_section *
new_section(struct manifest_work *w)
{
	if (w->section_count == w->section_room) {
		size_t room = w->section_room ? 2 * w->section_room : 64;
		struct manifest_section *more = realloc(w->sections, room * sizeof *more);
		if (!more)
			return NULL;
		w->sections = more;
		w->section_room = room;
	}
	return &w->sections[w->section_count];
}

static bool
write_section(struct manifest_results *s, uint32_t unit, const struct buffer *bytes, bool linked)
{
	struct manifest_work *w = s->work;
	uv_mutex_lock(&w->spilling);
	struct manifest_section *section = new_section(w);
	errno = ENOMEM;
	bool ok = section && !bytes->failed && lseek(w->spill, (off_t)w->spilled, SEEK_SET) >= 0
		&& write_all(w->spill, bytes->bytes, bytes->length);
	int error = errno;
	if (ok) {
		*section = (struct manifest_section){ unit, s->shard->id, w->spilled, bytes->length, linked };
		w->section_count++;
		w->spilled += bytes->length;
	}
	uv_mutex_unlock(&w->spilling);
	errno = error;
	return ok;
}

/* The answers for one unit, list[0 to count), as a section of the spill file. */
static bool
spill_unit(struct manifest_results *s, const struct sorted *list, size_t count)
{
	struct buffer out = { 0 }, p = { 0 };
	bool linked = s->touched.length > 0;
	for (size_t i = 0; i < count; i++) {
		const struct answer *a = &s->answers[list[i].index];
		const struct shard_op *op = &s->shard->ops[list[i].index];
		linked |= a->linked;
		p.length = 0;
		put_text(&p, list[i].path.bytes, list[i].path.length);
		put_number(&p, s->side);
		put_number(&p, op->made);
		put_bytes(&p, s->kept.bytes + a->at, a->length);
		put_frame(&out, op->type, &p);
	}
	bool ok = !p.failed && write_section(s, list->unit, &out, linked);
	int error = errno;
	buffer_free(&out);
	buffer_free(&p);
	errno = error;
	return ok;
}

static void
spill(struct manifest_results *s)
{
	struct sorted *list = malloc((s->shard->count + 1) * sizeof *list);
	struct reader r;
	size_t count = 0;
	bool ok = list && !s->kept.failed;
	s->unanswered = s->shard->count;
	for (size_t i = 0; ok && i < s->shard->count; i++) {
		s->unanswered -= s->answers[i].there;
		if (s->answers[i].length)
			list[count++] = (struct sorted){ path_of(s, &s->shard->ops[i], &r), s->shard->ops[i].unit, (uint32_t)i };
	}
	if (count)
		qsort(list, count, sizeof *list, by_path);
	errno = ENOMEM;
	for (size_t from = 0, to; ok && from < count; from = to) {
		for (to = from + 1; to < count && list[to].unit == list[from].unit;)
			to++;
		ok = spill_unit(s, list + from, to - from);
	}
	if (ok && s->touched.length)
		ok = write_section(s, NO_UNIT, &s->touched, false);
	if (!ok)
		manifest_fail_errno(&s->sink.failure, errno, s->work->path);
	free(list);
}

void
manifest_results_run(struct manifest_sink *sink)
{
	struct manifest_results *s = (struct manifest_results *)sink;
	struct frame_input in;
	struct frame f;
	int there = 0;
	s->answers = calloc(s->shard->count + 1, sizeof *s->answers);
	if (!s->answers) {
		manifest_fail_errno(&sink->failure, ENOMEM, "results");
		return;
	}
	frame_input_open(&in, sink->fd);
	while (!sink->failure.code && !atomic_load(&sink->abandoned) && (there = frame_next(&in, &f)) == 1) {
		if (s->complete)
			nonsense(s, "more after its end");
		else if (f.type == RESULT || f.type == PROOF)
			take_answer(s, &f.payload, f.type == PROOF);
		else if (f.type == RESULT_TOUCHED)
			take_touched(s, &f);
		else if (f.type == RESULT_PROGRESS) {
			atomic_store(&sink->bytes, get_number(&f.payload));
			atomic_store(&sink->stat_nanoseconds, get_number(&f.payload));
		}
		else if (f.type == RESULT_END)
			s->complete = true;
		else
			nonsense(s, "an unknown frame");
	}
	if (there < 0 && in.problem && strcmp(in.problem, "cut") != 0)
		nonsense(s, in.problem);
	if (!atomic_load(&sink->abandoned))
		spill(s);
	frame_input_free(&in);
	buffer_free(&s->kept);
	buffer_free(&s->touched);
	free(s->answers);
	s->answers = NULL;
}

void
manifest_results_release(struct manifest_sink *sink)
{
	struct manifest_results *s = (struct manifest_results *)sink;
	for (size_t i = 0; i < s->fault_count; i++) {
		free(s->faults[i].words);
		manifest_names_free(&s->faults[i].kind.examples);
	}
	free(s->faults);
	manifest_shard_release(s->shard);
	manifest_work_release(s->work);
}
