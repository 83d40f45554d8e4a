/*
 * fuzz/websocket.c - libFuzzer target for what a server says: the answer to our request, and frames after it.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -iquote src spec/fuzz/websocket.c \
 *         src/websocket_handshake.c src/websocket_wire.c src/bytes.c src/digest.c -lwslay -lcrypto -luv -o build/fuzz-websocket
 *     build/fuzz-websocket -max_total_time=60 -max_len=20000
 *
 * The input: a byte whose lowest bit says whether an answer or frames come, the next whether frames have channels; a byte
 * that says into how many pieces what follows is cut.  Frames go to two inputs, of which one ends at a mark; what is read
 * of it never holds the mark, and what came in pieces is what comes at once (up to where it fails: text is judged by the piece).
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/stream.h"
#include "../../src/websocket_handshake.h"
#include "../../src/websocket_wire.h"

#define MARK "<end>"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct feed {
	const uint8_t *data;
	size_t size, at, piece, allowed;
	size_t written;
};

static ssize_t
feed_read(void *arg, void *buffer, size_t length)
{
	struct feed *f = arg;

	if (f->at == f->size)
		return STREAM_END;
	if (f->allowed == 0)
		return STREAM_AGAIN;
	if (length > f->allowed)
		length = f->allowed;
	if (length > f->size - f->at)
		length = f->size - f->at;
	memcpy(buffer, f->data + f->at, length);
	f->at += length;
	f->allowed -= length;
	return (ssize_t)length;
}

static ssize_t
feed_write(void *arg, const void *buffer, size_t length)
{
	struct feed *f = arg;

	(void)buffer;
	if (f->written++ % 3 == 2)
		return STREAM_AGAIN;
	return (ssize_t)length;
}

static void
drain(struct websocket_input *i, struct bytes *to, bool over)
{
	size_t n = websocket_input_length(i, over);

	if (n > 0 && !bytes_append(to, bytes_first(&i->in), n))
		abort();
	websocket_input_used(i, n);
}

/* Did it end well? */
static bool
read_frames(const uint8_t *data, size_t size, size_t piece, bool channels, struct bytes to[2])
{
	static const struct websocket_io io = { feed_read, feed_write };
	struct feed f = { .data = data, .size = size, .piece = piece };
	struct websocket_input inputs[2] = { { .channel = 1 }, { .channel = 2, .mark = MARK, .mark_length = strlen(MARK) } };
	struct websocket_wire *w = websocket_wire_new(&io, &f, channels);
	enum websocket_in in = WEBSOCKET_WAIT;
	const char *reason;
	bool well;

	if (w == NULL)
		abort();
	websocket_wire_want(w, &inputs[0]);
	websocket_wire_want(w, &inputs[1]);
	for (size_t turns = 0; in != WEBSOCKET_OVER && turns <= size * 4 + 16; turns++) {
		f.allowed = f.piece;
		in = websocket_wire_in(w);
		websocket_wire_out(w);
		drain(&inputs[0], &to[0], in == WEBSOCKET_OVER);
		drain(&inputs[1], &to[1], in == WEBSOCKET_OVER);
	}
	if (in != WEBSOCKET_OVER || strlen(websocket_wire_failure(w)->message) > 159)
		abort();
	websocket_wire_closed(w, &reason);
	if (strlen(reason) > 123)
		abort();
	if (bytes_length(&to[1]) > 0 && memmem(bytes_first(&to[1]), bytes_length(&to[1]), MARK, strlen(MARK)) != NULL)
		abort();
	websocket_wire_unwant(w, &inputs[0]);
	websocket_wire_unwant(w, &inputs[1]);
	bytes_free(&inputs[0].in);
	bytes_free(&inputs[1].in);
	well = websocket_wire_failure(w)->code == NULL;
	websocket_wire_free(w);
	return well;
}

static void
frames(const uint8_t *data, size_t size, size_t piece, bool channels)
{
	struct bytes pieces[2] = { { 0 } }, whole[2] = { { 0 } };
	bool well = read_frames(data, size, piece, channels, pieces);
	bool also = read_frames(data, size, SIZE_MAX, channels, whole);

	if (well != also)
		abort();
	for (int i = 0; i < 2; i++) {
		size_t a = bytes_length(&pieces[i]), b = bytes_length(&whole[i]), both = a < b ? a : b;

		if ((well && a != b) || (both > 0 && memcmp(bytes_first(&pieces[i]), bytes_first(&whole[i]), both) != 0))
			abort();
		bytes_free(&pieces[i]);
		bytes_free(&whole[i]);
	}
}

static void
answer(const uint8_t *data, size_t size, size_t piece)
{
	static const char *const protocols[] = { "v5.channel.k8s.io", "v4.channel.k8s.io", NULL };
	struct bytes request = { 0 }, in = { 0 };
	struct handshake h;
	enum handshake_answer a = HANDSHAKE_MORE;

	if (!handshake_init(&h, "https://host:1/path?query", NULL, protocols, &request))
		abort();
	memcpy(h.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", sizeof h.accept);	/* one that a corpus can have */
	for (size_t at = 0; a == HANDSHAKE_MORE; at += piece) {
		size_t n = at < size ? (size - at < piece ? size - at : piece) : 0;

		if (!bytes_append(&in, data + at, n))
			abort();
		a = handshake_read(&h, &in, n == 0);
	}
	if (bytes_length(&h.body) > HANDSHAKE_BODY_MAX || (a == HANDSHAKE_WRONG) != (h.problem != NULL))
		abort();
	handshake_fini(&h);
	bytes_free(&request);
	bytes_free(&in);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	if (data[0] & 1)
		frames(data + 2, size - 2, (size_t)data[1] + 1, (data[0] & 2) != 0);
	else
		answer(data + 2, size - 2, (size_t)data[1] + 1);
	return 0;
}
