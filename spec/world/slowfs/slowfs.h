/*
 * slowfs.h - what the parts of slowfs share: what the kernel knows of (inodes.c), calls about names and inodes
 * (names.c), about attributes of files (attributes.c), about what is open (files.c), and the mount (main.c).
 */
#ifndef SLOWFS_H
#define SLOWFS_H

#define FUSE_USE_VERSION 312

#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

/* What the kernel knows of, by an O_PATH descriptor: that follows every rename, and opens nothing. */
struct inode {
	struct inode *next;	/* in its bucket */
	int fd;
	dev_t dev;
	ino_t ino;
	uint64_t lookups;	/* by the kernel, not yet forgotten */
};

extern struct inode root;
extern double cached;	/* seconds */
extern struct timespec delay;
extern atomic_ullong calls;

/* First in every call that is slow. */
void wait_as_a_server(void);

struct inode *inode_of(fuse_ino_t number);
int fd_of(fuse_ino_t number);

/* A path, for this thread, of the inode itself, be it a symlink. */
enum { PATH = 32 };
void path_of(char path[static PATH], fuse_ino_t number);

/* 0 or an error number; the entry counts as looked up until put_inode. */
int find(fuse_ino_t parent, const char *name, struct fuse_entry_param *entry);
void put_inode(struct inode *i, uint64_t lookups);

void reply_done(fuse_req_t req, int result);

/* -p: two cases of a name are one, names are short, and there are no xattrs, as on file systems of other worlds. */
extern bool poor;
enum { POOR_NAME = 100, NAME = 256 };
/* A name as it is kept; NULL with errno when it is too long. */
const char *kept(char name[static NAME], const char *given);

/* What was just made belongs to who asked for it; the group of a setgid directory stays.  0, or -1 and errno. */
int give_away(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);

/* The calls, as fuse_lowlevel.h describes them. */
void slow_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void slow_forget(fuse_req_t req, fuse_ino_t number, uint64_t lookups);
void slow_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void slow_getattr(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *fi);
void slow_setattr(fuse_req_t req, fuse_ino_t number, struct stat *to, int set, struct fuse_file_info *fi);
void slow_readlink(fuse_req_t req, fuse_ino_t number);
void slow_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device);
void slow_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void slow_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void slow_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void slow_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void slow_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *new_name, unsigned int flags);
void slow_link(fuse_req_t req, fuse_ino_t number, fuse_ino_t parent, const char *name);
void slow_open(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *fi);
void slow_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void slow_read(fuse_req_t req, fuse_ino_t number, size_t size, off_t offset, struct fuse_file_info *fi);
void slow_write(fuse_req_t req, fuse_ino_t number, struct fuse_bufvec *from, off_t offset, struct fuse_file_info *fi);
void slow_release(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *fi);
void slow_fsync(fuse_req_t req, fuse_ino_t number, int data_only, struct fuse_file_info *fi);
void slow_fallocate(fuse_req_t req, fuse_ino_t number, int mode, off_t offset, off_t length, struct fuse_file_info *fi);
void slow_lseek(fuse_req_t req, fuse_ino_t number, off_t offset, int whence, struct fuse_file_info *fi);
void slow_opendir(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *fi);
void slow_readdir(fuse_req_t req, fuse_ino_t number, size_t size, off_t offset, struct fuse_file_info *fi);
void slow_releasedir(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *fi);
void slow_statfs(fuse_req_t req, fuse_ino_t number);
void slow_getxattr(fuse_req_t req, fuse_ino_t number, const char *name, size_t size);
void slow_listxattr(fuse_req_t req, fuse_ino_t number, size_t size);
void slow_setxattr(fuse_req_t req, fuse_ino_t number, const char *name, const char *value, size_t size, int flags);
void slow_removexattr(fuse_req_t req, fuse_ino_t number, const char *name);

#endif
