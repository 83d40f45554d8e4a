#include "frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK ((size_t)256 << 10)

void
buffer_free(struct buffer *b)
{
	free(b->bytes);
	memset(b, 0, sizeof *b);
}

/* Room for so many bytes more. */
static bool
has_room(struct buffer *b, size_t length)
{
	if (b->failed)
		return false;
	if (b->capacity - b->length >= length)
		return true;
	size_t wanted = b->capacity ? b->capacity : 256;
	while (wanted - b->length < length)
		wanted *= 2;
	unsigned char *grown = realloc(b->bytes, wanted);
	if (!grown) {
		b->failed = true;
		return false;
	}
	b->bytes = grown;
	b->capacity = wanted;
	return true;
}

void
put_bytes(struct buffer *b, const void *bytes, size_t length)
{
	if (length == 0 || !has_room(b, length))
		return;
	memcpy(b->bytes + b->length, bytes, length);
	b->length += length;
}

void
put_byte(struct buffer *b, unsigned char byte)
{
	if (has_room(b, 1))
		b->bytes[b->length++] = byte;
}

/* One byte after the other: a copy of so few costs more to begin than to make. */
void
put_number(struct buffer *b, uint64_t n)
{
	if (!has_room(b, 10))
		return;
	unsigned char *at = b->bytes + b->length;
	for (; n > 0x7f; n >>= 7)
		*at++ = (unsigned char)(n | 0x80);
	*at++ = (unsigned char)n;
	b->length = (size_t)(at - b->bytes);
}

void
put_signed(struct buffer *b, int64_t n)
{
	put_number(b, ((uint64_t)n << 1) ^ (n < 0 ? UINT64_MAX : 0));
}

void
put_text(struct buffer *b, const void *text, size_t length)
{
	put_number(b, length);
	put_bytes(b, text, length);
}

void
put_frame(struct buffer *b, unsigned char type, const struct buffer *payload)
{
	if (payload->failed)
		b->failed = true;
	put_byte(b, type);
	put_text(b, payload->bytes, payload->length);
}

struct reader
reader_of(const void *bytes, size_t length)
{
	const unsigned char *at = bytes;
	return (struct reader){ at, at + length, false };
}

const unsigned char *
get_bytes(struct reader *r, size_t length)
{
	if (r->failed || (size_t)(r->end - r->at) < length) {
		r->failed = true;
		return NULL;
	}
	r->at += length;
	return r->at - length;
}

unsigned char
get_byte(struct reader *r)
{
	const unsigned char *byte = get_bytes(r, 1);
	return byte ? *byte : 0;
}

/* Most of what is read anywhere is numbers: no call for each byte. */
uint64_t
get_number(struct reader *r)
{
	const unsigned char *at = r->at;
	uint64_t n = 0;
	if (r->failed)
		return 0;
	for (unsigned shift = 0; shift < 64 && at < r->end; shift += 7) {
		unsigned char byte = *at++;
		if (shift == 63 && byte > 1)
			break;
		n |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			r->at = at;
			return n;
		}
	}
	r->failed = true;
	return 0;
}

int64_t
get_signed(struct reader *r)
{
	uint64_t n = get_number(r);
	return (int64_t)(n >> 1) ^ -(int64_t)(n & 1);
}

struct text
get_text(struct reader *r)
{
	uint64_t length = get_number(r);
	const unsigned char *bytes = length <= FRAME_LIMIT ? get_bytes(r, (size_t)length) : NULL;
	if (!bytes) {
		r->failed = true;
		return (struct text){ (const unsigned char *)"", 0 };
	}
	return (struct text){ bytes, (size_t)length };
}

void
frame_input_open(struct frame_input *in, int fd)
{
	memset(in, 0, sizeof *in);
	in->fd = fd;
}

void
frame_input_free(struct frame_input *in)
{
	free(in->bytes);
	in->bytes = NULL;
}

/* Sees to it that `wanted` bytes from `from` on are there.  1: yes, 0: the end came first, -1: it failed. */
static int
fill(struct frame_input *in, size_t wanted)
{
	if (in->capacity - in->from < wanted || in->capacity == 0) {
		if (in->to > in->from)
			memmove(in->bytes, in->bytes + in->from, in->to - in->from);
		in->to -= in->from;
		in->from = 0;
		if (in->capacity < wanted + CHUNK) {
			unsigned char *grown = realloc(in->bytes, wanted + CHUNK);
			if (!grown) {
				in->problem = "out of memory";
				return -1;
			}
			in->bytes = grown;
			in->capacity = wanted + CHUNK;
		}
	}
	while (in->to - in->from < wanted) {
		ssize_t n = read(in->fd, in->bytes + in->to, in->capacity - in->to);
		if (n > 0) {
			in->to += (size_t)n;
		} else if (n == 0) {
			return 0;
		} else if (errno != EINTR) {
			in->error = errno;
			in->problem = "cannot be read";
			return -1;
		}
	}
	return 1;
}

static int
broken(struct frame_input *in, const char *problem)
{
	if (!in->problem)
		in->problem = problem;
	return -1;
}

int
frame_next(struct frame_input *in, struct frame *f)
{
	int there = fill(in, 1);
	if (there <= 0)
		return there < 0 || in->to > in->from ? broken(in, "cut") : 0;
	unsigned char type = in->bytes[in->from];
	uint64_t length = 0;
	size_t head = 1;
	for (unsigned shift = 0;; shift += 7) {
		if (fill(in, head + 1) <= 0)
			return broken(in, "cut");
		unsigned char byte = in->bytes[in->from + head++];
		length |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			break;
		if (shift >= 28)
			return broken(in, "malformed");
	}
	if (length > FRAME_LIMIT)
		return broken(in, "malformed");
	if (fill(in, head + (size_t)length) <= 0)
		return broken(in, "cut");
	f->type = type;
	f->payload = reader_of(in->bytes + in->from + head, (size_t)length);
	in->from += head + (size_t)length;
	return 1;
}

bool
write_all(int fd, const void *bytes, size_t length)
{
	const char *at = bytes;
	while (length > 0) {
		ssize_t n = write(fd, at, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		at += n;
		length -= (size_t)n;
	}
	return true;
}
