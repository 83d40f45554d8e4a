/*
 * content.h - the bytes of a file, and their hash.
 *
 * The hash of a segment (entry.h) does not see where holes are: it is taken over its blocks of 64 KiB that are not all zero,
 * each after its number in the file (eight bytes, the lowest first).  So a hole need not be read.  The hash of a file is
 * taken over those of its segments, and over its size at last.
 */
#ifndef RUNBOOK_FAR_CONTENT_H
#define RUNBOOK_FAR_CONTENT_H

#include "far.h"

#define CONTENT_CHUNK ((size_t)256 << 10)

/* A part of the file that is no hole; `offset` and order are ascending.  False ends it. */
typedef bool content_sink(void *arg, uint64_t offset, const unsigned char *bytes, size_t length);

/*
 * Reads an open file from its beginning.  0, or errno; EAGAIN when it was written to meanwhile; ECANCELED when the sink
 * ended it.  sink may be NULL, and attributes, which get what attributes_get appends.
 */
int content_read(int fd, const struct entry *e, content_sink *sink, void *arg, struct buffer *attributes,
                 unsigned char hash[static ENTRY_HASH]);

/* The hash alone, of a file that is nobody else's. */
int content_hash(int fd, const struct entry *e, unsigned char hash[static ENTRY_HASH]);

/* The hash of one segment, and its bytes for the sink; not whether the file was written to meanwhile. */
int content_segment(int fd, const struct entry *e, uint64_t index, content_sink *sink, void *arg,
                    unsigned char hash[static ENTRY_HASH]);
/* Of a file, from those of its segments, which lie `stride` bytes apart. */
void content_whole(const unsigned char *hashes, size_t stride, uint64_t size, unsigned char hash[static ENTRY_HASH]);

/* The file at a path: opened, unless it is none any more (EAGAIN), and what fstat says. */
int content_open(struct cursor *c, const char *path, int *fd, struct entry *e);

/* The clock that files' times go by, a server's, may be so many seconds behind this machine's.  Before any thread. */
void content_clock_is_behind(uint64_t seconds);
/* Was it touched within the last moments before now, as far as that clock is known? */
bool content_is_racy(const struct entry *e);

#endif
