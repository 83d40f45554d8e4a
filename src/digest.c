/* digest.c - see digest.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "digest.h"

#define READ_SIZE ((size_t)1 << 20)

static const EVP_MD *
algorithm_named(const char *name)
{
	if (strcmp(name, "sha256") == 0)
		return EVP_sha256();
	if (strcmp(name, "sha1") == 0)
		return EVP_sha1();
	if (strcmp(name, "sha512") == 0)
		return EVP_sha512();
	return NULL;
}

size_t
digest_of(const char *algorithm, const void *bytes, size_t length, unsigned char *out)
{
	const EVP_MD *md = algorithm_named(algorithm);
	unsigned n = 0;

	if (md == NULL || EVP_Digest(bytes, length, out, &n, md, NULL) != 1)
		return 0;
	return n;
}

size_t
digest_hmac(const char *algorithm, const void *key, size_t key_length, const void *bytes, size_t length,
            unsigned char *out)
{
	const EVP_MD *md = algorithm_named(algorithm);
	unsigned n = 0;

	if (md == NULL || key_length > INT32_MAX ||
	    HMAC(md, key, (int)key_length, bytes, length, out, &n) == NULL)
		return 0;
	return n;
}

void
digest_hex(const unsigned char *bytes, size_t length, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < length; i++) {
		*out++ = digits[bytes[i] >> 4];
		*out++ = digits[bytes[i] & 15];
	}
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool
digest_unhex(const char *text, size_t length, unsigned char *out)
{
	if (length % 2 != 0)
		return false;
	for (size_t i = 0; i < length; i += 2) {
		int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);

		if (high < 0 || low < 0)
			return false;
		*out++ = (unsigned char)(high << 4 | low);
	}
	return true;
}

size_t
digest_base64_length(size_t length)
{
	return (length + 2) / 3 * 4;
}

void
digest_base64(const void *bytes, size_t length, char *out)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = bytes;

	for (; length > 0; p += 3) {
		uint32_t group = (uint32_t)p[0] << 16 | (length > 1 ? (uint32_t)p[1] << 8 : 0) |
		                 (length > 2 ? p[2] : 0);

		*out++ = alphabet[group >> 18];
		*out++ = alphabet[group >> 12 & 63];
		*out++ = '=';
		*out++ = '=';
		if (length > 1)
			out[-2] = alphabet[group >> 6 & 63];
		if (length > 2)
			out[-1] = alphabet[group & 63];
		length -= length > 3 ? 3 : length;
	}
}

static int
base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+' || c == '-')
		return 62;
	if (c == '/' || c == '_')
		return 63;
	return -1;
}

size_t
digest_unbase64(const char *text, size_t length, unsigned char *out)
{
	size_t digits = 0, padding = 0, n = 0;
	uint32_t group = 0;

	for (size_t i = 0; i < length; i++) {
		int d = base64_digit(text[i]);

		if (text[i] == '\n' || text[i] == '\r')
			continue;
		if (text[i] == '=' && digits % 4 >= 2 && digits % 4 + padding < 4) {
			padding++;
			continue;
		}
		if (d < 0 || padding > 0)
			return (size_t)-1;
		group = group << 6 | (uint32_t)d;
		if (++digits % 4 != 0)
			continue;
		out[n++] = (unsigned char)(group >> 16);
		out[n++] = (unsigned char)(group >> 8);
		out[n++] = (unsigned char)group;
		group = 0;
	}
	/* Bits that fill up the last character are none of the bytes and must be zero. */
	if (digits % 4 == 1 || (padding > 0 && digits % 4 + padding != 4) ||
	    (digits % 4 == 2 && (group & 15) != 0) || (digits % 4 == 3 && (group & 3) != 0))
		return (size_t)-1;
	if (digits % 4 >= 2)
		out[n++] = (unsigned char)(group >> (digits % 4 == 2 ? 4 : 10));
	if (digits % 4 == 3)
		out[n++] = (unsigned char)(group >> 2);
	return n;
}

bool
digest_random(void *out, size_t length)
{
	return length <= INT32_MAX && RAND_bytes(out, (int)length) == 1;
}

/* Keys in the format of OpenSSH's PROTOCOL.key. */

