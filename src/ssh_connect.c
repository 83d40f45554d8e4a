/* ssh_connect.c - from a name to a session: resolve, connect, hand over to a thread, take back. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "ssh_session.h"

/* One address is tried; freed by the loop when its handle is closed. */
struct attempt {
	uv_poll_t poll;
	struct ssh_connect *c;
};

struct ssh_connect {
	struct ssh_hub *hub;
	struct ssh_options *o;		/* until the job has it */
	struct ssh_bridge *bridge;	/* until the session has it */
	struct ssh_job *job;
	struct ssh_session *session;
	struct ssh_failure failure;

	uv_getaddrinfo_t resolver;
	uv_timer_t timer;
	struct attempt *attempt;
	struct addrinfo *addresses, *untried;
	uint64_t deadline;
	int fd, last_error;
	char address[64];
	int pending;			/* handles and requests the loop still has */
	bool freed, reported;
	void (*done)(void *arg);
	void *arg;
};

static void try_next(struct ssh_connect *c);

static void
maybe_free(struct ssh_connect *c)
{
	if (!c->freed || c->pending > 0)
		return;
	ssh_hub_release(c->hub);
	free(c);
}

static void
report(struct ssh_connect *c)
{
	if (c->reported)
		return;
	c->reported = true;
	uv_timer_stop(&c->timer);
	c->done(c->arg);
}

static void
report_later(uv_timer_t *timer)
{
	report(timer->data);
}

/* For failures that are known before ssh_connect_start has returned, too. */
static void
give_up(struct ssh_connect *c)
{
	uv_timer_start(&c->timer, report_later, 0, 0);
}

static void
attempt_closed(uv_handle_t *handle)
{
	struct attempt *a = handle->data;
	struct ssh_connect *c = a->c;

	free(a);
	c->pending--;
	maybe_free(c);
}

static void
attempt_end(struct ssh_connect *c)
{
	if (c->attempt == NULL)
		return;
	uv_close((uv_handle_t *)&c->attempt->poll, attempt_closed);
	c->attempt = NULL;
}

static void
shook_hands(struct ssh_job *j, void *arg)
{
	struct ssh_connect *c = arg;

	c->job = NULL;
	if (j->failure.code == NULL) {
		c->session = ssh_session_new(ssh_hub_loop(c->hub), j, c->bridge, c->address);
		if (c->session != NULL)
			c->bridge = NULL;
		else
			ssh_failure_set(&j->failure, "ENOMEM", "out of memory");
	}
	c->failure = j->failure;
	memset(&j->failure, 0, sizeof j->failure);
	ssh_job_free(j);
	report(c);
}

static void
asks(struct ssh_job *j, void *arg)
{
	struct ssh_connect *c = arg;

	(void)j;
	c->done(c->arg);
}

/* The connection stands: the rest is a thread's. */
static void
hand_over(struct ssh_connect *c)
{
	struct wire *wire = wire_new(c->fd);

	if (wire != NULL)
		c->job = ssh_job_new(c->o, wire, shook_hands, c);
	if (c->job == NULL) {
		ssh_failure_set(&c->failure, "ENOMEM", "out of memory");
		if (wire != NULL)
			c->fd = -1;
		wire_free(wire);
		give_up(c);
		return;
	}
	c->fd = -1;
	c->o = NULL;
	c->job->asks = asks;
	ssh_hub_submit(c->hub, c->job);
}

static void
note_address(struct ssh_connect *c, const struct addrinfo *a)
{
	if (getnameinfo(a->ai_addr, a->ai_addrlen, c->address, sizeof c->address, NULL, 0, NI_NUMERICHOST) != 0)
		c->address[0] = '\0';
}

static void
attempt_failed(struct ssh_connect *c, int error)
{
	attempt_end(c);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->last_error = error;
	try_next(c);
}

static void
attempt_ready(uv_poll_t *poll, int status, int events)
{
	struct ssh_connect *c = ((struct attempt *)poll->data)->c;
	int error = 0;
	socklen_t size = sizeof error;

	(void)status;
	(void)events;
	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		error = errno;
	if (error != 0) {
		attempt_failed(c, error);
		return;
	}
	attempt_end(c);
	uv_timer_stop(&c->timer);
	hand_over(c);
}

static void
attempt_late(uv_timer_t *timer)
{
	attempt_failed(timer->data, ETIMEDOUT);
}

/* 0, or an errno. */
static int
attempt_start(struct ssh_connect *c, const struct addrinfo *a)
{
	uv_loop_t *loop = ssh_hub_loop(c->hub);
	int on = 1;

	c->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return errno;
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);	/* without it each command costs 40 ms */
	if (connect(c->fd, a->ai_addr, a->ai_addrlen) < 0 && errno != EINPROGRESS)
		return errno;
	if ((c->attempt = calloc(1, sizeof *c->attempt)) == NULL)
		return ENOMEM;
	c->attempt->c = c;
	if (uv_poll_init(loop, &c->attempt->poll, c->fd) != 0) {
		free(c->attempt);
		c->attempt = NULL;
		return ENOMEM;
	}
	c->attempt->poll.data = c->attempt;
	c->pending++;
	uv_poll_start(&c->attempt->poll, UV_WRITABLE, attempt_ready);
	return 0;
}

static void
none_left(struct ssh_connect *c)
{
	bool named = strcmp(c->address, c->o->host) != 0;
	const char *code;

	if (c->last_error == ETIMEDOUT)
		code = "ECONNECT";
	else if (c->last_error == ECONNRESET)	/* hung up before it was looked at: nothing was lost */
		code = "EHANDSHAKE";
	else
		code = uv_err_name(uv_translate_sys_error(c->last_error));
	ssh_failure_set(&c->failure, code, "cannot connect to %s port %d%s%s%s: %s", c->o->host, c->o->port,
	                named ? " (" : "", named ? c->address : "", named ? ")" : "", strerror(c->last_error));
	give_up(c);
}

