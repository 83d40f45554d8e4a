/*
 * http.c - see http.h.  One request: its options, its body on the way out and on the way in.
 *
 * A stream that cannot take or give bytes now pauses the transfer, and libcurl stops reading the
 * socket; when the stream is ready the transfer goes on.  That is the back-pressure.
 */
#include "http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "bytes.h"
#include "http_easy.h"
#include "http_multi.h"

#define MAX_HEADERS (1u << 20)

struct http_request {
	struct http_transfer transfer;	/* first */
	struct http *http;
	const struct http_curl *curl;
	CURL *easy;
	bool entered;			/* on the connections of http */
	struct curl_slist *headers, *connect_to;
	struct http_response response;
	struct bytes head, body;
	struct bytes waiting;		/* arrived, and not yet taken by `to` */
	struct stream *from, *to;
	bool streaming;			/* the answer is one that `to` gets */
	size_t max_body;
	double timeout, connect_timeout, stall;
	const char *failed;		/* code, set where a callback has stopped the transfer */
	bool over;			/* the transfer has ended; `waiting` may still hold its last bytes */
	char error[CURL_ERROR_SIZE];
	void (*done)(void *arg);
	void *arg;
};

/* Why a callback stops the transfer.  code is static, or the stream's, which is. */
static void
stop_for(struct http_request *q, const char *code, const char *message)
{
	q->failed = code;
	snprintf(q->response.message, sizeof q->response.message, "%s", message);
}

static void
stop_for_stream(struct http_request *q, const struct stream *s)
{
	stop_for(q, s->code != NULL ? s->code : "ECLOSED", s->code != NULL ? s->message : "the stream was closed");
}

static void
finish(struct http_request *q)
{
	struct http_response *r = &q->response;

	if (q->failed != NULL)
		r->code = q->failed;
	r->headers = q->head.data != NULL ? bytes_first(&q->head) : "";
	r->headers_length = bytes_length(&q->head);
	if (!q->streaming) {
		r->body = q->body.data != NULL ? bytes_first(&q->body) : "";
		r->body_length = bytes_length(&q->body);
	}
	q->done(q->arg);
}

/* ---- the body on its way in ---- */

static void to_ready(void *arg);
static void transfer_over(struct http_transfer *t, CURLcode result);

/* Gives the stream what is waiting.  False when it has failed. */
static bool
flush_waiting(struct http_request *q)
{
	ssize_t n;

	while (bytes_length(&q->waiting) > 0) {
		n = q->to->ops->write(q->to, bytes_first(&q->waiting), bytes_length(&q->waiting));
		if (n == STREAM_AGAIN) {
			q->to->ops->when(q->to, STREAM_WRITE, to_ready, q);
			return true;
		}
		if (n < 0) {
			stop_for_stream(q, q->to);
			return false;
		}
		bytes_used(&q->waiting, (size_t)n);
	}
	return true;
}

/* From the loop: never inside one of libcurl's callbacks. */
static void
go_on(struct http_request *q)
{
	CURLcode result = q->curl->easy_pause(q->easy, CURLPAUSE_CONT);

	if (result != CURLE_OK && !q->over)
		transfer_over(&q->transfer, result);
}

static void
to_ready(void *arg)
{
	struct http_request *q = arg;
	bool good = flush_waiting(q);

	if (good && bytes_length(&q->waiting) > 0)
		return;
	if (q->over)
		finish(q);
	else if (good)
		go_on(q);
	else
		transfer_over(&q->transfer, CURLE_WRITE_ERROR);
}

static size_t
keep_body(struct http_request *q, const char *data, size_t length)
{
	char text[120];

	if (length > q->max_body - bytes_length(&q->body)) {
		snprintf(text, sizeof text, "the answer is longer than %zu bytes; give it to a file or stream", q->max_body);
		stop_for(q, "ELIMIT", text);
		return 0;
	}
	if (!bytes_append(&q->body, data, length)) {
		stop_for(q, "ENOMEM", "out of memory");
		return 0;
	}
	return length;
}

static size_t
take_body(char *data, size_t size, size_t count, void *arg)
{
	struct http_request *q = arg;
	size_t length = size * count;

	if (q->streaming) {
		if (bytes_length(&q->waiting) > 0)
			return CURL_WRITEFUNC_PAUSE;
		if (!bytes_append(&q->waiting, data, length)) {
			stop_for(q, "ENOMEM", "out of memory");
			return 0;
		}
		q->response.body_length += length;
		return flush_waiting(q) ? length : 0;
	}
	return keep_body(q, data, length);
}

