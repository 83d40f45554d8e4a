/*
 * measure.c - runs a command so many times and says what each run cost.
 *
 *     measure TIMES COMMAND [ARGUMENT...]
 *
 * A line per run: seconds of wall clock, seconds of CPU (its own and its children's), peak resident
 * KiB of the largest process of it, exit code (128 + n after signal n).  Its output goes nowhere.
 */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double
seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

int
main(int argc, char *argv[])
{
	posix_spawn_file_actions_t nowhere;

	if (argc < 3)
		return 64;
	posix_spawn_file_actions_init(&nowhere);
	posix_spawn_file_actions_addopen(&nowhere, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&nowhere, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&nowhere, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	for (int i = atoi(argv[1]); i > 0; i--) {
		struct rusage usage;
		double start = now();
		pid_t pid;
		int status;

		if (posix_spawnp(&pid, argv[2], &nowhere, NULL, argv + 2, environ) != 0 || wait4(pid, &status, 0, &usage) != pid) {
			perror(argv[2]);
			return 71;
		}
		printf("%.6f %.6f %ld %d\n", now() - start, seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss,
		       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	}
	return 0;
}
