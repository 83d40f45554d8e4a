/*
 * known_hosts.h - what known_hosts files say about one server.
 *
 * Plain, hashed and [host]:port entries, wildcards, negation, @revoked and @cert-authority, as ssh
 * reads them.  Certificates of hosts are not verified: a host that only a @cert-authority line
 * vouches for is told apart, so that the refusal can say so.
 */
#ifndef RUNBOOK_KNOWN_HOSTS_H
#define RUNBOOK_KNOWN_HOSTS_H

#include <stddef.h>

enum known_hosts_verdict {
	KNOWN_HOSTS_MATCH,	/* exactly this key */
	KNOWN_HOSTS_UNKNOWN,	/* nothing about this server */
	KNOWN_HOSTS_CHANGED,	/* other keys only */
	KNOWN_HOSTS_REVOKED,	/* this key is marked @revoked */
	KNOWN_HOSTS_CA		/* only a @cert-authority */
};

struct known_hosts;

/* Collects the entries for this server.  NULL: out of memory. */
struct known_hosts *known_hosts_new(const char *host, int port);
void known_hosts_free(struct known_hosts *k);

/* Adds the entries of a text; `file` is for messages.  0, or -1 when memory ran out. */
int known_hosts_parse(struct known_hosts *k, const char *file, const char *text, size_t length);

/* Reads a file.  0, or a positive errno; a file that does not exist is an empty one. */
int known_hosts_read(struct known_hosts *k, const char *path);

/* The n-th type of key an entry (neither revoked nor an authority) names, or NULL. */
const char *known_hosts_type(const struct known_hosts *k, size_t n);

/*
 * What the files say to this key (wire format, with its type's name).  *file and *line tell the
 * entry that decided, if one did; else they are NULL and 0.
 */
enum known_hosts_verdict known_hosts_check(const struct known_hosts *k, const char *type,
                                           const unsigned char *key, size_t length,
                                           const char **file, unsigned *line);

#endif
