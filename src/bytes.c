/* bytes.c - a growing buffer that is filled at its end and used up from its start. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"

#define SMALLEST 1024

void
bytes_free(struct bytes *b)
{
	free(b->data);
	*b = (struct bytes){ NULL, 0, 0, 0 };
}

char *
bytes_room(struct bytes *b, size_t more)
{
	size_t length = bytes_length(b), capacity = b->capacity;
	char *data;

	if (capacity - b->end >= more && b->data != NULL)
		return b->data + b->end;
	/* Moving the rest down pays when at least half of the buffer is used up. */
	if (capacity - length >= more && b->start >= capacity / 2) {
		memmove(b->data, b->data + b->start, length);
		b->start = 0;
		b->end = length;
		return b->data + b->end;
	}
	if (more > SIZE_MAX / 4 - b->end)
		return NULL;
	if (capacity < SMALLEST)
		capacity = SMALLEST;
	while (capacity - b->end < more)
		capacity *= 2;
	if ((data = realloc(b->data, capacity)) == NULL)
		return NULL;
	b->data = data;
	b->capacity = capacity;
	return b->data + b->end;
}

void
bytes_added(struct bytes *b, size_t count)
{
	b->end += count;
}

bool
bytes_append(struct bytes *b, const void *data, size_t length)
{
	char *room;

	if (length == 0)
		return true;
	if ((room = bytes_room(b, length)) == NULL)
		return false;
	memcpy(room, data, length);
	b->end += length;
	return true;
}

void
bytes_used(struct bytes *b, size_t count)
{
	b->start += count;
	if (b->start == b->end)
		b->start = b->end = 0;
}
