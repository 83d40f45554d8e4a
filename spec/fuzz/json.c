/*
 * fuzz/json.c - libFuzzer target for src/json.c: no input crashes it, and what it accepts is written
 * and read back as the same values.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -iquote src spec/fuzz/json.c src/json.c -lyyjson -o build/fuzz-json
 *     build/fuzz-json -max_total_time=60 -max_len=4096
 *
 * Where the distribution has no yyjson, `make deps` built one: add its include and lib folders.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(int good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

static void
put_word(struct json_text *t, const char *word)
{
	check(json_put(t, word, strlen(word)), "there is memory");
}

static void
put_string(struct json_text *t, yyjson_val *v)
{
	check(json_utf8(yyjson_get_str(v), yyjson_get_len(v)) == yyjson_get_len(v), "strings are UTF-8");
	check(json_put_string(t, yyjson_get_str(v), yyjson_get_len(v)), "there is memory");
}

static void put_value(struct json_text *t, yyjson_val *v, unsigned depth);

static void
put_container(struct json_text *t, yyjson_val *v, unsigned depth)
{
	size_t i, count;
	yyjson_val *key, *child;

	check(depth < JSON_MAX_DEPTH, "the nesting has a limit");
	if (yyjson_is_arr(v)) {
		put_word(t, "[");
		yyjson_arr_foreach(v, i, count, child) {
			put_word(t, i > 0 ? "," : "");
			put_value(t, child, depth + 1);
		}
		put_word(t, "]");
		return;
	}
	put_word(t, "{");
	yyjson_obj_foreach(v, i, count, key, child) {
		check(yyjson_obj_getn(v, yyjson_get_str(key), yyjson_get_len(key)) == child, "a key stands once");
		put_word(t, i > 0 ? "," : "");
		put_string(t, key);
		put_word(t, ":");
		put_value(t, child, depth + 1);
	}
	put_word(t, "}");
}

static void
put_value(struct json_text *t, yyjson_val *v, unsigned depth)
{
	if (yyjson_is_ctn(v)) {
		put_container(t, v, depth);
	} else if (yyjson_is_str(v)) {
		put_string(t, v);
	} else if (yyjson_is_int(v)) {
		check(!yyjson_is_uint(v) || yyjson_get_uint(v) <= INT64_MAX, "integers fit 64 bits");
		check(json_put_integer(t, yyjson_get_sint(v)), "there is memory");
	} else if (yyjson_is_real(v)) {
		check(isfinite(yyjson_get_real(v)), "numbers are finite");
		check(json_put_real(t, yyjson_get_real(v)), "there is memory");
	} else {
		check(yyjson_is_null(v) || yyjson_is_bool(v), "every value is of a kind we know");
		put_word(t, yyjson_is_null(v) ? "null" : yyjson_get_bool(v) ? "true" : "false");
	}
}

/* Read again, a written text is equal, and written again it is the same to the byte. */
static void
must_come_back(const struct json_doc *d)
{
	struct json_text once = { 0 }, twice = { 0 };
	struct json_error error = { NULL, "" };
	struct json_doc *again;

	put_value(&once, json_root(d), 0);
	again = json_read(once.bytes, once.length, once.length, &error);
	check(again != NULL, "what is written can be read");
	put_value(&twice, json_root(again), 0);
	check(once.length == twice.length && memcmp(once.bytes, twice.bytes, once.length) == 0,
	      "a text that was written comes back as it is");
	check(yyjson_equals(json_root(d), json_root(again)), "values come back as they are");
	json_free(again);
	json_text_fini(&once);
	json_text_fini(&twice);
}

/* Any bytes at all are a string when the odd ones are replaced. */
static void
must_be_a_string(const char *bytes, size_t size)
{
	struct json_text t = { 0 };
	struct json_error error = { NULL, "" };
	struct json_doc *d;

	check(json_put_string_lossy(&t, bytes, size), "there is memory");
	d = json_read(t.bytes, t.length, t.length, &error);
	check(d != NULL && yyjson_is_str(json_root(d)), "a lossy string is one");
	if (json_utf8(bytes, size) == size)
		check(yyjson_equals_strn(json_root(d), bytes, size), "nothing is lost of UTF-8");
	json_free(d);
	json_text_fini(&t);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct json_error error = { NULL, "" };
	struct json_doc *d = json_read(text, size, 4096, &error);

	if (d == NULL) {
		check(error.code != NULL && error.message[0] != '\0', "a refusal says why");
		check(json_utf8(error.message, strlen(error.message)) == strlen(error.message),
		      "what is said is UTF-8");
	} else {
		must_come_back(d);
		json_free(d);
	}
	must_be_a_string(text, size);
	return 0;
}
