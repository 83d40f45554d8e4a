/*
 * task.c - memory for what is received, used again.
 *
 * A libc may ask the kernel anew for each piece of a file and give it back at once: then the kernel fills as many pages with
 * zeros as are received, which costs more than to write them.  What was used last is given out first, as it is still in
 * the processor's cache.
 */
#include "receive.h"

#include <stdlib.h>
#include <sysexits.h>

#define LEAST   ((size_t)512)
#define CLASSES 11		/* up to half a MiB */
#define HEADS   ((size_t)512)	/* so that a whole chunk with what stands in front of it has the class of its bytes */
#define KEPT    ((size_t)16 << 20)

static struct {
	pthread_mutex_t lock;
	struct task *first[CLASSES];
	size_t kept;
} spare = { .lock = PTHREAD_MUTEX_INITIALIZER };

static size_t
size_of(unsigned class)
{
	return (LEAST << class) + HEADS;
}

struct task *
task_new(size_t length)
{
	struct task *t = NULL;
	size_t size = sizeof *t + length;
	unsigned class = 0;
	while (class < CLASSES && size_of(class) < size)
		class++;
	if (class < CLASSES) {
		size = size_of(class);
		pthread_mutex_lock(&spare.lock);
		if ((t = spare.first[class])) {
			spare.first[class] = t->next;
			spare.kept -= size;
		}
		pthread_mutex_unlock(&spare.lock);
	}
	if (!t)
		t = malloc(size);
	if (!t)
		far_die(EX_OSERR, "out of memory");
	*t = (struct task){ .class = class, .length = length };
	t->payload = reader_of(t->bytes, length);
	return t;
}

void
task_free(struct task *t)
{
	if (!t)
		return;
	size_t size = t->class < CLASSES ? size_of(t->class) : 0;
	pthread_mutex_lock(&spare.lock);
	bool keep = size && spare.kept + size <= KEPT;
	if (keep) {
		t->next = spare.first[t->class];
		spare.first[t->class] = t;
		spare.kept += size;
	}
	pthread_mutex_unlock(&spare.lock);
	if (!keep)
		free(t);
}
