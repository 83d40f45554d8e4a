/*
 * receive.c - takes what a sender sends and hands it to threads.
 *
 * Removals and directories wait for the end of their phase: removals begin with what is no directory and go on with the
 * deepest; directories are all made first and get their times last, as nothing is made in them any more.
 */
#include "receive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sysexits.h>
#include <unistd.h>

#define QUEUED ((size_t)32 << 20)
#define PROGRESS UINT64_C(500000000)	/* nanoseconds */

struct far_options receive_options;
uint64_t receive_number;
bool receive_is_remote;
_Atomic uint64_t received_bytes, received_files;

struct list {
	struct task **tasks;
	size_t count, room;
};

static struct {
	struct pool *pool;
	struct list removals, directories;
	struct large *large;
	uint64_t stat, said_at, removed;
	bool malformed;		/* no more is taken */
} receive;

static void
keep(struct list *l, struct task *t)
{
	if (l->count == l->room) {
		l->room = l->room ? 2 * l->room : 64;
		l->tasks = realloc(l->tasks, l->room * sizeof *l->tasks);
		if (!l->tasks)
			far_die(EX_OSERR, "out of memory");
	}
	l->tasks[l->count++] = t;
}

static struct task *
task_of(const struct frame *f)
{
	size_t length = (size_t)(f->payload.end - f->payload.at);
	struct task *t = task_new(length);
	t->type = f->type;
	memcpy(t->bytes, f->payload.at, length);
	return t;
}

static void
malformed(struct task *t)
{
	receive.malformed = true;
	task_free(t);
}

/* Moved to where its length was said, there is room for a zero behind it.  NULL: malformed. */
static const char *
get_path(struct task *t)
{
	struct text path = get_text(&t->payload);
	if (t->payload.failed || !entry_path_is_good(path))
		return NULL;
	unsigned char *at = t->bytes + (path.bytes - t->bytes) - 1;
	memmove(at, path.bytes, path.length);
	at[path.length] = '\0';
	return (const char *)at;
}

static bool
take_head(struct task *t, bool expects)
{
	t->index = get_number(&t->payload);
	t->path = get_path(t);
	if (expects)
		t->expect = get_expect(&t->payload);
	if (t->path && !t->payload.failed)
		return true;
	malformed(t);
	return false;
}

static void
run(struct cursor *c, void *arg)
{
	struct task *t = arg;
	switch (t->type) {
	case DATA_WHOLE: apply_whole(c, t); break;
	case WORK_CHECK: apply_check(c, t); break;
	case WORK_NODE: apply_node(c, t); break;
	case WORK_LINK: apply_link(c, t); break;
	case WORK_REMOVE: apply_removal(c, t); break;
	}
	task_free(t);
}

static void
run_make(struct cursor *c, void *arg)
{
	apply_make_directory(c, arg);
}

static void
run_directory(struct cursor *c, void *arg)
{
	struct task *t = arg;
	if (t->type == DATA_UNSENT)
		apply_unsent(c, t);
	else
		apply_directory(c, t);
	task_free(t);
}

static void
leave(struct cursor *c, struct large *l)
{
	if (atomic_fetch_sub(&l->left, 1) != 1)
		return;
	if (l->unfinished)
		unfinished_end(c, l);
	else
		apply_large(c, l);
	if (l->fd >= 0)
		close(l->fd);
	task_free(l->end);
	pthread_mutex_destroy(&l->lock);
	free(l->path);
	free(l);
}

static void
run_part(struct cursor *c, void *arg)
{
	struct task *t = arg;
	struct large *l = t->large;
	bool ends = t->type == DATA_DONE || t->type == DATA_SENT;
	if (l->unfinished && !ends && t->type != DATA_DROP)
		unfinished_part(c, t);
	else if (!l->unfinished && t->type != DATA_DROP)
		apply_part(c, t);
	if (ends)
		l->end = t;
	else
		task_free(t);
	leave(c, l);
}

static struct large **
large_by(uint64_t id)
{
	struct large **at = &receive.large;
	while (*at && (*at)->id != id)
		at = &(*at)->next;
	return at;
}

static struct large *
begin_large(uint64_t id, uint64_t index, const char *path, const struct expect *expect, uint64_t size)
{
	struct large *l = far_memory(sizeof *l);
	*l = (struct large){ .id = id, .index = index, .expect = *expect, .size = size, .fd = -1, .left = 1, .next = receive.large };
	l->path = far_memory(strlen(path) + 1);
	strcpy(l->path, path);
	pthread_mutex_init(&l->lock, NULL);
	receive.large = l;
	return l;
}

/* Ends what the list knows of it; its own count is the last one to go, in a thread, as that may take long. */
static void
end_large(struct large **at, struct task *t)
{
	struct large *l = *at;
	*at = l->next;
	t->large = l;
	if (l->segment)
		segment_leave(l, l->segment); /* it was not sent whole */
	l->segment = NULL;
	pool_add(receive.pool, run_part, t, t->length);
}

