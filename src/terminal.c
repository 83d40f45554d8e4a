/* terminal.c - see terminal.h. */
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define LINE_MAX_BYTES 65536

struct terminal_question {
	uv_poll_t poll;
	uv_signal_t resumed;		/* SIGCONT: the shell had the terminal meanwhile */
	int closing;			/* handles that are not closed yet */
	int fd;
	bool open;			/* its handles are alive */
	bool freed;
	struct termios asking;
	const char *prompt;		/* our copy */
	size_t prompt_length;
	char *line;			/* LINE_MAX_BYTES */
	struct terminal_answer answer;
	void (*done)(void *arg);
	void *arg;
};

/* The one question that is open, and what its terminal was like: a terminal belongs to the process. */
static struct {
	volatile sig_atomic_t open;
	int fd;
	struct termios before;
} asked;

void
terminal_restore(void)
{
	if (asked.open)
		tcsetattr(asked.fd, TCSANOW, &asked.before);
}

const char *
terminal_take(int fd)
{
	static bool registered;

	if (asked.open)
		return "EBUSY";
	if (tcgetattr(fd, &asked.before) != 0)
		return "ENOTTY";
	if (!registered)
		registered = atexit(terminal_restore) == 0;
	asked.fd = fd;
	asked.open = 1;
	return NULL;
}

void
terminal_give(void)
{
	terminal_restore();
	asked.open = 0;
}

bool
terminal_available(void)
{
	int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	bool foreground;

	if (fd < 0)
		return false;
	foreground = tcgetpgrp(fd) == getpgrp();
	close(fd);
	return foreground;
}

bool
terminal_is(int fd)
{
	return isatty(fd) == 1;
}

bool
terminal_size(int fd, int *columns, int *rows)
{
	struct winsize w;

	if (ioctl(fd, TIOCGWINSZ, &w) != 0 || w.ws_col == 0)
		return false;
	*columns = w.ws_col;
	*rows = w.ws_row;
	return true;
}

static void
fail(struct terminal_question *q, const char *code, const char *message)
{
	q->answer.code = code;
	q->answer.message = message;
	q->answer.line = NULL;
}

/* A prompt that cannot be written whole is no reason not to listen. */
static void
show(struct terminal_question *q, const char *text, size_t length)
{
	ssize_t n;

	while (length > 0) {
		n = write(q->fd, text, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		text += n;
		length -= (size_t)n;
	}
}

static void
handle_closed(uv_handle_t *handle)
{
	struct terminal_question *q = handle->data;

	if (--q->closing == 0 && q->freed)
		free(q);
}

/* Gives the terminal back.  The handles close in their own time. */
static void
end(struct terminal_question *q)
{
	if (!q->open)
		return;
	q->open = false;
	if (!(q->asking.c_lflag & ECHO))
		show(q, "\n", 1);	/* the one that was typed was not shown */
	terminal_give();
	q->closing = 2;
	uv_close((uv_handle_t *)&q->poll, handle_closed);
	uv_close((uv_handle_t *)&q->resumed, handle_closed);
	close(q->fd);
	q->fd = -1;
}

static void
finish(struct terminal_question *q)
{
	end(q);
	q->done(q->arg);
}

/* One line is in the buffer, or the input has ended. */
static void
take(struct terminal_question *q, bool ended)
{
	if (q->answer.length > 0 && q->line[q->answer.length - 1] == '\n')
		q->answer.length--;
	else if (ended && q->answer.length == 0) {
		finish(q);
		return;
	}
	q->answer.line = q->line;
	finish(q);
}

static void
readable(uv_poll_t *handle, int status, int events)
{
	struct terminal_question *q = handle->data;
	size_t have = q->answer.length;
	ssize_t n;

	(void)status;
	(void)events;
	do
		n = read(q->fd, q->line + have, LINE_MAX_BYTES - have);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return;
	if (n < 0) {
		fail(q, "ELOST", "the terminal is gone");
		finish(q);
		return;
	}
	q->answer.length += (size_t)n;
	have = q->answer.length;
	if (n == 0 || q->line[have - 1] == '\n' || have == LINE_MAX_BYTES)
		take(q, n == 0);
}

/* After Ctrl-Z and fg the shell has left its own settings; and the prompt is far up. */
static void
resumed(uv_signal_t *handle, int number)
{
	struct terminal_question *q = handle->data;

	(void)number;
	tcsetattr(q->fd, TCSADRAIN, &q->asking);
	show(q, q->prompt, q->prompt_length);
}

static bool
take_terminal(struct terminal_question *q, bool echo)
{
	const char *code = "ENOTTY";

	q->fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (q->fd < 0 || (code = terminal_take(q->fd)) != NULL) {
		if (q->fd >= 0)
			close(q->fd);
		fail(q, code, strcmp(code, "EBUSY") == 0 ? "another question is open on this terminal"
		                                         : "there is no terminal to ask at");
		return false;
	}
	q->asking = asked.before;
	q->asking.c_iflag |= ICRNL;
	q->asking.c_lflag |= ICANON | ISIG | ECHO | ECHOE | ECHOK;
	if (!echo)
		q->asking.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
	tcsetattr(q->fd, TCSAFLUSH, &q->asking);
	return true;
}

struct terminal_question *
terminal_ask(uv_loop_t *loop, const char *prompt, size_t length, bool echo, void (*done)(void *arg), void *arg)
{
	struct terminal_question *q = calloc(1, sizeof *q + length + LINE_MAX_BYTES);

	if (q == NULL)
		return NULL;
	q->line = (char *)(q + 1);
	memcpy(q->line + LINE_MAX_BYTES, prompt, length);
	q->prompt = q->line + LINE_MAX_BYTES;
	q->prompt_length = length;
	q->done = done;
	q->arg = arg;
	if (!take_terminal(q, echo))
		return q;
	uv_signal_init(loop, &q->resumed);
	q->resumed.data = q;
	if (uv_poll_init(loop, &q->poll, q->fd) != 0) {
		fail(q, "ENOTTY", "the terminal cannot be waited for");
		terminal_give();
		close(q->fd);
		q->closing = 1;
		uv_close((uv_handle_t *)&q->resumed, handle_closed);
		return q;
	}
	q->poll.data = q;
	q->open = true;
	uv_signal_start(&q->resumed, resumed, SIGCONT);
	uv_poll_start(&q->poll, UV_READABLE, readable);
	show(q, q->prompt, q->prompt_length);
	return q;
}

const struct terminal_answer *
terminal_answer(const struct terminal_question *q)
{
	return &q->answer;
}

void
terminal_question_free(struct terminal_question *q)
{
	if (q == NULL)
		return;
	end(q);
	explicit_bzero(q->line, LINE_MAX_BYTES);
	q->freed = true;
	if (q->closing == 0)
		free(q);
}
