/*
 * ssh_open.c - opens channels, one at a time, as libssh2 wants it.
 *
 * One more session channel than asked for is kept open, so that a command costs one round trip: its
 * request goes out with the opening of the next spare.
 */
#include <string.h>

#include "ssh_session.h"

/* The first in the queue; with `ways` any, else the first that is a session channel. */
static struct ssh_channel *
first_queued(struct ssh_session *s, bool ways)
{
	struct ssh_channel *c;

	for (c = s->channels; c != NULL; c = c->next)
		if (c->state == CHANNEL_QUEUED && (ways || c->request != NULL))
			return c;
	return NULL;
}

/* Without anything that reads the socket even a spare that was refused is worth a try. */
static bool
worth_opening(const struct ssh_session *s)
{
	return s->spare == NULL && (!s->spare_refused || (s->channels == NULL && s->listens == NULL));
}

static void
open_begin(struct ssh_session *s)
{
	struct ssh_channel *c = first_queued(s, true);

	if (c == NULL && !worth_opening(s))
		return;
	s->opening = c != NULL && c->request == NULL ? c : NULL;
	s->open_running = true;
}

/* Whose way it was may have gone in the meantime; nobody else has a use for it. */
static void
open_done(struct ssh_session *s, LIBSSH2_CHANNEL *lib)
{
	struct ssh_channel *c = s->opening != NULL ? s->opening : first_queued(s, false);

	s->open_running = false;
	s->opening = NULL;
	if (c != NULL)
		ssh_channel_opened(c, lib);
	else
		s->spare = lib;
}

static void
open_refused(struct ssh_session *s, const char *said)
{
	struct ssh_channel *c = s->opening != NULL ? s->opening : first_queued(s, false);
	bool way = s->opening != NULL;

	s->open_running = false;
	s->opening = NULL;
	if (c == NULL)
		s->spare_refused = true;
	else if (strstr(said, "prohibited") != NULL)
		ssh_channel_fail(c, "EDENIED", "%s does not allow %s", s->o->host,
		                 way ? "connections through it" : "commands");
	else if (way)
		ssh_channel_fail(c, "ECONNREFUSED", "%s cannot connect to %s port %d", s->o->host, c->host, c->port);
	else
		ssh_channel_fail(c, "EBUSY", "%s opens no more channels on this connection (MaxSessions)", s->o->host);
}

void
ssh_open_turn(struct ssh_session *s)
{
	LIBSSH2_CHANNEL *lib;
	char *said = NULL;
	int rc;

	/* The far side may have taken the spare back. */
	if (s->spare != NULL && libssh2_channel_eof(s->spare) == 1 &&
	    libssh2_channel_free(s->spare) != LIBSSH2_ERROR_EAGAIN)
		s->spare = NULL;
	if (!s->open_running)
		open_begin(s);
	if (!s->open_running)
		return;
	if (s->opening != NULL)
		lib = libssh2_channel_direct_tcpip_ex(s->lib, s->opening->host, s->opening->port, "127.0.0.1", 0);
	else
		lib = libssh2_channel_open_ex(s->lib, "session", sizeof "session" - 1, LIBSSH2_CHANNEL_WINDOW_DEFAULT,
		                              LIBSSH2_CHANNEL_PACKET_DEFAULT, NULL, 0);
	if (lib != NULL) {
		open_done(s, lib);
		ssh_session_kick(s);
		return;
	}
	rc = libssh2_session_last_error(s->lib, &said, NULL, 0);
	if (rc == LIBSSH2_ERROR_EAGAIN)
		return;
	if (rc != LIBSSH2_ERROR_CHANNEL_FAILURE) {
		ssh_session_broken(s, rc);
		return;
	}
	open_refused(s, said != NULL ? said : "");
	if (first_queued(s, true) != NULL)
		ssh_session_kick(s);
}
