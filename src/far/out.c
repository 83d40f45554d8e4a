#include "far.h"

#include <errno.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#define KEPT ((size_t)64 << 10)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct buffer waiting;
static bool stays;
static _Atomic bool gone;

void
out_stay(void)
{
	stays = true;
}

bool
out_is_gone(void)
{
	return gone;
}

static void
write_locked(const struct buffer *b)
{
	if (b->failed)
		far_die(EX_OSERR, "out of memory");
	if (b->length == 0 || gone || write_all(STDOUT_FILENO, b->bytes, b->length))
		return;
	if (!stays)
		far_die(EX_IOERR, "the other end is gone: %s", strerror(errno));
	gone = true;
}

static void
flush_locked(void)
{
	write_locked(&waiting);
	waiting.length = 0;
}

void
out_put(const struct buffer *frames)
{
	pthread_mutex_lock(&lock);
	if (frames->failed || frames->length >= KEPT) {
		flush_locked();
		write_locked(frames);
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
	pthread_mutex_lock(&lock);
	if (payload->failed || payload->length >= KEPT) {
		put_byte(&waiting, type);
		put_number(&waiting, payload->length);
		flush_locked();
		write_locked(payload);
	} else {
		put_frame(&waiting, type, payload);
		if (waiting.length >= KEPT)
			flush_locked();
	}
	pthread_mutex_unlock(&lock);
}

void
out_flush(void)
{
	pthread_mutex_lock(&lock);
	flush_locked();
	pthread_mutex_unlock(&lock);
}
