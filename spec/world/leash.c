/*
 * leash.c - runs a command that must not outlive the suite, nor leave anything behind.
 *
 *     leash PID [-e SHELL] [COMMAND [ARGUMENT...]]
 *
 * When process PID ends, however it ends, or leash gets TERM: everything the command started is
 * killed, daemons too, for their new parent is leash.  Then the shell line is run.  Without a
 * command leash only waits for that moment.  Ends early when the command and all it started have
 * ended (the shell line is run then too).
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static void
die(const char *what)
{
	perror(what);
	exit(71);
}

static void
start(char *argv[], const sigset_t *before)
{
	pid_t child = fork();

	if (child < 0)
		die("leash: fork");
	if (child > 0)
		return;
	sigprocmask(SIG_SETMASK, before, NULL);
	signal(SIGINT, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	execvp(argv[0], argv);
	perror(argv[0]);
	_exit(127);
}

/* false: there are no children any more */
static bool
reap(void)
{
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		;
	return pid == 0;
}

/* Orphans of those killed come to us, so this goes on until nobody is left. */
static void
kill_all(void)
{
	while (reap()) {
		FILE *list = fopen("/proc/thread-self/children", "r");
		int pid;

		if (list == NULL)
			die("leash: /proc/thread-self/children");
		while (fscanf(list, "%d", &pid) == 1)
			kill(pid, SIGKILL);
		fclose(list);
		waitpid(-1, NULL, 0);
	}
}

/* Until the process of that descriptor ends, TERM comes, or our last child has ended. */
static void
watch(int process, int signals, bool has_children)
{
	struct pollfd fds[] = { { .fd = process, .events = POLLIN }, { .fd = signals, .events = POLLIN } };
	struct signalfd_siginfo info;

	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			die("leash: poll");
		if (fds[0].revents != 0)
			return;
		if (fds[1].revents == 0 || read(signals, &info, sizeof info) != sizeof info)
			continue;
		if (info.ssi_signo == SIGTERM || (has_children && !reap()))
			return;
	}
}

int
main(int argc, char *argv[])
{
	sigset_t mask, before;
	const char *end = NULL;
	int at = 2, process, signals;

	if (argc > 3 && strcmp(argv[2], "-e") == 0) {
		end = argv[3];
		at = 4;
	}
	if (argc < 2)
		return 64;
	process = pidfd_open(atoi(argv[1]), 0);
	if (process < 0 && errno != ESRCH)
		die("leash: pidfd_open");
	setsid();
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, &before);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0 || (signals = signalfd(-1, &mask, SFD_CLOEXEC)) < 0)
		die("leash");
	if (process >= 0) {
		if (argv[at] != NULL)
			start(argv + at, &before);
		watch(process, signals, argv[at] != NULL);
	}
	kill_all();
	sigprocmask(SIG_SETMASK, &before, NULL);
	return end != NULL && system(end) != 0 ? 1 : 0;
}
