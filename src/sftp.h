/*
 * sftp.h - files of another machine: the client side of sftp version 3, over any stream.  Knows
 * neither ssh nor Lua.
 *
 * Requests are pipelined: everything may be started at any time and many at once.  Every done(arg)
 * is called once, from the loop.
 */
#ifndef RUNBOOK_SFTP_H
#define RUNBOOK_SFTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "stream.h"

#define SFTP_SIZE  1u
#define SFTP_OWNER 2u
#define SFTP_MODE  4u
#define SFTP_TIMES 8u

struct sftp_attributes {
	uint32_t valid;		/* which of the rest are known, or are to be set */
	uint64_t size;
	uint32_t uid, gid, mode, atime, mtime;
};

/* Takes the stream, which leads to an sftp server.  NULL (out of memory): it stays the caller's. */
struct sftp;
struct sftp *sftp_new(uv_loop_t *loop, struct stream *over, void (*done)(void *arg), void *arg);
/* Why it cannot be used (any more), or NULL. */
const char *sftp_code(const struct sftp *c);
const char *sftp_message(const struct sftp *c);
/* What is under way ends with ECLOSED. */
void sftp_free(struct sftp *c);

enum sftp_verb {
	SFTP_DO_LIST, SFTP_DO_LSTAT, SFTP_DO_MKDIR, SFTP_DO_READLINK, SFTP_DO_REALPATH, SFTP_DO_REMOVE, SFTP_DO_RENAME,
	SFTP_DO_RMDIR, SFTP_DO_SETSTAT, SFTP_DO_STAT, SFTP_DO_SYMLINK
};

/* rename: from path to other, replacing that; symlink: path will point to other. */
struct sftp_op;
struct sftp_op *sftp_op_start(struct sftp *c, enum sftp_verb verb, const char *path, const char *other,
                              const struct sftp_attributes *attributes, void (*done)(void *arg), void *arg);

/*
 * Puts a whole file in place: staged beside it, synced where the server can, then renamed over it.
 * The content is `length` bytes at `content`, or, when that is NULL, what `from` gives; both stay the
 * caller's and must last.
 */
struct sftp_op *sftp_write_start(struct sftp *c, const char *path, const char *content, size_t length,
                                 struct stream *from, const struct sftp_attributes *attributes,
                                 void (*done)(void *arg), void *arg);

const char *sftp_op_code(const struct sftp_op *op);	/* NULL: it was done */
const char *sftp_op_message(const struct sftp_op *op);
const struct sftp_attributes *sftp_op_attributes(const struct sftp_op *op);
const char *sftp_op_text(const struct sftp_op *op, size_t *length);	/* of readlink, realpath */
/* The entries of a list, one after the other from *at = 0 on; NULL at the end. */
const char *sftp_op_entry(const struct sftp_op *op, size_t *at, size_t *length, struct sftp_attributes *attributes);
/* Also abandons it: then done is not called, and what was staged is removed. */
void sftp_op_free(struct sftp_op *op);

/* The content of a file, read ahead by 1 MiB.  That it cannot be opened is said by the first read. */
struct stream *sftp_read(struct sftp *c, const char *path);

#endif
