/* receive.h - receive.c reads the stream and hands out work; apply.c brings one name into place. */
#ifndef RUNBOOK_FAR_RECEIVE_H
#define RUNBOOK_FAR_RECEIVE_H

#include <stdatomic.h>

#include "work.h"

#define PLACE_NAME 48	/* bytes of a name that only lives while something is being made */

/* One name, as it is worked on.  What lies in `payload` is the rest of the frame. */
struct task {
	unsigned char type;
	uint64_t index;
	const char *path;	/* in `bytes` */
	struct expect expect;
	size_t length;
	struct reader payload;
	struct large *large;
	struct segment *segment;
	struct task *next;	/* while it is none: task.c */
	unsigned class;
	unsigned char bytes[];
};

/* With room for so many bytes, which are its payload; task_free may be told of NULL. */
struct task *task_new(size_t length);
void task_free(struct task *t);

#define ANY_SIZE UINT64_MAX	/* it changed while it was read; its end says how long it is */

/* A segment that is being written: whoever of its tasks is last puts down its record, when that was said. */
struct segment {
	uint64_t index;
	_Atomic size_t left;	/* tasks, and one as long as it is the present one */
	pthread_mutex_t lock;
	bool cleared, said;
	unsigned char record[SEGMENT_RECORD];
};

/* A file that comes in parts. */
struct large {
	uint64_t id, index;
	char *path;
	struct expect expect;
	uint64_t size;
	pthread_mutex_t lock;
	int fd;			/* -1: not made yet */
	char name[PLACE_NAME];	/* of what is being made */
	int error;
	bool unfinished;	/* it stays when it is cut: unfinished.c */
	bool fresh;		/* nothing of it was there */
	bool cut;
	struct segment *segment;	/* the present one; the main thread's */
	_Atomic uint64_t written;
	_Atomic size_t left;	/* tasks, and one as long as it is not ended */
	struct task *end;	/* NULL: it is dropped */
	struct large *next;
};

/* What has to be so at the end. */
struct wanted {
	struct entry source;	/* as it is there */
	struct entry entry;	/* as it is to be here */
	struct reader attributes;
	unsigned char digest[ENTRY_ATTRIBUTES];
	unsigned flags;
	unsigned char hash[ENTRY_HASH];
};

/* Why something cannot be sent. */
struct unsent {
	enum result_status status;
	int error;
	char words[128];
};

extern struct far_options receive_options;
extern uint64_t receive_number;	/* for names that no other one makes */
extern bool receive_is_remote;	/* the file system waits for another machine */
extern _Atomic uint64_t received_bytes, received_files;

void apply_whole(struct cursor *c, struct task *t);
void apply_check(struct cursor *c, struct task *t);
void apply_node(struct cursor *c, struct task *t);
void apply_link(struct cursor *c, struct task *t);
void apply_removal(struct cursor *c, struct task *t);
void apply_make_directory(struct cursor *c, struct task *t);
void apply_directory(struct cursor *c, struct task *t);
/* One that cannot be sent. */
void apply_unsent(struct cursor *c, struct task *t);
void apply_part(struct cursor *c, struct task *t);
/* The last of a large file's tasks is done. */
void apply_large(struct cursor *c, struct large *l);
/* It is all there, under the name it was made under: it gets its metadata and its place. */
void apply_made(struct cursor *c, struct large *l, const struct wanted *w, int at, const char *name);

/* unfinished.c: files in segments. */

/* A part of one, or a segment's end; t->segment is what it belongs to. */
void unfinished_part(struct cursor *c, struct task *t);
void unfinished_end(struct cursor *c, struct large *l);
/* From now on it is sent as it is now; no task is at work on it. */
void unfinished_again(struct large *l, uint64_t size);
struct segment *segment_new(uint64_t index);
void segment_leave(struct large *l, struct segment *s);

/* place.c: the small steps. */

/* Parses entry, attributes and, with `hashed`, flags and hash; maps the owner.  False: malformed. */
bool wanted_get(struct reader *r, struct wanted *w, bool hashed);
/* A new name in the directory that is nobody's. */
void place_name(char name[static PLACE_NAME]);
/* Writes all of it; 0 or errno. */
int place_write(int fd, uint64_t offset, const unsigned char *bytes, size_t length);
/* Opens a new file there, where need be in a directory that must be made writable first; -1 with errno. */
int place_open(int at, char name[static PLACE_NAME]);
/* Owner, attributes, mode and times of what was made, as much as can be; 0, or the first errno with words. */
int place_finish(const struct wanted *w, int fd, int at, const char *name, bool bare, char words[static 64]);
/* Renames it to its name when there stands what is expected; 0, or errno (EEXIST, EBUSY: something else stands there). */
int place_rename(int at, const char *made, const char *name, const struct expect *expect);
/* An error that is no loss which the name can live with: what stood there has to stay. */
bool place_is_refusal(int error);
/* What the file system did not keep, in words; NULL: it is all there. */
const char *place_unkept(const struct wanted *w, const struct stat *st);

/* links.c: what was looked at before something is done to it. */
struct held {
	struct stat before;
	int fd;		/* O_PATH, or -1 */
	bool locked;	/* it has, or had, several names */
};

/* Is there what was expected?  0 or errno (EEXIST, EBUSY).  Whatever it says, links_release ends it. */
int links_hold(struct held *h, int at, const char *name, const struct expect *e);
/* Of what is to have several names; without an expectation, too. */
int links_hold_always(struct held *h, int at, const char *name, const struct expect *e);
void links_release(struct held *h);
void links_say(void);	/* frames of what has changed since the last time */

void say_done(const struct task *t, unsigned flags, const struct wanted *w, const struct stat *st, uint64_t bytes);
/* Segments were written, and the file is not in its place yet. */
void say_sent(uint64_t index, uint64_t bytes);
void say_failed(uint64_t index, enum result_status status, int error, const char *words);
/* The same of what is there all the same. */
void say_failed_there(uint64_t index, enum result_status status, int error, const char *words, const struct entry *there);
/* What the sender says of a name that it cannot send.  False: malformed. */
bool unsent_get(struct reader *r, struct unsent *u);
/* Of an errno: is it a conflict, or the target? */
void say_error(uint64_t index, int error, const char *words);

#endif
