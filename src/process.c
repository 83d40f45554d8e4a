/*
 * process.c - see process.h.
 *
 * Our ends of the pipes are streams; the child's ends exist only between pipe() and uv_spawn(), and
 * everything is close-on-exec, so that no child holds another child's pipe open.
 */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KILL_AFTER_MS 2000	/* from TERM to KILL */

struct process {
	uv_process_t handle;
	uv_timer_t killer;
	struct stream *in, *out, *err;
	void (*ended)(void *arg);
	void *arg;
	struct process_status how;
	bool exited;
	bool released;		/* the owner has gone; free it when it has ended */
	int open_handles;
};

static const struct {
	const char *name;
	int number;
} signals[] = {
	{ "ABRT", SIGABRT }, { "ALRM", SIGALRM }, { "BUS", SIGBUS }, { "CONT", SIGCONT },
	{ "FPE", SIGFPE },   { "HUP", SIGHUP },   { "ILL", SIGILL }, { "INT", SIGINT },
	{ "KILL", SIGKILL }, { "PIPE", SIGPIPE }, { "QUIT", SIGQUIT }, { "SEGV", SIGSEGV },
	{ "STOP", SIGSTOP }, { "SYS", SIGSYS },   { "TERM", SIGTERM }, { "TRAP", SIGTRAP },
	{ "TSTP", SIGTSTP }, { "USR1", SIGUSR1 }, { "USR2", SIGUSR2 }, { "VTALRM", SIGVTALRM },
	{ "XCPU", SIGXCPU }, { "XFSZ", SIGXFSZ },
};

const char *
process_signal_name(int number)
{
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		if (signals[i].number == number)
			return signals[i].name;
	return NULL;
}

int
process_signal_number(const char *name)
{
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		if (strcmp(signals[i].name, name) == 0)
			return signals[i].number;
	return 0;
}

static void
close_stream(struct stream **s)
{
	if (*s != NULL)
		(*s)->ops->close(*s);
	*s = NULL;
}

static void
handle_closed(uv_handle_t *handle)
{
	struct process *p = handle->data;

	if (--p->open_handles == 0)
		free(p);
}

/* The only way to the end of p: both handles close, then the memory goes. */
static void
dispose(struct process *p)
{
	uv_close((uv_handle_t *)&p->handle, handle_closed);
	uv_close((uv_handle_t *)&p->killer, handle_closed);
}

static bool
group_lives(const struct process *p)
{
	return kill(-p->handle.pid, 0) == 0 || errno == EPERM;
}

static void
kill_now(uv_timer_t *timer)
{
	struct process *p = timer->data;

	kill(-p->handle.pid, SIGKILL);
	if (p->exited)
		dispose(p);
}

static void
on_exit_status(uv_process_t *handle, int64_t status, int number)
{
	struct process *p = handle->data;
	void (*ended)(void *arg) = p->ended;

	p->exited = true;
	p->how = (struct process_status){ .status = (int)status, .signal = number };
	/* Its group outlives it where something ignores TERM: then the timer does it, if it has not already. */
	if (p->released && (!group_lives(p) || !uv_is_active((uv_handle_t *)&p->killer)))
		dispose(p);
	p->ended = NULL;
	if (ended != NULL)
		ended(p->arg);
}

/* Ends of one standard stream: [0] is ours and does not block, [1] is the child's. */
static int
make_pipe(int ends[2], bool child_writes)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	ends[0] = child_writes ? fds[0] : fds[1];
	ends[1] = child_writes ? fds[1] : fds[0];
	if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

