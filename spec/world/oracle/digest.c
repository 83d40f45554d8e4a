/*
 * digest.c - all of one tree as one number.  Digests of its entries are added, so that the order in which they are
 * looked at does not matter.  Left out is what a reader may change: ctime, atime, and which zeros are holes (on some
 * file systems reading an unwritten part makes it look like data); inodes, so that a copy can have the same digest.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "oracle.h"

static void
begin(struct worker *w)
{
	if (EVP_DigestInit_ex(w->digest, EVP_sha256(), NULL) != 1)
		must(NULL);
}

static void
add(struct worker *w, const void *bytes, size_t length)
{
	if (EVP_DigestUpdate(w->digest, bytes, length) != 1)
		must(NULL);
}

static void
add_text(struct worker *w, const char *text)
{
	add(w, text, strlen(text) + 1);
}

static void
end(struct worker *w)
{
	uint64_t sum[4];

	if (EVP_DigestFinal_ex(w->digest, (unsigned char *)sum, NULL) != 1)
		must(NULL);
	for (int i = 0; i < 4; i++)
		w->sum[i] += sum[i];
}

static void
add_contents(struct worker *w, const char *path, const char *name, const struct entry *e)
{
	static const unsigned char zeros[BLOCK];
	int fd = open_file(e->dir, name);
	off_t at = 0, size = e->st.st_size;

	if (fd < 0)
		trouble(path, "open");
	while (fd >= 0 && (at = next_data(fd, at, size)) < size) {
		ssize_t n;

		at -= at % BLOCK;
		n = read_at(fd, w->buffer[0], CHUNK, at);
		if (n <= 0) {
			errno = n < 0 ? errno : EAGAIN;	/* it became shorter */
			trouble(path, "read");
			break;
		}
		for (ssize_t i = 0; i < n; i += BLOCK) {
			size_t length = n - i < BLOCK ? (size_t)(n - i) : BLOCK;
			uint64_t where = (uint64_t)(at + i);

			if (memcmp(w->buffer[0] + i, zeros, length) == 0)
				continue;
			add(w, &where, sizeof where);
			add(w, w->buffer[0] + i, length);
		}
		at += n;
	}
	if (fd >= 0)
		close(fd);
}

static void
add_attributes(struct worker *w, const char *path, const char *name, const struct entry *e)
{
	struct name_list list = { 0 };
	char place[PLACE];

	place_of(place, e->dir, name);
	if (!list_attributes(place, &list))
		trouble(path, "attributes");
	for (size_t i = 0; i < list.count; i++) {
		ssize_t length = lgetxattr(place, list.names[i], w->buffer[0], CHUNK);

		if (length < 0)
			trouble(path, list.names[i]);
		add_text(w, list.names[i]);
		add(w, &length, sizeof length);
		if (length > 0)
			add(w, w->buffer[0], (size_t)length);
	}
	clear(&list);
}

static void
digest_entry(struct worker *w, const char *path, const char *name, int dir)
{
	struct entry e = { .dir = dir };
	const struct stat *st = &e.st;
	char text[256], target[8192];
	ssize_t length;

	if (fstatat(dir, name, &e.st, AT_SYMLINK_NOFOLLOW) != 0) {
		trouble(path, "stat");
		return;
	}
	w->names++;
	begin(w);
	add_text(w, path);
	snprintf(text, sizeof text, "%o %u %u %jd %jd %ld %ju", st->st_mode, st->st_uid, st->st_gid,
	         S_ISREG(st->st_mode) ? (intmax_t)st->st_size : 0, (intmax_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec,
	         S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode) ? (uintmax_t)st->st_rdev : 0);
	add_text(w, text);
	add_attributes(w, path, name, &e);
	if (S_ISREG(st->st_mode)) {
		add_contents(w, path, name, &e);
	} else if (S_ISLNK(st->st_mode)) {
		length = readlinkat(dir, name, target, sizeof target);
		if (length < 0)
			trouble(path, "readlink");
		else
			add(w, target, (size_t)length);
	}
	end(w);
	if (!S_ISDIR(st->st_mode) && st->st_nlink > 1)
		keep_shared(w, path, &e);
	if (S_ISDIR(st->st_mode) && *path != '\0')
		enqueue(path);
}

void
digest_directory(struct worker *w, const char *path)
{
	struct side side = { .fd = -1 };

	if (read_side(&side, 0, path)) {
		if (*path == '\0')
			digest_entry(w, "", ".", side.fd);
		for (size_t i = 0; i < side.names.count; i++) {
			char *child = joined(path, side.names.names[i]);

			digest_entry(w, child, side.names.names[i], side.fd);
			free(child);
		}
	}
	close_side(&side);
}

void
digest_shared(struct worker *w, struct shared_list *all)
{
	sort_shared(all, 0);
	for (size_t i = 0; i < all->count;) {
		size_t first = i;

		begin(w);
		add_text(w, "one file");
		for (; i < all->count && same_file(&all->list[first], &all->list[i], 0); i++)
			add_text(w, all->list[i].path);
		end(w);
	}
}
