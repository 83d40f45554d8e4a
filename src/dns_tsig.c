/* dns_tsig.c - see dns_tsig.h. */
#include "dns_tsig.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <ldns/ldns.h>
#include <openssl/crypto.h>

#include "digest.h"

#define TYPE_TSIG    250
#define CLASS_ANY    255
#define FUDGE        300	/* seconds; what RFC 8945 recommends */
#define NAME_LONGEST 255
#define BADTIME      18
#define UNSIGNED_MAX ((size_t)4 << 20)	/* bytes a later message may vouch for */

struct dns_tsig {
	unsigned char name[NAME_LONGEST], algorithm[NAME_LONGEST];	/* on the wire, lower case */
	size_t name_length, algorithm_length;
	const char *hash;
	unsigned char mac[DIGEST_LONGEST];	/* of the request, then of the last signed message of the answer */
	size_t mac_length;
	bool later;			/* the answer's first message has been verified */
	struct bytes waiting;		/* messages without a signature of their own */
	unsigned error;
	int64_t skew;
	size_t secret_length;
	unsigned char secret[];
};

/* A TSIG record, taken apart; what it points to is the message's. */
struct record {
	unsigned char owner[NAME_LONGEST], algorithm[NAME_LONGEST];
	size_t owner_length, algorithm_length;
	size_t start;			/* of the record in its message */
	uint64_t time;
	unsigned fudge, original_id, error;
	const unsigned char *mac, *other;
	size_t mac_length, other_length;
};

static unsigned
get16(const unsigned char *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static uint64_t
get48(const unsigned char *p)
{
	uint64_t n = 0;

	for (int i = 0; i < 6; i++)
		n = n << 8 | p[i];
	return n;
}

static void
put16(unsigned char *p, unsigned n)
{
	p[0] = (unsigned char)(n >> 8);
	p[1] = (unsigned char)n;
}

static void
put48(unsigned char *p, uint64_t n)
{
	for (int i = 5; i >= 0; i--, n >>= 8)
		p[i] = (unsigned char)n;
}

static unsigned char
lower(unsigned char c)
{
	return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 'a' - 'A') : c;
}

/* ---- keys ---- */

/* A name as the wire has it; 0 when it is none. */
static size_t
wire_name(const char *text, unsigned char *out)
{
	ldns_rdf *name = ldns_dname_new_frm_str(text);
	size_t length = 0;

	if (name == NULL)
		return 0;
	if (ldns_rdf_size(name) <= NAME_LONGEST) {
		length = ldns_rdf_size(name);
		for (size_t i = 0; i < length; i++)
			out[i] = lower(ldns_rdf_data(name)[i]);
	}
	ldns_rdf_deep_free(name);
	return length;
}

static const char *
hash_of(const char *algorithm)
{
	if (strcasecmp(algorithm, "hmac-sha256") == 0)
		return "sha256";
	if (strcasecmp(algorithm, "hmac-sha512") == 0)
		return "sha512";
	if (strcasecmp(algorithm, "hmac-sha1") == 0)
		return "sha1";
	return NULL;
}

/* The base64 of a file like key "name" { algorithm hmac-sha256; secret "..."; }; or the text itself. */
static void
base64_within(const char **text, size_t *length)
{
	static const char word[] = "secret";
	const char *end = *text + *length, *at = memmem(*text, *length, word, sizeof word - 1), *quote;

	if (at == NULL)
		return;
	for (at += sizeof word - 1; at < end && (*at == ' ' || *at == '\t'); at++)
		;
	if (at == end || *at != '"' || (quote = memchr(at + 1, '"', (size_t)(end - at - 1))) == NULL)
		return;
	*text = at + 1;
	*length = (size_t)(quote - at - 1);
}

struct dns_tsig *
dns_tsig_new(const char *name, const char *algorithm, const char *secret, size_t length, const char **why)
{
	struct dns_tsig *t;
	size_t decoded;

	base64_within(&secret, &length);
	*why = "out of memory";
	if ((t = calloc(1, sizeof *t + length + 1)) == NULL)
		return NULL;
	decoded = digest_unbase64(secret, length, t->secret);
	t->hash = hash_of(algorithm);
	t->name_length = wire_name(name, t->name);
	t->algorithm_length = wire_name(algorithm, t->algorithm);
	t->secret_length = decoded != (size_t)-1 ? decoded : 0;
	*why = t->name_length == 0 ? "the key's name is no name" :
	       t->hash == NULL ? "the key's algorithm is none of hmac-sha256, hmac-sha512, hmac-sha1" :
	       t->secret_length == 0 ? "the key's secret is no base64" : NULL;
	if (*why != NULL) {
		dns_tsig_free(t);
		return NULL;
	}
	return t;
}

