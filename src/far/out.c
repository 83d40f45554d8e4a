#include "far.h"

#include <errno.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#define KEPT ((size_t)64 << 10)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct buffer waiting;

static void
flush_locked(void)
{
	if (waiting.failed)
		far_die(EX_OSERR, "out of memory");
	if (waiting.length && !write_all(STDOUT_FILENO, waiting.bytes, waiting.length))
		far_die(EX_IOERR, "the other end is gone: %s", strerror(errno));
	waiting.length = 0;
}

void
out_put(const struct buffer *frames)
{
	if (frames->failed)
		far_die(EX_OSERR, "out of memory");
	pthread_mutex_lock(&lock);
	if (frames->length >= KEPT) {
		flush_locked();
		if (!write_all(STDOUT_FILENO, frames->bytes, frames->length))
			far_die(EX_IOERR, "the other end is gone: %s", strerror(errno));
	} else {
		put_bytes(&waiting, frames->bytes, frames->length);
		if (waiting.length >= KEPT)
			flush_locked();
	}
	pthread_mutex_unlock(&lock);
}

void
out_frame(unsigned char type, const struct buffer *payload)
{
	struct buffer whole = { 0 };
	put_frame(&whole, type, payload);
	out_put(&whole);
	buffer_free(&whole);
}

void
out_flush(void)
{
	pthread_mutex_lock(&lock);
	flush_locked();
	pthread_mutex_unlock(&lock);
}
