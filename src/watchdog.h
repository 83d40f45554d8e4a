/*
 * watchdog.h - notices a turn of the loop that takes over a second.  Knows nothing of Lua.
 *
 * A thread of its own looks four times a second; while a slow turn lasts it calls slow() once,
 * under the lock that watchdog_rest takes, so what `subject` points at is alive then.
 */
#ifndef RUNBOOK_WATCHDOG_H
#define RUNBOOK_WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

struct watchdog {
	uv_thread_t thread;
	uv_mutex_t lock;
	uv_cond_t wake;
	void (*slow)(void *subject);
	void *subject;		/* NULL between turns */
	uint64_t began;		/* ns */
	bool told, stop, running;
};

int watchdog_start(struct watchdog *w, void (*slow)(void *subject));	/* 0 or a negative libuv error */
void watchdog_stop(struct watchdog *w);
void watchdog_turn(struct watchdog *w, void *subject);
/* Ends the turn; returns its seconds when it was slow, else 0. */
double watchdog_rest(struct watchdog *w);

#endif
