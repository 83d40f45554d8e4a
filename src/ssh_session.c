/* ssh_session.c - a session's turns on the loop, its keepalive and its end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ssh_session.h"

#define RATION (256 * 1024)	/* bytes read in one turn */
#define UNANSWERED_MAX 3

static void session_turn(struct ssh_session *s);

static void
handle_closed(uv_handle_t *handle)
{
	struct ssh_session *s = handle->data;

	if (--s->open_handles > 0)
		return;
	ssh_options_free(s->o);
	free(s->key);
	free(s);
}

void
ssh_session_hold(struct ssh_session *s)
{
	s->users++;
}

void
ssh_session_release(struct ssh_session *s)
{
	if (--s->users == 0)
		uv_close((uv_handle_t *)&s->kick, handle_closed);
}

static void
kicked(uv_idle_t *kick)
{
	struct ssh_session *s = kick->data;

	uv_idle_stop(kick);
	session_turn(s);
}

void
ssh_session_kick(struct ssh_session *s)
{
	uv_idle_start(&s->kick, kicked);
}

static void
polled(uv_poll_t *poll, int status, int events)
{
	(void)status;	/* recv or send will say it better */
	(void)events;
	session_turn(poll->data);
}

static void
poll_for(struct ssh_session *s)
{
	int events = UV_READABLE | (wire_pending(s->wire) > 0 ? UV_WRITABLE : 0);

	if (events == s->events && uv_is_active((uv_handle_t *)&s->poll))
		return;
	s->events = events;
	uv_poll_start(&s->poll, events, polled);
}

/* Moves what the socket has into libssh2, through any channel: stream 2 has no data of its own. */
static int
pull(struct ssh_session *s)
{
	LIBSSH2_CHANNEL *any = s->spare;
	ssize_t rc;
	char byte;

	for (struct ssh_channel *c = s->channels; any == NULL && c != NULL; c = c->next)
		any = c->lib;
	if (any == NULL)
		any = ssh_listen_pull(s);
	if (any == NULL)
		return 0;
	rc = libssh2_channel_read_ex(any, 2, &byte, 1);
	s->wire->dry = true;
	return rc < 0 && rc != LIBSSH2_ERROR_EAGAIN ? (int)rc : 0;
}

void
ssh_session_broken(struct ssh_session *s, int rc)
{
	char text[sizeof s->text];
	char *said = NULL;

	if (s->over || s->lib == NULL)
		return;
	libssh2_session_last_error(s->lib, &said, NULL, 0);
	if (s->wire->reason[0] != '\0')
		snprintf(text, sizeof text, "the connection to %.100s was closed by the server: %.180s", s->o->host,
		         s->wire->reason);
	else if (s->wire->error != 0)
		snprintf(text, sizeof text, "the connection to %.100s was lost: %s", s->o->host, strerror(s->wire->error));
	else if (rc == 0 || rc == LIBSSH2_ERROR_SOCKET_DISCONNECT)
		snprintf(text, sizeof text, "the connection to %.100s was lost: it was closed", s->o->host);
	else
		snprintf(text, sizeof text, "the connection to %.100s was lost: %.180s", s->o->host,
		         said != NULL && *said != '\0' ? said : "protocol error");
	ssh_session_end(s, "ELOST", text);
}

/* Lets everything go.  Channels learn of it last, when nothing of the session can be used any more. */
static void
put_away(struct ssh_session *s)
{
	LIBSSH2_SESSION *lib = s->lib;
	struct ssh_channel *c;

	for (c = s->channels; c != NULL; c = c->next)
		ssh_channel_drain(c);
	if (strcmp(s->code, "ECLOSED") == 0) {
		libssh2_session_disconnect_ex(lib, SSH_DISCONNECT_BY_APPLICATION, "done", "");
		wire_flush(s->wire);
	}
	s->lib = NULL;
	s->spare = NULL;
	uv_close((uv_handle_t *)&s->poll, handle_closed);
	uv_close((uv_handle_t *)&s->clock, handle_closed);
	wire_shut(s->wire);
	for (c = s->channels; c != NULL; c = c->next) {
		c->lib = NULL;
		c->state = CHANNEL_OVER;
	}
	libssh2_session_free(lib);
	wire_free(s->wire);
	s->wire = NULL;
	ssh_bridge_free(s->bridge);
	s->bridge = NULL;
	for (c = s->channels; c != NULL; c = c->next)
		ssh_channel_fail(c, s->code, "%s", s->text);
	ssh_listen_lost(s);
	ssh_session_kick(s);	/* the waiters are called from there */
}

void
ssh_session_end(struct ssh_session *s, const char *code, const char *text)
{
	if (s->over || s->lib == NULL)
		return;
	s->over = true;
	s->code = code;
	snprintf(s->text, sizeof s->text, "%s", text);
	if (!s->turning)
		put_away(s);
}

static void
each_channel(struct ssh_session *s, void (*visit)(struct ssh_channel *c))
{
	for (struct ssh_channel *c = s->channels; c != NULL; c = c->next)
		visit(c);	/* may add channels, and takes none away */
}

