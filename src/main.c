/*
 * main.c - the command: --version, signals, the size of the thread pool; all else is lib/runbook/cli.lua.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <uv.h>

#include "host.h"
#include "point.h"

static const struct {
	int number;
	const char *name;
} signals[] = { { SIGINT, "INT" }, { SIGTERM, "TERM" }, { SIGHUP, "HUP" }, { SIGUSR1, "USR1" }, { SIGWINCH, "WINCH" } };

#define SIGNALS (sizeof signals / sizeof signals[0])

static void
on_signal(uv_signal_t *handle, int number)
{
	for (size_t i = 0; i < SIGNALS; i++) {
		if (signals[i].number != number || host_signal(handle->data, signals[i].name))
			continue;
		if (number != SIGUSR1 && number != SIGWINCH)
			_exit(128 + number);	/* before lib/runbook/cli.lua listens there is nothing to stop */
	}
}

/* libuv reads it once, at the first use of the pool. */
static void
size_thread_pool(void)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	char text[24];

	snprintf(text, sizeof text, "%ld", cores > 4 ? 2 * cores : 8);
	setenv("UV_THREADPOOL_SIZE", text, 0);
}

static int
run(struct runbook_host *h, int argc, char *argv[])
{
	uv_signal_t handles[SIGNALS];

	for (size_t i = 0; i < SIGNALS; i++) {
		uv_signal_init(host_loop(h), &handles[i]);
		handles[i].data = h;
		uv_signal_start(&handles[i], on_signal, signals[i].number);
		uv_unref((uv_handle_t *)&handles[i]);
	}
	if (runbook_host_start(h, argc - 1, (const char *const *)argv + 1) == 0) {
		while (runbook_host_step(h, true))
			;
	}
	for (size_t i = 0; i < SIGNALS; i++)
		uv_close((uv_handle_t *)&handles[i], NULL);
	uv_run(host_loop(h), UV_RUN_NOWAIT);	/* the handles are on our stack */
	if (runbook_host_error(h)[0] == '\0')
		return runbook_host_exit_code(h);
	fprintf(stderr, "runbook: internal error: %s\n", runbook_host_error(h));
	return 70;
}

int
main(int argc, char *argv[])
{
	struct runbook_host *h;
	int code;

	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		puts("runbook " RUNBOOK_VERSION);
		return fflush(stdout) == 0 ? 0 : 74;
	}
	signal(SIGPIPE, SIG_IGN);
	size_thread_pool();
	point_init();
	if ((h = runbook_host_new()) == NULL) {
		fputs("runbook: out of memory, threads or file descriptors\n", stderr);
		return 71;
	}
	code = run(h, argc, argv);
	runbook_host_free(h);
	return code;
}
