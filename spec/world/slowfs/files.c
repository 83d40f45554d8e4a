/* files.c - calls about open files and directories. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "slowfs.h"

struct listing {
	DIR *dir;
	struct dirent *ahead;	/* read, and did not fit any more */
	off_t offset;
};

void
slow_open(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *fi)
{
	char path[PATH];
	int fd;

	wait_as_a_server();
	path_of(path, number);
	fd = open(path, (fi->flags & ~(O_NOFOLLOW | O_APPEND | O_DIRECT)) | O_CLOEXEC);
	if (fd < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	fi->fh = (uint64_t)fd;
	if (fuse_reply_open(req, fi) == -ENOENT)
		close(fd);
}

void
slow_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_entry_param entry;
	int fd, code;
	char own[NAME];

	wait_as_a_server();
	name = kept(own, name);
	if (name == NULL) {
		fuse_reply_err(req, errno);
		return;
	}
	umask(fuse_req_ctx(req)->umask);
	fd = openat(fd_of(parent), name, (fi->flags & ~(O_APPEND | O_DIRECT)) | O_CREAT | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	code = give_away(req, parent, name, S_IFREG | mode) != 0 ? errno : find(parent, name, &entry);
	if (code != 0) {
		close(fd);
		fuse_reply_err(req, code);
		return;
	}
	fi->fh = (uint64_t)fd;
	if (fuse_reply_create(req, &entry, fi) == -ENOENT) {
		close(fd);
		put_inode(inode_of(entry.ino), 1);
	}
}

void
slow_read(fuse_req_t req, fuse_ino_t number, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct fuse_bufvec from = FUSE_BUFVEC_INIT(size);

	(void)number;
	from.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	from.buf[0].fd = (int)fi->fh;
	from.buf[0].pos = offset;
	fuse_reply_data(req, &from, FUSE_BUF_SPLICE_MOVE);
}

void
slow_write(fuse_req_t req, fuse_ino_t number, struct fuse_bufvec *from, off_t offset, struct fuse_file_info *fi)
{
	struct fuse_bufvec to = FUSE_BUFVEC_INIT(fuse_buf_size(from));
	ssize_t written;

	(void)number;
	to.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	to.buf[0].fd = (int)fi->fh;
	to.buf[0].pos = offset;
	written = fuse_buf_copy(&to, from, 0);
	if (written < 0)
		fuse_reply_err(req, (int)-written);
	else
		fuse_reply_write(req, (size_t)written);
}

void
slow_release(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *fi)
{
	(void)number;
	close((int)fi->fh);
	fuse_reply_err(req, 0);
}

void
slow_fsync(fuse_req_t req, fuse_ino_t number, int data_only, struct fuse_file_info *fi)
{
	(void)number;
	wait_as_a_server();
	reply_done(req, data_only ? fdatasync((int)fi->fh) : fsync((int)fi->fh));
}

void
slow_fallocate(fuse_req_t req, fuse_ino_t number, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	(void)number;
	wait_as_a_server();
	reply_done(req, fallocate((int)fi->fh, mode, offset, length));
}

void
slow_lseek(fuse_req_t req, fuse_ino_t number, off_t offset, int whence, struct fuse_file_info *fi)
{
	off_t at;

	(void)number;
	wait_as_a_server();
	at = lseek((int)fi->fh, offset, whence);
	if (at < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lseek(req, at);
}

void
slow_opendir(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *fi)
{
	struct listing *l = calloc(1, sizeof *l);
	int fd;

	wait_as_a_server();
	fd = l != NULL ? openat(fd_of(number), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (l != NULL && fd >= 0)
		l->dir = fdopendir(fd);
	if (l == NULL || l->dir == NULL) {
		fuse_reply_err(req, l == NULL ? ENOMEM : errno);
		free(l);
		return;
	}
	fi->fh = (uintptr_t)l;
	if (fuse_reply_open(req, fi) == -ENOENT) {
		closedir(l->dir);
		free(l);
	}
}

void
slow_readdir(fuse_req_t req, fuse_ino_t number, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct listing *l = (struct listing *)(uintptr_t)fi->fh;
	char *page = malloc(size);
	size_t used = 0;

	(void)number;
	wait_as_a_server();
	if (offset != l->offset) {
		seekdir(l->dir, offset);
		l->ahead = NULL;
		l->offset = offset;
	}
	for (errno = page == NULL ? ENOMEM : 0; page != NULL;) {
		struct stat st = { 0 };
		size_t needed;

		if (l->ahead == NULL && (l->ahead = readdir(l->dir)) == NULL)
			break;
		st.st_ino = l->ahead->d_ino;
		st.st_mode = (mode_t)l->ahead->d_type << 12;
		needed = fuse_add_direntry(req, page + used, size - used, l->ahead->d_name, &st, l->ahead->d_off);
		if (needed > size - used)
			break;
		used += needed;
		l->offset = l->ahead->d_off;
		l->ahead = NULL;
	}
	if (used == 0 && errno != 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, page, used);
	free(page);
}

void
slow_releasedir(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *fi)
{
	struct listing *l = (struct listing *)(uintptr_t)fi->fh;

	(void)number;
	closedir(l->dir);
	free(l);
	fuse_reply_err(req, 0);
}
