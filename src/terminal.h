/*
 * terminal.h - the terminal of this process: its size, and a line somebody types.  Knows nothing of Lua.
 *
 * A process has one controlling terminal, so one question is open at a time, whatever the number of loops.
 */
#ifndef RUNBOOK_TERMINAL_H
#define RUNBOOK_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

/* Somebody can be asked: there is a controlling terminal, and we are in its foreground. */
bool terminal_available(void);

bool terminal_is(int fd);
/* False when fd is no terminal, or one that does not know. */
bool terminal_size(int fd, int *columns, int *rows);

struct terminal_question;

struct terminal_answer {
	const char *code;	/* "ENOTTY", "EBUSY", "ELOST", ...; NULL when all is well */
	const char *message;
	const char *line;	/* without its newline; NULL when the input has ended */
	size_t length;
};

/*
 * Shows prompt and waits for a line.  What was typed before is thrown away: it cannot have been an
 * answer.  Ctrl-C stays a signal.  Calls done(arg) once, from the loop; not when it fails at once,
 * which the answer says.  NULL: out of memory.
 */
struct terminal_question *terminal_ask(uv_loop_t *loop, const char *prompt, size_t length, bool echo,
                                       void (*done)(void *arg), void *arg);
const struct terminal_answer *terminal_answer(const struct terminal_question *q);
/* Also takes the question back: done is not called after this.  Overwrites what was typed. */
void terminal_question_free(struct terminal_question *q);

/* The terminal as it was before the open question, if there is one.  Safe in a signal handler. */
void terminal_restore(void);

/*
 * For whoever else changes the terminal at fd for a while (terminal_edit.c): remembers what it is like,
 * for terminal_restore.  NULL, or the code of why not: "EBUSY", "ENOTTY".
 */
const char *terminal_take(int fd);
/* It is as it was again. */
void terminal_give(void);

#endif
