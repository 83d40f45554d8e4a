/* manifest_scan.c - the stream of a scan, unit by unit; see manifest.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "manifest.h"

#define CHUNK ((size_t)256 << 10)
#define UNREADABLE ((size_t)1 << 20)	/* bytes of paths that are kept */

static void
nonsense(struct manifest_scan *s, const char *what)
{
	manifest_fail(&s->sink.failure, "EFORMAT", "the scan is malformed: %s", what);
}

static char *
copy_text(struct text t)
{
	char *copy = malloc(t.length + 1);
	if (!copy)
		return NULL;
	memcpy(copy, t.bytes, t.length);
	copy[t.length] = '\0';
	return copy;
}

static void
take_word(char *to, size_t size, struct text word)
{
	size_t n = word.length < size - 1 ? word.length : size - 1;
	memcpy(to, word.bytes, n);
	to[n] = '\0';
}

static void
take_hello(struct manifest_scan *s, struct reader *r)
{
	if (s->greeted)
		nonsense(s, "two beginnings");
	s->greeted = true;
	s->version = get_number(r);
	if (!r->failed && s->version != ENTRY_VERSION) {
		manifest_fail(&s->sink.failure, "EFORMAT", "the far side speaks version %llu and this one %d",
		              (unsigned long long)s->version, ENTRY_VERSION);
		return;
	}
	take_word(s->boot, sizeof s->boot, get_text(r));
	s->clock.seconds = get_signed(r);
	uint64_t nanoseconds = get_number(r);
	r->failed |= nanoseconds > 999999999;
	s->clock.nanoseconds = (uint32_t)nanoseconds;
	s->device = get_number(r);
	s->inode = get_number(r);
	take_word(s->file_system, sizeof s->file_system, get_text(r));
	s->page = get_number(r);
}

static struct manifest_unit *
present(struct manifest_scan *s)
{
	return &s->units[s->unit_count - 1];
}

static void
take_unit(struct manifest_scan *s, struct reader *r)
{
	struct text name = get_text(r);
	if (s->open || r->failed || !manifest_unit_is_good(name)) {
		nonsense(s, "a unit");
		return;
	}
	if (s->unit_count == s->unit_room) {
		size_t room = s->unit_room ? 2 * s->unit_room : 64;
		struct manifest_unit *more = realloc(s->units, room * sizeof *more);
		if (!more) {
			manifest_fail_errno(&s->sink.failure, ENOMEM, "scan");
			return;
		}
		s->units = more;
		s->unit_room = room;
	}
	struct manifest_unit *u = &s->units[s->unit_count];
	memset(u, 0, sizeof *u);
	u->name = copy_text(name);
	u->length = name.length;
	s->unit_count++;
	s->open = true;
	if (!u->name || ftruncate(s->spool, 0) != 0 || lseek(s->spool, 0, SEEK_SET) != 0)
		manifest_fail_errno(&s->sink.failure, u->name ? errno : ENOMEM, "scan");
}

static void
spool(struct manifest_scan *s, bool all)
{
	if (s->spooled.failed)
		manifest_fail_errno(&s->sink.failure, ENOMEM, "scan");
	else if (s->spooled.length > (all ? 0 : CHUNK)) {
		if (!write_all(s->spool, s->spooled.bytes, s->spooled.length))
			manifest_fail_errno(&s->sink.failure, errno, s->directory);
		s->spooled.length = 0;
	}
}

static void
take_entry(struct manifest_scan *s, const struct frame *f)
{
	if (!s->open) {
		nonsense(s, "an entry of no unit");
		return;
	}
	struct buffer payload = { .bytes = (unsigned char *)f->payload.at, .length = (size_t)(f->payload.end - f->payload.at) };
	put_frame(&s->spooled, SCAN_ENTRY, &payload);
	atomic_fetch_add(&s->sink.answered, 1);
	spool(s, false);
}

