/*
 * known_hosts.c - what known_hosts files say about one server.
 *
 * Every line is judged against the server's name at once and forgotten unless it matches, so that
 * a file of a hundred thousand hashed hosts costs no memory.
 */
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "known_hosts.h"

#define SHA1_LENGTH 20
#define NAME_MAX_LENGTH 512
#define FILE_MAX_LENGTH (64 * 1024 * 1024)

enum marker { MARKER_NONE, MARKER_REVOKED, MARKER_CA };

struct entry {
	struct entry *next;
	enum marker marker;
	bool exact;		/* names our port too; else only the host, which ssh accepts for a match */
	char *type, *file;
	unsigned char *key;
	size_t length;
	unsigned line;
};

struct known_hosts {
	char name[NAME_MAX_LENGTH];	/* as the files write it: host or [host]:port */
	char host[NAME_MAX_LENGTH];	/* without the port; empty where that is the same */
	struct entry *first, **last;
};

/* A piece of the text; the text itself is never changed. */
struct span {
	const char *start;
	size_t length;
};

struct known_hosts *
known_hosts_new(const char *host, int port)
{
	struct known_hosts *k = calloc(1, sizeof *k);

	if (k == NULL)
		return NULL;
	k->last = &k->first;
	if (port == 22) {
		snprintf(k->name, sizeof k->name, "%s", host);
	} else {
		snprintf(k->name, sizeof k->name, "[%.480s]:%d", host, port);
		snprintf(k->host, sizeof k->host, "%s", host);
	}
	return k;
}

static void
entry_free(struct entry *e)
{
	free(e->type);
	free(e->file);
	free(e->key);
	free(e);
}

