/* manifest_file.c - see manifest_file.h. */
#include "manifest_file.h"

#define XXH_INLINE_ALL
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define MAGIC   "runbook\1"
#define MAGICS  8
#define TRAILER 24		/* rows, where the summary is, hash */
#define SUFFIX  ".manifest"
#define CHUNK   ((size_t)256 << 10)
#define LONGEST_NAME 180	/* before the suffix; longer ones are cut and told apart by a hash */

enum { FRAME_HEAD = 'u', FRAME_ROW = 'r', FRAME_SUMMARY = 's' };

/* Flags of a row: the lowest bit, and four for each side. */
enum { ROW_OURS = 1, ROW_KNOWN = 1, ROW_HASHED = 2, ROW_ATTRIBUTED = 4, ROW_RACY = 8 };

static unsigned
shift_of(int side)
{
	return side == SIDE_SOURCE ? 1 : 5;
}

void
manifest_summary_free(struct manifest_summary *s)
{
	buffer_free(&s->unreadable);
	memset(s, 0, sizeof *s);
}

bool
manifest_summary_copy(struct manifest_summary *to, const struct manifest_summary *from)
{
	manifest_summary_free(to);
	*to = *from;
	memset(&to->unreadable, 0, sizeof to->unreadable);
	put_bytes(&to->unreadable, from->unreadable.bytes, from->unreadable.length);
	return !to->unreadable.failed;
}

bool
manifest_is_there(const struct manifest_summary *s)
{
	return s->entries > 0 || s->problems > 0;
}

static bool
is_below(struct text path, struct text above)
{
	return above.length == 0
		|| (path.length >= above.length && memcmp(path.bytes, above.bytes, above.length) == 0
		    && (path.length == above.length || path.bytes[above.length] == '/'));
}

bool
manifest_is_unreadable(const struct manifest_summary *s, struct text path)
{
	if (!s->known || s->problems > MANIFEST_PROBLEMS)
		return true;
	struct reader r = reader_of(s->unreadable.bytes, s->unreadable.length);
	while (r.at < r.end) {
		struct text above = get_text(&r);
		if (r.failed || is_below(path, above))
			return true;
	}
	return false;
}

/* Names. */

static bool
is_plain(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}