/* errno 0 says something about a name; anything else, that it could not be looked at. */
static void
take_problem(struct manifest_scan *s, struct reader *r)
{
	struct text path = get_text(r);
	uint64_t error = get_number(r);
	struct text what = get_text(r);
	if (!s->open || r->failed || error > 4095 || path.length > MANIFEST_PATH || !entry_path_is_good(path)) {
		nonsense(s, "a problem");
		return;
	}
	struct manifest_unit *u = present(s);
	if (!u->problems && !(u->problems = calloc(MANIFEST_SHOWN, sizeof *u->problems))) {
		manifest_fail_errno(&s->sink.failure, ENOMEM, "scan");
		return;
	}
	if (u->problem_count < MANIFEST_SHOWN)
		u->problems[u->problem_count] = (struct manifest_problem){ copy_text(path), copy_text(what), (int)error };
	if (u->problem_count++ >= MANIFEST_PROBLEMS || !error)
		return;
	if (u->unreadable.length + path.length > UNREADABLE) {	/* then all of it is */
		u->unreadable.length = 0;
		path.length = 0;
	}
	put_text(&u->unreadable, path.bytes, path.length);
}

static bool
get_owners(struct manifest_unit *u, struct reader *r)
{
	uint64_t n = get_number(r);
	if (r->failed || n > (uint64_t)(r->end - r->at) / 3)
		return false;
	u->owners = n ? calloc((size_t)n, sizeof *u->owners) : NULL;
	if (n && !u->owners)
		return false;
	for (u->owner_count = 0; u->owner_count < n; u->owner_count++) {
		uint64_t uid = get_number(r), gid = get_number(r), names = get_number(r);
		if (r->failed || uid > UINT32_MAX || gid > UINT32_MAX)
			return false;
		u->owners[u->owner_count] = (struct manifest_owner){ (uint32_t)uid, (uint32_t)gid, names };
	}
	return true;
}

/* That nothing changed is only believed of what we know. */
static void
check_same(struct manifest_scan *s, struct manifest_unit *u)
{
	struct manifest_reader r;
	char *file = manifest_name(u->name, u->length);
	int there = file ? manifest_open(&r, s->at, file, NULL) : -1;
	const struct manifest_summary *known = &r.side[s->side];
	if (there < 0)
		manifest_fail_errno(&s->sink.failure, file ? errno : ENOMEM, u->name);
	else if (!there || !known->known || known->digest_length != u->digest_length
	         || memcmp(known->digest, u->digest, u->digest_length) != 0)
		manifest_fail(&s->sink.failure, "EFORMAT", "%.200s is said to be what it was, and nothing is known of it", u->name);
	if (there > 0)
		manifest_shut(&r);
	free(file);
}

static void
take_unit_end(struct manifest_scan *s, struct reader *r)
{
	if (!s->open) {
		nonsense(s, "the end of no unit");
		return;
	}
	struct manifest_unit *u = present(s);
	struct text digest = get_text(r);
	u->same = get_number(r) != 0;
	if (!unit_counts_get(r, &u->counts) || !get_owners(u, r) || digest.length > MANIFEST_DIGEST) {
		nonsense(s, "the end of a unit");
		return;
	}
	memcpy(u->digest, digest.bytes, digest.length);
	u->digest_length = digest.length;
	spool(s, true);
	if (s->sink.failure.code)
		return;
	if (u->same && digest.length == 0)
		nonsense(s, "a unit that is the same as nothing");
	else if (u->same)
		check_same(s, u);
	else
		manifest_merge(s, u);
	buffer_free(&u->unreadable);
	s->open = false;
}

/* The end. */

static int
by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

struct seen {
	char **files;
	size_t count;
};

static bool
see(struct manifest_scan *s, struct seen *seen)
{
	seen->files = calloc(s->unit_count + 1, sizeof *seen->files);
	for (size_t i = 0; seen->files && i < s->unit_count; i++) {
		if (!(seen->files[i] = manifest_name(s->units[i].name, s->units[i].length)))
			return false;
		seen->count++;
	}
	if (!seen->files)
		return false;
	qsort(seen->files, seen->count, sizeof *seen->files, by_text);
	for (size_t i = 1; i < seen->count; i++)
		if (strcmp(seen->files[i - 1], seen->files[i]) == 0)
			nonsense(s, "a unit that comes twice");
	return true;
}

