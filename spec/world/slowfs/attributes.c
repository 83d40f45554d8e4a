/* attributes.c - calls about attributes of files, and about the file system. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include "slowfs.h"

static const char CALLS[] = "trusted.slowfs.calls";

void
slow_statfs(fuse_req_t req, fuse_ino_t number)
{
	struct statvfs st;

	wait_as_a_server();
	if (fstatvfs(fd_of(number), &st) != 0)
		fuse_reply_err(req, errno);
	else {
		st.f_namemax = poor ? POOR_NAME : st.f_namemax;
		fuse_reply_statfs(req, &st);
	}
}

/* An attribute's value or the list of them, which came out as `length`. */
static void
reply_value(fuse_req_t req, const char *value, size_t size, ssize_t length)
{
	if (length < 0)
		fuse_reply_err(req, errno);
	else if (size == 0)
		fuse_reply_xattr(req, (size_t)length);
	else
		fuse_reply_buf(req, value, (size_t)length);
}

void
slow_getxattr(fuse_req_t req, fuse_ino_t number, const char *name, size_t size)
{
	char path[PATH], value[65536];
	ssize_t length;

	if (number == FUSE_ROOT_ID && strcmp(name, CALLS) == 0) {
		length = snprintf(value, sizeof value, "%llu", calls);
		if (size != 0 && (size_t)length > size) {
			errno = ERANGE;
			length = -1;
		}
		reply_value(req, value, size, length);
		return;
	}
	if (poor) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	if (strcmp(name, "security.capability") != 0)	/* the kernel asks for it before each write; no file server is asked */
		wait_as_a_server();
	path_of(path, number);
	length = getxattr(path, name, value, size < sizeof value ? size : sizeof value);
	reply_value(req, value, size, length);
}

void
slow_listxattr(fuse_req_t req, fuse_ino_t number, size_t size)
{
	char path[PATH], list[65536];

	if (poor) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	wait_as_a_server();
	path_of(path, number);
	reply_value(req, list, size, listxattr(path, list, size < sizeof list ? size : sizeof list));
}

void
slow_setxattr(fuse_req_t req, fuse_ino_t number, const char *name, const char *value, size_t size, int flags)
{
	char path[PATH];

	if (poor) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	wait_as_a_server();
	path_of(path, number);
	reply_done(req, setxattr(path, name, value, size, flags));
}

void
slow_removexattr(fuse_req_t req, fuse_ino_t number, const char *name)
{
	char path[PATH];

	if (poor) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	wait_as_a_server();
	path_of(path, number);
	reply_done(req, removexattr(path, name));
}
