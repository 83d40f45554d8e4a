#include "far.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <sysexits.h>
#include <unistd.h>

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
	c->make = make;
}

static void
forget(struct cursor *c)
{
	while (c->depth > 0)
		close(c->levels[--c->depth].fd);
}

void
cursor_close(struct cursor *c)
{
	forget(c);
	free(c->path);
	free(c->levels);
}

static int
here(const struct cursor *c)
{
	return c->depth ? c->levels[c->depth - 1].fd : c->root;
}

/* How many of the open directories lead to this one. */
static void
go_back(struct cursor *c, const char *directory, size_t length)
{
	size_t known = c->depth ? c->levels[c->depth - 1].end : 0;
	size_t common = 0;
	while (common < known && common < length && c->path[common] == directory[common])
		common++;
	while (c->depth > 0) {
		size_t end = c->levels[c->depth - 1].end;
		if (end <= common && (end == length || directory[end] == '/'))
			break;
		close(c->levels[--c->depth].fd);
	}
}

static int
open_component(struct cursor *c, const char *name)
{
	const int flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(here(c), name, flags);
	if (fd >= 0 || errno != ENOENT || !c->make)
		return fd;
	if (mkdirat(here(c), name, 0700) != 0 && errno != EEXIST)
		return -1;
	return openat(here(c), name, flags);
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
	memcpy(c->path + from, directory + from, end - from);
	c->path[end] = '\0';
	int fd = open_component(c, c->path + from);
	if (fd < 0)
		return -1;
	c->levels[c->depth++] = (struct cursor_level){ fd, end, -1 };
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
		if (c->path && at < c->capacity && from > at)
			c->path[at] = '/';
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
	if (c->depth > 0 && c->levels[c->depth - 1].inherits >= 0)
		return c->levels[c->depth - 1].inherits;
	char path[32];
	snprintf(path, sizeof path, "/proc/self/fd/%d", here(c));
	ssize_t n = getxattr(path, "system.posix_acl_default", NULL, 0);
	bool inherits = n > 0 || (n < 0 && errno != ENODATA && errno != ENOTSUP);
	if (c->depth > 0)
		c->levels[c->depth - 1].inherits = inherits;
	return inherits;
}