static void
look_for_vanished(struct manifest_scan *s, const struct seen *seen, const char *file)
{
	struct manifest_reader r;
	if (!manifest_is_name(file) || bsearch(&file, seen->files, seen->count, sizeof *seen->files, by_text)
	    || manifest_open(&r, s->at, file, NULL) <= 0)
		return;
	if (manifest_is_there(&r.side[s->side])) {
		manifest_names_add(&s->vanished, r.unit.bytes, r.unit.length);
		manifest_drop_side(s->at, file, s->side, &s->sink.failure);
	}
	manifest_shut(&r);
}

static void
take_end(struct manifest_scan *s, struct reader *r)
{
	uint64_t units = get_number(r);
	struct seen seen = { 0 };
	s->stat_nanoseconds = get_number(r);
	if (s->open || r->failed || units != s->unit_count)
		nonsense(s, "its end");
	else if (!see(s, &seen))
		manifest_fail_errno(&s->sink.failure, ENOMEM, "scan");
	int fd = s->sink.failure.code || s->partial ? -1 : openat(s->at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *one;
	while (list && (one = readdir(list)))
		look_for_vanished(s, &seen, one->d_name);
	if (list)
		closedir(list);
	else if (!s->sink.failure.code && !s->partial)
		manifest_fail_errno(&s->sink.failure, errno, s->directory);
	for (size_t i = 0; i < seen.count; i++)
		free(seen.files[i]);
	free(seen.files);
}

static void
take(struct manifest_scan *s, struct frame *f)
{
	struct reader *r = &f->payload;
	if (!s->greeted && f->type != SCAN_HELLO) {
		nonsense(s, "no beginning");
		return;
	}
	switch (f->type) {
	case SCAN_HELLO: take_hello(s, r); break;
	case SCAN_UNIT: take_unit(s, r); break;
	case SCAN_ENTRY: take_entry(s, f); break;
	case SCAN_PROBLEM: take_problem(s, r); break;
	case SCAN_UNIT_END: take_unit_end(s, r); break;
	case SCAN_END: take_end(s, r); break;
	default: nonsense(s, "an unknown frame"); break;
	}
	if (r->failed)
		nonsense(s, "a frame");
}

void
manifest_scan_run(struct manifest_sink *sink)
{
	struct manifest_scan *s = (struct manifest_scan *)sink;
	struct frame_input in;
	struct frame f;
	bool ended = false;
	int there = 0;
	frame_input_open(&in, sink->fd);
	s->at = open(s->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	s->spool = s->at < 0 ? -1 : manifest_scratch(s->at);
	if (s->spool < 0)
		manifest_fail_errno(&sink->failure, errno, s->directory);
	while (!sink->failure.code && !atomic_load(&sink->abandoned) && (there = frame_next(&in, &f)) == 1) {
		if (ended)
			nonsense(s, "more after its end");
		ended = f.type == SCAN_END;
		take(s, &f);
	}
	if (there < 0 && in.problem && strcmp(in.problem, "cut") != 0)
		nonsense(s, in.problem);
	if (!ended)
		manifest_fail(&sink->failure, "ECUT", "the scan was cut short");
	frame_input_free(&in);
	buffer_free(&s->spooled);
	if (s->spool >= 0)
		close(s->spool);
	if (s->at >= 0)
		close(s->at);
}

void
manifest_unit_fini(struct manifest_unit *u)
{
	for (size_t i = 0; i < u->example_count; i++)
		free(u->examples[i].path);
	for (size_t i = 0; u->problems && i < MANIFEST_SHOWN; i++) {
		free(u->problems[i].path);
		free(u->problems[i].what);
	}
	free(u->problems);
	if (u->compared)
		manifest_comparison_fini(u->compared);
	free(u->compared);
	free(u->owners);
	free(u->name);
	buffer_free(&u->unreadable);
}

void
manifest_scan_release(struct manifest_sink *sink)
{
	struct manifest_scan *s = (struct manifest_scan *)sink;
	for (size_t i = 0; i < s->unit_count; i++)
		manifest_unit_fini(&s->units[i]);
	free(s->units);
	free(s->directory);
	free(s->ours_during);
	manifest_names_free(&s->vanished);
}
