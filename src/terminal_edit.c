/* terminal_edit.c - see terminal_edit.h. */
#include "terminal_edit.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#include "terminal.h"

#define LIBRARY       "libedit.so.2"
#define LINES_AT_HAND 1000

struct libedit {
	void (*end)(EditLine *);
	const char *(*gets)(EditLine *, int *);
	int (*get)(EditLine *, int, ...);
	EditLine *(*init)(const char *, FILE *, FILE *, FILE *);
	void (*resize)(EditLine *);
	int (*set)(EditLine *, int, ...);
	int (*history)(History *, HistEvent *, int, ...);
	void (*history_end)(History *);
	History *(*history_init)(void);
};

static struct {
	pthread_once_t once;
	struct libedit edit;
	char why[200];			/* "" once it is there */
} state = { .once = PTHREAD_ONCE_INIT };

struct terminal_editor {
	uv_async_t async;		/* the thread has ended a read */
	uv_thread_t thread;
	const struct libedit *edit;
	EditLine *el;
	History *lines;
	FILE *tty;
	int stop[2];			/* a byte in it ends the read */
	locale_t locale;
	char *prompt, *line;
	size_t length;
	bool running;			/* the thread is there */
	bool freed;
	void (*done)(void *arg);	/* NULL once it was taken back */
	void *arg;
};

static void
load(void)
{
	static const struct {
		const char *name;
		size_t offset;
	} symbols[] = {
		{ "el_end", offsetof(struct libedit, end) },
		{ "el_get", offsetof(struct libedit, get) },
		{ "el_gets", offsetof(struct libedit, gets) },
		{ "el_init", offsetof(struct libedit, init) },
		{ "el_resize", offsetof(struct libedit, resize) },
		{ "el_set", offsetof(struct libedit, set) },
		{ "history", offsetof(struct libedit, history) },
		{ "history_end", offsetof(struct libedit, history_end) },
		{ "history_init", offsetof(struct libedit, history_init) },
	};
	void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

	if (library == NULL) {
		snprintf(state.why, sizeof state.why, "editing lines needs libedit: %s", dlerror());
		return;
	}
	for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
		void *found = dlsym(library, symbols[i].name);

		if (found == NULL) {
			snprintf(state.why, sizeof state.why, "%s is not the libedit that is expected: %s", LIBRARY, dlerror());
			return;
		}
		*(void **)((char *)&state.edit + symbols[i].offset) = found;
	}
}

/* ---- in the thread ---- */

static char *
prompt_of(EditLine *el)
{
	struct terminal_editor *e;

	state.edit.get(el, EL_CLIENTDATA, &e);
	return e->prompt;
}

