/* redact_spell.c - see redact_spell.h. */
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redact_spell.h"

#define LONGEST_BYTE 12		/* characters one byte may become: two \u escapes */
#define SHORTEST_LINE 16	/* shorter lines of a secret are too likely to be something else */

struct speller {
	bool (*take)(void *arg, const unsigned char *bytes, size_t length);
	void *arg;
	unsigned char *buffer;	/* LONGEST_BYTE times the secret, and a little */
};

static bool
take(const struct speller *s, size_t length)
{
	return s->take(s->arg, s->buffer, length);
}

/*
 * Base64 of a secret that begins `before` bytes into a group of three: the characters that depend
 * on nothing but the secret.
 */
static size_t
base64_inside(unsigned char *out, const unsigned char *bytes, size_t length, unsigned before,
              const char *alphabet)
{
	size_t bits = 8 * length, n = 0;
	size_t at = before == 0 ? 0 : before == 1 ? 4 : 2;	/* first bit of the first whole character */

	for (; at + 6 <= bits; at += 6) {
		unsigned pair = (unsigned)bytes[at / 8] << 8 | (at / 8 + 1 < length ? bytes[at / 8 + 1] : 0);

		out[n++] = (unsigned char)alphabet[pair >> (10 - at % 8) & 63];
	}
	return n;
}

/* Programs wrap base64 at 64 or 76 columns. */
static bool
spell_wrapped(const struct speller *s, size_t length)
{
	static const size_t widths[] = { 64, 76 };

	for (size_t w = 0; w < 2; w++)
		for (size_t at = 0; length > widths[w] && at + SHORTEST_LINE <= length; at += widths[w])
			if (!s->take(s->arg, s->buffer + at, length - at < widths[w] ? length - at : widths[w]))
				return false;
	return true;
}

static bool
spell_base64(const struct speller *s, const unsigned char *bytes, size_t length)
{
	static const char *const alphabets[] = {
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
	};

	for (size_t a = 0; a < 2; a++)
		for (unsigned before = 0; before < 3; before++) {
			size_t n = base64_inside(s->buffer, bytes, length, before, alphabets[a]);

			if (!take(s, n) || (before == 0 && !spell_wrapped(s, n)))
				return false;
		}
	return true;
}

static bool
spell_percent(const struct speller *s, const unsigned char *bytes, size_t length)
{
	static const struct { const char *safe, *hex; bool plus; } styles[] = {
		{ "-._~", "%%%02X", false },		/* RFC 3986 */
		{ "-._~", "%%%02x", false },
		{ "-._~/", "%%%02X", false },		/* paths */
		{ "-._~", "%%%02X", true },		/* forms */
		{ "-._*", "%%%02X", true },
		{ "-._~!'()*", "%%%02X", false },	/* encodeURIComponent */
	};

	for (size_t i = 0; i < sizeof styles / sizeof *styles; i++) {
		size_t n = 0;

		for (size_t k = 0; k < length; k++) {
			unsigned char c = bytes[k];

			if (c == ' ' && styles[i].plus)
				s->buffer[n++] = '+';
			else if (c < 0x80 && (isalnum(c) || (c != 0 && strchr(styles[i].safe, c) != NULL)))
				s->buffer[n++] = c;
			else
				n += (size_t)sprintf((char *)s->buffer + n, styles[i].hex, c);
		}
		if (!take(s, n))
			return false;
	}
	return true;
}

/* The code point at p, its length in *used; a byte that is no UTF-8 stands for itself. */
static unsigned long
code_point(const unsigned char *p, size_t left, size_t *used)
{
	size_t more = *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : *p >= 0xc0 ? 1 : 0;
	unsigned long c = more == 0 ? *p : *p & (0x3fU >> more);

	*used = 1;
	if (*p < 0x80 || more == 0 || more >= left)
		return *p;
	for (size_t i = 1; i <= more; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return *p;
		c = c << 6 | (p[i] & 0x3f);
	}
	*used = 1 + more;
	return c;
}

enum json_style { JSON_PLAIN = 0, JSON_ASCII = 1, JSON_HTML = 2, JSON_SLASH = 4, JSON_UPPER = 8 };

static size_t
json_escape(unsigned char *out, unsigned long c, int style)
{
	const char *hex = (style & JSON_UPPER) != 0 ? "\\u%04lX" : "\\u%04lx";
	size_t n = 0;

	if (c > 0xffff) {
		n = (size_t)sprintf((char *)out, hex, 0xd800 + ((c - 0x10000) >> 10));
		c = 0xdc00 + ((c - 0x10000) & 0x3ff);
	}
	return n + (size_t)sprintf((char *)out + n, hex, c);
}

