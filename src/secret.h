/* secret.h - bytes that must not be swapped, dumped or left behind.  Knows nothing of Lua. */
#ifndef RUNBOOK_SECRET_H
#define RUNBOOK_SECRET_H

#include <stdbool.h>
#include <stddef.h>

struct secret;

/* A secret whose bytes come later.  Copies the name.  NULL: out of memory. */
struct secret *secret_new(const char *name);

/* Once; copies the bytes.  False: out of memory.  That they cannot be locked in memory is no failure. */
bool secret_fill(struct secret *s, const void *bytes, size_t length);

/* Once, instead of that: room for so many bytes, which the caller writes at once.  NULL: out of memory. */
char *secret_room(struct secret *s, size_t length);

/* Overwrites the bytes first. */
void secret_free(struct secret *s);

const char *secret_name(const struct secret *s);

/* A NUL follows, which length does not count.  NULL: they have not come yet. */
const char *secret_bytes(const struct secret *s, size_t *length);

#endif
