/*
 * dns_tsig.h - DNS messages signed with a shared secret (RFC 8945).  Knows nothing of Lua.
 *
 * One signer goes with one request: it signs that, and verifies the messages of the answer in their order.
 */
#ifndef RUNBOOK_DNS_TSIG_H
#define RUNBOOK_DNS_TSIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"

struct dns_tsig;

enum dns_signed {
	DNS_SIGNED,		/* by whoever has our key, now */
	DNS_UNSIGNED,		/* carries no signature; in an answer of several messages a later one may vouch for it */
	DNS_COMPLAINS,		/* the server says what is wrong with our signature: see dns_tsig_error */
	DNS_FORGED,		/* signed, but not with our key, or not for this request */
	DNS_UNTIMELY		/* signed with our key, at another time */
};

/*
 * A key: algorithm "hmac-sha256", "hmac-sha512" or "hmac-sha1", the secret in base64 or as the file that
 * tsig-keygen writes.  NULL: *why says what is wrong (static).
 */
struct dns_tsig *dns_tsig_new(const char *name, const char *algorithm, const char *secret, size_t length,
                              const char **why);
void dns_tsig_free(struct dns_tsig *t);

/* Appends the signature; false: out of memory. */
bool dns_tsig_sign(struct dns_tsig *t, struct bytes *message, uint64_t now);

/* The next message of the answer.  Nothing is asked of its bytes. */
enum dns_signed dns_tsig_verify(struct dns_tsig *t, const unsigned char *message, size_t length, uint64_t now);

/* What the server complains of: 16 BADSIG, 17 BADKEY, 18 BADTIME... */
unsigned dns_tsig_error(const struct dns_tsig *t);

/* Seconds the server's clock is ahead of ours, after BADTIME or DNS_UNTIMELY. */
int64_t dns_tsig_skew(const struct dns_tsig *t);

/* Does a later message have to vouch for the last ones? */
bool dns_tsig_unsettled(const struct dns_tsig *t);

#endif
