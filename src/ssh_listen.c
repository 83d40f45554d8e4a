/*
 * ssh_listen.c - ports of the far side on which its ssh server listens for us.
 *
 * libssh2 keeps those who have connected; one is taken from it only when somebody waits, so that the
 * far side is refused more than BACKLOG of them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ssh_session.h"

#define BACKLOG 128

static void
fail(struct ssh_listen *l, const char *code, const char *text)
{
	if (l->base.code != NULL)
		return;
	l->base.code = code;
	snprintf(l->base.message, sizeof l->base.message, "%s", text);
}

static void
listen_accept(struct listener *base, void (*accepted)(void *arg, struct stream *s), void *arg)
{
	struct ssh_listen *l = (struct ssh_listen *)base;

	l->accepted = accepted;
	l->arg = arg;
	if (accepted != NULL)
		ssh_session_kick(l->s);
}

static void
listen_close(struct listener *base)
{
	ssh_listen_free((struct ssh_listen *)base);
}

static const struct listener_ops ops = { .accept = listen_accept, .close = listen_close };

struct ssh_listen *
ssh_listen_start(struct ssh_session *s, const char *host, int port, void (*done)(void *arg), void *arg)
{
	struct ssh_listen *l = calloc(1, sizeof *l);

	if (l == NULL || (l->host = strdup(host)) == NULL) {
		free(l);
		return NULL;
	}
	l->base.ops = &ops;
	l->base.port = port;
	l->s = s;
	l->on_open = done;
	l->open_arg = arg;
	l->next = s->listens;
	l->link = &s->listens;
	if (l->next != NULL)
		l->next->link = &l->next;
	s->listens = l;
	ssh_session_hold(s);
	if (!ssh_session_alive(s))
		fail(l, s->code, s->text);
	else if (s->kept_alive)	/* libssh2 would take the oldest of those answers for the one to this */
		fail(l, "ENOTSUP", "only a fresh ssh session can listen: this one was silent for a while");
	if (l->base.code != NULL)
		l->state = LISTEN_OVER;
	ssh_session_kick(s);
	return l;
}

const char *
ssh_listen_code(const struct ssh_listen *l)
{
	return l->base.code;
}

const char *
ssh_listen_message(const struct ssh_listen *l)
{
	return l->base.message;
}

struct listener *
ssh_listen_listener(struct ssh_listen *l)
{
	return &l->base;
}

void
ssh_listen_free(struct ssh_listen *l)
{
	if (l == NULL)
		return;
	l->unused = true;
	l->on_open = NULL;
	l->accepted = NULL;
	ssh_session_kick(l->s);
}

static void
refused(struct ssh_listen *l)
{
	char text[sizeof l->base.message];

	if (l->base.port == 0)
		snprintf(text, sizeof text, "the ssh server of %s refuses to listen on a port for us", l->s->o->host);
	else
		snprintf(text, sizeof text, "the ssh server of %s refuses to listen on port %d: it is taken there, or not "
		         "allowed", l->s->o->host, l->base.port);
	fail(l, l->base.port == 0 ? "EDENIED" : "EADDRINUSE", text);
	l->state = LISTEN_OVER;
}

static void
turn_asking(struct ssh_listen *l)
{
	struct ssh_session *s = l->s;
	int rc, bound = 0;

	s->asking = l;
	l->state = LISTEN_ASKING;
	l->lib = libssh2_channel_forward_listen_ex(s->lib, l->host, l->base.port, &bound, BACKLOG);
	rc = l->lib == NULL ? libssh2_session_last_errno(s->lib) : 0;
	if (rc == LIBSSH2_ERROR_EAGAIN)
		return;
	s->asking = NULL;
	if (l->lib != NULL) {
		l->base.port = bound;
		l->state = LISTEN_OPEN;
	} else if (rc == LIBSSH2_ERROR_REQUEST_DENIED) {
		refused(l);
	} else {
		ssh_session_broken(s, rc);
	}
	ssh_session_kick(s);	/* another may ask now, or this one is to be taken away */
}

