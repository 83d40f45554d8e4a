/*
 * fuzz/redact.c - libFuzzer target for src/redact.c: whatever the secrets and wherever the text is cut,
 * the stream shows what reading position by position would.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -iquote src spec/fuzz/redact.c src/redact.c \
 *         src/redact_spell.c -o build/fuzz-redact
 *     build/fuzz-redact -max_total_time=60 -max_len=400
 *
 * The input: a byte saying how many secrets (1 to 4), each as a length byte and bytes of one of two
 * letters; a byte saying how long the parts are; then the text in the same two letters.  Neither is
 * in any other spelling of such a secret, so the plain search below is the whole truth.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redact.h"

#define SECRETS 4
#define LONGEST 12

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	char secrets[SECRETS][LONGEST + 1];
	size_t count;
	size_t part;
	char *text;
	size_t length;
};

struct text {
	char *bytes;
	size_t length;
};

static void
append(struct text *t, const char *bytes, size_t length)
{
	t->bytes = realloc(t->bytes, t->length + length + 1);
	memcpy(t->bytes + t->length, bytes, length);
	t->length += length;
}

static char
letter(uint8_t byte)
{
	return (byte & 1) != 0 ? '~' : '!';
}

static int
known(const struct input *in, const char *secret)
{
	for (size_t i = 0; i < in->count; i++)
		if (strcmp(in->secrets[i], secret) == 0)
			return 1;
	return 0;
}

/* Returns how many bytes were used. */
static size_t
read_secrets(struct input *in, const uint8_t *data, size_t size)
{
	size_t at = 1, wanted = 1 + data[0] % SECRETS;

	while (wanted-- > 0 && at < size) {
		char secret[LONGEST + 1] = "";
		size_t length = REDACT_SHORTEST + data[at++] % (LONGEST - REDACT_SHORTEST + 1);

		for (size_t i = 0; i < length; i++)
			secret[i] = letter(at < size ? data[at++] : 0);
		if (!known(in, secret))
			memcpy(in->secrets[in->count++], secret, sizeof secret);
	}
	return at;
}

static void
mark(struct text *out, const char *name)
{
	append(out, "\xc2\xabsecret:", 9);
	append(out, name, strlen(name));
	append(out, "\xc2\xbb", 2);
}

static const char *
longest_at(const struct input *in, size_t at)
{
	const char *found = NULL;

	for (size_t i = 0; i < in->count; i++) {
		size_t length = strlen(in->secrets[i]);

		if (length <= in->length - at && memcmp(in->text + at, in->secrets[i], length) == 0 &&
		    (found == NULL || length > strlen(found)))
			found = in->secrets[i];
	}
	return found;
}

static struct text
by_hand(const struct input *in)
{
	struct text out = { NULL, 0 };
	const char *name = NULL;
	size_t end = 0;

	append(&out, "", 0);
	for (size_t at = 0; at < in->length; at++) {
		const char *found = longest_at(in, at);

		if (at >= end && name != NULL) {
			mark(&out, name);
			name = NULL;
		}
		if (found != NULL) {
			if (name == NULL || strlen(found) > strlen(name))
				name = found;
			if (at + strlen(found) > end)
				end = at + strlen(found);
		}
		if (at >= end)
			append(&out, in->text + at, 1);
	}
	if (name != NULL)
		mark(&out, name);
	return out;
}

static struct text
by_stream(const struct input *in)
{
	struct redact *r = redact_new();
	struct redact_stream *s = redact_stream_new(r);
	struct text out = { NULL, 0 };
	const char *safe;
	size_t n;

	for (size_t i = 0; i < in->count; i++)
		if (redact_add(r, in->secrets[i], in->secrets[i], strlen(in->secrets[i])) != REDACT_ADDED)
			abort();
	for (size_t at = 0; at < in->length; at += in->part) {
		safe = redact_stream_feed(s, in->text + at,
		                          in->length - at < in->part ? in->length - at : in->part, &n);
		append(&out, safe, n);
	}
	safe = redact_stream_flush(s, &n);
	append(&out, safe, n);
	redact_stream_free(s);
	redact_free(r);
	return out;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { .count = 0 };
	struct text expected, shown;
	size_t at;

	if (size < 2)
		return 0;
	at = read_secrets(&in, data, size);
	in.part = at < size ? 1 + data[at++] % 32 : 1;
	in.text = malloc(size);
	while (at < size)
		in.text[in.length++] = letter(data[at++]);
	expected = by_hand(&in);
	shown = by_stream(&in);
	if (expected.length != shown.length || memcmp(expected.bytes, shown.bytes, shown.length) != 0) {
		fprintf(stderr, "expected: %.*s\nshown:    %.*s\n", (int)expected.length, expected.bytes,
		        (int)shown.length, shown.bytes);
		abort();
	}
	free(expected.bytes);
	free(shown.bytes);
	free(in.text);
	return 0;
}
