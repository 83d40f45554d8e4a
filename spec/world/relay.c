/*
 * relay.c - a TCP relay that can be bad.
 *
 *     relay ADDRESS TO-ADDRESS TO-PORT DIRECTORY [COMMAND]...
 *
 * Listens on a free port of ADDRESS.  Reads commands, one a line, from the fifo DIRECTORY/control;
 * those of the command line are obeyed before the first connection.  The files port, state and done in
 * DIRECTORY say the port, "connections bytes-there bytes-back", and how many commands have been obeyed.
 *
 *     cut [N]      reset every connection, now or when N more bytes have passed, both ways together
 *     close [N]    the same with a clean end
 *     stop [N]     pass nothing more, read nothing more; connections stay
 *     go           pass again, and forget an earlier cut, close, stop or refuse
 *     refuse       accept and reset new connections
 *     delay S      hold each piece for S seconds
 *     one          one byte per packet
 *     whole        no longer
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS 256
#define PIECE 16384		/* bytes read at once */
#define PIECES 1024		/* held per direction while there is a delay: a long line holds much */
#define PIECES_NOW 16		/* and otherwise, so that who sends notices who does not read */

struct piece {
	double due;
	size_t at, length;
	char bytes[PIECE];
};

/* One direction of a connection: what was read from one socket and not yet written to the other. */
struct flow {
	struct piece pieces[PIECES];
	int first, count;
	bool ended;		/* nothing more to read */
	bool passed_end;	/* and the other side was told */
};

struct connection {
	int fd[2];		/* [0] who connected, [1] the target */
	struct flow flow[2];	/* flow[i] is read from fd[i] */
};

enum trigger { NONE, CUT, CLOSE, STOP };

static struct connection *connections[CONNECTIONS];
static struct sockaddr_in target;
static struct {
	bool stopped, refuse, one;
	double delay;
	enum trigger trigger;
	unsigned long long after;	/* bytes until the trigger */
	unsigned long long accepted, bytes[2], obeyed;
} state;

