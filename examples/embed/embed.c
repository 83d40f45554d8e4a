/*
 * embed.c - runbooks inside another program: one host for each file named, all driven by one poll loop.
 *
 *	build/examples/embed STATE-DIRECTORY FILE.lua...
 *
 * Prints each event as `number: JSON`; exits with the highest exit code.  `require "site"` in the
 * runbooks gives them this program's own primitives.  SIGINT is handed on to every host as a Ctrl-C,
 * SIGTERM as two, which end the jobs that the runs started on other machines, too.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>

#include "runbook.h"

#define MOST 16

static volatile sig_atomic_t interrupts;

static void
on_signal(int number)
{
	interrupts += number == SIGTERM ? 2 : 1;
}

static void
print_event(void *arg, const char *event, size_t length)
{
	printf("%d: %.*s\n", *(int *)arg, (int)length, event);
	fflush(stdout);
}

static int
l_motto(lua_State *L)
{
	lua_pushliteral(L, "measure twice");
	return 1;
}

static int
open_site(lua_State *L)
{
	static const luaL_Reg functions[] = { { "motto", l_motto }, { NULL, NULL } };

	luaL_newlib(L, functions);
	return 1;
}

static struct runbook_host *
start(int *number, const char *state, const char *file)
{
	struct runbook_host *h = runbook_host_new();
	const char *words[] = { "run", "--state", state, file, "--no-input" };

	if (h == NULL)
		return NULL;
	runbook_host_on_event(h, print_event, number);
	if (runbook_host_add(h, "site", open_site) != 0 || runbook_host_start(h, 5, words) != 0) {
		fprintf(stderr, "embed: %s\n", runbook_host_error(h));
		runbook_host_free(h);
		return NULL;
	}
	return h;
}

/* Waits until one of them has something to do, then gives each a turn; how many still run. */
static int
turn(struct runbook_host *hosts[], int count, const sigset_t *while_waiting)
{
	static int handed_on;
	struct pollfd polls[MOST];
	int wait = -1, running = 0;

	for (int i = 0; i < count; i++) {
		int timeout = hosts[i] != NULL ? runbook_host_timeout(hosts[i]) : -1;

		polls[i] = (struct pollfd){ .fd = hosts[i] != NULL ? runbook_host_descriptor(hosts[i]) : -1, .events = POLLIN };
		if (timeout >= 0 && (wait < 0 || timeout < wait))
			wait = timeout;
	}
	ppoll(polls, (nfds_t)count, wait < 0 ? NULL : &(struct timespec){ wait / 1000, wait % 1000 * 1000000L }, while_waiting);
	for (; handed_on < interrupts; handed_on++)
		for (int i = 0; i < count; i++)
			if (hosts[i] != NULL)
				runbook_host_cancel(hosts[i]);
	for (int i = 0; i < count; i++)
		running += hosts[i] != NULL && runbook_host_step(hosts[i], false);
	return running;
}

int
main(int argc, char *argv[])
{
	struct runbook_host *hosts[MOST] = { NULL };
	int numbers[MOST], count = argc - 2, worst = 0;
	sigset_t stops, before;

	if (count < 1 || count > MOST) {
		fprintf(stderr, "usage: embed STATE-DIRECTORY FILE.lua...\n");
		return 64;
	}
	for (int i = 0; i < count; i++) {
		numbers[i] = i + 1;
		hosts[i] = start(&numbers[i], argv[1], argv[2 + i]);
	}
	sigemptyset(&stops);
	sigaddset(&stops, SIGINT);
	sigaddset(&stops, SIGTERM);
	sigprocmask(SIG_BLOCK, &stops, &before);	/* so that none comes between a look and a wait */
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	while (turn(hosts, count, &before) > 0)
		;
	for (int i = 0; i < count; i++) {
		int code = hosts[i] != NULL ? runbook_host_exit_code(hosts[i]) : 70;

		if (code > worst)
			worst = code;
		runbook_host_free(hosts[i]);
	}
	return worst;
}
