/* secret.h - bytes that must not be swapped, dumped or left behind.  Knows nothing of Lua. */
#ifndef RUNBOOK_SECRET_H
#define RUNBOOK_SECRET_H

#include <stddef.h>

struct secret;

/* Copies both.  NULL: out of memory.  That it cannot be locked in memory is no failure. */
struct secret *secret_new(const char *name, const void *bytes, size_t length);

/* Overwrites the bytes first. */
void secret_free(struct secret *s);

const char *secret_name(const struct secret *s);

/* A NUL follows, which length does not count. */
const char *secret_bytes(const struct secret *s, size_t *length);

#endif