void
dns_tsig_free(struct dns_tsig *t)
{
	if (t == NULL)
		return;
	bytes_free(&t->waiting);
	OPENSSL_cleanse(t->secret, t->secret_length);
	free(t);
}

/* ---- signing ---- */

static bool
append16(struct bytes *b, unsigned n)
{
	unsigned char two[2];

	put16(two, n);
	return bytes_append(b, two, sizeof two);
}

static bool
append48(struct bytes *b, uint64_t n)
{
	unsigned char six[6];

	put48(six, n);
	return bytes_append(b, six, sizeof six);
}

/* What is signed besides the message: all of the record but the signature, or its times only. */
static bool
append_variables(const struct dns_tsig *t, struct bytes *b, const struct record *r, bool times_only)
{
	static const unsigned char class_and_ttl[] = { 0, CLASS_ANY, 0, 0, 0, 0 };

	if (times_only)
		return append48(b, r->time) && append16(b, r->fudge);
	return bytes_append(b, t->name, t->name_length) && bytes_append(b, class_and_ttl, sizeof class_and_ttl) &&
	       bytes_append(b, t->algorithm, t->algorithm_length) && append48(b, r->time) && append16(b, r->fudge) &&
	       append16(b, r->error) && append16(b, (unsigned)r->other_length) &&
	       bytes_append(b, r->other, r->other_length);
}

static size_t
sign_bytes(const struct dns_tsig *t, const struct bytes *b, unsigned char *mac)
{
	return digest_hmac(t->hash, t->secret, t->secret_length, bytes_first(b), bytes_length(b), mac);
}

bool
dns_tsig_sign(struct dns_tsig *t, struct bytes *message, uint64_t now)
{
	static const unsigned char head[] = { 0, TYPE_TSIG, 0, CLASS_ANY, 0, 0, 0, 0 };
	unsigned char *wire = (unsigned char *)bytes_first(message);
	struct record r = { .time = now, .fudge = FUDGE, .original_id = get16(wire) };
	struct bytes b = { NULL, 0, 0, 0 };
	bool good = bytes_append(&b, wire, bytes_length(message)) && append_variables(t, &b, &r, false) &&
	            (t->mac_length = sign_bytes(t, &b, t->mac)) > 0;

	bytes_free(&b);
	good = good && bytes_append(message, t->name, t->name_length) && bytes_append(message, head, sizeof head) &&
	       append16(message, (unsigned)(t->algorithm_length + 16 + t->mac_length)) &&
	       bytes_append(message, t->algorithm, t->algorithm_length) && append48(message, now) &&
	       append16(message, FUDGE) && append16(message, (unsigned)t->mac_length) &&
	       bytes_append(message, t->mac, t->mac_length) && append16(message, r.original_id) &&
	       append16(message, 0) && append16(message, 0);
	if (good) {
		wire = (unsigned char *)bytes_first(message);
		put16(wire + 10, get16(wire + 10) + 1);
	}
	return good;
}

/* ---- verifying ---- */

/* The offset behind the name at `at`, 0 when there is none. */
static size_t
skip_name(const unsigned char *m, size_t length, size_t at)
{
	while (at < length) {
		if (m[at] == 0)
			return at + 1;
		if ((m[at] & 0xc0) == 0xc0)
			return at + 2 <= length ? at + 2 : 0;
		if ((m[at] & 0xc0) != 0)
			return 0;
		at += (size_t)m[at] + 1;
	}
	return 0;
}

/* The name at `at`, pointers followed, in lower case; its length, 0 when it is none. */
static size_t
read_name(const unsigned char *m, size_t length, size_t at, unsigned char *out)
{
	size_t n = 0, limit = at;

	while (at < length) {
		size_t label = m[at];

		if ((label & 0xc0) == 0xc0) {		/* backwards only, so it ends */
			if (at + 2 > length || (get16(m + at) & 0x3fff) >= limit)
				return 0;
			limit = at = get16(m + at) & 0x3fff;
			continue;
		}
		if (label > 63 || at + label + 1 > length || n + label + 1 > NAME_LONGEST)
			return 0;
		for (size_t i = 0; i <= label; i++)
			out[n++] = i == 0 ? m[at] : lower(m[at + i]);
		if (label == 0)
			return n;
		at += label + 1;
	}
	return 0;
}

