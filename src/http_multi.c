/*
 * http_multi.c - libcurl's connections on the event loop.
 *
 * libcurl says which sockets and what time it wants to hear of; we tell it, and afterwards, outside of
 * its callbacks, look which transfers have ended.
 */
#include <stdlib.h>

#include "http.h"
#include "http_multi.h"

#define CONNECTIONS_KEPT 64

struct http {
	uv_loop_t *loop;
	const struct http_curl *curl;
	CURLM *multi;
	uv_timer_t timer;
	unsigned transfers;
	bool unwanted;		/* http_free was called */
};

struct watched {		/* one socket of libcurl's */
	uv_poll_t poll;
	struct http *http;
	curl_socket_t socket;
};

const struct http_curl *
http_api(const struct http *h)
{
	return h->curl;
}

static void
free_handle(uv_handle_t *handle)
{
	free(handle->data);
}

static void
end_if_unused(struct http *h)
{
	if (!h->unwanted || h->transfers > 0)
		return;
	h->curl->multi_cleanup(h->multi);
	uv_timer_stop(&h->timer);
	uv_close((uv_handle_t *)&h->timer, free_handle);
}

static void
look_for_ends(struct http *h)
{
	struct http_transfer *t;
	CURLMsg *m;
	CURLcode result;
	CURL *easy;
	int left;

	h->transfers++;				/* the last one to end must not take h with it yet */
	while ((m = h->curl->multi_info_read(h->multi, &left)) != NULL) {
		if (m->msg != CURLMSG_DONE)
			continue;
		easy = m->easy_handle;		/* m is gone with the handle */
		result = m->data.result;
		h->curl->easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&t);
		t->over(t, result);
	}
	h->transfers--;
	end_if_unused(h);
}

static void
socket_ready(uv_poll_t *poll, int status, int events)
{
	struct watched *w = poll->data;
	struct http *h = w->http;
	int flags = 0, running;

	if (status < 0)		/* libcurl finds out what by trying; told of an error it knows no reason */
		flags = CURL_CSELECT_IN | CURL_CSELECT_OUT;
	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	h->curl->multi_socket_action(h->multi, w->socket, flags, &running);	/* may free w */
	look_for_ends(h);
}

/* Before libcurl closes a socket it says so here, so no number is watched twice. */
static int
socket_wanted(CURL *easy, curl_socket_t socket, int what, void *arg, void *known)
{
	struct http *h = arg;
	struct watched *w = known;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (w != NULL) {
			uv_poll_stop(&w->poll);
			uv_close((uv_handle_t *)&w->poll, free_handle);
			h->curl->multi_assign(h->multi, socket, NULL);
		}
		return 0;
	}
	if (w == NULL) {
		if ((w = calloc(1, sizeof *w)) == NULL)
			return -1;
		w->http = h;
		w->socket = socket;
		if (uv_poll_init_socket(h->loop, &w->poll, socket) != 0) {
			free(w);
			return -1;
		}
		w->poll.data = w;
		h->curl->multi_assign(h->multi, socket, w);
	}
	uv_poll_start(&w->poll, (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0),
	              socket_ready);
	return 0;
}

static void
time_up(uv_timer_t *timer)
{
	struct http *h = timer->data;
	int running;

	h->curl->multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	look_for_ends(h);
}

static int
time_wanted(CURLM *multi, long milliseconds, void *arg)
{
	struct http *h = arg;

	(void)multi;
	if (milliseconds < 0)
		uv_timer_stop(&h->timer);
	else
		uv_timer_start(&h->timer, time_up, (uint64_t)milliseconds, 0);
	return 0;
}

struct http *
http_new(uv_loop_t *loop, long per_host, const char **why)
{
	const struct http_curl *curl = http_curl(why);
	struct http *h;

	if (curl == NULL)
		return NULL;
	*why = "out of memory";
	if ((h = calloc(1, sizeof *h)) == NULL)
		return NULL;
	if ((h->multi = curl->multi_init()) == NULL) {
		free(h);
		return NULL;
	}
	h->loop = loop;
	h->curl = curl;
	uv_timer_init(loop, &h->timer);
	h->timer.data = h;
	curl->multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, socket_wanted);
	curl->multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
	curl->multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, time_wanted);
	curl->multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
	curl->multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)CONNECTIONS_KEPT);
	curl->multi_setopt(h->multi, CURLMOPT_MAX_HOST_CONNECTIONS, per_host);
	return h;
}

void
http_free(struct http *h)
{
	if (h == NULL)
		return;
	h->unwanted = true;
	end_if_unused(h);
}

bool
http_multi_enter(struct http *h, CURL *easy)
{
	if (h->curl->multi_add_handle(h->multi, easy) != CURLM_OK)
		return false;
	h->transfers++;
	return true;
}

void
http_multi_leave(struct http *h, CURL *easy)
{
	h->curl->multi_remove_handle(h->multi, easy);
	h->transfers--;
	end_if_unused(h);
}
