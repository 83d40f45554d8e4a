/*
 * points.c - runs a command and stops it at points that it passes (src/point.h).
 *
 *     points NAMES N [-x SHELL] COMMAND [ARGUMENT...]
 *
 * The name of each point that the command reaches is added to the file NAMES.  At the Nth (from 1; 0:
 * never) the command is killed; with -x that shell line is run there instead, while the command waits, and
 * the command goes on.  Points reached by what the command starts do not count: it gets no socket.
 *
 * Ends as the command does, with 128 + n when signal n ended it; 70 when the command could not be watched.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void
die(const char *what)
{
	perror(what);
	exit(70);
}

static pid_t
start(char *argv[], int socket)
{
	char number[16];
	pid_t child = fork();

	if (child < 0)
		die("points: fork");
	if (child > 0)
		return child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);	/* nobody would answer it any more */
	fcntl(socket, F_SETFD, 0);
	snprintf(number, sizeof number, "%d", socket);
	setenv("RUNBOOK_POINTS", number, 1);
	execvp(argv[0], argv);
	perror(argv[0]);
	_exit(127);
}

/* One line of the command's; 0 at its end. */
static size_t
next_name(int fd, char *name, size_t size)
{
	size_t length = 0;

	while (length + 1 < size) {
		ssize_t n = read(fd, name + length, 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return 0;
		if (name[length++] == '\n')
			break;
	}
	name[length] = '\0';
	return length;
}

static void
watch(int fd, FILE *names, long at, const char *shell, pid_t child)
{
	char name[256];

	for (long n = 1; next_name(fd, name, sizeof name) > 0; n++) {
		fputs(name, names);
		fflush(names);
		if (n == at && shell == NULL) {
			kill(child, SIGKILL);
			return;
		}
		if (n == at && system(shell) != 0)
			die("points: the shell line failed");
		if (send(fd, "", 1, MSG_NOSIGNAL) != 1)
			return;
	}
}

int
main(int argc, char *argv[])
{
	int first = argc > 4 && strcmp(argv[3], "-x") == 0 ? 5 : 3;
	const char *shell = first == 5 ? argv[4] : NULL;
	int sockets[2], status;
	FILE *names;
	pid_t child;

	if (argc <= first) {
		fputs("usage: points NAMES N [-x SHELL] COMMAND [ARGUMENT...]\n", stderr);
		return 64;
	}
	names = fopen(argv[1], "a");
	if (names == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
		die(argv[1]);
	child = start(argv + first, sockets[1]);
	close(sockets[1]);
	watch(sockets[0], names, atol(argv[2]), shell, child);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			die("points: waitpid");
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
