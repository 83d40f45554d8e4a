/*
 * unfinished.c - files that come in segments (entry.h), under a name that the next try finds again.
 *
 * Several receivers may write to one, each its own segments, and share a lock on it; whoever puts it in its place has it
 * alone, so that nobody writes to it after it was read.  What a record says is believed by nobody but who decides what to
 * send: all bytes are read before the file gets its place.
 */
#include "content.h"
#include "receive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define TRIES  3
#define PAGE   ((uint64_t)4096)
#define ENDING ".part"

/* The last bytes of the file, behind the records. */
struct trailer {
	char magic[8];
	uint64_t size;
};
static const char magic[8] = "rb-part1";

static void
name_of(char name[static PLACE_NAME], uint64_t id)
{
	snprintf(name, PLACE_NAME, LEFTOVER "%016llx" ENDING, (unsigned long long)id);
}

bool
unfinished_name(const char *name, uint64_t *id)
{
	char again[PLACE_NAME];
	if (strncmp(name, LEFTOVER, sizeof LEFTOVER - 1) != 0)
		return false;
	*id = strtoull(name + sizeof LEFTOVER - 1, NULL, 16);
	name_of(again, *id);
	return strcmp(name, again) == 0;
}

static uint64_t
records_at(uint64_t size)
{
	return (size + PAGE - 1) / PAGE * PAGE;
}

static size_t
records_length(uint64_t size)
{
	return (size_t)segment_count(size) * SEGMENT_RECORD;
}

static int
read_at(int fd, void *bytes, size_t length, uint64_t offset)
{
	for (size_t done = 0; done < length;) {
		ssize_t n = pread(fd, (char *)bytes + done, length - done, (off_t)(offset + done));
		if (n <= 0)
			return n < 0 ? errno : EIO;
		done += (size_t)n;
	}
	return 0;
}

/* How long the file is to be; false when it is none of ours, or torn. */
static bool
read_trailer(int fd, uint64_t *size)
{
	struct trailer t;
	struct stat st;
	if (fstat(fd, &st) != 0 || st.st_size < (off_t)sizeof t || read_at(fd, &t, sizeof t, (uint64_t)st.st_size - sizeof t) != 0)
		return false;
	*size = t.size;
	return memcmp(t.magic, magic, sizeof magic) == 0 && t.size <= INT64_MAX / 2
		&& (uint64_t)st.st_size == records_at(t.size) + records_length(t.size) + sizeof t;
}

/*
 * A new file is not cut: ext4 takes any cut to nothing for a file that is about to be written anew in its place, and writes
 * all of it to the disk as it is closed, where it would have gone anyway, while others wait.
 */
static int
cut_to(int fd, uint64_t length)
{
	struct stat st;
	if (fstat(fd, &st) != 0)
		return errno;
	return (uint64_t)st.st_size == length || ftruncate(fd, (off_t)length) == 0 ? 0 : errno;
}

/* Records of the file as it was, where they are of any use, then the trailer.  Only who has the file alone may do so. */
static int
lay_out(int fd, uint64_t size, bool alone, bool *fresh)
{
	struct trailer t = { .size = size };
	uint64_t before;
	bool known = read_trailer(fd, &before);
	if (known && before == size)
		return 0;
	if (!alone)
		return EAGAIN;
	*fresh = !known || segment_size(before) != segment_size(size);
	size_t length = records_length(size), kept = *fresh ? 0 : records_length(before < size ? before : size);
	unsigned char *records = far_memory(length);
	int error = kept ? read_at(fd, records, kept, records_at(before)) : 0;
	if (!error)
		error = cut_to(fd, *fresh ? 0 : before < size ? before : size);
	memcpy(t.magic, magic, sizeof magic);
	if (!error && kept)
		error = place_write(fd, records_at(size), records, length);
	if (!error)
		error = place_write(fd, records_at(size) + length, (const unsigned char *)&t, sizeof t);
	free(records);
	return error;
}

/* Ours and nobody else's, or a new one: who may write to the directory may have put anything there. */
static int
open_own(int at, const char *name)
{
	const int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	struct stat st;
	for (int i = 0; i < TRIES; i++) {
		int fd = openat(at, name, flags, 0600);
		if (fd < 0 && errno == EACCES && cursor_loosen(at))
			fd = openat(at, name, flags, 0600);
		if (fd < 0 && errno != ELOOP && errno != EACCES)
			return -1;
		if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 && st.st_uid == geteuid() && (st.st_mode & 077) == 0)
			return fd;
		if (fd >= 0)
			close(fd);
		if (unlinkat(at, name, 0) != 0 && errno != ENOENT)
			return -1;
	}
	errno = EEXIST;
	return -1;
}

