/* http_multi.h - between those who know what is transferred (http.c, websocket.c) and http_multi.c, which knows the loop. */
#ifndef RUNBOOK_HTTP_MULTI_H
#define RUNBOOK_HTTP_MULTI_H

#include "http_curl.h"

struct http;

struct http_transfer {
	void (*over)(struct http_transfer *t, CURLcode result);
};

const struct http_curl *http_api(const struct http *h);

/* The handle's private data must be its transfer.  From now on h lives until http_multi_leave. */
bool http_multi_enter(struct http *h, CURL *easy);
/* Takes the handle off the connections; may be called for one that is off already. */
void http_multi_leave(struct http *h, CURL *easy);

#endif
