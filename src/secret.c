/* secret.c - see secret.h.  Each secret has pages of its own: locks and dump marks count by page. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "secret.h"

struct secret {
	char *name;
	char *bytes;
	size_t length;
	size_t mapped;
};

static char *
map_pages(size_t size)
{
	char *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED)
		return NULL;
	mlock(pages, size);
	madvise(pages, size, MADV_DONTDUMP);
	return pages;
}

struct secret *
secret_new(const char *name, const void *bytes, size_t length)
{
	struct secret *s = calloc(1, sizeof *s);

	if (s == NULL)
		return NULL;
	s->mapped = length + 1;
	if ((s->name = strdup(name)) == NULL || (s->bytes = map_pages(s->mapped)) == NULL) {
		free(s->name);
		free(s);
		return NULL;
	}
	if (length > 0)
		memcpy(s->bytes, bytes, length);
	s->length = length;
	return s;
}

void
secret_free(struct secret *s)
{
	if (s == NULL)
		return;
	explicit_bzero(s->bytes, s->mapped);
	munmap(s->bytes, s->mapped);	/* unlocks, too */
	free(s->name);
	free(s);
}

const char *
secret_name(const struct secret *s)
{
	return s->name;
}

const char *
secret_bytes(const struct secret *s, size_t *length)
{
	*length = s->length;
	return s->bytes;
}
