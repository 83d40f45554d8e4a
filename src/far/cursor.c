#include "far.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <sysexits.h>
#include <unistd.h>

/*
 * Of the directories above, this many are kept open, and every so many-th one above those: a tree that is thousands
 * of levels deep would take more descriptors than a process may have.
 */
#define WINDOW 64

static const int flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

static _Atomic unsigned epoch;

void
cursor_forget_all(void)
{
	epoch++;
}

void
cursor_open(struct cursor *c, int root, bool make)
{
	memset(c, 0, sizeof *c);
	c->epoch = epoch;
	c->root = root;
	c->make = c->writes = make;
	c->root_inherits = -1;
}

static void
close_last(struct cursor *c)
{
	int fd = c->levels[--c->depth].fd;
	if (fd >= 0)
		close(fd);
}

static void
forget(struct cursor *c)
{
	while (c->depth > 0)
		close_last(c);
	c->root_inherits = -1;
}

void
cursor_close(struct cursor *c)
{
	forget(c);
	free(c->path);
	free(c->levels);
	for (size_t i = 0; i < sizeof c->scratch / sizeof *c->scratch; i++)
		buffer_free(&c->scratch[i]);
}

/* The directory so many levels below the root, opened again where it was closed. */
static int
at_level(struct cursor *c, size_t depth)
{
	size_t open = depth;
	while (open > 0 && c->levels[open - 1].fd < 0)
		open--;
	int fd = open ? c->levels[open - 1].fd : c->root;
	for (; open < depth; open++) {
		size_t from = open ? c->levels[open - 1].end + 1 : 0, end = c->levels[open].end;
		char name[256];
		if (end - from >= sizeof name) {
			errno = ENAMETOOLONG;
			return -1;
		}
		memcpy(name, c->path + from, end - from);
		name[end - from] = '\0';
		fd = openat(fd, name, flags);
		if (fd < 0)
			return -1;
		c->levels[open].fd = fd;
	}
	return fd;
}

static int
here(struct cursor *c)
{
	return at_level(c, c->depth);
}

/* How many of the open directories lead to this one. */
static void
go_back(struct cursor *c, const char *directory, size_t length)
{
	size_t known = c->depth ? c->levels[c->depth - 1].end : 0;
	size_t common = known <= length && known && memcmp(c->path, directory, known) == 0 ? known : 0;
	while (common < known && common < length && c->path[common] == directory[common])
		common++;
	while (c->depth > 0) {
		size_t end = c->levels[c->depth - 1].end;
		if (end <= common && (end == length || directory[end] == '/'))
			break;
		close_last(c);
	}
}

/* O_PATH descriptors know no fchmod. */
static bool
set_mode(int directory, mode_t mode)
{
	char path[32];
	snprintf(path, sizeof path, "/proc/self/fd/%d", directory);
	return chmod(path, mode) == 0;
}

static struct loosened {
	int fd;
	dev_t device;
	ino_t inode;
	mode_t before;
} *loosened;
static size_t loosened_count;
static pthread_mutex_t loosening = PTHREAD_MUTEX_INITIALIZER;

bool
cursor_loosen(int directory)
{
	struct stat st;
	if (geteuid() == 0 || fstat(directory, &st) != 0 || st.st_uid != geteuid())
		return false;
	pthread_mutex_lock(&loosening);
	bool good = fstat(directory, &st) == 0 && (st.st_mode & 0700) == 0700; /* another thread was quicker */
	int fd = good ? -1 : fcntl(directory, F_DUPFD_CLOEXEC, 0);
	if (fd >= 0 && set_mode(fd, (st.st_mode & 07777) | 0700)) {
		loosened = realloc(loosened, (loosened_count + 1) * sizeof *loosened);
		if (!loosened)
			far_die(EX_OSERR, "out of memory");
		loosened[loosened_count++] = (struct loosened){ fd, st.st_dev, st.st_ino, st.st_mode & 07777 };
		good = true;
	} else if (fd >= 0) {
		close(fd);
	}
	pthread_mutex_unlock(&loosening);
	return good;
}

