/* file.c - see file.h.  Functions named do_* run on a thread of the pool. */
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

struct file_request {
	uv_work_t work;
	struct file_command command;
	char *path, *other, *input;
	struct file_answer answer;
	void (*done)(void *arg);
	void *arg;
	bool running, released;
};

static const struct {
	unsigned long magic;
	const char *name;
} file_systems[] = {
	{ 0x00c36400, "ceph" },     { 0x01021994, "tmpfs" },    { 0x01021997, "9p" },   { 0x0bd00bd0, "lustre" },
	{ 0x2fc12fc1, "zfs" },      { 0x47504653, "gpfs" },     { 0x517b, "smb" },      { 0x5346414f, "afs" },
	{ 0x58465342, "xfs" },      { 0x65735546, "fuse" },     { 0x6969, "nfs" },      { 0x794c7630, "overlay" },
	{ 0x858458f6, "ramfs" },    { 0x9123683e, "btrfs" },    { 0xef53, "ext" },      { 0xf2f52010, "f2fs" },
	{ 0xfe534d42, "smb2" },     { 0xff534d42, "cifs" },
};

const char *
file_type(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return "file";
	case S_IFDIR: return "directory";
	case S_IFLNK: return "link";
	case S_IFIFO: return "fifo";
	case S_IFSOCK: return "socket";
	case S_IFCHR: return "character device";
	case S_IFBLK: return "block device";
	default: return "unknown";
	}
}

static const char *
entry_type(unsigned char type)
{
	return type == DT_UNKNOWN ? "unknown" : file_type(DTTOIF(type));
}

/* Each do_* returns 0, or -1 with errno set. */
static int
fail_limit(struct file_request *r)
{
	r->answer.code = "ELIMIT";
	snprintf(r->answer.message, sizeof r->answer.message, "%.120s: longer than %zu bytes", r->path,
	         r->command.limit);
	return 0;
}

static int
read_all(struct file_request *r, int fd)
{
	size_t room = 4096, limit = r->command.limit;
	struct stat st;

	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && (size_t)st.st_size < limit)
		room = (size_t)st.st_size + 1;	/* one more: the read that finds the end needs room */
	for (;;) {
		ssize_t n;

		if (r->answer.bytes == NULL || r->answer.length == room) {
			char *bytes;

			room = r->answer.bytes == NULL ? room : room * 2;
			bytes = realloc(r->answer.bytes, room);
			if (bytes == NULL)
				return -1;
			r->answer.bytes = bytes;
		}
		n = read(fd, r->answer.bytes + r->answer.length, room - r->answer.length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return (int)n;
		r->answer.length += (size_t)n;
		if (r->answer.length > limit)
			return fail_limit(r);
	}
}

static int
do_read(struct file_request *r)
{
	int fd = open(r->path, O_RDONLY | O_CLOEXEC);
	int result, error;

	if (fd < 0)
		return -1;
	result = read_all(r, fd);
	error = errno;
	close(fd);
	errno = error;
	return result;
}

static int
sync_directory_of(const char *path)
{
	char directory[PATH_MAX];
	const char *slash = strrchr(path, '/');
	int fd, result, error;

	if (slash == NULL)
		strcpy(directory, ".");
	else
		snprintf(directory, sizeof directory, "%.*s", slash == path ? 1 : (int)(slash - path), path);
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	result = fsync(fd);
	if (result < 0 && errno == EINVAL)	/* some file systems have nothing to sync there */
		result = 0;
	error = errno;
	close(fd);
	errno = error;
	return result;
}

static int
write_all(int fd, const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t n = write(fd, bytes, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		bytes += n;
		length -= (size_t)n;
	}
	return 0;
}

/* A replaced file keeps its mode, a new one gets what was asked for or what the umask leaves. */
static int
fill_stage(struct file_request *r, int fd)
{
	struct stat st;

	if (r->command.mode >= 0 && fchmod(fd, (mode_t)r->command.mode) < 0)
		return -1;
	if (r->command.mode < 0 && stat(r->path, &st) == 0 && fchmod(fd, st.st_mode & 07777) < 0)
		return -1;
	if (write_all(fd, r->input, r->command.length) < 0)
		return -1;
	return r->command.whole ? fsync(fd) : 0;
}

