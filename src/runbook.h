/*
 * runbook.h - runbook inside another program.
 *
 *	struct runbook_host *h = runbook_host_new();
 *	runbook_host_on_event(h, print_event, stdout);
 *	runbook_host_start(h, 3, (const char *[]){ "run", "move.lua", "--no-input" });
 *	while (runbook_host_step(h, true))
 *		;
 *	code = runbook_host_exit_code(h);
 *	runbook_host_free(h);
 *
 * A host has no globals, prints nothing when it has a sink for events, never calls exit() and may
 * live beside others in one process, each used from one thread at a time.
 */
#ifndef RUNBOOK_H
#define RUNBOOK_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

#define RUNBOOK_VERSION "0.1.0"

struct runbook_host;

/* NULL: no memory, or no threads or descriptors left. */
struct runbook_host *runbook_host_new(void);

/* Cancels what still runs, waits for it, frees everything. */
void runbook_host_free(struct runbook_host *h);

/*
 * Every event (one JSON object, as in events.ndjson, secrets already redacted) goes to fn, from
 * within runbook_host_step.  With a sink nothing is written to stdout or stderr.
 */
void runbook_host_on_event(struct runbook_host *h, void (*fn)(void *arg, const char *event, size_t length), void *arg);

/* Makes `require "name"` in runbooks return what open(L) leaves: primitives of your own.  0, or -1 without memory. */
int runbook_host_add(struct runbook_host *h, const char *name, lua_CFunction open);

/*
 * Starts a command as typed after `runbook`: { "run", "file.lua", "--params", "x.yaml" }.
 * 0, or -1 when one runs already or memory ran out (see runbook_host_error).
 */
int runbook_host_start(struct runbook_host *h, int argc, const char *const argv[]);

/* One turn of the loop; wait: block until something happens.  False once the command has ended. */
bool runbook_host_step(struct runbook_host *h, bool wait);

/* For a loop of your own: poll this descriptor for at most so many ms (-1: for ever), then step(h, false). */
int runbook_host_descriptor(const struct runbook_host *h);
int runbook_host_timeout(const struct runbook_host *h);

/* Asks the command to stop as a first Ctrl-C does. */
void runbook_host_cancel(struct runbook_host *h);

/* The exit code of the command that ended, as in runbook(1). */
int runbook_host_exit_code(const struct runbook_host *h);

/* Why the last call failed, or "". */
const char *runbook_host_error(const struct runbook_host *h);

#endif
