/*
 * listen.c - a TCP socket of this machine that listens.
 *
 * It is polled only while somebody waits: further connections stay in the kernel's queue.
 */
#include "listen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

struct socket_listener {
	struct listener base;
	uv_poll_t poll;
	int fd;
	void (*accepted)(void *arg, struct stream *s);	/* NULL: nobody waits */
	void *arg;
};

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* 0, or a negative libuv error. */
static int
parse_address(const char *host, int port, union address *a, socklen_t *length)
{
	memset(a, 0, sizeof *a);
	*length = sizeof a->v4;
	if (uv_ip4_addr(host, port, &a->v4) == 0)
		return 0;
	*length = sizeof a->v6;
	return uv_ip6_addr(host, port, &a->v6);
}

/* The port that was bound, or a negative libuv error. */
static int
bind_and_listen(int fd, const union address *a, socklen_t length)
{
	union address bound;
	int yes = 1;

	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 || bind(fd, &a->any, length) < 0 ||
	    listen(fd, SOMAXCONN) < 0)
		return uv_translate_sys_error(errno);
	length = sizeof bound;
	if (getsockname(fd, &bound.any, &length) < 0)
		return uv_translate_sys_error(errno);
	return ntohs(bound.any.sa_family == AF_INET ? bound.v4.sin_port : bound.v6.sin6_port);
}

/* The wish is over before it is answered: whoever is called may have another, or close. */
static void
answer(struct socket_listener *l, struct stream *s)
{
	void (*accepted)(void *, struct stream *) = l->accepted;

	uv_poll_stop(&l->poll);
	l->accepted = NULL;
	accepted(l->arg, s);
}

static void
answer_failure(struct socket_listener *l, int error)
{
	l->base.code = uv_err_name(error);
	snprintf(l->base.message, sizeof l->base.message, "taking a connection: %s", uv_strerror(error));
	answer(l, NULL);
}

/* Small pieces go on at once: what is asked of whom is not ours to know. */
static void
answer_with(struct socket_listener *l, int fd)
{
	struct stream *s = stream_of_descriptor(l->poll.loop, fd, "connection");
	int yes = 1;

	if (s == NULL) {
		close(fd);
		answer_failure(l, UV_ENOMEM);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
	l->base.code = NULL;
	answer(l, s);
}

/* A connection that was given up while it waited is none; the next one counts. */
static void
polled(uv_poll_t *poll, int status, int events)
{
	struct socket_listener *l = poll->data;
	int fd;

	(void)status;	/* accept will say it better */
	(void)events;
	fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		answer_with(l, fd);
	else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR && errno != ECONNABORTED)
		answer_failure(l, uv_translate_sys_error(errno));
}

static void
socket_accept(struct listener *base, void (*accepted)(void *arg, struct stream *s), void *arg)
{
	struct socket_listener *l = (struct socket_listener *)base;

	l->accepted = accepted;
	l->arg = arg;
	if (accepted == NULL) {
		uv_poll_stop(&l->poll);
		return;
	}
	uv_poll_start(&l->poll, UV_READABLE, polled);
}

static void
closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void
socket_close(struct listener *base)
{
	struct socket_listener *l = (struct socket_listener *)base;

	uv_poll_stop(&l->poll);
	close(l->fd);
	uv_close((uv_handle_t *)&l->poll, closed);
}

static const struct listener_ops ops = { .accept = socket_accept, .close = socket_close };

/* A listener around a socket that listens; 0, or a negative libuv error. */
static int
wrap(uv_loop_t *loop, int fd, int port, struct socket_listener **out)
{
	struct socket_listener *l = calloc(1, sizeof *l);
	int error;

	if (l == NULL)
		return UV_ENOMEM;
	error = uv_poll_init(loop, &l->poll, fd);
	if (error != 0) {
		free(l);
		return error;
	}
	l->base.ops = &ops;
	l->base.port = port;
	l->poll.data = l;
	l->fd = fd;
	*out = l;
	return 0;
}

struct listener *
listener_open(uv_loop_t *loop, const char *host, int port, int *error)
{
	struct socket_listener *l = NULL;
	union address a;
	socklen_t length;
	int fd;

	if ((*error = parse_address(host, port, &a, &length)) != 0)
		return NULL;
	fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		*error = uv_translate_sys_error(errno);
		return NULL;
	}
	*error = bind_and_listen(fd, &a, length);
	if (*error > 0)
		*error = wrap(loop, fd, *error, &l);
	if (l == NULL) {
		close(fd);
		return NULL;
	}
	return &l->base;
}
