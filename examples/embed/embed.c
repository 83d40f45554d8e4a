/*
 * embed.c - runbooks inside another program: one host for each file named, all driven by one poll loop.
 *
 *	build/examples/embed STATE-DIRECTORY FILE.lua...
 *
 * Prints each event as `number: JSON`; exits with the highest exit code.  `require "site"` in the
 * runbooks gives them this program's own primitives.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>

#include "runbook.h"

#define MOST 16

static void
print_event(void *arg, const char *event, size_t length)
{
	printf("%d: %.*s\n", *(int *)arg, (int)length, event);
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
turn(struct runbook_host *hosts[], int count)
{
	struct pollfd polls[MOST];
	int wait = -1, running = 0;

	for (int i = 0; i < count; i++) {
		int timeout = hosts[i] != NULL ? runbook_host_timeout(hosts[i]) : -1;

		polls[i] = (struct pollfd){ .fd = hosts[i] != NULL ? runbook_host_descriptor(hosts[i]) : -1, .events = POLLIN };
		if (timeout >= 0 && (wait < 0 || timeout < wait))
			wait = timeout;
	}
	poll(polls, (nfds_t)count, wait);
	for (int i = 0; i < count; i++)
		running += hosts[i] != NULL && runbook_host_step(hosts[i], false);
	return running;
}

int
main(int argc, char *argv[])
{
	struct runbook_host *hosts[MOST] = { NULL };
	int numbers[MOST], count = argc - 2, worst = 0;

	if (count < 1 || count > MOST) {
		fprintf(stderr, "usage: embed STATE-DIRECTORY FILE.lua...\n");
		return 64;
	}
	for (int i = 0; i < count; i++) {
		numbers[i] = i + 1;
		hosts[i] = start(&numbers[i], argv[1], argv[2 + i]);
	}
	while (turn(hosts, count) > 0)
		;
	for (int i = 0; i < count; i++) {
		int code = hosts[i] != NULL ? runbook_host_exit_code(hosts[i]) : 70;

		if (code > worst)
			worst = code;
		runbook_host_free(hosts[i]);
	}
	return worst;
}
