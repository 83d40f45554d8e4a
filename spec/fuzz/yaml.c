/*
 * fuzz/yaml.c - libFuzzer target for src/yaml.c: no input crashes it, and what it accepts hangs together.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -iquote src spec/fuzz/yaml.c src/yaml.c -lyaml -lm -o build/fuzz-yaml
 *     build/fuzz-yaml -max_total_time=60 -max_len=4096
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(int good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

/* Walks the tree as the binding does; returns the index after node i. */
static size_t
walk(const struct yaml_doc *d, size_t i, unsigned depth, size_t *values)
{
	const struct yaml_node *n = &d->nodes[i];
	size_t child = i + 1, entries = 0;

	check(depth <= YAML_MAX_DEPTH, "depth is bounded");
	check(++*values <= YAML_MAX_VALUES, "values are bounded");
	check(n->after > i && n->after <= d->count, "a node ends behind its beginning");
	if (n->type == YAML_ALIAS) {
		check(n->target < i && d->nodes[n->target].type != YAML_ALIAS, "an alias looks back");
		walk(d, n->target, depth, values);
	} else if (n->type == YAML_LIST || n->type == YAML_MAP) {
		for (; child < n->after; entries++) {
			check(n->type == YAML_LIST || entries % 2 || d->nodes[child].type == YAML_STRING,
			      "keys are strings");
			child = walk(d, child, depth + 1, values);
		}
		check(child == n->after, "children fill their parent");
		check(n->type == YAML_LIST || entries % 2 == 0, "every key has a value");
	} else {
		check(n->after == i + 1, "a scalar has no children");
		check(yaml_doc_text(d, n)[n->length] == '\0', "a text ends with NUL");
	}
	return n->after;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct yaml_error error = { NULL, "" };
	struct yaml_doc *d = yaml_doc_read((const char *)data, size, &error);
	size_t i, values = 0;

	if (d == NULL) {
		check(error.code != NULL && error.message[0] != '\0', "a refusal says why");
		return 0;
	}
	for (i = 0; i < d->documents; i++)
		walk(d, d->roots[i], 0, &values);
	yaml_doc_free(d);
	return 0;
}