/* The offset of the last record, 0 when there is none or the message is broken. */
static size_t
last_record(const unsigned char *m, size_t length)
{
	size_t at = 12, start = 0;
	unsigned records;

	if (length < 12)
		return 0;
	for (unsigned i = get16(m + 4); i > 0; i--) {
		if ((at = skip_name(m, length, at)) == 0 || at + 4 > length)
			return 0;
		at += 4;
	}
	records = get16(m + 6) + get16(m + 8) + get16(m + 10);
	for (unsigned i = 0; i < records; i++) {
		start = at;
		if ((at = skip_name(m, length, at)) == 0 || at + 10 > length)
			return 0;
		at += 10 + (size_t)get16(m + at + 8);
		if (at > length)
			return 0;
	}
	return get16(m + 10) > 0 && at == length ? start : 0;
}

/* The message's last record, if it is a TSIG; false: it carries none. */
static bool
find_record(const unsigned char *m, size_t length, struct record *r)
{
	size_t at, end;

	if ((r->start = last_record(m, length)) == 0)
		return false;
	at = skip_name(m, length, r->start);
	if (get16(m + at) != TYPE_TSIG)
		return false;
	end = at + 10 + get16(m + at + 8);
	r->owner_length = read_name(m, end, r->start, r->owner);
	r->algorithm_length = read_name(m, end, at + 10, r->algorithm);
	at = skip_name(m, end, at + 10);
	if (r->owner_length == 0 || r->algorithm_length == 0 || at == 0 || at + 10 > end)
		return false;
	r->time = get48(m + at);
	r->fudge = get16(m + at + 6);
	r->mac_length = get16(m + at + 8);
	r->mac = m + at + 10;
	at += 10 + r->mac_length;
	if (at + 6 > end)
		return false;
	r->original_id = get16(m + at);
	r->error = get16(m + at + 2);
	r->other_length = get16(m + at + 4);
	r->other = m + at + 6;
	return at + 6 + r->other_length == end;
}

/* The message as it was signed: without the record, with the id it had. */
static bool
append_message(struct bytes *b, const unsigned char *m, const struct record *r)
{
	size_t at = bytes_length(b);
	unsigned char *copy;

	if (!bytes_append(b, m, r->start))
		return false;
	copy = (unsigned char *)bytes_first(b) + at;
	put16(copy, r->original_id);
	put16(copy + 10, get16(copy + 10) - 1);
	return true;
}

static bool
is_ours(struct dns_tsig *t, const unsigned char *m, const struct record *r)
{
	unsigned char mac[DIGEST_LONGEST];
	struct bytes b = { NULL, 0, 0, 0 };
	size_t length = 0;

	if (r->owner_length == t->name_length && memcmp(r->owner, t->name, t->name_length) == 0 &&
	    r->algorithm_length == t->algorithm_length &&
	    memcmp(r->algorithm, t->algorithm, t->algorithm_length) == 0 &&
	    append16(&b, (unsigned)t->mac_length) && bytes_append(&b, t->mac, t->mac_length) &&
	    (bytes_length(&t->waiting) == 0 ||
	     bytes_append(&b, bytes_first(&t->waiting), bytes_length(&t->waiting))) &&
	    append_message(&b, m, r) && append_variables(t, &b, r, t->later))
		length = sign_bytes(t, &b, mac);
	bytes_free(&b);
	return length > 0 && length == r->mac_length && CRYPTO_memcmp(mac, r->mac, length) == 0;
}

enum dns_signed
dns_tsig_verify(struct dns_tsig *t, const unsigned char *message, size_t length, uint64_t now)
{
	struct record r;

	if (!find_record(message, length, &r)) {
		if (bytes_length(&t->waiting) + length > UNSIGNED_MAX)
			return DNS_FORGED;
		return bytes_append(&t->waiting, message, length) ? DNS_UNSIGNED : DNS_FORGED;
	}
	t->error = r.error;
	t->skew = (int64_t)(r.error == BADTIME && r.other_length == 6 ? get48(r.other) : r.time) - (int64_t)now;
	if (r.error != 0 && r.mac_length == 0)
		return DNS_COMPLAINS;		/* it cannot sign what it has no key for */
	if (!is_ours(t, message, &r))
		return DNS_FORGED;
	memcpy(t->mac, r.mac, r.mac_length);
	t->mac_length = r.mac_length;
	t->later = true;
	bytes_free(&t->waiting);
	if (r.error != 0)
		return DNS_COMPLAINS;
	return t->skew > (int64_t)r.fudge || t->skew < -(int64_t)r.fudge ? DNS_UNTIMELY : DNS_SIGNED;
}

unsigned
dns_tsig_error(const struct dns_tsig *t)
{
	return t->error;
}

int64_t
dns_tsig_skew(const struct dns_tsig *t)
{
	return t->skew;
}

bool
dns_tsig_unsettled(const struct dns_tsig *t)
{
	return bytes_length(&t->waiting) > 0;
}
