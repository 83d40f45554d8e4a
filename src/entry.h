/*
 * entry.h - what is known of one name in a tree, and the frames that carry it between the far side and here.
 *
 * Paths are relative to their unit (a home), "" for the unit's own directory, components joined by one '/'.
 * They are ordered component by component, a directory before what is in it (entry_order): every stream of
 * entries is sorted so, and two of them are compared by walking both once.
 */
#ifndef RUNBOOK_ENTRY_H
#define RUNBOOK_ENTRY_H

#include "frame.h"

#define ENTRY_VERSION 1		/* of all that is below; both sides must be of one */

#define ENTRY_HASH 16		/* XXH3, 128 bits, of a file's bytes, as far/content.h says; zeros for all that is no file */
#define ENTRY_ATTRIBUTES 8	/* XXH3, 64 bits, of its xattrs and ACLs in the order of their names; zeros: none */

/*
 * A file that is longer than a segment is written beside its place under a name that every try gives it, segment by segment.
 * Behind its bytes stands a record for each segment: how the source was when it was read (SEGMENT_STATE bytes), and the hash
 * of what was read; zeros: it is not there.  A record is what somebody said, and no proof: whoever puts the file in its
 * place reads all of it.
 */
#define SEGMENT_LEAST  ((uint64_t)4 << 20)
#define SEGMENTS_MOST  16384
#define SEGMENT_STATE  8
#define SEGMENT_RACY   1	/* in its last byte: who wrote to the source in that moment may not show in its state */
#define SEGMENT_RECORD (SEGMENT_STATE + ENTRY_HASH)

/* Bytes of each segment but the last, of a file of that size; and how many there are. */
uint64_t segment_size(uint64_t file);
uint64_t segment_count(uint64_t file);
/* By what the name of an unfinished file is made; its path is below the root. */
uint64_t unfinished_id(const void *path, size_t length);

static inline bool
segment_is_there(const unsigned char record[SEGMENT_RECORD])
{
	return record[0] != 0;
}

struct moment {
	int64_t seconds;
	uint32_t nanoseconds;
};

struct entry {
	char type;		/* as find says it: f d l p s b c */
	uint32_t mode;		/* 07777 */
	uint32_t uid, gid;
	uint64_t size;		/* of a file; else 0 */
	struct moment modified, changed;
	uint64_t inode, device, links, blocks;	/* blocks of 512 bytes */
	uint64_t node;		/* of a device: its number */
	struct text target;	/* of a symlink */
};

/*
 * scan: what it is told on stdin
 *   'O' version, threads (0: as it sees fit), flags (1: gently)
 *   'X' flags (1: directories only), an extended regular expression that "./PATH" in a unit must match to be left out
 *   'N' a shell pattern of names at the top that are no units
 *   'U' a unit, the digest it had (or nothing): when it still has it, its entries are not sent
 *   'L' a unit: when there is any, only these are looked at
 *   'G' go
 * and what it answers on stdout.  Units come in any order; one is whole before the next begins.
 *   'H' version, boot id, clock (seconds, nanoseconds), device and inode of the top, a word for the file system, page
 *   'U' a unit
 *   'E' entry: bytes shared with the path before it, the rest of the path, then entry_put's fields
 *   'P' path, errno, what was tried: could not be looked at
 *   'V' end of the unit: digest, 1 when its entries were left out, counts (see struct unit_counts), n, n times uid, gid, names
 * A unit that could not be looked at has no 'E', but a 'P' with an empty path.  One whose latest ctime is within a tick of
 * the clock at which it was read may change without its digest: such a digest is not to be trusted in 'U'.
 *   'Z' end: units, nanoseconds that a stat took (the median).  Without it the stream was cut.
 */
enum {
	SCAN_OPTIONS = 'O', SCAN_EXCLUDE = 'X', SCAN_NOT_UNIT = 'N', SCAN_ONLY = 'L', SCAN_GO = 'G',
	SCAN_HELLO = 'H', SCAN_UNIT = 'U', SCAN_ENTRY = 'E', SCAN_PROBLEM = 'P', SCAN_UNIT_END = 'V', SCAN_END = 'Z',
};