void
cursor_settled(const struct stat *st)
{
	pthread_mutex_lock(&loosening);
	for (size_t i = 0; i < loosened_count; i++) {
		if (loosened[i].inode == st->st_ino && loosened[i].device == st->st_dev) {
			close(loosened[i].fd);
			loosened[i--] = loosened[--loosened_count];
		}
	}
	pthread_mutex_unlock(&loosening);
}

void
cursor_tighten(void)
{
	pthread_mutex_lock(&loosening);
	while (loosened_count > 0) {
		const struct loosened *l = &loosened[--loosened_count];
		set_mode(l->fd, l->before);
		close(l->fd);
	}
	pthread_mutex_unlock(&loosening);
}

static int
open_component(struct cursor *c, int at, const char *name)
{
	int fd = openat(at, name, flags);
	if (fd < 0 && errno == EACCES && c->writes && cursor_loosen(at))
		fd = openat(at, name, flags);
	if (fd >= 0 || errno != ENOENT || !c->make)
		return fd;
	int status = mkdirat(at, name, 0700);
	if (status != 0 && errno == EACCES && cursor_loosen(at))
		status = mkdirat(at, name, 0700);
	if (status != 0 && errno != EEXIST)
		return -1;
	return openat(at, name, flags);
}

static void
close_far_above(struct cursor *c)
{
	if (c->depth <= WINDOW)
		return;
	size_t above = c->depth - 1 - WINDOW;
	if (above % WINDOW != 0 && c->levels[above].fd >= 0) {
		close(c->levels[above].fd);
		c->levels[above].fd = -1;
	}
}

static int
push(struct cursor *c, const char *directory, size_t from, size_t end)
{
	if (c->capacity <= end) {
		c->capacity = end * 2 + 64;
		c->path = realloc(c->path, c->capacity);
	}
	if (c->levels_capacity <= c->depth) {
		c->levels_capacity = c->levels_capacity * 2 + 16;
		c->levels = realloc(c->levels, c->levels_capacity * sizeof *c->levels);
	}
	if (!c->path || !c->levels)
		far_die(EX_OSERR, "out of memory");
	if (from > 0)
		c->path[from - 1] = '/';
	memcpy(c->path + from, directory + from, end - from);
	c->path[end] = '\0';
	int at = here(c), fd = at < 0 ? -1 : open_component(c, at, c->path + from);
	if (fd < 0)
		return -1;
	c->levels[c->depth++] = (struct cursor_level){ fd, end, -1 };
	close_far_above(c);
	return fd;
}

int
cursor_enter(struct cursor *c, const char *directory, size_t length)
{
	if (c->epoch != epoch) {
		forget(c);
		c->epoch = epoch;
	}
	go_back(c, directory, length);
	size_t at = c->depth ? c->levels[c->depth - 1].end : 0;
	while (at < length) {
		size_t from = at + (directory[at] == '/');
		const char *slash = memchr(directory + from, '/', length - from);
		size_t end = slash ? (size_t)(slash - directory) : length;
		if (push(c, directory, from, end) < 0)
			return -1;
		at = end;
	}
	return here(c);
}

int
cursor_parent(struct cursor *c, const char *path, const char **name)
{
	const char *slash = strrchr(path, '/');
	*name = slash ? slash + 1 : path;
	if (**name == '\0')
		*name = ".";
	return cursor_enter(c, path, slash ? (size_t)(slash - path) : 0);
}

bool
cursor_inherits(struct cursor *c)
{
	signed char *known = c->depth ? &c->levels[c->depth - 1].inherits : &c->root_inherits;
	if (*known < 0) {
		char path[32];
		snprintf(path, sizeof path, "/proc/self/fd/%d", here(c));
		ssize_t n = getxattr(path, "system.posix_acl_default", NULL, 0);
		*known = n > 0 || (n < 0 && errno != ENODATA && errno != ENOTSUP);
	}
	return *known;
}