static int
make_socket(int ends[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

static void
close_ends(int ends[3][2])
{
	for (int i = 0; i < 3; i++)
		for (int j = 0; j < 2; j++)
			if (ends[i][j] >= 0)
				close(ends[i][j]);
}

static int
make_ends(int ends[3][2], bool duplex)
{
	int error;

	for (int i = 0; i < 3; i++)
		ends[i][0] = ends[i][1] = -1;
	error = duplex ? make_socket(ends[0]) : make_pipe(ends[0], false);
	if (error == 0 && !duplex)
		error = make_pipe(ends[1], true);
	if (error == 0)
		error = make_pipe(ends[2], true);
	return error;
}

/* Hands our ends to streams; what is handed over is -1 afterwards. */
static int
make_streams(struct process *p, uv_loop_t *loop, int ends[3][2])
{
	struct stream **streams[3] = { &p->in, &p->out, &p->err };

	for (int i = 0; i < 3; i++) {
		if (ends[i][0] < 0)
			continue;
		*streams[i] = stream_of_descriptor(loop, ends[i][0], "pipe");
		if (*streams[i] == NULL)
			return UV_ENOMEM;
		ends[i][0] = -1;
	}
	return 0;
}

static int
spawn_child(struct process *p, uv_loop_t *loop, const struct process_spawn *spawn, int ends[3][2])
{
	uv_stdio_container_t stdio[3];
	uv_process_options_t options = {
		.exit_cb = on_exit_status, .file = spawn->argv[0], .args = spawn->argv, .env = spawn->env,
		.cwd = spawn->cwd, .flags = UV_PROCESS_DETACHED, .stdio_count = 3, .stdio = stdio,
	};

	for (int i = 0; i < 3; i++) {
		stdio[i].flags = UV_INHERIT_FD;
		stdio[i].data.fd = i == 1 && spawn->duplex ? ends[0][1] : ends[i][1];
	}
	/* Libraries open sockets of their own (libcurl's are not close-on-exec), and we may have been given some. */
	close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
	return uv_spawn(loop, &p->handle, &options);
}

struct process *
process_start(uv_loop_t *loop, const struct process_spawn *spawn, int *error)
{
	struct process *p = calloc(1, sizeof *p);
	int ends[3][2];

	if (p == NULL) {
		*error = UV_ENOMEM;
		return NULL;
	}
	*error = make_ends(ends, spawn->duplex);
	if (*error == 0)
		*error = make_streams(p, loop, ends);
	if (*error != 0) {
		close_ends(ends);
		close_stream(&p->in);
		close_stream(&p->out);
		close_stream(&p->err);
		free(p);
		return NULL;
	}
	p->handle.data = p->killer.data = p;
	p->open_handles = 2;
	uv_timer_init(loop, &p->killer);
	*error = spawn_child(p, loop, spawn, ends);
	close_ends(ends);
	if (*error == 0)
		return p;
	close_stream(&p->in);
	close_stream(&p->out);
	close_stream(&p->err);
	dispose(p);	/* uv_spawn initialises its handle before it fails, so it has to be closed */
	return NULL;
}

static struct stream *
take(struct stream **s)
{
	struct stream *taken = *s;

	*s = NULL;
	return taken;
}

struct stream *
process_take_stdin(struct process *p)
{
	return take(&p->in);
}

struct stream *
process_take_stdout(struct process *p)
{
	return take(&p->out);
}

struct stream *
process_take_stderr(struct process *p)
{
	return take(&p->err);
}

int
process_pid(const struct process *p)
{
	return p->handle.pid;
}

int
process_signal(struct process *p, int number)
{
	if (p->exited)	/* the number may be somebody else's by now */
		return UV_ESRCH;
	return kill(-p->handle.pid, number) < 0 ? -errno : 0;
}

void
process_when_ended(struct process *p, void (*ended)(void *arg), void *arg)
{
	p->ended = ended;
	p->arg = arg;
}

const struct process_status *
process_ended(const struct process *p)
{
	return p->exited ? &p->how : NULL;
}

void
process_free(struct process *p)
{
	if (p == NULL)
		return;
	close_stream(&p->in);
	close_stream(&p->out);
	close_stream(&p->err);
	p->ended = NULL;
	p->released = true;
	if (p->exited) {
		dispose(p);
		return;
	}
	kill(-p->handle.pid, SIGTERM);
	uv_timer_start(&p->killer, kill_now, KILL_AFTER_MS, 0);
}
