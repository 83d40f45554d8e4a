/*
 * stream.h - bytes in, bytes out, on the event loop.  Knows nothing of Lua.
 *
 * ssh channels, pipes, sockets, files and websockets are streams.  Nothing here blocks: read and
 * write do what they can now, and stream_when asks to be told when more can be done.
 */
#ifndef RUNBOOK_STREAM_H
#define RUNBOOK_STREAM_H

#include <stddef.h>
#include <sys/types.h>

#include <uv.h>

#define STREAM_END    0		/* read: the other side has half-closed */
#define STREAM_AGAIN  (-1)	/* nothing now; ask stream_when */
#define STREAM_FAILED (-2)	/* see code and message */

enum stream_direction { STREAM_READ, STREAM_WRITE };

struct stream;

struct stream_ops {
	const char *kind;	/* "ssh channel", "pipe": for messages */
	ssize_t (*read)(struct stream *s, void *buffer, size_t length);
	ssize_t (*write)(struct stream *s, const void *buffer, size_t length);
	/* No more will be written.  NULL where the stream cannot (say so with "ENOTSUP"). */
	int (*half_close)(struct stream *s);
	/* Call ready(arg) once, from the loop, when that direction may get on; NULL takes it back. */
	void (*when)(struct stream *s, enum stream_direction d, void (*ready)(void *arg), void *arg);
	/* At once; frees s.  Callbacks that were asked for do not come any more. */
	void (*close)(struct stream *s);
	/* The descriptor under it, or -1 (NULL: -1). */
	int (*descriptor)(struct stream *s);
};

struct stream {
	const struct stream_ops *ops;
	const char *code;	/* "ECONNRESET"; NULL while all is well */
	char message[160];
};

/* A stream over a descriptor of ours (socket, pipe, tty); owns it and closes it.  NULL: out of memory. */
struct stream *stream_of_descriptor(uv_loop_t *loop, int fd, const char *kind);

/* Remembers why the stream failed and returns STREAM_FAILED.  code must be static. */
ssize_t stream_fail(struct stream *s, const char *code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Copies from one stream to another until the end of `from` or a failure, with at most 256 KiB in
 * flight, then half-closes `to` where it can.  Calls done(arg) once, from the loop.  Neither stream is closed.
 */
struct stream_pump;
struct stream_pump *stream_pump_start(uv_loop_t *loop, struct stream *from, struct stream *to,
                                      void (*done)(void *arg), void *arg);
/* NULL while it runs well or ended well; else the stream that failed. */
struct stream *stream_pump_failed(const struct stream_pump *p);
unsigned long long stream_pump_bytes(const struct stream_pump *p);
void stream_pump_free(struct stream_pump *p);	/* also stops it; done is not called after this */

#endif
