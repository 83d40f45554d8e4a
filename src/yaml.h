/*
 * yaml.h - YAML text to a flat list of nodes, over libyaml's events.  Knows nothing of Lua.
 *
 * libyaml says where values stand and how they were quoted; what a plain scalar means is decided
 * here, by the core schema of YAML 1.2 (`no` and `12:30` are strings, `0o17` is a number).  Refused:
 * a key twice in a map, a key that is no string, the merge key, tags beyond the core schema, an alias
 * inside what it names, and whatever grows past the limits below.
 */
#ifndef RUNBOOK_YAML_H
#define RUNBOOK_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define YAML_MAX_BYTES   (8u << 20)
#define YAML_MAX_DEPTH   100
#define YAML_MAX_VALUES  1000000	/* with aliases written out; long texts count for several */
#define YAML_MAX_ANCHORS 1000

enum yaml_type {
	YAML_NULL, YAML_BOOLEAN, YAML_INTEGER, YAML_REAL, YAML_STRING, YAML_LIST, YAML_MAP, YAML_ALIAS
};

struct yaml_node {
	enum yaml_type type;
	bool plain;		/* a scalar without quotes or tag */
	unsigned height;	/* of the tree under it, aliases written out; 0 for a scalar */
	uint32_t line, column;	/* from 1 */
	size_t after;		/* index of the first node that is not in this one; 0 while it is open */
	size_t values;		/* how many it stands for, aliases written out */
	size_t text, length;	/* scalars: as unquoted, see yaml_doc_text */
	union {
		bool boolean;
		int64_t integer;
		double real;
		size_t target;	/* YAML_ALIAS: index of what it stands for */
	};
};

struct yaml_error {
	const char *code;	/* "ESYNTAX" (also what is refused), "EDUPLICATE", "ELIMIT", "ENOMEM" */
	char message[240];	/* "line 3, column 7: ..." */
};

/*
 * Children follow their parent: of a list its items, of a map key, value, key, value.  A document's
 * root is at roots[i]; nodes[roots[i]].after is where the next begins.
 */
struct yaml_doc {
	struct yaml_node *nodes;
	size_t count;
	size_t *roots;
	size_t documents;
	char *texts;		/* of all scalars; a NUL follows each */
	/* private */
	size_t capacity, texts_length, texts_capacity;
};

/* NULL on failure, with *error filled.  (libyaml exports a yaml_free of its own: hence the names.) */
struct yaml_doc *yaml_doc_read(const char *text, size_t length, struct yaml_error *error);
void yaml_doc_free(struct yaml_doc *doc);

const char *yaml_doc_text(const struct yaml_doc *doc, const struct yaml_node *node);

/* What a plain scalar means.  Fills node->type and its value; false when an integer does not fit. */
bool yaml_resolve(const char *text, size_t length, struct yaml_node *node);

#endif
