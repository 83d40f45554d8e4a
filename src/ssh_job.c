/* ssh_job.c - the threads that shake hands and authenticate, and the jobs they do. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>

#include "ssh_job.h"

#define THREADS 16
#define ASK_SLICE_MS 100	/* how soon an answer, or the server's hanging up, is noticed */
#define ANSWERED_MS 60000	/* after an answer: somebody may have to approve on a phone, too */

struct ssh_hub {
	uv_loop_t *loop;
	uv_async_t async;
	pthread_mutex_t mutex;
	pthread_cond_t quiet;		/* the last thread is gone */
	struct ssh_job *queue, **queue_end, *running, *finished;
	int threads;
	int users;			/* the owner, its connects, the async handle, each thread */
	int waiting;			/* jobs of the loop, so that the loop stays alive for them */
	bool closed;
};

static pthread_once_t library_once = PTHREAD_ONCE_INIT;

/* libssh2's own counter of users is not safe between threads, so it is counted up once for good. */
static void
library_init(void)
{
	libssh2_init(0);
}

struct ssh_options *
ssh_options_new(void)
{
	struct ssh_options *o = calloc(1, sizeof *o);

	if (o == NULL)
		return NULL;
	o->port = 22;
	o->timeout = 15;
	o->keepalive = 15;
	for (enum ssh_method m = SSH_AGENT; m < SSH_METHODS; m++)
		o->order[o->order_count++] = m;
	return o;
}

static void
text_wipe(struct ssh_text *t)
{
	if (t->bytes != NULL)
		OPENSSL_cleanse(t->bytes, t->length);
	free(t->bytes);
}

void
ssh_texts_free(struct ssh_text *texts, size_t count)
{
	for (size_t i = 0; i < count; i++)
		text_wipe(&texts[i]);
	free(texts);
}

static void
strings_free(char **list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(list[i]);
	free(list);
}

void
ssh_options_free(struct ssh_options *o)
{
	if (o == NULL)
		return;
	for (size_t i = 0; i < o->identity_count; i++) {
		free(o->identities[i].path);
		free(o->identities[i].certificate);
		text_wipe(&o->identities[i].key);
		text_wipe(&o->identities[i].passphrase);
		text_wipe(&o->identities[i].certificate_text);
	}
	free(o->identities);
	ssh_texts_free(o->answers, o->answer_count);
	text_wipe(&o->password);
	strings_free(o->known_hosts, o->known_hosts_count);
	strings_free(o->pins, o->pin_count);
	free(o->host);
	free(o->user);
	free(o->alias);
	free(o->agent);
	free(o);
}

void
ssh_failure_set(struct ssh_failure *f, const char *code, const char *format, ...)
{
	va_list ap;

	if (f->code != NULL)
		return;
	f->code = code;
	va_start(ap, format);
	vsnprintf(f->message, sizeof f->message, format, ap);
	va_end(ap);
}

void
ssh_failure_forget_prompts(struct ssh_failure *f)
{
	for (size_t i = 0; i < f->prompt_count; i++)
		free(f->prompts[i].text);
	free(f->prompts);
	f->prompts = NULL;
	f->prompt_count = 0;
	f->said[0] = '\0';
}

void
ssh_failure_fini(struct ssh_failure *f)
{
	ssh_failure_forget_prompts(f);
	free(f->key);
	memset(f, 0, sizeof *f);
}

void
ssh_list_add(char *list, size_t size, const char *format, ...)
{
	size_t length = strlen(list);
	va_list ap;

	if (length > 0 && length + 3 < size) {
		memcpy(list + length, ", ", 3);
		length += 2;
	}
	va_start(ap, format);
	vsnprintf(list + length, size - length, format, ap);
	va_end(ap);
}

struct ssh_job *
ssh_job_new(struct ssh_options *o, struct wire *wire, void (*finished)(struct ssh_job *j, void *arg), void *arg)
{
	struct ssh_job *j = calloc(1, sizeof *j);

	if (j == NULL)
		return NULL;
	j->o = o;
	j->wire = wire;
	wire->owner = j;
	j->finished = finished;
	j->arg = arg;
	return j;
}

void
ssh_job_free(struct ssh_job *j)
{
	if (j == NULL)
		return;
	if (j->lib != NULL) {
		wire_shut(j->wire);	/* nothing to say goodbye to, so libssh2 cannot want to wait */
		libssh2_session_free(j->lib);
	}
	wire_free(j->wire);
	ssh_options_free(j->o);
	ssh_job_forget_given(j);
	ssh_failure_fini(&j->failure);
	free(j);
}

void
ssh_job_forget_given(struct ssh_job *j)
{
	ssh_texts_free(j->given, j->given_count);
	j->given = NULL;
	j->given_count = 0;
}

bool
ssh_job_again(struct ssh_job *j, int rc)
{
	if (rc != LIBSSH2_ERROR_EAGAIN)
		return false;
	j->broken = wire_wait(j->wire, j->deadline);
	return j->broken == 0;
}

