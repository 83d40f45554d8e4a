/* bytes.h - a growing buffer that is filled at its end and used up from its start. */
#ifndef RUNBOOK_BYTES_H
#define RUNBOOK_BYTES_H

#include <stdbool.h>
#include <stddef.h>

struct bytes {
	char *data;
	size_t start, end, capacity;
};

/* All zero is an empty buffer. */
void bytes_free(struct bytes *b);

/* Room for `more` bytes at the end, or NULL when memory ran out; bytes_added says how many came. */
char *bytes_room(struct bytes *b, size_t more);
void bytes_added(struct bytes *b, size_t count);

/* False when memory ran out; nothing was appended then. */
bool bytes_append(struct bytes *b, const void *data, size_t length);

static inline size_t
bytes_length(const struct bytes *b)
{
	return b->end - b->start;
}

static inline char *
bytes_first(const struct bytes *b)
{
	return b->data + b->start;
}

void bytes_used(struct bytes *b, size_t count);

#endif
