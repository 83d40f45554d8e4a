/* compare.c - two trees side by side. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "oracle.h"

enum { GRACE = 65536 };	/* what a copy may round at each end of a hole */

/* false: they differ, or could not be read, which was said. */
static bool
compare_bytes(struct worker *w, const char *path, const int fd[2], off_t size)
{
	for (off_t at = 0; at < size;) {
		ssize_t n[2];
		size_t length;

		if (size > CHUNK) {
			off_t a = next_data(fd[0], at, size), b = next_data(fd[1], at, size);

			at = a < b ? a : b;
		}
		length = size - at < CHUNK ? (size_t)(size - at) : CHUNK;
		for (int i = 0; i < 2; i++) {
			n[i] = read_at(fd[i], w->buffer[i], length, at);
			if (n[i] < 0) {
				trouble(path, i == 0 ? "read on the source" : "read on the target");
				return false;
			}
		}
		if (n[0] != n[1] || memcmp(w->buffer[0], w->buffer[1], (size_t)n[0]) != 0) {
			off_t first = 0;

			while (first < n[0] && first < n[1] && w->buffer[0][first] == w->buffer[1][first])
				first++;
			differs(CONTENT, path, "from byte %jd", (intmax_t)(at + first));
			return false;
		}
		w->bytes += (uint64_t)n[0];
		at += (off_t)length;
	}
	return true;
}

/* Holes of the source that are data on the target. */
static void
compare_holes(const char *path, const int fd[2], off_t size)
{
	off_t lost = 0, holes = 0;

	for (off_t hole = next_hole(fd[0], 0, size); hole < size;) {
		off_t end = next_data(fd[0], hole, size), last = end - GRACE;

		holes += end - hole;
		for (off_t at = hole + GRACE; at < last;) {
			off_t data = next_data(fd[1], at, size), until = next_hole(fd[1], data, size);

			if (data < last)
				lost += (until < last ? until : last) - data;
			at = until;
		}
		hole = next_hole(fd[0], end, size);
	}
	if (lost > 0 && next_hole(fd[1], 0, size) >= size)
		differs(ALLOCATED, path, "%jd bytes of holes, now none", (intmax_t)holes);
	else if (lost > 0)
		differs(HOLES, path, "%jd bytes of holes became data", (intmax_t)lost);
}

static void
compare_contents(struct worker *w, const char *path, const char *name, const struct entry e[2])
{
	off_t size = e[0].st.st_size;
	int fd[2];

	if (size != e[1].st.st_size) {
		differs(SIZE, path, "%jd became %jd", (intmax_t)size, (intmax_t)e[1].st.st_size);
		return;
	}
	if (size == 0)
		return;
	for (int i = 0; i < 2; i++)
		fd[i] = open_file(e[i].dir, name);
	if (fd[0] < 0 || fd[1] < 0)
		trouble(path, fd[0] < 0 ? "open on the source" : "open on the target");
	else if (compare_bytes(w, path, fd, size) && (off_t)e[0].st.st_blocks * 512 < size)
		compare_holes(path, fd, size);
	for (int i = 0; i < 2; i++)
		if (fd[i] >= 0)
			close(fd[i]);
}

static void
compare_attribute(struct worker *w, const char *path, const char *attribute, char place[2][PLACE])
{
	enum kind kind = strncmp(attribute, "system.posix_acl_", 17) == 0 ? ACL : XATTR;
	ssize_t length[2];

	for (int i = 0; i < 2; i++) {
		length[i] = lgetxattr(place[i], attribute, w->buffer[i], CHUNK);
		if (length[i] < 0) {
			trouble(path, attribute);
			return;
		}
	}
	if (length[0] != length[1] || memcmp(w->buffer[0], w->buffer[1], (size_t)length[0]) != 0)
		differs(kind, path, "%s has another value", attribute);
}

static void
compare_attributes(struct worker *w, const char *path, const char *name, const struct entry e[2])
{
	struct name_list list[2] = { { 0 } };
	char place[2][PLACE];
	size_t at[2] = { 0 };

	for (int i = 0; i < 2; i++) {
		place_of(place[i], e[i].dir, name);
		if (!list_attributes(place[i], &list[i]))
			trouble(path, i == 0 ? "attributes on the source" : "attributes on the target");
	}
	while (at[0] < list[0].count || at[1] < list[1].count) {
		const char *a = at[0] < list[0].count ? list[0].names[at[0]] : NULL;
		const char *b = at[1] < list[1].count ? list[1].names[at[1]] : NULL;
		int order = a == NULL ? 1 : b == NULL ? -1 : strcmp(a, b);
		const char *attribute = order <= 0 ? a : b;
		enum kind kind = strncmp(attribute, "system.posix_acl_", 17) == 0 ? ACL : XATTR;

		if (order == 0)
			compare_attribute(w, path, attribute, place);
		else
			differs(kind, path, "%s %s", attribute, order < 0 ? "is not there" : "is new");
		at[0] += order <= 0;
		at[1] += order >= 0;
	}
	clear(&list[0]);
	clear(&list[1]);
}

