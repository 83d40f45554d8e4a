/*
 * far.h - the program that this one sends to the far side: looks at trees, sends and receives what is in them.
 *
 *     runbook-far scan ROOT             what is there (src/entry.h says what is asked and answered)
 *     runbook-far prove ROOT            hashes of the names that are asked for
 *     runbook-far send ROOT             work on stdin -> work with contents on stdout
 *     runbook-far receive ROOT          that on stdin -> what became of it on stdout
 *     runbook-far clean ROOT            removes what a receiver that was killed left behind, or says what can be gone on with
 *     runbook-far limits ROOT           what its file system can hold, a line each; ROOT need not be there yet
 *
 * It is linked static and stands alone.  It never leaves ROOT: every path is walked component by component, and no
 * symlink is followed.  scan, prove, send and limits only read.
 */
#ifndef RUNBOOK_FAR_H
#define RUNBOOK_FAR_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "../entry.h"

#define LEFTOVER ".rb~"		/* how names begin that only live while something is being copied */

struct far_options {
	const char *root;
	unsigned threads;	/* 0: as the file system wants it */
	bool gently;		/* with the least claim on disk and processor */
	uint64_t rate;		/* bytes a second; 0: as fast as it goes */
	uint64_t quiet;		/* nanoseconds that a stat takes when nobody copies; 0: not known, so nothing to give way to */
	uint64_t most_removed;
	bool sync;		/* all of it is on disk before the end is said */
	bool keep_parts;	/* what can be gone on with is not removed, but said */
	bool owner_given;
	uint32_t uid, gid;
};

int far_scan(const struct far_options *o, bool clean);
int far_prove(const struct far_options *o);
int far_limits(const struct far_options *o);
int far_send(const struct far_options *o);
int far_receive(const struct far_options *o);

/* Says why on stderr and ends the program; status as sysexits has it. */
void far_die(int status, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
/* For what cannot be gone on without. */
void *far_memory(size_t size);
unsigned far_threads(const struct far_options *o, int root);
/* With a stack of a size that is the same whatever library it is linked with. */
bool far_thread(pthread_t *id, void *(*run)(void *arg), void *arg);
/* "nfs", "ext4", ...: what statfs says; a number where it has no name here. */
const char *far_file_system(int root, char text[static 24]);
bool far_is_remote(int root);
/* A pipe that contents go through holds more than is usual, so that neither end waits for the other at each turn. */
void far_widen(int pipe);
uint64_t far_clock(void);	/* monotonic, nanoseconds */

/* stdout, shared by threads.  Frames are whole; a reader that went away ends the program, or makes out_is_gone true. */
void out_stay(void);	/* the program ends itself: it has something to put in order first */
bool out_is_gone(void);
void out_put(const struct buffer *frames);
void out_frame(unsigned char type, const struct buffer *payload);
void out_flush(void);

/*
 * A way to directories below a root, one per thread.  It keeps those open that lead to the last one, so that names
 * in order cost one lookup each.
 */
struct cursor {
	int root;
	char *path;		/* of the last directory, "" the root */
	size_t capacity;
	struct cursor_level {
		int fd;		/* -1: too many were open */
		size_t end;	/* of its path */
		signed char inherits;	/* -1: nobody has looked */
	} *levels;
	size_t depth, levels_capacity;
	bool make;		/* missing directories are made, 0700 */
	bool writes;		/* those that their owner may not enter or write are opened to him */
	signed char root_inherits;
	unsigned epoch;
	struct buffer scratch[3];	/* the thread's, for one task at a time: their memory is used again */
};

void cursor_open(struct cursor *c, int root, bool make);
void cursor_close(struct cursor *c);
/* An O_PATH descriptor of the directory, which stays the cursor's; -1 with errno (ELOOP, ENOTDIR: something else is there). */
int cursor_enter(struct cursor *c, const char *directory, size_t length);
/* The directory that holds the path; *name points to its last component.  The root itself: its descriptor and ".". */
int cursor_parent(struct cursor *c, const char *path, const char **name);
/* Do names that are made in the directory of the last cursor_enter or cursor_parent get ACLs from it? */
bool cursor_inherits(struct cursor *c);
/* A directory of a user may be closed to that very user: opens it, until it gets its own mode at last.  False: no use. */
bool cursor_loosen(int directory);
/* This one has its own mode now. */
void cursor_settled(const struct stat *st);
/* Those that were opened and got no mode of their own get back the one they had. */
void cursor_tighten(void);
/* Directories were removed: no cursor believes any more what it has open. */
void cursor_forget_all(void);

/* unfinished.c: is that the name of a file that was not sent to its end?  *id: that of its path. */
bool unfinished_name(const char *name, uint64_t *id);
/* Appends what UNFINISHED says of it after its id; false: it is none. */
bool unfinished_say(struct buffer *b, int at, const char *name);

/* stat as an entry; its target is not filled. */
void entry_of_stat(struct entry *e, const struct stat *st);
/* Reads a symlink's target into `b` and points the entry's there.  0, errno, or EAGAIN: it is no symlink any more. */
int entry_read_target(struct entry *e, int directory, const char *name, struct buffer *b);
/* "unit" and "path" joined as a path below the root, zero-terminated; malformed: NULL.  The caller frees it. */
char *path_of(const char *unit, struct text path);
/* The same file: nothing has touched it in between. */
bool entry_is_untouched(const struct entry *a, const struct entry *b);

/*
 * xattrs and ACLs of what `fd` (or, with fd -1, `name` in `directory`, itself no directory) is.  Those that are ours to
 * keep: user, trusted, POSIX ACLs, capabilities.  attributes_get appends n, then n times name and value, by name.
 */
int attributes_get(struct buffer *b, int fd, int directory, const char *name);
void attributes_digest(const struct buffer *b, unsigned char digest[static ENTRY_ATTRIBUTES]);
/*
 * Makes them so, and removes others unless `bare`: there are none.  0 or errno; *which names the one that failed.  Where
 * an ACL failed, the group's bits in *mode, which said the most that anyone in it may, become the group's own.
 */
int attributes_set(struct reader *r, int fd, int directory, const char *name, bool bare, mode_t *mode, char which[static 64]);

/* Work for threads.  pool_add waits while more than `most` bytes lie in the queue. */
struct pool;
struct pool *pool_open(unsigned threads, int root, bool make, size_t most);
void pool_add(struct pool *p, void (*work)(struct cursor *c, void *arg), void *arg, size_t weight);
void pool_wait(struct pool *p);		/* until all of it is done */
void pool_close(struct pool *p);

#endif
