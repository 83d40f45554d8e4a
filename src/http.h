/*
 * http.h - HTTP requests on the event loop, over libcurl.  Knows nothing of Lua.
 *
 * Only http and https; certificates are verified unless the caller says that he knows better; redirects
 * are told, not followed, because who follows them must decide which headers may go along.
 */
#ifndef RUNBOOK_HTTP_H
#define RUNBOOK_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

#include "stream.h"

struct http;		/* the connections of one loop */
struct http_request;

struct http_options {	/* all is copied, except the body and the streams */
	const char *method, *url;
	const char *const *headers;		/* "Name: value", NULL at the end */
	const char *body;			/* NULL: none */
	size_t body_length;
	struct stream *from;			/* the body, instead of bytes; its length or -1 */
	long long from_length;
	struct stream *to;			/* takes the body of an answer 2xx; others are kept */
	bool once;				/* must not reach the server twice */
	size_t max_body;			/* of what is kept */
	double timeout, connect_timeout, stall;	/* seconds; 0: none */
	const char *user, *password;		/* basic authentication; NULL: none */
	const char *proxy;			/* NULL: by the environment; "": none */
	const char *ca, *certificate, *key;	/* PEM; NULL: the system's, none, in the certificate */
	size_t ca_length, certificate_length, key_length;
	const char *connect_to;			/* "host:port:host:port": go there, when the URL says this; NULL */
	bool insecure;				/* any certificate will do */
	bool plain;				/* HTTP/1.1: one request a connection at a time */
};

struct http_response {
	const char *code;		/* "ETIMEDOUT", "ETLS", ...; NULL when an answer came whole */
	char message[320];
	long status;
	const char *headers;		/* of the last answer: "Name: value\r\n"... */
	size_t headers_length;
	const char *body;		/* NULL: it went to the stream */
	size_t body_length;
	const char *redirect;		/* the absolute URL it points to, or NULL */
};

/*
 * per_host: connections to one server at once, more requests wait for one of them; 0: any number.
 * NULL when libcurl cannot be used; *why is then a sentence.
 */
struct http *http_new(uv_loop_t *loop, long per_host, const char **why);
/* Requests that still run keep it; it goes with the last of them. */
void http_free(struct http *h);

/*
 * Calls done(arg) once, from the loop.  NULL: out of memory, or an option libcurl refuses.
 * The body and the streams must live until then, or until http_request_free.
 */
struct http_request *http_start(struct http *h, const struct http_options *o, void (*done)(void *arg), void *arg);
const struct http_response *http_response(const struct http_request *q);
/* Also abandons it: done is not called after this. */
void http_request_free(struct http_request *q);

#endif