static void
compare_links(const char *path, const char *name, const struct entry e[2])
{
	char target[2][8192];
	ssize_t length[2];

	for (int i = 0; i < 2; i++) {
		length[i] = readlinkat(e[i].dir, name, target[i], sizeof target[i] - 1);
		if (length[i] < 0) {
			trouble(path, "readlink");
			return;
		}
		target[i][length[i]] = '\0';
	}
	if (strcmp(target[0], target[1]) != 0) {
		char *a = escaped(target[0]), *b = escaped(target[1]);

		differs(LINK_TARGET, path, "%s became %s", a, b);
		free(a);
		free(b);
	}
}

static const char *
type_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return "file";
	case S_IFDIR: return "directory";
	case S_IFLNK: return "symlink";
	case S_IFIFO: return "fifo";
	case S_IFSOCK: return "socket";
	case S_IFCHR: return "character device";
	default: return "block device";
	}
}

static void
compare_inode(const char *path, const struct stat *a, const struct stat *b)
{
	uid_t uid = given.mapped ? given.uid : a->st_uid;
	gid_t gid = given.mapped ? given.gid : a->st_gid;
	enum kind time = S_ISDIR(a->st_mode) ? DIR_MTIME : S_ISLNK(a->st_mode) ? LINK_MTIME : MTIME;

	if (!S_ISLNK(a->st_mode) && (a->st_mode & 07777) != (b->st_mode & 07777))
		differs(MODE, path, "%04o became %04o", a->st_mode & 07777, b->st_mode & 07777);
	if (uid != b->st_uid)
		differs(OWNER, path, "%u became %u", uid, b->st_uid);
	if (gid != b->st_gid)
		differs(GROUP, path, "%u became %u", gid, b->st_gid);
	if (a->st_mtim.tv_sec != b->st_mtim.tv_sec || a->st_mtim.tv_nsec != b->st_mtim.tv_nsec)
		differs(time, path, "%jd.%09ld became %jd.%09ld", (intmax_t)a->st_mtim.tv_sec, a->st_mtim.tv_nsec,
		        (intmax_t)b->st_mtim.tv_sec, b->st_mtim.tv_nsec);
	if ((S_ISCHR(a->st_mode) || S_ISBLK(a->st_mode)) && a->st_rdev != b->st_rdev)
		differs(DEVICE, path, "%u,%u became %u,%u", major(a->st_rdev), minor(a->st_rdev), major(b->st_rdev), minor(b->st_rdev));
	if (a->st_dev == b->st_dev && a->st_ino == b->st_ino)
		differs(SAME_FILE, path, "the target's is the source's own");
}

/* `name` is "." for the trees themselves. */
static void
compare_entry(struct worker *w, const char *path, const char *name, const int dirs[2])
{
	struct entry e[2];

	for (int i = 0; i < 2; i++) {
		e[i].dir = dirs[i];
		if (fstatat(dirs[i], name, &e[i].st, AT_SYMLINK_NOFOLLOW) != 0) {
			trouble(path, i == 0 ? "stat on the source" : "stat on the target");
			return;
		}
	}
	w->names++;
	if ((e[0].st.st_mode & S_IFMT) != (e[1].st.st_mode & S_IFMT)) {
		differs(TYPE, path, "%s became %s", type_name(e[0].st.st_mode), type_name(e[1].st.st_mode));
		return;
	}
	compare_inode(path, &e[0].st, &e[1].st);
	compare_attributes(w, path, name, e);
	if (S_ISREG(e[0].st.st_mode))
		compare_contents(w, path, name, e);
	else if (S_ISLNK(e[0].st.st_mode))
		compare_links(path, name, e);
	if (!S_ISDIR(e[0].st.st_mode) && (e[0].st.st_nlink > 1 || e[1].st.st_nlink > 1))
		keep_shared(w, path, e);
	if (S_ISDIR(e[0].st.st_mode) && *path != '\0')
		enqueue(path);
}

void
compare_directory(struct worker *w, const char *path)
{
	struct side a = { .fd = -1 }, b = { .fd = -1 };
	size_t i = 0, j = 0;

	if (read_side(&a, 0, path) && read_side(&b, 1, path)) {
		if (*path == '\0')
			compare_entry(w, "", ".", (int[]){ a.fd, b.fd });
		while (i < a.names.count || j < b.names.count) {
			const char *x = i < a.names.count ? a.names.names[i] : NULL;
			const char *y = j < b.names.count ? b.names.names[j] : NULL;
			int order = x == NULL ? 1 : y == NULL ? -1 : strcmp(x, y);
			char *child = joined(path, order <= 0 ? x : y);

			if (order < 0)
				differs(MISSING, child, "%s", "");
			else if (order > 0)
				differs(EXTRA, child, "%s", "");
			else
				compare_entry(w, child, x, (int[]){ a.fd, b.fd });
			free(child);
			i += order <= 0;
			j += order >= 0;
		}
	}
	close_side(&a);
	close_side(&b);
}

/* Each name must be one file with the first of its group on the other side too. */
void
compare_shared(struct shared_list *all)
{
	for (int side = 0; side < 2; side++) {
		const struct shared *first = all->list;

		sort_shared(all, side);
		for (size_t i = 1; i < all->count; i++) {
			const struct shared *s = &all->list[i];
			char *name;

			if (!same_file(first, s, side)) {
				first = s;
				continue;
			}
			if (same_file(first, s, 1 - side))
				continue;
			name = escaped(first->path);
			differs(HARDLINKS, s->path, side == 0 ? "is no longer one file with %s" : "became one file with %s", name);
			free(name);
		}
	}
}
