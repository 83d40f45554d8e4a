#include "content.h"

#define XXH_INLINE_ALL
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define BLOCK ((size_t)64 << 10)
#define PAGE  ((size_t)4 << 10)
#define AHEAD_SECONDS 900	/* that a file server's clock may be before ours */
#define RACY_SECONDS 2	/* the coarsest times of a file system that is in use */

static bool
is_zero(const unsigned char *bytes, size_t length)
{
	return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

static void
hash_number(XXH3_state_t *state, uint64_t n)
{
	unsigned char bytes[8];
	for (int i = 0; i < 8; i++)
		bytes[i] = (unsigned char)(n >> (8 * i));
	XXH3_128bits_update(state, bytes, sizeof bytes);
}

static void
hash_blocks(XXH3_state_t *state, uint64_t offset, const unsigned char *bytes, size_t length)
{
	for (size_t at = 0; at < length; at += BLOCK) {
		size_t n = length - at < BLOCK ? length - at : BLOCK;
		if (is_zero(bytes + at, n))
			continue;
		hash_number(state, (offset + at) / BLOCK);
		XXH3_128bits_update(state, bytes + at, n);
	}
}

static int
read_whole(int fd, unsigned char *bytes, size_t length, uint64_t offset)
{
	size_t done = 0;
	while (done < length) {
		ssize_t n = pread(fd, bytes + done, length - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (n == 0)
			return EAGAIN;
		done += (size_t)n;
	}
	return 0;
}

/* What of a chunk is no hole, where the file system does not say: pages that hold something. */
static bool
sink_pages(content_sink *sink, void *arg, uint64_t offset, const unsigned char *bytes, size_t length)
{
	for (size_t at = 0; at < length;) {
		size_t end = at;
		while (end < length && !is_zero(bytes + end, length - end < PAGE ? length - end : PAGE))
			end += length - end < PAGE ? length - end : PAGE;
		if (end > at && !sink(arg, offset + at, bytes + at, end - at))
			return false;
		at = end + PAGE;
	}
	return true;
}

static bool
sink_extents(int fd, content_sink *sink, void *arg, uint64_t offset, const unsigned char *bytes, size_t length)
{
	uint64_t at = offset, end = offset + length;
	while (at < end) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		if (data < 0 || (uint64_t)data >= end)
			return true;
		off_t hole = lseek(fd, data, SEEK_HOLE);
		uint64_t stop = hole < 0 || (uint64_t)hole > end ? end : (uint64_t)hole;
		if (!sink(arg, (uint64_t)data, bytes + ((uint64_t)data - offset), (size_t)(stop - (uint64_t)data)))
			return false;
		at = stop;
	}
	return true;
}

/* The first byte from `at` on that is no hole, rounded down to a block; `size` when there is none. */
static uint64_t
next_data(int fd, uint64_t at, uint64_t size, bool *says_holes)
{
	off_t data = lseek(fd, (off_t)at, SEEK_DATA);
	if (data < 0 && errno == ENXIO)
		return size;
	if (data < 0)
		*says_holes = false;
	return data < 0 ? at : (uint64_t)data / BLOCK * BLOCK;
}

/* One segment, of a file that has holes or not. */
static int
read_segment(int fd, const struct entry *e, uint64_t index, bool sparse, content_sink *sink, void *arg, unsigned char hash[static ENTRY_HASH])
{
	static _Thread_local unsigned char bytes[CONTENT_CHUNK];
	uint64_t segment = segment_size(e->size), at = index * segment, end = e->size - at < segment ? e->size : at + segment;
	XXH3_state_t state;
	XXH128_canonical_t canonical;
	bool says_holes = sparse;
	XXH3_128bits_reset(&state);
	while (at < end) {
		if (says_holes) {
			at = next_data(fd, at, end, &says_holes);
			if (at >= end)
				break;
		}
		size_t length = end - at < CONTENT_CHUNK ? (size_t)(end - at) : CONTENT_CHUNK;
		int error = read_whole(fd, bytes, length, at);
		if (error)
			return error;
		hash_blocks(&state, at, bytes, length);
		bool more = !sink || (says_holes ? sink_extents(fd, sink, arg, at, bytes, length)
			: sparse ? sink_pages(sink, arg, at, bytes, length) : sink(arg, at, bytes, length));
		if (!more)
			return ECANCELED;
		at += length;
	}
	XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state));
	memcpy(hash, canonical.digest, ENTRY_HASH);
	return 0;
}

