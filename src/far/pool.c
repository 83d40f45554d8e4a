#include "far.h"

#include <stdlib.h>
#include <sysexits.h>

struct job {
	void (*work)(struct cursor *c, void *arg);
	void *arg;
	size_t weight;
	struct job *next;
};

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t work, room, idle;
	struct job *first, **last, *spare;
	size_t weight, most;
	unsigned count, busy, waiting;
	bool closing, full;
	int root;
	bool make;
	pthread_t *threads;
};

static struct job *
next_job(struct pool *p)
{
	while (!p->first && !p->closing) {
		p->waiting++;
		pthread_cond_wait(&p->work, &p->lock);
		p->waiting--;
	}
	struct job *j = p->first;
	if (j) {
		p->first = j->next;
		if (!p->first)
			p->last = &p->first;
		p->busy++;
	}
	return j;
}

static void *
run(void *arg)
{
	struct pool *p = arg;
	struct cursor c;
	cursor_open(&c, p->root, p->make);
	pthread_mutex_lock(&p->lock);
	for (struct job *j; (j = next_job(p));) {
		pthread_mutex_unlock(&p->lock);
		j->work(&c, j->arg);
		pthread_mutex_lock(&p->lock);
		p->busy--;
		p->weight -= j->weight;
		j->next = p->spare;
		p->spare = j;
		if (p->full && p->weight <= p->most / 2) {
			p->full = false;
			pthread_cond_signal(&p->room);
		}
		if (!p->busy && !p->first)
			pthread_cond_broadcast(&p->idle);
	}
	pthread_mutex_unlock(&p->lock);
	cursor_close(&c);
	return NULL;
}

struct pool *
pool_open(unsigned threads, int root, bool make, size_t most)
{
	struct pool *p = far_memory(sizeof *p);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	pthread_cond_init(&p->room, NULL);
	pthread_cond_init(&p->idle, NULL);
	p->last = &p->first;
	p->most = most;
	p->root = root;
	p->make = make;
	p->threads = far_memory(threads * sizeof *p->threads);
	while (p->count < threads && far_thread(&p->threads[p->count], run, p))
		p->count++;
	if (p->count == 0)
		far_die(EX_OSERR, "no thread can be started");
	return p;
}

void
pool_add(struct pool *p, void (*work)(struct cursor *c, void *arg), void *arg, size_t weight)
{
	pthread_mutex_lock(&p->lock);
	if (p->weight > p->most)
		p->full = true;
	while (p->full)
		pthread_cond_wait(&p->room, &p->lock);
	struct job *j = p->spare;
	if (j)
		p->spare = j->next;
	else
		j = far_memory(sizeof *j);
	*j = (struct job){ work, arg, weight, NULL };
	p->weight += weight;
	*p->last = j;
	p->last = &j->next;
	if (p->waiting)
		pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
}

void
pool_wait(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	while (p->busy || p->first)
		pthread_cond_wait(&p->idle, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

void
pool_close(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->closing = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->count; i++)
		pthread_join(p->threads[i], NULL);
	while (p->spare) {
		struct job *j = p->spare;
		p->spare = j->next;
		free(j);
	}
	free(p->threads);
	free(p);
}
