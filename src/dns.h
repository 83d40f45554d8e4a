/*
 * dns.h - one question to one DNS server, on the event loop.  Knows nothing of Lua.
 *
 * Over UDP first, then over TCP where the answer is cut; updates and whole zones over TCP.  Only answers to what was
 * asked count, and, with a key, only those that are signed with it.
 */
#ifndef RUNBOOK_DNS_H
#define RUNBOOK_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "dns_message.h"

struct dns_exchange;
struct dns_lookup;

struct dns_options {	/* all is copied */
	const char *address;		/* numeric */
	int port;
	const char *name, *type;	/* a question; type "AXFR": the whole zone */
	bool recurse, dnssec, tcp;
	const char *zone, *lines;	/* or an update, as in dns_message.h */
	const char *key_name, *key_algorithm, *key_secret;	/* NULL: not signed */
	size_t key_secret_length;
	double timeout;			/* seconds for the whole */
	size_t records;			/* the most that are kept */
};

struct dns_result {
	const char *code;	/* "ETIMEDOUT", "ECONNREFUSED", "EPROTO", "EFORGED", "ELIMIT"...; NULL when there is an answer */
	char message[256];
	struct dns_answer answer;
	bool tcp;
	unsigned key_error;	/* what the server says of our signature: 16 BADSIG, 17 BADKEY, 18 BADTIME; 0: nothing */
	int64_t skew;		/* seconds its clock is ahead of ours, with BADTIME */
};

/*
 * Calls done(arg) once, from the loop or before it returns.  NULL: why, the caller's and of `room` bytes, says what is
 * wrong with the options.
 */
struct dns_exchange *dns_start(uv_loop_t *loop, const struct dns_options *o, void (*done)(void *arg), void *arg,
                               char *why, size_t room);
const struct dns_result *dns_result(const struct dns_exchange *x);
/* Also abandons it: done is not called after this. */
void dns_free(struct dns_exchange *x);

/* The addresses of a host as this machine finds them (hosts file, resolver), on the thread pool. */
struct dns_lookup *dns_lookup_start(uv_loop_t *loop, const char *host, void (*done)(void *arg), void *arg);
/* 0, or a negative libuv error. */
int dns_lookup_error(const struct dns_lookup *l);
/* The nth address as text, false behind the last. */
bool dns_lookup_address(const struct dns_lookup *l, size_t n, char *text, size_t room);
void dns_lookup_free(struct dns_lookup *l);

#endif
