/*
 * websocket.c - see websocket.h.  One connection: libcurl makes it, then the socket is ours to watch.
 *
 * Bytes are moved in one place only, the turn: streams fill and empty buffers and ask for one.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "http_easy.h"
#include "websocket_connection.h"

#define READ_AHEAD ((size_t)64 << 10)
#define SILENT     3		/* unanswered pings */
#define LINGER     3000		/* milliseconds that the end may take when nobody waits for it any more */
#define NORMAL     1000		/* the code of a close that is as it should be */

/* ---- the end of it ---- */

static void
handle_closed(uv_handle_t *handle)
{
	struct websocket *ws = handle->data;

	if (--ws->handles > 0)
		return;
	websocket_wire_free(ws->wire);
	handshake_fini(&ws->shake);
	bytes_free(&ws->in);
	bytes_free(&ws->request);
	ws->curl->slist_free_all(ws->connect_to);
	free(ws);
}

/* The poll goes before its descriptor: libuv would take a later one of that number out of its set instead. */
static void
hang_up(struct websocket *ws)
{
	ws->state = WEBSOCKET_ENDED;
	if (ws->polled)
		uv_close((uv_handle_t *)&ws->poll, handle_closed);
	ws->polled = false;
	uv_timer_stop(&ws->clock);
	if (ws->entered)
		http_multi_leave(ws->http, ws->easy);
	ws->entered = false;
	if (ws->easy != NULL)
		ws->curl->easy_cleanup(ws->easy);
	ws->easy = NULL;
}

static void
destroy(struct websocket *ws)
{
	hang_up(ws);
	uv_close((uv_handle_t *)&ws->clock, handle_closed);
	uv_close((uv_handle_t *)&ws->kick, handle_closed);
}

static void __attribute__((format(printf, 3, 4)))
answered(struct websocket *ws, const char *code, const char *format, ...)
{
	struct websocket_answer *a = &ws->answer;
	void (*done)(void *arg) = ws->done;
	va_list ap;

	a->code = code;
	va_start(ap, format);
	vsnprintf(a->message, sizeof a->message, format, ap);
	va_end(ap);
	a->status = ws->shake.status;
	a->protocol = ws->shake.protocol;
	a->headers = ws->shake.head != NULL ? ws->shake.head : "";
	a->headers_length = ws->shake.head != NULL ? ws->shake.head_length : 0;
	a->body = bytes_length(&ws->shake.body) > 0 ? bytes_first(&ws->shake.body) : "";
	a->body_length = bytes_length(&ws->shake.body);
	if (code != NULL)
		hang_up(ws);
	ws->done = NULL;
	if (done != NULL)
		done(ws->arg);
}

/* ---- bytes ---- */

static ssize_t
receive(struct websocket *ws, void *buffer, size_t length)
{
	size_t n = 0;
	CURLcode result = ws->curl->easy_recv(ws->easy, buffer, length, &n);

	if (result == CURLE_AGAIN)
		return STREAM_AGAIN;
	if (result != CURLE_OK)
		return STREAM_FAILED;
	return n > 0 ? (ssize_t)n : STREAM_END;
}

/* False: the connection has failed. */
static bool
flush(struct websocket *ws)
{
	while (ws->out_start < ws->out_end) {
		size_t n = 0;
		CURLcode result = ws->curl->easy_send(ws->easy, ws->out + ws->out_start, ws->out_end - ws->out_start, &n);

		if (result == CURLE_AGAIN)
			return true;
		if (result != CURLE_OK)
			return false;
		ws->out_start += n;
	}
	ws->out_start = ws->out_end = 0;
	return true;
}

static ssize_t
wire_read(void *arg, void *buffer, size_t length)
{
	struct websocket *ws = arg;
	char *room;
	ssize_t n;

	if (bytes_length(&ws->in) == 0) {
		room = bytes_room(&ws->in, READ_AHEAD);
		if (room == NULL)
			return STREAM_FAILED;
		n = receive(ws, room, READ_AHEAD);
		if (n <= 0)
			return n;
		bytes_added(&ws->in, (size_t)n);
	}
	if (length > bytes_length(&ws->in))
		length = bytes_length(&ws->in);
	memcpy(buffer, bytes_first(&ws->in), length);
	bytes_used(&ws->in, length);
	return (ssize_t)length;
}