static void
take_begin(struct task *t, uint64_t id)
{
	if (!take_head(t, true))
		return;
	uint64_t size = get_number(&t->payload);
	receive.malformed = t->payload.failed || size > INT64_MAX / 2;
	if (!receive.malformed)
		begin_large(id, t->index, t->path, &t->expect, size)->unfinished = t->type == DATA_UNFINISHED;
	task_free(t);
}

static void
add_part(struct large *l, struct task *t)
{
	t->large = l;
	l->left++;
	pool_add(receive.pool, run_part, t, t->length);
}

/* What is under way still is of another state. */
static void
begin_again(struct large *l, struct task *t)
{
	uint64_t size = get_number(&t->payload);
	receive.malformed = t->payload.failed || size > INT64_MAX / 2;
	pool_wait(receive.pool);
	if (l->segment)
		segment_leave(l, l->segment);
	l->segment = NULL;
	if (!receive.malformed)
		unfinished_again(l, size);
	task_free(t);
}

/* A part of a segment, which is the present one then. */
static void
take_part(struct large *l, struct task *t)
{
	struct reader r = t->payload;
	uint64_t index = get_number(&r) / segment_size(l->size);
	if (l->segment && l->segment->index != index) {
		segment_leave(l, l->segment);
		l->segment = NULL;
	}
	if (!l->segment)
		l->segment = segment_new(index);
	t->segment = l->segment;
	l->segment->left++;
	add_part(l, t);
}

static void
take_segment(struct large *l, struct task *t)
{
	uint64_t index = get_number(&t->payload);
	bool as_it_was = get_number(&t->payload) != 0;
	const unsigned char *record = get_bytes(&t->payload, SEGMENT_RECORD);
	if (!l->unfinished || !record || index >= segment_count(l->size) || (l->segment && l->segment->index != index)) {
		malformed(t);
		return;
	}
	t->segment = l->segment ? l->segment : segment_new(index);
	l->segment = NULL;
	t->segment->said = true;
	if (as_it_was)
		t->segment->cleared = true;
	memcpy(t->segment->record, record, SEGMENT_RECORD);
	add_part(l, t);
}

static void
take_large(struct task *t)
{
	uint64_t id = get_number(&t->payload);
	if (t->type == DATA_BEGIN || t->type == DATA_UNFINISHED) {
		take_begin(t, id);
		return;
	}
	struct large **at = large_by(id);
	if (!*at || t->payload.failed || (t->type == DATA_SENT && !(*at)->unfinished)) {
		malformed(t);
	} else if (t->type == DATA_CHUNK && (*at)->unfinished) {
		take_part(*at, t);
	} else if (t->type == DATA_CHUNK) {
		add_part(*at, t);
	} else if (t->type == DATA_SEGMENT) {
		take_segment(*at, t);
	} else if (t->type == DATA_AGAIN && (*at)->unfinished) {
		begin_again(*at, t);
	} else if (t->type == DATA_AGAIN) {
		struct large *old = *at;
		begin_large(id, old->index, old->path, &old->expect, ANY_SIZE);
		for (at = &receive.large; *at != old;)
			at = &(*at)->next;
		t->type = DATA_DROP;
		end_large(at, t);
	} else {
		end_large(at, t);
	}
}

/* It ends too early: nothing half is left lying about, and what was done is said. */
static void
drop_all(void)
{
	while (receive.large) {
		struct task *t = task_new(0);
		t->type = DATA_DROP;
		receive.large->cut = true;
		end_large(&receive.large, t);
	}
	pool_wait(receive.pool);
	cursor_tighten();
	out_flush();
}

static size_t
depth_of(const struct task *t)
{
	size_t depth = 0;
	for (const char *at = t->path; *at; at++)
		depth += *at == '/';
	return depth;
}

static int
deepest_first(const void *a, const void *b)
{
	size_t x = depth_of(*(struct task *const *)a), y = depth_of(*(struct task *const *)b);
	return (x < y) - (x > y);
}

static void
sort(struct list *l)
{
	if (l->count)
		qsort(l->tasks, l->count, sizeof *l->tasks, deepest_first);
}

static bool
removes_directory(const struct task *t)
{
	return t->payload.at < t->payload.end && *t->payload.at == 'd';
}

static void
finish_removals(void)
{
	struct list *l = &receive.removals;
	size_t left = 0;
	for (size_t i = 0; i < l->count; i++) {
		if (removes_directory(l->tasks[i]))
			l->tasks[left++] = l->tasks[i];
		else
			pool_add(receive.pool, run, l->tasks[i], l->tasks[i]->length);
	}
	l->count = left;
	sort(l);
	size_t depth = SIZE_MAX;
	for (size_t i = 0; i < l->count; i++) {
		size_t here = depth_of(l->tasks[i]);
		if (here != depth)
			pool_wait(receive.pool);
		depth = here;
		pool_add(receive.pool, run, l->tasks[i], l->tasks[i]->length);
	}
	pool_wait(receive.pool);
	l->count = 0;
}