static bool
is_still_there(int at, const char *name, int fd)
{
	struct stat a, b;
	return fstat(fd, &a) == 0 && fstatat(at, name, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

/* EAGAIN: others are at work on it, with another length. */
static int
take_place(struct large *l, int at)
{
	name_of(l->name, unfinished_id(l->path, strlen(l->path)));
	for (int i = 0; i < TRIES; i++) {
		int fd = open_own(at, l->name);
		if (fd < 0)
			return errno;
		bool alone = flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK; /* where there are no locks, nobody waits */
		if (!alone)
			(void)flock(fd, LOCK_SH);
		if (is_still_there(at, l->name, fd)) {
			int error = lay_out(fd, l->size, alone, &l->fresh);
			(void)flock(fd, LOCK_SH);
			l->fd = fd;
			return error;
		}
		close(fd); /* it was put in its place meanwhile */
	}
	return EAGAIN;
}

/* What is half done by a full disk others may need. */
static void
fail(struct large *l, int error)
{
	pthread_mutex_lock(&l->lock);
	if (!l->error && error != EAGAIN && l->fd >= 0)
		(void)!ftruncate(l->fd, 0);
	if (!l->error)
		l->error = error;
	pthread_mutex_unlock(&l->lock);
}

static int
open_once(struct cursor *c, struct large *l)
{
	const char *name;
	pthread_mutex_lock(&l->lock);
	if (l->fd < 0 && !l->error) {
		int at = cursor_parent(c, l->path, &name);
		l->error = at < 0 ? errno : take_place(l, at);
	}
	int error = l->error;
	pthread_mutex_unlock(&l->lock);
	return error;
}

void
unfinished_again(struct large *l, uint64_t size)
{
	bool changed = l->size != size;
	l->size = size;
	l->fresh = false;
	if (l->fd < 0 || l->error || !changed)
		return;
	bool alone = flock(l->fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
	int error = lay_out(l->fd, size, alone, &l->fresh);
	(void)flock(l->fd, LOCK_SH);
	if (error)
		fail(l, error);
}

struct segment *
segment_new(uint64_t index)
{
	struct segment *s = far_memory(sizeof *s);
	s->index = index;
	s->left = 1;
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

void
segment_leave(struct large *l, struct segment *s)
{
	if (atomic_fetch_sub(&s->left, 1) != 1)
		return;
	pthread_mutex_lock(&l->lock);
	bool good = !l->error;
	pthread_mutex_unlock(&l->lock);
	if (s->said && good) {
		int error = place_write(l->fd, records_at(l->size) + s->index * SEGMENT_RECORD, s->record, sizeof s->record);
		if (error)
			fail(l, error);
	}
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static int
write_zeros(int fd, uint64_t offset, uint64_t length)
{
	static unsigned char zeros[1 << 16];	/* not const: then it would lie in the program's file */
	int error = 0;
	for (uint64_t at = 0; at < length && !error; at += sizeof zeros)
		error = place_write(fd, offset + at, zeros, length - at < sizeof zeros ? (size_t)(length - at) : sizeof zeros);
	return error;
}

/* What is no hole at the source may have been one, and the other way round. */
static int
clear(struct large *l, struct segment *s)
{
	uint64_t segment = segment_size(l->size), from = s->index * segment;
	uint64_t length = l->size - from < segment ? l->size - from : segment;
	int error = 0;
	pthread_mutex_lock(&s->lock);
	if (!s->cleared && !l->fresh && fallocate(l->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)length) != 0)
		error = errno == EOPNOTSUPP || errno == ENOSYS ? write_zeros(l->fd, from, length) : errno;
	s->cleared = true;
	pthread_mutex_unlock(&s->lock);
	return error;
}

static int
write_part(struct task *t)
{
	struct large *l = t->large;
	uint64_t offset = get_number(&t->payload);
	struct text part = get_text(&t->payload);
	if (t->payload.failed || offset > l->size || part.length > l->size - offset)
		return EPROTO;
	if (part.length && (offset + part.length - 1) / segment_size(l->size) != t->segment->index)
		return EPROTO;
	int error = clear(l, t->segment);
	if (!error)
		error = place_write(l->fd, offset, part.bytes, part.length);
	l->written += part.length;
	return error;
}

void
unfinished_part(struct cursor *c, struct task *t)
{
	struct large *l = t->large;
	int error = open_once(c, l);
	if (!error && t->type == DATA_CHUNK)
		error = write_part(t);
	else if (!error && t->type == DATA_SEGMENT)
		error = clear(l, t->segment);
	if (error)
		fail(l, error);
	if (t->segment)
		segment_leave(l, t->segment);
}

static const char incomplete[] = "parts of it are missing", otherwise[] = "what was written reads back otherwise";
static const char changed[] = "it changed between its parts", busy[] = "another connection is still writing it";

/* NULL when each segment is what was read at the source in this very state; else why not. */
static const char *
find_fault(struct large *l, unsigned char *records, const unsigned char *state, struct wanted *w)
{
	const struct entry e = { .type = 'f', .size = l->size };
	const unsigned char none[SEGMENT_RECORD] = { 0 };
	unsigned char hash[ENTRY_HASH];
	const char *fault = NULL;
	uint64_t count = segment_count(l->size);
	for (uint64_t i = 0; i < count; i++) {
		const unsigned char *r = records + i * SEGMENT_RECORD;
		if (!segment_is_there(r))
			return incomplete;
		if (memcmp(r, state, SEGMENT_STATE - 1) != 0 || ((r[SEGMENT_STATE - 1] ^ state[SEGMENT_STATE - 1]) & ~SEGMENT_RACY))
			return changed;
		if (r[SEGMENT_STATE - 1] & SEGMENT_RACY)
			w->flags |= RESULT_RACY;
	}
	for (uint64_t i = 0; i < count; i++) {
		unsigned char *r = records + i * SEGMENT_RECORD;
		if (content_segment(l->fd, &e, i, NULL, NULL, hash) == 0 && memcmp(hash, r + SEGMENT_STATE, ENTRY_HASH) == 0)
			continue;
		fault = otherwise;
		(void)!place_write(l->fd, records_at(l->size) + i * SEGMENT_RECORD, none, sizeof none);
	}
	return fault;
}

static void
give_up(struct large *l, int at, int error, const char *words)
{
	if (l->fd >= 0)
		unlinkat(at, l->name, 0);
	say_error(l->index, error, words);
}

/* All of it was sent, now or before. */
static void
settle(struct cursor *c, struct large *l, int at, const char *name)
{
	struct wanted w;
	bool good = wanted_get(&l->end->payload, &w, false) && w.entry.type == 'f' && w.entry.size == l->size;
	const unsigned char *state = get_bytes(&l->end->payload, SEGMENT_STATE);
	unsigned char *records = far_memory(records_length(l->size));
	const char *fault = NULL;
	int error = 0;
	if (!good || !state)
		error = EPROTO;
	else if (flock(l->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
		fault = busy;
	else if (!(error = read_at(l->fd, records, records_length(l->size), records_at(l->size))))
		fault = find_fault(l, records, state, &w);
	if (!error && !fault && ftruncate(l->fd, (off_t)l->size) != 0)
		error = errno;
	if (error) {
		give_up(l, at, error, error == EPROTO ? "malformed" : NULL);
	} else if (fault == changed) {
		unlinkat(at, l->name, 0);
		say_failed(l->index, RESULT_CHANGING, EAGAIN, fault);
	} else if (fault) {
		say_failed(l->index, RESULT_TORN, fault == busy ? EBUSY : EIO, fault);
	} else {
		content_whole(records + SEGMENT_STATE, SEGMENT_RECORD, l->size, w.hash);
		apply_made(c, l, &w, at, name);
	}
	free(records);
}

/* The sender has no use for it any more. */
static void
drop(struct cursor *c, struct large *l)
{
	const char *name;
	c->make = false;
	int at = cursor_parent(c, l->path, &name);
	c->make = true;
	name_of(l->name, unfinished_id(l->path, strlen(l->path)));
	if (at >= 0)
		unlinkat(at, l->name, 0);
}

void
unfinished_end(struct cursor *c, struct large *l)
{
	const char *name = NULL;
	if (!l->end && !l->cut)
		drop(c, l);
	if (!l->end)
		return;
	int error = open_once(c, l), at = cursor_parent(c, l->path, &name);
	if (at < 0 || error == EAGAIN)
		say_failed(l->index, RESULT_TORN, EBUSY, busy);
	else if (error)
		give_up(l, at, error, NULL);
	else if (l->end->type == DATA_SENT)
		say_sent(l->index, l->written);
	else
		settle(c, l, at, name);
}

bool
unfinished_say(struct buffer *b, int at, const char *name)
{
	uint64_t size, there = 0;
	int fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return false;
	bool good = read_trailer(fd, &size) && segment_count(size) > 0;
	unsigned char *records = far_memory(good ? records_length(size) : 1);
	good = good && read_at(fd, records, records_length(size), records_at(size)) == 0;
	for (uint64_t i = 0; good && i < segment_count(size); i++)
		if (segment_is_there(records + i * SEGMENT_RECORD))
			there += i + 1 < segment_count(size) ? segment_size(size) : size - i * segment_size(size);
	if (good) {
		put_number(b, size);
		put_number(b, there);
		put_text(b, records, records_length(size));
	}
	free(records);
	close(fd);
	return good;
}
