/*
 * main.c - oracle: says whether two trees are the same, by looking at everything a copy must keep.
 *
 *     oracle [OPTION]... SOURCE TARGET        is the target identical to the source?
 *     oracle [OPTION]... --print TREE         one line: a digest of all of it, and how many names
 *
 *     --exclude-top NAME   this name at the top of either tree does not count (again for more)
 *     --owner UID:GID      what everything on the target has to belong to; otherwise to whom it does on the source
 *     --threads N          directories looked at together (default 8)
 *
 * Compared are type, bytes, size, mode with its special bits, owner, group, modification time in ns (of directories
 * and symlinks too), link targets, device numbers, xattrs with ACLs, which names are one file, and holes: those of the
 * source that the target has filled, one kind for all of them ("allocated") and one for some ("holes"), with 64 KiB of
 * grace at their ends; zeros that became holes are no difference.  That the target has nothing else, but for .runbook
 * at its top; and that no file is the source's own.  security.* but capabilities belongs to the machine, not the tree.
 *
 * A kind and its count per line, then lines with a tab: names, smallest first.  Ends with 0 only if all was seen and is
 * identical, 1 on a difference, 2 when something could not be seen.  Changes nothing, access times neither, where it
 * may; never opens what is no file or directory.  Knows nothing of the program under test.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "oracle.h"

enum { THREADS_MOST = 64 };

struct given given = { .sides = 2 };

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	struct name_list pending;	/* directories; last in, first out */
	int busy;
} queue = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static struct shared *
new_shared(struct shared_list *l)
{
	if (l->count == l->room) {
		l->room = l->room != 0 ? l->room * 2 : 64;
		l->list = must(realloc(l->list, l->room * sizeof *l->list));
	}
	return &l->list[l->count++];
}

void
keep_shared(struct worker *w, const char *path, const struct entry *e)
{
	struct shared *s = new_shared(&w->shared);

	*s = (struct shared){ .path = must(strdup(path)) };
	for (int i = 0; i < given.sides; i++) {
		s->dev[i] = e[i].st.st_dev;
		s->ino[i] = e[i].st.st_ino;
	}
}

static int
by_file(const struct shared *a, const struct shared *b, int side)
{
	if (a->dev[side] != b->dev[side])
		return a->dev[side] < b->dev[side] ? -1 : 1;
	if (a->ino[side] != b->ino[side])
		return a->ino[side] < b->ino[side] ? -1 : 1;
	return 0;
}

static int
by_source(const void *a, const void *b)
{
	int order = by_file(a, b, 0);

	return order != 0 ? order : strcmp(((const struct shared *)a)->path, ((const struct shared *)b)->path);
}

static int
by_target(const void *a, const void *b)
{
	int order = by_file(a, b, 1);

	return order != 0 ? order : strcmp(((const struct shared *)a)->path, ((const struct shared *)b)->path);
}

void
sort_shared(struct shared_list *l, int side)
{
	if (l->count > 1)
		qsort(l->list, l->count, sizeof *l->list, side == 0 ? by_source : by_target);
}

bool
same_file(const struct shared *a, const struct shared *b, int side)
{
	return by_file(a, b, side) == 0;
}

void
enqueue(const char *path)
{
	pthread_mutex_lock(&queue.mutex);
	push(&queue.pending, must(strdup(path)));
	pthread_cond_signal(&queue.changed);
	pthread_mutex_unlock(&queue.mutex);
}

/* A directory to look at; NULL when there are none and nobody is at work who could find more. */
static char *
dequeue(void)
{
	char *path = NULL;

	pthread_mutex_lock(&queue.mutex);
	while (queue.pending.count == 0 && queue.busy > 0)
		pthread_cond_wait(&queue.changed, &queue.mutex);
	if (queue.pending.count > 0) {
		path = queue.pending.names[--queue.pending.count];
		queue.busy++;
	}
	pthread_mutex_unlock(&queue.mutex);
	return path;
}

static void
finished(char *path)
{
	free(path);
	pthread_mutex_lock(&queue.mutex);
	if (--queue.busy == 0)
		pthread_cond_broadcast(&queue.changed);
	pthread_mutex_unlock(&queue.mutex);
}

static void *
work(void *argument)
{
	struct worker *w = argument;
	char *path;

	while ((path = dequeue()) != NULL) {
		if (given.sides == 2)
			compare_directory(w, path);
		else
			digest_directory(w, path);
		finished(path);
	}
	return NULL;
}

/* Adds what a thread has to the first one's. */
static void
gather(struct worker *to, struct worker *from)
{
	to->names += from->names;
	to->bytes += from->bytes;
	for (int i = 0; i < 4; i++)
		to->sum[i] += from->sum[i];
	for (size_t i = 0; i < from->shared.count; i++)
		*new_shared(&to->shared) = from->shared.list[i];
	free(from->shared.list);
}

static int
look(struct worker *workers, int threads)
{
	struct worker *all = &workers[0];

	enqueue("");
	for (int i = 0; i < threads; i++) {
		workers[i].digest = must(EVP_MD_CTX_new());
		for (int side = 0; side < 2; side++)
			workers[i].buffer[side] = must(malloc(CHUNK));
		errno = pthread_create(&workers[i].thread, NULL, work, &workers[i]);
		if (errno != 0)
			must(NULL);
	}
	for (int i = 0; i < threads; i++) {
		pthread_join(workers[i].thread, NULL);
		if (i > 0)
			gather(all, &workers[i]);
	}
	if (given.sides == 2) {
		compare_shared(&all->shared);
		return report(all->names, all->bytes);
	}
	digest_shared(all, &all->shared);
	printf("%016jx%016jx%016jx%016jx %ju names\n", (uintmax_t)all->sum[0], (uintmax_t)all->sum[1], (uintmax_t)all->sum[2],
	       (uintmax_t)all->sum[3], (uintmax_t)all->names);
	return report_trouble();
}

static void
usage(void)
{
	fputs("usage: oracle [--exclude-top NAME]... [--owner UID:GID] [--threads N] SOURCE TARGET | --print TREE\n", stderr);
	exit(2);
}

static int
parse(int argc, char *argv[])
{
	static const struct option options[] = {
		{ "exclude-top", required_argument, NULL, 'x' }, { "owner", required_argument, NULL, 'o' },
		{ "threads", required_argument, NULL, 't' }, { "print", no_argument, NULL, 'p' }, { 0 }
	};
	int threads = 8, option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (option == 'x')
			push(&given.excluded, must(strdup(optarg)));
		else if (option == 'o' && sscanf(optarg, "%u:%u", &given.uid, &given.gid) == 2)
			given.mapped = true;
		else if (option == 't' && sscanf(optarg, "%d", &threads) == 1 && threads >= 1 && threads <= THREADS_MOST)
			;
		else if (option == 'p')
			given.sides = 1;
		else
			usage();
	}
	if (argc - optind != given.sides)
		usage();
	for (int i = 0; i < given.sides; i++)
		given.root[i] = argv[optind + i];
	return threads;
}

int
main(int argc, char *argv[])
{
	static struct worker workers[THREADS_MOST];

	return look(workers, parse(argc, argv));
}