void
known_hosts_free(struct known_hosts *k)
{
	if (k == NULL)
		return;
	while (k->first != NULL) {
		struct entry *e = k->first;

		k->first = e->next;
		entry_free(e);
	}
	free(k);
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* The next word of the line, which moves behind it; empty at the end. */
static struct span
next_word(struct span *line)
{
	struct span word;

	while (line->length > 0 && is_blank(*line->start))
		line->start++, line->length--;
	word.start = line->start;
	while (line->length > 0 && !is_blank(*line->start))
		line->start++, line->length--;
	word.length = (size_t)(line->start - word.start);
	return word;
}

static bool
span_is(struct span s, const char *text)
{
	return s.length == strlen(text) && memcmp(s.start, text, s.length) == 0;
}

/* `*` and `?`, without case.  Backs up to the last star only, so it takes length times length at most. */
static bool
pattern_matches(struct span pattern, const char *name)
{
	size_t p = 0, star = 0;
	const char *retry = NULL;

	for (;;) {
		char c = p < pattern.length ? pattern.start[p] : '\0';

		if (c == '*') {
			star = ++p;
			retry = name;
		} else if (*name == '\0') {
			return p == pattern.length;
		} else if (p < pattern.length &&
		           (c == '?' || tolower((unsigned char)c) == tolower((unsigned char)*name))) {
			p++;
			name++;
		} else if (retry != NULL) {
			p = star;
			name = ++retry;
		} else {
			return false;
		}
	}
}

/* A list of patterns: one that matches behind a `!` makes the whole line not ours. */
static bool
list_matches(struct span list, const char *name)
{
	bool found = false;

	while (list.length > 0) {
		const char *comma = memchr(list.start, ',', list.length);
		struct span pattern = { list.start, comma != NULL ? (size_t)(comma - list.start) : list.length };
		size_t taken = pattern.length + (comma != NULL);
		bool negated = pattern.length > 0 && *pattern.start == '!';

		list.start += taken;
		list.length -= taken;
		if (negated)
			pattern.start++, pattern.length--;
		if (pattern.length == 0 || !pattern_matches(pattern, name))
			continue;
		if (negated)
			return false;
		found = true;
	}
	return found;
}

/* Strict base64 into fresh memory; NULL when it is not that (or memory ran out). */
static unsigned char *
decode(struct span text, size_t *length)
{
	unsigned char *out;
	int n;

	if (text.length == 0 || text.length % 4 != 0 || text.length > 1024 * 1024)
		return NULL;
	if ((out = malloc(text.length / 4 * 3)) == NULL)
		return NULL;
	n = EVP_DecodeBlock(out, (const unsigned char *)text.start, (int)text.length);
	if (n < 0) {
		free(out);
		return NULL;
	}
	for (size_t i = text.length; i > text.length - 2 && text.start[i - 1] == '='; i--)
		n--;
	*length = (size_t)n;
	return out;
}

/* |1|salt|hash: HMAC-SHA1 of the name under the salt. */
static bool
hash_matches(struct span word, const char *name)
{
	const char *bar = memchr(word.start + 3, '|', word.length - 3);
	unsigned char *salt = NULL, *hash = NULL, ours[EVP_MAX_MD_SIZE];
	size_t salt_length, hash_length;
	unsigned ours_length = 0;
	bool same = false;

	if (bar == NULL)
		return false;
	salt = decode((struct span){ word.start + 3, (size_t)(bar - word.start - 3) }, &salt_length);
	hash = decode((struct span){ bar + 1, word.length - (size_t)(bar + 1 - word.start) }, &hash_length);
	if (salt != NULL && hash != NULL && hash_length == SHA1_LENGTH &&
	    HMAC(EVP_sha1(), salt, (int)salt_length, (const unsigned char *)name, strlen(name), ours,
	         &ours_length) != NULL)
		same = ours_length == SHA1_LENGTH && CRYPTO_memcmp(ours, hash, SHA1_LENGTH) == 0;
	free(salt);
	free(hash);
	return same;
}

static bool
hosts_match(struct span word, const char *name)
{
	if (*name == '\0')
		return false;
	if (word.length > 3 && memcmp(word.start, "|1|", 3) == 0)
		return hash_matches(word, name);
	return list_matches(word, name);
}

/* Keeps what the line says if it is about our server.  -1: out of memory. */
static int
parse_line(struct known_hosts *k, const char *file, unsigned number, struct span line)
{
	enum marker marker = MARKER_NONE;
	struct span word = next_word(&line), type, key;
	struct entry *e;
	bool exact;

	if (word.length == 0 || *word.start == '#')
		return 0;
	if (*word.start == '@') {
		if (span_is(word, "@revoked"))
			marker = MARKER_REVOKED;
		else if (span_is(word, "@cert-authority"))
			marker = MARKER_CA;
		else
			return 0;
		word = next_word(&line);
	}
	type = next_word(&line);
	key = next_word(&line);
	if (key.length == 0)
		return 0;
	exact = hosts_match(word, k->name);
	if (!exact && !hosts_match(word, k->host))
		return 0;
	if ((e = calloc(1, sizeof *e)) == NULL)
		return -1;
	e->marker = marker;
	e->exact = exact;
	e->line = number;
	e->type = strndup(type.start, type.length);
	e->file = strdup(file);
	if (e->type == NULL || e->file == NULL) {
		entry_free(e);
		return -1;
	}
	if ((e->key = decode(key, &e->length)) == NULL) {	/* not a key (or one of protocol 1) */
		entry_free(e);
		return 0;
	}
	*k->last = e;
	k->last = &e->next;
	return 0;
}

int
known_hosts_parse(struct known_hosts *k, const char *file, const char *text, size_t length)
{
	unsigned number = 0;

	while (length > 0) {
		const char *newline = memchr(text, '\n', length);
		struct span line = { text, newline != NULL ? (size_t)(newline - text) : length };
		size_t taken = line.length + (newline != NULL);

		number++;
		text += taken;
		length -= taken;
		if (line.length > 0 && line.start[line.length - 1] == '\r')
			line.length--;
		if (parse_line(k, file, number, line) != 0)
			return -1;
	}
	return 0;
}

int
known_hosts_read(struct known_hosts *k, const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = NULL;
	size_t length = 0, capacity = 0, n;
	int error = 0;

	if (f == NULL)
		return errno == ENOENT ? 0 : errno;
	do {
		if (length == capacity) {
			char *more = capacity < FILE_MAX_LENGTH ? realloc(text, capacity = capacity * 2 + 16384) : NULL;

			if (more == NULL) {
				error = ENOMEM;
				break;
			}
			text = more;
		}
		errno = 0;
		n = fread(text + length, 1, capacity - length, f);
		length += n;
	} while (n > 0);
	if (error == 0 && ferror(f))
		error = errno != 0 ? errno : EIO;
	fclose(f);
	if (error == 0 && known_hosts_parse(k, path, text, length) != 0)
		error = ENOMEM;
	free(text);
	return error;
}

const char *
known_hosts_type(const struct known_hosts *k, size_t n)
{
	for (const struct entry *e = k->first; e != NULL; e = e->next)
		if (e->marker == MARKER_NONE && n-- == 0)
			return e->type;
	return NULL;
}

enum known_hosts_verdict
known_hosts_check(const struct known_hosts *k, const char *type, const unsigned char *key, size_t length,
                  const char **file, unsigned *line)
{
	enum known_hosts_verdict verdict = KNOWN_HOSTS_UNKNOWN;
	const struct entry *why = NULL;

	for (const struct entry *e = k->first; e != NULL; e = e->next) {
		bool same = e->length == length && memcmp(e->key, key, length) == 0;

		if (e->marker == MARKER_REVOKED && same) {
			verdict = KNOWN_HOSTS_REVOKED;
			why = e;
			break;
		}
		if (e->marker == MARKER_NONE && same && strcmp(e->type, type) == 0) {
			if (verdict != KNOWN_HOSTS_MATCH)
				why = e;
			verdict = KNOWN_HOSTS_MATCH;
		} else if (e->marker == MARKER_NONE && e->exact &&
		           (verdict == KNOWN_HOSTS_UNKNOWN || verdict == KNOWN_HOSTS_CA)) {
			verdict = KNOWN_HOSTS_CHANGED;
			why = e;
		} else if (e->marker == MARKER_CA && e->exact && verdict == KNOWN_HOSTS_UNKNOWN) {
			verdict = KNOWN_HOSTS_CA;
			why = e;
		}
	}
	*file = why != NULL ? why->file : NULL;
	*line = why != NULL ? why->line : 0;
	return verdict;
}
