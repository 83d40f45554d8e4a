/*
 * ssh_auth.c - gets into the server: agent, keys and certificates; ssh_questions.c has password and questions.
 *
 * A server counts every try and hangs up after a few, so a method is tried only when the server
 * offers it.  After a try the offer may have changed (a key may be the first of two factors), so it
 * is asked for again before a method is left out.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "ssh_agent.h"
#include "ssh_job.h"

#define KEY_FILE_MAX (1024 * 1024)

bool
ssh_job_dead(const struct ssh_job *j)
{
	return j->broken != 0 || j->wire->error != 0 || j->wire->reason[0] != '\0';
}

/* Fetches what the server offers.  True when that alone let us in. */
static bool
ask_offer(struct ssh_job *j)
{
	const char *user = j->o->user;
	char *list;

	/* libssh2 up to 1.11.1 forgets the list it gave when it is asked again, so we free that one. */
	if (libssh2_version(0x010b02) == NULL)
		libssh2_free(j->lib, j->list);
	j->list = NULL;
	do
		list = libssh2_userauth_list(j->lib, user, (unsigned)strlen(user));
	while (list == NULL && ssh_job_again(j, libssh2_session_last_errno(j->lib)));
	j->list = list;
	if (list != NULL)
		snprintf(j->failure.offered, sizeof j->failure.offered, "%s", list);
	return list == NULL && libssh2_userauth_authenticated(j->lib);
}

static bool
in_list(const char *list, const char *word)
{
	size_t length = strlen(word);

	while (*list != '\0') {
		size_t n = strcspn(list, ",");

		if (n == length && memcmp(list, word, n) == 0)
			return true;
		list += n + (list[n] == ',');
	}
	return false;
}

bool
ssh_job_offers(struct ssh_job *j, const char *method)
{
	if (in_list(j->failure.offered, method))
		return true;
	if (j->failure.tried[0] == '\0' || ssh_job_dead(j))
		return false;
	ask_offer(j);
	return in_list(j->failure.offered, method);
}

bool
ssh_job_let_in(struct ssh_job *j, int rc, const char *how)
{
	if (rc == 0)
		snprintf(j->method, sizeof j->method, "%.*s", (int)sizeof j->method - 1, how);
	return rc == 0;
}

/* The whole file; NULL with errno. */
static char *
read_file(const char *path, size_t *length)
{
	FILE *f = fopen(path, "re");
	char *text = NULL;
	int error = 0;

	if (f == NULL)
		return NULL;
	if ((text = malloc(KEY_FILE_MAX)) == NULL) {
		error = ENOMEM;
	} else {
		errno = 0;
		*length = fread(text, 1, KEY_FILE_MAX - 1, f);
		text[*length] = '\0';
		if (ferror(f))
			error = errno != 0 ? errno : EIO;
	}
	fclose(f);
	if (error != 0) {
		free(text);
		errno = error;
		return NULL;
	}
	return text;
}

/* The second word of a public key or certificate file, decoded. */
static unsigned char *
public_blob(const char *path, size_t *length)
{
	size_t text_length;
	char *text = read_file(path, &text_length), *word, *rest = NULL;
	unsigned char *blob = NULL;
	int n = -1;

	if (text == NULL)
		return NULL;
	if (strtok_r(text, " \n", &rest) != NULL && (word = strtok_r(NULL, " \n", &rest)) != NULL &&
	    (blob = malloc(strlen(word) + 4)) != NULL)
		n = EVP_DecodeBlock(blob, (unsigned char *)word, (int)strlen(word));
	if (n >= 0)
		*length = (size_t)n - (strstr(word, "==") != NULL ? 2 : strchr(word, '=') != NULL ? 1 : 0);
	free(text);
	if (n < 0) {
		free(blob);
		return NULL;
	}
	return blob;
}

static bool
same_public(const char *path, const struct ssh_agent_key *k)
{
	size_t length = 0;
	unsigned char *blob = public_blob(path, &length);
	bool same = blob != NULL && length == k->length && memcmp(blob, k->blob, length) == 0;

	free(blob);
	return same;
}