void
ssh_job_run(struct ssh_job *j)
{
	uint64_t allowed = (uint64_t)(j->o->timeout * 1000);

	if ((j->lib = wire_session(j->wire)) == NULL) {
		ssh_failure_set(&j->failure, "ENOMEM", "out of memory");
		return;
	}
	j->deadline = wire_now_ms() + allowed;
	if (!ssh_job_shake_hands(j) || atomic_load(&j->wire->unwanted))
		return;
	j->deadline = wire_now_ms() + allowed;
	ssh_job_authenticate(j);
}

uv_loop_t *
ssh_hub_loop(const struct ssh_hub *hub)
{
	return hub->loop;
}

/* With the mutex held, which is let go.  The last user frees the hub. */
static void
leave(struct ssh_hub *hub)
{
	bool last = --hub->users == 0;

	pthread_mutex_unlock(&hub->mutex);
	if (!last)
		return;
	pthread_mutex_destroy(&hub->mutex);
	pthread_cond_destroy(&hub->quiet);
	free(hub);
}

void
ssh_hub_hold(struct ssh_hub *hub)
{
	pthread_mutex_lock(&hub->mutex);
	hub->users++;
	pthread_mutex_unlock(&hub->mutex);
}

void
ssh_hub_release(struct ssh_hub *hub)
{
	pthread_mutex_lock(&hub->mutex);
	leave(hub);
}

static void
running_remove(struct ssh_hub *hub, struct ssh_job *j)
{
	struct ssh_job **at = &hub->running;

	while (*at != j)
		at = &(*at)->next;
	*at = j->next;
	j->next = NULL;
}

/* Under the mutex.  A question nobody waits for any more is withdrawn. */
static enum ssh_asking
look_for_answer(struct ssh_hub *hub, struct ssh_job *j, bool hung_up)
{
	enum ssh_asking now = j->asking;

	if (now == ASKING_ANSWERED || hung_up || j->abandoned || hub->closed)
		j->asking = ASKING_NOTHING;
	return now == ASKING_ANSWERED ? now : j->asking;
}

bool
ssh_job_ask(struct ssh_job *j)
{
	struct pollfd p = { .fd = j->wire->fd, .events = POLLRDHUP };
	uint64_t allowed = (uint64_t)(j->o->timeout * 1000);
	enum ssh_asking now = ASKING_POSTED;
	bool hung_up = false;

	pthread_mutex_lock(&j->hub->mutex);
	j->asking = ASKING_POSTED;
	if (!j->hub->closed)
		uv_async_send(&j->hub->async);
	pthread_mutex_unlock(&j->hub->mutex);
	while (now == ASKING_POSTED || now == ASKING_SHOWN) {
		hung_up = poll(&p, 1, ASK_SLICE_MS) > 0;
		pthread_mutex_lock(&j->hub->mutex);
		now = look_for_answer(j->hub, j, hung_up);
		pthread_mutex_unlock(&j->hub->mutex);
	}
	if (hung_up && now == ASKING_NOTHING)
		ssh_failure_set(&j->failure, "EPROMPT", "%s hung up before it was answered: %s", j->o->host,
		                j->failure.prompt_count > 0 ? j->failure.prompts[0].text : "?");
	j->deadline = wire_now_ms() + (allowed > ANSWERED_MS ? allowed : ANSWERED_MS);
	return now == ASKING_ANSWERED;
}

bool
ssh_hub_asks(struct ssh_hub *hub, const struct ssh_job *j)
{
	bool asks;

	pthread_mutex_lock(&hub->mutex);
	asks = !hub->closed && j->asking == ASKING_SHOWN;	/* a closed hub has freed the job */
	pthread_mutex_unlock(&hub->mutex);
	return asks;
}

bool
ssh_hub_answer(struct ssh_hub *hub, struct ssh_job *j, struct ssh_text *answers, size_t count)
{
	bool asks;

	pthread_mutex_lock(&hub->mutex);
	if ((asks = !hub->closed && j->asking == ASKING_SHOWN)) {
		j->given = answers;
		j->given_count = count;
		j->asking = ASKING_ANSWERED;
	}
	pthread_mutex_unlock(&hub->mutex);
	return asks;
}

/* Does jobs until none is left.  The mutex is free only while a job runs. */
static void *
work(void *arg)
{
	struct ssh_hub *hub = arg;
	struct ssh_job *j;

	pthread_mutex_lock(&hub->mutex);
	while ((j = hub->queue) != NULL) {
		if ((hub->queue = j->next) == NULL)
			hub->queue_end = &hub->queue;
		j->next = hub->running;
		hub->running = j;
		pthread_mutex_unlock(&hub->mutex);
		ssh_job_run(j);
		pthread_mutex_lock(&hub->mutex);
		running_remove(hub, j);
		if (j->abandoned || hub->closed) {
			ssh_job_free(j);
			continue;
		}
		j->next = hub->finished;
		hub->finished = j;
		uv_async_send(&hub->async);
	}
	if (--hub->threads == 0)
		pthread_cond_signal(&hub->quiet);
	leave(hub);
	return NULL;
}

static void
settled(struct ssh_hub *hub)
{
	if (--hub->waiting == 0)
		uv_unref((uv_handle_t *)&hub->async);
}