static void
finish_directories(void)
{
	struct list *l = &receive.directories;
	for (size_t i = 0; i < l->count; i++)
		if (l->tasks[i]->type == WORK_DIRECTORY)
			pool_add(receive.pool, run_make, l->tasks[i], l->tasks[i]->length);
	pool_wait(receive.pool);
	sort(l);
	size_t depth = SIZE_MAX;
	for (size_t i = 0; i < l->count; i++) {
		size_t here = depth_of(l->tasks[i]);
		if (here != depth && geteuid() != 0) /* who is not root cannot come through a directory that is closed already */
			pool_wait(receive.pool);
		depth = here;
		pool_add(receive.pool, run_directory, l->tasks[i], l->tasks[i]->length);
	}
	pool_wait(receive.pool);
	l->count = 0;
}

static void
finish_phase(void)
{
	pool_wait(receive.pool);
	finish_removals();
	finish_directories();
	cursor_tighten();
	links_say();
	cursor_forget_all();
}

static void
say_progress(bool always)
{
	uint64_t now = far_clock();
	if (!always && now - receive.said_at < PROGRESS)
		return;
	struct buffer p = { 0 };
	put_number(&p, received_bytes);
	put_number(&p, receive.stat);
	out_frame(RESULT_PROGRESS, &p);
	out_flush();
	buffer_free(&p);
	receive.said_at = now;
}

static void
take_removal(struct task *t)
{
	if (!take_head(t, false))
		return;
	if (++receive.removed > receive_options.most_removed) {
		say_failed(t->index, RESULT_CONFLICT, E2BIG, "more would be removed than is allowed");
		task_free(t);
	} else {
		keep(&receive.removals, t);
	}
}

static void
pass_on_failure(struct task *t)
{
	struct unsent u;
	uint64_t index = get_number(&t->payload);
	if (!unsent_get(&t->payload, &u)) {
		malformed(t);
		return;
	}
	say_failed(index, u.status, u.error, u.words);
	task_free(t);
}

static void
take(const struct frame *f)
{
	struct task *t = task_of(f);
	switch (f->type) {
	case DATA_WHOLE: case WORK_CHECK: case WORK_NODE: case WORK_LINK:
		if (take_head(t, true))
			pool_add(receive.pool, run, t, t->length);
		break;
	case DATA_BEGIN: case DATA_UNFINISHED: case DATA_CHUNK: case DATA_SEGMENT: case DATA_AGAIN: case DATA_DONE: case DATA_SENT: case DATA_DROP:
		take_large(t);
		break;
	case WORK_REMOVE: take_removal(t); break;
	case WORK_DIRECTORY: case DATA_UNSENT:
		if (take_head(t, false))
			keep(&receive.directories, t);
		break;
	case DATA_FAILED: pass_on_failure(t); break;
	case DATA_STAT:
		receive.stat = get_number(&t->payload);
		task_free(t);
		break;
	default: malformed(t);
	}
}

static void
say_end(void)
{
	struct buffer p = { 0 };
	say_progress(true);
	put_number(&p, received_bytes);
	put_number(&p, received_files);
	out_frame(RESULT_END, &p);
	out_flush();
	buffer_free(&p);
}

/* Names of a receiver that was killed may still lie about, and its pid may be ours. */
static uint64_t
some_number(void)
{
	uint64_t n;
	if (getrandom(&n, sizeof n, 0) != (ssize_t)sizeof n)
		n = far_clock() ^ (uint64_t)getpid() << 40;
	return n;
}

int
far_receive(const struct far_options *o)
{
	struct frame_input in;
	struct frame f;
	bool ended = false;
	receive_options = *o;
	int root = open(o->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		far_die(EX_CANTCREAT, "%s: %s", o->root, strerror(errno));
	receive_is_remote = far_is_remote(root);
	receive_number = some_number();
	receive.pool = pool_open(far_threads(o, root), root, true, QUEUED);
	far_widen(STDIN_FILENO);
	frame_input_open(&in, STDIN_FILENO);
	out_stay();
	while (!ended && !receive.malformed && !out_is_gone() && frame_next(&in, &f) == 1) {
		if (f.type == WORK_BARRIER || f.type == WORK_END) {
			finish_phase();
			ended = f.type == WORK_END;
			receive.malformed = ended && receive.large;
		} else {
			take(&f);
		}
		say_progress(false);
	}
	if (!ended || receive.malformed) {
		drop_all();
		if (!out_is_gone())
			far_die(EX_PROTOCOL, "what is sent is %s", receive.malformed ? "malformed" : in.problem ? in.problem : "cut");
	} else {
		if (o->sync && syncfs(root) != 0)
			far_die(EX_IOERR, "%s: %s", o->root, strerror(errno));
		say_end();
	}
	if (out_is_gone())
		far_die(EX_IOERR, "whom to tell what was done is gone");
	pool_close(receive.pool);
	frame_input_free(&in);
	free(receive.removals.tasks);
	free(receive.directories.tasks);
	close(root);
	return 0;
}
