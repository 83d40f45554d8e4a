/*
 * file.h - files of this machine, off the loop's thread.  Knows nothing of Lua.
 *
 * Every operation is one piece of work for libuv's pool: what it needs is copied into the request,
 * what it found is read from it afterwards.
 */
#ifndef RUNBOOK_FILE_H
#define RUNBOOK_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <uv.h>

#include "stream.h"

enum file_operation {
	FILE_CHMOD,	/* mode */
	FILE_LIST,	/* -> entries */
	FILE_LOCK,	/* -> fd, which holds an exclusive flock; EBUSY when somebody else does */
	FILE_LSTAT,	/* -> st */
	FILE_MKDIR,	/* mode; with `whole`, missing parents too, and no error when it is there */
	FILE_OPEN,	/* flags (O_RDONLY, ...), mode -> fd */
	FILE_READ,	/* at most `limit` bytes, else ELIMIT -> bytes */
	FILE_READLINK,	/* -> bytes */
	FILE_REALPATH,	/* -> bytes */
	FILE_RENAME,	/* to `other`; with `whole`, the directory is synced */
	FILE_RMDIR,
	FILE_STAT,	/* -> st */
	FILE_STATFS,	/* -> space */
	FILE_SYMLINK,	/* path points to `other` */
	FILE_UNLINK,
	FILE_WRITE,	/* bytes beside it, then renamed over it; with `whole`, synced to disk */
};

struct file_command {
	enum file_operation operation;
	const char *path, *other;
	const char *bytes;
	size_t length, limit;
	int mode;		/* -1: as it is, or as the umask has it */
	int flags;
	long long from;		/* open to read: the first byte; to append: where the file is cut off before */
	bool whole;
};

struct file_entry {
	const char *name;
	const char *type;	/* as file_type; "unknown" where the file system does not say */
};

struct file_answer {
	const char *code;	/* "ENOENT"; NULL when it was done */
	char message[200];
	char *bytes;
	size_t length;
	struct stat st;
	struct statvfs space;
	const char *space_type;	/* "nfs", "xfs", ...; "" when it has no name here */
	unsigned long space_magic;
	struct file_entry *entries;	/* `length` of them, sorted by bytes */
	int fd;			/* the caller's from now on; see file_take_fd */
};

struct file_request;

/* Calls done(arg) once, from the loop.  NULL: out of memory. */
struct file_request *file_start(uv_loop_t *loop, const struct file_command *command,
                                void (*done)(void *arg), void *arg);

/* Valid after done, until free. */
const struct file_answer *file_answer(const struct file_request *r);
int file_take_fd(struct file_request *r);

/* Also abandons: work under way is finished, done is not called after this. */
void file_free(struct file_request *r);

/* "file", "directory", "link", "fifo", "socket", "character device", "block device". */
const char *file_type(mode_t mode);

/*
 * A stream over an open regular file, read and written on the pool.  What write took is in the file:
 * it says STREAM_AGAIN until the bytes are there, and is then called again with the same bytes.
 */
struct stream *file_stream(uv_loop_t *loop, int fd);

#endif