static int
do_write(struct file_request *r)
{
	static atomic_uint count;
	char stage[PATH_MAX];
	int fd, result, error;

	if (snprintf(stage, sizeof stage, "%s.rb~%ld.%u", r->path, (long)getpid(), atomic_fetch_add(&count, 1)) >=
	    (int)sizeof stage) {
		errno = ENAMETOOLONG;
		return -1;
	}
	/* Closed to others until its mode is known: it may hold a secret. */
	fd = open(stage, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, r->command.mode >= 0 ? 0600 : 0666);
	if (fd < 0)
		return -1;
	result = fill_stage(r, fd);
	error = errno;
	if (close(fd) < 0 && result == 0) {	/* NFS says only here that it could not be stored */
		result = -1;
		error = errno;
	}
	if (result == 0 && (result = rename(stage, r->path)) < 0)
		error = errno;
	if (result < 0) {
		unlink(stage);
		errno = error;
		return -1;
	}
	return r->command.whole ? sync_directory_of(r->path) : 0;
}

static int
compare_entries(const void *a, const void *b)
{
	return strcmp(((const struct file_entry *)a)->name, ((const struct file_entry *)b)->name);
}

static int
add_entry(struct file_answer *answer, size_t *room, const struct dirent *d)
{
	char *name;

	if (answer->length == *room) {
		size_t more = *room == 0 ? 64 : *room * 2;
		struct file_entry *entries = realloc(answer->entries, more * sizeof *entries);

		if (entries == NULL)
			return -1;
		answer->entries = entries;
		*room = more;
	}
	name = strdup(d->d_name);
	if (name == NULL)
		return -1;
	answer->entries[answer->length++] = (struct file_entry){ .name = name, .type = entry_type(d->d_type) };
	return 0;
}

static int
do_list(struct file_request *r)
{
	DIR *dir = opendir(r->path);
	size_t room = 0;
	struct dirent *d;
	int error = 0;

	if (dir == NULL)
		return -1;
	while (errno = 0, (d = readdir(dir)) != NULL) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		if (add_entry(&r->answer, &room, d) < 0)
			break;
	}
	error = errno;
	closedir(dir);
	if (r->answer.length > 0)
		qsort(r->answer.entries, r->answer.length, sizeof *r->answer.entries, compare_entries);
	errno = error;
	return error != 0 ? -1 : 0;
}