static ssize_t
wire_write(void *arg, const void *buffer, size_t length)
{
	struct websocket *ws = arg;

	if (ws->out_end == sizeof ws->out && !flush(ws))
		return STREAM_FAILED;
	if (ws->out_end == sizeof ws->out)
		return STREAM_AGAIN;
	if (length > sizeof ws->out - ws->out_end)
		length = sizeof ws->out - ws->out_end;
	memcpy(ws->out + ws->out_end, buffer, length);
	ws->out_end += length;
	return (ssize_t)length;
}

static const struct websocket_io io = { wire_read, wire_write };

/* ---- the turn ---- */

static void turn(struct websocket *ws);
static void tick(uv_timer_t *clock);

static void
polled(uv_poll_t *poll, int status, int events)
{
	(void)status;			/* an error shows when we read */
	(void)events;
	turn(poll->data);
}

static void
kicked(uv_idle_t *kick)
{
	uv_idle_stop(kick);
	turn(kick->data);
}

void
websocket_kick(struct websocket *ws)
{
	uv_idle_start(&ws->kick, kicked);
}

static void
ask(struct websocket *ws)
{
	char *room;
	ssize_t n = 0;
	bool sent;
	enum handshake_answer a = HANDSHAKE_MORE;

	while (bytes_length(&ws->request) > 0 && (n = wire_write(ws, bytes_first(&ws->request), bytes_length(&ws->request))) > 0)
		bytes_used(&ws->request, (size_t)n);
	sent = n != STREAM_FAILED && flush(ws);	/* who refuses us hangs up, and says why before that */
	while (a == HANDSHAKE_MORE) {
		room = bytes_room(&ws->in, READ_AHEAD);
		n = room != NULL ? receive(ws, room, READ_AHEAD) : STREAM_FAILED;
		if (n == STREAM_AGAIN && sent)
			return;
		if (n == STREAM_AGAIN)
			n = STREAM_FAILED;
		bytes_added(&ws->in, n > 0 ? (size_t)n : 0);
		a = handshake_read(&ws->shake, &ws->in, n <= 0);
	}
	if (a == HANDSHAKE_WRONG && n == STREAM_FAILED) {	/* with TLS 1.3 a certificate of ours is refused this late */
		if (strstr(ws->error, "alert") != NULL)
			answered(ws, "ETLS", "%s", ws->error);
		else
			answered(ws, "ELOST", "the connection broke before the server had answered");
	} else if (a == HANDSHAKE_WRONG) {
		answered(ws, ws->shake.head_read || n > 0 ? "EPROTO" : "ELOST", "%s", ws->shake.problem);
	} else if (a == HANDSHAKE_REFUSED) {
		answered(ws, "EREFUSED", "the server answers %ld and does not open a websocket", ws->shake.status);
	} else if ((ws->wire = websocket_wire_new(&io, ws, ws->channels)) == NULL) {
		answered(ws, "ENOMEM", "out of memory");
	} else {
		ws->state = WEBSOCKET_OPEN;
		uv_timer_stop(&ws->clock);
		if (ws->keepalive > 0)
			uv_timer_start(&ws->clock, tick, (uint64_t)(ws->keepalive * 1000), (uint64_t)(ws->keepalive * 1000));
		answered(ws, NULL, "%s", "");
	}
}

/* What came is looked at when there is somebody to take it. */
static void
carry(struct websocket *ws)
{
	enum websocket_in in = ws->ends == NULL ? WEBSOCKET_FULL : websocket_wire_in(ws->wire);

	ws->full = in == WEBSOCKET_FULL;
	if (in == WEBSOCKET_BUSY)
		websocket_kick(ws);
	ws->failed = ws->failed || !websocket_wire_out(ws->wire) || !flush(ws);
	if (in == WEBSOCKET_OVER || (ws->failed && ws->full))	/* else what broke shows when all was read */
		hang_up(ws);
}

