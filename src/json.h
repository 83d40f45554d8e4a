/*
 * json.h - JSON text to yyjson's values, and values to text.  Knows nothing of Lua.
 *
 * Stricter than RFC 8259 where it leaves a choice: a key may stand once in an object, integers must
 * fit 64 bits, and the nesting has a limit, so that nothing is lost or overrun in silence.
 */
#ifndef RUNBOOK_JSON_H
#define RUNBOOK_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <yyjson.h>

#define JSON_MAX_DEPTH 200

struct json_error {
	const char *code;	/* "ESYNTAX", "EDUPLICATE", "ELIMIT" (too large, too deep), "ENOMEM" */
	char message[240];	/* "line 3, column 7: ..." */
};

struct json_doc;

/*
 * The values point into the document: walk them from json_root with yyjson's own functions.  NULL
 * on failure, with *error filled.  The text need not outlive the call.
 */
struct json_doc *json_read(const char *text, size_t length, size_t max_bytes, struct json_error *error);
yyjson_val *json_root(const struct json_doc *doc);
void json_free(struct json_doc *doc);

/* A growing text.  Start from {0}.  Each json_put_ returns false when memory ran out. */
struct json_text {
	char *bytes;
	size_t length, capacity;
};

void json_text_fini(struct json_text *t);
bool json_put(struct json_text *t, const char *bytes, size_t length);
bool json_put_integer(struct json_text *t, int64_t n);
/* n must be finite.  The shortest digits that read back as n; a whole number keeps its ".0". */
bool json_put_real(struct json_text *t, double n);
/* A quoted string; valid UTF-8 only (see json_utf8). */
bool json_put_string(struct json_text *t, const char *s, size_t length);
/* The same, with U+FFFD for each byte that is not part of UTF-8. */
bool json_put_string_lossy(struct json_text *t, const char *s, size_t length);

/* How many bytes from the start of s are whole, well-formed UTF-8: length when all are. */
size_t json_utf8(const char *s, size_t length);

#endif
