/*
 * process.h - programs of this machine, on the event loop.  Knows nothing of Lua.
 *
 * A child gets a session and process group of its own, so that it can be ended with all it started
 * and a Ctrl-C at the terminal does not reach it.  Argument lists only; no shell is involved.
 */
#ifndef RUNBOOK_PROCESS_H
#define RUNBOOK_PROCESS_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

#include "stream.h"

#define PROCESS_OUT_LIMIT ((size_t)8 << 20)	/* captured stdout, unless the caller says less */
#define PROCESS_ERR_KEPT  ((size_t)64 << 10)	/* captured stderr: the end of it */

struct process_spawn {
	char **argv;		/* ends with NULL; argv[0] is looked up in PATH */
	char **env;		/* ends with NULL; NULL: ours */
	const char *cwd;	/* NULL: ours */
	bool duplex;		/* one socket is stdin and stdout, as a ProxyCommand wants it */
};

/* How a program ended.  signal is 0 unless a signal ended it. */
struct process_status {
	int status;
	int signal;
};

struct process;

/*
 * Starts a program with pipes on its standard streams.  NULL: *error is a negative libuv value, for
 * instance UV_ENOENT where there is no such program.  Everything is copied.
 */
struct process *process_start(uv_loop_t *loop, const struct process_spawn *spawn, int *error);

/*
 * Our end of a standard stream; the caller owns it from now on.  NULL the second time.  With duplex,
 * process_take_stdin gives the socket and process_take_stdout nothing.
 */
struct stream *process_take_stdin(struct process *p);
struct stream *process_take_stdout(struct process *p);
struct stream *process_take_stderr(struct process *p);

int process_pid(const struct process *p);

/* To the whole group; UV_ESRCH once it has ended. */
int process_signal(struct process *p, int signal);

/* Calls ended(arg) once, from the loop, when the program has ended; NULL takes it back. */
void process_when_ended(struct process *p, void (*ended)(void *arg), void *arg);

/* NULL while it runs. */
const struct process_status *process_ended(const struct process *p);

/* A program still running gets TERM and, 2 s later, KILL, with its group; nobody waits for that. */
void process_free(struct process *p);

/* One program from start to end, with its output in memory. */
struct process_result {
	const char *code;	/* NULL when it ran to its end; "ELIMIT", or what its stdin stream failed with */
	const char *message;
	struct process_status how;
	const char *out, *err;
	size_t out_length, err_length;
};

struct process_input {
	const char *bytes;	/* copied */
	size_t length;
	struct stream *stream;	/* instead of bytes; must live until done, is not closed */
};

struct process_exec;

/* Calls done(arg) once, from the loop, when the program has ended and its pipes are read out. */
struct process_exec *process_exec_start(uv_loop_t *loop, const struct process_spawn *spawn,
                                        const struct process_input *input, size_t out_limit,
                                        void (*done)(void *arg), void *arg, int *error);

/* Valid after done, until free. */
const struct process_result *process_exec_result(const struct process_exec *x);

/* Also abandons a running program, as process_free does; done is not called after this. */
void process_exec_free(struct process_exec *x);

/* "TERM" for SIGTERM; NULL for a number without a name.  process_signal_number: 0 for an unknown name. */
const char *process_signal_name(int signal);
int process_signal_number(const char *name);

#endif
