/*
 * cells.h - values in one block of memory: what travels between Lua and the thread of a database.
 * Knows neither of them.
 */
#ifndef RUNBOOK_CELLS_H
#define RUNBOOK_CELLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cell_type { CELL_NULL, CELL_INTEGER, CELL_REAL, CELL_TEXT };

struct cell {
	enum cell_type type;
	union {
		int64_t integer;
		double real;
		struct {
			const char *bytes;	/* a NUL follows, which length does not count */
			size_t length;
		} text;
	};
};

/* All zero is an empty list. */
struct cells {
	char *data;
	size_t used, size;
	size_t count;
};

/* Copies the value.  False: out of memory, the list is as before. */
bool cells_add(struct cells *c, const struct cell *value);
bool cells_add_integer(struct cells *c, int64_t integer);
bool cells_add_text(struct cells *c, const char *bytes, size_t length);

/* The value at *at, which starts as 0 and moves on; false at the end.  Text points into the list. */
bool cells_next(const struct cells *c, size_t *at, struct cell *value);

void cells_fini(struct cells *c);	/* leaves an empty list */

#endif
