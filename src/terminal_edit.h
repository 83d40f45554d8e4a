/*
 * terminal_edit.h - a line that can be edited, with the lines before it at hand.  Knows nothing of Lua.
 *
 * libedit (loaded on first use) waits in its own thread: some of its keys wait for the next one, and
 * the loop must not.
 */
#ifndef RUNBOOK_TERMINAL_EDIT_H
#define RUNBOOK_TERMINAL_EDIT_H

#include <stddef.h>

#include <uv.h>

struct terminal_editor;

/* NULL without a terminal or without libedit; *code and *message then say why. */
struct terminal_editor *terminal_editor_new(uv_loop_t *loop, const char **code, const char **message);
/* Also ends a read; done is not called after this. */
void terminal_editor_free(struct terminal_editor *e);

/* Puts a line behind those that the arrow keys bring back. */
void terminal_editor_remember(struct terminal_editor *e, const char *line);

/*
 * Shows prompt and reads a line.  Calls done(arg) once, from the loop.  One read at a time: NULL when it
 * has begun, or the code of why not ("EBUSY", "ENOTTY", "ENOMEM").
 */
const char *terminal_editor_read(struct terminal_editor *e, const char *prompt, void (*done)(void *arg), void *arg);
/* The line that was read, without its newline; NULL at the end of the input. */
const char *terminal_editor_line(const struct terminal_editor *e, size_t *length);
/* Takes the read back; the editor can be used again once its thread has noticed. */
void terminal_editor_cancel(struct terminal_editor *e);

#endif