static int
make_one(const char *path, mode_t mode)
{
	struct stat st;
	int error;

	if (mkdir(path, mode) == 0)
		return 1;
	error = errno;
	if (error == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return 0;
	errno = error;
	return -1;
}

static int
do_mkdir(struct file_request *r)
{
	mode_t mode = r->command.mode >= 0 ? (mode_t)r->command.mode : 0777;
	int made;

	if (!r->command.whole) {
		if (mkdir(r->path, mode) < 0)
			return -1;
		return r->command.mode >= 0 ? chmod(r->path, mode) : 0;
	}
	for (char *slash = strchr(r->path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		made = make_one(r->path, 0777);
		*slash = '/';
		if (made < 0)
			return -1;
	}
	made = make_one(r->path, mode);
	if (made == 1 && r->command.mode >= 0)	/* whatever the umask took away */
		return chmod(r->path, mode);
	return made < 0 ? -1 : 0;
}

static int
do_lock(struct file_request *r)
{
	int fd = open(r->path, O_RDWR | O_CREAT | O_CLOEXEC, r->command.mode >= 0 ? r->command.mode : 0600);
	int error;

	if (fd < 0)
		return -1;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		error = errno == EWOULDBLOCK ? EBUSY : errno;
		close(fd);
		errno = error;
		return -1;
	}
	r->answer.fd = fd;
	return 0;
}

static int
do_readlink(struct file_request *r)
{
	ssize_t n;

	r->answer.bytes = malloc(PATH_MAX);
	if (r->answer.bytes == NULL)
		return -1;
	n = readlink(r->path, r->answer.bytes, PATH_MAX);
	if (n < 0)
		return -1;
	r->answer.length = (size_t)n;
	return 0;
}

static int
do_realpath(struct file_request *r)
{
	r->answer.bytes = realpath(r->path, NULL);
	if (r->answer.bytes == NULL)
		return -1;
	r->answer.length = strlen(r->answer.bytes);
	return 0;
}

static int
do_rename(struct file_request *r)
{
	if (rename(r->path, r->other) < 0)
		return -1;
	return r->command.whole ? sync_directory_of(r->other) : 0;
}

static int
do_statfs(struct file_request *r)
{
	struct statfs fs;

	if (statvfs(r->path, &r->answer.space) < 0 || statfs(r->path, &fs) < 0)
		return -1;
	r->answer.space_magic = (unsigned long)fs.f_type & 0xfffffffful;
	r->answer.space_type = "";
	for (size_t i = 0; i < sizeof file_systems / sizeof *file_systems; i++)
		if (file_systems[i].magic == r->answer.space_magic)
			r->answer.space_type = file_systems[i].name;
	return 0;
}

static int
do_open(struct file_request *r)
{
	int fd = open(r->path, r->command.flags | O_CLOEXEC, r->command.mode >= 0 ? r->command.mode : 0666);
	off_t from = (off_t)r->command.from;
	int error;

	if (fd < 0)
		return -1;
	if (from >= 0 && ((r->command.flags & O_APPEND) ? ftruncate(fd, from) : lseek(fd, from, SEEK_SET)) < 0) {
		error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	r->answer.fd = fd;
	return 0;
}

static int
do_command(struct file_request *r)
{
	switch (r->command.operation) {
	case FILE_CHMOD: return chmod(r->path, (mode_t)r->command.mode);
	case FILE_LIST: return do_list(r);
	case FILE_LOCK: return do_lock(r);
	case FILE_LSTAT: return lstat(r->path, &r->answer.st);
	case FILE_MKDIR: return do_mkdir(r);
	case FILE_OPEN: return do_open(r);
	case FILE_READ: return do_read(r);
	case FILE_READLINK: return do_readlink(r);
	case FILE_REALPATH: return do_realpath(r);
	case FILE_RENAME: return do_rename(r);
	case FILE_RMDIR: return rmdir(r->path);
	case FILE_STAT: return stat(r->path, &r->answer.st);
	case FILE_STATFS: return do_statfs(r);
	case FILE_SYMLINK: return symlink(r->other, r->path);
	case FILE_UNLINK: return unlink(r->path);
	case FILE_WRITE: return do_write(r);
	}
	errno = EINVAL;
	return -1;
}

static void
on_worker(uv_work_t *work)
{
	struct file_request *r = work->data;

	if (do_command(r) < 0) {
		int error = uv_translate_sys_error(errno);

		r->answer.code = uv_err_name(error);
		snprintf(r->answer.message, sizeof r->answer.message, "%.120s: %s", r->path, uv_strerror(error));
	}
}

static void
destroy(struct file_request *r)
{
	if (r->answer.fd >= 0)
		close(r->answer.fd);
	if (r->answer.entries != NULL)
		for (size_t i = 0; i < r->answer.length; i++)
			free((char *)r->answer.entries[i].name);
	free(r->answer.entries);
	free(r->answer.bytes);
	if (r->input != NULL)
		explicit_bzero(r->input, r->command.length);	/* it may have been a secret */
	free(r->input);
	free(r->other);
	free(r->path);
	free(r);
}

static void
after_work(uv_work_t *work, int status)
{
	struct file_request *r = work->data;

	(void)status;	/* UV_ECANCELED comes only after file_free, which asked for it */
	r->running = false;
	if (r->released)
		destroy(r);
	else
		r->done(r->arg);
}

static bool
copy_command(struct file_request *r, const struct file_command *c)
{
	r->command = *c;
	r->path = strdup(c->path);
	r->other = strdup(c->other != NULL ? c->other : "");
	if (c->bytes != NULL) {
		r->input = malloc(c->length + 1);
		if (r->input != NULL)
			memcpy(r->input, c->bytes, c->length);
	}
	return r->path != NULL && r->other != NULL && (c->bytes == NULL || r->input != NULL);
}

struct file_request *
file_start(uv_loop_t *loop, const struct file_command *command, void (*done)(void *arg), void *arg)
{
	struct file_request *r = calloc(1, sizeof *r);

	if (r == NULL)
		return NULL;
	r->answer.fd = -1;
	r->done = done;
	r->arg = arg;
	r->work.data = r;
	if (!copy_command(r, command) || uv_queue_work(loop, &r->work, on_worker, after_work) != 0) {
		destroy(r);
		return NULL;
	}
	r->running = true;
	return r;
}

const struct file_answer *
file_answer(const struct file_request *r)
{
	return &r->answer;
}

int
file_take_fd(struct file_request *r)
{
	int fd = r->answer.fd;

	r->answer.fd = -1;
	return fd;
}

void
file_free(struct file_request *r)
{
	if (r == NULL)
		return;
	if (!r->running) {
		destroy(r);
		return;
	}
	r->released = true;
	uv_cancel((uv_req_t *)&r->work);	/* only what no worker has begun */
}
