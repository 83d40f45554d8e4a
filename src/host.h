/* host.h - one Lua state, one loop, its tasks; what runbook.h makes public is on top of this. */
#ifndef RUNBOOK_HOST_H
#define RUNBOOK_HOST_H

#include <lua.h>
#include <uv.h>

#include "runbook.h"
#include "task.h"
#include "watchdog.h"

struct runbook_host {
	uv_loop_t loop;
	lua_State *L;
	struct task *ready_first, *ready_last;
	struct task *tasks;		/* the living, newest first */
	unsigned long serial;
	unsigned turns;			/* of the loop, while they are few */
	struct watchdog watchdog;

	double slow_seconds;		/* the last slow turn, for src/lua/task.c */
	char slow_place[256];
	struct task_op *slow_waiter;

	char signals[8][8];		/* names not yet asked for, oldest first */
	int signal_count;
	bool signals_wanted;		/* somebody has asked before */
	struct task_op *signal_waiter;

	void (*sink)(void *arg, const char *event, size_t length);
	void *sink_arg;
	int main_task;			/* registry reference, LUA_NOREF before runbook_host_start */
	int exit_code;
	char error[512];
};

/* Hands a signal ("INT") to whoever waits for one; false when nobody ever asked. */
bool host_signal(struct runbook_host *h, const char *name);

/* A turn took that many seconds: wakes whoever watches for it. */
void host_slow_turn(struct runbook_host *h, double seconds);

#endif
