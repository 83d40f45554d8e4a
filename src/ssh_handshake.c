/*
 * ssh_handshake.c - key exchange, and whether the server is the one it should be.
 *
 * libssh2 takes the first host key algorithm both sides have; a server known by its ed25519 key
 * must not be judged by its ECDSA key, so what is known is asked for first.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#include "known_hosts.h"
#include "ssh_job.h"

#define ALGORITHMS 1024

/* Without the SHA-1 signatures of ssh-rsa, as ssh since 8.8. */
static const char usual_algorithms[] =
	"ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-512,rsa-sha2-256";

static void
prefer(char *list, const char *type, size_t length)
{
	char name[64];

	if (length >= sizeof name)
		return;
	memcpy(name, type, length);
	name[length] = '\0';
	if (strcmp(name, "ssh-rsa") == 0)
		snprintf(name, sizeof name, "rsa-sha2-512,rsa-sha2-256");
	if (strstr(list, name) == NULL && strlen(list) + strlen(name) + 2 < ALGORITHMS - sizeof usual_algorithms) {
		strcat(list, name);
		strcat(list, ",");
	}
}

static void
order_algorithms(struct ssh_job *j, const struct known_hosts *k)
{
	char list[ALGORITHMS] = "";
	const char *type;

	for (size_t i = 0; i < j->o->pin_count; i++) {
		const char *space = strchr(j->o->pins[i], ' ');

		if (space != NULL)
			prefer(list, j->o->pins[i], (size_t)(space - j->o->pins[i]));
	}
	for (size_t i = 0; j->o->pin_count == 0 && (type = known_hosts_type(k, i)) != NULL; i++)
		prefer(list, type, strlen(type));
	strcat(list, usual_algorithms);
	libssh2_session_method_pref(j->lib, LIBSSH2_METHOD_HOSTKEY, list);
}

/* Notes type, key and fingerprint of what the server showed. */
static bool
note_key(struct ssh_job *j, const unsigned char *key, size_t length)
{
	struct ssh_failure *f = &j->failure;
	unsigned char digest[EVP_MAX_MD_SIZE];
	char text[EVP_MAX_MD_SIZE * 2];
	unsigned n = 0;
	size_t name;

	if (length < 4)
		return false;
	name = (size_t)key[0] << 24 | (size_t)key[1] << 16 | (size_t)key[2] << 8 | key[3];
	if (name > length - 4 || name >= sizeof f->key_type)
		return false;
	memcpy(f->key_type, key + 4, name);
	f->key_type[name] = '\0';
	if (!EVP_Digest(key, length, digest, &n, EVP_sha256(), NULL))
		return false;
	EVP_EncodeBlock((unsigned char *)text, digest, (int)n);
	text[strcspn(text, "=")] = '\0';
	snprintf(f->fingerprint, sizeof f->fingerprint, "SHA256:%.50s", text);
	if ((f->key = malloc(length / 3 * 4 + 8)) == NULL)
		return false;
	EVP_EncodeBlock((unsigned char *)f->key, key, (int)length);
	return true;
}

static bool
pin_matches(const struct ssh_failure *f, const char *pin)
{
	const char *space = strchr(pin, ' ');
	size_t length;

	if (space == NULL)
		return strncmp(pin, f->fingerprint, strcspn(pin, "=")) == 0 &&
		       strlen(f->fingerprint) == strcspn(pin, "=");
	if (strlen(f->key_type) != (size_t)(space - pin) || strncmp(pin, f->key_type, strlen(f->key_type)) != 0)
		return false;
	length = strcspn(space + 1, " ");
	return strlen(f->key) == length && strncmp(space + 1, f->key, length) == 0;
}

static bool
pinned(struct ssh_job *j)
{
	struct ssh_failure *f = &j->failure;

	for (size_t i = 0; i < j->o->pin_count; i++)
		if (pin_matches(f, j->o->pins[i]))
			return true;
	ssh_failure_set(f, "EHOSTKEY_CHANGED", "%s shows the %s key %s, which is not the pinned %s%s", j->o->host,
	                f->key_type, f->fingerprint, j->o->pins[0],
	                j->o->pin_count > 1 ? " (nor another of the pinned)" : "");
	return false;
}