/* A new status line (after 100 Continue) begins the headers anew; it says whether the stream wants the body. */
static size_t
take_header(char *data, size_t size, size_t count, void *arg)
{
	struct http_request *q = arg;
	size_t length = size * count;
	long status = 0;

	if (length > 5 && memcmp(data, "HTTP/", 5) == 0) {
		q->curl->easy_getinfo(q->easy, CURLINFO_RESPONSE_CODE, &status);
		bytes_used(&q->head, bytes_length(&q->head));
		q->streaming = q->to != NULL && status / 100 == 2;
		return length;
	}
	if (bytes_length(&q->head) + length > MAX_HEADERS) {
		stop_for(q, "ELIMIT", "the answer has more than 1 MiB of headers");
		return 0;
	}
	if (!bytes_append(&q->head, data, length)) {
		stop_for(q, "ENOMEM", "out of memory");
		return 0;
	}
	return length;
}

/* ---- the body on its way out ---- */

static void
from_ready(void *arg)
{
	go_on(arg);
}

static size_t
give_body(char *buffer, size_t size, size_t count, void *arg)
{
	struct http_request *q = arg;
	ssize_t n = q->from->ops->read(q->from, buffer, size * count);

	if (n == STREAM_AGAIN) {
		q->from->ops->when(q->from, STREAM_READ, from_ready, q);
		return CURL_READFUNC_PAUSE;
	}
	if (n < 0) {
		stop_for_stream(q, q->from);
		return CURL_READFUNC_ABORT;
	}
	return (size_t)n;
}

/* ---- the end ---- */

static void
say_timeout(struct http_request *q)
{
	char *text = q->response.message;
	size_t size = sizeof q->response.message;
	double total = 0;

	q->curl->easy_getinfo(q->easy, CURLINFO_TOTAL_TIME, &total);
	if (http_never_sent(q->curl, q->easy))
		snprintf(text, size, "no connection within %.3g s", q->connect_timeout);
	else if (q->timeout > 0 && total >= q->timeout - 0.01)
		snprintf(text, size, "no whole answer within %.3g s", q->timeout);
	else
		snprintf(text, size, "no byte for %.3g s", q->stall);
}

static void
take_failure(struct http_request *q, CURLcode result)
{
	struct http_response *r = &q->response;

	r->code = http_failure(q->curl, q->easy, result, q->error);
	if (result == CURLE_OPERATION_TIMEDOUT)
		say_timeout(q);
	else
		snprintf(r->message, sizeof r->message, "%s",
		         q->error[0] != '\0' ? q->error : q->curl->easy_strerror(result));
}

static void
transfer_over(struct http_transfer *t, CURLcode result)
{
	struct http_request *q = (struct http_request *)t;
	char *redirect = NULL;

	q->over = true;
	if (q->from != NULL)
		q->from->ops->when(q->from, STREAM_READ, NULL, NULL);
	q->curl->easy_getinfo(q->easy, CURLINFO_RESPONSE_CODE, &q->response.status);
	q->curl->easy_getinfo(q->easy, CURLINFO_REDIRECT_URL, &redirect);
	q->response.redirect = redirect;
	if (result != CURLE_OK && q->failed == NULL)
		take_failure(q, result);
	q->entered = false;
	http_multi_leave(q->http, q->easy);
	if (result == CURLE_OK && bytes_length(&q->waiting) > 0)
		return;			/* to_ready finishes */
	if (q->to != NULL)
		q->to->ops->when(q->to, STREAM_WRITE, NULL, NULL);
	finish(q);
}

/* ---- the beginning ---- */

#define SET(q, option, value) (ok = (q)->curl->easy_setopt((q)->easy, (option), (value)) == CURLE_OK && ok)

static long
milliseconds(double seconds)
{
	return seconds <= 0 ? 0 : (long)(seconds * 1000 + 0.999);	/* 0 would mean: none */
}

static bool
set_body(struct http_request *q, const struct http_options *o)
{
	bool ok = true;

	if (o->from != NULL) {
		SET(q, CURLOPT_UPLOAD, 1L);
		SET(q, CURLOPT_READFUNCTION, give_body);
		SET(q, CURLOPT_READDATA, q);
		SET(q, CURLOPT_INFILESIZE_LARGE, (curl_off_t)o->from_length);
	} else if (o->body != NULL) {
		SET(q, CURLOPT_POST, 1L);
		SET(q, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)o->body_length);
		SET(q, CURLOPT_POSTFIELDS, o->body);
	} else if (strcmp(o->method, "HEAD") == 0) {
		SET(q, CURLOPT_NOBODY, 1L);
	} else {
		SET(q, CURLOPT_HTTPGET, 1L);
	}
	SET(q, CURLOPT_CUSTOMREQUEST, o->method);
	return ok;
}

