/*
 * work.h - what goes from the sender to the receiver.  Paths are below the root here, with their unit in front.
 *
 *   'f' head, entry, attributes, flags, hash, n, n times offset and bytes    a file, whole
 *   'b' id, head, size          a larger file begins; several may be under way
 *   'c' id, offset, bytes       a part of it
 *   'a' id                      it changed while it was read: what came of it is nothing, it begins again
 *   'p' id, head, size          a file that comes in segments (entry.h) begins, or goes on; parts of it as 'c', then
 *   's' id, index, as it was, record    a segment; as it was: what is there is right, and no parts of it came
 *   'a' id, size                it changed: what is said from now on is of another state
 *   't' id                      the segments that were asked for were sent
 *   'e' id, entry, attributes, flags, state    all of it was sent, now or before: it goes to its place
 *   'e' id, entry, attributes, flags, hash    its end
 *   'z' id                      it is not sent after all; a 'V' with its index says why
 *   'M' head, entry, attributes, flags, hash    only what is not its bytes
 *   'N' head, entry, attributes, flags
 *   'H' head, path of the name it is linked to
 *   'D' index, path, entry, attributes, flags
 *   'X' index, path, type, expect
 *   'V' index, status (enum result_status), errno, words    it cannot be sent
 *   'G' index, path, status, errno, words    a directory that cannot be sent; it may have been made for what is in it
 *   'S' nanoseconds that a stat takes
 *   'R', 'Q' as they came
 *
 * A head is index, path, expect.  Attributes are a text of what attributes_get wrote; a hash is ENTRY_HASH bytes as they are.
 */
#ifndef RUNBOOK_FAR_WORK_H
#define RUNBOOK_FAR_WORK_H

#include "far.h"

enum {
	DATA_WHOLE = 'f', DATA_BEGIN = 'b', DATA_CHUNK = 'c', DATA_AGAIN = 'a', DATA_DONE = 'e', DATA_DROP = 'z', DATA_FAILED = 'V',
	DATA_UNSENT = 'G', DATA_STAT = 'S', DATA_UNFINISHED = 'p', DATA_SEGMENT = 's', DATA_SENT = 't',
};

struct expect {
	bool there;
	uint64_t inode;
	struct moment changed;
};

static inline struct expect
get_expect(struct reader *r)
{
	struct expect e = { .there = get_number(r) != 0 };
	if (e.there) {
		e.inode = get_number(r);
		e.changed.seconds = get_signed(r);
		e.changed.nanoseconds = (uint32_t)get_number(r);
	}
	return e;
}

static inline void
put_expect(struct buffer *b, const struct expect *e)
{
	put_number(b, e->there);
	if (e->there) {
		put_number(b, e->inode);
		put_signed(b, e->changed.seconds);
		put_number(b, e->changed.nanoseconds);
	}
}

#endif