static size_t
json_one(unsigned char *out, const unsigned char *p, size_t left, size_t *used, int style)
{
	static const char named[] = "\"\\\b\f\n\r\t", names[] = "\"\\bfnrt";
	unsigned long c = code_point(p, left, used);
	const char *at = c > 0 && c < 0x80 ? strchr(named, (int)c) : NULL;

	if (at != NULL || (c == '/' && (style & JSON_SLASH) != 0)) {
		out[0] = '\\';
		out[1] = at != NULL ? (unsigned char)names[at - named] : '/';
		return 2;
	}
	if (c < 0x20 || ((style & JSON_HTML) != 0 && (c == '<' || c == '>' || c == '&')) ||
	    ((style & JSON_ASCII) != 0 && (c == 0x7f || *used > 1)))
		return json_escape(out, c, style);
	memcpy(out, p, *used);
	return *used;
}

static bool
spell_json(const struct speller *s, const unsigned char *bytes, size_t length)
{
	static const int styles[] = {
		JSON_PLAIN, JSON_ASCII, JSON_HTML, JSON_ASCII | JSON_SLASH, JSON_SLASH,
		JSON_ASCII | JSON_UPPER, JSON_HTML | JSON_UPPER,
	};

	for (size_t i = 0; i < sizeof styles / sizeof *styles; i++) {
		size_t n = 0, used;

		for (size_t k = 0; k < length; k += used)
			n += json_one(s->buffer + n, bytes + k, length - k, &used, styles[i]);
		if (!take(s, n))
			return false;
	}
	return true;
}

static bool
spell_shell(const struct speller *s, const unsigned char *bytes, size_t length)
{
	static const struct { const char *what, *before, *after; } styles[] = {
		{ "'", "'\\", "'" },			/* '…'\''…' */
		{ "'", "'\"", "\"'" },			/* '…'"'"'…' */
		{ "\"$`\\", "\\", "" },			/* "…\$…" */
		{ " \t!\"#$&'()*,;<>?[\\]^`{|}~", "\\", "" },	/* printf %q */
		{ "'\\", "\\", "" },			/* $'…\'…' */
	};

	for (size_t i = 0; i < sizeof styles / sizeof *styles; i++) {
		unsigned char *out = s->buffer;

		for (size_t k = 0; k < length; k++) {
			bool special = bytes[k] != 0 && strchr(styles[i].what, bytes[k]) != NULL;

			if (special)
				out = (unsigned char *)stpcpy((char *)out, styles[i].before);
			*out++ = bytes[k];
			if (special)
				out = (unsigned char *)stpcpy((char *)out, styles[i].after);
		}
		if (!take(s, (size_t)(out - s->buffer)))
			return false;
	}
	return true;
}

/* A key is printed line by line.  Its "-----BEGIN" lines are no secret. */
static bool
spell_lines(const struct speller *s, const unsigned char *bytes, size_t length)
{
	const unsigned char *end = bytes + length, *line = bytes;

	if (memchr(bytes, '\n', length) == NULL)
		return true;
	while (line < end) {
		const unsigned char *stop = memchr(line, '\n', (size_t)(end - line));
		size_t n = (size_t)((stop != NULL ? stop : end) - line);

		if (n > 0 && line[n - 1] == '\r')
			n--;
		if (n >= SHORTEST_LINE && memcmp(line, "-----", 5) != 0 && !s->take(s->arg, line, n))
			return false;
		line = stop != NULL ? stop + 1 : end;
	}
	return true;
}

bool
redact_spell(const unsigned char *bytes, size_t length,
             bool (*take_spelling)(void *arg, const unsigned char *bytes, size_t length), void *arg)
{
	struct speller s = { .take = take_spelling, .arg = arg };
	size_t size = LONGEST_BYTE * length + 16;
	bool ok;

	if (length > SIZE_MAX / 2 / LONGEST_BYTE || (s.buffer = malloc(size)) == NULL)
		return false;
	ok = s.take(arg, bytes, length) && spell_lines(&s, bytes, length) &&
	     spell_base64(&s, bytes, length) && spell_percent(&s, bytes, length) &&
	     spell_json(&s, bytes, length) && spell_shell(&s, bytes, length);
	explicit_bzero(s.buffer, size);
	free(s.buffer);
	return ok;
}
