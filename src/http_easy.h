/* http_easy.h - what requests and websockets do alike with a handle of libcurl's: the way to a server, and why it failed. */
#ifndef RUNBOOK_HTTP_EASY_H
#define RUNBOOK_HTTP_EASY_H

#include <stdbool.h>

#include "http.h"
#include "http_curl.h"

/*
 * Proxy, TLS, where to, and how a connection is held: a server that is gone is noticed within a minute, also when it is silent.
 * What is put at connect_to is the caller's to free, after the handle.
 */
bool http_set_way(const struct http_curl *curl, CURL *easy, const struct http_options *o, struct curl_slist **connect_to);

/* Nothing of the request had left us: it may be made again, whatever it was. */
bool http_never_sent(const struct http_curl *curl, CURL *easy);

/* Our word for a failure; error: libcurl's text about it. */
const char *http_failure(const struct http_curl *curl, CURL *easy, CURLcode result, const char *error);

#endif
