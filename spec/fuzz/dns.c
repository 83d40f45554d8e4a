/*
 * fuzz/dns.c - libFuzzer target for what DNS servers answer and for the lines of updates: whatever comes, reading ends,
 * what was read hangs together, and nothing is taken for signed with our key that is not.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -iquote src spec/fuzz/dns.c src/dns_message.c \
 *         src/dns_tsig.c src/bytes.c src/digest.c -lldns -lcrypto -luv -o build/fuzz-dns
 *     build/fuzz-dns -max_total_time=60 -max_len=2000
 *
 * The input: a letter (u: lines of an update, s: a message that is signed here and spoilt, all else: a message).
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dns_message.h"
#include "dns_tsig.h"

#define NOW 1700000000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(int true_of_every_input)
{
	if (!true_of_every_input)
		abort();
}

static struct dns_tsig *
new_key(const char *secret)
{
	const char *why;
	struct dns_tsig *t = dns_tsig_new("key.test", "hmac-sha256", secret, strlen(secret), &why);

	must(t != NULL);
	return t;
}

static void
read_answer(const uint8_t *data, size_t size)
{
	struct dns_answer a = { .rcode = "" };
	struct dns_tsig *t = new_key("c2VjcmV0");
	const char *wrong = dns_read_answer(&a, data, size, 100);

	must(wrong != NULL || a.rcode[0] != '\0');
	for (int section = 0; section < DNS_SECTIONS; section++) {
		must(a.counts[section] <= 100);
		for (size_t i = 0; i < a.counts[section]; i++) {
			const struct dns_record *r = &a.records[section][i];

			must(r->name[0] != '\0' && r->type[0] != '\0');
			must(strchr(r->name, '\t') == NULL && strchr(r->type, '\t') == NULL);
			must(strchr(r->data, '\n') == NULL);
		}
	}
	must(dns_tsig_verify(t, data, size, NOW) != DNS_SIGNED);
	dns_tsig_free(t);
	dns_answer_free(&a);
}

/* What can be written can be read; which lines change anything is known beforehand. */
static void
write_update(const uint8_t *data, size_t size)
{
	char *lines = strndup((const char *)data, size);
	struct bytes out = { NULL, 0, 0, 0 };
	const char *why, *line;
	const unsigned char *wire;

	must(lines != NULL);
	if (dns_write_update(&out, 7, "zone.test", lines, &why, &line)) {
		wire = (const unsigned char *)bytes_first(&out);
		must(((wire[8] << 8 | wire[9]) != 0) == dns_lines_change(lines));
	} else {
		must(why != NULL && (line == NULL || (line >= lines && line <= lines + strlen(lines))));
	}
	bytes_free(&out);
	free(lines);
}

/* The first two bytes say where one bit is turned; a message that is as it was is ours. */
static void
spoil(const uint8_t *data, size_t size)
{
	struct dns_tsig *ours = new_key("c2VjcmV0"), *theirs = new_key("c2VjcmV0");
	struct bytes m = { NULL, 0, 0, 0 };
	enum dns_signed s;
	size_t at;

	if (size >= 16 && memcmp(data + 6, "\0\0\0\0\0\0\0\0", 8) == 0 && data[10] == 0) {
		at = (size_t)(data[0] << 8 | data[1]);
		/* no questions and no records: the header alone */
		must(bytes_append(&m, data + 2, 2) && bytes_append(&m, "\x80\0\0\0\0\0\0\0\0\0", 10));
		must(dns_tsig_sign(theirs, &m, NOW));
		s = dns_tsig_verify(ours, (unsigned char *)bytes_first(&m), bytes_length(&m), NOW);
		must(s == DNS_FORGED);	/* an answer is signed with the request's signature, too */
		if (at / 8 < bytes_length(&m)) {
			bytes_first(&m)[at / 8] ^= (char)(1 << at % 8);
			must(dns_tsig_verify(theirs, (unsigned char *)bytes_first(&m), bytes_length(&m), NOW) != DNS_SIGNED);
		}
	}
	bytes_free(&m);
	dns_tsig_free(ours);
	dns_tsig_free(theirs);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] == 'u')
		write_update(data + 1, size - 1);
	else if (data[0] == 's')
		spoil(data + 1, size - 1);
	else
		read_answer(data + 1, size - 1);
	return 0;
}