static void
watch(struct websocket *ws)
{
	int events = 0;

	if (ws->state == WEBSOCKET_ENDED || !ws->polled)
		return;
	if (!ws->full)
		events |= UV_READABLE;
	if (ws->out_start < ws->out_end || (ws->state == WEBSOCKET_OPEN && websocket_wire_wants_out(ws->wire)))
		events |= UV_WRITABLE;
	if (events != 0)
		uv_poll_start(&ws->poll, events, polled);
	else
		uv_poll_stop(&ws->poll);
}

static bool
has_unsent(const struct websocket *ws)
{
	return ws->out_start < ws->out_end || websocket_wire_wants_out(ws->wire);
}

/* Who still has a stream of it finds that it is over. */
static void
end(struct websocket *ws)
{
	ws->leaving = false;
	if (ws->users == 0) {
		destroy(ws);
		return;
	}
	hang_up(ws);
	websocket_kick(ws);
}

static void
give_up(uv_timer_t *clock)
{
	end(clock->data);
}

/*
 * Nobody wants it any more: what was written is sent, then our close.  It goes when the other side has hung up, or after a
 * while: who closes a socket with bytes unread resets the connection, and the other side may lose what it has not read either.
 */
static void
leave(struct websocket *ws)
{
	if (ws->state != WEBSOCKET_OPEN || ws->failed) {
		end(ws);
		return;
	}
	if (!ws->lingering)
		uv_timer_start(&ws->clock, give_up, LINGER, 0);
	ws->lingering = true;
	ws->full = false;
	if (!has_unsent(ws) && !ws->said_goodbye) {
		ws->said_goodbye = true;
		websocket_wire_close(ws->wire, NORMAL);
	}
	if (!websocket_wire_out(ws->wire) || !flush(ws) || websocket_wire_in(ws->wire) == WEBSOCKET_OVER)
		end(ws);
	else if (!has_unsent(ws) && !ws->said_goodbye)
		websocket_kick(ws);
	else
		watch(ws);
}

static void
turn(struct websocket *ws)
{
	ws->turning = true;
	ws->turns++;
	if (ws->state == WEBSOCKET_ASKING)
		ask(ws);
	else if (ws->state == WEBSOCKET_OPEN && !ws->leaving)
		carry(ws);
	if (ws->wire != NULL)
		websocket_fire(ws);
	ws->turning = false;
	if (ws->leaving)
		leave(ws);
	else
		watch(ws);
}

void
websocket_drop(struct websocket *ws, bool over)
{
	if (--ws->users > 0 && !over)
		return;
	ws->leaving = true;
	if (ws->turning)
		return;
	leave(ws);
}

/* ---- time ---- */

static void
too_late(uv_timer_t *clock)
{
	struct websocket *ws = clock->data;

	if (ws->state == WEBSOCKET_CONNECTING)
		answered(ws, "ECONNECT", "no connection within %.3g s", ws->connect_timeout);
	else
		answered(ws, "ETIMEDOUT", "no answer within %.3g s", ws->connect_timeout);
}

/*
 * A ping keeps what is between us and the server from forgetting the connection.  That none is answered says that the server
 * is gone only where it waits for nothing else: one that cannot get rid of what we sent reads no pings either.  Of those
 * the kernel tells (TCP_USER_TIMEOUT).
 */
static void
tick(uv_timer_t *clock)
{
	struct websocket *ws = clock->data;
	unsigned long long received = websocket_wire_received(ws->wire);

	ws->silent = received != ws->heard || ws->full || ws->spoke ? 0 : ws->silent + 1;
	ws->heard = received;
	if (ws->silent > SILENT) {
		websocket_wire_fail(ws->wire, "ELOST", "no word for %.3g s, pings are not answered", ws->keepalive * SILENT);
		hang_up(ws);
	} else {
		websocket_wire_ping(ws->wire);
	}
	websocket_kick(ws);
}

/* ---- the beginning ---- */

