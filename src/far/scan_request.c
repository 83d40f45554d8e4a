#include "scan.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

static char *
copy(struct text t)
{
	if (memchr(t.bytes, 0, t.length))
		far_die(EX_PROTOCOL, "the request is malformed");
	char *s = far_memory(t.length + 1);
	memcpy(s, t.bytes, t.length);
	return s;
}

static void *
grown(void *list, size_t count, size_t size)
{
	if (count & (count - 1))
		return list;
	void *more = realloc(list, (count ? 2 * count : 1) * size);
	if (!more)
		far_die(EX_OSERR, "out of memory");
	return more;
}

static void
add_exclude(struct scan *s, struct reader *r)
{
	s->excludes = grown(s->excludes, s->exclude_count, sizeof *s->excludes);
	struct pattern *p = &s->excludes[s->exclude_count++];
	p->directories_only = get_number(r) & 1;
	char *text = copy(get_text(r));
	char *anchored = far_memory(strlen(text) + 5);
	strcat(strcat(strcpy(anchored, "^("), text), ")$");
	if (regcomp(&p->expression, anchored, REG_EXTENDED | REG_NOSUB) != 0)
		far_die(EX_USAGE, "%s is no regular expression here", text);
	free(anchored);
	free(text);
}

static void
add_known(struct scan *s, struct reader *r)
{
	struct text name = get_text(r), digest = get_text(r);
	if (digest.length != DIGEST)
		return;
	s->known = grown(s->known, s->known_count, sizeof *s->known);
	s->known[s->known_count].name = copy(name);
	memcpy(s->known[s->known_count++].digest, digest.bytes, DIGEST);
}

static void
add_name(char ***list, size_t *count, struct reader *r)
{
	*list = grown(*list, *count, sizeof **list);
	(*list)[(*count)++] = copy(get_text(r));
}

/* Both begin with the name. */
static int
by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void
scan_read_request(struct scan *s)
{
	struct frame_input in;
	struct frame f = { 0 };
	frame_input_open(&in, STDIN_FILENO);
	while (frame_next(&in, &f) == 1 && f.type != SCAN_GO) {
		switch (f.type) {
		case SCAN_OPTIONS:
			if (get_number(&f.payload) != ENTRY_VERSION)
				far_die(EX_PROTOCOL, "the other end speaks another version");
			break;
		case SCAN_EXCLUDE: add_exclude(s, &f.payload); break;
		case SCAN_NOT_UNIT: add_name(&s->not_units, &s->not_unit_count, &f.payload); break;
		case SCAN_ONLY: add_name(&s->only, &s->only_count, &f.payload); break;
		case SCAN_UNIT: add_known(s, &f.payload); break;
		default: far_die(EX_PROTOCOL, "the request is malformed");
		}
		if (f.payload.failed)
			far_die(EX_PROTOCOL, "the request is malformed");
	}
	if (in.problem || f.type != SCAN_GO)
		far_die(EX_PROTOCOL, "the request is %s", in.problem ? in.problem : "cut");
	frame_input_free(&in);
	if (s->known_count)
		qsort(s->known, s->known_count, sizeof *s->known, by_name);
	if (s->only_count)
		qsort(s->only, s->only_count, sizeof *s->only, by_name);
}

bool
scan_is_asked_for(const struct scan *s, const char *unit)
{
	return s->only_count == 0 || bsearch(&unit, s->only, s->only_count, sizeof *s->only, by_name);
}

const unsigned char *
scan_known_digest(const struct scan *s, const char *unit)
{
	const struct known *k = s->known_count ? bsearch(&unit, s->known, s->known_count, sizeof *s->known, by_name) : NULL;
	return k ? k->digest : NULL;
}

static void
free_names(char **names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(names[i]);
	free(names);
}

void
scan_free_request(struct scan *s)
{
	for (size_t i = 0; i < s->exclude_count; i++)
		regfree(&s->excludes[i].expression);
	for (size_t i = 0; i < s->known_count; i++)
		free(s->known[i].name);
	free(s->excludes);
	free(s->known);
	free_names(s->not_units, s->not_unit_count);
	free_names(s->only, s->only_count);
}

bool
scan_is_excluded(const struct scan *s, const char *path, bool directory)
{
	if (s->exclude_count == 0)
		return false;
	size_t length = strlen(path);
	char few[512], *whole = length + 3 < sizeof few ? few : far_memory(length + 3);
	memcpy(whole, "./", 2);
	memcpy(whole + 2, path, length + 1);
	bool found = false;
	for (size_t i = 0; i < s->exclude_count && !found; i++)
		found = (directory || !s->excludes[i].directories_only)
			&& regexec(&s->excludes[i].expression, whole, 0, NULL, 0) == 0;
	if (whole != few)
		free(whole);
	return found;
}