/* One character for libedit; -1 when the read was taken back. */
static int
next_character(EditLine *el, wchar_t *out)
{
	struct terminal_editor *e;
	struct pollfd ready[2];
	mbstate_t shift;
	size_t n;
	char c;

	state.edit.get(el, EL_CLIENTDATA, &e);
	memset(&shift, 0, sizeof shift);
	for (;;) {
		ready[0] = (struct pollfd){ .fd = e->stop[0], .events = POLLIN };
		ready[1] = (struct pollfd){ .fd = fileno(e->tty), .events = POLLIN };
		if (poll(ready, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			return -1;
		}
		if (ready[0].revents != 0)
			return -1;
		if (read(fileno(e->tty), &c, 1) <= 0)
			return 0;
		n = mbrtowc(out, &c, 1, &shift);
		if (n == (size_t)-1)		/* no letter: begin anew behind it */
			memset(&shift, 0, sizeof shift);
		else if (n != (size_t)-2)
			return 1;
	}
}

static void
read_line(void *arg)
{
	struct terminal_editor *e = arg;
	locale_t before = uselocale(e->locale);
	const char *line;
	int length = 0;

	e->edit->resize(e->el);
	line = e->edit->gets(e->el, &length);
	if (line != NULL && length > 0) {
		if (line[length - 1] == '\n')
			length--;
		if ((e->line = strndup(line, (size_t)length)) != NULL)
			e->length = (size_t)length;
	}
	uselocale(before);
	uv_async_send(&e->async);
}

/* ---- on the loop ---- */

static void
closed(uv_handle_t *handle)
{
	struct terminal_editor *e = handle->data;

	free(e->line);
	free(e->prompt);
	free(e);
}

/* Whatever of it was made. */
static void
release(struct terminal_editor *e)
{
	if (e->el != NULL)
		e->edit->end(e->el);
	if (e->lines != NULL)
		e->edit->history_end(e->lines);
	if (e->locale != (locale_t)0)
		freelocale(e->locale);
	if (e->tty != NULL)
		fclose(e->tty);
	if (e->stop[0] >= 0) {
		close(e->stop[0]);
		close(e->stop[1]);
	}
}

static void
dispose(struct terminal_editor *e)
{
	release(e);
	uv_close((uv_handle_t *)&e->async, closed);
}

static void
read_over(uv_async_t *async)
{
	struct terminal_editor *e = async->data;
	void (*done)(void *arg) = e->done;
	char byte;

	uv_thread_join(&e->thread);
	e->running = false;
	terminal_give();
	uv_unref((uv_handle_t *)&e->async);
	while (read(e->stop[0], &byte, 1) > 0)
		;
	if (e->freed) {
		dispose(e);
		return;
	}
	e->done = NULL;
	if (done != NULL)
		done(e->arg);
}

static bool
make_editor(struct terminal_editor *e)
{
	HistEvent event;

	if ((e->lines = e->edit->history_init()) == NULL ||
	    (e->el = e->edit->init("runbook", e->tty, e->tty, e->tty)) == NULL)
		return false;
	e->edit->history(e->lines, &event, H_SETSIZE, LINES_AT_HAND);
	e->edit->history(e->lines, &event, H_SETUNIQUE, 1);
	e->edit->set(e->el, EL_CLIENTDATA, e);
	e->edit->set(e->el, EL_EDITOR, "emacs");
	e->edit->set(e->el, EL_SIGNAL, 0);	/* signals are the host's */
	e->edit->set(e->el, EL_HIST, e->edit->history, e->lines);
	e->edit->set(e->el, EL_PROMPT, prompt_of);
	e->edit->set(e->el, EL_GETCFN, next_character);
	e->edit->set(e->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
	return true;
}

static bool
prepare(struct terminal_editor *e)
{
	locale_t before;
	bool made;

	if ((e->tty = fopen("/dev/tty", "r+e")) == NULL || pipe2(e->stop, O_CLOEXEC | O_NONBLOCK) != 0)
		return false;
	setvbuf(e->tty, NULL, _IONBF, 0);
	if ((e->locale = newlocale(LC_CTYPE_MASK, "", (locale_t)0)) == (locale_t)0 &&
	    (e->locale = newlocale(LC_CTYPE_MASK, "C", (locale_t)0)) == (locale_t)0)
		return false;
	before = uselocale(e->locale);		/* libedit asks which bytes are letters */
	made = make_editor(e);
	uselocale(before);
	return made;
}

struct terminal_editor *
terminal_editor_new(uv_loop_t *loop, const char **code, const char **message)
{
	struct terminal_editor *e;

	pthread_once(&state.once, load);
	*code = "EUNSUPPORTED";
	*message = state.why;
	if (state.why[0] != '\0')
		return NULL;
	*code = "ENOTTY";
	*message = "there is no terminal to ask at";
	if ((e = calloc(1, sizeof *e)) == NULL)
		return NULL;
	e->edit = &state.edit;
	e->stop[0] = e->stop[1] = -1;
	if (!prepare(e)) {
		release(e);
		free(e);
		return NULL;
	}
	uv_async_init(loop, &e->async, read_over);
	uv_unref((uv_handle_t *)&e->async);
	e->async.data = e;
	return e;
}

void
terminal_editor_remember(struct terminal_editor *e, const char *line)
{
	HistEvent event;

	e->edit->history(e->lines, &event, H_ENTER, line);
}

/*
 * libedit shows its prompt and only then begins to take single keys; what came between would be held
 * back by the terminal until Enter, and a Ctrl-D lost.
 */
static void
take_keys(int fd)
{
	struct termios t;

	if (tcgetattr(fd, &t) != 0)
		return;
	t.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	tcsetattr(fd, TCSADRAIN, &t);
}

const char *
terminal_editor_read(struct terminal_editor *e, const char *prompt, void (*done)(void *arg), void *arg)
{
	const char *code;
	char *copy;

	if (e->running)
		return "EBUSY";
	if ((copy = strdup(prompt)) == NULL)
		return "ENOMEM";
	if ((code = terminal_take(fileno(e->tty))) != NULL) {
		free(copy);
		return code;
	}
	free(e->prompt);
	free(e->line);
	e->prompt = copy;
	e->line = NULL;
	e->length = 0;
	e->done = done;
	e->arg = arg;
	take_keys(fileno(e->tty));
	if (uv_thread_create(&e->thread, read_line, e) != 0) {
		terminal_give();
		return "ENOMEM";
	}
	e->running = true;
	uv_ref((uv_handle_t *)&e->async);
	return NULL;
}

const char *
terminal_editor_line(const struct terminal_editor *e, size_t *length)
{
	*length = e->length;
	return e->line;
}

void
terminal_editor_cancel(struct terminal_editor *e)
{
	if (!e->running)
		return;
	e->done = NULL;
	if (write(e->stop[1], "", 1) < 0)
		return;		/* full of earlier ones: it will notice */
}

void
terminal_editor_free(struct terminal_editor *e)
{
	if (e == NULL || e->freed)
		return;
	e->freed = true;
	if (e->running)
		terminal_editor_cancel(e);
	else
		dispose(e);
}