/* Only here, so that no callback can take away what a turn still looks at. */
static void
reap(struct ssh_session *s)
{
	struct ssh_channel *c, *next;

	for (c = s->channels; c != NULL; c = next) {
		next = c->next;
		if (c->users == 0 && (c->state == CHANNEL_OVER || (c->state == CHANNEL_QUEUED && s->opening != c))) {
			s->spare_refused = false;
			ssh_channel_dispose(c);
		}
	}
}

static void
session_turn(struct ssh_session *s)
{
	int rc;

	ssh_session_hold(s);
	s->turning = true;
	if (s->lib != NULL) {
		s->wire->ration = RATION;
		s->wire->dry = false;
		s->congested = false;
		rc = pull(s);
		each_channel(s, ssh_channel_turn);
		ssh_listen_turn(s);
		ssh_open_turn(s);
		if (rc != 0)
			ssh_session_broken(s, rc);
		else if (wire_flush(s->wire) != 0 || s->wire->ended)
			ssh_session_broken(s, 0);
		if (s->congested && wire_pending(s->wire) < CHANNEL_BUFFER)
			ssh_session_kick(s);
	}
	each_channel(s, ssh_channel_fire);
	ssh_listen_fire(s);
	reap(s);
	ssh_listen_reap(s);
	s->turning = false;
	if (s->over && s->lib != NULL)
		put_away(s);
	else if (s->lib != NULL)
		poll_for(s);
	ssh_session_release(s);
}

/* A server that is there answers, so silence after three questions means that nobody is. */
static void
ticked(uv_timer_t *clock)
{
	struct ssh_session *s = clock->data;
	char text[160];

	if (s->wire->received != s->heard) {
		s->heard = s->wire->received;
		s->unanswered = 0;
		return;
	}
	if (s->unanswered++ == UNANSWERED_MAX) {
		snprintf(text, sizeof text, "the connection to %.100s was lost: no answer for %g s", s->o->host,
		         s->o->keepalive * (UNANSWERED_MAX + 1));
		ssh_session_end(s, "ELOST", text);
		return;
	}
	libssh2_keepalive_config(s->lib, 1, 1);
	libssh2_keepalive_send(s->lib, NULL);
	s->kept_alive = true;
	ssh_session_kick(s);
}

static void
take_names(struct ssh_session *s, struct ssh_job *j, const char *address)
{
	snprintf(s->key_type, sizeof s->key_type, "%s", j->failure.key_type);
	snprintf(s->fingerprint, sizeof s->fingerprint, "%s", j->failure.fingerprint);
	snprintf(s->banner, sizeof s->banner, "%s", j->banner);
	snprintf(s->method, sizeof s->method, "%s", j->method);
	snprintf(s->address, sizeof s->address, "%s", address);
	s->key = j->failure.key;
	j->failure.key = NULL;
	s->o = j->o;
	j->o = NULL;
	s->info = (struct ssh_info){
		.host = s->o->host, .user = s->o->user, .address = s->address, .port = s->o->port,
		.key_type = s->key_type, .fingerprint = s->fingerprint, .key = s->key, .banner = s->banner,
		.method = s->method,
	};
}

struct ssh_session *
ssh_session_new(uv_loop_t *loop, struct ssh_job *j, struct ssh_bridge *bridge, const char *address)
{
	struct ssh_session *s = calloc(1, sizeof *s);
	uint64_t tick;

	if (s == NULL || uv_poll_init(loop, &s->poll, j->wire->fd) != 0) {
		free(s);
		return NULL;
	}
	s->loop = loop;
	s->channels_end = &s->channels;
	s->bridge = bridge;
	s->users = 1;
	s->open_handles = 3;
	s->lib = j->lib;
	s->wire = j->wire;
	s->wire->owner = s;
	s->wire->patient = true;
	s->wire->eager = WIRE_EAGER_READS;	/* the first commands are set-up, too */
	j->lib = NULL;
	j->wire = NULL;
	take_names(s, j, address);
	uv_timer_init(loop, &s->clock);
	uv_idle_init(loop, &s->kick);
	s->poll.data = s->clock.data = s->kick.data = s;
	tick = (uint64_t)(s->o->keepalive * 1000);
	if (tick > 0)
		uv_timer_start(&s->clock, ticked, tick, tick);
	ssh_session_kick(s);	/* opens the spare channel */
	return s;
}

const struct ssh_info *
ssh_session_info(const struct ssh_session *s)
{
	return &s->info;
}

bool
ssh_session_alive(const struct ssh_session *s)
{
	return s->lib != NULL && !s->over;
}

const char *
ssh_session_code(const struct ssh_session *s)
{
	return s->code;
}

const char *
ssh_session_message(const struct ssh_session *s)
{
	return s->text;
}

void
ssh_session_close(struct ssh_session *s)
{
	if (s == NULL)
		return;
	ssh_session_end(s, "ECLOSED", "the session was closed");
	ssh_session_release(s);
}