static bool
trusted(struct ssh_job *j, const struct known_hosts *k, const unsigned char *key, size_t length)
{
	struct ssh_failure *f = &j->failure;
	enum known_hosts_verdict verdict;
	const char *file;
	unsigned line;

	verdict = known_hosts_check(k, f->key_type, key, length, &file, &line);
	if (file != NULL)
		snprintf(f->known_at, sizeof f->known_at, "%s:%u", file, line);
	if (verdict == KNOWN_HOSTS_REVOKED) {
		ssh_failure_set(f, "EHOSTKEY_REVOKED", "%s shows the %s key %s, which %s says is revoked", j->o->host,
		                f->key_type, f->fingerprint, f->known_at);
		return false;
	}
	if (j->o->pin_count > 0)
		return pinned(j);
	switch (verdict) {
	case KNOWN_HOSTS_MATCH:
		return true;
	case KNOWN_HOSTS_CHANGED:
		ssh_failure_set(f, "EHOSTKEY_CHANGED", "%s shows the %s key %s, but %s knows it by another key",
		                j->o->host, f->key_type, f->fingerprint, f->known_at);
		return false;
	case KNOWN_HOSTS_CA:
		ssh_failure_set(f, "EHOSTKEY_CA", "%s is known only by the certificate authority in %s; host "
		                "certificates are not verified here, so its own key has to be known: it shows the %s key %s",
		                j->o->host, f->known_at, f->key_type, f->fingerprint);
		return false;
	default:
		ssh_failure_set(f, "EHOSTKEY_UNKNOWN", "%s is not known; it shows the %s key %s", j->o->host,
		                f->key_type, f->fingerprint);
		return false;
	}
}

/* NULL with the failure noted: a file that cannot be read may hold a revocation. */
static struct known_hosts *
read_known_hosts(struct ssh_job *j)
{
	const struct ssh_options *o = j->o;
	struct known_hosts *k = known_hosts_new(o->alias != NULL ? o->alias : o->host,
	                                        o->alias != NULL ? 22 : o->port);

	for (size_t i = 0; k != NULL && i < o->known_hosts_count; i++) {
		int error = known_hosts_read(k, o->known_hosts[i]);

		if (error == 0)
			continue;
		ssh_failure_set(&j->failure, "EHOSTKEY_UNKNOWN", "%s cannot be read: %s", o->known_hosts[i],
		                strerror(error));
		known_hosts_free(k);
		return NULL;
	}
	if (k == NULL)
		ssh_failure_set(&j->failure, "ENOMEM", "out of memory");
	return k;
}

static void
handshake_failed(struct ssh_job *j, int rc)
{
	struct ssh_failure *f = &j->failure;
	char *said = NULL;

	libssh2_session_last_error(j->lib, &said, NULL, 0);
	if (j->broken == ETIMEDOUT)
		ssh_failure_set(f, "EHANDSHAKE", "%s did not finish the handshake within %g s", j->o->host, j->o->timeout);
	else if (j->wire->reason[0] != '\0')
		ssh_failure_set(f, "EHANDSHAKE", "%s hung up during the handshake: %s", j->o->host, j->wire->reason);
	else if (j->broken != 0 || j->wire->error != 0)
		ssh_failure_set(f, "EHANDSHAKE", "%s: connection broken during the handshake: %s", j->o->host,
		                strerror(j->broken != 0 ? j->broken : j->wire->error));
	else if (rc == LIBSSH2_ERROR_KEX_FAILURE || rc == LIBSSH2_ERROR_METHOD_NONE)
		ssh_failure_set(f, "EPROTO", "%s and this program have no algorithm in common: %s", j->o->host,
		                said != NULL ? said : "key exchange failed");
	else if (rc == LIBSSH2_ERROR_BANNER_RECV && j->wire->received == 0)
		ssh_failure_set(f, "EHANDSHAKE", "%s hung up without a word (too many connections at once, or a "
		                "firewall)", j->o->host);
	else
		ssh_failure_set(f, "EHANDSHAKE", "%s: the handshake failed: %s", j->o->host,
		                said != NULL && *said != '\0' ? said : "it hung up");
}

/* libssh2 1.11.1 loses the host key (1 KB) of a handshake that breaks off after the server has shown it. */
static int
handshake(struct ssh_job *j)
{
	int rc;

#ifdef __SANITIZE_ADDRESS__
	__lsan_disable();
#endif
	do
		rc = libssh2_session_handshake(j->lib, j->wire->fd);
	while (ssh_job_again(j, rc));
#ifdef __SANITIZE_ADDRESS__
	__lsan_enable();
#endif
	return rc;
}

bool
ssh_job_shake_hands(struct ssh_job *j)
{
	struct known_hosts *k = read_known_hosts(j);
	const unsigned char *key;
	const char *banner;
	size_t length = 0;
	bool good = false;
	int rc, type;

	if (k == NULL)
		return false;
	order_algorithms(j, k);
	rc = handshake(j);
	if ((banner = libssh2_session_banner_get(j->lib)) != NULL)
		snprintf(j->banner, sizeof j->banner, "%s", banner);
	key = rc == 0 ? (const unsigned char *)libssh2_session_hostkey(j->lib, &length, &type) : NULL;
	if (rc != 0)
		handshake_failed(j, rc);
	else if (key == NULL || !note_key(j, key, length))
		ssh_failure_set(&j->failure, "EPROTO", "%s shows a host key that cannot be read", j->o->host);
	else
		good = trusted(j, k, key, length);
	known_hosts_free(k);
	return good;
}
