/*
 * redact.h - takes secrets out of bytes on their way to people.  Knows nothing of Lua.
 *
 * Every secret is looked for as it is and in the spellings programs give it: base64 (in the three
 * positions a byte can have, both alphabets, and in wrapped lines), percent-encoded, JSON-escaped,
 * shell-quoted, and line by line.  What is found is replaced by «secret:name»; the longest match
 * names it, and matches that overlap become one.
 */
#ifndef RUNBOOK_REDACT_H
#define RUNBOOK_REDACT_H

#include <stdbool.h>
#include <stddef.h>

#define REDACT_SHORTEST 4	/* bytes; anything shorter is found everywhere */

struct redact;
struct redact_stream;

enum redact_added { REDACT_ADDED, REDACT_TOO_SHORT, REDACT_NO_MEMORY };

struct redact *redact_new(void);	/* NULL: out of memory */
void redact_free(struct redact *r);	/* after its streams */

/* Blanks and line ends around the bytes do not count.  Name and bytes are copied. */
enum redact_added redact_add(struct redact *r, const char *name, const void *bytes, size_t length);

/* NULL: out of memory. */
struct redact_stream *redact_stream_new(struct redact *r);
void redact_stream_free(struct redact_stream *s);

/*
 * Takes bytes and gives those that are safe to show; only what may be the beginning of a secret is
 * kept back, until it is one or not.  The result lives until the next call.  NULL: out of memory.
 */
const char *redact_stream_feed(struct redact_stream *s, const void *bytes, size_t length, size_t *safe);

/* Nothing follows for now: what was kept back is no secret, unless it ends one.  As above. */
const char *redact_stream_flush(struct redact_stream *s, size_t *safe);

/* Where the first secret begins, or length: most text holds none and needs no copy. */
size_t redact_find(struct redact *r, const void *bytes, size_t length);

#endif