/*
 * Work, from here through the sender to the receiver.  'B' names the unit of what follows.  INDEX counts from 0 in a
 * stream; the answer names it.  EXPECT says what stands on the target: 0 nothing, else 1, inode, ctime (seconds, ns; zeros: any, as
 * of a name whose other names are in other streams).
 *   'F' index, path, expect        a file with its bytes
 *   'P' index, path, expect, settles, size, from, to, records    segments of a file of that size, from the first one on and
 *       without the last, which were not there according to their records; when it settles, the file is put in its place then
 *   'M' index, path, expect, hash  a file whose bytes should be these on the target already: then only the rest is brought
 *   'N' index, path, expect        a symlink, pipe, socket or device
 *   'H' index, path, expect, path of the name it is linked to
 *   'D' index, path                a directory with its own mode, owner, times and attributes; made when it is not there
 *   'X' index, path, type, expect  what was removed at the source; a directory must be empty
 *   'R'                            what came before is finished first
 *   'Q'                            the end
 * send answers with the same frames, each with what the receiver needs: see far/send.c.
 */
enum {
	WORK_UNIT = 'B', WORK_FILE = 'F', WORK_PART = 'P', WORK_CHECK = 'M', WORK_NODE = 'N', WORK_LINK = 'H', WORK_DIRECTORY = 'D',
	WORK_REMOVE = 'X', WORK_BARRIER = 'R', WORK_END = 'Q',
};

/*
 * What became of it, on the receiver's stdout:
 *   'r' index, status, then for DONE: flags; the entry as it was at the source (entry_put) unless flag LINKED or REMOVED;
 *       attributes; hash when flag HASHED; inode, device, ctime (seconds, ns), blocks on the target; bytes sent.  With flag
 *       PART, which is said of segments without the file being put in its place, bytes sent and nothing else
 *       else: errno, a few words; then, where this work has put something there all the same (UNKEPT, or a directory that
 *       was made for what is in it), the entry as it is on the target
 *   'p' bytes so far, of files not answered yet, too; nanoseconds that a stat takes at the source now (0: not known)
 *   't' inode, device, ctime (seconds, ns) on the target: what was done to one name of an inode gave it this ctime, and so
 *       to its other names, whether they were answered before or are not in the work at all.  It is said when what came
 *       before 'R' or 'Q' is finished
 *   'Q' the end: bytes, files.  Without it the stream was cut.
 */
enum { RESULT = 'r', RESULT_PROGRESS = 'p', RESULT_TOUCHED = 't', RESULT_END = 'Q' };

enum result_status {
	RESULT_DONE,
	RESULT_VANISHED,	/* gone from the source */
	RESULT_CHANGING,	/* written to while it was read, three times over */
	RESULT_SOURCE,		/* the source cannot be read */
	RESULT_TARGET,		/* the target cannot be written */
	RESULT_CONFLICT,	/* on the target stands something else than was expected */
	RESULT_UNKEPT,		/* it is there, but the target did not keep all of it; the words say what */
	RESULT_TORN,		/* a file that came in parts is not whole: what is missing has to be sent again */
};

/* RACY: the name was touched so shortly before it was read that a second touch would not show in its times. */
enum { RESULT_HASHED = 1, RESULT_LINKED = 2, RESULT_REMOVED = 4, RESULT_RACY = 8, RESULT_PART = 16 };

/*
 * clean: the request of a scan; what copies left that were cut is removed.  With --keep-parts unfinished files stay, and
 * each is said:
 *   'T' unit, id, size, bytes of it that are there, records
 */
enum { UNFINISHED = 'T' };

/*
 * prove: the same work frames 'B', 'K' (index, path), 'Q' on stdin; for each on stdout
 *   'k' index, errno, then when that is 0: flags (RACY), the entry, attributes, hash
 * and 'Q' at the end.  A file that was written to while it was read has errno EAGAIN.
 */
enum { PROVE_ENTRY = 'K', PROOF = 'k' };

struct unit_counts {
	uint64_t entries, files, directories, bytes, blocks, special, linked;
	uint64_t linked_elsewhere;	/* names whose other names are not all in this unit */
	struct moment newest;		/* the latest ctime */
};

/* All fields but the path. */
void entry_put(struct buffer *b, const struct entry *e);
/* False when it is malformed.  The target lies in the reader's bytes. */
bool entry_get(struct reader *r, struct entry *e);

void unit_counts_put(struct buffer *b, const struct unit_counts *c);
bool unit_counts_get(struct reader *r, struct unit_counts *c);
void unit_counts_add(struct unit_counts *c, const struct entry *e);

/* <0, 0, >0.  The order of paths: '/' before every other byte. */
int entry_order(const void *a, size_t a_length, const void *b, size_t b_length);

/* A path of somebody else: relative, no empty component, no "." or "..", no zero byte.  "" is good. */
bool entry_path_is_good(struct text path);

static inline bool
moment_is(struct moment a, struct moment b)
{
	return a.seconds == b.seconds && a.nanoseconds == b.nanoseconds;
}

#endif
