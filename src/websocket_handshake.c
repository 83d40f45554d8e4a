/* websocket_handshake.c - see websocket_handshake.h. */
#include "websocket_handshake.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "digest.h"

#define HEAD_MAX ((size_t)64 << 10)

static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";	/* RFC 6455 has it so */

/* ---- what we say ---- */

static bool
make_key(struct handshake *h)
{
	unsigned char raw[16], hash[DIGEST_LONGEST];
	char both[24 + sizeof guid];

	if (!digest_random(raw, sizeof raw))
		return false;
	digest_base64(raw, sizeof raw, h->key);
	memcpy(both, h->key, 24);
	memcpy(both + 24, guid, sizeof guid);
	digest_base64(hash, digest_of("sha1", both, strlen(both), hash), h->accept);
	return true;
}

static bool
join_protocols(struct handshake *h, const char *const *protocols)
{
	struct bytes all = { 0 };
	bool ok = true;

	if (protocols == NULL || *protocols == NULL)
		return true;
	for (const char *const *p = protocols; *p != NULL; p++)
		ok = (p == protocols || bytes_append(&all, ", ", 2)) && bytes_append(&all, *p, strlen(*p)) && ok;
	ok = bytes_append(&all, "", 1) && ok;
	h->protocols = ok ? strdup(bytes_first(&all)) : NULL;
	bytes_free(&all);
	return h->protocols != NULL;
}

static bool
add(struct bytes *b, const char *text)
{
	return bytes_append(b, text, strlen(text));
}

static bool
add_line(struct bytes *b, const char *name, const char *value)
{
	return add(b, name) && add(b, ": ") && add(b, value) && add(b, "\r\n");
}

/* The parts of a URL: "host:port", and the path with its query, which may be empty. */
static bool
split_url(const char *url, const char **host, size_t *host_length, const char **path)
{
	const char *start = strstr(url, "://");

	if (start == NULL)
		return false;
	*host = start + 3;
	*host_length = strcspn(*host, "/?#");
	*path = *host + *host_length;
	return *host_length > 0 && memchr(*host, '@', *host_length) == NULL;
}

static bool
has_host(const char *const *headers)
{
	for (; headers != NULL && *headers != NULL; headers++)
		if (strncasecmp(*headers, "Host:", 5) == 0)
			return true;
	return false;
}

/* "Name: value", or "Name;" when the value is empty, as libcurl wants it. */
static bool
add_header(struct bytes *b, const char *line)
{
	size_t length = strlen(line);

	if (strchr(line, ':') == NULL && length > 0 && line[length - 1] == ';')
		return bytes_append(b, line, length - 1) && add(b, ":\r\n");
	return bytes_append(b, line, length) && add(b, "\r\n");
}

bool
handshake_init(struct handshake *h, const char *url, const char *const *headers, const char *const *protocols,
               struct bytes *request)
{
	const char *host, *path;
	size_t host_length;
	bool ok;

	*h = (struct handshake){ .body_expected = -1 };
	if (!split_url(url, &host, &host_length, &path) || !make_key(h) || !join_protocols(h, protocols))
		return false;
	ok = add(request, "GET ") && (*path == '/' || add(request, "/")) && bytes_append(request, path, strcspn(path, "#")) &&
	     add(request, " HTTP/1.1\r\n") &&
	     (has_host(headers) || (add(request, "Host: ") && bytes_append(request, host, host_length) && add(request, "\r\n"))) &&
	     add_line(request, "Connection", "Upgrade") && add_line(request, "Upgrade", "websocket") &&
	     add_line(request, "Sec-WebSocket-Version", "13") && add_line(request, "Sec-WebSocket-Key", h->key) &&
	     (h->protocols == NULL || add_line(request, "Sec-WebSocket-Protocol", h->protocols)) &&
	     add_line(request, "User-Agent", "runbook");
	for (; ok && headers != NULL && *headers != NULL; headers++)
		ok = add_header(request, *headers);
	return ok && add(request, "\r\n");
}

void
handshake_fini(struct handshake *h)
{
	free(h->protocols);
	free(h->protocol);
	free(h->head);
	bytes_free(&h->body);
}

/* ---- what the server says ---- */

static enum handshake_answer
wrong(struct handshake *h, const char *problem)
{
	h->problem = problem;
	return HANDSHAKE_WRONG;
}

/* The value of a header in the head, without blanks around it; NULL when there is none. */
static const char *
header(const struct handshake *h, const char *name, size_t *length)
{
	size_t n = strlen(name);

	for (const char *line = h->head, *next; *line != '\0'; line = next) {
		const char *end = line + strcspn(line, "\r\n");

		next = end + strspn(end, "\r\n");
		if ((size_t)(end - line) <= n || strncasecmp(line, name, n) != 0 || line[n] != ':')
			continue;
		for (line += n + 1; line < end && (*line == ' ' || *line == '\t'); line++)
			;
		while (end > line && (end[-1] == ' ' || end[-1] == '\t'))
			end--;
		*length = (size_t)(end - line);
		return line;
	}
	return NULL;
}

static bool
header_is(const struct handshake *h, const char *name, const char *value)
{
	size_t length;
	const char *found = header(h, name, &length);

	return found != NULL && length == strlen(value) && strncasecmp(found, value, length) == 0;
}

/* Is the word in a list with commas? */
static bool
lists(const char *list, size_t length, const char *word, size_t word_length)
{
	for (const char *end = list + length, *next; list < end; list = next) {
		const char *stop = memchr(list, ',', (size_t)(end - list));

		if (stop == NULL)
			stop = end;
		next = stop < end ? stop + 1 : end;
		while (list < stop && (*list == ' ' || *list == '\t'))
			list++;
		while (stop > list && (stop[-1] == ' ' || stop[-1] == '\t'))
			stop--;
		if ((size_t)(stop - list) == word_length && strncasecmp(list, word, word_length) == 0)
			return true;
	}
	return false;
}