char *
manifest_name(const void *unit, size_t length)
{
	const unsigned char *bytes = unit;
	char *name = malloc(3 * length + 64), *at = name;
	if (!name)
		return NULL;
	for (size_t i = 0; i < length; i++) {
		if (is_plain(bytes[i]) && !(i == 0 && bytes[i] == '.'))
			*at++ = (char)bytes[i];
		else
			at += sprintf(at, "%%%02X", bytes[i]);
	}
	if (at - name > LONGEST_NAME) {
		XXH128_hash_t h = XXH3_128bits(unit, length);
		at = name + LONGEST_NAME - 40;
		at += sprintf(at, "%%%%%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
	}
	strcpy(at, SUFFIX);
	return name;
}

bool
manifest_is_name(const char *file)
{
	size_t length = strlen(file), suffix = strlen(SUFFIX);
	return length > suffix && strcmp(file + length - suffix, SUFFIX) == 0;
}

bool
manifest_unit_is_good(struct text unit)
{
	if (unit.length == 1 && unit.bytes[0] == '.')
		return true;
	return unit.length > 0 && unit.length <= 255 && !memchr(unit.bytes, '/', unit.length) && entry_path_is_good(unit);
}

int
manifest_lock(int directory, const char *file)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	int fd = openat(directory, ".lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -1;
	lock.l_start = (off_t)(XXH3_64bits(file, strlen(file)) & 0x3fffffff);
	while (fcntl(fd, F_OFD_SETLKW, &lock) < 0) {
		if (errno != EINTR) {
			int error = errno;
			close(fd);
			errno = error;
			return -1;
		}
	}
	return fd;
}

int
manifest_scratch(int directory)
{
	int fd = openat(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
		return fd;
	char name[64];
	static _Atomic unsigned serial;
	snprintf(name, sizeof name, ".scratch-%ld-%u", (long)getpid(), serial++);
	fd = openat(directory, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0)
		unlinkat(directory, name, 0);
	return fd;
}

/* Reading. */

static uint64_t
little(const unsigned char *bytes)
{
	uint64_t n = 0;
	for (int i = 7; i >= 0; i--)
		n = n << 8 | bytes[i];
	return n;
}

static bool
read_at(int fd, void *bytes, size_t length, uint64_t offset)
{
	unsigned char *at = bytes;
	while (length > 0) {
		ssize_t n = pread(fd, at, length, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		at += n;
		offset += (uint64_t)n;
		length -= (size_t)n;
	}
	return true;
}

/* The hash of the first `size` bytes. */
static bool
hash_file(int fd, uint64_t size, uint64_t *hash)
{
	XXH3_state_t *state = XXH3_createState();
	unsigned char *bytes = malloc(CHUNK);
	bool ok = state && bytes;
	if (ok)
		XXH3_64bits_reset(state);
	for (uint64_t at = 0; ok && at < size;) {
		size_t n = size - at < CHUNK ? (size_t)(size - at) : CHUNK;
		ok = read_at(fd, bytes, n, at);
		if (ok)
			XXH3_64bits_update(state, bytes, n);
		at += n;
	}
	*hash = ok ? XXH3_64bits_digest(state) : 0;
	XXH3_freeState(state);
	free(bytes);
	return ok;
}

static bool
get_summary(struct reader *r, struct manifest_summary *s)
{
	s->known = get_number(r) != 0;
	struct text digest = get_text(r);
	if (digest.length > sizeof s->digest)
		return false;
	memcpy(s->digest, digest.bytes, digest.length);
	s->digest_length = digest.length;
	s->entries = get_number(r);
	s->bytes = get_number(r);
	s->ours = get_number(r);
	s->problems = get_number(r);
	struct text unreadable = get_text(r);
	put_bytes(&s->unreadable, unreadable.bytes, unreadable.length);
	return !r->failed && !s->unreadable.failed;
}

static void
put_summary(struct buffer *b, const struct manifest_summary *s)
{
	put_number(b, s->known);
	put_text(b, s->digest, s->digest_length);
	put_number(b, s->entries);
	put_number(b, s->bytes);
	put_number(b, s->ours);
	put_number(b, s->problems);
	put_text(b, s->unreadable.bytes, s->unreadable.length);
}

/* What stands around the rows: true when all of it is as it was written. */
static bool
check(struct manifest_reader *r, int fd)
{
	struct stat st;
	unsigned char trailer[TRAILER], magic[MAGICS];
	uint64_t hash;
	struct frame f;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < MAGICS + TRAILER)
		return false;
	uint64_t size = (uint64_t)st.st_size;
	if (!read_at(fd, magic, MAGICS, 0) || memcmp(magic, MAGIC, MAGICS) != 0
	    || !read_at(fd, trailer, TRAILER, size - TRAILER) || !hash_file(fd, size - 8, &hash) || hash != little(trailer + 16))
		return false;
	r->rows = little(trailer);
	if (lseek(fd, (off_t)little(trailer + 8), SEEK_SET) < 0 || frame_next(&r->in, &f) != 1 || f.type != FRAME_SUMMARY
	    || !get_summary(&f.payload, &r->side[SIDE_SOURCE]) || !get_summary(&f.payload, &r->side[SIDE_TARGET]))
		return false;
	frame_input_free(&r->in);
	frame_input_open(&r->in, fd);
	if (lseek(fd, MAGICS, SEEK_SET) < 0 || frame_next(&r->in, &f) != 1 || f.type != FRAME_HEAD)
		return false;
	struct text unit = get_text(&f.payload);
	unsigned char *copy = malloc(unit.length + 1);
	if (!copy)
		return false;
	memcpy(copy, unit.bytes, unit.length);
	copy[unit.length] = '\0';
	r->unit.bytes = copy;
	r->unit.length = unit.length;
	return manifest_unit_is_good(unit);
}

int
manifest_open(struct manifest_reader *r, int directory, const char *file, bool *corrupt)
{
	memset(r, 0, sizeof *r);
	if (corrupt)
		*corrupt = false;
	int fd = openat(directory, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	frame_input_open(&r->in, fd);
	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	bool good = check(r, fd);
	char *name = good ? manifest_name(r->unit.bytes, r->unit.length) : NULL;
	if (!name || strcmp(name, file) != 0) {
		manifest_shut(r);
		if (corrupt)
			*corrupt = true;
		good = false;
	}
	free(name);
	return good;
}

static bool
get_side(struct reader *r, struct row_side *s, unsigned flags)
{
	memset(s, 0, sizeof *s);
	if (!(flags & ROW_KNOWN))
		return true;
	s->known = true;
	s->racy = flags & ROW_RACY;
	s->raw.bytes = r->at;
	if (!entry_get(r, &s->entry))
		return false;
	s->raw.length = (size_t)(r->at - s->raw.bytes);
	const unsigned char *bytes;
	if (flags & ROW_HASHED && (bytes = get_bytes(r, ENTRY_HASH))) {
		s->hashed = true;
		memcpy(s->hash, bytes, ENTRY_HASH);
	}
	if (flags & ROW_ATTRIBUTED && (bytes = get_bytes(r, ENTRY_ATTRIBUTES))) {
		s->attributed = true;
		memcpy(s->attributes, bytes, ENTRY_ATTRIBUTES);
	}
	return !r->failed;
}

bool
manifest_next(struct manifest_reader *r, struct row *row)
{
	struct frame f;
	if (r->in.fd < 0 || r->failed)
		return false;
	int there = frame_next(&r->in, &f);
	if (there == 1 && f.type == FRAME_SUMMARY)
		return false;
	if (there != 1 || f.type != FRAME_ROW) {
		r->failed = true;
		return false;
	}
	uint64_t shared = get_number(&f.payload);
	struct text rest = get_text(&f.payload);
	unsigned flags = (unsigned)get_number(&f.payload);
	if (shared > r->path.length || f.payload.failed) {
		r->failed = true;
		return false;
	}
	r->path.length = (size_t)shared;
	put_bytes(&r->path, rest.bytes, rest.length);
	row->path = (struct text){ r->path.bytes, r->path.length };
	row->ours = flags & ROW_OURS;
	for (int i = 0; i < SIDES; i++)
		if (!get_side(&f.payload, &row->side[i], flags >> shift_of(i)))
			r->failed = true;
	r->failed |= r->path.failed;
	return !r->failed;
}

void
manifest_shut(struct manifest_reader *r)
{
	if (r->in.fd >= 0)
		close(r->in.fd);
	frame_input_free(&r->in);
	buffer_free(&r->path);
	free((void *)r->unit.bytes);
	for (int i = 0; i < SIDES; i++)
		manifest_summary_free(&r->side[i]);
	memset(r, 0, sizeof *r);
	r->in.fd = -1;
}

/* Writing. */

static void
fail(struct manifest_writer *w, int error)
{
	if (!w->error)
		w->error = error ? error : EIO;
}

static void
flush(struct manifest_writer *w)
{
	if (w->out.failed || w->payload.failed || w->before.failed)
		fail(w, ENOMEM);
	if (!w->error) {
		XXH3_64bits_update(w->hash, w->out.bytes, w->out.length);
		if (!write_all(w->fd, w->out.bytes, w->out.length))
			fail(w, errno);
	}
	w->offset += w->out.length;
	w->out.length = 0;
}

bool
manifest_create(struct manifest_writer *w, int directory, const char *unit, size_t length)
{
	memset(w, 0, sizeof *w);
	w->fd = -1;
	w->directory = directory;
	w->file = manifest_name(unit, length);
	w->hash = XXH3_createState();
	w->beside = w->file ? malloc(strlen(w->file) + 5) : NULL;
	if (!w->hash || !w->beside) {
		errno = ENOMEM;
		return false;
	}
	XXH3_64bits_reset(w->hash);
	strcat(strcpy(w->beside, w->file), ".new");
	w->fd = openat(directory, w->beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (w->fd < 0)
		return false;
	put_bytes(&w->out, MAGIC, MAGICS);
	put_text(&w->payload, unit, length);
	put_frame(&w->out, FRAME_HEAD, &w->payload);
	return true;
}

static unsigned
flags_of(const struct row_side *s)
{
	if (!s->known)
		return 0;
	return ROW_KNOWN | (s->hashed ? ROW_HASHED : 0) | (s->attributed ? ROW_ATTRIBUTED : 0) | (s->racy ? ROW_RACY : 0);
}

static void
put_side(struct buffer *b, const struct row_side *s)
{
	if (!s->known)
		return;
	if (s->raw.length)
		put_bytes(b, s->raw.bytes, s->raw.length);
	else
		entry_put(b, &s->entry);
	if (s->hashed)
		put_bytes(b, s->hash, ENTRY_HASH);
	if (s->attributed)
		put_bytes(b, s->attributes, ENTRY_ATTRIBUTES);
}

static void
count(struct manifest_writer *w, const struct row *row)
{
	w->rows++;
	for (int i = 0; i < SIDES; i++) {
		if (!row->side[i].known)
			continue;
		w->side[i].entries++;
		w->side[i].bytes += row->side[i].entry.size;
		w->side[i].ours += row->ours;
	}
}

void
manifest_put(struct manifest_writer *w, const struct row *row)
{
	struct buffer *p = &w->payload;
	size_t shared = 0, most = row->path.length < w->before.length ? row->path.length : w->before.length;
	unsigned flags = row->ours && row->side[SIDE_TARGET].known ? ROW_OURS : 0;
	while (shared < most && row->path.bytes[shared] == w->before.bytes[shared])
		shared++;
	w->before.length = shared;
	put_bytes(&w->before, row->path.bytes + shared, row->path.length - shared);
	p->length = 0;
	put_number(p, shared);
	put_text(p, row->path.bytes + shared, row->path.length - shared);
	for (int i = 0; i < SIDES; i++)
		flags |= flags_of(&row->side[i]) << shift_of(i);
	put_number(p, flags);
	put_side(p, &row->side[SIDE_SOURCE]);
	put_side(p, &row->side[SIDE_TARGET]);
	if (p->length > FRAME_LIMIT)
		fail(w, E2BIG);
	put_frame(&w->out, FRAME_ROW, p);
	count(w, row);
	if (w->out.length >= CHUNK)
		flush(w);
}

static void
put_little(struct buffer *b, uint64_t n)
{
	for (int i = 0; i < 8; i++)
		put_byte(b, (unsigned char)(n >> 8 * i));
}

bool
manifest_commit(struct manifest_writer *w)
{
	uint64_t summary = w->offset + w->out.length;
	w->payload.length = 0;
	put_summary(&w->payload, &w->side[SIDE_SOURCE]);
	put_summary(&w->payload, &w->side[SIDE_TARGET]);
	put_frame(&w->out, FRAME_SUMMARY, &w->payload);
	put_little(&w->out, w->rows);
	put_little(&w->out, summary);
	flush(w);
	put_little(&w->out, XXH3_64bits_digest(w->hash));
	flush(w);
	if (w->rows == 0 && !w->error) {
		if (unlinkat(w->directory, w->file, 0) != 0 && errno != ENOENT)
			fail(w, errno);
	} else if (!w->error) {
		if (renameat(w->directory, w->beside, w->directory, w->file) != 0) {
			fail(w, errno);
		} else {
			free(w->beside);
			w->beside = NULL;
		}
	}
	int error = w->error;
	manifest_discard(w);
	errno = error;
	return error == 0;
}

void
manifest_discard(struct manifest_writer *w)
{
	if (w->fd >= 0) {
		close(w->fd);
		if (w->beside)
			unlinkat(w->directory, w->beside, 0);
	}
	free(w->file);
	free(w->beside);
	XXH3_freeState(w->hash);
	buffer_free(&w->out);
	buffer_free(&w->payload);
	buffer_free(&w->before);
	for (int i = 0; i < SIDES; i++)
		manifest_summary_free(&w->side[i]);
	memset(w, 0, sizeof *w);
	w->fd = -1;
}
