/* look.c - how the oracle looks at a tree: directories however deep, data and holes, attributes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "oracle.h"

static int
by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool
excluded(const char *directory, const char *name, int which)
{
	if (*directory != '\0')
		return false;
	if (which == 1 && strcmp(name, ".runbook") == 0)
		return true;
	for (size_t i = 0; i < given.excluded.count; i++)
		if (strcmp(name, given.excluded.names[i]) == 0)
			return true;
	return false;
}

/* Opens a directory however deep it is: a path may be longer than the kernel takes at once. */
static int
open_directory(const char *root, const char *path)
{
	char part[4096];
	int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), next;

	while (fd >= 0 && *path != '\0') {
		size_t length = strlen(path);

		if (length >= sizeof part)
			for (length = sizeof part - 1; path[length] != '/'; length--)
				;
		memcpy(part, path, length);
		part[length] = '\0';
		path += length + (path[length] == '/');
		next = openat(fd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(fd);
		fd = next;
	}
	return fd;
}

bool
read_side(struct side *side, int which, const char *path)
{
	DIR *directory;
	int copy;

	side->fd = open_directory(given.root[which], path);
	copy = side->fd >= 0 ? fcntl(side->fd, F_DUPFD_CLOEXEC, 0) : -1;
	directory = copy >= 0 ? fdopendir(copy) : NULL;
	if (directory == NULL) {
		trouble(path, which == 0 ? "open on the source" : "open on the target");
		return false;
	}
	for (;;) {
		struct dirent *entry;

		errno = 0;
		entry = readdir(directory);
		if (entry == NULL)
			break;
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && !excluded(path, entry->d_name, which))
			push(&side->names, must(strdup(entry->d_name)));
	}
	if (errno != 0)
		trouble(path, "readdir");
	closedir(directory);
	if (side->names.count > 1)
		qsort(side->names.names, side->names.count, sizeof *side->names.names, by_name);
	return true;
}

void
close_side(struct side *side)
{
	if (side->fd >= 0)
		close(side->fd);
	clear(&side->names);
}

char *
joined(const char *directory, const char *name)
{
	char *path;

	if (asprintf(&path, "%s%s%s", directory, *directory != '\0' ? "/" : "", name) < 0)
		must(NULL);
	return path;
}

int
open_file(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);

	return fd < 0 && errno == EPERM ? openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC) : fd;
}

off_t
next_data(int fd, off_t from, off_t size)
{
	off_t at = lseek(fd, from, SEEK_DATA);

	if (at < 0)
		at = errno == ENXIO ? size : from;
	return at < size ? at : size;
}

off_t
next_hole(int fd, off_t from, off_t size)
{
	off_t at = lseek(fd, from, SEEK_HOLE);

	return at < 0 || at > size ? size : at;
}

ssize_t
read_at(int fd, unsigned char *buffer, size_t length, off_t at)
{
	size_t done = 0;

	while (done < length) {
		ssize_t n = pread(fd, buffer + done, length - done, at + (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static bool
of_the_machine(const char *attribute)
{
	return strncmp(attribute, "security.", 9) == 0 && strcmp(attribute, "security.capability") != 0;
}

bool
list_attributes(const char *place, struct name_list *list)
{
	char text[65536];	/* as much as the kernel ever gives */
	ssize_t length = llistxattr(place, text, sizeof text);

	if (length < 0)
		return errno == ENOTSUP;
	for (char *p = text; p < text + length; p += strlen(p) + 1)
		if (!of_the_machine(p))
			push(list, must(strdup(p)));
	if (list->count > 1)
		qsort(list->names, list->count, sizeof *list->names, by_name);
	return true;
}

void
place_of(char place[static PLACE], int dir, const char *name)
{
	snprintf(place, PLACE, "/proc/self/fd/%d/%s", dir, name);
}