static void
die(const char *what)
{
	perror(what);
	exit(71);
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Whole or not at all: a reader sees the old or the new text. */
static void
publish(const char *name, const char *text)
{
	char fresh[64];
	FILE *f;

	snprintf(fresh, sizeof fresh, "%s.new", name);
	if ((f = fopen(fresh, "w")) == NULL || fputs(text, f) < 0 || fclose(f) != 0 || rename(fresh, name) != 0)
		die(name);
}

/* In place and of one length: once per byte has to be cheap. */
static void
publish_state(void)
{
	static int fd = -1;
	char text[80];
	int length = snprintf(text, sizeof text, "%20llu %20llu %20llu\n", state.accepted, state.bytes[0], state.bytes[1]);

	if (fd < 0)
		fd = open("state", O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (pwrite(fd, text, (size_t)length, 0) != length)
		die("state");
}

static void
end_connection(int i, bool reset)
{
	struct linger hard = { .l_onoff = 1, .l_linger = 0 };

	for (int side = 0; side < 2; side++) {
		if (reset)
			setsockopt(connections[i]->fd[side], SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
		close(connections[i]->fd[side]);
	}
	free(connections[i]);
	connections[i] = NULL;
}

static void
fire(enum trigger trigger)
{
	state.trigger = NONE;
	if (trigger == STOP) {
		state.stopped = true;
		return;
	}
	for (int i = 0; i < CONNECTIONS; i++) {
		if (connections[i] != NULL)
			end_connection(i, trigger == CUT);
	}
}

static void
arm(enum trigger trigger, unsigned long long after)
{
	state.trigger = trigger;
	state.after = after;
	if (after == 0)
		fire(trigger);
}

static void
obey(const char *line)
{
	char verb[16] = "";
	double number = 0;

	sscanf(line, "%15s %lf", verb, &number);
	if (strcmp(verb, "cut") == 0) {
		arm(CUT, (unsigned long long)number);
	} else if (strcmp(verb, "close") == 0) {
		arm(CLOSE, (unsigned long long)number);
	} else if (strcmp(verb, "stop") == 0) {
		arm(STOP, (unsigned long long)number);
	} else if (strcmp(verb, "go") == 0) {
		state.stopped = state.refuse = false;
		state.trigger = NONE;
	} else if (strcmp(verb, "refuse") == 0) {
		state.refuse = true;
	} else if (strcmp(verb, "delay") == 0) {
		state.delay = number;
	} else if (strcmp(verb, "one") == 0 || strcmp(verb, "whole") == 0) {
		state.one = verb[0] == 'o';
	} else {
		fprintf(stderr, "relay: no such command: %s\n", line);
		exit(64);
	}
}

static void
read_control(int fd)
{
	static char line[128];
	static size_t length;
	char text[32], c;

	while (read(fd, &c, 1) == 1) {
		if (c != '\n' && length < sizeof line - 1) {
			line[length++] = c;
			continue;
		}
		line[length] = '\0';
		length = 0;
		obey(line);
		publish_state();
		snprintf(text, sizeof text, "%llu\n", ++state.obeyed);
		publish("done", text);
	}
}

static void
accept_one(int listener)
{
	struct linger hard = { .l_onoff = 1, .l_linger = 0 };
	int on = 1, i = 0, fd = accept(listener, NULL, NULL);
	int to;

	if (fd < 0)
		return;
	while (i < CONNECTIONS && connections[i] != NULL)
		i++;
	to = socket(AF_INET, SOCK_STREAM, 0);
	if (i == CONNECTIONS || state.refuse || to < 0 || connect(to, (struct sockaddr *)&target, sizeof target) != 0) {
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
		close(fd);
		if (to >= 0)
			close(to);
		return;
	}
	if ((connections[i] = calloc(1, sizeof *connections[i])) == NULL)
		die("relay");
	connections[i]->fd[0] = fd;
	connections[i]->fd[1] = to;
	for (int side = 0; side < 2; side++) {
		setsockopt(connections[i]->fd[side], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		fcntl(connections[i]->fd[side], F_SETFL, O_NONBLOCK);
	}
	state.accepted++;
	publish_state();
}

/* false: the connection is broken */
static bool
take(struct connection *c, int side)
{
	struct flow *f = &c->flow[side];
	struct piece *p = &f->pieces[(f->first + f->count) % PIECES];
	ssize_t n = read(c->fd[side], p->bytes, PIECE);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0) {
		f->ended = true;
		return true;
	}
	p->at = 0;
	p->length = (size_t)n;
	p->due = now() + state.delay;
	f->count++;
	return true;
}

/* Writes what is due, up to the trigger.  false: the connection is broken, or gone with the trigger. */
static bool
pass(struct connection *c, int side)
{
	enum trigger trigger = state.trigger;
	struct flow *f = &c->flow[side];
	struct piece *p = &f->pieces[f->first];
	size_t most = state.one ? 1 : p->length - p->at;
	ssize_t n;

	if (trigger != NONE && most > state.after)
		most = (size_t)state.after;
	n = write(c->fd[!side], p->bytes + p->at, most);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	p->at += (size_t)n;
	state.bytes[side] += (size_t)n;
	if (p->at == p->length) {
		f->first = (f->first + 1) % PIECES;
		f->count--;
	}
	publish_state();
	if (trigger == NONE || (state.after -= (size_t)n) > 0)
		return true;
	fire(trigger);
	return trigger == STOP;
}

static bool
is_due(const struct flow *f)
{
	return f->count > 0 && f->pieces[f->first].due <= now();
}

/* What this socket is waited for; *wait shrinks to when the next held piece is due. */
static short
interest(const struct connection *c, int side, double *wait)
{
	const struct flow *in = &c->flow[side], *out = &c->flow[!side];
	short events = 0;

	if (state.stopped)
		return 0;
	if (!in->ended && in->count < (state.delay > 0 ? PIECES : PIECES_NOW))
		events |= POLLIN;
	if (out->count > 0) {
		double left = out->pieces[out->first].due - now();

		if (left <= 0)
			events |= POLLOUT;
		else if (*wait < 0 || left < *wait)
			*wait = left;
	}
	return events;
}

/* false: broken, or both directions are over */
static bool
serve(struct connection *c, const struct pollfd fds[2])
{
	for (int side = 0; side < 2; side++) {
		struct flow *f = &c->flow[side];

		if ((fds[side].revents & (POLLIN | POLLHUP | POLLERR)) && (fds[side].events & POLLIN) && !take(c, side))
			return false;
		if (is_due(f) && (fds[!side].revents & (POLLOUT | POLLERR)) && !pass(c, side))
			return false;
		if (f->ended && f->count == 0 && !f->passed_end) {
			shutdown(c->fd[!side], SHUT_WR);
			f->passed_end = true;
		}
	}
	return !(c->flow[0].passed_end && c->flow[1].passed_end);
}

static void
turn(int listener, int control)
{
	struct pollfd fds[2 + 2 * CONNECTIONS];
	int index[CONNECTIONS], open = 0;
	double wait = -1;

	fds[0] = (struct pollfd){ .fd = listener, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = control, .events = POLLIN };
	for (int i = 0; i < CONNECTIONS; i++) {
		if (connections[i] == NULL)
			continue;
		for (int side = 0; side < 2; side++) {
			short events = interest(connections[i], side, &wait);

			/* a hung-up socket would spin: while nothing is wanted of it, it is not looked at */
			fds[2 + 2 * open + side] = (struct pollfd){ .fd = events ? connections[i]->fd[side] : -1, .events = events };
		}
		index[open++] = i;
	}
	if (poll(fds, (nfds_t)(2 + 2 * open), wait < 0 ? -1 : (int)(wait * 1000) + 1) < 0 && errno != EINTR)
		die("relay: poll");
	for (int k = 0; k < open; k++) {
		int i = index[k];

		if (connections[i] != NULL && !state.stopped && !serve(connections[i], fds + 2 + 2 * k) && connections[i] != NULL)
			end_connection(i, false);
	}
	if (fds[0].revents != 0)
		accept_one(listener);
	if (fds[1].revents != 0)
		read_control(control);
}

static int
listen_on(const char *address)
{
	struct sockaddr_in here = { .sin_family = AF_INET };
	socklen_t length = sizeof here;
	char text[16];
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	inet_pton(AF_INET, address, &here.sin_addr);
	if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here) != 0 || listen(fd, 128) != 0
	    || getsockname(fd, (struct sockaddr *)&here, &length) != 0)
		die(address);
	snprintf(text, sizeof text, "%d\n", ntohs(here.sin_port));
	publish("port", text);
	return fd;
}

int
main(int argc, char *argv[])
{
	int control, listener;

	if (argc < 5)
		return 64;
	target.sin_family = AF_INET;
	target.sin_port = htons((uint16_t)atoi(argv[3]));
	inet_pton(AF_INET, argv[2], &target.sin_addr);
	signal(SIGPIPE, SIG_IGN);
	if (chdir(argv[4]) != 0 || (mkfifo("control", 0600) != 0 && errno != EEXIST)
	    || (control = open("control", O_RDWR | O_NONBLOCK)) < 0)
		die(argv[4]);
	for (int i = 5; i < argc; i++)
		obey(argv[i]);
	publish_state();
	publish("done", "0\n");
	listener = listen_on(argv[1]);
	for (;;)
		turn(listener, control);
}
