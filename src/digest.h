/*
 * digest.h - digests, base64, random bytes and key pairs, over OpenSSL.  Knows nothing of Lua.
 */
#ifndef RUNBOOK_DIGEST_H
#define RUNBOOK_DIGEST_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

#define DIGEST_LONGEST 64	/* bytes of any digest */

/* algorithm: "sha1", "sha256", "sha512".  Returns the digest's length, 0 for an unknown algorithm. */
size_t digest_of(const char *algorithm, const void *bytes, size_t length, unsigned char *out);
size_t digest_hmac(const char *algorithm, const void *key, size_t key_length, const void *bytes,
                   size_t length, unsigned char *out);

/* Text of 2 * length characters; no NUL. */
void digest_hex(const unsigned char *bytes, size_t length, char *out);
/* Returns false when it is no hex; out has room for length / 2 bytes. */
bool digest_unhex(const char *text, size_t length, unsigned char *out);

/* Characters of base64 for that many bytes, padding included. */
size_t digest_base64_length(size_t length);
/* Writes that many characters; no NUL. */
void digest_base64(const void *bytes, size_t length, char *out);
/*
 * Both alphabets, with padding or without, line ends between; out has room for length bytes.
 * Returns how many it wrote, or (size_t)-1 when it is no base64.
 */
size_t digest_unbase64(const char *text, size_t length, unsigned char *out);

bool digest_random(void *out, size_t length);

/* A key pair made in memory.  private is an unencrypted OpenSSH private key. */
struct digest_key {
	char *private, *public;		/* public: "ssh-ed25519 AAAA... comment" */
	size_t private_length, public_length;
	char fingerprint[64];		/* "SHA256:..." */
};

/* False: out of memory or of randomness. */
bool digest_key_make(struct digest_key *k, const char *comment);
void digest_key_fini(struct digest_key *k);	/* overwrites the private half */

/* "SHA256:..." of a public key's bytes. */
void digest_fingerprint(const void *blob, size_t length, char out[64]);

/* The SHA-256 of a file, or of a part of it, on the thread pool. */
struct digest_file;

struct digest_file_result {
	int error;			/* errno, or 0 */
	unsigned char digest[32];
	unsigned long long size;
};

/* Of `length` bytes at most, from byte `from` on.  Calls done(arg) once, from the loop.  NULL: out of memory. */
struct digest_file *digest_file_start(uv_loop_t *loop, const char *path, unsigned long long from, unsigned long long length,
                                      void (*done)(void *arg), void *arg);
const struct digest_file_result *digest_file_result(const struct digest_file *f);
void digest_file_free(struct digest_file *f);	/* also abandons it: done is not called after this */

#endif
