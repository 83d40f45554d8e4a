/* cells.c - see cells.h.  Each cell is a type byte and then, unaligned, what that type needs. */
#include <stdlib.h>
#include <string.h>

#include "cells.h"

static char *
room(struct cells *c, size_t more)
{
	if (c->size - c->used < more) {
		size_t size = c->size == 0 ? 256 : c->size;
		char *data;

		while (size - c->used < more) {
			if (size > SIZE_MAX / 2)
				return NULL;
			size *= 2;
		}
		if ((data = realloc(c->data, size)) == NULL)
			return NULL;
		c->data = data;
		c->size = size;
	}
	return c->data + c->used;
}

static bool
add(struct cells *c, enum cell_type type, const void *value, size_t length)
{
	char *p = room(c, 1 + length);

	if (p == NULL)
		return false;
	*p++ = (char)type;
	if (length > 0)
		memcpy(p, value, length);
	c->used += 1 + length;
	c->count++;
	return true;
}

bool
cells_add_integer(struct cells *c, int64_t integer)
{
	return add(c, CELL_INTEGER, &integer, sizeof integer);
}

bool
cells_add_text(struct cells *c, const char *bytes, size_t length)
{
	char *p;

	if (length > SIZE_MAX / 4 || (p = room(c, 1 + sizeof length + length + 1)) == NULL)
		return false;
	*p++ = (char)CELL_TEXT;
	memcpy(p, &length, sizeof length);
	p += sizeof length;
	if (length > 0)
		memcpy(p, bytes, length);
	p[length] = '\0';
	c->used += 1 + sizeof length + length + 1;
	c->count++;
	return true;
}

bool
cells_add(struct cells *c, const struct cell *value)
{
	switch (value->type) {
	case CELL_INTEGER:
		return cells_add_integer(c, value->integer);
	case CELL_REAL:
		return add(c, CELL_REAL, &value->real, sizeof value->real);
	case CELL_TEXT:
		return cells_add_text(c, value->text.bytes, value->text.length);
	case CELL_NULL:
		break;
	}
	return add(c, CELL_NULL, NULL, 0);
}

bool
cells_next(const struct cells *c, size_t *at, struct cell *value)
{
	const char *p;

	if (*at >= c->used)
		return false;
	p = c->data + *at;
	value->type = (enum cell_type)*p++;
	*at += 1;
	switch (value->type) {
	case CELL_INTEGER:
		memcpy(&value->integer, p, sizeof value->integer);
		*at += sizeof value->integer;
		break;
	case CELL_REAL:
		memcpy(&value->real, p, sizeof value->real);
		*at += sizeof value->real;
		break;
	case CELL_TEXT:
		memcpy(&value->text.length, p, sizeof value->text.length);
		value->text.bytes = p + sizeof value->text.length;
		*at += sizeof value->text.length + value->text.length + 1;
		break;
	case CELL_NULL:
		break;
	}
	return true;
}

void
cells_fini(struct cells *c)
{
	free(c->data);
	*c = (struct cells){ .data = NULL };
}