static enum handshake_answer
agree(struct handshake *h)
{
	size_t length;
	const char *value;

	if (!header_is(h, "Upgrade", "websocket") || (value = header(h, "Connection", &length)) == NULL ||
	    !lists(value, length, "upgrade", 7))
		return wrong(h, "the server answers 101 and does not speak websocket");
	value = header(h, "Sec-WebSocket-Accept", &length);
	if (value == NULL || length != strlen(h->accept) || memcmp(value, h->accept, length) != 0)
		return wrong(h, "the server's answer is not one to our request: its Sec-WebSocket-Accept is another");
	if (header(h, "Sec-WebSocket-Extensions", &length) != NULL)
		return wrong(h, "the server wants an extension that we did not offer");
	value = header(h, "Sec-WebSocket-Protocol", &length);
	if (value == NULL)
		return HANDSHAKE_AGREED;
	if (h->protocols == NULL || !lists(h->protocols, strlen(h->protocols), value, length))
		return wrong(h, "the server chose a subprotocol that we did not offer");
	h->protocol = strndup(value, length);
	return h->protocol != NULL ? HANDSHAKE_AGREED : wrong(h, "out of memory");
}

/* "HTTP/1.1 101 Switching Protocols\r\n..." */
static long
status_of(const char *line, size_t length)
{
	long status = 0;

	if (length < 12 || memcmp(line, "HTTP/1.", 7) != 0 || line[8] != ' ')
		return 0;
	for (int i = 9; i < 12; i++) {
		if (!isdigit((unsigned char)line[i]))
			return 0;
		status = status * 10 + (line[i] - '0');
	}
	return status;
}

static enum handshake_answer
take_head(struct handshake *h, struct bytes *in, size_t all)
{
	const char *first = bytes_first(in), *line = (const char *)memchr(first, '\n', all) + 1;
	const char *value;
	size_t length;

	h->head_length = all - 2 - (size_t)(line - first);
	h->head = strndup(line, h->head_length);
	if (h->head == NULL)
		return wrong(h, "out of memory");
	h->head_read = true;
	bytes_used(in, all);
	if ((value = header(h, "Transfer-Encoding", &length)) != NULL)
		h->chunked = lists(value, length, "chunked", 7);
	else if ((value = header(h, "Content-Length", &length)) != NULL)
		h->body_expected = strtoll(value, NULL, 10);
	return HANDSHAKE_MORE;
}

/* Takes the status line and the headers, of the answer that counts: those with 1xx only announce it. */
static enum handshake_answer
read_head(struct handshake *h, struct bytes *in)
{
	for (;;) {
		const char *first = bytes_first(in), *end;
		size_t n = bytes_length(in), all;

		end = n < 4 ? NULL : memmem(first, n, "\r\n\r\n", 4);
		if (end == NULL)
			return n > HEAD_MAX ? wrong(h, "the server's answer has more than 64 KiB of headers") : HANDSHAKE_MORE;
		all = (size_t)(end + 4 - first);
		h->status = status_of(first, all);
		if (h->status < 100 || memchr(first, '\0', all) != NULL)
			return wrong(h, "what answers does not speak HTTP/1.1");
		if (h->status >= 200 || h->status == 101)
			return take_head(h, in, all);
		bytes_used(in, all);
	}
}

static bool
body_full(const struct handshake *h)
{
	return bytes_length(&h->body) >= HANDSHAKE_BODY_MAX ||
	       (h->body_expected >= 0 && bytes_length(&h->body) >= (size_t)h->body_expected);
}

static bool
keep(struct handshake *h, struct bytes *in, size_t length)
{
	size_t room = HANDSHAKE_BODY_MAX - bytes_length(&h->body);

	if (!bytes_append(&h->body, bytes_first(in), length < room ? length : room))
		return false;
	bytes_used(in, length);
	return true;
}

/* Whole chunks.  True when the body is over: the last one, enough, or nonsense. */
static bool
read_chunks(struct handshake *h, struct bytes *in)
{
	for (;;) {
		const char *first = bytes_first(in), *line;
		size_t n = bytes_length(in);
		unsigned long length;

		line = n == 0 ? NULL : memchr(first, '\n', n);
		if (line == NULL)
			return n > 64;
		if (!isxdigit((unsigned char)*first))
			return true;
		length = strtoul(first, NULL, 16);		/* ends at the newline at the latest */
		if (length == 0 || length > HANDSHAKE_BODY_MAX || body_full(h))
			return true;
		if (n - (size_t)(line + 1 - first) < length + 2)
			return false;
		bytes_used(in, (size_t)(line + 1 - first));
		if (!keep(h, in, length))
			return true;
		bytes_used(in, 2);
	}
}

static enum handshake_answer
read_body(struct handshake *h, struct bytes *in, bool ended)
{
	bool over = h->chunked ? read_chunks(h, in) : bytes_length(in) > 0 && !keep(h, in, bytes_length(in));

	return over || ended || body_full(h) ? HANDSHAKE_REFUSED : HANDSHAKE_MORE;
}

enum handshake_answer
handshake_read(struct handshake *h, struct bytes *in, bool ended)
{
	if (!h->head_read) {
		if (read_head(h, in) == HANDSHAKE_WRONG)
			return HANDSHAKE_WRONG;
		if (!h->head_read)
			return ended ? wrong(h, "the server hung up without an answer") : HANDSHAKE_MORE;
		if (h->status == 101)
			return agree(h);
	}
	return read_body(h, in, ended);
}