/* Those who are still in libssh2's queue are hung up on. */
static void
turn_unused(struct ssh_listen *l)
{
	if (l->pulled != NULL && libssh2_channel_free(l->pulled) == LIBSSH2_ERROR_EAGAIN)
		return;
	l->pulled = NULL;
	if (libssh2_channel_forward_cancel(l->lib) == LIBSSH2_ERROR_EAGAIN)
		return;
	l->lib = NULL;
	l->state = LISTEN_OVER;
}

/* What it reads is for all channels: so this comes before their turns, or reads nothing. */
static void
pull(struct ssh_listen *l)
{
	if (l->lib == NULL || l->pulled != NULL)
		return;
	l->pulled = libssh2_channel_forward_accept(l->lib);
	l->s->wire->dry = true;
}

LIBSSH2_CHANNEL *
ssh_listen_pull(struct ssh_session *s)
{
	for (struct ssh_listen *l = s->listens; l != NULL; l = l->next) {
		pull(l);
		if (l->pulled != NULL)
			return l->pulled;
	}
	return NULL;
}

void
ssh_listen_turn(struct ssh_session *s)
{
	for (struct ssh_listen *l = s->listens; l != NULL && !s->over; l = l->next) {
		if (l->unused && l->state == LISTEN_QUEUED)
			l->state = LISTEN_OVER;
		else if (s->asking == l || (s->asking == NULL && l->state == LISTEN_QUEUED))
			turn_asking(l);
		if (l->unused && l->state == LISTEN_OPEN && !s->over)
			turn_unused(l);
		else if (l->accepted != NULL && s->wire->dry)
			pull(l);
	}
}

/* The stream of a connection; NULL: out of memory, and it is hung up on. */
static struct stream *
stream_of(struct ssh_session *s, LIBSSH2_CHANNEL *lib)
{
	struct ssh_channel *c = ssh_channel_adopt(s, lib);
	struct stream *stream;

	if (c == NULL) {
		libssh2_channel_free(lib);
		return NULL;
	}
	stream = ssh_channel_stream(c, SSH_DUPLEX);
	ssh_channel_free(c);
	return stream;
}

static void
answer(struct ssh_listen *l, struct stream *stream)
{
	void (*accepted)(void *, struct stream *) = l->accepted;

	l->accepted = NULL;
	accepted(l->arg, stream);
}

/* Whoever is called may wish for another, or let the listener go; it stays until the session reaps it. */
static void
fire(struct ssh_listen *l)
{
	LIBSSH2_CHANNEL *lib = l->pulled;
	struct stream *stream;

	if (l->on_open != NULL && (l->state == LISTEN_OPEN || l->base.code != NULL)) {
		void (*on_open)(void *) = l->on_open;

		l->on_open = NULL;
		on_open(l->open_arg);
	}
	if (l->accepted != NULL && lib != NULL) {
		l->pulled = NULL;
		stream = stream_of(l->s, lib);
		if (stream != NULL)
			answer(l, stream);
		else
			ssh_session_kick(l->s);	/* another may do better */
	} else if (l->accepted != NULL && l->base.code != NULL) {
		answer(l, NULL);
	}
}

void
ssh_listen_fire(struct ssh_session *s)
{
	for (struct ssh_listen *l = s->listens; l != NULL; l = l->next)
		fire(l);
}

/* libssh2 has let everything go. */
void
ssh_listen_lost(struct ssh_session *s)
{
	s->asking = NULL;
	for (struct ssh_listen *l = s->listens; l != NULL; l = l->next) {
		l->lib = NULL;
		l->pulled = NULL;
		l->state = LISTEN_OVER;
		fail(l, s->code, s->text);
	}
}

void
ssh_listen_reap(struct ssh_session *s)
{
	struct ssh_listen *l, *next;

	for (l = s->listens; l != NULL; l = next) {
		next = l->next;
		if (!l->unused || l->state != LISTEN_OVER)
			continue;
		if (next != NULL)
			next->link = l->link;
		*l->link = next;
		ssh_session_release(s);
		free(l->host);
		free(l);
	}
}
