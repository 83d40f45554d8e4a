/*
 * oracle.h - what the parts of the oracle share: how it looks at trees (look.c), what it found (report.c), two trees
 * side by side (compare.c), one tree as a digest (digest.c), and the threads that do it (main.c).
 */
#ifndef ORACLE_H
#define ORACLE_H

#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

enum { CHUNK = 1 << 20, BLOCK = 4096 };

enum kind {
	MISSING, EXTRA, TYPE, SIZE, CONTENT, MODE, OWNER, GROUP, MTIME, DIR_MTIME, LINK_MTIME, LINK_TARGET, DEVICE, HARDLINKS,
	XATTR, ACL, HOLES, ALLOCATED, SAME_FILE, KINDS
};

struct name_list {
	char **names;
	size_t count, room;
};

/* A name that shares its file with others, on either side. */
struct shared {
	char *path;
	dev_t dev[2];
	ino_t ino[2];
};

struct shared_list {
	struct shared *list;
	size_t count, room;
};

/* One side of a directory. */
struct side {
	int fd;
	struct name_list names;
};

/* One side of an entry. */
struct entry {
	int dir;
	struct stat st;
};

struct worker {
	pthread_t thread;
	struct shared_list shared;
	uint64_t names, bytes;
	uint64_t sum[4];	/* of the digests of the entries */
	EVP_MD_CTX *digest;
	unsigned char *buffer[2];	/* CHUNK each */
};

/* What was asked for; nothing changes it once threads run. */
struct given {
	const char *root[2];
	int sides;
	struct name_list excluded;
	bool mapped;
	uid_t uid;
	gid_t gid;
};
extern struct given given;

/* Ends the program when there is no memory. */
void *must(void *memory);
void push(struct name_list *list, char *name);
void clear(struct name_list *list);

/* A name as a part of a line; the caller frees it. */
char *escaped(const char *name);

/* Something could not be seen: says so, with errno. */
void trouble(const char *path, const char *what);

__attribute__((format(printf, 3, 4))) void differs(enum kind kind, const char *path, const char *format, ...);

/* Prints what differs; the exit code. */
int report(uint64_t names, uint64_t bytes);

/* 0, or 2 when something could not be seen. */
int report_trouble(void);

/* false: it cannot be listed, which was said.  Close it either way. */
bool read_side(struct side *side, int which, const char *path);
void close_side(struct side *side);

char *joined(const char *directory, const char *name);
int open_file(int dir, const char *name);

/* Where data begins at or after `from`; `size` when there is none, `from` where nobody can tell. */
off_t next_data(int fd, off_t from, off_t size);
off_t next_hole(int fd, off_t from, off_t size);

/* All of `length` unless the file ends; -1 and errno. */
ssize_t read_at(int fd, unsigned char *buffer, size_t length, off_t at);

/* A path of an entry that holds as long as its directory's descriptor. */
enum { PLACE = 320 };
void place_of(char place[static PLACE], int dir, const char *name);

/* Names of an entry's attributes, sorted; false and errno when they cannot be listed. */
bool list_attributes(const char *place, struct name_list *list);

void keep_shared(struct worker *w, const char *path, const struct entry *e);

/* By file on that side, then by path. */
void sort_shared(struct shared_list *l, int side);
bool same_file(const struct shared *a, const struct shared *b, int side);

/* Has another directory looked at. */
void enqueue(const char *path);

void compare_directory(struct worker *w, const char *path);
void compare_shared(struct shared_list *all);

void digest_directory(struct worker *w, const char *path);
void digest_shared(struct worker *w, struct shared_list *all);

#endif
