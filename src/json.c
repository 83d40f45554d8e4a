/* json.c - see json.h. */
#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yyjson.h>

/* Below this many keys comparing each with each is faster than sorting. */
#define FEW_KEYS 16

struct json_doc {
	char *text;		/* our padded copy; yyjson's strings point into it */
	yyjson_doc *doc;
};

struct reader {
	const char *source;	/* as given: the copy is changed by unescaping */
	const struct json_doc *doc;
	struct json_error *error;
};

static void
locate(char *out, size_t size, const char *source, size_t offset)
{
	size_t line = 1, start = 0, i;

	for (i = 0; i < offset; i++)
		if (source[i] == '\n') {
			line++;
			start = i + 1;
		}
	snprintf(out, size, "line %zu, column %zu", line, offset - start + 1);
}

static bool
fail(struct reader *r, const char *code, size_t offset, const char *what)
{
	char at[64];

	locate(at, sizeof at, r->source, offset);
	r->error->code = code;
	snprintf(r->error->message, sizeof r->error->message, "%s: %s", at, what);
	return false;
}

/* Only strings have a place: yyjson keeps none for other values. */
static size_t
offset_of(const struct reader *r, yyjson_val *key)
{
	return key == NULL ? 0 : (size_t)(yyjson_get_str(key) - 1 - r->doc->text);	/* at its quote */
}

static bool
same_key(yyjson_val *a, yyjson_val *b)
{
	size_t n = yyjson_get_len(a);

	return n == yyjson_get_len(b) && memcmp(yyjson_get_str(a), yyjson_get_str(b), n) == 0;
}

static bool
fail_duplicate(struct reader *r, yyjson_val *first, yyjson_val *second)
{
	const char *key = unsafe_yyjson_get_str(second);
	char what[160], at[64];

	locate(at, sizeof at, r->source, offset_of(r, first));
	snprintf(what, sizeof what, "key \"%.*s\" again; it stands at %s already",
	         (int)json_utf8(key, strnlen(key, 40)), key, at);
	return fail(r, "EDUPLICATE", offset_of(r, second), what);
}

static int
by_text(const void *a, const void *b)
{
	yyjson_val *x = *(yyjson_val *const *)a, *y = *(yyjson_val *const *)b;
	size_t m = yyjson_get_len(x), n = yyjson_get_len(y);
	int order = memcmp(yyjson_get_str(x), yyjson_get_str(y), m < n ? m : n);

	if (order == 0)
		order = (m > n) - (m < n);
	/* the same text: in the order of the document, so that the second is the one refused */
	return order != 0 ? order : (x > y) - (x < y);
}

static bool
check_many_keys(struct reader *r, yyjson_val *object)
{
	size_t n = yyjson_obj_size(object), i = 0;
	yyjson_obj_iter it = yyjson_obj_iter_with(object);
	yyjson_val *key, **keys = malloc(n * sizeof *keys);
	bool ok = true;

	if (keys == NULL)
		return fail(r, "ENOMEM", 0, "out of memory");
	while ((key = yyjson_obj_iter_next(&it)) != NULL)
		keys[i++] = key;
	qsort(keys, n, sizeof *keys, by_text);
	for (i = 1; ok && i < n; i++)
		if (same_key(keys[i - 1], keys[i]))
			ok = fail_duplicate(r, keys[i - 1], keys[i]);
	free(keys);
	return ok;
}

static bool
check_keys(struct reader *r, yyjson_val *object)
{
	yyjson_val *seen[FEW_KEYS], *key;
	yyjson_obj_iter it;
	size_t n = 0, i;

	if (yyjson_obj_size(object) > FEW_KEYS)
		return check_many_keys(r, object);
	it = yyjson_obj_iter_with(object);
	while ((key = yyjson_obj_iter_next(&it)) != NULL) {
		for (i = 0; i < n; i++)
			if (same_key(seen[i], key))
				return fail_duplicate(r, seen[i], key);
		seen[n++] = key;
	}
	return true;
}

/* key: the last one on the way to v, which is the best place we can name. */
static bool
check(struct reader *r, yyjson_val *v, yyjson_val *key, unsigned depth)
{
	yyjson_val *child;

	if (yyjson_is_raw(v) || (yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX))
		return fail(r, "ESYNTAX", offset_of(r, key), "a number does not fit 64 bits");
	if (!yyjson_is_ctn(v))
		return true;
	if (depth == JSON_MAX_DEPTH)
		return fail(r, "ELIMIT", offset_of(r, key), "nested more than 200 deep");
	if (yyjson_is_arr(v)) {
		yyjson_arr_iter it = yyjson_arr_iter_with(v);

		while ((child = yyjson_arr_iter_next(&it)) != NULL)
			if (!check(r, child, key, depth + 1))
				return false;
	} else {
		yyjson_obj_iter it = yyjson_obj_iter_with(v);

		if (!check_keys(r, v))
			return false;
		while ((key = yyjson_obj_iter_next(&it)) != NULL)
			if (!check(r, yyjson_obj_iter_get_val(key), key, depth + 1))
				return false;
	}
	return true;
}

