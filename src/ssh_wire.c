/* ssh_wire.c - the socket under an ssh session, between libssh2 and the kernel. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "ssh_wire.h"

#define PLENTY ((size_t)-1)
#define SLICE_MS 200

/*
 * sshd waits for our acknowledgement before it sends the next small packet (Nagle), and our kernel
 * delays acknowledgements: during set-up that costs 40 ms, unless each read asks again not to.
 */
static void
hurry(struct wire *w)
{
	int on = 1;

	if (w->eager <= 0)
		return;
	w->eager--;
	setsockopt(w->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

static LIBSSH2_RECV_FUNC(wire_recv)
{
	struct wire *w = *abstract;
	ssize_t n;

	(void)socket;
	if (w->dry || w->ration == 0 || w->ended)
		return -EAGAIN;
	if (w->fd < 0)
		return -ENOTCONN;
	if (length > w->ration)
		length = w->ration;
	do
		n = recv(w->fd, buffer, length, flags);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		w->received += (uint64_t)n;
		w->ration -= w->ration == PLENTY ? 0 : (size_t)n;
		hurry(w);
		return n;
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		w->dry = true;
		return -EAGAIN;
	}
	w->error = n == 0 ? 0 : errno;
	w->ended = w->patient;
	if (w->patient)
		return -EAGAIN;
	return n == 0 ? 0 : -errno;
}

static LIBSSH2_SEND_FUNC(wire_send)
{
	struct wire *w = *abstract;

	(void)socket;
	(void)flags;
	if (w->fd < 0)
		return -EPIPE;
	if (!bytes_append(&w->out, buffer, length))
		return -ENOMEM;
	/* A turn sends once, at its end: requests that go together share a segment. */
	if (!w->patient && wire_flush(w) != 0)
		return -w->error;
	return (ssize_t)length;
}

static LIBSSH2_DISCONNECT_FUNC(wire_disconnected)
{
	struct wire *w = *abstract;

	(void)session;
	(void)reason;
	(void)language;
	(void)language_len;
	if (message_len > 0)
		snprintf(w->reason, sizeof w->reason, "%.*s", message_len, message);
}

struct wire *
wire_new(int fd)
{
	struct wire *w = calloc(1, sizeof *w);

	if (w == NULL)
		return NULL;
	w->fd = fd;
	w->ration = PLENTY;
	w->eager = WIRE_EAGER_READS;
	return w;
}

void
wire_shut(struct wire *w)
{
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
	w->patient = w->dry = w->ended = false;
	w->ration = PLENTY;
}

void
wire_free(struct wire *w)
{
	if (w == NULL)
		return;
	wire_shut(w);
	bytes_free(&w->out);
	free(w);
}

typedef void (*any_callback)(void);

LIBSSH2_SESSION *
wire_session(struct wire *w)
{
	LIBSSH2_SESSION *lib = libssh2_session_init_ex(NULL, NULL, NULL, w);

	if (lib == NULL)
		return NULL;
	libssh2_session_set_blocking(lib, 0);
	libssh2_session_callback_set2(lib, LIBSSH2_CALLBACK_RECV, (any_callback)wire_recv);
	libssh2_session_callback_set2(lib, LIBSSH2_CALLBACK_SEND, (any_callback)wire_send);
	libssh2_session_callback_set2(lib, LIBSSH2_CALLBACK_DISCONNECT, (any_callback)wire_disconnected);
	/* Deadlines are ours: libssh2 would give up a request after a minute and lose count of the replies. */
	libssh2_session_set_read_timeout(lib, INT_MAX);
	return lib;
}

int
wire_flush(struct wire *w)
{
	while (bytes_length(&w->out) > 0) {
		ssize_t n = send(w->fd, bytes_first(&w->out), bytes_length(&w->out), MSG_NOSIGNAL);

		if (n > 0) {
			bytes_used(&w->out, (size_t)n);
		} else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			return 0;
		} else if (n < 0 && errno != EINTR) {
			w->error = errno;
			return -1;
		}
	}
	return 0;
}

size_t
wire_pending(const struct wire *w)
{
	return bytes_length(&w->out);
}

uint64_t
wire_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/*
 * What is unwanted still gets a slice of time for what is under way: libssh2 loses memory when it is
 * stopped between two messages that servers send together.
 */
int
wire_wait(struct wire *w, uint64_t deadline_ms)
{
	struct pollfd p = { .fd = w->fd, .events = POLLIN };
	uint64_t now;
	int n = 0;

	if (wire_pending(w) > 0)
		p.events |= POLLOUT;
	while (n == 0) {
		if ((now = wire_now_ms()) >= deadline_ms)
			return ETIMEDOUT;
		n = poll(&p, 1, deadline_ms - now < SLICE_MS ? (int)(deadline_ms - now) : SLICE_MS);
		if (n < 0 && errno != EINTR)
			return errno;
		if (n == 0 && atomic_load(&w->unwanted))
			return ECANCELED;
	}
	w->dry = false;
	return wire_flush(w) != 0 ? w->error : 0;
}