#define ED25519      "ssh-ed25519"
#define KEY_HEAD     "-----BEGIN OPENSSH PRIVATE KEY-----\n"
#define KEY_FOOT     "-----END OPENSSH PRIVATE KEY-----\n"
#define KEY_COLUMNS  70
#define KEY_BLOCK    8
#define LONGEST_COMMENT 1024

struct wire {
	unsigned char data[2 * LONGEST_COMMENT + 512];
	size_t length;
};

static void
wire_raw(struct wire *w, const void *bytes, size_t length)
{
	memcpy(w->data + w->length, bytes, length);
	w->length += length;
}

static void
wire_number(struct wire *w, uint32_t n)
{
	unsigned char b[4] = { n >> 24 & 255, n >> 16 & 255, n >> 8 & 255, n & 255 };

	wire_raw(w, b, sizeof b);
}

static void
wire_bytes(struct wire *w, const void *bytes, size_t length)
{
	wire_number(w, (uint32_t)length);
	wire_raw(w, bytes, length);
}

static void
wire_text(struct wire *w, const char *text)
{
	wire_bytes(w, text, strlen(text));
}

static void
wire_public(struct wire *w, const unsigned char public[32])
{
	wire_text(w, ED25519);
	wire_bytes(w, public, 32);
}

/* What would be encrypted if the key had a passphrase. */
static void
wire_private(struct wire *w, uint32_t check, const unsigned char seed[32], const unsigned char public[32],
             const char *comment)
{
	wire_number(w, check);
	wire_number(w, check);
	wire_public(w, public);
	wire_number(w, 64);
	wire_raw(w, seed, 32);
	wire_raw(w, public, 32);
	wire_text(w, comment);
	for (unsigned char pad = 1; w->length % KEY_BLOCK != 0; pad++)
		wire_raw(w, &pad, 1);
}

static char *
armour(const struct wire *w, size_t *length)
{
	size_t n = digest_base64_length(w->length), lines = (n + KEY_COLUMNS - 1) / KEY_COLUMNS;
	char *flat = malloc(n), *text = malloc(sizeof KEY_HEAD + sizeof KEY_FOOT + n + lines), *p;

	if (flat == NULL || text == NULL) {
		free(flat);
		free(text);
		return NULL;
	}
	digest_base64(w->data, w->length, flat);
	p = stpcpy(text, KEY_HEAD);
	for (size_t at = 0; at < n; at += KEY_COLUMNS) {
		size_t part = n - at < KEY_COLUMNS ? n - at : KEY_COLUMNS;

		memcpy(p, flat + at, part);
		p += part;
		*p++ = '\n';
	}
	p = stpcpy(p, KEY_FOOT);
	*length = (size_t)(p - text);
	OPENSSL_cleanse(flat, n);
	free(flat);
	return text;
}

void
digest_fingerprint(const void *blob, size_t length, char out[64])
{
	unsigned char sum[32];

	memcpy(out, "SHA256:", 7);
	EVP_Digest(blob, length, sum, NULL, EVP_sha256(), NULL);
	digest_base64(sum, sizeof sum, out + 7);
	out[7 + 43] = '\0';	/* ssh-keygen shows no padding */
}

static char *
public_line(const struct wire *blob, const char *comment, size_t *length)
{
	size_t n = digest_base64_length(blob->length);
	char *text = malloc(sizeof ED25519 + n + 1 + strlen(comment) + 1), *p;

	if (text == NULL)
		return NULL;
	p = stpcpy(text, ED25519 " ");
	digest_base64(blob->data, blob->length, p);
	p += n;
	if (*comment != '\0') {
		*p++ = ' ';
		p = stpcpy(p, comment);
	}
	*p = '\0';
	*length = (size_t)(p - text);
	return text;
}

static bool
make_pair(unsigned char seed[32], unsigned char public[32])
{
	EVP_PKEY *pair = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	size_t n = 32, m = 32;
	bool ok = pair != NULL && EVP_PKEY_get_raw_private_key(pair, seed, &n) == 1 &&
	          EVP_PKEY_get_raw_public_key(pair, public, &m) == 1;

	EVP_PKEY_free(pair);
	return ok && n == 32 && m == 32;
}

