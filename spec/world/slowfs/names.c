/* names.c - calls about names and inodes. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "slowfs.h"

const char *
kept(char name[static NAME], const char *given)
{
	size_t length = 0;

	if (!poor)
		return given;
	for (; length < POOR_NAME && given[length]; length++)
		name[length] = (char)tolower((unsigned char)given[length]);
	name[length] = '\0';
	errno = ENAMETOOLONG;
	return given[length] ? NULL : name;
}

static void
reply_found(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry;
	int code = find(parent, name, &entry);

	if (code != 0)
		fuse_reply_err(req, code);
	else if (fuse_reply_entry(req, &entry) == -ENOENT)	/* nobody waits for it any more */
		put_inode(inode_of(entry.ino), 1);
}

void
reply_done(fuse_req_t req, int result)
{
	fuse_reply_err(req, result == 0 ? 0 : errno);
}

void
slow_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	char own[NAME];

	wait_as_a_server();
	name = kept(own, name);
	if (name == NULL) {
		fuse_reply_err(req, errno);
		return;
	}
	reply_found(req, parent, name);
}

void
slow_forget(fuse_req_t req, fuse_ino_t number, uint64_t lookups)
{
	put_inode(inode_of(number), lookups);
	fuse_reply_none(req);
}

void
slow_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		put_inode(inode_of(forgets[i].ino), forgets[i].nlookup);
	fuse_reply_none(req);
}

static void
reply_attributes(fuse_req_t req, fuse_ino_t number)
{
	struct stat st;

	if (fstatat(fd_of(number), "", &st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_attr(req, &st, cached);
}

void
slow_getattr(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *fi)
{
	(void)fi;
	wait_as_a_server();
	reply_attributes(req, number);
}

static struct timespec
time_to_set(int set, int value, int now, struct timespec time)
{
	if (set & now)
		return (struct timespec){ .tv_nsec = UTIME_NOW };
	return set & value ? time : (struct timespec){ .tv_nsec = UTIME_OMIT };
}

static int
set_attributes(fuse_ino_t number, const struct stat *to, int set)
{
	char path[PATH];
	int fd = fd_of(number);

	path_of(path, number);
	if (set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) {
		uid_t uid = set & FUSE_SET_ATTR_UID ? to->st_uid : (uid_t)-1;
		gid_t gid = set & FUSE_SET_ATTR_GID ? to->st_gid : (gid_t)-1;

		if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0)
			return -1;
	}
	if (set & FUSE_SET_ATTR_MODE && chmod(path, to->st_mode) != 0)	/* after chown, which takes bits away */
		return -1;
	if (set & FUSE_SET_ATTR_SIZE && truncate(path, to->st_size) != 0)
		return -1;
	if (set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW)) {
		struct timespec times[2] = {
			time_to_set(set, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, to->st_atim),
			time_to_set(set, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, to->st_mtim)
		};

		return utimensat(fd, "", times, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
	}
	return 0;
}

void
slow_setattr(fuse_req_t req, fuse_ino_t number, struct stat *to, int set, struct fuse_file_info *fi)
{
	(void)fi;
	wait_as_a_server();
	if (set_attributes(number, to, set) != 0)
		fuse_reply_err(req, errno);
	else
		reply_attributes(req, number);
}

void
slow_readlink(fuse_req_t req, fuse_ino_t number)
{
	char target[4097];
	ssize_t length;

	wait_as_a_server();
	length = readlinkat(fd_of(number), "", target, sizeof target - 1);
	if (length < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	target[length] = '\0';
	fuse_reply_readlink(req, target);
}

int
give_away(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct stat st;

	if (ctx->uid == 0 && ctx->gid == 0)
		return 0;
	if (fstatat(fd_of(parent), "", &st, AT_EMPTY_PATH) != 0 ||
	    fchownat(fd_of(parent), name, ctx->uid, st.st_mode & S_ISGID ? (gid_t)-1 : ctx->gid, AT_SYMLINK_NOFOLLOW) != 0)
		return -1;
	return S_ISREG(mode) && mode & 06000 ? fchmodat(fd_of(parent), name, mode & 07777 & ~ctx->umask, 0) : 0;
}

static void
reply_made(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, int result)
{
	if (result != 0 || give_away(req, parent, name, mode) != 0)
		fuse_reply_err(req, errno);
	else
		reply_found(req, parent, name);
}

void
slow_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	char own[NAME];

	wait_as_a_server();
	name = kept(own, name);
	if (name == NULL) {
		fuse_reply_err(req, errno);
		return;
	}
	umask(fuse_req_ctx(req)->umask);
	reply_made(req, parent, name, mode, mknodat(fd_of(parent), name, mode, device));
}

void
slow_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	char own[NAME];

	wait_as_a_server();
	name = kept(own, name);
	if (name == NULL) {
		fuse_reply_err(req, errno);
		return;
	}
	umask(fuse_req_ctx(req)->umask);
	reply_made(req, parent, name, S_IFDIR | mode, mkdirat(fd_of(parent), name, mode));
}

void
slow_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	char own[NAME];

	wait_as_a_server();
	name = kept(own, name);
	if (name == NULL) {
		fuse_reply_err(req, errno);
		return;
	}
	reply_made(req, parent, name, S_IFLNK, symlinkat(target, fd_of(parent), name));
}

void
slow_link(fuse_req_t req, fuse_ino_t number, fuse_ino_t parent, const char *name)
{
	char own[NAME];

	wait_as_a_server();
	name = kept(own, name);
	if (name == NULL) {
		fuse_reply_err(req, errno);
		return;
	}
	if (linkat(fd_of(number), "", fd_of(parent), name, AT_EMPTY_PATH) != 0)
		fuse_reply_err(req, errno);
	else
		reply_found(req, parent, name);
}

void
slow_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	char own[NAME];

	wait_as_a_server();
	name = kept(own, name);
	if (name == NULL) {
		fuse_reply_err(req, errno);
		return;
	}
	reply_done(req, unlinkat(fd_of(parent), name, 0));
}

void
slow_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	char own[NAME];

	wait_as_a_server();
	name = kept(own, name);
	if (name == NULL) {
		fuse_reply_err(req, errno);
		return;
	}
	reply_done(req, unlinkat(fd_of(parent), name, AT_REMOVEDIR));
}

void
slow_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *new_name, unsigned int flags)
{
	char own[NAME], new_own[NAME];

	wait_as_a_server();
	name = kept(own, name);
	new_name = kept(new_own, new_name);
	if (name == NULL || new_name == NULL) {
		fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	reply_done(req, renameat2(fd_of(parent), name, fd_of(to), new_name, flags));
}