/* Whether the agent's key stands in the list of identities: by its .pub file or its certificate. */
static bool
listed(const struct ssh_options *o, const struct ssh_agent_key *k)
{
	char path[4096];

	for (size_t i = 0; i < o->identity_count; i++) {
		const struct ssh_identity *id = &o->identities[i];

		if (id->certificate != NULL && same_public(id->certificate, k))
			return true;
		if (id->path == NULL)
			continue;
		snprintf(path, sizeof path, "%s.pub", id->path);
		if (same_public(path, k) || same_public(id->path, k))
			return true;
	}
	return false;
}

struct signer {
	struct ssh_agent *agent;
	const struct ssh_agent_key *key;
	bool refused;
};

static LIBSSH2_USERAUTH_PUBLICKEY_SIGN_FUNC(agent_signs)
{
	struct signer *s = *abstract;

	(void)session;
	if (ssh_agent_sign(s->agent, s->key, data, data_len, sig, sig_len) == 0)
		return 0;
	s->refused = true;
	return LIBSSH2_ERROR_AGENT_PROTOCOL;
}

static bool
try_agent_keys(struct ssh_job *j, struct ssh_agent *agent)
{
	size_t offers = 0, refusals = 0;
	int rc;

	for (size_t i = 0; i < ssh_agent_count(agent) && !ssh_job_dead(j); i++) {
		struct signer s = { agent, ssh_agent_key(agent, i), false };
		void *abstract = &s;

		if (j->o->identities_only && !listed(j->o, s.key))
			continue;
		do
			rc = libssh2_userauth_publickey(j->lib, j->o->user, s.key->blob, s.key->length, agent_signs,
			                                &abstract);
		while (ssh_job_again(j, rc));
		if (ssh_job_let_in(j, rc, "agent"))
			return true;
		offers++;
		refusals += s.refused;
	}
	if (refusals > 0)
		SSH_TRIED(j, "agent (%zu keys, of which it did not sign with %zu)", offers, refusals);
	else
		SSH_TRIED(j, "agent (%zu keys of %zu)", offers, ssh_agent_count(agent));
	return false;
}

static bool
try_agent(struct ssh_job *j)
{
	char why[256];
	struct ssh_agent *agent;
	bool in;

	if (j->o->agent == NULL || !ssh_job_offers(j, "publickey"))
		return false;
	if ((agent = ssh_agent_open(j->o->agent, j->deadline, why, sizeof why)) == NULL) {
		SSH_TRIED(j, "%s", why);
		return false;
	}
	in = try_agent_keys(j, agent);
	ssh_agent_close(agent);
	return in;
}

/* PEM says it in words; the OpenSSH format names a cipher in its first bytes. */
static bool
is_encrypted(const char *key, size_t length)
{
	static const char begin[] = "-----BEGIN OPENSSH PRIVATE KEY-----";
	const char *at = strstr(key, begin);
	unsigned char head[64 / 4 * 3];
	char text[65];
	size_t n = 0;

	if (at == NULL)
		return strstr(key, "ENCRYPTED") != NULL;
	for (at += sizeof begin - 1; at < key + length && n < 64; at++)
		if (*at != '\n' && *at != '\r')
			text[n++] = *at;
	/* "openssh-key-v1\0", then a string with its length: "none" or a cipher. */
	if (n < 64 || EVP_DecodeBlock(head, (unsigned char *)text, 64) < 0)
		return false;
	return memcmp(head + 19, "none", 4) != 0;
}

static void
note_locked(struct ssh_job *j, const struct ssh_identity *id)
{
	if (j->failure.locked[0] == '\0' && id->path != NULL)
		snprintf(j->failure.locked, sizeof j->failure.locked, "%s", id->path);
}