/* Each address gets its share of the time that is left. */
static void
try_next(struct ssh_connect *c)
{
	uv_loop_t *loop = ssh_hub_loop(c->hub);

	while (c->untried != NULL) {
		const struct addrinfo *a = c->untried;
		uint64_t left = c->deadline > uv_now(loop) ? c->deadline - uv_now(loop) : 0, share = 1;
		int error;

		for (const struct addrinfo *other = a->ai_next; other != NULL; other = other->ai_next)
			share++;
		c->untried = a->ai_next;
		note_address(c, a);
		if ((error = attempt_start(c, a)) == 0) {
			uv_timer_start(&c->timer, attempt_late, left / share, 0);
			return;
		}
		c->last_error = error;
		if (c->fd >= 0)
			close(c->fd);
		c->fd = -1;
	}
	none_left(c);
}

static void
resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses)
{
	struct ssh_connect *c = request->data;

	c->pending--;
	c->addresses = c->untried = addresses;
	if (c->freed) {
		uv_freeaddrinfo(addresses);
		maybe_free(c);
	} else if (c->reported || c->failure.code != NULL) {
		return;
	} else if (status != 0) {
		ssh_failure_set(&c->failure, "ERESOLVE", "cannot find %s: %s", c->o->host, uv_strerror(status));
		give_up(c);
	} else {
		try_next(c);
	}
}

static void
resolve_late(uv_timer_t *timer)
{
	struct ssh_connect *c = timer->data;

	ssh_failure_set(&c->failure, "ERESOLVE", "cannot find %s: no answer within %g s", c->o->host, c->o->timeout);
	uv_cancel((uv_req_t *)&c->resolver);
	report(c);
}

static void
resolve(struct ssh_connect *c)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
	uint64_t allowed = (uint64_t)(c->o->timeout * 1000);
	uv_loop_t *loop = ssh_hub_loop(c->hub);
	char service[16];
	int error;

	uv_update_time(loop);
	c->deadline = uv_now(loop) + allowed;
	snprintf(service, sizeof service, "%d", c->o->port);
	c->resolver.data = c;
	error = uv_getaddrinfo(loop, &c->resolver, resolved, c->o->host, service, &hints);
	if (error == 0) {
		c->pending++;
		uv_timer_start(&c->timer, resolve_late, allowed, 0);
		return;
	}
	ssh_failure_set(&c->failure, "ERESOLVE", "cannot find %s: %s", c->o->host, uv_strerror(error));
	give_up(c);
}

static bool
is_socket(int fd)
{
	int type;
	socklen_t size = sizeof type;

	return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
}

/* A socket is used as it is; anything else is pumped. */
static void
connect_over(struct ssh_connect *c, struct stream *over)
{
	int fd = over->ops->descriptor != NULL ? over->ops->descriptor(over) : -1;

	if (is_socket(fd)) {
		c->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		over->ops->close(over);
	} else {
		c->bridge = ssh_bridge_new(ssh_hub_loop(c->hub), over, &c->fd);
	}
	if (c->fd >= 0) {
		hand_over(c);
		return;
	}
	ssh_failure_set(&c->failure, "EMFILE", "no descriptor left for a connection");
	give_up(c);
}

struct ssh_connect *
ssh_connect_start(struct ssh_hub *hub, struct ssh_options *o, struct stream *over, void (*done)(void *arg),
                  void *arg)
{
	struct ssh_connect *c = calloc(1, sizeof *c);

	if (c == NULL) {
		if (over != NULL)
			over->ops->close(over);
		ssh_options_free(o);
		return NULL;
	}
	c->hub = hub;
	c->o = o;
	c->fd = -1;
	c->pending = 1;
	c->done = done;
	c->arg = arg;
	ssh_hub_hold(hub);
	uv_timer_init(ssh_hub_loop(hub), &c->timer);
	c->timer.data = c;
	if (over != NULL)
		connect_over(c, over);
	else
		resolve(c);
	return c;
}

struct ssh_session *
ssh_connect_session(struct ssh_connect *c)
{
	struct ssh_session *s = c->session;

	c->session = NULL;
	return s;
}

const struct ssh_failure *
ssh_connect_failure(const struct ssh_connect *c)
{
	return &c->failure;
}

const struct ssh_failure *
ssh_connect_question(const struct ssh_connect *c)
{
	return c->job != NULL ? &c->job->failure : NULL;
}

bool
ssh_connect_asks(const struct ssh_connect *c)
{
	return c->job != NULL && ssh_hub_asks(c->hub, c->job);
}

bool
ssh_connect_answer(struct ssh_connect *c, struct ssh_text *answers, size_t count)
{
	return c->job != NULL && ssh_hub_answer(c->hub, c->job, answers, count);
}

static void
timer_closed(uv_handle_t *timer)
{
	struct ssh_connect *c = timer->data;

	c->pending--;
	maybe_free(c);
}

void
ssh_connect_free(struct ssh_connect *c)
{
	if (c == NULL)
		return;
	c->freed = c->reported = true;
	if (c->job != NULL)
		ssh_hub_abandon(c->hub, c->job);
	ssh_session_close(c->session);
	ssh_bridge_free(c->bridge);
	attempt_end(c);
	if (c->fd >= 0)
		close(c->fd);
	uv_cancel((uv_req_t *)&c->resolver);
	if (c->addresses != NULL)
		uv_freeaddrinfo(c->addresses);
	ssh_options_free(c->o);
	ssh_failure_fini(&c->failure);
	uv_close((uv_handle_t *)&c->timer, timer_closed);
}
