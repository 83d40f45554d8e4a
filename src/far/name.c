#include "far.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sysexits.h>
#include <unistd.h>

static char
type_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR: return 'd';
	case S_IFLNK: return 'l';
	case S_IFIFO: return 'p';
	case S_IFSOCK: return 's';
	case S_IFBLK: return 'b';
	case S_IFCHR: return 'c';
	default: return 'f';
	}
}

void
entry_of_stat(struct entry *e, const struct stat *st)
{
	memset(e, 0, sizeof *e);
	e->type = type_of(st->st_mode);
	e->mode = st->st_mode & 07777;
	e->uid = st->st_uid;
	e->gid = st->st_gid;
	e->size = e->type == 'f' ? (uint64_t)st->st_size : 0;
	e->modified = (struct moment){ st->st_mtim.tv_sec, (uint32_t)st->st_mtim.tv_nsec };
	e->changed = (struct moment){ st->st_ctim.tv_sec, (uint32_t)st->st_ctim.tv_nsec };
	e->inode = st->st_ino;
	e->device = st->st_dev;
	e->links = st->st_nlink;
	e->blocks = (uint64_t)st->st_blocks;
	if (e->type == 'b' || e->type == 'c')
		e->node = (uint64_t)major(st->st_rdev) << 32 | minor(st->st_rdev);
	e->target.bytes = (const unsigned char *)"";
}

int
entry_read_target(struct entry *e, int directory, const char *name, struct buffer *b)
{
	char text[4096];
	ssize_t n = readlinkat(directory, name, text, sizeof text);
	if (n < 0)
		return errno == EINVAL ? EAGAIN : errno; /* it has become something else */
	b->length = 0;
	put_bytes(b, text, (size_t)n);
	if (b->failed)
		return ENOMEM;
	e->target = (struct text){ b->bytes, b->length };
	return 0;
}

char *
path_of(const char *unit, struct text path)
{
	size_t in_unit = strcmp(unit, ".") == 0 ? 0 : strlen(unit);
	if (!entry_path_is_good(path) || strchr(unit, '/') || strcmp(unit, "..") == 0 || !*unit)
		return NULL;
	char *whole = far_memory(in_unit + 1 + path.length + 1);
	memcpy(whole, unit, in_unit);
	if (in_unit && path.length)
		whole[in_unit++] = '/';
	memcpy(whole + in_unit, path.bytes, path.length);
	return whole;
}

bool
entry_is_untouched(const struct entry *a, const struct entry *b)
{
	return a->type == b->type && a->inode == b->inode && a->device == b->device && a->size == b->size
		&& moment_is(a->modified, b->modified) && moment_is(a->changed, b->changed);
}