static void
set_socket(const struct websocket *ws, curl_socket_t fd)
{
	unsigned patience = (unsigned)(ws->keepalive * SILENT * 1000);
	int yes = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
	if (patience > 0)
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience, sizeof patience);
}

/* libcurl is there, or has given up. */
static void
connected(struct http_transfer *t, CURLcode result)
{
	struct websocket *ws = (struct websocket *)t;
	curl_socket_t fd = CURL_SOCKET_BAD;
	const char *code;

	if (ws->state != WEBSOCKET_CONNECTING)
		return;
	if (result != CURLE_OK) {
		code = http_failure(ws->curl, ws->easy, result, ws->error);
		answered(ws, code, "%s", ws->error[0] != '\0' ? ws->error : ws->curl->easy_strerror(result));
		return;
	}
	ws->curl->easy_getinfo(ws->easy, CURLINFO_ACTIVESOCKET, &fd);
	if (fd == CURL_SOCKET_BAD || uv_poll_init_socket(ws->loop, &ws->poll, fd) != 0) {
		answered(ws, "ECONNECT", "libcurl has no connection");
		return;
	}
	ws->polled = true;
	ws->handles++;
	ws->poll.data = ws;
	set_socket(ws, fd);
	ws->state = WEBSOCKET_ASKING;
	websocket_kick(ws);
}

#define SET(ws, option, value) (ok = (ws)->curl->easy_setopt((ws)->easy, (option), (value)) == CURLE_OK && ok)

static bool
set_all(struct websocket *ws, const struct http_options *o)
{
	bool ok = true;

	SET(ws, CURLOPT_PRIVATE, &ws->transfer);
	SET(ws, CURLOPT_ERRORBUFFER, ws->error);
	SET(ws, CURLOPT_NOSIGNAL, 1L);
	SET(ws, CURLOPT_PROTOCOLS_STR, "http,https");
	SET(ws, CURLOPT_URL, o->url);
	SET(ws, CURLOPT_CONNECT_ONLY, 1L);
	SET(ws, CURLOPT_HTTPPROXYTUNNEL, 1L);
	SET(ws, CURLOPT_FRESH_CONNECT, 1L);
	ws->curl->easy_setopt(ws->easy, CURLOPT_QUICK_EXIT, 1L);	/* as in http.c */
	ok = http_set_way(ws->curl, ws->easy, o, &ws->connect_to) && ok;
	SET(ws, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	return ok;
}

struct websocket *
websocket_start(uv_loop_t *loop, struct http *h, const struct websocket_options *o, void (*done)(void *arg), void *arg)
{
	struct websocket *ws = calloc(1, sizeof *ws);

	if (ws == NULL)
		return NULL;
	*ws = (struct websocket){
		.transfer.over = connected, .loop = loop, .http = h, .curl = http_api(h), .channels = o->channels,
		.keepalive = o->keepalive, .connect_timeout = o->http.connect_timeout, .users = 1, .handles = 2, .arg = arg,
	};
	uv_timer_init(loop, &ws->clock);
	uv_idle_init(loop, &ws->kick);
	ws->clock.data = ws->kick.data = ws;
	ws->easy = ws->curl->easy_init();
	if (ws->easy == NULL || !handshake_init(&ws->shake, o->http.url, o->http.headers, o->protocols, &ws->request) ||
	    !set_all(ws, &o->http) || !http_multi_enter(h, ws->easy)) {
		destroy(ws);
		return NULL;
	}
	ws->entered = true;
	ws->done = done;
	if (ws->connect_timeout > 0)
		uv_timer_start(&ws->clock, too_late, (uint64_t)(ws->connect_timeout * 1000), 0);
	return ws;
}

const struct websocket_answer *
websocket_answer(const struct websocket *ws)
{
	return &ws->answer;
}

void
websocket_release(struct websocket *ws)
{
	if (ws == NULL)
		return;
	ws->done = NULL;
	websocket_drop(ws, false);
}

unsigned
websocket_closed(const struct websocket *ws, const char **reason)
{
	*reason = "";
	return ws->wire != NULL ? websocket_wire_closed(ws->wire, reason) : 0;
}
