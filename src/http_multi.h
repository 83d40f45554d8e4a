/* http_multi.h - between http.c, which knows requests, and http_multi.c, which knows the loop. */
#ifndef RUNBOOK_HTTP_MULTI_H
#define RUNBOOK_HTTP_MULTI_H

#include "http_curl.h"

struct http;
struct http_request;

const struct http_curl *http_api(const struct http *h);

/* The handle's private data must be its request.  From now on h lives until http_multi_leave. */
bool http_multi_enter(struct http *h, CURL *easy);
/* Takes the handle off the connections; may be called for one that is off already. */
void http_multi_leave(struct http *h, CURL *easy);

/* In http.c: the transfer has ended. */
void http_transfer_over(struct http_request *q, CURLcode result);

#endif