static struct ssh_job *
next_question(struct ssh_hub *hub)
{
	struct ssh_job *j;

	pthread_mutex_lock(&hub->mutex);
	for (j = hub->running; j != NULL; j = j->next)
		if (j->asking == ASKING_POSTED && !j->abandoned)
			break;
	if (j != NULL)
		j->asking = ASKING_SHOWN;
	pthread_mutex_unlock(&hub->mutex);
	return j;
}

static void
collect(uv_async_t *async)
{
	struct ssh_hub *hub = async->data;
	struct ssh_job *j;

	while ((j = next_question(hub)) != NULL)
		j->asks(j, j->arg);
	for (;;) {
		pthread_mutex_lock(&hub->mutex);
		if ((j = hub->finished) != NULL)
			hub->finished = j->next;
		pthread_mutex_unlock(&hub->mutex);
		if (j == NULL)
			return;
		settled(hub);
		j->finished(j, j->arg);
	}
}

struct ssh_hub *
ssh_hub_new(uv_loop_t *loop)
{
	struct ssh_hub *hub = calloc(1, sizeof *hub);

	if (hub == NULL)
		return NULL;
	pthread_once(&library_once, library_init);
	hub->loop = loop;
	hub->queue_end = &hub->queue;
	hub->users = 2;
	if (uv_async_init(loop, &hub->async, collect) != 0) {
		free(hub);
		return NULL;
	}
	hub->async.data = hub;
	uv_unref((uv_handle_t *)&hub->async);
	pthread_mutex_init(&hub->mutex, NULL);
	pthread_cond_init(&hub->quiet, NULL);
	return hub;
}

/* A thread takes no signals: they are the loop's. */
static bool
thread_start(struct ssh_hub *hub)
{
	sigset_t all, before;
	pthread_attr_t attributes;
	pthread_t thread;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	error = pthread_create(&thread, &attributes, work, hub);
	pthread_attr_destroy(&attributes);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error == 0;
}

void
ssh_hub_submit(struct ssh_hub *hub, struct ssh_job *j)
{
	if (hub->waiting++ == 0)
		uv_ref((uv_handle_t *)&hub->async);
	j->hub = hub;
	pthread_mutex_lock(&hub->mutex);
	j->next = NULL;
	*hub->queue_end = j;
	hub->queue_end = &j->next;
	if (hub->threads < THREADS && thread_start(hub)) {
		hub->threads++;
		hub->users++;
	} else if (hub->threads == 0) {		/* no thread to be had: say so from the loop, as ever */
		hub->queue = NULL;
		hub->queue_end = &hub->queue;
		ssh_failure_set(&j->failure, "EAGAIN", "no thread could be started for the handshake");
		j->next = hub->finished;
		hub->finished = j;
		uv_async_send(&hub->async);
	}
	pthread_mutex_unlock(&hub->mutex);
}

static bool
unlink_from(struct ssh_job **list, struct ssh_job *j)
{
	for (; *list != NULL; list = &(*list)->next) {
		if (*list == j) {
			*list = j->next;
			return true;
		}
	}
	return false;
}

void
ssh_hub_abandon(struct ssh_hub *hub, struct ssh_job *j)
{
	bool ours;

	pthread_mutex_lock(&hub->mutex);
	if (hub->closed) {	/* the hub has taken care of the job */
		pthread_mutex_unlock(&hub->mutex);
		return;
	}
	ours = unlink_from(&hub->queue, j) || unlink_from(&hub->finished, j);
	hub->queue_end = &hub->queue;
	while (*hub->queue_end != NULL)
		hub->queue_end = &(*hub->queue_end)->next;
	if (!ours) {
		j->abandoned = true;
		atomic_store(&j->wire->unwanted, true);
	}
	pthread_mutex_unlock(&hub->mutex);
	if (ours)
		ssh_job_free(j);
	settled(hub);
}

static void
async_closed(uv_handle_t *async)
{
	ssh_hub_release(async->data);
}

static void
free_all(struct ssh_job *j)
{
	while (j != NULL) {
		struct ssh_job *next = j->next;

		ssh_job_free(j);
		j = next;
	}
}

/*
 * Threads are told, and given a second, so that none is inside OpenSSL when the process ends and
 * OpenSSL puts its things away.
 */
void
ssh_hub_free(struct ssh_hub *hub)
{
	struct timespec until;

	if (hub == NULL)
		return;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++;
	pthread_mutex_lock(&hub->mutex);
	hub->closed = true;
	free_all(hub->queue);
	free_all(hub->finished);
	hub->queue = hub->finished = NULL;
	hub->queue_end = &hub->queue;
	for (struct ssh_job *j = hub->running; j != NULL; j = j->next)
		atomic_store(&j->wire->unwanted, true);
	while (hub->threads > 0 && pthread_cond_timedwait(&hub->quiet, &hub->mutex, &until) == 0)
		continue;
	pthread_mutex_unlock(&hub->mutex);
	uv_close((uv_handle_t *)&hub->async, async_closed);
	ssh_hub_release(hub);
}