static bool
parse(struct reader *r, struct json_doc *d, size_t length)
{
	/* Big numbers raw: yyjson would make an integer beyond 64 bits a rounded real. */
	const yyjson_read_flag flags = YYJSON_READ_INSITU | YYJSON_READ_BIGNUM_AS_RAW;
	yyjson_read_err e;

	if ((d->text = malloc(length + YYJSON_PADDING_SIZE)) == NULL)
		return fail(r, "ENOMEM", 0, "out of memory");
	memcpy(d->text, r->source, length);
	memset(d->text + length, 0, YYJSON_PADDING_SIZE);
	if ((d->doc = yyjson_read_opts(d->text, length, flags, NULL, &e)) == NULL) {
		bool memory = e.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION;

		return fail(r, memory ? "ENOMEM" : "ESYNTAX", e.pos < length ? e.pos : length, e.msg);
	}
	return check(r, d->doc->root, NULL, 0);
}

struct json_doc *
json_read(const char *text, size_t length, size_t max_bytes, struct json_error *error)
{
	struct json_doc *d;
	struct reader r = { .source = text, .error = error };

	if (length > max_bytes) {
		error->code = "ELIMIT";
		snprintf(error->message, sizeof error->message, "%zu bytes; the limit is %zu",
		         length, max_bytes);
		return NULL;
	}
	if ((d = calloc(1, sizeof *d)) == NULL) {
		fail(&r, "ENOMEM", 0, "out of memory");
		return NULL;
	}
	r.doc = d;
	if (!parse(&r, d, length)) {
		json_free(d);
		d = NULL;
	}
	return d;
}

yyjson_val *
json_root(const struct json_doc *doc)
{
	return yyjson_doc_get_root(doc->doc);
}

void
json_free(struct json_doc *doc)
{
	if (doc == NULL)
		return;
	yyjson_doc_free(doc->doc);
	free(doc->text);
	free(doc);
}

void
json_text_fini(struct json_text *t)
{
	free(t->bytes);
	*t = (struct json_text){ 0 };
}

static bool
reserve(struct json_text *t, size_t more)
{
	size_t capacity = t->capacity ? t->capacity : 256;
	char *bytes;

	if (more <= t->capacity - t->length)
		return true;
	while (capacity - t->length < more) {
		if (capacity > SIZE_MAX / 2)
			return false;
		capacity *= 2;
	}
	if ((bytes = realloc(t->bytes, capacity)) == NULL)
		return false;
	t->bytes = bytes;
	t->capacity = capacity;
	return true;
}

bool
json_put(struct json_text *t, const char *bytes, size_t length)
{
	if (!reserve(t, length))
		return false;
	memcpy(t->bytes + t->length, bytes, length);
	t->length += length;
	return true;
}

bool
json_put_integer(struct json_text *t, int64_t n)
{
	char digits[24];
	int length = snprintf(digits, sizeof digits, "%lld", (long long)n);

	return json_put(t, digits, (size_t)length);
}

bool
json_put_real(struct json_text *t, double n)
{
	char digits[40];
	int precision, length = 0;

	for (precision = 15; precision <= 17; precision++) {
		length = snprintf(digits, sizeof digits - 2, "%.*g", precision, n);
		if (strtod(digits, NULL) == n)
			break;
	}
	if (strpbrk(digits, ".e") == NULL) {
		memcpy(digits + length, ".0", 2);
		length += 2;
	}
	return json_put(t, digits, (size_t)length);
}

/* The length of the well-formed sequence that starts at s, or 0. */
static size_t
sequence(const unsigned char *s, size_t left)
{
	unsigned char low = 0x80, high = 0xbf;
	size_t n, i;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		n = 2;
	else if (s[0] >= 0xe0 && s[0] <= 0xef)
		n = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		n = 4;
	else
		return 0;
	/* no overlong forms, no surrogates, nothing above U+10FFFF */
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;
	if (left < n || s[1] < low || s[1] > high)
		return 0;
	for (i = 2; i < n; i++)
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	return n;
}

size_t
json_utf8(const char *s, size_t length)
{
	size_t i = 0, n;

	while (i < length) {
		if ((unsigned char)s[i] < 0x80) {
			i++;
			continue;
		}
		if ((n = sequence((const unsigned char *)s + i, length - i)) == 0)
			break;
		i += n;
	}
	return i;
}

static bool
put_escape(struct json_text *t, unsigned char c)
{
	static const char names[] = "\"\"\\\\\bb\ff\nn\rr\tt";
	char out[8];
	size_t i;

	for (i = 0; i < sizeof names - 1; i += 2)
		if ((unsigned char)names[i] == c) {
			out[0] = '\\';
			out[1] = names[i + 1];
			return json_put(t, out, 2);
		}
	snprintf(out, sizeof out, "\\u%04x", c);
	return json_put(t, out, 6);
}

static bool
put_escaped(struct json_text *t, const char *s, size_t length)
{
	size_t i, start = 0;

	for (i = 0; i < length; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
			continue;
		if (!json_put(t, s + start, i - start) || !put_escape(t, c))
			return false;
		start = i + 1;
	}
	return json_put(t, s + start, length - start);
}

bool
json_put_string(struct json_text *t, const char *s, size_t length)
{
	return reserve(t, length + 2) && json_put(t, "\"", 1) && put_escaped(t, s, length) && json_put(t, "\"", 1);
}

bool
json_put_string_lossy(struct json_text *t, const char *s, size_t length)
{
	size_t good;

	if (!json_put(t, "\"", 1))
		return false;
	while ((good = json_utf8(s, length)) < length) {
		if (!put_escaped(t, s, good) || !json_put(t, "\xef\xbf\xbd", 3))
			return false;
		s += good + 1;
		length -= good + 1;
	}
	return put_escaped(t, s, length) && json_put(t, "\"", 1);
}
