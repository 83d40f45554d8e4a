/*
 * frame.h - bytes of the protocol between this program and the one it sends to the far side (src/far/).
 * Knows nothing of Lua, and stands alone: the far side's program is made of it, too.
 *
 * A stream is a sequence of frames: a byte that says what it is, the length, that many bytes.  Numbers are
 * LEB128, seven bits a byte, the lowest first; signed ones zigzag before that.  Text has its length in front.
 */
#ifndef RUNBOOK_FRAME_H
#define RUNBOOK_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_LIMIT ((size_t)8 << 20)	/* a longer one is malformed */

/* Bytes that grow.  Out of memory is remembered in `failed`; what is put after that is dropped. */
struct buffer {
	unsigned char *bytes;
	size_t length, capacity;
	bool failed;
};

void buffer_free(struct buffer *b);
void put_bytes(struct buffer *b, const void *bytes, size_t length);
void put_byte(struct buffer *b, unsigned char byte);
void put_number(struct buffer *b, uint64_t n);
void put_signed(struct buffer *b, int64_t n);
void put_text(struct buffer *b, const void *text, size_t length);
/* Appends a whole frame. */
void put_frame(struct buffer *b, unsigned char type, const struct buffer *payload);

/* Reads from bytes of somebody else; past the end, or on nonsense, it says 0 and remembers `failed`. */
struct reader {
	const unsigned char *at, *end;
	bool failed;
};

struct text {
	const unsigned char *bytes;
	size_t length;
};

struct reader reader_of(const void *bytes, size_t length);
unsigned char get_byte(struct reader *r);
uint64_t get_number(struct reader *r);
int64_t get_signed(struct reader *r);
struct text get_text(struct reader *r);	/* lies in the reader's bytes */
const unsigned char *get_bytes(struct reader *r, size_t length);	/* NULL when there are not so many */

/* Frames from a descriptor that blocks. */
struct frame {
	unsigned char type;
	struct reader payload;	/* valid until the next frame */
};

struct frame_input {
	int fd;
	unsigned char *bytes;
	size_t from, to, capacity;
	const char *problem;	/* why frame_next said -1 */
	int error;		/* errno of a failed read, else 0 */
};

void frame_input_open(struct frame_input *in, int fd);
void frame_input_free(struct frame_input *in);
/* 1: a frame; 0: the end, between two frames; -1: cut in a frame, malformed or unreadable. */
int frame_next(struct frame_input *in, struct frame *f);

/* Writes all of it; false with errno. */
bool write_all(int fd, const void *bytes, size_t length);

#endif
