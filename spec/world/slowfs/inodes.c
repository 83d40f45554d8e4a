/* inodes.c - what the kernel knows of, found again by device and inode number. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "slowfs.h"

enum { BUCKETS = 1 << 16 };

struct inode root = { .lookups = 1 };
double cached;

static struct inode *buckets[BUCKETS];
static pthread_mutex_t inodes_mutex = PTHREAD_MUTEX_INITIALIZER;

struct inode *
inode_of(fuse_ino_t number)
{
	return number == FUSE_ROOT_ID ? &root : (struct inode *)(uintptr_t)number;
}

int
fd_of(fuse_ino_t number)
{
	return inode_of(number)->fd;
}

static struct inode **
bucket_of(dev_t dev, ino_t ino)
{
	return &buckets[(ino * 2654435761u ^ dev) % BUCKETS];
}

void
put_inode(struct inode *i, uint64_t lookups)
{
	struct inode **place;

	pthread_mutex_lock(&inodes_mutex);
	i->lookups -= lookups;
	if (i->lookups > 0 || i == &root) {
		pthread_mutex_unlock(&inodes_mutex);
		return;
	}
	for (place = bucket_of(i->dev, i->ino); *place != i; place = &(*place)->next)
		;
	*place = i->next;
	pthread_mutex_unlock(&inodes_mutex);
	close(i->fd);
	free(i);
}

/* The inode of a descriptor, which is taken over. */
static struct inode *
get_inode(int fd, const struct stat *st)
{
	struct inode **bucket = bucket_of(st->st_dev, st->st_ino), *i;

	pthread_mutex_lock(&inodes_mutex);
	for (i = *bucket; i != NULL; i = i->next)
		if (i->ino == st->st_ino && i->dev == st->st_dev)
			break;
	if (i != NULL) {
		close(fd);
	} else if ((i = calloc(1, sizeof *i)) != NULL) {
		*i = (struct inode){ .next = *bucket, .fd = fd, .dev = st->st_dev, .ino = st->st_ino };
		*bucket = i;
	} else {
		close(fd);
	}
	if (i != NULL)
		i->lookups++;
	pthread_mutex_unlock(&inodes_mutex);
	return i;
}

int
find(fuse_ino_t parent, const char *name, struct fuse_entry_param *entry)
{
	struct inode *i;
	int fd;

	*entry = (struct fuse_entry_param){ .attr_timeout = cached, .entry_timeout = cached };
	fd = openat(fd_of(parent), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno;
	if (fstatat(fd, "", &entry->attr, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) {
		int code = errno;

		close(fd);
		return code;
	}
	i = get_inode(fd, &entry->attr);
	if (i == NULL)
		return ENOMEM;
	entry->ino = (uintptr_t)i;
	return 0;
}