static bool
try_key(struct ssh_job *j, const struct ssh_identity *id, const char *key, size_t length)
{
	const char *name = id->path != NULL ? id->path : "key from memory";
	size_t public_length = 0;
	bool certified = id->certificate != NULL || id->certificate_text.bytes != NULL;
	char *file = NULL;
	int rc;

	if (is_encrypted(key, length) && id->passphrase.bytes == NULL) {
		note_locked(j, id);
		SSH_TRIED(j, "%s (needs its passphrase)", name);
		return false;
	}
	if (id->certificate != NULL && (file = read_file(id->certificate, &public_length)) == NULL) {
		SSH_TRIED(j, "%s (%s)", id->certificate, strerror(errno));
		return false;
	}
	if (file == NULL)
		public_length = id->certificate_text.length;
	do
		rc = libssh2_userauth_publickey_frommemory(j->lib, j->o->user, strlen(j->o->user),
		                                           file != NULL ? file : id->certificate_text.bytes, public_length,
		                                           key, length, id->passphrase.bytes);
	while (ssh_job_again(j, rc));
	free(file);
	if (ssh_job_let_in(j, rc, name))
		return true;
	if (rc == LIBSSH2_ERROR_AUTHENTICATION_FAILED || rc == LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED) {
		SSH_TRIED(j, "%s%s", name, certified ? " with its certificate" : "");
	} else if (is_encrypted(key, length) && !ssh_job_dead(j)) {
		note_locked(j, id);
		SSH_TRIED(j, "%s (wrong passphrase)", name);
	} else {
		SSH_TRIED(j, "%s (%s)", name, ssh_job_dead(j) ? "cut off" : "not a private key that can be read");
	}
	return false;
}

static bool
try_identities(struct ssh_job *j)
{
	for (size_t i = 0; i < j->o->identity_count && !ssh_job_dead(j); i++) {
		const struct ssh_identity *id = &j->o->identities[i];
		size_t length;
		char *key;
		bool in;

		if (!ssh_job_offers(j, "publickey"))
			return false;
		if (id->key.bytes != NULL) {
			in = try_key(j, id, id->key.bytes, id->key.length);
		} else if ((key = read_file(id->path, &length)) != NULL) {
			in = try_key(j, id, key, length);
			OPENSSL_cleanse(key, length);
			free(key);
		} else {
			SSH_TRIED(j, "%s (%s)", id->path, strerror(errno));
			in = false;
		}
		if (in)
			return true;
	}
	return false;
}

static bool
try_method(struct ssh_job *j, enum ssh_method m)
{
	switch (m) {
	case SSH_AGENT:
		return try_agent(j);
	case SSH_IDENTITIES:
		return try_identities(j);
	case SSH_PASSWORD:
		return ssh_job_try_password(j);
	default:
		return ssh_job_try_questions(j);
	}
}

static void
refused(struct ssh_job *j)
{
	struct ssh_failure *f = &j->failure;
	const char *tried = f->tried[0] != '\0' ? f->tried : "nothing: there is no key, agent or password to try";

	if (!ssh_job_dead(j))
		ask_offer(j);
	if (j->broken == ETIMEDOUT)
		ssh_failure_set(f, "EHANDSHAKE", "%s did not finish the authentication of %s within %g s; tried: %s",
		                j->o->host, j->o->user, j->o->timeout, tried);
	else if (j->wire->reason[0] != '\0')
		ssh_failure_set(f, "EAUTH", "%s hung up on %s: %s; tried: %s", j->o->host, j->o->user, j->wire->reason,
		                tried);
	else if (ssh_job_dead(j) || f->offered[0] == '\0')	/* a server that lives offers something */
		ssh_failure_set(f, "EHANDSHAKE", "%s: connection broken during the authentication of %s; tried: %s",
		                j->o->host, j->o->user, tried);
	else
		ssh_failure_set(f, "EAUTH", "%s does not let %s in; tried: %s; it offers %s", j->o->host, j->o->user,
		                tried, f->offered);
}

void
ssh_job_authenticate(struct ssh_job *j)
{
	if (ask_offer(j)) {
		ssh_job_let_in(j, 0, "none");
		return;
	}
	for (size_t i = 0; i < j->o->order_count && !ssh_job_dead(j) && j->failure.code == NULL; i++)
		if (try_method(j, j->o->order[i]))
			return;
	if (ssh_job_ask_password(j))
		return;
	refused(j);
}
