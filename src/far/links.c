/*
 * links.c - names of inodes that have several.
 *
 * What is done to one of them gives all a new ctime, so that the others are no more what was expected, by our own doing.
 * So such steps come one after the other, and each leaves word of what the ctime was and has become.
 */
#include "receive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct inode {
	uint64_t device, number;	/* number 0: an empty slot */
	struct moment before, after;
	bool news, touched;	/* touched: by somebody else, too */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock; /* recursive: a link holds its leader, and then what it replaces */
static struct inode *inodes;
static size_t count, room;

static void
make_lock(void)
{
	pthread_mutexattr_t a;
	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&lock, &a);
	pthread_mutexattr_destroy(&a);
}

static void
hold(void)
{
	pthread_once(&once, make_lock);
	pthread_mutex_lock(&lock);
}

static struct moment
changed(const struct stat *st)
{
	return (struct moment){ st->st_ctim.tv_sec, (uint32_t)st->st_ctim.tv_nsec };
}

static struct inode *
slot_of(struct inode *table, size_t size, uint64_t device, uint64_t number)
{
	size_t at = (size_t)((number * 0x9e3779b97f4a7c15u) >> 32 ^ device) & (size - 1);
	while (table[at].number && (table[at].number != number || table[at].device != device))
		at = (at + 1) & (size - 1);
	return &table[at];
}

static void
grow(void)
{
	size_t larger = room ? 2 * room : 64;
	struct inode *table = far_memory(larger * sizeof *table);
	for (size_t i = 0; i < room; i++)
		if (inodes[i].number)
			*slot_of(table, larger, inodes[i].device, inodes[i].number) = inodes[i];
	free(inodes);
	inodes = table;
	room = larger;
}

static void
remember(const struct stat *before, const struct stat *after)
{
	if (2 * (count + 1) > room)
		grow();
	struct inode *i = slot_of(inodes, room, before->st_dev, before->st_ino);
	if (!i->number) {
		count++;
		*i = (struct inode){ .device = before->st_dev, .number = before->st_ino, .before = changed(before), .after = changed(before) };
	}
	i->touched |= !moment_is(i->after, changed(before));
	i->after = changed(after);
	i->news = true;
}

/* It has the ctime that we gave it, and had the expected one before. */
static bool
is_our_doing(const struct stat *st, const struct expect *e)
{
	const struct inode *i = room ? slot_of(inodes, room, st->st_dev, st->st_ino) : NULL;
	return i && i->number && !i->touched && moment_is(i->before, e->changed) && moment_is(i->after, changed(st));
}

static int
judge(const struct stat *st, const struct expect *e, bool held)
{
	if (!e->there)
		return EEXIST;
	if (st->st_ino != e->inode)
		return EBUSY;
	bool any_time = S_ISDIR(st->st_mode) || (e->changed.seconds == 0 && e->changed.nanoseconds == 0);
	if (any_time || moment_is(changed(st), e->changed))
		return 0;
	return held && is_our_doing(st, e) ? 0 : EBUSY;
}

static int
look(int at, const char *name, struct stat *st)
{
	if (fstatat(at, name, st, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	return errno == EACCES && cursor_loosen(at) && fstatat(at, name, st, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : errno;
}

int
links_hold(struct held *h, int at, const char *name, const struct expect *e)
{
	*h = (struct held){ .fd = -1 };
	int error = look(at, name, &h->before);
	if (error)
		return error == ENOENT && e->there ? EBUSY : error == ENOENT ? 0 : error;
	error = judge(&h->before, e, false);
	if (!e->there || (!error && (h->before.st_nlink == 1 || S_ISDIR(h->before.st_mode))))
		return error;
	return links_hold_always(h, at, name, e);
}

int
links_hold_always(struct held *h, int at, const char *name, const struct expect *e)
{
	hold();
	*h = (struct held){ .fd = -1, .locked = true };
	errno = look(at, name, &h->before);
	if (!errno)
		h->fd = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (h->fd < 0 || fstat(h->fd, &h->before) != 0)
		return errno == ENOENT && e ? EBUSY : errno;
	return e ? judge(&h->before, e, true) : 0;
}

void
links_release(struct held *h)
{
	struct stat after;
	if (!h->locked)
		return;
	if (h->fd >= 0 && fstat(h->fd, &after) == 0 && !moment_is(changed(&h->before), changed(&after)))
		remember(&h->before, &after);
	if (h->fd >= 0)
		close(h->fd);
	pthread_mutex_unlock(&lock);
}

void
links_say(void)
{
	struct buffer p = { 0 };
	hold();
	for (size_t i = 0; i < room; i++) {
		if (!inodes[i].number || !inodes[i].news || inodes[i].touched)
			continue;
		p.length = 0;
		put_number(&p, inodes[i].number);
		put_number(&p, inodes[i].device);
		put_signed(&p, inodes[i].after.seconds);
		put_number(&p, inodes[i].after.nanoseconds);
		out_frame(RESULT_TOUCHED, &p);
		inodes[i].news = false;
	}
	pthread_mutex_unlock(&lock);
	buffer_free(&p);
}