static bool
add_header(struct http_request *q, const char *header)
{
	struct curl_slist *more = q->curl->slist_append(q->headers, header);

	if (more == NULL)
		return false;
	q->headers = more;
	return true;
}

static bool
set_headers(struct http_request *q, const char *const *headers)
{
	bool ok = true, typed = false;

	for (; *headers != NULL; headers++) {
		typed = typed || strncasecmp(*headers, "Content-Type:", 13) == 0;
		ok = add_header(q, *headers) && ok;
	}
	/* libcurl would call a body a form; and a server that never says 100 Continue would cost a second */
	ok = (typed || add_header(q, "Content-Type:")) && add_header(q, "Expect:") && ok;
	SET(q, CURLOPT_HTTPHEADER, q->headers);
	SET(q, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);	/* a proxy gets none of them */
	return ok;
}

static bool
set_times(struct http_request *q, const struct http_options *o)
{
	bool ok = true;

	q->timeout = o->timeout;
	q->connect_timeout = o->connect_timeout;
	q->stall = o->stall;
	SET(q, CURLOPT_TIMEOUT_MS, milliseconds(o->timeout));
	SET(q, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(o->connect_timeout));
	if (o->stall > 0) {
		SET(q, CURLOPT_LOW_SPEED_LIMIT, 1L);
		SET(q, CURLOPT_LOW_SPEED_TIME, (long)(o->stall + 0.999));
	}
	return ok;
}

static bool
set_all(struct http_request *q, const struct http_options *o)
{
	bool ok = true;

	SET(q, CURLOPT_PRIVATE, &q->transfer);
	SET(q, CURLOPT_ERRORBUFFER, q->error);
	SET(q, CURLOPT_NOSIGNAL, 1L);
	SET(q, CURLOPT_PROTOCOLS_STR, "http,https");
	SET(q, CURLOPT_URL, o->url);
	SET(q, CURLOPT_USERAGENT, "runbook");
	SET(q, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	SET(q, CURLOPT_WRITEFUNCTION, take_body);
	SET(q, CURLOPT_WRITEDATA, q);
	SET(q, CURLOPT_HEADERFUNCTION, take_header);
	SET(q, CURLOPT_HEADERDATA, q);
	/* An abandoned look-up of a name must not stop the loop until it ends; before 7.87 it does. */
	q->curl->easy_setopt(q->easy, CURLOPT_QUICK_EXIT, 1L);
	/* On a used connection that dies without an answer libcurl sends again, whatever the method. */
	SET(q, CURLOPT_FRESH_CONNECT, (long)o->once);
	if (o->user != NULL) {
		SET(q, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		SET(q, CURLOPT_USERNAME, o->user);
		SET(q, CURLOPT_PASSWORD, o->password);
	}
	if (o->to == NULL)
		SET(q, CURLOPT_ACCEPT_ENCODING, "");	/* a stream gets the bytes as they are */
	return http_set_way(q->curl, q->easy, o, &q->connect_to) && set_times(q, o) && set_body(q, o) && set_headers(q, o->headers) && ok;
}

struct http_request *
http_start(struct http *h, const struct http_options *o, void (*done)(void *arg), void *arg)
{
	struct http_request *q = calloc(1, sizeof *q);

	if (q == NULL)
		return NULL;
	q->transfer.over = transfer_over;
	q->http = h;
	q->curl = http_api(h);
	q->from = o->from;
	q->to = o->to;
	q->max_body = o->max_body;
	q->done = done;
	q->arg = arg;
	q->easy = q->curl->easy_init();
	if (q->easy == NULL || !set_all(q, o) || !http_multi_enter(h, q->easy)) {
		http_request_free(q);
		return NULL;
	}
	q->entered = true;
	return q;
}

const struct http_response *
http_response(const struct http_request *q)
{
	return &q->response;
}

void
http_request_free(struct http_request *q)
{
	if (q == NULL)
		return;
	if (q->from != NULL)
		q->from->ops->when(q->from, STREAM_READ, NULL, NULL);
	if (q->to != NULL)
		q->to->ops->when(q->to, STREAM_WRITE, NULL, NULL);
	if (q->entered)
		http_multi_leave(q->http, q->easy);
	if (q->easy != NULL)
		q->curl->easy_cleanup(q->easy);
	q->curl->slist_free_all(q->headers);
	q->curl->slist_free_all(q->connect_to);
	bytes_free(&q->head);
	bytes_free(&q->body);
	bytes_free(&q->waiting);
	free(q);
}
