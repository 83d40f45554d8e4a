/* manifest.c - upon all manifests of a directory: what a scan is asked, what there is, what is dropped; see manifest.h. */
#include "manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Calls fn with every manifest's file name until it says no; false when the directory cannot be read. */
static bool
each(int directory, bool (*fn)(int directory, const char *file, void *arg), void *arg)
{
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	if (!list) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	bool go_on = true;
	struct dirent *one;
	while (go_on && (one = readdir(list)))
		if (manifest_is_name(one->d_name))
			go_on = fn(directory, one->d_name, arg);
	closedir(list);
	return true;
}

/* The same from a path, with the job's failure. */
void
manifest_each(struct manifest_job *job, const char *path, bool (*fn)(int directory, const char *file, void *arg))
{
	int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0 || !each(directory, fn, job))
		manifest_fail_errno(&job->failure, errno, path);
	if (directory >= 0)
		close(directory);
}

static bool
goes_on(struct manifest_job *job)
{
	return !job->failure.code && !atomic_load(&job->abandoned);
}

/* What a scan is asked.  After what could not be looked at, everything is wanted: it may be there again. */
static bool
request_unit(int directory, const char *file, void *arg)
{
	struct manifest_request *q = arg;
	struct manifest_reader r;
	int there = manifest_open(&r, directory, file, NULL);
	if (there < 0 && errno != ENOENT)
		manifest_fail_errno(&q->job.failure, errno, file);
	if (there > 0) {
		const struct manifest_summary *s = &r.side[q->side];
		struct buffer p = { 0 };
		if (s->known && s->digest_length && s->problems == 0) {
			put_text(&p, r.unit.bytes, r.unit.length);
			put_text(&p, s->digest, s->digest_length);
			put_frame(&q->out, SCAN_UNIT, &p);
		}
		buffer_free(&p);
		manifest_shut(&r);
	}
	return goes_on(&q->job);
}

void
manifest_request_run(struct manifest_job *job)
{
	struct manifest_request *q = (struct manifest_request *)job;
	struct buffer nothing = { 0 };
	put_bytes(&q->out, q->head.bytes, q->head.length);
	if (!q->fresh)
		manifest_each(job, q->directory, request_unit);
	put_frame(&q->out, SCAN_GO, &nothing);
	if (q->out.failed || q->head.failed)
		manifest_fail_errno(&job->failure, ENOMEM, "request");
}

void
manifest_request_release(struct manifest_job *job)
{
	struct manifest_request *q = (struct manifest_request *)job;
	buffer_free(&q->head);
	buffer_free(&q->out);
	free(q->directory);
}

/* What there is. */
static bool
list_unit(int directory, const char *file, void *arg)
{
	struct manifest_units *u = arg;
	struct manifest_reader r;
	bool corrupt;
	int there = manifest_open(&r, directory, file, &corrupt);
	if (there <= 0 && !corrupt) {
		if (there < 0)
			manifest_fail_errno(&u->job.failure, errno, file);
		return goes_on(&u->job);
	}
	struct manifest_known *list = realloc(u->list, (u->count + 1) * sizeof *list), *one = list ? &list[u->count] : NULL;
	if (list) {
		u->list = list;
		u->count++;
		memset(one, 0, sizeof *one);
		one->corrupt = corrupt;
		one->name = strdup(corrupt ? file : (const char *)r.unit.bytes);
	}
	if (!one || !one->name)
		manifest_fail_errno(&u->job.failure, ENOMEM, file);
	if (there > 0) {
		for (int i = 0; one && i < SIDES; i++)
			if (!manifest_summary_copy(&one->side[i], &r.side[i]))
				manifest_fail_errno(&u->job.failure, ENOMEM, file);
		if (one)
			one->rows = r.rows;
		manifest_shut(&r);
	}
	return goes_on(&u->job);
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const struct manifest_known *)a)->name, ((const struct manifest_known *)b)->name);
}

void
manifest_units_run(struct manifest_job *job)
{
	struct manifest_units *u = (struct manifest_units *)job;
	manifest_each(job, u->directory, list_unit);
	if (u->count && !job->failure.code)
		qsort(u->list, u->count, sizeof *u->list, by_name);
}

void
manifest_units_release(struct manifest_job *job)
{
	struct manifest_units *u = (struct manifest_units *)job;
	for (size_t i = 0; i < u->count; i++) {
		free(u->list[i].name);
		for (int side = 0; side < SIDES; side++)
			manifest_summary_free(&u->list[i].side[side]);
	}
	free(u->list);
	free(u->directory);
}

/* Writes a manifest anew without the rows of some sides, or without what was proven of the target. */
static bool
rewrite(int directory, const char *file, const bool drop[SIDES], bool vanished, bool distrust, struct manifest_failure *f)
{
	struct manifest_reader r;
	struct manifest_writer w;
	struct row row;
	int lock = manifest_lock(directory, file), there = lock < 0 ? -1 : manifest_open(&r, directory, file, NULL);
	bool ok = there >= 0;
	if (there > 0) {
		ok = manifest_create(&w, directory, (const char *)r.unit.bytes, r.unit.length);
		for (int i = 0; i < SIDES && ok; i++) {
			ok = drop[i] || manifest_summary_copy(&w.side[i], &r.side[i]);
			w.side[i].known |= drop[i] && vanished;
			w.side[i].entries = w.side[i].bytes = w.side[i].ours = 0;
		}
		while (ok && manifest_next(&r, &row)) {
			for (int i = 0; i < SIDES; i++)
				row.side[i].known &= !drop[i];
			if (distrust)
				row.side[SIDE_TARGET].hashed = row.side[SIDE_TARGET].attributed = false;
			if (row.side[SIDE_SOURCE].known || row.side[SIDE_TARGET].known)
				manifest_put(&w, &row);
		}
		if (r.failed)
			errno = EIO;
		ok = ok && !r.failed && manifest_commit(&w);
		int error = errno;
		if (!ok)
			manifest_discard(&w);
		manifest_shut(&r);
		errno = error;
	}
	if (!ok)
		manifest_fail_errno(f, errno, file);
	if (lock >= 0)
		close(lock);
	return ok;
}

bool
manifest_drop_side(int directory, const char *file, enum manifest_side side, struct manifest_failure *f)
{
	bool drop[SIDES] = { side == SIDE_SOURCE, side == SIDE_TARGET };
	return rewrite(directory, file, drop, true, false, f);
}

static bool
forget_unit(int directory, const char *file, void *arg)
{
	struct manifest_forget *q = arg;
	q->units++;
	if (q->sides[SIDE_SOURCE] && q->sides[SIDE_TARGET]) {
		if (unlinkat(directory, file, 0) != 0 && errno != ENOENT)
			manifest_fail_errno(&q->job.failure, errno, file);
	} else {
		rewrite(directory, file, q->sides, false, q->distrust, &q->job.failure);
	}
	return goes_on(&q->job);
}

void
manifest_forget_run(struct manifest_job *job)
{
	manifest_each(job, ((struct manifest_forget *)job)->directory, forget_unit);
}

void
manifest_forget_release(struct manifest_job *job)
{
	free(((struct manifest_forget *)job)->directory);
}
