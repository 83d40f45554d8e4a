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
secret_new(const char *name)
{
	struct secret *s = calloc(1, sizeof *s);

	if (s != NULL && (s->name = strdup(name)) == NULL) {
		free(s);
		return NULL;
	}
	return s;
}

char *
secret_room(struct secret *s, size_t length)
{
	if ((s->bytes = map_pages(length + 1)) != NULL)
		s->length = length;
	return s->bytes;
}

bool
secret_fill(struct secret *s, const void *bytes, size_t length)
{
	char *room = secret_room(s, length);

	if (room != NULL && length > 0)
		memcpy(room, bytes, length);
	return room != NULL;
}

void
secret_free(struct secret *s)
{
	if (s == NULL)
		return;
	if (s->bytes != NULL) {
		explicit_bzero(s->bytes, s->length);
		munmap(s->bytes, s->length + 1);	/* unlocks, too */
	}
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
