/* watchdog.c - see watchdog.h. */
#include "watchdog.h"

#define SLOW_NS   UINT64_C(1000000000)
#define LOOK_NS   UINT64_C(250000000)

static void
watch(void *arg)
{
	struct watchdog *w = arg;

	uv_mutex_lock(&w->lock);
	while (!w->stop) {
		uv_cond_timedwait(&w->wake, &w->lock, LOOK_NS);
		if (w->subject != NULL && !w->told && uv_hrtime() - w->began > SLOW_NS) {
			w->told = true;
			w->slow(w->subject);
		}
	}
	uv_mutex_unlock(&w->lock);
}

int
watchdog_start(struct watchdog *w, void (*slow)(void *subject))
{
	int error;

	*w = (struct watchdog){ .slow = slow };
	if ((error = uv_mutex_init(&w->lock)) != 0)
		return error;
	if ((error = uv_cond_init(&w->wake)) != 0) {
		uv_mutex_destroy(&w->lock);
		return error;
	}
	if ((error = uv_thread_create(&w->thread, watch, w)) != 0) {
		uv_cond_destroy(&w->wake);
		uv_mutex_destroy(&w->lock);
		return error;
	}
	w->running = true;
	return 0;
}

void
watchdog_stop(struct watchdog *w)
{
	if (!w->running)
		return;
	uv_mutex_lock(&w->lock);
	w->stop = true;
	uv_cond_signal(&w->wake);
	uv_mutex_unlock(&w->lock);
	uv_thread_join(&w->thread);
	uv_cond_destroy(&w->wake);
	uv_mutex_destroy(&w->lock);
	w->running = false;
}

void
watchdog_turn(struct watchdog *w, void *subject)
{
	uv_mutex_lock(&w->lock);
	w->subject = subject;
	w->began = uv_hrtime();
	w->told = false;
	uv_mutex_unlock(&w->lock);
}

double
watchdog_rest(struct watchdog *w)
{
	uint64_t took;

	uv_mutex_lock(&w->lock);
	took = uv_hrtime() - w->began;
	w->subject = NULL;
	uv_mutex_unlock(&w->lock);
	return took > SLOW_NS ? (double)took / 1e9 : 0;
}
