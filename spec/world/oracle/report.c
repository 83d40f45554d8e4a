/* report.c - what the oracle found, and how it says so. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oracle.h"

enum { EXAMPLES = 5 };

static const char *const kind_names[KINDS] = {
	"missing", "extra", "type", "size", "content", "mode", "owner", "group", "mtime", "dir-mtime", "link-mtime",
	"link-target", "device", "hardlinks", "xattr", "acl", "holes", "allocated", "same-file"
};

static struct {
	pthread_mutex_t mutex;
	uint64_t count[KINDS];
	char *examples[KINDS][EXAMPLES];
	uint64_t troubles;
} found = { .mutex = PTHREAD_MUTEX_INITIALIZER };

void *
must(void *memory)
{
	if (memory == NULL) {
		perror("oracle");
		exit(2);
	}
	return memory;
}

void
push(struct name_list *list, char *name)
{
	if (list->count == list->room) {
		list->room = list->room != 0 ? list->room * 2 : 64;
		list->names = must(realloc(list->names, list->room * sizeof *list->names));
	}
	list->names[list->count++] = name;
}

void
clear(struct name_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->names[i]);
	free(list->names);
	*list = (struct name_list){ 0 };
}

char *
escaped(const char *name)
{
	char *text = must(malloc(strlen(name) * 4 + 2)), *p = text;

	if (*name == '\0')
		*p++ = '.';
	for (const unsigned char *c = (const unsigned char *)name; *c != '\0'; c++) {
		if (*c == '\\')
			p += sprintf(p, "\\\\");
		else if (*c < ' ' || *c > '~')
			p += sprintf(p, "\\x%02x", *c);
		else
			*p++ = (char)*c;
	}
	*p = '\0';
	return text;
}

void
trouble(const char *path, const char *what)
{
	int code = errno;
	char *name = escaped(path);

	pthread_mutex_lock(&found.mutex);
	if (found.troubles++ < 10)
		fprintf(stderr, "oracle: %s: %s: %s\n", name, what, strerror(code));
	pthread_mutex_unlock(&found.mutex);
	free(name);
}

/* Keeps the smallest names, so that the same trees give the same text whatever thread came first. */
void
differs(enum kind kind, const char *path, const char *format, ...)
{
	char *name = escaped(path), *detail = NULL, *line = NULL;
	va_list arguments;

	va_start(arguments, format);
	if (vasprintf(&detail, format, arguments) < 0 || asprintf(&line, "%s%s%s", name, *detail ? ": " : "", detail) < 0)
		must(NULL);
	va_end(arguments);
	pthread_mutex_lock(&found.mutex);
	found.count[kind]++;
	for (int i = 0; i < EXAMPLES && line != NULL; i++) {
		char **place = &found.examples[kind][i], *was = *place;

		if (was == NULL || strcmp(line, was) < 0) {
			*place = line;
			line = was;
		}
	}
	pthread_mutex_unlock(&found.mutex);
	free(line);
	free(detail);
	free(name);
}

int
report_trouble(void)
{
	if (found.troubles == 0)
		return 0;
	fprintf(stderr, "oracle: %ju names could not be seen\n", (uintmax_t)found.troubles);
	return 2;
}

int
report(uint64_t names, uint64_t bytes)
{
	bool identical = true;

	for (int kind = 0; kind < KINDS; kind++) {
		if (found.count[kind] == 0)
			continue;
		identical = false;
		printf("%s %ju\n", kind_names[kind], (uintmax_t)found.count[kind]);
		for (int i = 0; i < EXAMPLES && found.examples[kind][i] != NULL; i++)
			printf("\t%s\n", found.examples[kind][i]);
		if (found.count[kind] > EXAMPLES)
			printf("\t...\n");
	}
	if (report_trouble() != 0)
		return 2;
	if (identical)
		printf("identical: %ju names, %ju bytes\n", (uintmax_t)names, (uintmax_t)bytes);
	return identical ? 0 : 1;
}
