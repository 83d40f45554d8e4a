/*
 * fuzz/known_hosts.c - libFuzzer target for src/known_hosts.c: whatever stands in the file, the
 * parser ends, and what it says hangs together.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -iquote src spec/fuzz/known_hosts.c \
 *         src/known_hosts.c -lcrypto -o build/fuzz-known-hosts
 *     build/fuzz-known-hosts -max_total_time=60 -max_len=2000
 *
 * The input: a host name ended by a newline (a name ended by a tab has another port), then the file.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "known_hosts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(int true_of_every_input)
{
	if (!true_of_every_input)
		abort();
}

/* A second line of the same text must not turn what was known into what is not. */
static void
compare(const char *host, int port, const char *text, size_t length)
{
	static const unsigned char key[] = { 0, 0, 0, 7, 's', 's', 'h', '-', 'r', 's', 'a', 1, 2, 3 };
	struct known_hosts *once = known_hosts_new(host, port), *twice = known_hosts_new(host, port);
	enum known_hosts_verdict first, second;
	const char *file;
	unsigned line;
	size_t types = 0;

	must(known_hosts_parse(once, "once", text, length) == 0);
	must(known_hosts_parse(twice, "one", text, length) == 0);
	must(known_hosts_parse(twice, "two", text, length) == 0);
	first = known_hosts_check(once, "ssh-rsa", key, sizeof key, &file, &line);
	must((file == NULL) == (line == 0));
	must((file == NULL) == (first == KNOWN_HOSTS_UNKNOWN));
	second = known_hosts_check(twice, "ssh-rsa", key, sizeof key, &file, &line);
	must(first == second);
	while (known_hosts_type(once, types) != NULL)
		types++;
	must(known_hosts_type(twice, 2 * types) == NULL);
	must(types == 0 || known_hosts_type(twice, 2 * types - 1) != NULL);
	must(first != KNOWN_HOSTS_MATCH || types > 0);
	known_hosts_free(once);
	known_hosts_free(twice);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	size_t n = 0;
	char *host;

	while (n < size && text[n] != '\n' && text[n] != '\t')
		n++;
	if (n == size || n > 300 || (host = strndup(text, n)) == NULL)
		return 0;
	compare(host, text[n] == '\t' ? 2222 : 22, text + n + 1, size - n - 1);
	free(host);
	return 0;
}