bool
digest_key_make(struct digest_key *k, const char *comment)
{
	struct wire blob = { .length = 0 }, inner = { .length = 0 }, whole = { .length = 0 };
	unsigned char seed[32], public[32];
	uint32_t check;

	*k = (struct digest_key){ .private = NULL };
	if (strlen(comment) > LONGEST_COMMENT || !digest_random(&check, sizeof check) || !make_pair(seed, public))
		return false;
	wire_public(&blob, public);
	wire_private(&inner, check, seed, public, comment);
	wire_raw(&whole, "openssh-key-v1", sizeof "openssh-key-v1");	/* with its NUL */
	wire_text(&whole, "none");
	wire_text(&whole, "none");
	wire_text(&whole, "");
	wire_number(&whole, 1);
	wire_bytes(&whole, blob.data, blob.length);
	wire_bytes(&whole, inner.data, inner.length);
	k->private = armour(&whole, &k->private_length);
	k->public = public_line(&blob, comment, &k->public_length);
	digest_fingerprint(blob.data, blob.length, k->fingerprint);
	OPENSSL_cleanse(seed, sizeof seed);
	OPENSSL_cleanse(&inner, sizeof inner);
	OPENSSL_cleanse(&whole, sizeof whole);
	if (k->private != NULL && k->public != NULL)
		return true;
	digest_key_fini(k);
	return false;
}

void
digest_key_fini(struct digest_key *k)
{
	if (k->private != NULL)
		OPENSSL_cleanse(k->private, k->private_length);
	free(k->private);
	free(k->public);
	*k = (struct digest_key){ .private = NULL };
}

/* Files. */

struct digest_file {
	uv_work_t work;
	char *path;
	unsigned long long from, length;	/* of it; what is behind its end is not missed */
	struct digest_file_result result;
	atomic_bool abandoned;
	bool finished;			/* the loop's own */
	void (*done)(void *arg);
	void *arg;
};

static int
read_all(struct digest_file *f, int fd, EVP_MD_CTX *context)
{
	unsigned char *buffer = malloc(READ_SIZE);
	ssize_t n = -1;

	if (buffer == NULL)
		return ENOMEM;
	errno = 0;
	while (!atomic_load(&f->abandoned)) {
		unsigned long long left = f->length - f->result.size;

		n = left == 0 ? 0 : read(fd, buffer, left < READ_SIZE ? (size_t)left : READ_SIZE);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		EVP_DigestUpdate(context, buffer, (size_t)n);
		f->result.size += (unsigned long long)n;
	}
	free(buffer);
	return n < 0 ? errno : 0;
}

static void
work(uv_work_t *request)
{
	struct digest_file *f = request->data;
	int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	EVP_MD_CTX *context;

	if (fd < 0) {
		f->result.error = errno;
		return;
	}
	posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	context = EVP_MD_CTX_new();
	if (context == NULL || EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1) {
		f->result.error = ENOMEM;
	} else if (f->from > 0 && lseek(fd, (off_t)f->from, SEEK_SET) < 0) {
		f->result.error = errno;
	} else {
		f->result.error = read_all(f, fd, context);
		EVP_DigestFinal_ex(context, f->result.digest, NULL);
	}
	EVP_MD_CTX_free(context);
	close(fd);
}

static void
file_release(struct digest_file *f)
{
	free(f->path);
	free(f);
}

static void
after_work(uv_work_t *request, int status)
{
	struct digest_file *f = request->data;

	(void)status;
	f->finished = true;
	if (atomic_load(&f->abandoned))
		file_release(f);
	else
		f->done(f->arg);
}

struct digest_file *
digest_file_start(uv_loop_t *loop, const char *path, unsigned long long from, unsigned long long length,
                  void (*done)(void *arg), void *arg)
{
	struct digest_file *f = calloc(1, sizeof *f);

	if (f == NULL)
		return NULL;
	f->work.data = f;
	f->from = from;
	f->length = length;
	f->done = done;
	f->arg = arg;
	if ((f->path = strdup(path)) == NULL || uv_queue_work(loop, &f->work, work, after_work) != 0) {
		file_release(f);
		return NULL;
	}
	return f;
}

const struct digest_file_result *
digest_file_result(const struct digest_file *f)
{
	return &f->result;
}

void
digest_file_free(struct digest_file *f)
{
	if (f == NULL)
		return;
	if (f->finished) {
		file_release(f);
		return;
	}
	atomic_store(&f->abandoned, true);
	uv_cancel((uv_req_t *)&f->work);	/* after_work comes in any case */
}
