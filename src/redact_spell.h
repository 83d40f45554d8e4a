/* redact_spell.h - the ways a secret may be spelled.  For redact.c alone. */
#ifndef RUNBOOK_REDACT_SPELL_H
#define RUNBOOK_REDACT_SPELL_H

#include <stdbool.h>
#include <stddef.h>

/* Calls take(arg, bytes, length) for each spelling; some come twice.  False: take did, or no memory. */
bool redact_spell(const unsigned char *bytes, size_t length,
                  bool (*take)(void *arg, const unsigned char *bytes, size_t length), void *arg);

#endif