static void
end_whole(XXH3_state_t *state, uint64_t size, unsigned char hash[static ENTRY_HASH])
{
	XXH128_canonical_t canonical;
	hash_number(state, size);
	XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
	memcpy(hash, canonical.digest, ENTRY_HASH);
}

static int
read_all(int fd, const struct entry *e, bool sparse, content_sink *sink, void *arg, unsigned char hash[static ENTRY_HASH])
{
	XXH3_state_t state;
	uint64_t count = segment_count(e->size);
	XXH3_128bits_reset(&state);
	for (uint64_t i = 0; i < count; i++) {
		int error = read_segment(fd, e, i, sparse, sink, arg, hash);
		if (error)
			return error;
		XXH3_128bits_update(&state, hash, ENTRY_HASH);
	}
	end_whole(&state, e->size, hash);
	return 0;
}

static bool
has_holes(const struct entry *e)
{
	return e->blocks * 512 < e->size;
}

int
content_segment(int fd, const struct entry *e, uint64_t index, content_sink *sink, void *arg,
                unsigned char hash[static ENTRY_HASH])
{
	return read_segment(fd, e, index, has_holes(e), sink, arg, hash);
}

void
content_whole(const unsigned char *hashes, size_t stride, uint64_t size, unsigned char hash[static ENTRY_HASH])
{
	XXH3_state_t state;
	XXH3_128bits_reset(&state);
	for (uint64_t i = 0; i < segment_count(size); i++)
		XXH3_128bits_update(&state, hashes + i * stride, ENTRY_HASH);
	end_whole(&state, size, hash);
}

int
content_hash(int fd, const struct entry *e, unsigned char hash[static ENTRY_HASH])
{
	return read_all(fd, e, e->size > CONTENT_CHUNK, NULL, NULL, hash);
}

int
content_read(int fd, const struct entry *e, content_sink *sink, void *arg, struct buffer *attributes,
             unsigned char hash[static ENTRY_HASH])
{
	struct stat st;
	struct entry after;
	int error = read_all(fd, e, has_holes(e), sink, arg, hash);
	if (!error && attributes) {
		attributes->length = 0;
		error = attributes_get(attributes, fd, -1, NULL);
	}
	if (error)
		return error;
	if (fstat(fd, &st) != 0)
		return errno;
	entry_of_stat(&after, &st);
	return entry_is_untouched(e, &after) ? 0 : EAGAIN;
}

int
content_open(struct cursor *c, const char *path, int *fd, struct entry *e)
{
	const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	const char *name;
	struct stat st;
	int at = cursor_parent(c, path, &name);
	if (at < 0 || fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno;
	if (!S_ISREG(st.st_mode)) /* to open a pipe or a device is to do something to it */
		return EAGAIN;
	*fd = openat(at, name, flags | O_NOATIME);
	if (*fd < 0 && errno == EPERM) /* only its owner may say O_NOATIME */
		*fd = openat(at, name, flags);
	if (*fd < 0)
		return errno == ELOOP || errno == ENXIO ? EAGAIN : errno;
	if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		close(*fd);
		return EAGAIN;
	}
	entry_of_stat(e, &st);
	return 0;
}

static int64_t behind;

void
content_clock_is_behind(uint64_t seconds)
{
	behind = seconds < INT32_MAX ? (int64_t)seconds : INT32_MAX;
}

bool
content_is_racy(const struct entry *e)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return e->changed.seconds >= now.tv_sec - RACY_SECONDS - behind && e->changed.seconds <= now.tv_sec + AHEAD_SECONDS;
}
