/* yaml.c - see yaml.h. */
#include "yaml.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

/* A scalar counts as one value and one more for each so many bytes: aliases of long texts grow too. */
#define BYTES_PER_VALUE 32

#define TAG_PREFIX "tag:yaml.org,2002:"

struct anchor {
	char *name;
	size_t node;
};

struct reader {
	struct yaml_doc *doc;
	size_t open[YAML_MAX_DEPTH];	/* containers around the next node */
	size_t entries[YAML_MAX_DEPTH];	/* nodes seen directly inside each */
	unsigned depth;
	size_t total;			/* values of the documents that are complete */
	struct anchor *anchors;		/* of this document */
	size_t anchor_count;
	struct yaml_error *error;
};

static bool fail(struct reader *r, const char *code, size_t line, size_t column, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

static bool
fail(struct reader *r, const char *code, size_t line, size_t column, const char *format, ...)
{
	struct yaml_error *e = r->error;
	int n = snprintf(e->message, sizeof e->message, "line %zu, column %zu: ", line, column);
	va_list ap;

	e->code = code;
	va_start(ap, format);
	vsnprintf(e->message + n, sizeof e->message - (size_t)n, format, ap);
	va_end(ap);
	return false;
}

static bool
no_memory(struct reader *r)
{
	r->error->code = "ENOMEM";
	strcpy(r->error->message, "out of memory");
	return false;
}

static bool
fail_at(struct reader *r, const yaml_mark_t *mark, const char *what)
{
	return fail(r, "ESYNTAX", mark->line + 1, mark->column + 1, "%s", what);
}

/* ---- what a plain scalar means ---- */

static bool
is_one_of(const char *text, size_t length, const char *const *words)
{
	for (; *words != NULL; words++)
		if (strlen(*words) == length && memcmp(*words, text, length) == 0)
			return true;
	return false;
}

static size_t
digits(const char *s, size_t i, size_t length)
{
	while (i < length && s[i] >= '0' && s[i] <= '9')
		i++;
	return i;
}

/* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )? */
static bool
is_real(const char *s, size_t length)
{
	size_t i = 0, start, before;

	if (i < length && (s[i] == '-' || s[i] == '+'))
		i++;
	start = i;
	before = i = digits(s, i, length);
	if (i < length && s[i] == '.') {
		i = digits(s, i + 1, length);
		if (before == start && i == before + 1)
			return false;
	} else if (before == start) {
		return false;
	}
	if (i < length && (s[i] == 'e' || s[i] == 'E')) {
		i++;
		if (i < length && (s[i] == '-' || s[i] == '+'))
			i++;
		start = i;
		if ((i = digits(s, i, length)) == start)
			return false;
	}
	return i == length;
}

/* The base of an integer's digits, which start at *first; 0 when it is none. */
static int
integer_base(const char *s, size_t length, size_t *first)
{
	static const char octal[] = "01234567", hex[] = "0123456789abcdefABCDEF";
	const char *set = "0123456789";
	int base = 10;
	size_t i = 0;

	if (length > 2 && s[0] == '0' && (s[1] == 'o' || s[1] == 'x')) {
		base = s[1] == 'o' ? 8 : 16;
		set = base == 8 ? octal : hex;
		i = 2;
	} else if (length > 0 && (s[0] == '-' || s[0] == '+')) {
		i = 1;
	}
	*first = base == 10 ? 0 : i;
	if (i == length)
		return 0;
	for (; i < length; i++)
		if (s[i] == '\0' || strchr(set, s[i]) == NULL)
			return 0;
	return base;
}

/* The text must be followed by a NUL. */
bool
yaml_resolve(const char *text, size_t length, struct yaml_node *node)
{
	static const char *const nulls[] = { "", "~", "null", "Null", "NULL", NULL };
	static const char *const trues[] = { "true", "True", "TRUE", NULL };
	static const char *const falses[] = { "false", "False", "FALSE", NULL };
	static const char *const infinities[] = { ".inf", ".Inf", ".INF", NULL };
	static const char *const nans[] = { ".nan", ".NaN", ".NAN", NULL };
	size_t sign = length > 0 && (text[0] == '-' || text[0] == '+'), first;
	int base;

	node->type = YAML_STRING;
	if (is_one_of(text, length, nulls)) {
		node->type = YAML_NULL;
	} else if (is_one_of(text, length, trues) || is_one_of(text, length, falses)) {
		node->type = YAML_BOOLEAN;
		node->boolean = text[0] == 't' || text[0] == 'T';
	} else if ((base = integer_base(text, length, &first)) != 0) {
		node->type = YAML_INTEGER;
		errno = 0;
		node->integer = strtoll(text + first, NULL, base);
		return errno == 0;
	} else if (is_real(text, length)) {
		node->type = YAML_REAL;
		node->real = strtod(text, NULL);
	} else if (is_one_of(text + sign, length - sign, infinities)) {
		node->type = YAML_REAL;
		node->real = text[0] == '-' ? -INFINITY : INFINITY;
	} else if (is_one_of(text, length, nans)) {
		node->type = YAML_REAL;
		node->real = NAN;
	}
	return true;
}

/* ---- building ---- */

static struct yaml_node *
add_node(struct reader *r, enum yaml_type type, const yaml_event_t *event)
{
	struct yaml_doc *d = r->doc;
	size_t capacity = d->capacity ? 2 * d->capacity : 256;
	struct yaml_node *nodes;

	if (d->count == YAML_MAX_VALUES) {
		fail(r, "ELIMIT", event->start_mark.line + 1, event->start_mark.column + 1,
		     "more than %d values", YAML_MAX_VALUES);
		return NULL;
	}
	if (d->count == d->capacity) {
		if ((nodes = realloc(d->nodes, capacity * sizeof *nodes)) == NULL) {
			no_memory(r);
			return NULL;
		}
		d->nodes = nodes;
		d->capacity = capacity;
	}
	d->nodes[d->count] = (struct yaml_node){
		.type = type,
		.values = 1,
		.line = (uint32_t)event->start_mark.line + 1,
		.column = (uint32_t)event->start_mark.column + 1,
	};
	return &d->nodes[d->count++];
}

static bool
add_text(struct reader *r, struct yaml_node *node, const char *text, size_t length)
{
	struct yaml_doc *d = r->doc;
	size_t need = d->texts_length + length + 1;
	size_t capacity = d->texts_capacity ? d->texts_capacity : 1024;
	char *texts;

	while (capacity < need)
		capacity *= 2;
	if (capacity != d->texts_capacity) {
		if ((texts = realloc(d->texts, capacity)) == NULL)
			return no_memory(r);
		d->texts = texts;
		d->texts_capacity = capacity;
	}
	memcpy(d->texts + d->texts_length, text, length);
	d->texts[need - 1] = '\0';
	node->text = d->texts_length;
	node->length = length;
	node->values += length / BYTES_PER_VALUE;
	d->texts_length = need;
	return true;
}

static bool
add_anchor(struct reader *r, const yaml_char_t *name, size_t node)
{
	struct yaml_node *n = &r->doc->nodes[node];
	struct anchor *anchors;
	size_t i;

	if (name == NULL)
		return true;
	for (i = 0; i < r->anchor_count; i++)
		if (strcmp(r->anchors[i].name, (const char *)name) == 0) {
			r->anchors[i].node = node;	/* a name may be used again */
			return true;
		}
	if (r->anchor_count == YAML_MAX_ANCHORS)
		return fail(r, "ELIMIT", n->line, n->column, "more than %d anchors", YAML_MAX_ANCHORS);
	if ((anchors = realloc(r->anchors, (r->anchor_count + 1) * sizeof *anchors)) == NULL)
		return no_memory(r);
	r->anchors = anchors;
	if ((anchors[r->anchor_count].name = strdup((const char *)name)) == NULL)
		return no_memory(r);
	anchors[r->anchor_count++].node = node;
	return true;
}

static void
forget_anchors(struct reader *r)
{
	while (r->anchor_count > 0)
		free(r->anchors[--r->anchor_count].name);
}

static bool
is_key(const struct reader *r)
{
	return r->depth > 0 && r->doc->nodes[r->open[r->depth - 1]].type == YAML_MAP &&
	       r->entries[r->depth - 1] % 2 == 0;
}

static bool
check_key(struct reader *r, const struct yaml_node *n)
{
	static const char *const kinds[] = {
		[YAML_NULL] = "empty", [YAML_BOOLEAN] = "true or false", [YAML_INTEGER] = "a number",
		[YAML_REAL] = "a number", [YAML_LIST] = "a list", [YAML_MAP] = "a map",
		[YAML_ALIAS] = "an alias",
	};
	const char *text = n->type < YAML_LIST ? yaml_doc_text(r->doc, n) : "";

	if (n->type == YAML_STRING && n->plain && strcmp(text, "<<") == 0)
		return fail(r, "ESYNTAX", n->line, n->column,
		            "`<<` merges maps in YAML 1.1 only; write the keys out");
	if (n->type == YAML_STRING)
		return true;
	if (n->type < YAML_LIST)
		return fail(r, "ESYNTAX", n->line, n->column,
		            "key `%.40s` is %s; keys are strings, put it in quotes", text, kinds[n->type]);
	return fail(r, "ESYNTAX", n->line, n->column, "a key is %s; keys are strings", kinds[n->type]);
}

/* The node at index is complete: what is around it counts it in. */
static bool
node_done(struct reader *r, size_t index)
{
	struct yaml_node *n = &r->doc->nodes[index], *parent;

	n->after = r->doc->count;
	if (is_key(r) && !check_key(r, n))
		return false;
	if (r->depth == 0) {
		r->total += n->values;
		return true;
	}
	parent = &r->doc->nodes[r->open[r->depth - 1]];
	parent->values += n->values;
	if (parent->height < n->height + 1)
		parent->height = n->height + 1;
	r->entries[r->depth - 1]++;
	if (r->total + parent->values > YAML_MAX_VALUES)
		return fail(r, "ELIMIT", n->line, n->column,
		            "more than %d values once aliases are written out", YAML_MAX_VALUES);
	return true;
}

/* ---- events ---- */

/* A tag of the core schema, as the type it asks for; YAML_ALIAS for any other. */
static enum yaml_type
tag_type(const yaml_char_t *tag)
{
	static const struct {
		const char *name;
		enum yaml_type type;
	} known[] = {
		{ "bool", YAML_BOOLEAN }, { "float", YAML_REAL }, { "int", YAML_INTEGER }, { "map", YAML_MAP },
		{ "null", YAML_NULL }, { "seq", YAML_LIST }, { "str", YAML_STRING },
	};
	const char *name = (const char *)tag;
	size_t i;

	if (strcmp(name, "!") == 0)
		return YAML_STRING;
	if (strncmp(name, TAG_PREFIX, sizeof TAG_PREFIX - 1) != 0)
		return YAML_ALIAS;
	for (i = 0; i < sizeof known / sizeof *known; i++)
		if (strcmp(name + sizeof TAG_PREFIX - 1, known[i].name) == 0)
			return known[i].type;
	return YAML_ALIAS;
}

static bool
refuse_tag(struct reader *r, const yaml_event_t *e, const yaml_char_t *tag)
{
	return fail(r, "ESYNTAX", e->start_mark.line + 1, e->start_mark.column + 1,
	            "tag `%.80s` does not fit here; only the types of the core schema are read",
	            (const char *)tag);
}

static bool
on_scalar(struct reader *r, const yaml_event_t *e)
{
	const yaml_char_t *tag = e->data.scalar.tag;
	bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE, fits;
	size_t index = r->doc->count;
	struct yaml_node *n = add_node(r, YAML_STRING, e);
	enum yaml_type wanted;
	const char *text;

	if (n == NULL || !add_text(r, n, (const char *)e->data.scalar.value, e->data.scalar.length))
		return false;
	text = yaml_doc_text(r->doc, n);
	n->plain = plain && tag == NULL;
	if (tag != NULL ? (wanted = tag_type(tag)) != YAML_STRING : plain) {
		fits = yaml_resolve(text, n->length, n);
		if (tag != NULL && wanted == YAML_REAL && n->type == YAML_INTEGER) {
			n->type = YAML_REAL;
			n->real = strtod(text, NULL);
		} else if (!fits) {
			return fail(r, "ESYNTAX", n->line, n->column,
			            "%.40s does not fit 64 bits; put it in quotes", text);
		}
		if (tag != NULL && n->type != wanted)
			return refuse_tag(r, e, tag);
	}
	return add_anchor(r, e->data.scalar.anchor, index) && node_done(r, index);
}

static bool
on_start(struct reader *r, const yaml_event_t *e, enum yaml_type type,
         const yaml_char_t *anchor, const yaml_char_t *tag)
{
	size_t index = r->doc->count;

	if (r->depth == YAML_MAX_DEPTH)
		return fail(r, "ELIMIT", e->start_mark.line + 1, e->start_mark.column + 1,
		            "nested more than %d deep", YAML_MAX_DEPTH);
	if (tag != NULL && strcmp((const char *)tag, "!") != 0 && tag_type(tag) != type)
		return refuse_tag(r, e, tag);
	if (add_node(r, type, e) == NULL || !add_anchor(r, anchor, index))
		return false;
	r->open[r->depth] = index;
	r->entries[r->depth] = 0;
	r->depth++;
	return true;
}

struct entry {
	const char *text;
	const struct yaml_node *node;
};

static int
by_text(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	size_t m = x->node->length, n = y->node->length;
	int order = memcmp(x->text, y->text, m < n ? m : n);

	if (order == 0)
		order = (m > n) - (m < n);
	/* the same text: in the order of the document, so that the second is the one refused */
	return order != 0 ? order : (x->node > y->node) - (x->node < y->node);
}

static bool
check_duplicates(struct reader *r, size_t map, size_t keys)
{
	const struct yaml_node *nodes = r->doc->nodes;
	struct entry *all = malloc(keys * sizeof *all);
	size_t n = 0, i = map + 1;
	bool ok = true;

	if (all == NULL)
		return no_memory(r);
	for (; i < r->doc->count; i = nodes[nodes[i].after].after, n++)
		all[n] = (struct entry){ yaml_doc_text(r->doc, &nodes[i]), &nodes[i] };
	qsort(all, n, sizeof *all, by_text);
	for (i = 1; ok && i < n; i++)
		if (all[i].node->length == all[i - 1].node->length &&
		    memcmp(all[i].text, all[i - 1].text, all[i].node->length) == 0)
			ok = fail(r, "EDUPLICATE", all[i].node->line, all[i].node->column,
			          "key `%.40s` again; it stands in line %u already",
			          all[i].text, (unsigned)all[i - 1].node->line);
	free(all);
	return ok;
}

static bool
on_end(struct reader *r)
{
	size_t index = r->open[r->depth - 1], keys = r->entries[r->depth - 1] / 2;

	if (r->doc->nodes[index].type == YAML_MAP && keys > 1 && !check_duplicates(r, index, keys))
		return false;
	r->depth--;
	return node_done(r, index);
}

static bool
on_alias(struct reader *r, const yaml_event_t *e)
{
	const char *name = (const char *)e->data.alias.anchor;
	size_t index = r->doc->count, i, target;
	const struct yaml_node *t;
	struct yaml_node *n;

	for (i = 0; i < r->anchor_count; i++)
		if (strcmp(r->anchors[i].name, name) == 0)
			break;
	if (i == r->anchor_count)
		return fail(r, "ESYNTAX", e->start_mark.line + 1, e->start_mark.column + 1,
		            "alias `*%.40s` names nothing above it", name);
	target = r->anchors[i].node;
	if (r->doc->nodes[target].after == 0)
		return fail(r, "ESYNTAX", e->start_mark.line + 1, e->start_mark.column + 1,
		            "alias `*%.40s` stands inside what it names", name);
	if ((n = add_node(r, YAML_ALIAS, e)) == NULL)
		return false;
	t = &r->doc->nodes[target];
	n->target = t->type == YAML_ALIAS ? t->target : target;
	n->values = t->values;
	n->height = t->height;
	if (r->depth + t->height > YAML_MAX_DEPTH)
		return fail(r, "ELIMIT", n->line, n->column,
		            "nested more than %d deep once aliases are written out", YAML_MAX_DEPTH);
	return node_done(r, index);
}

static bool
on_document(struct reader *r)
{
	struct yaml_doc *d = r->doc;
	size_t *roots = realloc(d->roots, (d->documents + 1) * sizeof *roots);

	if (roots == NULL)
		return no_memory(r);
	d->roots = roots;
	d->roots[d->documents++] = d->count;
	forget_anchors(r);
	return true;
}

static bool
on_event(struct reader *r, const yaml_event_t *e)
{
	switch (e->type) {
	case YAML_DOCUMENT_START_EVENT:
		return on_document(r);
	case YAML_ALIAS_EVENT:
		return on_alias(r, e);
	case YAML_SCALAR_EVENT:
		return on_scalar(r, e);
	case YAML_SEQUENCE_START_EVENT:
		return on_start(r, e, YAML_LIST, e->data.sequence_start.anchor, e->data.sequence_start.tag);
	case YAML_MAPPING_START_EVENT:
		return on_start(r, e, YAML_MAP, e->data.mapping_start.anchor, e->data.mapping_start.tag);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		return on_end(r);
	default:
		return true;
	}
}

static bool
parse_failed(struct reader *r, const yaml_parser_t *p)
{
	char what[160];

	if (p->error == YAML_MEMORY_ERROR)
		return no_memory(r);
	if (p->error == YAML_READER_ERROR) {
		r->error->code = "ESYNTAX";
		snprintf(r->error->message, sizeof r->error->message, "byte %zu: %s",
		         p->problem_offset + 1, p->problem);
		return false;
	}
	if (p->problem != NULL && strcmp(p->problem, "found character that cannot start any token") == 0)
		snprintf(what, sizeof what, "a tab, %%, @ or ` cannot stand here; indent with spaces, and put text in quotes");
	else
		snprintf(what, sizeof what, "%s%s%s", p->problem ? p->problem : "not YAML",
		         p->context ? ", " : "", p->context ? p->context : "");
	return fail_at(r, &p->problem_mark, what);
}

static bool
pull_events(struct reader *r, yaml_parser_t *p)
{
	yaml_event_t event;
	bool ok = true, end = false;

	while (ok && !end) {
		if (!yaml_parser_parse(p, &event))
			return parse_failed(r, p);
		end = event.type == YAML_STREAM_END_EVENT;
		ok = on_event(r, &event);
		yaml_event_delete(&event);
	}
	return ok;
}

struct yaml_doc *
yaml_doc_read(const char *text, size_t length, struct yaml_error *error)
{
	struct reader r = { .error = error };
	yaml_parser_t parser;
	bool ok;

	if (length > YAML_MAX_BYTES) {
		error->code = "ELIMIT";
		snprintf(error->message, sizeof error->message, "%zu bytes; the limit is %u",
		         length, YAML_MAX_BYTES);
		return NULL;
	}
	if ((r.doc = calloc(1, sizeof *r.doc)) == NULL || !yaml_parser_initialize(&parser)) {
		free(r.doc);
		no_memory(&r);
		return NULL;
	}
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
	ok = pull_events(&r, &parser);
	yaml_parser_delete(&parser);
	forget_anchors(&r);
	free(r.anchors);
	if (!ok) {
		yaml_doc_free(r.doc);
		return NULL;
	}
	return r.doc;
}

void
yaml_doc_free(struct yaml_doc *doc)
{
	if (doc == NULL)
		return;
	free(doc->nodes);
	free(doc->roots);
	free(doc->texts);
	free(doc);
}

const char *
yaml_doc_text(const struct yaml_doc *doc, const struct yaml_node *node)
{
	return doc->texts + node->text;
}
